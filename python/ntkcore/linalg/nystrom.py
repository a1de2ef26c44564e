"""The preconditioner of conjugate gradients:
a low-rank factor of the kernel from a few of its rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ntkcore.engine.device_arrays import to_host
from ntkcore.linalg.cholesky import library_factor, lower_solve
from ntkcore.linalg.operators import KernelOperator


class Nystrom:
    """Preconditioner (F F^T + shift I)^-1, F from a randomly pivoted Cholesky factorisation of K.

    Pivots are drawn with probabilities of the residual's diagonal, block by block; it costs
    ``rank`` rows of the kernel, of a store the chunks that hold them. The shift is the ridge and
    the residual's mean diagonal: what F leaves of the kernel counts as if it were a multiple of I.
    F lies where the operator's tiles do.

    Parameters
    ----------
    operator : KernelOperator of shape (n, n)
    ridge : float
        > 0.
    rank : int
        Columns of F, at most; `rank` says afterwards how many there are.
    seed : int, default=0
        Of the pivots.

    References
    ----------
    Chen, Epperly, Tropp & Webber 2023, algorithm 2.2; Díaz et al. 2023.
    """

    def __init__(self, operator: KernelOperator, ridge: float, rank: int, seed: int = 0) -> None:
        xp, n, rng = operator.xp, operator.shape[0], np.random.default_rng(seed)
        residual = operator.diagonal()
        start = residual.sum()
        whole = xp.empty((rank, n), np.float64)  # F^T: its rows are found one block after the other
        found = 0
        while found < rank and residual.sum() > 1e-12 * start:
            size = min(operator.rows_at_a_time, rank - found)
            pivots = np.unique(rng.choice(n, size, p=residual / residual.sum()))
            at, F = xp.asarray(pivots), whole[:found]
            G = operator.rows(pivots)
            if found:
                G -= F[:, at].T @ F
            core = G[:, at]
            noise = np.finfo(operator.storage_dtype).eps * core.trace()
            core += (1e-12 * start / n + noise) * xp.eye(len(pivots))
            new = lower_solve(library_factor(core), G)
            whole[found : found + len(pivots)] = new
            found += len(pivots)
            residual = np.maximum(residual - to_host((new**2).sum(0)), 0)
            residual[pivots] = 0
        self.rank = found
        self._F, self._shift = whole[:found], ridge + float(residual.mean())
        inner = self._F @ self._F.T + self._shift * xp.eye(found)
        # L^-1 itself: a product with it is faster than solving with L.
        self._root = lower_solve(library_factor(inner), xp.eye(found))

    def __call__(self, R: Any) -> Any:
        """The preconditioner times R."""
        inside = self._root.T @ (self._root @ (self._F @ R))
        return (R - self._F.T @ inside) / self._shift  # Woodbury
