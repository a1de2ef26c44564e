"""The preconditioner of conjugate gradients: a low-rank factor of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ntkcore.linalg.cholesky import library_factor, lower_solve
from ntkcore.linalg.operators import KernelOperator
from ntkcore.linalg.rpcholesky import rpcholesky

PANEL = 2**22  # entries of a float32 factor that are in float64 at a time


class Nystrom:
    """Preconditioner (F F^T + shift I)^-1, F of `rpcholesky`.

    It costs ``rank`` rows of the kernel, of a store the chunks that hold them. The shift is the
    ridge and the residual's mean diagonal: what F leaves of the kernel counts as if it were a
    multiple of I. F has the kernel's precision and lies where the operator's tiles do; products
    with it are in float64.

    Parameters
    ----------
    operator : KernelOperator of shape (n, n)
    ridge : float
        > 0.
    rank : int
        Columns of F, at most; fewer where they suffice for the ridge. `rank` says afterwards how
        many there are.
    seed : int, default=0
        Of the pivots.

    References
    ----------
    Díaz et al. 2023, "Robust, randomized preconditioning for kernel ridge regression", section 2.
    """

    def __init__(self, operator: KernelOperator, ridge: float, rank: int, seed: int = 0) -> None:
        found = rpcholesky(operator, rank, ridge=ridge, seed=seed)
        xp, self._F = operator.xp, found.factor
        self.rank = len(found.landmarks)
        self._shift = ridge + float(found.residual.mean())
        inner = self._shift * xp.eye(self.rank)
        for panel, _ in self._panels():
            inner += panel @ panel.T
        # L^-1 itself: a product with it is faster than solving with L.
        self._root = lower_solve(library_factor(inner), xp.eye(self.rank))

    def _panels(self) -> Iterator[tuple[Any, slice]]:
        """The columns of F^T in float64, some at a time."""
        n = self._F.shape[1]
        step = n if self._F.dtype == np.float64 else max(1, PANEL // max(self.rank, 1))
        for i in range(0, n, step):
            yield self._F[:, i : i + step].astype(np.float64, copy=False), slice(i, i + step)

    def __call__(self, R: Any) -> Any:
        """The preconditioner times R."""
        inside = sum(panel @ R[rows] for panel, rows in self._panels())
        inside = self._root.T @ (self._root @ inside)
        out = R / self._shift
        for panel, rows in self._panels():  # Woodbury
            out[rows] -= panel.T @ inside / self._shift
        return out
