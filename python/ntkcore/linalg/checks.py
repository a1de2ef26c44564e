"""What is handed to linear algebra: is it finite, real, of the right shape,
symmetric up to rounding?

On the host or on a GPU, by panels: no second matrix.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, on_device
from ntkcore.engine.inputs import as_array, first_bad_row, refuse_no_array

Array = npt.NDArray[np.float64]

# How far rounding may take a kernel from symmetric, over its largest entry, by its dtype: single
# precision, double. neural-tangents' own kernels err by 1e-8 in float64 and by up to 1e-3 in
# float32 between near-duplicates.
ASYMMETRY = {True: 1e-4, False: 1e-6}

# How far from positive, over lambda_max, likewise.
INDEFINITE = {True: 1e-3, False: 1e-7}

NO_KERNEL = (
    "K is not positive semidefinite, more than rounding explains: a kernel is; was something"
    " subtracted from it? Cholesky and Eigh take any symmetric matrix that the ridge makes positive"
)


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
    panel = _panels(matrix).step * max(matrix.size, 1) // max(len(matrix), 1)
    row = first_bad_row(matrix, array_module(matrix), panel)
    if row is not None:
        raise ValueError(
            f"{name} holds NaN or infinity in row {row}, counted from 0:"
            " look for them in the data, or for an overflow in the kernel"
        )


def asymmetry(matrix: Any) -> tuple[float, float]:
    """max |K - K^T| of a square matrix, and max |K|; block by block:
    columns of the whole walk through memory.
    """
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
            f"{name} is not symmetric: entries across the diagonal differ by {apart:.2g}, the"
            f" largest is {largest:.2g};"
            " it must be the kernel of one data set with itself, in one order"
        )
    return apart


def refuse_asymmetric_operator(operator: Any) -> None:
    """ValueError for a square operator that neither says that it is symmetric nor seems so: with
    u . K v = v . K u, up to single precision's rounding.
    """
    if getattr(operator, "symmetric", False):
        return
    probes = np.random.default_rng(0).standard_normal((operator.shape[0], 2))
    images = np.asarray(operator.matmat(probes))
    images = images / (np.abs(images).max() or 1.0)  # whose squares may overflow
    mixed, sizes = probes.T @ images, np.linalg.norm([probes, images], axis=1)
    if abs(mixed[0, 1] - mixed[1, 0]) > ASYMMETRY[True] * (sizes[0] @ sizes[1]):
        raise ValueError(
            "the operator is not symmetric: it must be the kernel of one data set with itself, in"
            " one order"
        )


def check_positive(value: Any, name: str) -> None:
    """ValueError for what is no number > 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(f"{name} must be positive, not {value!r}")


def check_share(share: Any, name: str) -> None:
    """ValueError for what is no number in [0, 1)."""
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= float(share) < 1:
        raise ValueError(f"{name} must lie in [0, 1), not {share!r:.60}")


def check_matrix(matrix: npt.ArrayLike, name: str, shape: tuple[int | None, ...]) -> Array:
    """A finite real matrix as float64 of this shape (None: any length);
    TypeError or ValueError naming it.
    """
    array = as_array(matrix, name)
    wanted = tuple("any" if length is None else length for length in shape)
    if array.ndim != len(shape) or any(
        b not in (None, a) for a, b in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(
            f"{name} must have shape ({', '.join(map(str, wanted))}), not {array.shape}"
        )
    check_real(array, name)
    return np.asarray(array, dtype=np.float64)


def check_symmetric(matrix: npt.ArrayLike, name: str) -> Array:
    """A square matrix, symmetric up to rounding, as exactly symmetric float64."""
    given = as_array(matrix, name)
    K = check_matrix(given, name, (None, None))
    apart = refuse_asymmetric(given if given.dtype.kind == "f" else K, name)
    return (K + K.T) / 2 if apart else K


def square_kernel(K: Any) -> Any:
    """K as a square, symmetric array where it lies; TypeError or ValueError for anything else."""
    refuse_no_array(K, "K")
    matrix = array_module(K).asarray(K)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"K must be a square matrix, not of shape {matrix.shape}")
    check_real(matrix, "K")
    if matrix.dtype.kind != "f":
        matrix = matrix.astype(np.float64)
    refuse_asymmetric(matrix, "K")
    return matrix


def targets_of(Y: npt.ArrayLike, n: int, name: str = "Y") -> tuple[Array, bool]:
    """Y as (n, outputs), and whether it was a vector."""
    given = np.asarray(Y)
    if given.ndim not in (1, 2) or len(given) != n or not given.size:
        raise ValueError(
            f"{name} must have shape ({n},) or ({n}, outputs) for {n} points, not {given.shape}"
        )
    check_real(given, name)
    data = np.asarray(given, np.float64)
    return (data[:, None], True) if data.ndim == 1 else (data, False)
