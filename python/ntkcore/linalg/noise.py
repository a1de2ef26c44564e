"""Rounding noise of a kernel, and the ridge that is added to its diagonal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt


class RidgeWarning(UserWarning):
    """The ridge lies below the rounding noise of the kernel's storage precision."""


def noise_floor(dtype: npt.DTypeLike, n: int, mean_diagonal: float) -> float:
    """The size of a kernel's rounding noise: 4 eps sqrt(n) times its mean diagonal.

    Independent rounding errors of n^2 entries have a 2-norm of that order: twice the standard
    deviation times sqrt(n), by the semicircle law; twice that for both roundings, of products and
    of storage. About 1e-4 of the diagonal for 50 000 points in float32. No bound: a product's
    rounding also has a systematic part, several times larger along the leading eigenvectors, where
    no ridge is needed.

    Parameters
    ----------
    dtype : dtype
        In which the kernel is stored.
    n : int
        Points.
    mean_diagonal : float

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore.solve import noise_floor
    >>> round(noise_floor("float32", 10_000, 1.0), 6)
    4.8e-05
    """
    return float(4 * np.finfo(np.dtype(dtype)).eps * n**0.5 * mean_diagonal)


def check_ridge(ridge: Any) -> None:
    """ValueError for what is no finite number >= 0."""
    if (
        np.ndim(ridge)
        or np.asarray(ridge).dtype.kind not in "fiu"
        or not np.isfinite(ridge)
        or ridge < 0
    ):
        raise ValueError(f"ridge must be finite and at least 0, not {ridge!r}")


def check_ridges(ridges: Any) -> None:
    """ValueError for what is no sequence of ridges."""
    if np.ndim(ridges) != 1 or not len(ridges):
        raise ValueError(f"ridges must be a sequence of numbers, not {ridges!r:.60}")


def ridge_of(
    ridge: float, relative: bool, mean_diagonal: float, dtype: npt.DTypeLike, n: int
) -> float:
    """What is added to the diagonal; a warning where it is less than the kernel's own rounding."""
    check_ridge(ridge)
    value = float(ridge) * (mean_diagonal if relative else 1)
    floor = noise_floor(dtype, n, mean_diagonal)
    if np.dtype(dtype) == np.float32 and value < floor:
        warnings.warn(
            f"ridge {value:.2g} lies below {floor:.2g}, the rounding noise of {n} points in"
            " float32: what it resolves is noise; use a larger ridge or a float64 kernel",
            RidgeWarning,
            stacklevel=3,
        )
    return value
