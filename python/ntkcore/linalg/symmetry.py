"""Is a matrix finite, real and symmetric up to rounding? On the host or on a GPU, by panels: no second matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntkcore.engine.device_arrays import array_module, on_device

# How far rounding may take a kernel from symmetric, over its largest entry, by its dtype: single precision, double.
# neural-tangents' own kernels err by 1e-8 in float64 and by up to 1e-3 in float32 between near-duplicates.
ASYMMETRY = {True: 1e-4, False: 1e-6}


def _panels(matrix: Any) -> range:
    """Starts of panels: on the host they fit a cache, on a GPU few of them fill it."""
    return range(0, len(matrix), 4096 if on_device(matrix) else 256)


def single(dtype: Any) -> bool:
    """Half and single precision."""
    return bool(np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize <= 4)


def check_real(matrix: Any, name: str) -> None:
    """TypeError for anything but real numbers, ValueError for NaN and infinity."""
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, not dtype {matrix.dtype}")
    xp = array_module(matrix)
    panels = _panels(matrix)
    for i in panels:
        if not bool(xp.isfinite(matrix[i : i + panels.step]).all()):
            raise ValueError(
                f"{name} holds NaN or infinity: look for them in the data, or for an overflow in the kernel"
            )


def asymmetry(matrix: Any) -> tuple[float, float]:
    """max |K - K^T| of a square matrix, and max |K|; block by block: columns of the whole walk through memory."""
    apart, largest, panels = 0.0, 0.0, _panels(matrix)
    for i in panels:
        for j in range(i, len(matrix), panels.step):
            rows, cols = slice(i, i + panels.step), slice(j, j + panels.step)
            upper = matrix[rows, cols]
            apart = max(apart, float(abs(upper - matrix[cols, rows].T).max()))
            largest = max(largest, float(abs(upper).max()))
    return apart, largest


def is_symmetric(matrix: Any) -> bool:
    """Square, and symmetric up to the rounding of its dtype."""
    if matrix.shape[0] != matrix.shape[1]:
        return False
    apart, largest = asymmetry(matrix)
    return apart <= ASYMMETRY[single(matrix.dtype)] * largest


def refuse_asymmetric(matrix: Any, name: str) -> float:
    """ValueError for a matrix that is not square or symmetric; max |K - K^T|."""
    if matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"{name} must be square and not empty, not {matrix.shape}")
    apart, largest = asymmetry(matrix)
    if apart > ASYMMETRY[single(matrix.dtype)] * largest:
        raise ValueError(
            f"{name} is not symmetric: entries across the diagonal differ by {apart:.2g}, the largest is {largest:.2g}"
            "; it must be the kernel of one data set with itself, in one order"
        )
    return apart
