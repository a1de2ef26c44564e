"""Training on cross-entropy, or any other loss: no closed form, but a small equation to integrate.

    dynamics = LossDynamics(ntk, one_hot, CrossEntropy(), GradientFlow(1.0))
    dynamics.train.mean(times), dynamics.points(ntk_test_train).mean(times)

The outputs follow f' = -eta K grad l(f) (Lee et al. 2019, section 2.2). They stay in the kernel's span: f = f0 + K a,
a' = -eta grad l(f0 + K a), on any points with the same a (n, outputs), so that one solution serves all of them. The
loss brings its own normalisation: `CrossEntropy` and `SquaredError` are means over samples.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, as_array
from ntkcore.linalg.checks import check_real, check_symmetric
from ntkcore.specs.layers import Layer
from ntkcore.theory.points import Points, Recipe, Stop, Training, as_goal, as_times, check_points
from ntkcore.theory.rules import GradientDescent, GradientFlow, Rule, positive

Array = npt.NDArray[np.float64]
Field = Callable[[Array], Array]

STATIONARY = 1e-8  # relative change of the outputs while time grows e-fold: there the training has ended
MOST_CLASSES = 100_000  # beyond, numbers are identifiers, no classes
EVALUATIONS = 200_000  # of the gradient, before an infinite time is given up


def class_targets(y: Any, classes: int | None = None, name: str = "y") -> Array:
    """Targets of a cross-entropy as probabilities (…, classes), float64.

    ``y``: integers (n,), the classes' numbers from 0 on; or rows of numbers >= 0 that sum to 1, such as one-hot.
    ``classes``: how many there are; None: what the rows hold, or one more than the largest number.
    ValueError or TypeError for anything else.
    """
    array = as_array(y, name)
    check_real(np.atleast_1d(array), name)
    if array.ndim == 1:
        return _one_hot(array, classes, name)
    if array.ndim == 0 or array.shape[-1] < 2 or classes not in (None, array.shape[-1]):
        raise ValueError(
            f"{name} of shape {array.shape} is no target of a cross-entropy over {classes or 'two or more'} classes: "
            "give class numbers (n,), or one-hot rows (n, classes)"
        )
    rows = array.astype(np.float64)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=-1), 1, rtol=0, atol=1e-5):
        raise ValueError(
            f"{name}'s rows must be probabilities, at least 0 with the sum 1: give one-hot rows, or class numbers (n,)"
        )
    return rows


def _one_hot(numbers: npt.NDArray[Any], classes: int | None, name: str) -> Array:
    if numbers.dtype.kind not in "iu":
        raise TypeError(
            f"{name} (n,) must hold class numbers, integers from 0 on, not dtype {numbers.dtype}: use "
            f"{name}.astype(int), or one-hot rows (n, classes)"
        )
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    count = max(high + 1, 2) if classes is None else classes
    if low < 0 or high >= count or count < 2:
        raise ValueError(
            f"{name} holds class numbers from {low} to {high}, and they must lie in 0 … {count - 1} for {count} outputs"
            ": labels such as -1 and 1 are numbered by numpy.unique(y, return_inverse=True)[1]"
        )
    if count > MOST_CLASSES:
        raise ValueError(
            f"{name} holds the class number {high}, of more than {MOST_CLASSES} classes: number labels by "
            "numpy.unique(y, return_inverse=True)[1]"
        )
    rows = np.zeros((len(numbers), count))
    rows[np.arange(len(numbers)), numbers] = 1
    return rows


@dataclass(frozen=True)
class CrossEntropy:
    """-sum_k y_k log softmax(f)_k, the mean over samples (and outputs, with ``average_outputs``).

    ``y``: class numbers (n,), or rows of probabilities (n, classes) such as one-hot; see `class_targets`. The last axis
    of f holds the classes.
    """

    average_outputs: bool = False

    def targets(self, y: Any, classes: int | None = None) -> Array:
        """What this loss takes for y, as probabilities."""
        return class_targets(y, classes)

    def __call__(self, f: Array, y: npt.ArrayLike) -> float:
        """The loss of outputs f (n, classes)."""
        shifted = f - f.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return float(((log_sum - shifted) * class_targets(y, f.shape[-1])).sum() / self._divisor(f))

    def gradient(self, f: Array, y: npt.ArrayLike) -> Array:
        """(softmax(f) - y)/n, shape of f."""
        odds = np.exp(f - f.max(axis=-1, keepdims=True))
        odds /= odds.sum(axis=-1, keepdims=True)
        return cast(Array, (odds - class_targets(y, f.shape[-1])) / self._divisor(f))

    def _divisor(self, f: Array) -> float:
        return f.size if self.average_outputs else f.size / f.shape[-1]


@dataclass(frozen=True)
class SquaredError:
    """||f - y||^2/(2n), the loss of `ntkcore.dynamics.Dynamics` (over outputs too, with ``average_outputs``)."""

    average_outputs: bool = False

    def __call__(self, f: Array, y: Array) -> float:
        """The loss of outputs f, shape of y."""
        return float(((f - y) ** 2).sum() / (2 * self._divisor(f)))

    def gradient(self, f: Array, y: Array) -> Array:
        """(f - y)/n, shape of f."""
        return (f - y) / self._divisor(f)

    def _divisor(self, f: Array) -> float:
        return f.size if self.average_outputs else len(f)


def gradient_of(loss: Any, y: Array) -> Field:
    """f -> dl/df: the loss's own ``gradient(f, y)``; JAX's, if the program has imported JAX and the loss uses it;
    else central differences: 2 f.size evaluations of the loss, about 9 digits.

    TypeError for a loss that is not callable or does not give one float64 number.
    """
    if hasattr(loss, "gradient"):
        return lambda f: _of_shape(loss.gradient(f, y), f)
    if not callable(loss):
        raise TypeError(f"a loss is a function loss(f, y) of outputs and targets, not {loss!r}")
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(_tried(lambda: loss(y.copy(), y)), jax.Array):
        return _jax_gradient(jax, loss, y)
    value = loss(np.zeros_like(y), y)
    if np.shape(value) != () or getattr(value, "dtype", np.dtype(float)) != np.float64:
        raise TypeError(
            f"the loss gave {value!r:.60}, not one float64 number: it must be a scalar, and its differences need "
            "double precision; or give the loss a method gradient(f, y)"
        )
    return lambda f: _differences(loss, f, y)


def _of_shape(gradient: Any, f: Array) -> Array:
    found = np.asarray(gradient, dtype=np.float64)
    if found.shape != f.shape:
        raise ValueError(f"the loss's gradient has shape {found.shape}, and the outputs {f.shape}")
    return found


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception:  # whatever a foreign loss raises on these values, it is looked at below
        return None


def _jax_gradient(jax: Any, loss: Any, y: Array) -> Field:
    derivative = jax.grad(lambda f: loss(f, y))

    def gradient(f: Array) -> Array:
        with jax.experimental.enable_x64():
            return np.asarray(derivative(jax.numpy.asarray(f)), dtype=np.float64)

    return gradient


def _differences(loss: Any, f: Array, y: Array) -> Array:
    """(l(f + h e) - l(f - h e))/2h, h = 6e-6 max(1, |f|): truncation and rounding balance."""
    gradient, moved = np.empty_like(f), f.copy()
    for index in np.ndindex(f.shape):
        h = 6e-6 * max(1.0, abs(float(f[index])))
        moved[index] = f[index] + h
        above = loss(moved, y)
        moved[index] = f[index] - h
        gradient[index] = (above - loss(moved, y)) / (2 * h)
        moved[index] = f[index]
    return gradient


def integrate(
    field: Field,
    start: Array,
    times: Array,
    *,
    tolerance: float,
    scale: float,
    method: str,
    outputs: Field,
) -> Array:
    """State at finite, ``times`` of any order under state' = field(state): shape (times, state), by scipy's solve_ivp.

    ``outputs``: the linear map from states, or their velocities, to what is wanted; ``scale``: its norm. For infinite
    times the equation is followed until the outputs are `STATIONARY`. ImportError without SciPy; ValueError where
    the solver gives up, or a limit is not reached in `EVALUATIONS` evaluations.
    """
    try:
        from scipy.integrate import solve_ivp
    except ImportError as error:
        raise ImportError('a loss other than the squared one needs SciPy: pip install "ntkcore[sklearn]"') from error
    options: dict[str, Any] = {"method": method, "rtol": tolerance, "atol": tolerance / max(scale, 1e-300)}
    out = np.empty((len(times), start.size))
    finite = np.isfinite(times)
    moments, places = np.unique(times[finite], return_inverse=True)
    if len(moments) and moments[-1] > 0:
        found = solve_ivp(lambda t, z: field(z), (0.0, moments[-1]), start, t_eval=moments, **options)
        if not found.success:
            raise ValueError(f"the ODE solver ({method}) gave up: {found.message} Try method='LSODA' or 'Radau'")
        out[finite] = found.y.T[places]
    else:
        out[finite] = start
    if not finite.all():
        finer = {"method": method, "rtol": 1e-3 * tolerance, "atol": 1e-3 * options["atol"]}  # or noise keeps it moving
        out[~finite] = _limit(solve_ivp, field, start, outputs, finer)
    return out


def _limit(solve_ivp: Any, field: Field, start: Array, outputs: Field, options: dict[str, Any]) -> Array:
    count = 0
    if not outputs(field(start)).any():
        return start

    def counted(t: float, state: Array) -> Array:
        nonlocal count
        count += 1
        if count > EVALUATIONS:
            raise ValueError(
                f"t = infinity: still moving at t = {t:.3g} after {EVALUATIONS} evaluations. The loss may have no "
                "minimum (cross-entropy of separable data has none): give a finite time"
            )
        return field(state)

    def ended(t: float, state: Array) -> float:
        return float(t * np.abs(outputs(field(state))).max() - STATIONARY * np.abs(outputs(state)).max())

    ended.terminal, ended.direction = True, -1  # type: ignore[attr-defined]
    found = solve_ivp(counted, (0.0, 1e300), start, events=ended, **options)
    if not len(found.t_events[0]):
        raise ValueError(f"t = infinity: the ODE solver gave up: {found.message}")
    return cast(Array, found.y_events[0][0])


class LossDynamics(Training):
    """Training on any loss, in the interface of `ntkcore.dynamics.Dynamics`: `train`, `points`, `at`, `early_stopping`.

    Parameters
    ----------
    kernel
        The kernel that trains, on the training set, (n, n), or a SciPy LinearOperator.
    y
        Targets (n,) or (n, outputs), as the loss takes them; for `CrossEntropy` class numbers (n,) or one-hot rows.
    loss
        A function loss(f, y) of outputs and targets, f shaped as y, giving a number with its own normalisation; with a
        method ``gradient(f, y)`` (`CrossEntropy`, `SquaredError`), or see `gradient_of`. A method
        ``targets(y, outputs)`` checks targets and gives them f's shape.
    rule
        `GradientFlow` (default): by SciPy's ODE solver. `GradientDescent`: step by step, exactly.
    f0
        Outputs before training, as y, or a number; None: 0.
    tolerance, method
        Of solve_ivp: relative tolerance, and absolute one in units of the outputs; "DOP853" is explicit, its cost grows
        with eta lambda_max t; "LSODA" and "Radau" take stiff long times where n x outputs is small.

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
        self.kernel = kernel if hasattr(kernel, "matmat") else check_symmetric(kernel, "the kernel matrix")
        if getattr(self.kernel, "shape", ())[:1] * 2 != tuple(self.kernel.shape):
            raise ValueError(f"the kernel must be square, not {tuple(self.kernel.shape)}")
        started = None if f0 is None else as_array(f0, "f0")
        outputs = None if started is None or started.ndim < 2 else started.shape[-1]
        given = loss.targets(y, outputs) if hasattr(loss, "targets") else y
        super().__init__(self.kernel.shape[0], given, GradientFlow() if rule is None else rule, f0, _recipe)
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
        """From a network and its training data; `at` then predicts at new inputs. See `Dynamics.from_net`."""
        if get not in KERNELS:
            raise ValueError(f"get must be 'ntk' or 'nngp', not {get!r}: one kernel trains")
        recipe = Recipe(net, x, get, {"dtype": np.float64, **options})
        trained, _ = recipe(x, None, False)
        return cls(trained, y, loss, rule, f0=f0, tolerance=tolerance, method=method, _recipe=recipe)

    def time_to_loss(self, loss: float, max_time: float) -> float:
        """First time, or step, at which the training loss is at most ``loss``; infinity if after ``max_time``."""
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
        """The best of these times for the validation loss; `Stop.gain` is relative to the last of them."""
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
        given = self.loss_function.targets(y, self.y.shape[1]) if hasattr(self.loss_function, "targets") else y
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
            raise ValueError("GradientDescent on this loss goes step by step: give a finite number of steps")
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
