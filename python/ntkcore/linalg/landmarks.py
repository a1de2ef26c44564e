"""Kernel regression on landmarks, for more samples than any n x n kernel has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.linalg.blas

from ntkcore.engine.device_arrays import to_host
from ntkcore.engine.inputs import check_count
from ntkcore.engine.tiles import pairs_in, progress_bar, tiles
from ntkcore.linalg.cg import Problem, check_iteration, iterate
from ntkcore.linalg.checks import check_matrix, square_kernel, targets_of
from ntkcore.linalg.cholesky import factorise, lower_solve, solve_factorised
from ntkcore.linalg.noise import check_ridge, noise_floor
from ntkcore.linalg.operators import KernelOperator, as_operator
from ntkcore.linalg.products import in_double
from ntkcore.store.files import check_place

Array = npt.NDArray[np.float64]
SKETCH = 4  # times m rows: the preconditioned system's condition is about 9
SIGNS = 8  # of a row of the sketch


class LandmarkRegression:
    """Kernel regression on m landmarks, for n beyond any n x n kernel.

    Minimises |K_nm a - Y|^2 + ridge a^T K_mm a by preconditioned conjugate gradients: each
    iteration computes or reads K_nm once, and nothing of size n x m is held. The preconditioner
    is the same problem on 4 m random combinations of the rows, which keeps the iterations few for
    any ridge. With every sample a landmark it is kernel ridge regression itself. Predictions are
    K_test_m @ coefficients.

    Parameters
    ----------
    K_nm : array_like or operator of shape (n, m)
        The kernel between samples and landmarks, such as ``MatrixFree(net, x, landmarks)``.
    K_mm : array_like of shape (m, m)
        The kernel between landmarks, best in float64.
    Y : array_like of shape (n,) or (n, outputs)
        Targets.
    ridge : float
        Positive; 0 where n is at most 4 m.
    rtol : float, default=1e-6
        Of the residuals of the whitened normal equations, relative to their right-hand side.
    maxiter : int, default=500
    seed : int, default=0
        Of the random combinations.
    checkpoint, every, progress, callback
        As for `cg`; K_nm is read once more where it goes on.

    Attributes
    ----------
    coefficients : ndarray of shape (m,) or (m, outputs)
    iterations : int
    passes : float
        How often K_nm was computed or read.

    Raises
    ------
    ValueError
        For shapes that do not fit, landmarks given more than once, and a K_mm that is not positive
        definite.
    RuntimeError
        Where conjugate gradients do not converge.

    References
    ----------
    Díaz et al. 2023, "Robust, randomized preconditioning for kernel ridge regression", algorithm 2
    (KRILL); Rudi, Carratino & Rosasco 2017, "FALKON", equation 8 (the problem).

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import LandmarkRegression, MatrixFree, kernel, mlp
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> K_nm, K_mm = MatrixFree(mlp(1), x, x[:20]), kernel(mlp(1), x[:20])
    >>> LandmarkRegression(K_nm, K_mm, x[:, 0], 1e-3).coefficients.shape
    (20,)
    """

    def __init__(
        self,
        K_nm: Any,
        K_mm: npt.ArrayLike,
        Y: npt.ArrayLike,
        ridge: float,
        *,
        rtol: float = 1e-6,
        maxiter: int = 500,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        every: int = 5,
        progress: bool | None = None,
        callback: Callable[[int, Array], None] | None = None,
    ) -> None:
        inner = to_host(square_kernel(K_mm))
        samples = as_operator(K_nm)
        n, m = samples.shape
        if m != len(inner):
            raise ValueError(f"K_nm has {m} landmarks, K_mm {len(inner)}")
        data, flat = targets_of(to_host(Y), n)
        check_ridge(ridge)
        check_iteration(rtol, maxiter, every)
        check_count("seed", seed, 0)
        check_determined(n, m, ridge)
        if twice := repeated(inner):
            raise ValueError(
                "landmarks {} and {} are the same sample, up to rounding: give each once".format(
                    *min(twice)
                )
            )
        place = None if checkpoint is None else check_place(checkpoint)
        start = samples.passes
        system = _Whitened(samples, inner, ridge, progress)
        rows, right = system.summary(data, seed)
        # Not of the right side: other threads or tiles round it otherwise.
        about = data.tobytes() + repr((n, seed)).encode()
        problem = Problem(system, right, ridge, about, place)
        state = problem.checkpoint.load()
        precondition = _inverse(system.gram(rows), ridge)
        del rows  # as large as all else
        run = iterate(problem, precondition, state, rtol, maxiter, every, False, callback)
        if not run.residuals.max() <= rtol:
            raise RuntimeError(
                f"the residual is {run.residuals.max():.1e} after {run.done} iterations: raise"
                " maxiter, rtol (rounding may allow no less) or the ridge"
            )
        found = system.unwhiten(run.X * problem.scale)
        self.coefficients: Array = found[:, 0] if flat else found
        self.iterations, self.passes = run.done, samples.passes - start

    def predict(self, K_test: npt.ArrayLike) -> Array:
        """Predictions from the kernel between test samples and landmarks."""
        cross = check_matrix(to_host(K_test), "K_test", (None, len(self.coefficients)))
        out: Array = cross @ self.coefficients
        return out


def check_determined(n: int, m: int, ridge: float) -> None:
    """ValueError where a sketch cannot precondition the problem without a ridge."""
    if ridge == 0 and n > SKETCH * m:
        raise ValueError(f"{n} samples on {m} landmarks need a positive ridge")


def repeated(K: Array) -> list[tuple[int, int]]:
    """Landmarks that are others over again: pairs (i, j), i the first, of rows of their kernel that
    agree up to its rounding.

    Equal rows have equal products with any vector: only neighbours among these are compared. Where
    a kernel's K_ij of equal samples is K_ii to half of the digits only, products with two of three
    parts of the columns are off by that, the third's is not.
    """
    m, eps = len(K), float(np.finfo(K.dtype).eps)
    size = np.sqrt(np.abs(K.diagonal().astype(np.float64)))
    weights = np.random.default_rng(0).standard_normal(m) / np.where(size > 0, size, 1)
    first = np.arange(m)

    def same(i: int, j: int) -> bool:
        within = 8 * eps * size[i] * size
        if m > 2:
            within[[i, j]] *= 1 / (2 * eps**0.5)
        return bool((np.abs(K[i] - K[j]) <= within).all())

    for part in range(3):
        products = K[:, part::3] @ weights[part::3].astype(K.dtype)
        order = np.argsort(products, kind="stable")
        close = np.diff(products[order]) <= 100 * eps * m * size[order[1:]]
        for at in np.flatnonzero(close):
            i, j = order[at : at + 2]
            if first[i] != first[j] and same(i, j):
                low, high = sorted((first[i], first[j]))
                first[first == high] = low
    return [(int(first[j]), int(j)) for j in np.flatnonzero(first != np.arange(m))]


class _Whitened:
    """L^-1 (K_mn K_nm - ridge j I) L^-T for K_mm + j I = L L^T, j of the size of rounding.

    With the ridge added it is the restricted problem, exactly, in c of a = L^-T c.
    """

    xp: Any = np  # where vectors lie

    def __init__(
        self, samples: KernelOperator, inner: Any, ridge: float, progress: bool | None
    ) -> None:
        self.samples, self.progress = samples, progress
        self.shape = (len(inner), len(inner))
        jitter = noise_floor(inner.dtype, len(inner), float(inner.diagonal().mean()))
        limit = jitter * len(inner) ** 1.5 / 4  # n eps trace: rounding of a kernel of low rank
        while (root := _factor(inner, jitter)) is None:
            jitter *= 10
            if not 0 < jitter <= limit:
                raise ValueError(
                    "K_mm is not positive definite: is it the kernel of the landmarks?"
                )
        self._root, self._shift = root, ridge * jitter

    def _blocks(self) -> Iterator[tuple[slice, Any]]:
        """K_nm, where its tiles lie, some rows at a time."""
        samples, (n, m) = self.samples, self.samples.shape
        work = tiles(n, m, samples.tile, m, False)
        with progress_bar(n * m, self.progress) as count:
            for task, block in zip(work, samples.blocks(work), strict=True):
                yield slice(*task[:2]), block
                count(pairs_in(task))
        samples.passes += 1

    def product(self, C: Array) -> Array:
        """Times a matrix of m rows."""
        inside = self.unwhiten(C)
        out = self.samples.gram_product(self.samples.xp.asarray(inside), self.progress)
        whitened: Array = lower_solve(self._root, to_host(out) - self._shift * inside)
        return whitened

    def unwhiten(self, C: Array) -> Array:
        """L^-T C."""
        out: Array = lower_solve(self._root, C, transposed=True)
        return out

    def summary(self, Y: Array, seed: int) -> tuple[Array, Array]:
        """B with B^T B about K_mn K_nm, and L^-1 K_mn Y, in one pass.

        B is K_nm itself where n is small, else a sparse sign sketch of it.
        """
        n, m = self.samples.shape
        B = np.zeros((min(n, SKETCH * m), m), self.samples.storage_dtype)
        right = np.zeros((m, Y.shape[1]))
        for rows, tile in self._blocks():
            here = to_host(tile)
            for at, block in in_double(here, rows.start):
                right += block.T @ Y[at]
            if n > SKETCH * m:
                _add_signed(B, here, np.random.default_rng([seed, rows.start]))
            else:
                B[rows] = here
        return B, lower_solve(self._root, right)

    def gram(self, B: Array) -> Array:
        """L^-1 B^T B L^-T, its lower triangle."""
        out: Any = np.zeros(self.shape, order="F")
        for i in range(0, len(B), self.samples.tile):
            whitened = lower_solve(self._root, B[i : i + self.samples.tile].T.astype(np.float64))
            out = scipy.linalg.blas.dsyrk(1.0, whitened, beta=1.0, c=out, overwrite_c=True)
        return cast(Array, out.T)  # BLAS fills the upper triangle in Fortran's order


def _factor(K: Any, jitter: float) -> Array | None:
    """The Cholesky factor of K + jitter I in the lower triangle of a new matrix, if there is
    one.
    """
    out: Array = K.astype(np.float64)
    out[np.diag_indices_from(out)] += jitter
    try:
        factorise(out)
    except np.linalg.LinAlgError:
        return None
    return out


def _inverse(gram: Array, ridge: float) -> Callable[[Array], Array]:
    """Y -> (gram + ridge I)^-1 Y, in the memory of gram, whose lower triangle counts."""
    gram[np.diag_indices_from(gram)] += ridge
    try:
        factorise(gram)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"K_mn K_nm + {ridge:.2g} K_mm is not positive definite: raise the ridge, or take fewer"
            " landmarks"
        ) from None
    return lambda Y: cast(Array, solve_factorised(gram, Y))


def _add_signed(B: Any, rows: Any, rng: np.random.Generator) -> None:
    """Each row, with a random sign, to 8 random rows of B: a sparse sign matrix times the rows."""
    for i in range(0, len(rows), len(B)):
        part = rows[i : i + len(B)]
        for _ in range(SIGNS):
            signs = rng.choice([-1.0, 1.0], len(part)).astype(B.dtype) / SIGNS**0.5
            B[rng.permutation(len(B))[: len(part)]] += signs[:, None] * part
