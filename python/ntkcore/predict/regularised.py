"""A training kernel with diag_reg: what all closed forms take from it."""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np

from ntkcore.linalg.checks import check_symmetric
from ntkcore.linalg.eigen import Modes, eigenmodes
from ntkcore.predict.layout import Array, Layout, square_of
from ntkcore.theory.rules import GradientFlow


class Regularised:
    """A training kernel with diag_reg: its eigenmodes, or solutions by Cholesky,
    each computed once and on demand.
    """

    def __init__(
        self, kernel: Any, name: str, layout: Layout, diag_reg: float, absolute: bool
    ) -> None:
        self._kernel, self._name = square_of(kernel, name, layout), name
        self._diag_reg, self._absolute = diag_reg, absolute

    @functools.cached_property
    def modes(self) -> Modes:
        """Eigenpairs of K."""
        return eigenmodes(self._kernel, self._name)

    @functools.cached_property
    def values(self) -> Array:
        """Eigenvalues of K + diag_reg."""
        return self.modes.values + self.modes.ridge(self._diag_reg, self._absolute)

    @functools.cached_property
    def _factorised(self) -> Any:
        """Its Cholesky factor; None where it is singular to working precision, or SciPy absent."""
        try:
            from ntkcore.linalg.cholesky import factorise_stably
        except ImportError:
            return None
        K = check_symmetric(self._kernel, self._name).copy()
        n, trace = len(K), float(K.trace())
        K.flat[:: n + 1] += Modes(np.empty(0), K, trace).ridge(self._diag_reg, self._absolute)
        return K if factorise_stably(K, n * np.finfo(float).eps) else None

    def solve(self, rhs: Array) -> Array:
        """(K + diag_reg)^-1 rhs; the pseudo-inverse of a singular matrix."""
        if self._factorised is not None:
            from ntkcore.linalg.cholesky import solve_factorised

            return cast(Array, solve_factorised(self._factorised, rhs))
        inverse = np.divide(1.0, self.values, out=np.zeros_like(self.values), where=self.values > 0)
        return self.modes.vectors @ (inverse[:, None] * (self.modes.vectors.T @ rhs))

    def flow(self, scaled: Array, size: int) -> tuple[Array, Array]:
        """rho and (1 - rho)/lambda, (times, modes),
        at times in units of the learning rate; ``size``: of y_train.
        """
        rule, rates = GradientFlow(1.0), self.values / size
        gain = rule.gain(rates, scaled) / size
        # The null space reaches no point: what a test-train kernel has there is rounding.
        gain[:, rates == 0] = 0.0
        return rule.decay(rates, scaled), gain

    def apply(self, basis: Array, factor: Array, rhs: Array) -> Array:
        """basis diag(factor_t) V^T rhs, (times, rows, columns)."""
        weights = factor[:, :, None] * (self.modes.vectors.T @ rhs)
        return basis @ weights
