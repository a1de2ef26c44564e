"""neural-tangents' ``predict``: a script changes its import and runs.

    from ntkcore import predict
    predict_fn = predict.gradient_descent_mse_ensemble(kernel_fn, x_train, y_train, learning_rate=0.1, diag_reg=1e-4)
    mean, covariance = predict_fn(t=100.0, x_test=x_test, get="ntk", compute_cov=True)

Names, order and defaults of arguments, shapes and what ``get`` gives are those of neural-tangents 0.6.5 (Novak et al.
2020; Lee et al. 2019); NumPy in, NumPy out, float64 inside and out. Three things are better than there: eigenvalues at
rounding's level are exactly 0, so that singular kernels give finite numbers; ``t`` may be in any order; one
eigendecomposition serves all times. Kernels of several axes come in neural-tangents' order, (X, X, Y, Y, …).

A matrix that is not symmetric, or clearly not positive semidefinite, is refused with a ValueError by all functions.
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array
from ntkcore.linalg.eigen import Modes, check_matrix, check_symmetric, eigenmodes
from ntkcore.linalg.symmetry import check_real
from ntkcore.theory.losses import gradient_of, integrate
from ntkcore.theory.rules import GradientFlow, positive

__all__ = [
    "Gaussian",
    "ODEState",
    "gp_inference",
    "gradient_descent",
    "gradient_descent_mse",
    "gradient_descent_mse_ensemble",
    "max_learning_rate",
]

Array = npt.NDArray[np.float64]
Axes = int | Sequence[int]
Time = npt.ArrayLike | None


class Gaussian(NamedTuple):
    """Mean, shaped as the outputs, and covariance, shaped as the kernel; time axes lead both."""

    mean: Array
    covariance: Array


@dataclass(frozen=True, eq=False)
class ODEState:
    """Outputs on train and test set, and their velocities (momentum)."""

    fx_train: Any = None
    fx_test: Any = None
    qx_train: Any = None
    qx_test: Any = None


# ------------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class _Layout:
    """How outputs and kernels are matrices: outputs (rows, traced), rows all axes that the kernel has."""

    shape: tuple[int, ...]  # of y_train
    traced: tuple[int, ...]  # axes, from the end: negative

    @classmethod
    def of(cls, y: Any, trace_axes: Axes) -> _Layout:
        shape = np.shape(y)
        axes = list(trace_axes) if isinstance(trace_axes, Sequence) else [trace_axes]
        if any(not isinstance(a, (int, np.integer)) or not -len(shape) <= a < len(shape) for a in axes):
            raise ValueError(f"trace_axes={trace_axes!r} are not axes of y_train, which has shape {shape}")
        return cls(shape, tuple(sorted({int(a) % len(shape) - len(shape) for a in axes})))

    @property
    def traced_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.traced)

    @property
    def rows_shape(self) -> tuple[int, ...]:
        return tuple(n for a, n in enumerate(self.shape, -len(self.shape)) if a not in self.traced)

    @property
    def _last(self) -> tuple[int, ...]:
        return tuple(range(-len(self.traced), 0))

    def flat(self, outputs: Any) -> Array:
        moved = np.moveaxis(np.asarray(outputs, dtype=np.float64), self.traced, self._last)
        return moved.reshape(-1, math.prod(self.traced_shape))

    def unflat(self, values: Array, leading: tuple[int, ...], rows: tuple[int, ...]) -> Array:
        """(…, rows, traced) to leading + the outputs' axes in their order."""
        return np.moveaxis(values.reshape((*leading, *rows, *self.traced_shape)), self._last, self.traced)

    def outputs_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        return self.unflat(np.empty((math.prod(rows), math.prod(self.traced_shape))), (), rows).shape


def _outputs(values: Any, name: str = "y_train") -> Array:
    """Finite real numbers of any shape, not empty."""
    array = as_array(values, name)
    check_real(np.atleast_1d(array), name)
    if not array.size:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    return array.astype(np.float64)


def _initial(values: Any, shape: tuple[int, ...], name: str) -> Array:
    """Outputs before training, of the set's shape or one number for all; None is 0."""
    given = _outputs(0.0 if values is None else values, name)
    if given.shape not in {(), shape}:
        raise ValueError(f"{name} must be a number or have the outputs' shape {shape}, not {given.shape}")
    return np.broadcast_to(given, shape)


def _matrix(kernel: Any, name: str) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """(X, X', Y, Y', …) as a matrix (X Y …, X' Y' …), and both shapes."""
    array = as_array(kernel, name)
    if array.ndim % 2:
        raise ValueError(f"{name} must have pairs of axes, (n, n) for instance, not shape {array.shape}")
    rows, columns = array.shape[::2], array.shape[1::2]
    order = (*range(0, array.ndim, 2), *range(1, array.ndim, 2))
    flat = array.transpose(order).reshape(math.prod(rows), math.prod(columns))
    return check_matrix(flat, name, (None, None)), rows, columns


def _zipped(covariance: Array, leading: tuple[int, ...], rows: tuple[int, ...]) -> Array:
    """(…, X Y …, X Y …) to leading + (X, X, Y, Y, …)."""
    k, d = len(leading), len(rows)
    full = covariance.reshape((*leading, *rows, *rows))
    return full.transpose(*range(k), *(k + i + d * j for i in range(d) for j in (0, 1)))


def _square(kernel: Any, name: str, layout: _Layout) -> Any:
    """A training kernel as a symmetric matrix of its own dtype; ValueError where it does not fit y_train."""
    array = as_array(kernel, name)
    matrix, rows, columns = _matrix(array, name)
    if rows != layout.rows_shape or columns != layout.rows_shape:
        hint = "; targets (n,) are y_train[:, None]" if len(layout.shape) == 1 else ""
        raise ValueError(
            f"{name} has shape {array.shape}; for y_train {layout.shape} and trace_axes={layout.traced} it must "
            f"have shape {tuple(n for size in layout.rows_shape for n in (size, size))}{hint}"
        )
    return matrix.astype(array.dtype, copy=False)


def _cross(kernel: Any, layout: _Layout) -> tuple[Array, tuple[int, ...]]:
    array = as_array(kernel, "k_test_train")
    matrix, rows, columns = _matrix(array, "k_test_train")
    if columns != layout.rows_shape:
        raise ValueError(f"k_test_train has shape {array.shape}, and y_train {layout.shape}: they do not fit")
    return matrix, rows


def _own(kernel: Any, name: str, rows: tuple[int, ...]) -> Array:
    """A kernel of the test points among themselves; ValueError where it is not as large as the test-train one."""
    matrix, *sides = _matrix(kernel, name)
    if sides != [rows, rows]:
        raise ValueError(f"{name} has shape {np.shape(kernel)}, and the test points are {rows}: they do not fit")
    return matrix


def _times(t: npt.ArrayLike) -> tuple[Array, tuple[int, ...]]:
    times = as_array(t, "t")
    if times.dtype.kind not in "fiub" or not (times >= 0).all():
        raise ValueError("t must hold numbers >= 0, or be None for infinity")
    times = times.astype(np.float64)
    return times.reshape(-1), times.shape


class _Regularised:
    """A training kernel with diag_reg: its eigenmodes, or solutions by Cholesky, each computed once and on demand."""

    def __init__(self, kernel: Any, name: str, layout: _Layout, diag_reg: float, absolute: bool) -> None:
        self._kernel, self._name = _square(kernel, name, layout), name
        self._diag_reg, self._absolute = diag_reg, absolute

    @functools.cached_property
    def modes(self) -> Modes:
        return eigenmodes(self._kernel, self._name)

    @functools.cached_property
    def values(self) -> Array:
        """Eigenvalues of K + diag_reg."""
        return self.modes.values + self.modes.ridge(self._diag_reg, self._absolute)

    @functools.cached_property
    def _factor(self) -> Any:
        """Cholesky's factor; None where the matrix is singular to working precision, or SciPy absent."""
        K = check_symmetric(self._kernel, self._name)
        trace = float(K.trace())
        ridge = Modes(np.empty(0), K, trace).ridge(self._diag_reg, self._absolute)
        try:
            from scipy.linalg import get_lapack_funcs
        except ImportError:
            return None
        potrf, pocon = get_lapack_funcs(("potrf", "pocon"), (K,))
        factor, failed = potrf(K + ridge * np.eye(len(K)), lower=True, clean=False)
        norm = float(np.abs(K).sum(axis=0).max()) + ridge
        return factor if not failed and pocon(factor, norm, uplo="L")[0] > len(K) * np.finfo(float).eps else None

    def solve(self, rhs: Array) -> Array:
        """(K + diag_reg)^-1 rhs; the pseudo-inverse of a singular matrix."""
        if self._factor is not None:
            from scipy.linalg.lapack import dpotrs

            return cast(Array, dpotrs(self._factor, rhs, lower=True)[0])
        inverse = np.divide(1.0, self.values, out=np.zeros_like(self.values), where=self.values > 0)
        return self.modes.vectors @ (inverse[:, None] * (self.modes.vectors.T @ rhs))

    def flow(self, scaled: Array, size: int) -> tuple[Array, Array]:
        """rho and (1 - rho)/lambda, (times, modes), at times in units of the learning rate; ``size``: of y_train."""
        rule, rates = GradientFlow(1.0), self.values / size
        gain = rule.gain(rates, scaled) / size
        gain[:, rates == 0] = (
            0.0  # a kernel's null space reaches no point: what a test-train kernel has there is rounding
        )
        return rule.decay(rates, scaled), gain

    def apply(self, basis: Array, factor: Array, rhs: Array) -> Array:
        """basis diag(factor_t) V^T rhs, (times, rows, columns)."""
        weights = factor[:, :, None] * (self.modes.vectors.T @ rhs)
        return basis @ weights


# ---------------------------------------------------------------------------------------------------- given functions


def gradient_descent_mse(
    k_train_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Gradient flow on the mean squared error ||f - y||^2/(2 y.size), from given initial outputs.

    ``k_train_train``: shape ``zip(y_train.shape, y_train.shape)`` without ``trace_axes``. ``diag_reg`` is added to its
    diagonal in units of its mean, or absolute. Returns ``predict_fn(t=None, fx_train_0=0.0, fx_test_0=None,
    k_test_train=None)``: outputs at times of any shape (None: infinity) on the training set, or (train, test) if
    ``fx_test_0`` is given, or those of the test set if ``fx_train_0`` is None; time axes lead. ValueError for shapes
    that do not fit. At t = None the training outputs are y_train, whatever diag_reg, as in neural-tangents.
    """
    y, learning_rate = _outputs(y_train), positive("learning_rate", learning_rate)
    layout = _Layout.of(y, trace_axes)
    regularised = _Regularised(k_train_train, "k_train_train", layout, diag_reg, diag_reg_absolute_scale)

    def predict_fn(
        t: Time = None,
        fx_train_0: npt.ArrayLike | None = 0.0,
        fx_test_0: npt.ArrayLike | None = None,
        k_test_train: npt.ArrayLike | None = None,
    ) -> Any:
        """Outputs at time t: of the training set, the test set, or (train, test)."""
        _check_inputs(fx_train_0, fx_test_0, k_test_train)
        start = _initial(fx_train_0, y.shape, "fx_train_0")
        error = layout.flat(y - start)
        cross, rows = (None, ()) if fx_test_0 is None else _cross(k_test_train, layout)
        if t is None:
            train = y.copy()
            change = None if cross is None else layout.unflat(cross @ regularised.solve(error), (), rows)
        else:
            times, shape = _times(t)
            rho, gain = regularised.flow(times * learning_rate, y.size)
            vectors = regularised.modes.vectors
            learned = layout.unflat(regularised.apply(vectors, 1 - rho, error), shape, layout.rows_shape)
            train = learned + start
            basis = None if cross is None else cross @ vectors
            change = None if basis is None else layout.unflat(regularised.apply(basis, gain, error), shape, rows)
        if change is None:
            return train
        test = change + _initial(fx_test_0, layout.outputs_shape(rows), "fx_test_0")
        return test if fx_train_0 is None else (train, test)

    return predict_fn


def gradient_descent(
    loss: Callable[..., Any],
    k_train_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    learning_rate: float = 1.0,
    momentum: float | None = None,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Gradient flow on any loss, with ``momentum`` its continuous-time heavy ball, by SciPy's ODE solver.

    ``loss(fx, y_hat)``: a number; for its derivative see `ntkcore.losses.gradient_of` (a ``gradient`` method, JAX, or
    differences). Returns ``predict_fn(t=None, fx_train_or_state_0=0.0, fx_test_0=None, k_test_train=None)``: outputs as
    those of `gradient_descent_mse`, or an `ODEState` if one was given. With momentum, time is in units of
    learning_rate**0.5, as in neural-tangents. t = None follows the flow until it rests; ValueError if it does not.
    """
    y = _outputs(loss.targets(y_train) if hasattr(loss, "targets") else y_train)
    layout = _Layout.of(y, trace_axes)
    K = check_symmetric(_square(k_train_train, "k_train_train", layout), "k_train_train")
    slope = gradient_of(loss, y)
    learning_rate = positive("learning_rate", learning_rate)
    unit = learning_rate if momentum is None else learning_rate**0.5
    drag = 0.0 if momentum is None else (momentum - 1.0) / unit
    norm = float(np.abs(K).sum(axis=0).max())

    def path(s: Array, f0: Array, q0: Array) -> tuple[Array, Array]:
        """a and b at times s: f = f0 + phi(s) q0 + K a, q = e^(drag s) q0 + K b; a' = b, b' = drag b - grad."""
        n, size = K.shape[0], f0.size

        def gradient(state: Array) -> Array:
            f = f0 + _phi(drag, state[-1]) * q0 + K @ state[:size].reshape(n, -1)
            return layout.flat(slope(layout.unflat(f, (), layout.rows_shape)))

        def field(state: Array) -> Array:
            push = -gradient(state).reshape(-1)
            if momentum is None:
                return np.concatenate([push, [1.0]])
            velocity = state[size : 2 * size]
            return np.concatenate([velocity, push + drag * velocity, [1.0]])

        def outputs(state: Array) -> Array:
            return np.stack([K @ part.reshape(n, -1) for part in np.split(state[:-1], (len(state) - 1) // size)])

        start = np.zeros((1 if momentum is None else 2) * size + 1)  # the last entry is the time itself
        options: dict[str, Any] = {"tolerance": 1e-9, "scale": norm, "method": "DOP853", "outputs": outputs}
        states = integrate(field, start, s, **options)
        a = states[:, :size].reshape(-1, *f0.shape)
        b = np.zeros_like(a) if momentum is None else states[:, size : 2 * size].reshape(-1, *f0.shape)
        return a, b

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
        _check_inputs(state.fx_train, state.fx_test, k_test_train)
        if momentum is None and not (state.qx_train is None and state.qx_test is None):
            raise ValueError("Got passed momentum state variables, while `momentum is None`.")
        times, shape = _times(np.inf if t is None else t)
        s = times * unit
        f0, q0 = (layout.flat(_initial(getattr(state, of), y.shape, of)) for of in ("fx_train", "qx_train"))
        a, b = path(s, f0, q0)
        phi, fade = _phi(drag, s)[:, None, None], np.exp(drag * s)[:, None, None] if momentum is not None else 0.0

        def outputs(f: Array, q: Array, matrix: Array, rows: tuple[int, ...]) -> tuple[Array, Array | None]:
            moved = f + (phi * q if q.any() else 0.0) + matrix @ a
            velocity = None if momentum is None else layout.unflat(fade * q + matrix @ b, shape, rows)
            return layout.unflat(moved, shape, rows), velocity

        train, q_train = outputs(f0, q0, K, layout.rows_shape)
        test, q_test = None, None
        if state.fx_test is not None:
            cross, rows = _cross(k_test_train, layout)
            outer = layout.outputs_shape(rows)
            g0, p0 = (layout.flat(_initial(getattr(state, of), outer, of)) for of in ("fx_test", "qx_test"))
            test, q_test = outputs(g0, p0, cross, rows)
        if isinstance(given, ODEState):
            return ODEState(train, test, q_train, q_test)
        if test is None:
            return train
        return test if given is None else (train, test)

    return predict_fn


def _phi(drag: float, s: Any) -> Any:
    """The integral of e^(drag s)."""
    return np.expm1(drag * s) / drag if drag else s


def _check_inputs(fx_train_0: Any, fx_test_0: Any, k_test_train: Any) -> None:
    if fx_train_0 is None and fx_test_0 is None:
        raise ValueError("Both `fx_train_0` and `fx_test_0` are `None`, i.e. no predictions will be computed.")
    if fx_test_0 is not None and k_test_train is None:
        raise ValueError("To get predictions on the test set, please provide `k_test_train` kernel.")


# ---------------------------------------------------------------------------------------------------------- ensembles


def gp_inference(
    k_train_train: Any,
    y_train: npt.ArrayLike,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Infinite time: "nngp", posterior of the Bayesian network; "ntk", trained ensemble; "ntkgp", GP of the NTK.

    ``k_train_train``: an array, or anything with attributes ``nngp`` and ``ntk``. Returns ``predict_fn(get=None,
    k_test_train=None, k_test_test=None)``: a mean, or a `Gaussian` if ``k_test_test`` is given; for a tuple ``get``
    (None: ("nngp", "ntk")) a namedtuple. ``k_test_train=None``: the training set itself, N(y_train, 0).
    """
    y = _outputs(y_train)
    layout = _Layout.of(y, trace_axes)

    @functools.cache
    def regularised(name: str) -> _Regularised:
        kernel = _attribute(k_train_train, name)
        return _Regularised(kernel, f"k_train_train ({name})", layout, diag_reg, diag_reg_absolute_scale)

    def one(g: str, k_test_train: Any, k_test_test: Any) -> Any:
        name, prior = ("ntk" if g == "ntkgp" else g), ("ntk" if g == "ntkgp" else "nngp")
        solver = regularised(name)
        if k_test_train is None:
            shape = np.shape(_attribute(k_train_train, name))
            return y.copy() if k_test_test is None else Gaussian(y.copy(), np.zeros(shape))
        cross, rows = _cross(_attribute(k_test_train, name), layout)
        mean = layout.unflat(cross @ solver.solve(layout.flat(y)), (), rows)
        if k_test_test is None:
            return mean
        if g == "ntk" and not (hasattr(k_train_train, "nngp") and hasattr(k_test_train, "nngp")):
            raise ValueError(
                'the covariance of "ntk" needs both NNGP and NTK of train-train and test-train: pass namedtuples or '
                "Kernel objects with attributes nngp and ntk"
            )
        own = _own(_attribute(k_test_test, prior), "k_test_test", rows)
        first, others = _cross(_attribute(k_test_train, prior), layout)
        if others != rows:
            raise ValueError(f"k_test_train's nngp and ntk are of {others} and {rows} test points: they do not fit")
        mixed = cross @ solver.solve(first.T)
        if g == "ntk":
            b = solver.solve(cross.T)
            nngp = _square(k_train_train.nngp, "k_train_train (nngp)", layout)
            covariance = own + b.T @ (nngp @ b) - mixed - mixed.T
        else:
            covariance = own - mixed
        return Gaussian(mean, _zipped(covariance, (), rows))

    def predict_fn(get: Any = None, k_test_train: Any = None, k_test_test: Any = None) -> Any:
        """Mean, or mean and covariance, of every kind that ``get`` names."""
        names, pack = _canonical(get, ("nngp", "ntk", "ntkgp"))
        for kernel, what in ((k_train_train, "k_train_train"), (k_test_train, "k_test_train")):
            if hasattr(kernel, "__array__") and "nngp" in names and len(names) > 1:
                raise ValueError(
                    f"{what} is one array, and {', '.join(names)} take two kernels: pass a namedtuple or Kernel with "
                    "nngp and ntk, or name in get the one that it is"
                )
        return pack([one(name, k_test_train, k_test_test) for name in names])

    return predict_fn


def gradient_descent_mse_ensemble(
    kernel_fn: Callable[..., Any],
    x_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: Axes = (-1,),
    **kernel_fn_train_train_kwargs: Any,
) -> Callable[..., Any]:
    """Mean and covariance over initialisations of infinitely wide networks under gradient flow on the MSE.

    ``kernel_fn(x1, x2, get, **kwargs)``: as `ntkcore.stax` gives it. Returns ``predict_fn(t=None, x_test=None,
    get=None, compute_cov=False, **kernel_fn_test_test_kwargs)``: a mean, or a `Gaussian` with ``compute_cov``; for a
    tuple ``get`` (None: ("nngp", "ntk")) a namedtuple. t of any shape, None for infinity; ``x_test=None`` for the
    training set.
    """
    if not callable(kernel_fn):
        raise TypeError(
            f"kernel_fn must be a function such as the last of stax.serial(…)'s three, not {type(kernel_fn).__name__}"
        )
    y, learning_rate = _outputs(y_train), positive("learning_rate", learning_rate)
    layout = _Layout.of(y, trace_axes)
    kernels: dict[str, Any] = {}
    options = kernel_fn_train_train_kwargs

    def train_kernels(names: tuple[str, ...]) -> Any:
        missing = tuple(name for name in names if name not in kernels)
        if missing:
            kernels.update(_by_name(kernel_fn(x_train, None, missing, **options), missing))
        return _Kernels(**kernels)

    @functools.cache
    def regularised(name: str) -> _Regularised:
        kernel = _attribute(train_kernels((name,)), name)
        return _Regularised(kernel, f"the {name} of x_train", layout, diag_reg, diag_reg_absolute_scale)

    def finite(g: str, t: npt.ArrayLike, cross: Any, nngp_test: Any) -> Any:
        times, shape = _times(t)
        solver = regularised(g)
        rho, gain = solver.flow(times * learning_rate, y.size)
        vectors, flat = solver.modes.vectors, layout.flat(y)
        if cross is None:
            rows = layout.rows_shape
            mean = solver.apply(vectors, 1 - rho, flat)
        else:
            matrix, rows = _cross(_attribute(cross, g), layout)
            basis = matrix @ vectors
            mean = solver.apply(basis, gain, flat)
        mean = layout.unflat(mean, shape, rows)
        if nngp_test is None:
            return mean
        if g == "nngp":
            if cross is None:
                parts = [(vectors * (solver.values * r**2)) @ vectors.T for r in rho]
            else:
                own = _own(nngp_test, "the NNGP of x_test", rows)
                parts = [own - (basis * (h * (1 + r))) @ basis.T for r, h in zip(rho, gain, strict=True)]
        else:
            prior = vectors.T @ _square(train_kernels(("nngp",)).nngp, "the NNGP of x_train", layout) @ vectors
            if cross is None:
                parts = [(vectors * r) @ prior @ (vectors * r).T for r in rho]
            else:
                own = _own(nngp_test, "the NNGP of x_test", rows)
                first = _cross(cross.nngp, layout)[0] @ vectors
                parts = [own + _against(basis * h, prior, first) for h in gain]
        covariance = np.array(parts).reshape(-1, math.prod(rows), math.prod(rows))
        return Gaussian(mean, _zipped(covariance, shape, rows))

    def predict_fn(
        t: Time = None,
        x_test: npt.ArrayLike | None = None,
        get: Any = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any:
        """Mean, or mean and covariance, at time t on the inputs x_test."""
        names, pack = _canonical(get, ("nngp", "ntk"))
        merged = _merged(options, kernel_fn_test_test_kwargs)
        needed = tuple(g for g in ("nngp", "ntk") if g in names or (g == "nngp" and compute_cov))
        cross = nngp_test = None
        if x_test is not None:
            cross = _Kernels(**_by_name(kernel_fn(x_test, x_train, needed, **merged), needed))
            nngp_test = _attribute(kernel_fn(x_test, None, "nngp", **merged), "nngp") if compute_cov else None
        elif compute_cov:
            nngp_test = True
        if t is None:
            infinite = gp_inference(train_kernels(needed), y, diag_reg, diag_reg_absolute_scale, trace_axes)
            return pack([infinite(name, cross, nngp_test) for name in names])
        return pack([finite(name, t, cross, nngp_test) for name in names])

    return predict_fn


def _against(b: Array, prior: Array, first: Array) -> Array:
    """B S B^T - B S*^T - S* B^T."""
    mixed = b @ first.T
    return b @ prior @ b.T - mixed - mixed.T


def _merged(train: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    for name, value in test.items():
        if name not in train or not np.array_equal(train[name], value):
            raise ValueError(
                f"the keyword argument {name} of kernel_fn differs between training and test kernels: give it, "
                "with one value, to gradient_descent_mse_ensemble"
            )
    return {**train, **test}


_Kernels = namedtuple("_Kernels", ("nngp", "ntk"), defaults=(None, None))


def _by_name(kernels: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """What kernel_fn gave for a tuple ``get``, by its fields: in which order they stand is its own affair."""
    if not all(hasattr(kernels, name) for name in names):
        raise TypeError(
            f"kernel_fn, asked for get={names}, must give a namedtuple or Kernel with these fields, not a "
            f"{type(kernels).__name__} without {', '.join(name for name in names if not hasattr(kernels, name))}"
        )
    return {name: getattr(kernels, name) for name in names}


def _attribute(kernel: Any, name: str) -> Any:
    """An array itself, or the kernel's nngp or ntk."""
    if hasattr(kernel, "__array__") or isinstance(kernel, list):
        return kernel
    value = getattr(kernel, name, None)
    if value is None:
        raise ValueError(
            f"a {type(kernel).__name__} holds no kernel named {name}: pass an array, or a namedtuple or Kernel with "
            f"the field {name}"
        )
    return value


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("Gaussians", names))


def _canonical(get: Any, known: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[list[Any]], Any]]:
    """Names asked for, and what packs their results: one value for a string, else a namedtuple."""
    if get is not None and isinstance(get, Sequence) and not get:
        raise ValueError('"get" must be non-empty.')
    asked = ("nngp", "ntk") if get is None else (get,) if isinstance(get, str) else get
    if not isinstance(asked, Sequence) or not all(isinstance(name, str) for name in asked):
        raise TypeError(f"get must be a name or a tuple of names, of {', '.join(known)}, not {get!r:.60}")
    names = tuple(name.lower() for name in asked)
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotImplementedError(f"get takes {', '.join(known)}, not {', '.join(unknown)}")
    return names, (lambda values: values[0]) if isinstance(get, str) else lambda values: _tuple_type(names)(*values)


def max_learning_rate(
    ntk_train_train: npt.ArrayLike, y_train_size: int | None = None, momentum: float = 0.0, eps: float = 1e-12
) -> float:
    """The largest step size at which gradient descent converges: 2 (1 + momentum) size / (lambda_max + eps).

    ``y_train_size``: of y_train, all outputs counted (None: the kernel's rows); the loss is ||f - y||^2/(2 size).
    """
    matrix, _, _ = _matrix(ntk_train_train, "ntk_train_train")
    K = check_symmetric(matrix, "ntk_train_train")
    try:
        from scipy.linalg import eigvalsh

        top = eigvalsh(K, subset_by_index=(len(K) - 1, len(K) - 1))[-1]
    except ImportError:
        top = np.linalg.eigvalsh(K)[-1]
    size = len(K) if y_train_size is None else positive("y_train_size", y_train_size)
    return float(2 * (1 + momentum) * size / (top + eps))
