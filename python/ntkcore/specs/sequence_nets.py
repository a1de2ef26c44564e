"""Ready networks of sequences, and of images as sequences of patches."""

from __future__ import annotations

from ntkcore.specs.activations import Relu
from ntkcore.specs.attention import GlobalSelfAttention
from ntkcore.specs.beside import MaskedInput
from ntkcore.specs.branches import Residual
from ntkcore.specs.convolutions import Conv, GlobalAvgPool
from ntkcore.specs.layers import Dense, Layer, LayerNorm, Serial, is_whole
from ntkcore.specs.nets import HE, head_of
from ntkcore.specs.recurrent import Recurrent


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
    if not is_whole(patch) or patch < 1:
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
    readout = head_of(name, head)
    if not is_whole(depth) or depth < 1:
        raise ValueError(f"{name}: depth must be a positive number of blocks, not {depth!r}")
    dense = Dense(embedding.W_std, embedding.b_std)
    attends = attention or GlobalSelfAttention(pos_emb_type="sum")
    block = (
        Residual(LayerNorm(), attends),
        Residual(LayerNorm(), dense, activation or Relu(), dense),
    )
    return Serial(*start, embedding, *block * int(depth), LayerNorm(), readout, dense)


def rnn(
    depth: int = 1,
    head: str = "last",
    W_std: float = HE,
    U_std: float = 1.0,
    b_std: float | None = None,
    activation: Layer | None = None,
) -> Serial:
    """A recurrent network of sequences, samples (positions, features): `Recurrent` layers, each
    with its nonlinearity behind it, and a read-out.

    Parameters
    ----------
    depth : int, default=1
        Recurrent layers.
    head : {"last", "gap"}, default="last"
        Of the last layer's states the last, or their mean over positions.
    W_std : float, default=sqrt(2)
        Standard deviation of the weights of states, and of the read-out: He's scaling.
    U_std : float, default=1
        That of the weights of inputs.
    b_std : float, optional
        That of all biases; None: no biases.
    activation : Layer, optional
        By default `Relu`.

    Returns
    -------
    Serial

    References
    ----------
    Alemohammad et al. 2021 (arXiv 2006.10246).

    Examples
    --------
    Sequences of different lengths are packed with the same end, behind a `MaskedInput`.

    >>> import numpy as np
    >>> import ntkcore as nk
    >>> x = nk.pack_sequences([np.ones((2, 3)), np.ones((4, 3))], align="right")
    >>> nk.kernel(nk.Serial(nk.MaskedInput(), nk.rnn()), x).shape
    (2, 2)
    """
    if not is_whole(depth) or depth < 1:
        raise ValueError(f"rnn: depth must be a positive number of layers, not {depth!r}")
    if head not in ("last", "gap"):
        raise ValueError(f"rnn: head must be 'last' or 'gap', not {head!r}")
    phi = activation or Relu()
    layer = Recurrent(phi, W_std, U_std, b_std)
    top = Recurrent(phi, W_std, U_std, b_std, return_sequences=head == "gap")
    pool = (GlobalAvgPool(),) if head == "gap" else ()
    body = (layer, phi) * (int(depth) - 1)
    return Serial(*body, top, phi, *pool, Dense(W_std, b_std))
