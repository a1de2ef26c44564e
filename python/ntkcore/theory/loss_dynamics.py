"""Training on cross-entropy, or any other loss: no closed form,
but a small equation to integrate.

    dynamics = LossDynamics(ntk, one_hot, CrossEntropy(), GradientFlow(1.0))
    dynamics.train.mean(times), dynamics.points(ntk_test_train).mean(times)

The outputs follow f' = -eta K grad l(f) (Lee et al. 2019, section 2.2). They stay in the kernel's
span: f = f0 + K a, a' = -eta grad l(f0 + K a), on any points with the same a (n, outputs), so that
one solution serves all of them. The loss brings its own normalisation: `CrossEntropy` and
`SquaredError` are means over samples.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, as_array
from ntkcore.linalg.checks import check_symmetric, refuse_asymmetric_operator
from ntkcore.specs.layers import Layer
from ntkcore.theory.losses import Array, check_loss, gradient_of
from ntkcore.theory.ode import integrate
from ntkcore.theory.points import (
    KernelTraining,
    Points,
    Recipe,
    Stop,
    as_goal,
    as_times,
    check_points,
)
from ntkcore.theory.rules import GradientDescent, GradientFlow, Rule, positive


class LossDynamics(KernelTraining):
    """Training on any loss, in the interface of `ntkcore.dynamics.Dynamics`: `train`,
    `points`, `at`, `early_stopping`.

    Parameters
    ----------
    kernel
        The kernel that trains, on the training set, (n, n), or a SciPy LinearOperator.
    y
        Targets (n,) or (n, outputs), as the loss takes them;
        for `CrossEntropy` class numbers (n,) or one-hot rows.
    loss
        A function loss(f, y) of outputs and targets, f shaped as y, giving a number with its own
        normalisation; with a method ``gradient(f, y)`` (`CrossEntropy`, `SquaredError`), or see
        `gradient_of`. A method ``targets(y, outputs)`` checks targets and gives them f's shape.
    rule
        `GradientFlow` (default): by SciPy's ODE solver. `GradientDescent`: step by step, exactly.
    f0
        Outputs before training, as y, or a number; None: 0.
    tolerance, method
        Of solve_ivp: relative tolerance, and absolute one in units of the outputs; "DOP853" is
        explicit, its cost grows with eta lambda_max t; "LSODA" and "Radau" take stiff long times
        where n x outputs is small.

    ValueError and TypeError as for `Dynamics`.
    """

    def __init__(
        self,
        kernel: Any,
        y: npt.ArrayLike,
        loss: Any,
        rule: Rule | None = None,
        *,
        f0: npt.ArrayLike | None = None,
        tolerance: float = 1e-9,
        method: str = "DOP853",
        _recipe: Recipe | None = None,
    ) -> None:
        self.kernel = (
            kernel if hasattr(kernel, "matmat") else check_symmetric(kernel, "the kernel matrix")
        )
        if getattr(self.kernel, "shape", ())[:1] * 2 != tuple(self.kernel.shape):
            raise ValueError(f"the kernel must be square, not {tuple(self.kernel.shape)}")
        if hasattr(kernel, "matmat"):
            refuse_asymmetric_operator(kernel)
        started = None if f0 is None else as_array(f0, "f0")
        outputs = None if started is None or started.ndim < 2 else started.shape[-1]
        check_loss(loss)
        given = loss.targets(y, outputs) if hasattr(loss, "targets") else y
        super().__init__(
            self.kernel.shape[0], given, GradientFlow() if rule is None else rule, f0, _recipe
        )
        self.loss_function = loss
        self.tolerance, self.method = positive("tolerance", tolerance), method
        self._gradient = gradient_of(loss, self._shaped(self.y))
        self._scale = _norm(self.kernel)

    @classmethod
    def from_net(
        cls,
        net: Layer,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: Any,
        rule: Rule | None = None,
        *,
        get: str = "ntk",
        f0: npt.ArrayLike | None = None,
        tolerance: float = 1e-9,
        method: str = "DOP853",
        **options: Any,
    ) -> LossDynamics:
        """From a network and its training data; `at` then predicts at new inputs.
        See `Dynamics.from_net`.
        """
        if get not in KERNELS:
            raise ValueError(f"get must be 'ntk' or 'nngp', not {get!r}: one kernel trains")
        recipe = Recipe(net, x, get, {"dtype": np.float64, **options})
        trained, _ = recipe(x, None, False)
        return cls(
            trained, y, loss, rule, f0=f0, tolerance=tolerance, method=method, _recipe=recipe
        )

    def time_to_loss(self, loss: float, max_time: float) -> float:
        """First time, or step, at which the training loss is at most ``loss``;
        infinity if after ``max_time``.
        """
        goal, max_time = as_goal(loss), positive("max_time", max_time)
        if self._value(self._outputs(np.zeros_like(self.y))) <= goal:
            return 0.0
        if isinstance(self.rule, GradientDescent):
            for step, a in self._steps(max_time):
                if self._value(self._outputs(a)) <= goal:
                    return float(step)
            return math.inf
        from scipy.integrate import solve_ivp

        def crossed(t: float, a: Array) -> float:
            return self._value(self._outputs(a.reshape(self.y.shape))) - goal

        crossed.terminal = True  # type: ignore[attr-defined]
        options = {"rtol": self.tolerance, "atol": self.tolerance / max(self._scale, 1e-300)}
        found = solve_ivp(
            lambda t, a: self._velocity(a),
            (0.0, max_time),
            np.zeros(self.y.size),
            method=self.method,
            events=crossed,
            **options,
        )
        return float(found.t_events[0][0]) if len(found.t_events[0]) else math.inf

    def early_stopping(self, validation: Points, y: npt.ArrayLike, times: npt.ArrayLike) -> Stop:
        """The best of these times for the validation loss;
        `Stop.gain` is relative to the last of them.
        """
        check_points(validation)
        t = np.unique(as_times(times, self.rule)[0])
        if not t.size:
            raise ValueError("times must hold one or more")
        losses = validation.loss(t, y)
        best = int(losses.argmin())
        return Stop(float(t[best]), float(losses[best]), float(losses[-1] - losses[best]))

    def mean(self, points: Points, times: Array) -> Array:
        """f0 + K* a(t), (times, m, outputs)."""
        a = self._path(times)  # (times, n, outputs)
        cross = self.kernel if points.kernel_cross is None else points.kernel_cross
        count, n, outputs = a.shape
        columns = a.swapaxes(0, 1).reshape(n, count * outputs)
        change = np.asarray(cross @ columns).reshape(points.m, count, outputs).swapaxes(0, 1)
        return np.ascontiguousarray(change) if points.f0 is None else change + points.f0

    def value(self, f: Array, y: Array, variance: Array | None) -> Array:
        """The loss at every time."""
        return np.array([float(self.loss_function(self._shaped(g), self._shaped(y))) for g in f])

    def targets(self, y: npt.ArrayLike, m: int) -> Array:
        """As the loss takes them: class numbers become one-hot rows."""
        given = (
            self.loss_function.targets(y, self.y.shape[1])
            if hasattr(self.loss_function, "targets")
            else y
        )
        return self.outputs(given, m, "y")

    def _shaped(self, values: Array) -> Array:
        return values.reshape(-1, *self.axes)

    def _outputs(self, a: Array) -> Array:
        change = np.asarray(self.kernel @ a)
        return change if self.f0 is None else self.f0 + change

    def _value(self, f: Array) -> float:
        return float(self.loss_function(self._shaped(f), self._shaped(self.y)))

    def _slope(self, a: Array) -> Array:
        return self._gradient(self._shaped(self._outputs(a))).reshape(self.y.shape)

    def _velocity(self, flat: Array) -> Array:
        return -self.rule.learning_rate * self._slope(flat.reshape(self.y.shape)).reshape(-1)

    def _path(self, times: Array) -> Array:
        if isinstance(self.rule, GradientDescent):
            return self._walk(times)
        options = {"tolerance": self.tolerance, "scale": self._scale, "method": self.method}
        start = np.zeros(self.y.size)
        outputs = lambda a: np.asarray(self.kernel @ a.reshape(self.y.shape))  # noqa: E731
        states = integrate(self._velocity, start, times, outputs=outputs, **cast(Any, options))
        return states.reshape(len(times), *self.y.shape)

    def _steps(self, last: float) -> Any:
        """(step, a) from 0 on, up to ``last``: a <- a - eta grad + beta (a - a before)."""
        a = before = np.zeros_like(self.y)
        step = 0
        while True:
            yield step, a
            if step >= last:
                return
            rule = cast(GradientDescent, self.rule)
            a, before = a - rule.learning_rate * self._slope(a) + rule.momentum * (a - before), a
            step += 1

    def _walk(self, times: Array) -> Array:
        if not np.isfinite(times).all():
            raise ValueError(
                "GradientDescent on this loss goes step by step: give a finite number of steps"
            )
        out = np.empty((len(times), *self.y.shape))
        for step, a in self._steps(times.max(initial=0.0)):
            out[times == step] = a
        return out


def _norm(kernel: Any) -> float:
    """lambda_max, roughly, by ten power iterations."""
    v = np.ones(kernel.shape[0])
    size = 0.0
    for _ in range(10):
        v = np.asarray(kernel @ v)
        size = float(np.linalg.norm(v))
        if size == 0:
            return 0.0
        v /= size
    return size
