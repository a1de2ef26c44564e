"""What every training has in common, whatever its loss: targets, a rule,
and points at which to predict.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array
from ntkcore.engine.kernels import kernel as compute_kernel
from ntkcore.engine.kernels import kernel_diag
from ntkcore.linalg.checks import check_matrix, check_symmetric
from ntkcore.specs.layers import Layer
from ntkcore.theory.rules import GradientDescent, GradientFlow, Rule, flat_times

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stop:
    """When to stop: ``time`` of the least validation ``loss``, and ``gain``,
    the loss at t = infinity minus it.
    """

    time: float
    loss: float
    gain: float


@dataclass(frozen=True)
class Recipe:
    """How to compute kernels at new points: network, training inputs, which kernel trains,
    options of the call.
    """

    net: Layer
    x: npt.ArrayLike
    get: str
    options: dict[str, Any]

    def __call__(
        self, x1: npt.ArrayLike, x2: npt.ArrayLike | None, prior: bool
    ) -> tuple[Array, Array | None]:
        """The kernel that trains and, if asked for, the NNGP, from one pass."""
        names = (self.get, "nngp") if prior and self.get != "nngp" else (self.get,)
        found = compute_kernel(self.net, x1, x2, names, **self.options)
        return found[0], (found[-1] if prior else None)


def check_points(points: Any) -> None:
    """TypeError for what is no `Points`."""
    if not isinstance(points, Points):
        raise TypeError(
            "validation must be Points, as points(kernel_test_train) or at(x) give them, not"
            f" {type(points).__name__}"
        )


def as_goal(loss: Any) -> float:
    """A loss to be reached: a number; ValueError for anything else."""
    if isinstance(loss, bool) or not isinstance(loss, Real) or math.isnan(loss):
        raise ValueError(f"loss must be a number to be reached, not {loss!r:.60}")
    return float(loss)


def as_times(times: npt.ArrayLike, rule: Rule) -> tuple[Array, tuple[int, ...]]:
    """`flat_times`, of those that the rule takes; ValueError for others."""
    flat, shape = flat_times(times)
    rule.check(flat)
    return flat, shape


class KernelTraining:
    """What every kind of training has: targets, a rule, initial outputs,
    points at which to predict.
    """

    def __init__(
        self, n: int, y: npt.ArrayLike, rule: Rule, f0: npt.ArrayLike | None, recipe: Recipe | None
    ) -> None:
        if not isinstance(rule, (GradientFlow, GradientDescent)):
            raise TypeError(f"rule must be GradientFlow() or GradientDescent(), not {rule!r:.60}")
        self.rule = rule
        targets = as_array(y, "y")
        check_matrix(targets, "y", (n, *targets.shape[1:]))
        if not targets.size:
            raise ValueError(f"y has no columns: shape {targets.shape}")
        self.axes = targets.shape[1:]  # of the outputs; inside there is always one
        self.y = self.outputs(targets, n, "y")
        self.f0 = None if f0 is None else self.outputs(f0, n, "f0")
        self._recipe = recipe

    def outputs(self, values: npt.ArrayLike, m: int, name: str) -> Array:
        """Values of shape (m, …), … that of one sample's output, or one number for all,
        as (m, outputs).
        """
        array = as_array(values, name)
        array = np.broadcast_to(array, (m, *self.axes)) if array.ndim == 0 else array
        return check_matrix(array, name, (m, *self.axes)).reshape(m, -1)

    def targets(self, y: npt.ArrayLike, m: int) -> Array:
        """Targets of m points, as (m, outputs)."""
        return self.outputs(y, m, "y")

    def mean(self, points: Points, times: Array) -> Array:
        """Predictions (times, m, outputs) at flat times."""
        raise NotImplementedError

    def value(self, f: Array, y: Array, variance: Array | None) -> Array:
        """Loss of predictions (times, m, outputs) with this variance (times, m)."""
        raise NotImplementedError

    def covariance(self, points: Points, times: Array, diagonal: bool) -> Array:
        """See `Points.covariance`."""
        raise ValueError(
            "only the squared loss keeps the outputs Gaussian: a covariance needs Dynamics"
        )

    def posterior(self, points: Points, times: Array, diagonal: bool) -> Array:
        """See `Points.posterior`."""
        raise ValueError(
            "only the squared loss keeps the outputs Gaussian: a covariance needs Dynamics"
        )

    @functools.cached_property
    def train(self) -> Points:
        """The training set itself."""
        return Points(self, len(self.y), self.f0, None)

    def points(
        self,
        kernel_test_train: Any,
        nngp_test_train: npt.ArrayLike | None = None,
        nngp_test: npt.ArrayLike | None = None,
        *,
        kernel_test: npt.ArrayLike | None = None,
        f0: npt.ArrayLike | None = None,
    ) -> Points:
        """Points of prediction, from blocks of kernels; keep the result:
        it holds their products with the eigenvectors.

        ``kernel_test_train`` (m, n): of the kernel that trains; an array, or a LinearOperator.
        ``nngp_test_train`` (m, n) and ``nngp_test`` (m, m), or its diagonal (m,): for ensemble
        covariances. ``kernel_test`` (m, m) or (m,): for `Points.posterior` and `Points.bound`.
        ``f0`` (m, …): the network's initial outputs here; needed if the training set's were given.
        ValueError for other shapes.
        """
        n = len(self.y)
        if not hasattr(kernel_test_train, "matmat"):
            kernel_test_train = check_matrix(kernel_test_train, "the test-train kernel", (None, n))
        m = kernel_test_train.shape[0]
        if kernel_test_train.shape != (m, n):
            raise ValueError(
                f"the test-train kernel must have shape (any, {n}), not {kernel_test_train.shape}"
            )
        if (f0 is None) != (self.f0 is None):
            raise ValueError(
                "give the initial outputs f0 of both the training and the test points, or of"
                " neither"
            )
        return Points(
            self,
            m,
            None if f0 is None else self.outputs(f0, m, "f0"),
            kernel_test_train,
            (
                None
                if nngp_test_train is None
                else check_matrix(nngp_test_train, "nngp_test_train", (m, n))
            ),
            _block(nngp_test, "nngp_test", m),
            _block(kernel_test, "kernel_test", m),
        )

    def at(
        self, x: npt.ArrayLike, covariance: str | None = None, f0: npt.ArrayLike | None = None
    ) -> Points:
        """Points of prediction from inputs; for objects made by ``from_net``.

        ``covariance``: None, "diagonal" or "full", what of it will be asked for. ValueError for
        anything else, and for an object made from matrices.
        """
        if self._recipe is None:
            raise ValueError(
                "made from matrices: use points(kernel_test_train, …), or make the object by"
                " from_net"
            )
        if covariance not in (None, "diagonal", "full"):
            raise ValueError(f"covariance must be None, 'diagonal' or 'full', not {covariance!r}")
        recipe, prior = self._recipe, covariance is not None
        cross, nngp_cross = recipe(x, recipe.x, prior)
        own, nngp_own = None, None
        if covariance == "full":
            own, nngp_own = recipe(x, None, True)
        elif covariance == "diagonal":
            allowed = {
                key: recipe.options[key]
                for key in recipe.options
                if key not in ("tile", "progress")
            }
            own, nngp_own = (
                kernel_diag(recipe.net, x, name, **allowed) for name in (recipe.get, "nngp")
            )
        return self.points(cross, nngp_cross, nngp_own, kernel_test=own, f0=f0)


def _block(block: npt.ArrayLike | None, name: str, m: int) -> Array | None:
    if block is None:
        return None
    block = as_array(block, name)
    if block.ndim == 1:
        return check_matrix(block, name, (m,))
    return check_matrix(check_symmetric(block, name), name, (m, m))


@dataclass(frozen=True, eq=False)
class Points:
    """Points at which a training predicts; made by `KernelTraining.points`,
    `KernelTraining.at`, `KernelTraining.train`.
    """

    training: Any
    m: int
    f0: Array | None
    kernel_cross: Any  # None: the training set itself
    nngp_cross: Array | None = None
    nngp_own: Array | None = None
    kernel_own: Array | None = None

    def mean(self, times: npt.ArrayLike) -> Array:
        """Predictions at times of any shape, infinity included: shape ``times.shape + (m, …)``,
        … as in y.

        Of the network whose initial outputs were given; else the mean over initialisations,
        which starts at 0.
        """
        t, shape = as_times(times, self.training.rule)
        return cast(Array, self.training.mean(self, t)).reshape(*shape, self.m, *self.training.axes)

    def covariance(self, times: npt.ArrayLike, diagonal: bool = False) -> Array:
        """Covariance over initialisations: ``times.shape + (m, m)``,
        or its diagonal ``times.shape + (m,)``.

        S** + B S B^T - B S*^T - S* B^T for B = K* G and the NNGP S (Lee et al. 2019, equation 16);
        one for all outputs. ValueError where blocks of the NNGP are missing, or initial outputs
        were given (one network has none).
        """
        t, shape = as_times(times, self.training.rule)
        return cast(Array, self.training.covariance(self, t, diagonal)).reshape(
            *shape, *self._square(diagonal)
        )

    def posterior(self, times: npt.ArrayLike, diagonal: bool = False) -> Array:
        """As `covariance`, where the initial function is drawn from the kernel that trains,
        the ridge being noise.

        K** - K* (1 - rho^2)/(lambda + ridge) K*^T. At t = infinity it is the posterior of the
        Gaussian process: NNGP if the NNGP trains, NTK-GP if the NTK does (He et al. 2020).
        ValueError where ``kernel_test`` is missing.
        """
        t, shape = as_times(times, self.training.rule)
        return cast(Array, self.training.posterior(self, t, diagonal)).reshape(
            *shape, *self._square(diagonal)
        )

    def loss(
        self, times: npt.ArrayLike, y: npt.ArrayLike | None = None, expected: bool = False
    ) -> Array:
        """The loss of the predictions against ``y`` (the training targets,
        on the training set): ``times.shape``.

        ``expected``: that of one network, on average over initialisations:
        the covariance's diagonal is added.
        """
        if y is None and self.kernel_cross is not None:
            raise ValueError("the loss away from the training set needs its targets y")
        t, shape = as_times(times, self.training.rule)
        targets = self.training.y if y is None else self.training.targets(y, self.m)
        variance = self.training.covariance(self, t, True) if expected else None
        return cast(
            Array, self.training.value(self.training.mean(self, t), targets, variance)
        ).reshape(shape)

    def bound(self, times: npt.ArrayLike) -> Array:
        """What the modes beyond the leading ones can change of `mean`,
        per point and output: ``times.shape + (m, …)``.

        Rigorous up to the leading modes' own rounding; infinite where nothing is known (test points
        at t = infinity without ridge). 0 if all modes are there. ValueError where learning_rate x
        rest of the spectrum exceeds 1.
        """
        t, shape = as_times(times, self.training.rule)
        return cast(Array, self.training.bound(self, t)).reshape(
            *shape, self.m, *self.training.axes
        )

    def _square(self, diagonal: bool) -> tuple[int, ...]:
        return (self.m,) if diagonal else (self.m, self.m)

    @functools.cached_property
    def modes(self) -> Array:
        """K(x, X) V, shape (m, k)."""
        return cast(Array, self.training.project(self))

    @functools.cached_property
    def nngp_modes(self) -> Array:
        """S(x, X) V, shape (m, k)."""
        if self.nngp_cross is None:
            raise ValueError(
                "the ensemble's covariance needs the NNGP between test and training points"
            )
        return cast(Array, self.nngp_cross @ self.training.modes.vectors)

    def own(self, block: Array | None, name: str, diagonal: bool) -> Array:
        """A kernel of the points among themselves, or its diagonal;
        ValueError where it was not given.
        """
        if block is None or (block.ndim == 1 and not diagonal):
            what = "diagonal" if diagonal else "full matrix"
            raise ValueError(f"this covariance needs the {what} of {name} at the points")
        return block.diagonal() if diagonal and block.ndim == 2 else block
