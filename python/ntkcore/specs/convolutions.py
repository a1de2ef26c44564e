"""Layers of images (NHWC), sequences (NWC), volumes (NDHWC): convolutions, pools, and the read-outs
that turn them into vectors. How many axes a layer takes is the number of its window's sizes.

With A[M](p, p') = mean over the filter window of M(p + k, p' + k), terms out of range being 0
(Novak et al. 2019; Arora et al. 2019):

    Conv:     K <- W_std^2 A[K] + b_std^2,   T <- K_new + W_std^2 A[T]
    AvgPool:  K(o, o') <- mean over both windows;
    GlobalAvgPool: mean over all (p, p');  Flatten: mean over p = p'
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, field
from math import prod
from typing import Any

import numpy as np

from ntkcore.specs.layers import QUIET, Dense, Layer, Signal, check_flag, is_whole, single
from ntkcore.specs.program import Builder, Side, Value
from ntkcore.specs.windows import Shape, Window, same_window, valid_window

LARGEST_SIZE = 2**14  # of windows, strides and dilations, as the extension takes them
MOST_POSITIONS = 2**16  # whose pairs have covariances of their own
PADDINGS = ("SAME", "VALID", "CIRCULAR")


class Windowed(Layer, abstract=True):
    """Base of the layers with windows: one number per axis of positions."""

    strides: Shape
    padding: str

    @property
    def window(self) -> Shape:
        """Its sizes along the axes of positions."""
        raise NotImplementedError

    def _check(self, size: str) -> None:
        """The field ``size`` and the others that say where windows lie, made plain."""
        rank = self._sizes(size)
        self._sizes("strides", rank)
        padding = str(self.padding).upper()
        if padding not in PADDINGS:
            raise ValueError(
                f"{type(self).__name__}: padding must be one of {', '.join(PADDINGS)}, not"
                f" {padding!r}"
            )
        object.__setattr__(self, "padding", padding)

    def _sizes(self, name: str, rank: int | None = None) -> int:
        """A field as positive numbers, by default ones; how many."""
        given: Any = getattr(self, name)
        if rank and (given is None or (isinstance(given, tuple) and not given)):
            given = (1,) * rank
        given = (given,) * (rank or 2) if is_whole(given) else given
        listed = tuple(given) if isinstance(given, Iterable) else ()
        sizes = tuple(map(int, listed)) if all(map(is_whole, listed)) else ()
        fits = len(sizes) == (rank or max(len(sizes), 1))
        if not fits or not 1 <= min(sizes) <= max(sizes) <= LARGEST_SIZE:
            count = f"{rank}, one" if rank else "one"
            raise ValueError(
                f"{type(self).__name__}: {name} must hold whole numbers from 1 to {LARGEST_SIZE},"
                f" {count} for every axis of its window, such as {(2,) * (rank or 2)}, not"
                f" {given!r}"
            )
        object.__setattr__(self, name, sizes)
        return len(sizes)

    def _shown(self, field: Field[Any]) -> bool:
        ones = field.name in ("strides", "dilation") and set(getattr(self, field.name)) == {1}
        return not ones and super()._shown(field)


def image_of(layer: Layer, builder: Builder, value: Signal) -> Value:
    """The signal of a layer that takes one with positions."""
    value = single(layer, builder, value)
    if not value.is_image:
        raise builder.error(
            layer,
            "needs images (height, width, channels) or other positions with channels, got vectors"
            f" of shape {value.shape}",
        )
    return value


def check_rank(layer: Layer, builder: Builder, value: Value, rank: int) -> None:
    """ValueError naming the layer whose window has other axes than the data."""
    if rank == len(value.image):
        return
    kinds = {1: "sequences (length, channels)", 2: "images (height, width, channels)"}
    hint = "; images without channels are x[..., None]" if rank == len(value.image) + 1 else ""
    raise builder.error(
        layer,
        f"has a window of {rank} ax{'is' if rank == 1 else 'es'}, for"
        f" {kinds.get(rank, f'{rank} axes and channels')}, but gets samples of shape"
        f" {value.shape}{hint}",
    )


def too_many(image: Shape) -> str | None:
    """What is wrong with so many positions, of which all pairs would have covariances."""
    if prod(image) <= MOST_POSITIONS:
        return None
    return (
        f"makes {' x '.join(map(str, image))} positions, and needs covariances of all pairs, of"
        f" {MOST_POSITIONS} at most: make fewer of them"
    )


def check_positions(layer: Layer, builder: Builder, image: Shape) -> None:
    """ValueError naming the layer that makes too many of them, before any work."""
    if problem := too_many(image):
        raise builder.error(layer, problem)


def window_of(layer: Windowed, image: Shape) -> Window:
    """Where the layer's windows lie in an image, of no pixel perhaps."""
    place = valid_window if layer.padding == "VALID" else same_window
    return place(layer.window, image, layer.strides, getattr(layer, "dilation", ()))


def _window(layer: Windowed, builder: Builder, value: Value) -> Window:
    """`window_of`; ValueError naming the layer where none fits."""
    check_rank(layer, builder, value, len(layer.window))
    window = window_of(layer, value.image)
    if min(window.out) < 1:
        raise builder.error(
            layer,
            f"a window of {layer.window} without padding leaves no pixel of an image of"
            f" {value.image}",
        )
    return window


@dataclass(frozen=True, repr=False)
class Convolution(Windowed, abstract=True):
    """What convolutions share: the fields of `Conv`."""

    filter_shape: Shape
    strides: Shape = ()
    padding: str = "VALID"
    W_std: float = 1.0
    b_std: float | None = None
    parameterization: str = "ntk"
    channels: int | None = None

    def __post_init__(self) -> None:
        self._check("filter_shape")
        self._dense()

    @property
    def window(self) -> Shape:
        return self.filter_shape

    def _dense(self) -> Dense:
        try:
            return Dense(self.W_std, self.b_std, self.parameterization, self.channels)
        except (TypeError, ValueError) as error:
            text = str(error).replace("Dense: width", "Dense: channels")
            raise type(error)(text.replace("Dense", type(self).__name__)) from None

    def _coefficients(self, builder: Builder, value: Value) -> tuple[float, float, float, float]:
        """The constants of its op."""
        a, b, e, f = self._dense().coefficients(self, builder, value)
        # e K, the weights' own part, is a sum over the window's pixels where A takes their mean.
        return a, b, e * prod(self.window) if self.parameterization == "standard" else e, f

    def _arguments(self, builder: Builder, value: Signal) -> tuple[Any, ...]:
        """Those of `Builder.conv`."""
        value = image_of(self, builder, value)
        window, params = _window(self, builder, value), self._coefficients(builder, value)
        return value, window, self.padding == "CIRCULAR", params, self.channels


@dataclass(frozen=True, repr=False)
class Conv(Convolution):
    """Convolution over images of shape (h, w, channels), or over any number of axes.

    Parameters
    ----------
    filter_shape : tuple of int
        One positive number for every axis of the data but the channels: (length,),
        (height, width), (depth, height, width).
    strides : tuple of int, optional
        As many; by default ones.
    padding : {"VALID", "SAME", "CIRCULAR"}, default="VALID"
        As in neural-tangents. SAME adds zeros; CIRCULAR wraps around,
        a filter larger than the image more than once.
    W_std : float, default=1
        Standard deviation of the weights.
    b_std : float, optional
        That of the biases; None: no biases.
    parameterization : {"ntk", "standard"}, default="ntk"
        "ntk": weights scaled by 1/sqrt(width); "standard": T <- n_in K + W_std^2 T + 1[bias], with
        n_in the width that the layer before declared.
    channels : int, optional
        Of the output; only needed by a following layer in "standard".
    dilation : tuple of int, optional
        Steps between neighbours in the window, as many; by default ones.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Conv, Flatten, Serial, kernel
    >>> kernel(Serial(Conv((2, 2)), Flatten()), np.ones((1, 2, 2, 1)))
    array([[1.]])
    """

    dilation: Shape = field(default=(), metadata=QUIET)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sizes("dilation", len(self.filter_shape))

    def lower(self, builder: Builder, value: Signal) -> Value:
        return builder.conv(*self._arguments(builder, value))


@dataclass(frozen=True, repr=False)
class ConvLocal(Convolution):
    """A convolution whose weights and biases are other ones at every position: K, T of `Conv` where
    p = p', and 0 elsewhere.

    Parameters
    ----------
    filter_shape, strides, padding, W_std, b_std, parameterization, channels
        As for `Conv`.

    Examples
    --------
    >>> from ntkcore import ConvLocal
    >>> ConvLocal((3, 3), padding="SAME")
    ConvLocal(filter_shape=(3, 3), padding='SAME')
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        return builder.conv_local(*self._arguments(builder, value))


@dataclass(frozen=True, repr=False)
class ConvTranspose(Convolution):
    """Transposed convolution: every pixel of the input adds its filter to the output, ``strides``
    apart (as in `jax.lax.conv_transpose`).

    The output has n s + max(k - s, 0) positions along an axis of n under VALID, and n s else.
    CIRCULAR wraps around what reaches beyond them.

    Parameters
    ----------
    filter_shape, strides, padding, W_std, b_std, parameterization, channels
        As for `Conv`. Weights are scaled as those of a convolution are.

    Examples
    --------
    >>> from ntkcore import ConvTranspose
    >>> ConvTranspose((2, 2), (2, 2))
    ConvTranspose(filter_shape=(2, 2), strides=(2, 2))
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = image_of(self, builder, value)
        check_rank(self, builder, value, len(self.window))
        axes = zip(value.image, self.window, self.strides, strict=True)
        beyond = self.padding == "VALID"
        check_positions(self, builder, tuple(n * s + beyond * max(k - s, 0) for n, k, s in axes))
        params = self._coefficients(builder, value)
        return builder.conv_by_taps(value, self.sides(value.image), params, self.channels)

    def sides(self, image: Shape) -> list[Side]:
        """Along every axis, what outputs read by each tap of the filter; -1 for nothing."""
        axes = zip(image, self.window, self.strides, strict=True)
        return [_transposed(n, k, s, self.padding) for n, k, s in axes]


def _transposed(n: int, k: int, s: int, padding: str) -> Side:
    """Output o reads by tap t the pixel (o + t - low)/s, where that is one."""
    beyond = max(k - s, 0)
    out = n * s + (beyond if padding == "VALID" else 0)
    low = k - 1
    if padding == "SAME" and s <= k - 1:
        low = (k + s - 1) // 2
    if padding == "CIRCULAR":
        low -= beyond // 2
    at = np.arange(k)[:, None] + np.arange(out) - low
    if padding == "CIRCULAR":
        at %= out
    inside = (at >= 0) & (at % s == 0) & (at < n * s)
    return np.where(inside, at // s, -1).astype(np.int32)


@dataclass(frozen=True, repr=False)
class Pool(Windowed, abstract=True):
    """What pools share."""

    window_shape: Shape
    strides: Shape = ()
    padding: str = "VALID"

    def __post_init__(self) -> None:
        self._check("window_shape")

    @property
    def window(self) -> Shape:
        return self.window_shape

    def _pooled(self, builder: Builder, value: Signal, scale: float, edges: bool) -> Value:
        """Sums over windows times `scale`, or means over what of them is inside the image."""
        value = image_of(self, builder, value)
        window, around = _window(self, builder, value), self.padding == "CIRCULAR"
        return builder.pool(value, window, scale, edges and not around, around)


@dataclass(frozen=True, repr=False)
class AvgPool(Pool):
    """Mean over windows.

    Parameters
    ----------
    window_shape : tuple of int
        One positive number for every axis of the data but the channels, such as (height, width).
    strides : tuple of int, optional
        As many; by default ones, as in neural-tangents.
    padding : {"VALID", "SAME", "CIRCULAR"}, default="VALID"
        SAME divides by the window's size; CIRCULAR wraps around.
    normalize_edges : bool, default=False
        With SAME: divide by the number of the window's pixels inside the image.

    Examples
    --------
    >>> from ntkcore import AvgPool
    >>> AvgPool((2, 2), (2, 2))
    AvgPool(window_shape=(2, 2), strides=(2, 2))
    """

    normalize_edges: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self, "normalize_edges")

    def lower(self, builder: Builder, value: Signal) -> Value:
        return self._pooled(builder, value, 1 / prod(self.window) ** 2, self.normalize_edges)


@dataclass(frozen=True, repr=False)
class SumPool(Pool):
    """Sum over windows.

    Parameters
    ----------
    window_shape, strides, padding
        As for `AvgPool`.

    Examples
    --------
    >>> from ntkcore import SumPool
    >>> SumPool((2, 2))
    SumPool(window_shape=(2, 2))
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        return self._pooled(builder, value, 1.0, False)


class Readout(Layer, abstract=True):
    """Base of the layers that turn an image into a vector."""

    def weights(self, image: Shape) -> tuple[int, float]:
        """Half width of the pixel pairs that count (-1: all of them),
        and the scale of their sum.
        """
        raise NotImplementedError

    def lower(self, builder: Builder, value: Signal, last: bool = True) -> Value:
        value = image_of(self, builder, value)
        half, scale = self.weights(value.image)
        return builder.readout(value, half, scale, last)


@dataclass(frozen=True, repr=False)
class Flatten(Readout):
    """Image to vector: K, T <- mean over pixels p = p'. A vector stays what it is."""

    def weights(self, image: Shape) -> tuple[int, float]:
        return 0, 1 / prod(image)

    def lower(self, builder: Builder, value: Signal, last: bool = True) -> Value:
        value = single(self, builder, value)
        return super().lower(builder, value, last) if value.is_image else value


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Readout):
    """Image to vector: K, T <- mean over all pixel pairs (p, p')."""

    def weights(self, image: Shape) -> tuple[int, float]:
        return -1, 1 / prod(image) ** 2


@dataclass(frozen=True, repr=False)
class GlobalSumPool(Readout):
    """Image to vector: K, T <- sum over all pixel pairs (p, p')."""

    def weights(self, image: Shape) -> tuple[int, float]:
        return -1, 1.0


@dataclass(frozen=True, repr=False)
class LocalAvgPool(Readout):
    """Local average pooling (Li et al. 2019): AvgPool((window, window), (1, 1), "SAME")
    and Flatten() in one, of as many axes as there are.

    ``window`` is odd; window 1 is Flatten. At borders pixels outside the image count as 0 and the
    divisor stays window^2.
    """

    window: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 1 or self.window % 2 == 0:
            raise ValueError(
                f"LocalAvgPool: window must be an odd positive number, not {self.window!r}"
            )

    def weights(self, image: Shape) -> tuple[int, float]:
        return self.window // 2, 1 / (prod(image) * self.window ** (2 * len(image)))
