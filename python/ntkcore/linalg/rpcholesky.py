"""Randomly pivoted Cholesky: a low-rank factor of a kernel, and its landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import to_host
from ntkcore.engine.inputs import check_count
from ntkcore.linalg.checks import NO_KERNEL, check_share
from ntkcore.linalg.cholesky import lower_solve
from ntkcore.linalg.noise import check_ridge
from ntkcore.linalg.operators import KernelOperator, symmetric_operator

Array = npt.NDArray[np.float64]
BLOCK_BYTES = 2**29  # of the rows that are worked on together, if in float64
COLUMNS = 4096  # that are worked on while they are in a cache, on the host
CHUNKED_BLOCK = 1024  # rows: any of them reads the chunks that hold it


@dataclass(frozen=True)
class LowRank:
    """K ≈ factor.T @ factor, exactly so in the rows of the landmarks.

    Attributes
    ----------
    landmarks : ndarray of shape (rank,)
        Rows of K, in the order in which they were chosen.
    factor : ndarray of shape (rank, n)
        Of K's own precision, where its tiles lie (CuPy's on a GPU).
    residual : ndarray of shape (n,)
        The diagonal of K - factor.T @ factor.
    trace_error : float
        The residual's trace over K's: what the factor leaves out.
    """

    landmarks: npt.NDArray[np.int64]
    factor: Any
    residual: Array
    trace_error: float


def rpcholesky(
    K: Any, rank: int, *, ridge: float = 0.0, tol: float = 1e-13, seed: int = 0
) -> LowRank:
    """Accelerated randomly pivoted Cholesky: ``rank`` landmarks and the factor they span.

    The law is that of one pivot at a time, each drawn with probabilities of the residual's
    diagonal. Proposals are drawn by the block, and the small matrix between them tells which of
    them one-by-one pivoting would have taken; only those rows of K are read. Memory is rank x n
    numbers of K's precision, the cost rank rows of K and n rank^2 multiply-adds.

    Parameters
    ----------
    K : array_like or operator of shape (n, n)
        A kernel of one data set.
    rank : int
        Landmarks, at most.
    ridge : float, default=0
        Where positive, it ends at the first block with trace(residual) <= ridge * rank: the
        effective dimension trace(K (K + ridge I)^-1), at most rank + trace(residual) / ridge, is
        then at most twice the rank.
    tol : float, default=1e-13
        It ends where the residual's trace is below tol times K's, or is K's rounding.
    seed : int, default=0

    Returns
    -------
    LowRank

    Raises
    ------
    ValueError
        For what is no symmetric kernel or clearly not positive semidefinite (a LinAlgError), and
        for a rank that is no number from 1 to n.

    References
    ----------
    Chen, Epperly, Tropp & Webber 2023, "Randomly pivoted Cholesky"; Epperly, Tropp & Webber 2024,
    "Embrace rejection", algorithms 2.1 and 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import rpcholesky
    >>> found = rpcholesky(np.diag([4.0, 1.0, 0.0]), 3)
    >>> sorted(found.landmarks.tolist()), found.trace_error
    ([0, 1], 0.0)
    """
    operator = symmetric_operator(K)
    n = operator.shape[0]
    check_count("rank", rank, 1)
    if rank > n:
        raise ValueError(f"rank {rank} is more than the kernel's {n} rows")
    check_ridge(ridge)
    check_share(tol, "tol, a share of the trace,")
    check_count("seed", seed, 0)
    growing = _Growing(operator, rank, seed)
    start = growing.residual.sum()
    enough = max(tol, 10 * growing.eps) * start
    while growing.found < rank and growing.residual.sum() > enough:
        if growing.residual.sum() <= ridge * growing.found:
            break
        growing.grow()
    error = float(growing.residual.sum() / start) if start > 0 else 0.0
    landmarks = np.asarray(growing.pivots, np.int64)
    return LowRank(landmarks, growing.factor, growing.residual, error)


class _Growing:
    """The factor while it grows, block by block."""

    def __init__(self, operator: KernelOperator, rank: int, seed: int) -> None:
        n, dtype = operator.shape[0], operator.storage_dtype
        self.operator, self.rng = operator, np.random.default_rng(seed)
        self.eps = float(np.finfo(dtype).eps)
        self.diagonal = operator.diagonal()
        if not self.diagonal.min() >= 0:
            raise np.linalg.LinAlgError(NO_KERNEL)
        self.residual = self.diagonal.copy()
        self.whole = operator.xp.empty((rank, n), dtype)
        self.pivots: list[int] = []
        least = CHUNKED_BLOCK if operator.chunked else 32
        self.wanted = max(1, min(max(rank // 10, least), BLOCK_BYTES // (8 * n)))  # a block
        self.proposed = self.wanted

    @property
    def found(self) -> int:
        return len(self.pivots)

    @property
    def factor(self) -> Any:
        return self.whole[: self.found]

    def grow(self) -> None:
        """One block: proposals, those that are taken, their rows."""
        residual, room = self.residual, min(self.wanted, len(self.whole) - self.found)
        drawn = self.rng.choice(len(residual), self.proposed, p=residual / residual.sum())
        # A chunked kernel is read once for both; else only rows of pivots taken are.
        rows = self.operator.rows(drawn) if self.operator.chunked else None
        K = self.operator.submatrix(drawn) if rows is None else rows[:, drawn]
        kept, root = self._accepted(drawn, K, room)
        if not self.operator.chunked:
            most = 4 * self.wanted
            self.proposed = min(most, self.proposed * self.wanted // max(len(kept), 1) + 1)
        if kept:
            pivots = drawn[kept]
            self._append(pivots, root, self.operator.rows(pivots) if rows is None else rows[kept])

    def _accepted(self, drawn: npt.NDArray[np.int64], K: Any, room: int) -> tuple[list[int], Array]:
        """Positions in ``drawn`` of the pivots taken, and the Cholesky factor between them.

        A proposal is taken with the probability h/u: u is the residual's diagonal that it was
        drawn by, h what the pivots taken before it leave of that.
        """
        at = self.operator.xp.asarray(drawn)
        there = self.factor[:, at].astype(np.float64, copy=False)
        H = to_host(K.astype(np.float64, copy=False) - there.T @ there)
        noise = 10 * self.eps * self.diagonal[drawn]
        h, root = H.diagonal().copy(), np.zeros((len(drawn), room))
        self.residual[drawn[h <= noise]] = 0  # rounding is no reason to draw a row again
        chances = self.rng.random(len(drawn)) * self.residual[drawn]
        kept: list[int] = []
        for j in range(len(drawn)):
            if len(kept) < room and h[j] > max(chances[j], noise[j]):
                m = len(kept)
                column = (H[:, j] - root[:, :m] @ root[j, :m]) / h[j] ** 0.5
                root[:, m] = column
                h -= column**2
                kept.append(j)
        root, wrong = root[:, : len(kept)], 1e3 * self.eps * self.diagonal.max()
        if np.abs(H - root @ root.T).max() > h.max() + wrong:  # |A_ij| <= max A_ii
            raise np.linalg.LinAlgError(NO_KERNEL)
        return kept, root[kept]

    def _append(self, pivots: npt.NDArray[np.int64], root: Array, rows: Any) -> None:
        """Rows of the factor for new pivots; root is the Cholesky factor of their residual."""
        xp, dtype, F = self.operator.xp, self.whole.dtype, self.factor
        at, new = F[:, xp.asarray(pivots)].T, self.whole[self.found : self.found + len(pivots)]
        lower, gone = xp.asarray(root, dtype), xp.empty(len(self.residual), np.float64)
        step = COLUMNS if xp is np else len(self.residual)
        for j in range(0, len(self.residual), step):
            part = slice(j, j + step)
            block = rows[:, part] - at @ F[:, part] if self.found else rows[:, part]
            new[:, part] = block = lower_solve(lower, block)
            gone[part] = (block**2).sum(0, dtype=np.float64)
        self.pivots.extend(pivots.tolist())
        left = self.residual - to_host(gone)
        self.residual = np.maximum(left, 0)
        self.residual[pivots] = 0
