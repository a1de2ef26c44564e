"""Eigendecompositions in float64: for every ridge at once (`Eigh`),
and for training in closed form (`Modes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, beside, failing_aloud, on_device, to_host
from ntkcore.engine.inputs import as_array, free_bytes, size_text
from ntkcore.linalg.checks import (
    INDEFINITE,
    check_share,
    check_symmetric,
    refuse_asymmetric_operator,
    single,
    square_kernel,
    targets_of,
)
from ntkcore.linalg.noise import check_ridge, check_ridges, noise_floor, ridge_of

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Modes:
    """Eigenpairs of a kernel matrix, largest first, with rounding noise set to exactly 0.

    ``values`` (k,), ``vectors`` (n, k), float64. ``trace``: the matrix's trace, None if unknown.
    ``rest``: no eigenvalue that is not here exceeds it; 0 if all are here. ``noise``: eigenvalues
    up to it were set to 0.
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
        check_ridge(ridge)
        if absolute or ridge == 0:
            return float(ridge)
        if self.trace is None:
            raise ValueError(
                "a relative ridge is in units of the kernel's mean diagonal:"
                " give trace=, or absolute=True"
            )
        return float(ridge) * self.trace / len(self.vectors)


class Eigh:
    """One eigendecomposition of K, in float64: every ridge after it costs two products.

    A CuPy K is decomposed on its GPU, where its vectors stay. Attributes: ``values`` ascending, of
    NumPy, ``vectors``. On the host N > 32767 takes a LAPACK that counts in 64 bits, as that of
    NumPy's own wheels; else refused by name.
    """

    def __init__(self, K: npt.ArrayLike) -> None:
        matrix = square_kernel(K)
        self.storage_dtype = matrix.dtype
        self._xp = array_module(matrix)
        found = decomposed(matrix.astype(np.float64, copy=False))
        self.values: Array = to_host(found[0])
        self.vectors: Any = found[1]

    def _decayed(self, ridge: float, relative: bool) -> Array:
        value = ridge_of(
            ridge, relative, float(self.values.mean()), self.storage_dtype, len(self.values)
        )
        sums = self.values + value
        if sums.min() <= 0:
            raise ValueError(
                f"K + {value:.2g} I is singular: its smallest eigenvalue is {sums.min():.2g}; the"
                f" ridge must exceed {-self.values.min():.2g}"
            )
        out: Array = 1 / sums
        return out

    def _projected(self, data: Array) -> Array:
        """V^T Y, on the host."""
        out: Array = to_host(self.vectors.T @ self._xp.asarray(data))
        return out

    def solve(self, Y: npt.ArrayLike, ridge: float = 0.0, *, relative: bool = False) -> Array:
        """A of (K + ridge I) A = Y, in the shape of Y; on the GPU if K and Y are there."""
        data, flat = targets_of(to_host(Y), len(self.values))
        weights = self._decayed(ridge, relative)[:, None] * self._projected(data)
        out: Array = beside(Y, self.vectors @ self._xp.asarray(weights))
        return out[:, 0] if flat else out

    def path(self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False) -> Array:
        """`solve` for every ridge: (ridges, *Y.shape)."""
        check_ridges(ridges)
        found = [self.solve(Y, ridge, relative=relative) for ridge in ridges]
        out: Array = array_module(found[0]).stack(found)
        return out

    def leave_one_out(
        self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False
    ) -> Array:
        """Mean squared error of predicting each sample from the others, per ridge:
        of A_i / [(K + ridge)^-1]_ii.
        """
        check_ridges(ridges)
        projected = self._projected(targets_of(to_host(Y), len(self.values))[0])
        errors = []
        for ridge in ridges:
            decayed = self._decayed(ridge, relative)
            A = to_host(self.vectors @ self._xp.asarray(decayed[:, None] * projected))
            errors.append(float(((A / self._inverse_diagonal(decayed)[:, None]) ** 2).mean()))
        return np.array(errors)

    def _inverse_diagonal(self, decayed: Array, step: int = 1024) -> Array:
        """sum_j V_ij^2 decayed_j, by panels of rows: no second matrix."""
        weights = self._xp.asarray(decayed)
        starts = range(0, len(decayed), step)
        return np.concatenate([to_host(self.vectors[i : i + step] ** 2 @ weights) for i in starts])

    def gcv(self, Y: npt.ArrayLike, ridges: Sequence[float], *, relative: bool = False) -> Array:
        """Generalised cross-validation, per ridge: the same with that diagonal's mean (Golub,
        Heath & Wahba 1979).
        """
        check_ridges(ridges)
        projected = self._projected(targets_of(to_host(Y), len(self.values))[0])
        decays = [self._decayed(ridge, relative) for ridge in ridges]
        return np.array([float(((d[:, None] * projected / d.mean()) ** 2).mean()) for d in decays])


def decomposed(matrix: Any) -> tuple[Any, Any]:
    """Eigenvalues, ascending, and eigenvectors of a float64 matrix where it lies; what this would
    fail by on the host is said before.
    """
    n, free = len(matrix), free_bytes()
    need = 4 * 8 * n * n  # syevd holds the matrix, the vectors and 2 n^2 of workspace
    if not on_device(matrix) and free is not None and need > free:
        raise MemoryError(
            f"the eigenvectors of {n} points need about {size_text(need)}, and {size_text(free)}"
            " are free: use leading_modes() on an operator, or fewer points"
        )
    if n > 32767 and not on_device(matrix) and not _lapack_is_64_bit():
        raise ValueError(
            f"N = {n} overflows the 32-bit workspace of this NumPy's LAPACK (N <= 32767): install "
            "NumPy's own wheel from PyPI, or use Cholesky or cg"
        )
    with failing_aloud(matrix):
        values, vectors = array_module(matrix).linalg.eigh(matrix)
    return values, vectors


def _lapack_is_64_bit() -> bool:
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return "64" in blas.get("name", "") or "USE64BITINT" in blas.get("openblas configuration", "")


def eigenmodes(kernel: npt.ArrayLike, name: str = "the kernel matrix") -> Modes:
    """All eigenpairs of a kernel matrix, in float64, whatever its dtype.

    Noise is n eps lambda_max, for a float32 kernel at least `noise_floor`, and at least twice the
    size of the most negative eigenvalue, which only rounding can have made. Eigenvalues up to it
    become 0.

    Parameters
    ----------
    kernel : array_like of shape (n, n)
    name : str, optional
        As errors call it.

    Returns
    -------
    Modes

    Raises
    ------
    ValueError
        For a matrix that is not square, finite, symmetric and, up to rounding,
        positive semidefinite.
    MemoryError
        Before any work, if the eigenvectors do not fit.

    Examples
    --------
    >>> from ntkcore.dynamics import eigenmodes
    >>> eigenmodes([[2.0, 0.0], [0.0, 3.0]]).values
    array([3., 2.])
    """
    given = as_array(kernel, name)
    lower = single(given.dtype)
    K = check_symmetric(given, name)
    n = len(K)
    values, vectors = decomposed(K)
    top, bottom, trace = float(values[-1]), float(values[0]), float(K.trace())
    if bottom < -INDEFINITE[lower] * max(top, 0.0):
        raise ValueError(
            f"{name} is indefinite: its eigenvalues reach from {bottom:.3g} to {top:.3g}, more than"
            " rounding explains; a kernel has none below 0. Was something subtracted from it, or"
            " its rows reordered?"
        )
    noise = _noise(top, bottom, n, trace / n, lower)
    values[values <= noise] = 0.0
    return Modes(values[::-1].copy(), np.ascontiguousarray(vectors[:, ::-1]), trace, noise=noise)


def _noise(top: float, bottom: float, n: int, mean: float, lower: bool) -> float:
    """Up to which eigenvalues are rounding: they reach from bottom to top; ``mean`` is that of the
    diagonal, ``lower`` says that entries are of single precision.
    """
    stored = noise_floor(np.float32, n, mean) if lower else 0.0
    return max(n * float(np.finfo(np.float64).eps) * top, stored, -2 * bottom)


def leading_modes(
    operator: Any, k: int, *, trace: float | None = None, tolerance: float = 1e-10
) -> Modes:
    """The k leading eigenpairs of an operator by block Krylov (see `eigs`): only products with
    k + 10 vectors are taken. Rounding noise counts as 0, as for `eigenmodes`.

    Parameters
    ----------
    operator : scipy.sparse.linalg.LinearOperator of shape (n, n)
        Symmetric positive semidefinite; or anything that SciPy's aslinearoperator takes.
    k : int
        From 1 to n - 1.
    trace : float, optional
        Its trace if known, for relative ridges.
    tolerance : float, default=1e-10
        Of the eigenpairs' residuals, relative to the largest eigenvalue; at least the rounding of
        an operator of single precision that is not ours.

    Returns
    -------
    Modes

    Raises
    ------
    ValueError
        For another k, or a negative leading eigenvalue.
    ImportError
        Without SciPy.
    RuntimeError
        Where the iteration does not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore.dynamics import leading_modes
    >>> leading_modes(np.diag([1.0, 5.0, 3.0]), 1).values.round(6)
    array([5.])
    """
    try:
        from scipy.sparse import issparse
        from scipy.sparse.linalg import aslinearoperator
    except ImportError as error:
        raise ImportError(
            'modes of an operator need SciPy: pip install "ntkcore[sklearn]"'
        ) from error
    if not hasattr(operator, "matmat") and not issparse(operator):
        operator = check_symmetric(operator, "the kernel matrix")
        trace = float(operator.trace()) if trace is None else trace
    linear = aslinearoperator(operator)
    if np.issubdtype(linear.dtype, np.complexfloating):
        raise TypeError(f"the operator must be real, not of dtype {linear.dtype}")
    n = linear.shape[0]
    whole = isinstance(k, Integral) and not isinstance(k, bool)
    if linear.shape != (n, n) or not whole or not 1 <= k < n:
        raise ValueError(
            f"an operator of shape {linear.shape} has no {k!r} leading modes:"
            " k must lie in 1 … n - 1"
        )
    check_share(tolerance, "tolerance")
    refuse_asymmetric_operator(operator if hasattr(operator, "matmat") else linear)
    from ntkcore.linalg.krylov import block_krylov

    ours = hasattr(operator, "product") and operator.symmetric
    if ours and trace is None:
        trace = float(operator.diagonal().sum())
    system = operator if ours else _Linear(linear)
    lower = single(system.storage_dtype)
    if lower and not ours:  # whose products are in single precision too
        tolerance = max(tolerance, float(np.finfo(np.float32).eps) * n**0.5)
    found = block_krylov(system, int(k), tolerance=tolerance)
    values, vectors = found.values, to_host(found.vectors)
    if values[-1] < -INDEFINITE[lower] * max(values[0], 0.0) or not np.isfinite(values).all():
        raise ValueError(
            f"the operator is indefinite: eigenvalue {values[-1]:.3g} among its {k} largest"
        )
    mean = (values.sum() if trace is None else trace) / n
    noise = _noise(float(values[0]), float(min(values[-1], 0.0)), n, float(mean), lower)
    values[values <= noise] = 0.0
    return Modes(values, cast(Array, vectors), trace, rest=max(found.rest, 0.0), noise=noise)


class _Linear:
    """Any linear operator of SciPy, for block Krylov."""

    xp: Any = np

    def __init__(self, linear: Any) -> None:
        self._linear, self.shape = linear, linear.shape
        self.storage_dtype = np.dtype(linear.dtype)

    def product(self, X: Any) -> Any:
        """Times a matrix."""
        return np.asarray(self._linear.matmat(X), np.float64)
