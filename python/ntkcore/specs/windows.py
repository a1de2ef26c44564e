"""Where the windows of convolutions and pools lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or a pool: per axis, such as (height, width)."""

    size: Shape
    strides: Shape
    low: Shape  # padding before the first row, column
    out: Shape  # image size after it
    dilation: Shape  # steps between neighbours in the window

    @classmethod
    def of_one(cls, image: Shape) -> Window:
        """Of one pixel, which changes nothing."""
        return same_window((1,) * len(image), image, (1,) * len(image))

    def wraps(self, image: Shape) -> bool:
        """Does any of the windows reach beyond the image?"""
        sides = zip(self.out, self.strides, self.reach, self.low, image, strict=True)
        return any(low > 0 or (out - 1) * s + k > n for out, s, k, low, n in sides)

    @property
    def reach(self) -> Shape:
        """Pixels from a window's first to its last, both counted."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))


def same_window(size: Shape, image: Shape, strides: Shape, dilation: Shape = ()) -> Window:
    """SAME padding: out = ceil(n / stride);
    the smaller half of the padding stands before the first pixel.
    """
    out = tuple(math.ceil(n / s) for n, s in zip(image, strides, strict=True))
    window = Window(size, strides, (0,) * len(image), out, dilation or (1,) * len(image))
    sides = zip(out, strides, window.reach, image, strict=True)
    return replace(window, low=tuple(max((o - 1) * s + k - n, 0) // 2 for o, s, k, n in sides))


def valid_window(size: Shape, image: Shape, strides: Shape, dilation: Shape = ()) -> Window:
    """No padding: out = (n - k) // stride + 1, k the window's reach; below 1 where it does not
    fit.
    """
    zeros = (0,) * len(image)
    window = Window(size, strides, zeros, zeros, dilation or (1,) * len(image))
    sides = zip(image, window.reach, strides, strict=True)
    return replace(window, out=tuple((n - k) // s + 1 for n, k, s in sides))
