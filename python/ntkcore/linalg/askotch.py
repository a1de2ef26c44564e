"""(K + ridge I) A = Y by sketched blocks, where no preconditioner of n x rank fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import beside, to_host
from ntkcore.engine.inputs import check_count
from ntkcore.engine.tiles import progress_bar
from ntkcore.linalg.cg import CGResult, check_bounded, check_rtol, column_scales
from ntkcore.linalg.checkpoints import Checkpoint
from ntkcore.linalg.checks import INDEFINITE, NO_KERNEL, single, targets_of
from ntkcore.linalg.cholesky import lower_solve
from ntkcore.linalg.noise import ridge_of
from ntkcore.linalg.operators import KernelOperator, symmetric_operator
from ntkcore.store.files import check_place

Array = npt.NDArray[np.float64]
POWER_STEPS = 10  # towards the largest eigenvalue of a preconditioned block


def askotch(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    *,
    relative: bool = False,
    rtol: float = 1e-4,
    max_passes: int = 200,
    block: int | None = None,
    rank: int = 100,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    callback: Callable[[float, Array], None] | None = None,
) -> CGResult:
    """Accelerated sketch-and-project for (K + ridge I) X = Y, all columns of Y together.

    A step solves for ``block`` random points by a Nyström approximation of their own kernel, and
    reads only their rows of K; n / block steps read K once. Memory is that of a few vectors and
    a block's matrix: for n beyond any preconditioner of `cg`.

    Parameters
    ----------
    K : array_like or operator of shape (n, n)
        A kernel of one data set.
    Y : array_like of shape (n,) or (n, outputs)
        Targets.
    ridge : float
        > 0; times the mean diagonal with ``relative``.
    rtol : float, default=1e-4
        It ends when every column's residual is below rtol times its right-hand side.
    max_passes : int, default=200
        Passes over K at most, one of which in every ten checks the residual.
    block, rank : int
        Points of a step, n / 100 (at least 32) by default; of its approximation. Of a chunked
        kernel a step takes the points of whole chunks, about so many.
    seed : int, default=0
    checkpoint
        A file (.npz) that holds the state, written after every pass; the same call goes on from it.
    callback
        Called with the passes done and the relative residuals, after each look.

    Returns
    -------
    CGResult
        ``iterations`` are steps.

    Raises
    ------
    ValueError
        For shapes, a K that is clearly not positive semidefinite, a ridge that is not positive,
        a checkpoint of another problem.

    References
    ----------
    Rathore, Frangella, Yang, Dereziński & Udell 2024, "Have ASkotch: a neat solution for
    large-scale kernel ridge regression", version 3, algorithm 3.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import MatrixFree, mlp
    >>> from ntkcore.solve import askotch
    >>> x = np.random.default_rng(0).standard_normal((300, 3))
    >>> askotch(MatrixFree(mlp(2), x), x[:, 0], 0.1).converged
    True
    """
    operator = symmetric_operator(K)
    data, flat = targets_of(to_host(Y), operator.shape[0])
    check_rtol(rtol)
    check_count("max_passes", max_passes, 0)
    n, diagonal, start = operator.shape[0], operator.diagonal(), operator.passes
    size = default_block(n) if block is None else block
    check_count("block", size, 1)
    check_count("rank", rank, 1)
    check_count("seed", seed, 0)
    value = ridge_of(ridge, relative, float(diagonal.mean()), operator.storage_dtype, n)
    check_bounded(diagonal, value, "sketch-and-project needs")
    unit = operator.tile if operator.chunked else 1  # points that are read together
    about = (data.tobytes(), diagonal.tobytes(), repr((value, size, rank, seed, unit)).encode())
    kept = Checkpoint(
        None if checkpoint is None else check_place(checkpoint), ("w", "v", "z"), operator, *about
    )
    scales = column_scales(data)
    units = max(1, min(size, n) // unit)
    run = _Run(operator, data / scales, value, units, unit, rank, diagonal, seed)
    run.resume(kept.load())
    epoch, residuals = run.epoch, run.residuals()
    with progress_bar(max_passes * epoch, progress) as count:
        count(run.done)
        while residuals.max() > rtol and run.done < max_passes * epoch:
            run.step()
            count(1)
            if run.done % epoch:
                continue
            kept.save(run.w, run.v, run.z, run.done)
            epochs = run.done // epoch
            if run.seems_below(rtol) or epochs % 10 == 0 or epochs == max_passes:
                residuals = run.residuals()
                if callback is not None:
                    callback(operator.passes - start, residuals)
    solution = run.w * scales
    solution = beside(Y, solution[:, 0] if flat else solution)
    passes, done = operator.passes - start, bool(residuals.max() <= rtol)
    return CGResult(solution, residuals, run.done, passes, done)


def default_block(n: int) -> int:
    """Points of a step."""
    return min(n, max(n // 100, 32))


class _Run:
    """The iteration: w, the solution; v and z of its acceleration. All of them on the host."""

    def __init__(
        self,
        operator: KernelOperator,
        Y: Array,
        ridge: float,
        units: int,
        unit: int,
        rank: int,
        diagonal: Array,
        seed: int,
    ) -> None:
        self.operator, self.Y, self.ridge, self.seed = operator, Y, ridge, seed
        self.units, self.unit, self.rank, self.done = units, unit, rank, 0
        block = min(len(Y), units * unit)
        self.epoch = -(-len(Y) // block)  # steps that read K once
        self.w, self.v, self.z = (np.zeros(Y.shape) for _ in range(3))
        self.norms = np.maximum(np.linalg.norm(Y, axis=0), np.finfo(float).tiny)
        self.seen = np.zeros(Y.shape[1])  # squares of an epoch's residuals, block by block
        nu = len(Y) / block
        mean = float(diagonal.mean())
        mu = ridge / mean if ridge < nu * mean else nu
        self.beta = 1 - (mu / nu) ** 0.5
        self.gamma = 1 / (mu * nu) ** 0.5
        self.alpha = 1 / (1 + self.gamma * nu)

    def resume(self, state: tuple[Any, ...] | None) -> None:
        """From a checkpoint's state."""
        if state is not None:
            self.w, self.v, self.z, self.done = state

    def step(self) -> None:
        """One block."""
        rng = np.random.default_rng([self.seed, self.done])
        at = self._drawn(rng)
        approximation = _Block(to_host(self.operator.submatrix(at)), self.ridge, self.rank, rng)
        g = to_host(self.operator.row_product(at, self.operator.xp.asarray(self.z)))
        g += self.ridge * self.z[at] - self.Y[at]
        if self.done % self.epoch == 0:
            self.seen[:] = 0
        self.seen += (g**2).sum(0)
        d = approximation.solve(g) / approximation.smoothness
        self.w = self.z.copy()
        self.w[at] -= d
        self.v = self.beta * self.v + (1 - self.beta) * self.z
        self.v[at] -= self.gamma * d
        self.z = self.alpha * self.v + (1 - self.alpha) * self.w
        self.done += 1

    def _drawn(self, rng: np.random.Generator) -> Any:
        """A block's points, rising."""
        n, unit = len(self.Y), self.unit
        starts = np.sort(rng.choice(-(-n // unit), self.units, replace=False)) * unit
        at = (starts[:, None] + np.arange(unit)).ravel()
        return at[at < n]

    def seems_below(self, rtol: float) -> bool:
        """By the residuals of the last epoch's blocks, which cost nothing."""
        return bool((np.sqrt(self.seen) / self.norms).max() <= 1.3 * rtol)

    def residuals(self) -> Array:
        """Of w, relative, by a pass over K."""
        xp = self.operator.xp
        R = self.Y - to_host(self.operator.product(xp.asarray(self.w))) - self.ridge * self.w
        out: Array = np.linalg.norm(R, axis=0) / self.norms
        return out


def _root(matrix: Array, shift: float) -> Array | None:
    """The Cholesky factor of matrix + shift I, if there is one."""
    try:
        return cast(Array, np.linalg.cholesky(matrix + shift * np.eye(len(matrix))))
    except np.linalg.LinAlgError:
        return None


class _Block:
    """The Nyström approximation U S U^T + rho I of a block's K + ridge I, damped: rho is the ridge
    and the least eigenvalue kept.
    """

    def __init__(self, K: Any, ridge: float, rank: int, rng: np.random.Generator) -> None:
        noise, lower = float(np.finfo(K.dtype).eps), single(K.dtype)
        K = K.astype(np.float64, copy=False)
        trace, tiny = float(K.trace()), float(np.finfo(np.float64).tiny)
        omega = np.linalg.qr(rng.standard_normal((len(K), min(rank, len(K)))))[0]
        image = K @ omega
        inner, shift = omega.T @ image, max(noise * trace, tiny)  # of zero rows too
        while (root := _root(inner, shift)) is None:
            shift *= 10
            if shift > INDEFINITE[lower] * trace:
                raise ValueError(NO_KERNEL)
        half = lower_solve(root, (image + shift * omega).T).T
        self.U, sigma, _ = np.linalg.svd(half, full_matrices=False)
        self.S = np.maximum(sigma**2 - shift, 0)
        self.rho = ridge + self.S[-1]
        # The largest eigenvalue of (K + ridge I) (U S U^T + rho I)^-1, by power iteration.
        x = rng.standard_normal((len(K), 1))
        for _ in range(POWER_STEPS):
            x = self.solve(x / np.linalg.norm(x))
            x = K @ x + ridge * x
        self.smoothness = max(float(np.linalg.norm(x)), 1.0)

    def solve(self, G: Array) -> Array:
        """(U S U^T + rho I)^-1 G."""
        inside = self.U.T @ G
        scaled = inside / (self.S + self.rho)[:, None] - inside / self.rho
        out: Array = G / self.rho + self.U @ scaled
        return out
