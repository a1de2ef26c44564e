"""Ready networks of the literature, as plain specs."""

from __future__ import annotations

from numbers import Integral

from ntkcore.specs.activations import Relu
from ntkcore.specs.branches import Residual
from ntkcore.specs.convolutions import AvgPool, Conv, Flatten, GlobalAvgPool
from ntkcore.specs.layers import Dense, Layer, Serial

HE = 2**0.5


def head_of(net: str, head: str) -> Layer:
    """The read-out of this name; ValueError for another one."""
    heads = {"gap": GlobalAvgPool(), "flatten": Flatten()}
    if head not in heads:
        raise ValueError(f"{net}: head must be 'gap' or 'flatten', not {head!r}")
    return heads[head]


def mlp(
    depth: int, W_std: float = HE, b_std: float | None = None, activation: Layer | None = None
) -> Serial:
    """A fully connected network: hidden layers, and a read-out.

    Parameters
    ----------
    depth : int
        Hidden layers.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.
    activation : Layer, optional
        By default `Relu`.

    Returns
    -------
    Serial

    Examples
    --------
    >>> from ntkcore import mlp
    >>> mlp(1, 1.0)
    Serial(Dense(), Relu(), Dense())
    """
    if isinstance(depth, bool) or not isinstance(depth, Integral) or depth < 0:
        raise ValueError(f"mlp: depth must be a number of hidden layers, not {depth!r}")
    dense = Dense(W_std, b_std)
    return Serial(*(dense, activation or Relu()) * int(depth), dense)


def cntk(depth: int, head: str = "gap", W_std: float = HE, b_std: float | None = None) -> Serial:
    """3x3 convolutions with ReLU (zero padding), then a read-out.

    Parameters
    ----------
    depth : int
        Convolutions.
    head : {"gap", "flatten"}, default="gap"
        A mean over all pixels, or flattened.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.

    Returns
    -------
    Serial

    References
    ----------
    Arora et al. 2019, section 4. Their code, besides, freezes the first and last layers; its
    "flatten" is a trace, not a mean.

    Examples
    --------
    >>> from ntkcore import cntk, kernel
    >>> import numpy as np
    >>> kernel(cntk(2), np.ones((3, 4, 4, 1))).shape
    (3, 3)
    """
    conv = Conv((3, 3), (1, 1), "SAME", W_std, b_std)
    return Serial(*(conv, Relu()) * depth, head_of("cntk", head), Dense(W_std, b_std))


def myrtle(depth: int, W_std: float = HE, b_std: float | None = None) -> Serial:
    """The Myrtle networks for 32x32 images.

    Parameters
    ----------
    depth : {5, 7, 10}
        Layers.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.

    Returns
    -------
    Serial

    References
    ----------
    Page 2018; Shankar et al. 2020, figure 1.

    Examples
    --------
    >>> from ntkcore import myrtle
    >>> len(myrtle(5).layers)
    13
    """
    blocks = {5: (1, 1, 1), 7: (1, 2, 2), 10: (2, 3, 3)}
    if depth not in blocks:
        raise ValueError(f"myrtle: depth must be 5, 7 or 10, not {depth!r}")
    conv, pool = Conv((3, 3), (1, 1), "SAME", W_std, b_std), AvgPool((2, 2), (2, 2))
    body = [layer for count in blocks[depth] for layer in (*(conv, Relu()) * count, pool)]
    return Serial(*body, pool, pool, Flatten(), Dense(W_std, b_std))


def resnet(blocks: int = 1, W_std: float = HE, b_std: float | None = None) -> Serial:
    """A network like WideResNet: a convolution, three groups of blocks, a mean over all pixels.

    The blocks are pre-activation ones; the last two groups halve the image.

    Parameters
    ----------
    blocks : int, default=1
        Of a group.
    W_std : float, default=sqrt(2)
        Standard deviation of all weights: He's scaling.
    b_std : float, optional
        That of all biases; None: no biases.

    Returns
    -------
    Serial

    References
    ----------
    Zagoruyko & Komodakis 2016, table 1; as in Novak et al. 2020.

    Examples
    --------
    >>> from ntkcore import kernel, resnet
    >>> import numpy as np
    >>> kernel(resnet(), np.ones((2, 8, 8, 1))).shape
    (2, 2)
    """
    if not isinstance(blocks, int) or blocks < 1:
        raise ValueError(
            f"resnet: blocks must be a positive number of blocks per group, not {blocks!r}"
        )

    def conv(stride: int = 1) -> Conv:
        return Conv((3, 3), (stride, stride), "SAME", W_std, b_std)

    def block(stride: int, changes: bool) -> Residual:
        shortcut = conv(stride) if changes else None
        return Residual(Relu(), conv(stride), Relu(), conv(), shortcut=shortcut)

    groups = [block(stride if i == 0 else 1, i == 0) for stride in (1, 2, 2) for i in range(blocks)]
    return Serial(conv(), *groups, Relu(), GlobalAvgPool(), Dense(W_std, b_std))
