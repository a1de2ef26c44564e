"""How outputs and kernels of several axes are matrices, and which belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array
from ntkcore.linalg.checks import check_matrix, check_real

Array = npt.NDArray[np.float64]
Axes = int | Sequence[int]
Time = npt.ArrayLike | None


@dataclass(frozen=True)
class Layout:
    """How outputs and kernels are matrices: outputs (rows, traced),
    rows all axes that the kernel has.
    """

    shape: tuple[int, ...]  # of y_train
    traced: tuple[int, ...]  # axes, from the end: negative

    @classmethod
    def of(cls, y: Any, trace_axes: Axes) -> Layout:
        """That of outputs of this shape; ValueError for axes that they lack."""
        shape = np.shape(y)
        axes = list(trace_axes) if isinstance(trace_axes, Sequence) else [trace_axes]
        if any(
            not isinstance(a, (int, np.integer)) or not -len(shape) <= a < len(shape) for a in axes
        ):
            raise ValueError(
                f"trace_axes={trace_axes!r} are not axes of y_train, which has shape {shape}"
            )
        return cls(shape, tuple(sorted({int(a) % len(shape) - len(shape) for a in axes})))

    @property
    def traced_shape(self) -> tuple[int, ...]:
        """Lengths of the traced axes."""
        return tuple(self.shape[a] for a in self.traced)

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """Lengths of all others."""
        return tuple(n for a, n in enumerate(self.shape, -len(self.shape)) if a not in self.traced)

    @property
    def _last(self) -> tuple[int, ...]:
        return tuple(range(-len(self.traced), 0))

    def flat(self, outputs: Any) -> Array:
        """Outputs as a matrix (rows, traced)."""
        moved = np.moveaxis(np.asarray(outputs, dtype=np.float64), self.traced, self._last)
        return moved.reshape(-1, math.prod(self.traced_shape))

    def unflat(self, values: Array, leading: tuple[int, ...], rows: tuple[int, ...]) -> Array:
        """(…, rows, traced) to leading + the outputs' axes in their order."""
        return np.moveaxis(
            values.reshape((*leading, *rows, *self.traced_shape)), self._last, self.traced
        )

    def outputs_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """That of outputs with these rows."""
        return self.unflat(
            np.empty((math.prod(rows), math.prod(self.traced_shape))), (), rows
        ).shape


def outputs_of(values: Any, name: str = "y_train") -> Array:
    """Finite real numbers of any shape, not empty."""
    array = as_array(values, name)
    check_real(np.atleast_1d(array), name)
    if not array.size:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    return array.astype(np.float64)


def initial(values: Any, shape: tuple[int, ...], name: str) -> Array:
    """Outputs before training, of the set's shape or one number for all; None is 0."""
    given = outputs_of(0.0 if values is None else values, name)
    if given.shape not in {(), shape}:
        raise ValueError(
            f"{name} must be a number or have the outputs' shape {shape}, not {given.shape}"
        )
    return np.broadcast_to(given, shape)


def matrix_of(kernel: Any, name: str) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """(X, X', Y, Y', …) as a matrix (X Y …, X' Y' …), and both shapes."""
    array = as_array(kernel, name)
    if array.ndim % 2:
        raise ValueError(
            f"{name} must have pairs of axes, (n, n) for instance, not shape {array.shape}"
        )
    rows, columns = array.shape[::2], array.shape[1::2]
    order = (*range(0, array.ndim, 2), *range(1, array.ndim, 2))
    flat = array.transpose(order).reshape(math.prod(rows), math.prod(columns))
    return check_matrix(flat, name, (None, None)), rows, columns


def zipped(covariance: Array, leading: tuple[int, ...], rows: tuple[int, ...]) -> Array:
    """(…, X Y …, X Y …) to leading + (X, X, Y, Y, …)."""
    k, d = len(leading), len(rows)
    full = covariance.reshape((*leading, *rows, *rows))
    return full.transpose(*range(k), *(k + i + d * j for i in range(d) for j in (0, 1)))


def square_of(kernel: Any, name: str, layout: Layout) -> Any:
    """A training kernel as a symmetric matrix of its own dtype;
    ValueError where it does not fit y_train.
    """
    array = as_array(kernel, name)
    matrix, rows, columns = matrix_of(array, name)
    if rows != layout.rows_shape or columns != layout.rows_shape:
        hint = "; targets (n,) are y_train[:, None]" if len(layout.shape) == 1 else ""
        raise ValueError(
            f"{name} has shape {array.shape}; for y_train {layout.shape} and"
            f" trace_axes={layout.traced} it must have shape"
            f" {tuple(n for size in layout.rows_shape for n in (size, size))}{hint}"
        )
    return matrix.astype(array.dtype, copy=False)


def cross_of(kernel: Any, layout: Layout) -> tuple[Array, tuple[int, ...]]:
    """A test-train kernel as a matrix, and the test points' axes;
    ValueError where it does not fit.
    """
    array = as_array(kernel, "k_test_train")
    matrix, rows, columns = matrix_of(array, "k_test_train")
    if columns != layout.rows_shape:
        raise ValueError(
            f"k_test_train has shape {array.shape}, and y_train {layout.shape}: they do not fit"
        )
    return matrix, rows


def own_of(kernel: Any, name: str, rows: tuple[int, ...]) -> Array:
    """A kernel of the test points among themselves;
    ValueError where it is not as large as the test-train one.
    """
    matrix, *sides = matrix_of(kernel, name)
    if sides != [rows, rows]:
        raise ValueError(
            f"{name} has shape {np.shape(kernel)}, and the test points are {rows}: they do not fit"
        )
    return matrix
