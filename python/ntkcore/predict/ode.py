"""Gradient flow on any loss, with or without momentum, by an ODE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.linalg.checks import check_symmetric
from ntkcore.predict.closed import check_inputs
from ntkcore.predict.layout import (
    Array,
    Axes,
    Layout,
    Time,
    cross_of,
    initial,
    outputs_of,
    square_of,
)
from ntkcore.theory.losses import check_loss, gradient_of
from ntkcore.theory.ode import integrate
from ntkcore.theory.rules import check_momentum, flat_times, positive


@dataclass(frozen=True, eq=False)
class ODEState:
    """Outputs on train and test set, and their velocities (momentum)."""

    fx_train: Any = None
    fx_test: Any = None
    qx_train: Any = None
    qx_test: Any = None


def gradient_descent(
    loss: Callable[..., Any],
    k_train_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    learning_rate: float = 1.0,
    momentum: float | None = None,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Gradient flow on any loss, by SciPy's ODE solver.

    Parameters
    ----------
    loss : callable
        ``loss(fx, y_hat)``: a number; for its derivative see
        `ntkcore.losses` (a ``gradient`` method, JAX, or differences).
    k_train_train : array_like
        The training kernel, of shape ``zip(y_train.shape, y_train.shape)`` without ``trace_axes``.
    y_train : array_like
        Targets.
    learning_rate : float, default=1
    momentum : float, optional
        Of the continuous-time heavy ball; time is then in units of learning_rate**0.5, as in
        neural-tangents.
    trace_axes : int or sequence of int, default=(-1,)
        Axes of the outputs that the kernel lacks.

    Returns
    -------
    predict_fn : callable
        ``predict_fn(t=None, fx_train_or_state_0=0.0, fx_test_0=None, k_test_train=None)``: outputs
        as those of `gradient_descent_mse`, or an `ODEState` if one was given. t = None follows the
        flow until it rests; ValueError if it does not.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import predict
    >>> from ntkcore.losses import SquaredError
    >>> predict_fn = predict.gradient_descent(SquaredError(), np.eye(1), np.array([[1.0]]))
    >>> predict_fn(np.log(2)).round(6)
    array([[0.5]])
    """
    flow = _Flow(loss, k_train_train, y_train, learning_rate, momentum, trace_axes)

    def predict_fn(
        t: Time = None,
        fx_train_or_state_0: Any = 0.0,
        fx_test_0: npt.ArrayLike | None = None,
        k_test_train: npt.ArrayLike | None = None,
    ) -> Any:
        """Outputs, or an ODEState, at time t."""
        given = fx_train_or_state_0
        if isinstance(given, ODEState) and fx_test_0 is not None:
            raise ValueError("`fx_test_0` is included in `ODEState` and must be set to `None`.")
        state = given if isinstance(given, ODEState) else ODEState(given, fx_test_0)
        found = flow.at(np.inf if t is None else t, state, k_test_train)
        if isinstance(given, ODEState):
            return found
        if found.fx_test is None:
            return found.fx_train
        return found.fx_test if given is None else (found.fx_train, found.fx_test)

    return predict_fn


class _Flow:
    """f = f0 + phi(s) q0 + K a, q = e^(drag s) q0 + K b; a' = b, b' = drag b - grad l(f),
    at times s.

    Without momentum q, b and the drag are absent: a' = -grad l(f0 + K a).
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        k_train_train: npt.ArrayLike,
        y_train: npt.ArrayLike,
        learning_rate: float,
        momentum: float | None,
        trace_axes: Axes,
    ) -> None:
        check_loss(loss)
        self.y = outputs_of(loss.targets(y_train) if hasattr(loss, "targets") else y_train)
        self.layout = Layout.of(self.y, trace_axes)
        self.K = check_symmetric(
            square_of(k_train_train, "k_train_train", self.layout), "k_train_train"
        )
        self.slope = gradient_of(loss, self.y)
        self.heavy = momentum is not None
        rate = positive("learning_rate", learning_rate)
        self.unit = rate if momentum is None else rate**0.5
        self.drag = (
            0.0 if momentum is None else (check_momentum(momentum, undamped=True) - 1) / self.unit
        )

    def at(self, t: npt.ArrayLike, state: ODEState, k_test_train: Any) -> ODEState:
        """The state at times t, from this one."""
        check_inputs(state.fx_train, state.fx_test, k_test_train)
        if not self.heavy and not (state.qx_train is None and state.qx_test is None):
            raise ValueError("Got passed momentum state variables, while `momentum is None`.")
        times, shape = flat_times(t, "t")
        s = times * self.unit
        f0, q0 = self._start(state, ("fx_train", "qx_train"), self.y.shape)
        a, b = self._path(s, f0, q0)
        train, q_train = self._outputs(s, shape, (f0, q0), self.K, (a, b), self.layout.rows_shape)
        test, q_test = None, None
        if state.fx_test is not None:
            cross, rows = cross_of(k_test_train, self.layout)
            start = self._start(state, ("fx_test", "qx_test"), self.layout.outputs_shape(rows))
            test, q_test = self._outputs(s, shape, start, cross, (a, b), rows)
        return ODEState(train, test, q_train, q_test)

    def _start(
        self, state: ODEState, names: tuple[str, str], shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        f, q = (self.layout.flat(initial(getattr(state, name), shape, name)) for name in names)
        return f, q

    def _path(self, s: Array, f0: Array, q0: Array) -> tuple[Array, Array]:
        """a and b at times s, (times, n, outputs)."""
        K, drag, layout = self.K, self.drag, self.layout
        n, size = K.shape[0], f0.size

        def gradient(state: Array) -> Array:
            f = f0 + _phi(drag, state[-1]) * q0 + K @ state[:size].reshape(n, -1)
            return layout.flat(self.slope(layout.unflat(f, (), layout.rows_shape)))

        def field(state: Array) -> Array:
            push = -gradient(state).reshape(-1)
            if not self.heavy:
                return np.concatenate([push, [1.0]])
            velocity = state[size : 2 * size]
            return np.concatenate([velocity, push + drag * velocity, [1.0]])

        def outputs(state: Array) -> Array:
            return np.stack(
                [K @ part.reshape(n, -1) for part in np.split(state[:-1], (len(state) - 1) // size)]
            )

        start = np.zeros((2 if self.heavy else 1) * size + 1)  # the last entry is the time itself
        norm = float(np.abs(K).sum(axis=0).max())
        options: dict[str, Any] = {
            "tolerance": 1e-9,
            "scale": norm,
            "method": "DOP853",
            "outputs": outputs,
        }
        states = integrate(field, start, s, **options)
        a = states[:, :size].reshape(-1, *f0.shape)
        b = states[:, size : 2 * size].reshape(-1, *f0.shape) if self.heavy else np.zeros_like(a)
        return a, b

    def _outputs(
        self,
        s: Array,
        shape: tuple[int, ...],
        start: tuple[Array, Array],
        matrix: Array,
        path: tuple[Array, Array],
        rows: tuple[int, ...],
    ) -> tuple[Array, Array | None]:
        """Outputs and velocities of points whose kernel with the training set is `matrix`."""
        (f, q), (a, b), unflat = start, path, self.layout.unflat
        phi = _phi(self.drag, s)[:, None, None]
        moved = unflat(f + (phi * q if q.any() else 0.0) + matrix @ a, shape, rows)
        if not self.heavy:
            return moved, None
        fade = np.exp(self.drag * s)[:, None, None]
        return moved, unflat(fade * q + matrix @ b, shape, rows)


def _phi(drag: float, s: Any) -> Any:
    """The integral of e^(drag s)."""
    return np.expm1(drag * s) / drag if drag else s
