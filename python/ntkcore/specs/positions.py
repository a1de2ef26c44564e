"""Layers that pick, resize or mix positions by constants: K, T <- L K L', L T L'."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.specs.convolutions import check_positions, image_of, too_many
from ntkcore.specs.layers import Layer, Signal, check_flag, single
from ntkcore.specs.program import Builder, Matrix, Value
from ntkcore.specs.windows import Shape

Slice = tuple[int | None, int | None, int | None]
Item = int | Slice | str
Constant = float | tuple["Constant", ...]
Axes = tuple[int, ...]
LETTERS = string.ascii_letters
MOST_NUMBERS = 2**22  # of a constant


@dataclass(frozen=True, repr=False)
class Index(Layer):
    """Picks positions, as ``x[:, *items]`` does of an array of samples.

    Parameters
    ----------
    items : tuple
        For every axis of positions a slice, or a number, which takes the axis away; ``...`` stands
        for whole axes, and so does the end. Slices are kept as (start, stop, step). Without a slice
        left the features at one position are a vector.

    Examples
    --------
    >>> from ntkcore import Index
    >>> Index((slice(0, 4), 0))
    Index(items=((0, 4, None), 0))
    """

    items: tuple[Item, ...]

    def __post_init__(self) -> None:
        given: Any = self.items
        items = tuple(map(_item, given if isinstance(given, (tuple, list)) else (given,)))
        if None in items or items.count("...") > 1:
            raise ValueError(
                "Index: items must be numbers, slices and at most one ..., one for each axis of"
                f" positions, not {given!r}"
            )
        object.__setattr__(self, "items", items)

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = image_of(self, builder, value)
        picked = self.picked(value.image)
        if isinstance(picked, str):
            raise builder.error(self, picked)
        sides = [np.array([at], np.int32) for at, _ in picked]
        return builder.pick(value, sides, tuple(len(at) for at, kept in picked if kept))

    def picked(self, image: Shape) -> list[tuple[list[int], bool]] | str:
        """Along every axis the positions, and whether the axis stays; or what does not fit."""
        items = list(self.items)
        missing = len(image) - len(items) + ("..." in items)
        at = items.index("...") if "..." in items else len(items)
        items[at : at + 1] = [(None, None, None)] * max(missing, 0)
        if len(items) != len(image):
            return f"has {len(items)} items, but the samples have {len(image)} axes of positions"
        out = []
        for axis, (item, n) in enumerate(zip(items, image, strict=True)):
            if isinstance(item, int):
                if not -n <= item < n:
                    return f"position {item} is outside axis {axis}, which has {n}"
                out.append(([item % n], False))
            else:
                found = list(range(n))[slice(*item)]
                if not found:
                    return f"slice {item} leaves nothing of axis {axis}, which has {n} positions"
                out.append((found, True))
        return out


def _item(given: Any) -> Item | None:
    """A number, (start, stop, step), "..."; None for anything else."""
    if given is Ellipsis or (isinstance(given, str) and given == "..."):
        return "..."
    if isinstance(given, slice):
        given = (given.start, given.stop, given.step)
    if not isinstance(given, (tuple, list)):
        return _whole(given)
    parts = [None if part is None else _whole(part) for part in given]
    if len(parts) != 3 or parts[2] == 0 or parts.count(None) != list(given).count(None):
        return None
    return parts[0], parts[1], parts[2]


def _whole(given: Any) -> int | None:
    return int(given) if hasattr(given, "__index__") and not isinstance(given, bool) else None


METHODS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    # Weights at a distance, in samples: jax.image's kernels.
    "linear": lambda x: np.maximum(0, 1 - x),
    "cubic": lambda x: np.where(
        x >= 2,
        0,
        np.where(x >= 1, ((-0.5 * x + 2.5) * x - 4) * x + 2, ((1.5 * x - 2.5) * x) * x + 1),
    ),
    "lanczos3": lambda x: np.where(x > 3, 0, np.sinc(x) * np.sinc(x / 3)),
    "lanczos5": lambda x: np.where(x > 5, 0, np.sinc(x) * np.sinc(x / 5)),
}


@dataclass(frozen=True, repr=False)
class ImageResize(Layer):
    """Resizes axes of positions as `jax.image.resize` does.

    Parameters
    ----------
    shape : tuple of int
        Sizes of the axes of positions after it; -1: unchanged.
    method : {"linear", "nearest", "cubic", "lanczos3", "lanczos5"}, default="linear"
    antialias : bool, default=True
        Smaller images by wider windows; of no effect to "nearest", and on larger ones.

    Examples
    --------
    >>> from ntkcore import ImageResize
    >>> ImageResize((16, -1), "nearest")
    ImageResize(shape=(16, -1), method='nearest')
    """

    shape: Shape
    method: str = "linear"
    antialias: bool = True

    def __post_init__(self) -> None:
        given: Any = self.shape
        sizes = tuple(map(_whole, given)) if isinstance(given, Sequence) else ()
        if not sizes or any(size is None or size == 0 or size < -1 for size in sizes):
            raise ValueError(
                "ImageResize: shape must hold a positive number, or -1, for every axis of"
                f" positions, not {given!r}"
            )
        if self.method not in ("nearest", *METHODS):
            raise ValueError(
                f"ImageResize: method must be one of nearest, {', '.join(METHODS)}, not"
                f" {self.method!r}"
            )
        check_flag(self, "antialias")
        object.__setattr__(self, "shape", sizes)

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = image_of(self, builder, value)
        if len(self.shape) != len(value.image):
            raise builder.error(
                self,
                f"has {len(self.shape)} sizes, but the samples have {len(value.image)} axes of"
                " positions",
            )
        pairs = zip(value.image, self.shape, strict=True)
        check_positions(self, builder, tuple(n if out == -1 else out for n, out in pairs))
        for axis, matrix in enumerate(self.matrices(value.image)):
            if matrix is not None:
                image = value.image
                after = (*image[:axis], len(matrix), *image[axis + 1 :])
                value = builder.mix(value, matrix, after, axis)
        return value

    def matrices(self, image: Shape) -> list[Matrix | None]:
        """Along every axis the weights (outputs, positions); None where nothing changes."""
        pairs = zip(image, self.shape, strict=True)
        return [None if out in (-1, n) else self._weights(n, out) for n, out in pairs]

    def _weights(self, n: int, out: int) -> Matrix:
        middle = (np.arange(out) + 0.5) * n / out
        if self.method == "nearest":
            nearest: Matrix = np.eye(n)[np.floor(middle).astype(int)]
            return nearest
        spread = max(n / out, 1.0) if self.antialias else 1.0
        distance = np.abs((middle - 0.5)[:, None] - np.arange(n)) / spread
        weights = METHODS[self.method](distance)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True, repr=False)
class DotGeneral(Layer):
    """The product with a constant array, as `jax.lax.dot_general` takes it: of the samples
    ``(n, …, channels)`` and ``rhs``, or of ``lhs`` and the samples.

    Parameters
    ----------
    lhs, rhs : array_like, optional
        One of them; kept as nested tuples.
    dimension_numbers : tuple
        ((contracted of the left, of the right), (batch of the left, of the right)). Axis 0 of the
        samples and the channels are in none of them.

    Notes
    -----
    Axes of positions after it stand in dot_general's order: batch, left, right.

    Examples
    --------
    >>> from ntkcore import DotGeneral
    >>> DotGeneral(rhs=[1.0, -1.0], dimension_numbers=(((1,), (0,)), ((), ())))
    DotGeneral(rhs=(1.0, -1.0), dimension_numbers=(((1,), (0,)), ((), ())))
    """

    lhs: Constant | None = None
    rhs: Constant | None = None
    dimension_numbers: tuple[tuple[Axes, Axes], tuple[Axes, Axes]] = (((), ()), ((), ()))

    def __post_init__(self) -> None:
        if (self.lhs is None) == (self.rhs is None):
            raise ValueError("DotGeneral: give one of lhs and rhs, the other being the samples")
        try:
            numbers = tuple(
                tuple(tuple(map(int, axes)) for axes in pair) for pair in self.dimension_numbers
            )
            whole = [len(pair) for pair in numbers] == [2, 2]
            same = whole and all(len(left) == len(right) for left, right in numbers)
        except TypeError:
            same = False
        if not same:
            raise ValueError(
                "DotGeneral: dimension_numbers must be ((contracted, contracted), (batch, batch)),"
                f" the axes of the left and of the right, not {self.dimension_numbers!r}"
            )
        object.__setattr__(self, "dimension_numbers", numbers)
        side = "rhs" if self.lhs is None else "lhs"
        try:
            array = np.asarray(getattr(self, side), np.float64)
            finite = bool(array.size and np.isfinite(array).all())
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise ValueError(f"DotGeneral: {side} must be an array of finite numbers")
        if array.size > MOST_NUMBERS:
            raise ValueError(
                f"DotGeneral: {side} has {array.size} numbers, more than the {MOST_NUMBERS} that a"
                " spec holds: contract it before"
            )
        object.__setattr__(self, side, _nested(array.tolist()))

    def lower(self, builder: Builder, value: Signal) -> Value:
        scale = self.scale
        if scale is not None:  # of vectors, too
            return builder.scaled(single(self, builder, value), scale**2)
        value = image_of(self, builder, value)
        found = self.matrix(value.image)
        if isinstance(found, str):
            raise builder.error(self, found)
        return builder.mix(value, *found)

    @property
    def scale(self) -> float | None:
        """The constant, if it is a number."""
        constant = self.lhs if self.rhs is None else self.rhs
        return constant if isinstance(constant, float) else None

    def matrix(self, image: Shape) -> tuple[Matrix, Shape] | str:
        """What it does to positions (outputs, positions), and their axes then;
        or what does not fit.
        """
        constant = np.asarray(self.lhs if self.rhs is None else self.rhs, np.float64)
        sides = 1 if self.rhs is None else 0  # which of a pair are the samples' axes
        (contracted, batch) = self.dimension_numbers
        mine, its = [*contracted[sides], *batch[sides]], [*contracted[1 - sides], *batch[1 - sides]]
        last = len(image) + 1
        if not set(mine) <= set(range(1, last)) or len(set(mine)) < len(mine):
            return (
                f"takes axes {sorted(mine)} of the samples, but their positions are axes 1 to"
                f" {last - 1}: axis 0 counts samples, and the channels are infinitely many"
            )
        if not set(its) <= set(range(constant.ndim)) or len(set(its)) < len(its):
            return f"takes axes {sorted(its)} of an array of {constant.ndim} axes"
        sizes = dict(zip(mine, its, strict=True))
        if any(image[axis - 1] != constant.shape[other] for axis, other in sizes.items()):
            return f"axes differ in size: samples of {image} positions, an array {constant.shape}"
        # Letters of einsum: of the positions, of the constant's own axes, and of a basis.
        at, own, every = LETTERS[: len(image)], LETTERS[len(image) : -1], LETTERS[-1]
        axis_of = {other: axis - 1 for axis, other in sizes.items()}
        others = [at[axis_of[i]] if i in axis_of else own[i] for i in range(constant.ndim)]
        free = [letter for axis, letter in enumerate(at, 1) if axis not in mine]
        its_free = [letter for i, letter in enumerate(others) if i not in axis_of]
        left, right = (its_free, free) if sides else (free, its_free)
        out = "".join([*(at[axis - 1] for axis in batch[sides]), *left, *right])
        lengths = dict(zip([*at, *others], [*image, *constant.shape], strict=True))
        if problem := too_many(tuple(lengths[letter] for letter in out)):
            return problem
        basis = np.eye(math.prod(image)).reshape(-1, *image)
        result = np.einsum(f"{every}{at},{''.join(others)}->{every}{out}", basis, constant)
        return np.ascontiguousarray(result.reshape(len(basis), -1).T), result.shape[1:]


def _nested(value: Any) -> Constant:
    return tuple(map(_nested, value)) if isinstance(value, list) else float(value)
