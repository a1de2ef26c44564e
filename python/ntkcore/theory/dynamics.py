"""Training an infinitely wide network on the squared loss, in closed form, at any time.

    dynamics = Dynamics(ntk, y, GradientFlow(1.0), nngp=nngp)  # one eigendecomposition for all
    dynamics.train.mean([0, 10, 1e3, np.inf])                  # (4, n, outputs)
    test = dynamics.points(ntk_test_train, nngp_test_train, nngp_test)
    test.mean(times), test.covariance(times, diagonal=True), test.loss(times, y_test)
    dynamics.early_stopping(validation, y_validation)

The loss is ||f - y||^2/(2N), N samples (N times outputs with ``average_outputs``, as in
neural-tangents). A ridge adds ridge/(2N) times the squared distance of the weights from their
start. With K = V diag(lambda) V^T, rates r = (lambda + ridge)/N and the rule's rho(t), predictions
are f0(x) + K(x, X) V diag(G) V^T (y - f0), where G = (1 - rho)/(lambda + ridge): Jacot et al. 2018;
Lee et al. 2019, equations 10-16. All in float64.

Eigenvalues at the level of rounding count as exactly 0 (see `ntkcore.linalg.eigen`). In exact
arithmetic such directions of a kernel's null space reach no point at all; there the network stays
what it was, for ever, and nothing is NaN.
"""

from __future__ import annotations

import functools
import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, as_array
from ntkcore.linalg.checks import check_matrix, check_symmetric
from ntkcore.linalg.eigen import Modes, eigenmodes, leading_modes
from ntkcore.specs.layers import Layer
from ntkcore.theory.modal import compressed, each, product, sandwich, spectral
from ntkcore.theory.points import (
    KernelTraining,
    Points,
    Recipe,
    Stop,
    as_goal,
    as_times,
    check_points,
)
from ntkcore.theory.rules import GradientDescent, GradientFlow, Rule
from ntkcore.theory.search import best_time, first_time

__all__ = [
    "Dynamics",
    "GradientDescent",
    "GradientFlow",
    "Modes",
    "Points",
    "Stop",
    "eigenmodes",
    "leading_modes",
]

Array = npt.NDArray[np.float64]


class Dynamics(KernelTraining):
    """Training on the squared loss in closed form.

    Parameters
    ----------
    kernel
        The kernel that trains, on the training set, (n, n): the NTK, or the NNGP where only the
        last layer is trained. Or `Modes`, made by `eigenmodes` (to reuse them with other targets)
        or `leading_modes` (an operator).
    y
        Targets (n,) or (n, outputs).
    rule
        `GradientFlow` (default) or `GradientDescent`.
    f0
        Outputs of one network before training, as y, or a number. None:
        the ensemble of all initialisations.
    nngp
        NNGP on the training set (n, n), for the ensemble's covariance.
    ridge
        Added to the kernel's diagonal in units of its mean diagonal, or absolute with
        ``absolute_ridge``: weight decay towards the initial weights.
    average_outputs
        Divide the loss by the number of outputs as well.

    Raises
    ------
    ValueError, TypeError
        For data that do not fit, and a kernel that is not symmetric
        or clearly not positive semidefinite.
    MemoryError
        If the eigenvectors would not fit.

    References
    ----------
    Jacot et al. 2018; Lee et al. 2019; Goh 2017 (momentum).
    """

    def __init__(
        self,
        kernel: npt.ArrayLike | Modes,
        y: npt.ArrayLike,
        rule: Rule | None = None,
        *,
        f0: npt.ArrayLike | None = None,
        nngp: npt.ArrayLike | None = None,
        ridge: float = 0.0,
        absolute_ridge: bool = False,
        average_outputs: bool = False,
        _recipe: Recipe | None = None,
    ) -> None:
        if not isinstance(kernel, Modes):
            kernel = as_array(kernel, "the kernel matrix")
        n = len(kernel.vectors) if isinstance(kernel, Modes) else len(np.atleast_1d(kernel))
        super().__init__(n, y, GradientFlow() if rule is None else rule, f0, _recipe)
        prior = None if nngp is None else check_symmetric(nngp, "nngp")
        self.nngp = None if prior is None else check_matrix(prior, "nngp", (n, n))
        self.modes = kernel if isinstance(kernel, Modes) else eigenmodes(kernel)
        self.ridge = self.modes.ridge(ridge, absolute_ridge)
        self.divisor = self.y.size if average_outputs else n
        self.rates = (self.modes.values + self.ridge) / self.divisor
        self._error = self.y if self.f0 is None else self.y - self.f0
        self._targets = self.modes.vectors.T @ self._error  # V^T (y - f0), (k, outputs)

    @classmethod
    def from_net(
        cls,
        net: Layer,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        rule: Rule | None = None,
        *,
        get: str = "ntk",
        covariance: bool = False,
        f0: npt.ArrayLike | None = None,
        ridge: float = 0.0,
        absolute_ridge: bool = False,
        average_outputs: bool = False,
        **options: Any,
    ) -> Dynamics:
        """From a network and its training data; `at` then predicts at new inputs.

        ``get``: the kernel that trains, "ntk" (all layers) or "nngp" (the last). ``covariance``:
        compute the NNGP also. ``options``: those of `ntkcore.kernel`; the kernels are float64
        unless they say otherwise.
        """
        if get not in KERNELS:
            raise ValueError(f"get must be 'ntk' or 'nngp', not {get!r}: one kernel trains")
        recipe = Recipe(net, x, get, {"dtype": np.float64, **options})
        trained, nngp = recipe(x, None, covariance)
        settings = {
            "ridge": ridge,
            "absolute_ridge": absolute_ridge,
            "average_outputs": average_outputs,
        }
        return cls(trained, y, rule, f0=f0, nngp=nngp, _recipe=recipe, **cast(Any, settings))

    def max_learning_rate(self) -> float:
        """The step size from which gradient descent diverges: 2N/lambda_max,
        with momentum 2(1 + beta)N/lambda_max.
        """
        return self.rule.max_learning_rate(float(self.rates.max()))

    def decay(self, times: npt.ArrayLike) -> Array:
        """rho of every mode, ``times.shape + (k,)``, modes by falling eigenvalue."""
        t, shape = as_times(times, self.rule)
        return self.rule.decay(self.rates, t).reshape(*shape, -1)

    def residuals(self, times: npt.ArrayLike) -> Array:
        """Coefficients v_i . (f_t - y) of the training error on the modes,
        ``times.shape + (k, …)``, … as in y.
        """
        t, shape = as_times(times, self.rule)
        left = -self._left(t)[:, :, None] * self._targets
        return left.reshape(*shape, len(self.rates), *self.axes)

    def train_loss(self, times: npt.ArrayLike) -> Array:
        """``train.loss(times)`` from the modes alone, without a prediction;
        small losses keep their digits.
        """
        t, shape = as_times(times, self.rule)
        power = (self._targets**2).sum(axis=1)
        beyond = (
            0.0 if self.modes.complete else max(float((self._error**2).sum() - power.sum()), 0.0)
        )
        losses: Array = (self._left(t) ** 2 @ power + beyond) / (2 * self.divisor)
        return losses.reshape(shape)

    def time_to_loss(self, loss: float) -> float:
        """The first time at which the training loss of the mean is at most ``loss``;
        infinity if it never is.

        With `GradientDescent` the first step. Momentum makes the loss oscillate: its steps are
        looked at one by one. ValueError if the training diverges.
        """
        loss = as_goal(loss)
        if loss >= self.train_loss(0.0):
            return 0.0
        if not loss > self.train_loss(np.inf):
            return math.inf
        return first_time(self.train_loss, loss, self.rule)

    def early_stopping(
        self, validation: Points, y: npt.ArrayLike, *, expected: bool = False
    ) -> Stop:
        """The time at which the validation loss is least, t = 0 and infinity included.

        The loss is looked at on 200 times, geometric between the time scales of the fastest and the
        slowest mode, and the best of them is refined: a narrow dip beside a wide one can be missed.
        ``expected``: the loss of one network instead of that of the ensemble's mean.
        """
        check_points(validation)
        loss = functools.partial(validation.loss, y=y, expected=expected)
        return best_time(loss, self.rates, self.rule)

    # --- what Points asks for

    def mean(self, points: Points, times: Array) -> Array:
        """f0 + K* V G V^T (y - f0); on the training set f0 + V lambda G V^T (y - f0)."""
        basis, over_time = compressed(self.rates * self.rule.gain(self.rates, times))  # 1 - rho
        shifted = self.modes.values + self.ridge
        inverse = np.divide(1.0, shifted, out=np.zeros_like(shifted), where=self.modes.values > 0)
        scale = inverse if points.kernel_cross is not None else self.modes.values * inverse
        # Weights of the modes in the change over time, (k, q, outputs).
        weights = (basis * scale[:, None])[:, :, None] * self._targets[:, None, :]
        q, outputs = weights.shape[1:]
        change = self.modes.vectors @ weights.reshape(len(scale), q * outputs)
        self._check_cross(points)
        if points.kernel_cross is not None:
            change = np.asarray(points.kernel_cross @ change)
        change = np.moveaxis(change.reshape(points.m, q, outputs), 1, 0).reshape(
            q, points.m * outputs
        )
        change = change if over_time is None else over_time @ change
        change = change.reshape(len(times), points.m, outputs)
        if points.f0 is not None:
            change += points.f0
        return change

    def value(self, f: Array, y: Array, variance: Array | None) -> Array:
        """Mean over samples of (f - y)^2/2, over outputs too with ``average_outputs``."""
        squares = ((f - y) ** 2).sum(axis=(1, 2))
        if variance is not None:
            squares += y.shape[1] * variance.sum(axis=1)
        return cast(Array, squares * len(self.y) / (2 * self.divisor * len(y)))

    def covariance(self, points: Points, times: Array, diagonal: bool) -> Array:
        """S** + B S B^T - B S*^T - S* B^T; on the training set V left V^T S V left V^T."""
        self._need_all("covariance")
        if self.f0 is not None:
            raise ValueError(
                "initial outputs f0 were given:"
                " the covariance is that of the ensemble, without them"
            )
        if self.nngp is None:
            raise ValueError(
                "the ensemble's covariance needs the NNGP of the training set: give nngp="
            )
        root = self._root
        if points.kernel_cross is None:
            left = self._left(times)
            return each(left, lambda row: sandwich(self.modes.vectors * row, root, diagonal))
        own = points.own(points.nngp_own, "the NNGP", diagonal)
        basis, cross = points.modes, points.nngp_modes

        def at(gain: Array) -> Array:
            b = basis * gain
            mixed = (b * cross).sum(axis=1) if diagonal else b @ cross.T
            return own + sandwich(b, root, diagonal) - mixed - mixed.T

        return each(self._gain(times), at)

    def posterior(self, points: Points, times: Array, diagonal: bool) -> Array:
        """K** - K* V (1 - rho^2)/(lambda + ridge) V^T K*^T."""
        self._need_all("posterior")
        learned = self._gain(times) * (1 + self.rule.decay(self.rates, times))
        if points.kernel_cross is None:
            values, basis = self.modes.values, self.modes.vectors
            return each(values - values**2 * learned, lambda row: spectral(basis, row, diagonal))
        own = points.own(points.kernel_own, "the kernel that trains (kernel_test)", diagonal)
        return each(learned, lambda row: own - spectral(points.modes, row, diagonal))

    def bound(self, points: Points, times: Array) -> Array:
        """|K* tail G tail (y - f0)|, by Cauchy-Schwarz in R^n and in the kernel's Hilbert space."""
        shape = (len(times), points.m, self.y.shape[1])
        if self.modes.complete:
            return np.zeros(shape)
        error = self._error - self.modes.vectors @ self._targets
        norm = np.linalg.norm(error, axis=0)
        # On the tail 1 - rho lies in [0, top] and G in [0, gain].
        top = 2.0 if getattr(self.rule, "momentum", 0) > 0 else 1.0
        gain = self.rule.bound(times) / self.divisor
        if self.rule.learning_rate * (self.modes.rest + self.ridge) / self.divisor > 1:
            raise ValueError(
                "the rest of the spectrum is not slow: take more modes or a smaller learning rate"
            )
        if self.ridge > 0:
            gain = np.minimum(gain, top / self.ridge)
        if points.kernel_cross is None:
            moved = (
                np.minimum(top, self.modes.rest * gain)
                if self.modes.rest > 0
                else np.zeros_like(gain)
            )
            return np.broadcast_to(moved[:, None, None] * norm, shape)
        size = np.full(shape[:2], np.inf)
        if isinstance(points.kernel_cross, np.ndarray):
            beyond = points.kernel_cross - points.modes @ self.modes.vectors.T
            size = gain[:, None] * np.linalg.norm(beyond, axis=1)
        if points.kernel_own is not None:
            known = points.own(points.kernel_own, "the kernel", True)
            inverse = np.divide(
                1.0, self.modes.values, out=np.zeros_like(self.rates), where=self.modes.values > 0
            )
            left = np.sqrt(np.maximum(known - points.modes**2 @ inverse, 0.0))
            # The bound of lambda^(1/2) G on the tail.
            root = np.minimum(math.sqrt(self.modes.rest) * gain, np.sqrt(top * gain))
            size = np.minimum(size, root[:, None] * left)
        return cast(Array, size[:, :, None] * norm)

    def project(self, points: Points) -> Array:
        """K(x, X) V, exactly 0 on the null space."""
        if points.kernel_cross is None:
            return self.modes.vectors * self.modes.values
        self._check_cross(points)
        projected = np.asarray(points.kernel_cross @ self.modes.vectors)
        projected[:, self.modes.values == 0] = 0.0
        return projected

    # --- inside

    @functools.cached_property
    def _root(self) -> tuple[Array, bool]:
        """R with R R^T = V^T S V, and whether it is lower triangular: by Cholesky,
        or of a singular S by its modes.
        """
        nngp, vectors = cast(Array, self.nngp), self.modes.vectors
        try:
            half = product(vectors.T, cast(Array, np.linalg.cholesky(nngp)), True)
            return cast(Array, np.linalg.cholesky(half @ half.T)), True
        except np.linalg.LinAlgError:
            prior = eigenmodes(nngp, "nngp")
            return vectors.T @ (prior.vectors * np.sqrt(prior.values)), False

    def _check_cross(self, points: Points) -> None:
        """ValueError where K* reaches further into the null space
        than |K* v|^2 <= K** lambda allows.
        """
        null = self.modes.values == 0
        if not null.any() or points.kernel_cross is None:
            return
        reach, size = (
            float(
                np.linalg.norm(
                    np.asarray(points.kernel_cross @ self.modes.vectors[:, part]), axis=1
                ).max(initial=0.0)
            )
            for part in (null, ~null)
        )
        top = max(float(self.modes.values[0]), self.modes.noise)
        if reach > (10 * math.sqrt(self.modes.noise / top) * size if top > 0 else 0.0):
            raise ValueError(
                "the test-train kernel reaches into the null space of the training kernel by"
                f" {reach:.2g}: they are not blocks of one kernel (is the order of the training"
                " samples the same in both?)"
            )

    def _need_all(self, what: str) -> None:
        if not self.modes.complete:
            raise ValueError(
                f"a {what} needs all eigenmodes: make the object from the kernel matrix"
            )

    def _gain(self, times: Array) -> Array:
        """G = (1 - rho)/(lambda + ridge), (times, k)."""
        return self.rule.gain(self.rates, times) / self.divisor

    def _left(self, times: Array) -> Array:
        """1 - lambda G, what is left of a mode's training error:
        (lambda rho + ridge)/(lambda + ridge).
        """
        rho, values = self.rule.decay(self.rates, times), self.modes.values
        if self.ridge == 0:
            return rho
        return (values * rho + self.ridge) / (values + self.ridge)
