"""Magnitudes of images and kernels: what scales with its input is computed near 1,
and nothing comes back as NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine.inputs import Array
from ntkcore.specs.program import Range

Exponents = npt.NDArray[np.int32]

ORDINARY = 16  # images whose largest pixel lies between 2^-16 and 2^16 are taken as they are
ROWS = 64  # samples that are looked at together


def near_one(program: Any, x: Array) -> tuple[Array, Exponents | None]:
    """The images times 2^-e, and e of each;
    None where all are ordinary or the network does not scale with them.

    K(s x, s' x') = s s' K(x, x') where there is no bias and no nonlinearity but ReLU's kind,
    and powers of two are exact.
    """
    if isinstance(program, _core.Program):
        return x, None
    axes = tuple(range(1, x.ndim))
    largest = np.maximum(x.max(axis=axes), -x.min(axis=axes))
    _refuse_overflow(largest, x)
    if not program.homogeneous:
        return x, None
    exponents = np.frexp(largest)[1]
    exponents[(largest == 0) | (np.abs(exponents) <= ORDINARY)] = 0
    if not exponents.any():
        return x, None
    return np.ldexp(x, -np.expand_dims(exponents, axes)), exponents


def range_of(a: Array, b: Array | None) -> Range:
    """The variances of the data, up to a power of 2^(1/4): few programs serve all data."""
    largest = max(
        float((x[i : i + ROWS].astype(np.float64) ** 2).sum(axis=-1).max()) / x.shape[-1]
        for x in (a, b)
        if x is not None
        for i in range(0, len(x), ROWS)
    )
    steps = math.floor(4 * math.log2(max(largest, 2.0**-20))) + 1
    return Range(2.0 ** (steps / 4), a.dtype == np.float32)


def _refuse_overflow(largest: Array, x: Array) -> None:
    limit = np.sqrt(np.finfo(x.dtype).max / x.shape[-1])
    if (largest > limit).any():
        raise ValueError(
            f"sample {int(np.argmax(largest > limit))} has a variance that is not finite in"
            f" {x.dtype}: rescale the data or use dtype='float64'"
        )


def scale_back(part: Any, rows: Exponents | None, cols: Exponents | None, xp: Any = np) -> None:
    """The kernel of images near 1, in place, times 2^(e + e'); xp is the matrix's module."""
    if rows is None and cols is None:
        return
    zero = np.zeros(1, np.int32)
    rows, cols = zero if rows is None else rows, zero if cols is None else cols
    with np.errstate(over="ignore", under="ignore"):
        for row, exponent in zip(part, np.broadcast_to(rows, len(part)), strict=True):
            row[...] = xp.ldexp(row, xp.asarray(exponent + cols))


def check_tile(found: tuple[int, int] | None, row: int, col: int, dtype: np.dtype[Any]) -> None:
    """FloatingPointError if a value was found in the tile at (row, col) that is not finite."""
    if found is not None:
        raise not_finite(f"samples {row + found[0]} and {col + found[1]} (row, column)", dtype)


def not_finite(samples: str, dtype: np.dtype[Any]) -> FloatingPointError:
    """The error for these samples."""
    return FloatingPointError(
        f"the kernel of {samples} is not finite in {dtype}: most likely it overflows; rescale the"
        " data, reduce W_std, or use dtype='float64'"
    )


def check_finite(part: Array) -> None:
    """FloatingPointError if the matrix, NumPy's, holds NaN or infinity."""
    for first in range(0, len(part), ROWS):
        bad = ~np.isfinite(part[first : first + ROWS])
        if bad.any():
            i, j = np.argwhere(bad)[0]
            check_tile((int(i), int(j)), first, 0, part.dtype)
