"""Layers of images (NHWC): convolutions, pools, and the read-outs that turn an image into a vector.

With A[M](p, p') = mean over the filter window of M(p + k, p' + k), terms out of range being 0
(Novak et al. 2019; Arora et al. 2019):

    Conv:     K <- W_std^2 A[K] + b_std^2,   T <- K_new + W_std^2 A[T]
    AvgPool:  K(o, o') <- mean over both windows;
    GlobalAvgPool: mean over all (p, p');  Flatten: mean over p = p'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ntkcore.specs.layers import Dense, Layer, Signal, single
from ntkcore.specs.program import Builder, Pair, Value, Window, same_window, valid_window

PADDINGS = ("SAME", "VALID", "CIRCULAR")


def _pair(layer: Layer, name: str, default: Pair | None = None) -> None:
    given: Any = getattr(layer, name)
    if given is None and default is not None:
        given = default
    try:
        pair = (given, given) if isinstance(given, int) else tuple(int(n) for n in given)
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(
            f"{type(layer).__name__}: {name} must be two positive numbers (height, width), not"
            f" {given!r}"
        )
    object.__setattr__(layer, name, pair)


def _check_padding(layer: Layer, allowed: Sequence[str]) -> None:
    padding = str(getattr(layer, "padding")).upper()  # noqa: B009
    if padding not in allowed:
        raise ValueError(
            f"{type(layer).__name__}: padding must be one of {', '.join(allowed)}, not {padding!r}"
        )
    object.__setattr__(layer, "padding", padding)


def _image(layer: Layer, builder: Builder, value: Signal) -> Value:
    value = single(layer, builder, value)
    if not value.is_image:
        raise builder.error(
            layer, f"needs images (height, width, channels), got vectors of shape {value.shape}"
        )
    return value


def _window(
    layer: Layer, builder: Builder, value: Value, size: Pair, strides: Pair, padding: str
) -> Window:
    image = value.image
    window = (valid_window if padding == "VALID" else same_window)(size, image, strides)
    if min(window.out) < 1:
        raise builder.error(
            layer, f"a window of {size} without padding leaves no pixel of an image of {image}"
        )
    return window


@dataclass(frozen=True, repr=False)
class Conv(Layer):
    """2-D convolution over images of shape (h, w, channels).

    Parameters
    ----------
    filter_shape : tuple of int
        (height, width), any positive numbers.
    strides : tuple of int, default=(1, 1)
        (height, width).
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

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Conv, Flatten, Serial, kernel
    >>> kernel(Serial(Conv((2, 2)), Flatten()), np.ones((1, 2, 2, 1)))
    array([[1.]])
    """

    filter_shape: Pair
    strides: Pair = (1, 1)
    padding: str = "VALID"
    W_std: float = 1.0
    b_std: float | None = None
    parameterization: str = "ntk"
    channels: int | None = None

    def __post_init__(self) -> None:
        _pair(self, "filter_shape")
        _pair(self, "strides", (1, 1))
        _check_padding(self, PADDINGS)
        self._dense()

    def _dense(self) -> Dense:
        try:
            return Dense(self.W_std, self.b_std, self.parameterization, self.channels)
        except (TypeError, ValueError) as error:
            raise type(error)(
                str(error).replace("Dense: width", "Conv: channels").replace("Dense", "Conv")
            ) from None

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = _image(self, builder, value)
        window = _window(self, builder, value, self.filter_shape, self.strides, self.padding)
        a, b, e, f = self._dense().coefficients(self, builder, value)
        # e K, the weights' own part, is a sum over the window's pixels where A takes their mean.
        if self.parameterization == "standard":
            e *= self.filter_shape[0] * self.filter_shape[1]
        if self.padding == "CIRCULAR":
            return self._around(builder, value, window, (a, b, e, f))
        return builder.conv(value, window, False, (a, b, e, f), self.channels)

    def _around(
        self, builder: Builder, value: Value, window: Window, params: Sequence[float]
    ) -> Value:
        """Circular padding. Strides that do not divide the image pick
        pixels of the convolution at every pixel.
        """
        if not _wraps(window, value.image):
            return builder.conv(value, window, False, params, self.channels)
        value = builder.start_segment(self, value)
        if all(n % s == 0 for n, s in zip(value.image, window.strides, strict=True)):
            return builder.conv(value, window, True, params, self.channels)
        everywhere = replace(window, strides=(1, 1), out=value.image)
        value = builder.conv(value, everywhere, True, params, self.channels)
        return builder.window_mean(
            value, Window((1, 1), window.strides, (0, 0), window.out), False, (1.0,)
        )


def _wraps(window: Window, image: Pair) -> bool:
    """Does any of the windows reach beyond the image?"""
    sides = zip(window.out, window.strides, window.size, window.low, image, strict=True)
    return any(low > 0 or (out - 1) * s + k > n for out, s, k, low, n in sides)


@dataclass(frozen=True, repr=False)
class AvgPool(Layer):
    """Mean over windows.

    Parameters
    ----------
    window_shape : tuple of int
        (height, width).
    strides : tuple of int, default=(1, 1)
        None means 1, as in neural-tangents.
    padding : {"VALID", "SAME"}, default="VALID"
        SAME divides by the window's size.
    normalize_edges : bool, default=False
        With SAME: divide by the number of the window's pixels inside the image.

    Examples
    --------
    >>> from ntkcore import AvgPool
    >>> AvgPool((2, 2), (2, 2))
    AvgPool(window_shape=(2, 2), strides=(2, 2))
    """

    window_shape: Pair
    strides: Pair = (1, 1)
    padding: str = "VALID"
    normalize_edges: bool = False

    def __post_init__(self) -> None:
        _pair(self, "window_shape")
        _pair(self, "strides", (1, 1))
        _check_padding(self, PADDINGS[:2])

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = _image(self, builder, value)
        window = _window(self, builder, value, self.window_shape, self.strides, self.padding)
        area = self.window_shape[0] * self.window_shape[1]
        return builder.pool(self, value, window, 1 / area**2, self.normalize_edges)


@dataclass(frozen=True, repr=False)
class SumPool(Layer):
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

    window_shape: Pair
    strides: Pair = (1, 1)
    padding: str = "VALID"

    def __post_init__(self) -> None:
        AvgPool.__post_init__(self)  # type: ignore[arg-type]

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = _image(self, builder, value)
        window = _window(self, builder, value, self.window_shape, self.strides, self.padding)
        return builder.pool(self, value, window, 1.0, False)


class Readout(Layer, abstract=True):
    """Base of the layers that turn an image into a vector."""

    def weights(self, image: Pair) -> tuple[int, float]:
        """Half width of the pixel pairs that count (-1: all of them),
        and the scale of their sum.
        """
        raise NotImplementedError

    def lower(self, builder: Builder, value: Signal, last: bool = True) -> Value:
        value = _image(self, builder, value)
        half, scale = self.weights(value.image)
        return builder.readout(value, half, scale, last)


@dataclass(frozen=True, repr=False)
class Flatten(Readout):
    """Image to vector: K, T <- mean over pixels p = p'. A vector stays what it is."""

    def weights(self, image: Pair) -> tuple[int, float]:
        return 0, 1 / (image[0] * image[1])

    def lower(self, builder: Builder, value: Signal, last: bool = True) -> Value:
        value = single(self, builder, value)
        return super().lower(builder, value, last) if value.is_image else value


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Readout):
    """Image to vector: K, T <- mean over all pixel pairs (p, p')."""

    def weights(self, image: Pair) -> tuple[int, float]:
        return -1, 1 / (image[0] * image[1]) ** 2


@dataclass(frozen=True, repr=False)
class GlobalSumPool(Readout):
    """Image to vector: K, T <- sum over all pixel pairs (p, p')."""

    def weights(self, image: Pair) -> tuple[int, float]:
        return -1, 1.0


@dataclass(frozen=True, repr=False)
class LocalAvgPool(Readout):
    """Local average pooling (Li et al. 2019): AvgPool((window, window), (1, 1), "SAME")
    and Flatten() in one.

    ``window`` is odd; window 1 is Flatten. At borders pixels outside the image count as 0 and the
    divisor stays window^2.
    """

    window: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 1 or self.window % 2 == 0:
            raise ValueError(
                f"LocalAvgPool: window must be an odd positive number, not {self.window!r}"
            )

    def weights(self, image: Pair) -> tuple[int, float]:
        return self.window // 2, 1 / (image[0] * image[1] * self.window**4)
