"""The eigendecomposition behind closed-form training: what is a kernel, what is null, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array, free_bytes, size_text
from ntkcore.linalg.symmetry import check_real, refuse_asymmetric, single

Array = npt.NDArray[np.float64]

# How far from positive, over lambda_max, rounding may take a kernel, by its dtype: single precision, double.
INDEFINITE = {True: 1e-3, False: 1e-7}
# ||rounding error of a float32 kernel||_2 / (mean diagonal * sqrt(n)), as measured.
FLOAT32_NOISE = 4.5e-7


@dataclass(frozen=True, eq=False)
class Modes:
    """Eigenpairs of a kernel matrix, largest first, with rounding noise set to exactly 0.

    ``values`` (k,), ``vectors`` (n, k), float64. ``trace``: the matrix's trace, None if unknown. ``rest``: no
    eigenvalue that is not here exceeds it; 0 if all are here. ``noise``: eigenvalues up to it were set to 0.
    """

    values: Array
    vectors: Array
    trace: float | None
    rest: float = 0.0
    noise: float = 0.0

    @property
    def complete(self) -> bool:
        """Are all n modes here."""
        return bool(self.vectors.shape[0] == self.vectors.shape[1])

    def ridge(self, ridge: float, absolute: bool) -> float:
        """What is added to every eigenvalue: ``ridge``, in units of trace/n unless ``absolute``."""
        if not isinstance(ridge, Real) or not (math.isfinite(ridge) and ridge >= 0):
            raise ValueError(f"the ridge must be finite and >= 0, not {ridge!r}")
        if absolute or ridge == 0:
            return float(ridge)
        if self.trace is None:
            raise ValueError(
                "a relative ridge is in units of the kernel's mean diagonal: give trace=, or absolute=True"
            )
        return float(ridge) * self.trace / len(self.vectors)


def check_matrix(matrix: npt.ArrayLike, name: str, shape: tuple[int | None, ...]) -> Array:
    """A finite real matrix as float64 of this shape (None: any length); TypeError or ValueError naming it."""
    array = as_array(matrix, name)
    wanted = tuple("any" if length is None else length for length in shape)
    if array.ndim != len(shape) or any(b not in (None, a) for a, b in zip(array.shape, shape, strict=True)):
        raise ValueError(f"{name} must have shape ({', '.join(map(str, wanted))}), not {array.shape}")
    check_real(array, name)
    return np.asarray(array, dtype=np.float64)


def check_symmetric(matrix: npt.ArrayLike, name: str) -> Array:
    """A square matrix, symmetric up to rounding, as exactly symmetric float64."""
    given = as_array(matrix, name)
    K = check_matrix(given, name, (None, None))
    apart = refuse_asymmetric(given, name)
    return (K + K.T) / 2 if apart else K


def eigenmodes(kernel: npt.ArrayLike, name: str = "the kernel matrix") -> Modes:
    """All eigenpairs of a kernel matrix (n, n), by numpy.linalg.eigh in float64, whatever its dtype.

    Noise is n eps lambda_max, for a float32 kernel at least 4.5e-7 sqrt(n) of the mean diagonal, and at least twice
    the size of the most negative eigenvalue, which only rounding can have made. Eigenvalues up to it become 0.

    ValueError for a matrix that is not square, finite, symmetric and, up to rounding, positive semidefinite;
    MemoryError, before any work, if the eigenvectors do not fit.
    """
    given = as_array(kernel, name)
    lower = single(given.dtype)
    K = check_symmetric(given, name)
    n = len(K)
    need, free = 4 * 8 * n * n, free_bytes()  # syevd holds the matrix, the vectors and 2 n^2 of workspace
    if free is not None and need > free:
        raise MemoryError(
            f"the eigenvectors of {n} points need about {size_text(need)}, and {size_text(free)} are free: "
            "use leading_modes() on an operator, or fewer points"
        )
    values, vectors = np.linalg.eigh(K)
    top, bottom, trace = float(values[-1]), float(values[0]), float(K.trace())
    if bottom < -INDEFINITE[lower] * max(top, 0.0):
        raise ValueError(
            f"{name} is indefinite: its eigenvalues reach from {bottom:.3g} to {top:.3g}, more than rounding explains; "
            "a kernel has none below 0. Was something subtracted from it, or its rows reordered?"
        )
    noise = max(
        n * np.finfo(np.float64).eps * top, FLOAT32_NOISE * math.sqrt(n) * trace / n if lower else 0, -2 * bottom
    )
    values[values <= noise] = 0.0
    return Modes(values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1]), trace, noise=noise)


def leading_modes(operator: Any, k: int, *, trace: float | None = None, tolerance: float = 1e-10) -> Modes:
    """The k leading eigenpairs of a SciPy LinearOperator (n, n), or anything its eigsh takes, by Lanczos.

    The operator must be symmetric positive semidefinite; only products with vectors are taken. ``trace``: its trace if
    known, for relative ridges. ``tolerance``: relative accuracy of the eigenvalues.

    ValueError for k outside 1 … n - 1 or a negative leading eigenvalue; ImportError without SciPy; SciPy's
    ArpackNoConvergence (a RuntimeError) if Lanczos does not converge.
    """
    try:
        from scipy.sparse import issparse
        from scipy.sparse.linalg import aslinearoperator, eigsh
    except ImportError as error:
        raise ImportError('modes of an operator need SciPy: pip install "ntkcore[sklearn]"') from error
    if not hasattr(operator, "matmat") and not issparse(operator):
        operator = check_symmetric(operator, "the kernel matrix")
        trace = float(operator.trace()) if trace is None else trace
    linear = aslinearoperator(operator)
    if np.issubdtype(linear.dtype, np.complexfloating):
        raise TypeError(f"the operator must be real, not of dtype {linear.dtype}")
    n = linear.shape[0]
    if linear.shape != (n, n) or not isinstance(k, Integral) or not 1 <= k < n:
        raise ValueError(f"an operator of shape {linear.shape} has no {k!r} leading modes: k must lie in 1 … n - 1")
    start = np.random.default_rng(0).standard_normal(n)  # ARPACK's own start is random: this makes calls repeatable
    values, vectors = eigsh(linear, k, which="LA", tol=tolerance, v0=start)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], np.ascontiguousarray(vectors[:, order])
    if values[-1] < -INDEFINITE[False] * max(values[0], 0.0) or not np.isfinite(values).all():
        raise ValueError(f"the operator is indefinite: eigenvalue {values[-1]:.3g} among its {k} largest")
    noise = n * np.finfo(np.float64).eps * float(values[0])
    values[values <= noise] = 0.0
    return Modes(cast(Array, values), cast(Array, vectors), trace, rest=float(values[-1]), noise=noise)
