"""(K + ridge I) A = Y by Cholesky: one factorisation, many right-hand sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, beside, failing_aloud, on_device, to_host
from ntkcore.linalg.checks import square_kernel, targets_of
from ntkcore.linalg.noise import noise_floor, ridge_of

try:
    import scipy.linalg
except ImportError:
    raise ImportError('solvers need SciPy: pip install "ntkcore[sklearn]"') from None

Array = npt.NDArray[np.float64]
PANEL = 256  # rows that are looked at together


def library_factor(A: Any) -> Any:
    """The lower Cholesky factor by NumPy's or CuPy's own call; LinAlgError where there is none."""
    with failing_aloud(A):
        return array_module(A).linalg.cholesky(A)


def lower_solve(L: Any, B: Any, transposed: bool = False) -> Any:
    """L^-1 B, or L^-T B, for a lower triangle L, where both lie."""
    if not on_device(L):
        return scipy.linalg.solve_triangular(
            L, B, lower=True, trans=int(transposed), check_finite=False
        )
    from cupyx.scipy.linalg import solve_triangular

    # CuPy copies a matrix unless it is in Fortran's order, as the transposed view of L is.
    return solve_triangular(L.T, B, lower=False, trans="N" if transposed else "T")


class Cholesky:
    """K + ridge I factorised once, in float64: many right-hand sides.

    Parameters
    ----------
    K : array_like of shape (n, n)
        A kernel of one data set, of NumPy or CuPy; a CuPy K is factorised on its GPU.
    ridge : float, default=0
        What is added to the diagonal, at least 0.
    relative : bool, default=False
        The ridge counts in units of K's mean diagonal.
    overwrite : bool, default=False
        Factorise in the memory of a float64 K that may be written. On a GPU the factor is always
        new memory: K and one more matrix of float64 with `overwrite` (K's diagonal then keeps the
        ridge), else, while it factorises, one more.

    Raises
    ------
    TypeError, ValueError
        For what is no finite, real, symmetric matrix,
        and where K + ridge I is not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Cholesky
    >>> Cholesky(np.diag([1.0, 3.0]), ridge=1.0).solve([2.0, 2.0])
    array([1. , 0.5])
    """

    def __init__(
        self,
        K: npt.ArrayLike,
        ridge: float = 0.0,
        *,
        relative: bool = False,
        overwrite: bool = False,
    ) -> None:
        matrix = square_kernel(K)
        n, mean = len(matrix), float(matrix.diagonal().mean())
        self.ridge = ridge_of(ridge, relative, mean, matrix.dtype, n)
        own = overwrite and matrix.dtype == np.float64 and getattr(matrix.flags, "writeable", True)
        work = matrix if own else matrix.astype(np.float64)
        at = array_module(work).arange(n)
        work[at, at] += self.ridge
        try:
            self._factor = _factor(work)
        except np.linalg.LinAlgError as error:
            hint = max(
                noise_floor(matrix.dtype, n, abs(mean)), self.ridge * 10, np.finfo(float).tiny
            )
            raise ValueError(
                f"K + {self.ridge:.2g} I is not positive definite ({error}): duplicates or rounding"
                f" leave no digits in its smallest eigenvalues; try a ridge of {hint:.1g}, or Eigh"
            ) from None

    def solve(self, Y: npt.ArrayLike) -> Array:
        """A of (K + ridge I) A = Y, in the shape of Y; on the GPU if the factor and Y are there."""
        data, flat = targets_of(to_host(Y), len(self._factor))
        out: Array
        if on_device(self._factor):
            half = lower_solve(self._factor, array_module(self._factor).asarray(data))
            out = beside(Y, lower_solve(self._factor, half, transposed=True))
        else:
            out = solve_factorised(self._factor, data)
        return out[:, 0] if flat else out


def _factor(work: Any) -> Any:
    """The lower Cholesky factor, on the host in work's lower triangle;
    LinAlgError where there is none.
    """
    if on_device(work):
        return library_factor(work)
    factorise(work)
    return work


def factorise(A: Any, block: int = 2048) -> None:
    """The lower Cholesky factor of A in its lower triangle, by blocks;
    what lies above the diagonal stays.

    LAPACK's own call on the whole matrix ends in a segmentation fault at n = 20 000 with two
    threads in OpenBLAS 0.3.30 and 0.3.31, NumPy's wheel and SciPy's alike.
    """
    n = len(A)
    for k in range(0, n, block):
        end = min(k + block, n)
        corner = A[k:end, k:end]
        corner[...] = np.linalg.cholesky(corner) + np.triu(corner, 1)
        if end == n:
            return
        below = scipy.linalg.solve_triangular(
            corner, A[end:, k:end].T, lower=True, check_finite=False
        ).T
        A[end:, k:end] = below
        for i in range(end, n, block):
            stop = min(i + block, n)
            rows = below[i - end : stop - end]
            A[i:stop, end:i] -= rows @ below[: i - end].T
            A[i:stop, i:stop] -= np.tril(rows @ rows.T)


def factorise_stably(A: Any, tolerance: float) -> bool:
    """`factorise`; False where A, symmetric, is singular to working precision:
    its reciprocal condition <= tolerance.

    A's lower triangle and diagonal are then lost, what lies above stays.
    """
    norm = max(np.abs(A[i : i + PANEL]).sum(axis=1).max() for i in range(0, len(A), PANEL))
    try:
        factorise(A)
    except np.linalg.LinAlgError:
        return False
    (pocon,) = scipy.linalg.get_lapack_funcs(("pocon",), (A,))
    return bool(pocon(A.T, norm, uplo="U")[0] > tolerance)  # A.T: LAPACK's order without a copy


def solve_factorised(A: Any, Y: Any) -> Any:
    """(L L^T)^-1 Y for L in the lower triangle of A, without a copy of A."""
    return scipy.linalg.cho_solve((A.T, False), Y, check_finite=False)


def least_norm(K: Any, Y: Any, ridge: float = 0.0, *, overwrite: bool = False) -> Any:
    """A of (K + ridge I) A = Y on the host, in K's dtype; of least norm where that is singular.

    By Cholesky; if it breaks down or the matrix is singular to working precision, by the
    pseudo-inverse from the eigenvalues above n eps lambda_max. ``overwrite``: in the memory of K,
    which is symmetric.
    """
    A = K if overwrite else K.copy()
    n, eps = len(A), np.finfo(A.dtype).eps
    A.flat[:: n + 1] += ridge
    diagonal = A.diagonal().copy()
    if factorise_stably(A, eps):
        return solve_factorised(A, Y)
    np.fill_diagonal(A, diagonal)  # with what lies above it, the matrix again
    # evr, not evd: its workspace of 2 n^2 values overflows LAPACK's 32-bit integers
    # from n = 32767 on.
    values, vectors = scipy.linalg.eigh(
        A.T, lower=True, driver="evr", overwrite_a=True, check_finite=False
    )
    kept = values > n * eps * values[-1]
    modes = vectors.T @ Y
    modes[kept] /= values[kept, None]
    modes[~kept] = 0
    return vectors @ modes
