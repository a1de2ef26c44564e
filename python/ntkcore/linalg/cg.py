"""(K + ridge I) A = Y by preconditioned conjugate gradients: any operator,
all columns in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import beside, to_host
from ntkcore.engine.inputs import check_count
from ntkcore.engine.tiles import progress_bar
from ntkcore.linalg.checkpoints import Checkpoint, System
from ntkcore.linalg.checks import NO_KERNEL, targets_of
from ntkcore.linalg.noise import ridge_of
from ntkcore.linalg.nystrom import Nystrom
from ntkcore.linalg.operators import KernelOperator, symmetric_operator
from ntkcore.store.files import check_place

Array = npt.NDArray[np.float64]
MEMORY = 2**32  # bytes of the preconditioner, at most, by default


@dataclass(frozen=True)
class CGResult:
    """Solution in the shape of Y; per column the relative residual; iterations;
    passes over the kernel; success.

    The solution is CuPy's if the kernel and Y are.
    """

    x: Array
    residuals: Array
    iterations: int
    passes: float
    converged: bool


def cg(
    K: Any,
    Y: npt.ArrayLike,
    ridge: float,
    *,
    relative: bool = False,
    rtol: float = 1e-6,
    maxiter: int = 1000,
    rank: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 10,
    progress: bool | None = None,
    callback: Callable[[int, Array], None] | None = None,
) -> CGResult:
    """Preconditioned conjugate gradients for (K + ridge I) X = Y,
    all columns of Y in each pass over K.

    Vectors and sums are float64, whatever the kernel's dtype, and lie where its tiles do,
    on a GPU for a CuPy kernel.

    Parameters
    ----------
    K
        A matrix, a chunked array or an operator of `ntkcore.operators`; symmetric.
    rtol
        A column is done when its residual is below ``rtol`` times its right-hand side. That is the
        residual itself, computed by one more pass, not the recursion's; where rounding allows no
        less, the result says so.
    rank
        Of the Nyström preconditioner, at most; it ends earlier where it suffices for the ridge.
        Default n/4, or what 4 GiB hold in the kernel's precision; 0 for none.
    checkpoint, every
        A file (.npz) that holds the state, written atomically every so many iterations; the same
        call again goes on from it. A file of another problem is refused: a pass tells kernels
        apart.
    callback
        Called with the iteration's number and the relative residuals.

    Raises
    ------
    ValueError
        For shapes, a K that is clearly not positive semidefinite, a ridge that is not positive,
        a checkpoint of another problem.
    """
    operator = symmetric_operator(K)
    data, flat = targets_of(to_host(Y), operator.shape[0])
    check_iteration(rtol, maxiter, every)
    check_count("rank", 0 if rank is None else rank, 0)
    check_count("seed", seed, 0)
    place = None if checkpoint is None else check_place(checkpoint)
    n, diagonal, start = operator.shape[0], operator.diagonal(), operator.passes
    value = ridge_of(ridge, relative, float(diagonal.mean()), operator.storage_dtype, n)
    check_bounded(diagonal, value, "conjugate gradients need")
    held = MEMORY // (n * operator.storage_dtype.itemsize)
    size = min(n // 4, held) if rank is None else min(int(rank), n)
    about = data.tobytes() + diagonal.tobytes() + repr((size, seed)).encode()
    problem = Problem(operator, data, value, about, place)
    state = problem.checkpoint.load()
    precondition = _preconditioner(operator, value, size, seed)
    run = iterate(problem, precondition, state, rtol, maxiter, every, progress, callback)
    solution = run.X * operator.xp.asarray(problem.scale)
    solution = beside(Y, solution[:, 0] if flat else solution)
    passes = operator.passes - start
    return CGResult(solution, run.residuals, run.done, passes, bool(run.residuals.max() <= rtol))


def iterate(
    problem: Problem,
    precondition: Callable[[Any], Any],
    state: tuple[Any, ...] | None,
    rtol: float,
    maxiter: int,
    every: int,
    progress: bool | None,
    callback: Callable[[int, Array], None] | None,
) -> _Run:
    """The iteration from its start, or from a checkpoint's state, to its end."""
    run, reached = _Run(problem, precondition, state), np.inf
    within = max(rtol, np.finfo(np.float64).eps)  # below, R is no residual, and underflows
    with progress_bar(maxiter, progress) as count:
        while True:
            while run.residuals.max() > within and run.done < maxiter:
                run.step(run.residuals > within)
                if run.done % every == 0:
                    problem.checkpoint.save(*run.state())
                count(1)
                if callback is not None:
                    callback(run.done, run.residuals)
            # R drifts from the residual by rounding: the residual itself counts, and the iteration
            # goes on from it.
            run.look()
            if (
                run.residuals.max() <= rtol
                or run.done >= maxiter
                or not run.residuals.max() < reached / 2
            ):
                break
            reached = run.residuals.max()
            run.restart()
    return run


def _preconditioner(
    operator: KernelOperator, ridge: float, rank: int, seed: int
) -> Callable[[Any], Any]:
    if rank == 0:
        return lambda R: R
    try:
        return Nystrom(operator, ridge, rank, seed)
    except np.linalg.LinAlgError:
        raise ValueError(NO_KERNEL) from None


def check_iteration(rtol: Any, maxiter: Any, every: Any) -> None:
    """ValueError for numbers that no iteration can go by."""
    check_count("every", every, 1)
    check_count("maxiter", maxiter, 0)
    check_rtol(rtol)


def check_bounded(diagonal: Array, ridge: float, who: str) -> None:
    """ValueError where residuals cannot bound the error: no kernel, or no ridge."""
    if diagonal.min() < 0:
        raise ValueError(NO_KERNEL)
    if ridge <= 0:
        raise ValueError(
            f"{who} a positive ridge: without one the error cannot be bounded by residuals"
        )


def check_rtol(rtol: Any) -> None:
    """ValueError for what is no number between 0 and 1."""
    if isinstance(rtol, bool) or not isinstance(rtol, Real) or not 0 < float(rtol) < 1:
        raise ValueError(
            "rtol must be a number > 0 and < 1 (zeros, which solve nothing, have the residual 1),"
            f" not {rtol!r:.60}"
        )


STATE = ("X", "R", "P", "rz")  # as a checkpoint names them; rz is <R, Z>


class _Run:
    """The iteration, for all columns: X, its residual R, the directions P, and <R, Z> for Z the
    preconditioned residual.
    """

    def __init__(
        self,
        problem: Problem,
        precondition: Callable[[Any], Any],
        state: tuple[Any, ...] | None,
    ) -> None:
        operator, Y, xp = problem.operator, problem.scaled, problem.operator.xp
        self.operator, self.ridge, self.precondition = operator, problem.ridge, precondition
        self.Y = xp.asarray(Y)
        self.norms = np.maximum(np.linalg.norm(Y, axis=0), np.finfo(float).tiny)
        if state is None:
            self.X, self.R, self.done = xp.zeros(Y.shape, np.float64), self.Y.copy(), 0
            self.restart()
        else:
            self.X, self.R, self.P, self.rz = map(xp.asarray, state[:4])
            self.done = state[4]
        self.residuals = self._relative()

    def state(self) -> tuple[Any, ...]:
        """What a checkpoint holds."""
        return self.X, self.R, self.P, self.rz, self.done

    def _relative(self) -> Array:
        """Norms of the residuals' columns, on the host: all that an iteration waits for."""
        out: Array = np.sqrt(to_host(_dots(self.R, self.R))) / self.norms
        return out

    def step(self, columns: Any) -> None:
        """One iteration of these columns."""
        at = slice(None) if columns.all() else self.operator.xp.asarray(np.flatnonzero(columns))
        P = self.P[:, at]
        Q = self.operator.product(P) + self.ridge * P
        alpha = self.rz[at] / _dots(P, Q)
        self.X[:, at] += alpha * P
        self.R[:, at] -= alpha * Q
        Z = self.precondition(self.R[:, at])
        new = _dots(self.R[:, at], Z)
        self.P[:, at] = Z + new / self.rz[at] * P
        self.rz[at] = new
        self.residuals = self._relative()
        self.done += 1

    def look(self) -> None:
        """The residual of X itself, by one more pass."""
        self.R = self.Y - self.operator.product(self.X) - self.ridge * self.X
        self.residuals = self._relative()

    def restart(self) -> None:
        """Directions anew, from the residual."""
        self.P = self.precondition(self.R).copy()
        self.rz = _dots(self.R, self.P)


def _dots(A: Any, B: Any) -> Any:
    """Scalar products of columns."""
    return (A * B).sum(0)


def column_scales(Y: Array) -> Array:
    """Powers of 2 about the size of the columns: divided by them, without rounding, their squares
    neither overflow nor vanish.
    """
    largest = np.abs(Y).max(0)
    out: Array = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1))))
    return out


class Problem:
    """(K + ridge I) X = Y, with columns of Y scaled to about 1, and its checkpoint; ``about`` are
    the bits that it must agree with, beside the kernel and the ridge.
    """

    def __init__(
        self,
        operator: System,
        Y: Array,
        ridge: float,
        about: bytes,
        file: Path | None,
    ) -> None:
        self.operator, self.ridge = operator, ridge
        self.scale = column_scales(Y)
        self.scaled: Array = Y / self.scale
        self.checkpoint = Checkpoint(file, STATE, operator, about, repr((ridge, Y.shape)).encode())
