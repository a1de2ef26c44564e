"""Ready networks of the literature, as plain specs."""

from __future__ import annotations

from numbers import Integral

from ntkcore.specs.activations import Relu
from ntkcore.specs.attention import GlobalSelfAttention
from ntkcore.specs.beside import MaskedInput
from ntkcore.specs.branches import Residual
from ntkcore.specs.convolutions import AvgPool, Conv, Flatten, GlobalAvgPool
from ntkcore.specs.layers import Dense, Layer, LayerNorm, Serial

HE = 2**0.5


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
    heads = {"gap": GlobalAvgPool(), "flatten": Flatten()}
    if head not in heads:
        raise ValueError(f"cntk: head must be 'gap' or 'flatten', not {head!r}")
    conv = Conv((3, 3), (1, 1), "SAME", W_std, b_std)
    return Serial(*(conv, Relu()) * depth, heads[head], Dense(W_std, b_std))


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


def transformer(
    depth: int,
    *,
    masked: bool = False,
    head: str = "gap",
    attention: Layer | None = None,
    activation: Layer | None = None,
    W_std: float = HE,
    b_std: float | None = None,
) -> Serial:
    """A transformer encoder of sequences (samples, positions, features).

    An affine embedding; blocks of attention and of a hidden layer at every position, each behind a
    layer normalisation and beside a shortcut; a normalisation, a read-out.

    Parameters
    ----------
    depth : int
        Blocks.
    masked : bool, default=False
        Whether the data are those of `pack_sequences`, masked or of different lengths.
    head : {"gap", "flatten"}, default="gap"
        A mean over all positions, or flattened.
    attention : Layer, optional
        By default ``GlobalSelfAttention(pos_emb_type="sum")``: softmax, and an embedding of every
        position, independent of all others.
    activation : Layer, optional
        Of the hidden layers; by default `Relu`.
    W_std : float, default=sqrt(2)
        Standard deviation of the weights outside attention: He's scaling.
    b_std : float, optional
        That of their biases; None: no biases.

    Returns
    -------
    Serial

    References
    ----------
    Vaswani et al. 2017, section 3, with normalisations before (Xiong et al. 2020, figure 1b);
    Hron et al. 2020 (its limit).

    Examples
    --------
    >>> from ntkcore import kernel, transformer
    >>> import numpy as np
    >>> kernel(transformer(2), np.ones((3, 5, 4))).shape
    (3, 3)
    """
    start: list[Layer] = [MaskedInput()] if masked else []
    embedding = Dense(W_std, b_std)
    return _encoder("transformer", start, embedding, depth, head, attention, activation)


def vit(
    depth: int,
    patch: int = 4,
    *,
    head: str = "gap",
    attention: Layer | None = None,
    activation: Layer | None = None,
    W_std: float = HE,
    b_std: float | None = None,
) -> Serial:
    """A vision transformer: `transformer` on patches of images (samples, height, width, channels).

    Parameters
    ----------
    depth : int
        Blocks.
    patch : int, default=4
        Side of a patch in pixels.
    head, attention, activation, W_std, b_std
        As of `transformer`.

    Returns
    -------
    Serial

    References
    ----------
    Dosovitskiy et al. 2021, section 3.1, with a mean over patches as its read-out.

    Examples
    --------
    >>> from ntkcore import kernel, vit
    >>> import numpy as np
    >>> kernel(vit(1), np.ones((3, 8, 8, 1))).shape
    (3, 3)
    """
    if isinstance(patch, bool) or not isinstance(patch, Integral) or patch < 1:
        raise ValueError(f"vit: patch must be a number of pixels, not {patch!r}")
    sides = int(patch), int(patch)
    embedding = Conv(sides, sides, "VALID", W_std, b_std)
    return _encoder("vit", [], embedding, depth, head, attention, activation)


def _encoder(
    name: str,
    start: list[Layer],
    embedding: Dense | Conv,
    depth: int,
    head: str,
    attention: Layer | None,
    activation: Layer | None,
) -> Serial:
    heads = {"gap": GlobalAvgPool(), "flatten": Flatten()}
    if head not in heads:
        raise ValueError(f"{name}: head must be 'gap' or 'flatten', not {head!r}")
    if isinstance(depth, bool) or not isinstance(depth, Integral) or depth < 1:
        raise ValueError(f"{name}: depth must be a positive number of blocks, not {depth!r}")
    dense = Dense(embedding.W_std, embedding.b_std)
    attends = attention or GlobalSelfAttention(pos_emb_type="sum")
    block = (
        Residual(LayerNorm(), attends),
        Residual(LayerNorm(), dense, activation or Relu(), dense),
    )
    end = LayerNorm(), heads[head], dense
    return Serial(*start, embedding, *block * int(depth), *end)
