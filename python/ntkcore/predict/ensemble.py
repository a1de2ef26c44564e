"""Mean and covariance over initialisations, at any time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.predict.inference import gp_inference
from ntkcore.predict.kernels import Gaussian, Kernels, attribute, by_name, canonical
from ntkcore.predict.layout import (
    Array,
    Axes,
    Layout,
    Time,
    cross_of,
    outputs_of,
    own_of,
    square_of,
    zipped,
)
from ntkcore.predict.regularised import Regularised
from ntkcore.theory.rules import flat_times, positive


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
    """Mean and covariance over initialisations of infinitely wide networks, trained on the MSE.

    Parameters
    ----------
    kernel_fn : callable
        ``kernel_fn(x1, x2, get, **kwargs)``, as `ntkcore.stax` gives it.
    x_train, y_train : array_like
        Samples and targets.
    learning_rate : float, default=1
        Of gradient flow.
    diag_reg : float, default=0
        Added to the training kernel's diagonal, in units of its mean.
    diag_reg_absolute_scale : bool, default=False
        Added as it is.
    trace_axes : int or sequence of int, default=(-1,)
        Axes of the outputs that the kernel lacks.
    **kernel_fn_train_train_kwargs
        Options of `kernel_fn`.

    Returns
    -------
    predict_fn : callable
        ``predict_fn(t=None, x_test=None, get=None, compute_cov=False,
        **kernel_fn_test_test_kwargs)``: a mean, or a `Gaussian` with ``compute_cov``; for a tuple
        ``get`` (None: ("nngp", "ntk")) a namedtuple. t of any shape, None for infinity;
        ``x_test=None`` for the training set.

    References
    ----------
    Lee et al. 2019, equations 10 to 16.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import predict, stax
    >>> kernel_fn = stax.serial(stax.Dense(1))[2]
    >>> x, y = np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]])
    >>> predict_fn = predict.gradient_descent_mse_ensemble(kernel_fn, x, y, diag_reg=1e-8)
    >>> predict_fn(x_test=np.array([[3.0]]), get="ntk").round(4)
    array([[3.]])
    """
    if not callable(kernel_fn):
        raise TypeError(
            "kernel_fn must be a function such as the last of stax.serial(…)'s three, not"
            f" {type(kernel_fn).__name__}"
        )
    options = kernel_fn_train_train_kwargs
    ensemble = _Ensemble(
        kernel_fn,
        x_train,
        y_train,
        learning_rate,
        (diag_reg, diag_reg_absolute_scale),
        trace_axes,
        options,
    )

    def predict_fn(
        t: Time = None,
        x_test: npt.ArrayLike | None = None,
        get: Any = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any:
        """Mean, or mean and covariance, at time t on the inputs x_test."""
        names, pack = canonical(get, ("nngp", "ntk"))
        merged = _merged(options, kernel_fn_test_test_kwargs)
        needed = tuple(g for g in ("nngp", "ntk") if g in names or (g == "nngp" and compute_cov))
        cross = nngp_test = None
        if x_test is not None:
            cross = Kernels(**by_name(kernel_fn(x_test, x_train, needed, **merged), needed))
            nngp_test = (
                attribute(kernel_fn(x_test, None, "nngp", **merged), "nngp")
                if compute_cov
                else None
            )
        elif compute_cov:
            nngp_test = True
        if t is None:
            kernels = ensemble.train_kernels(needed)
            infinite = gp_inference(kernels, y_train, diag_reg, diag_reg_absolute_scale, trace_axes)
            return pack([infinite(name, cross, nngp_test) for name in names])
        return pack([ensemble.at(name, t, cross, nngp_test) for name in names])

    return predict_fn


class _Ensemble:
    """The training set's kernels, computed when first asked for,
    and what they say at finite times.
    """

    def __init__(
        self,
        kernel_fn: Callable[..., Any],
        x_train: npt.ArrayLike,
        y_train: npt.ArrayLike,
        learning_rate: float,
        diag_reg: tuple[float, bool],
        trace_axes: Axes,
        options: dict[str, Any],
    ) -> None:
        self.kernel_fn, self.x_train, self.options = kernel_fn, x_train, options
        self.y, self.learning_rate = outputs_of(y_train), positive("learning_rate", learning_rate)
        self.layout = Layout.of(self.y, trace_axes)
        self.diag_reg = diag_reg
        self.kernels: dict[str, Any] = {}
        self.solvers: dict[str, Regularised] = {}

    def train_kernels(self, names: tuple[str, ...]) -> Any:
        """These kernels of the training set, among others."""
        missing = tuple(name for name in names if name not in self.kernels)
        if missing:
            found = self.kernel_fn(self.x_train, None, missing, **self.options)
            self.kernels.update(by_name(found, missing))
        return Kernels(**self.kernels)

    def solver(self, name: str) -> Regularised:
        """This kernel with diag_reg."""
        if name not in self.solvers:
            kernel = attribute(self.train_kernels((name,)), name)
            self.solvers[name] = Regularised(
                kernel, f"the {name} of x_train", self.layout, *self.diag_reg
            )
        return self.solvers[name]

    def at(self, get: str, t: npt.ArrayLike, cross: Any, nngp_test: Any) -> Any:
        """The mean at times t, of the training set (``cross`` None) or the test set;
        with its covariance if wanted.
        """
        times, shape = flat_times(t, "t")
        solver, layout = self.solver(get), self.layout
        rho, gain = solver.flow(times * self.learning_rate, self.y.size)
        vectors, flat = solver.modes.vectors, layout.flat(self.y)
        if cross is None:
            rows, basis = layout.rows_shape, vectors
            mean = solver.apply(vectors, 1 - rho, flat)
        else:
            matrix, rows = cross_of(attribute(cross, get), layout)
            basis = matrix @ vectors
            mean = solver.apply(basis, gain, flat)
        mean = layout.unflat(mean, shape, rows)
        if nngp_test is None:
            return mean
        covariance = self._of_nngp if get == "nngp" else self._of_ntk
        own = None if cross is None else own_of(nngp_test, "the NNGP of x_test", rows)
        parts = np.array(covariance(basis, rho, gain, own, cross))
        return Gaussian(
            mean, zipped(parts.reshape(-1, math.prod(rows), math.prod(rows)), shape, rows)
        )

    def _of_nngp(
        self, basis: Array, rho: Array, gain: Array, own: Array | None, cross: Any
    ) -> list[Array]:
        """Covariances over time where the NNGP trains: K V rho^2 V^T,
        and of test points S - B gain (1 + rho) B^T.
        """
        if own is None:
            values = self.solver("nngp").values
            return [(basis * (values * r**2)) @ basis.T for r in rho]
        return [own - (basis * (h * (1 + r))) @ basis.T for r, h in zip(rho, gain, strict=True)]

    def _of_ntk(
        self, basis: Array, rho: Array, gain: Array, own: Array | None, cross: Any
    ) -> list[Array]:
        """Covariances over time where the NTK trains and the NNGP is the prior."""
        vectors = self.solver("ntk").modes.vectors
        nngp = square_of(self.train_kernels(("nngp",)).nngp, "the NNGP of x_train", self.layout)
        prior = vectors.T @ nngp @ vectors
        if own is None:
            return [(vectors * r) @ prior @ (vectors * r).T for r in rho]
        first = cross_of(cross.nngp, self.layout)[0] @ vectors
        return [own + _against(basis * h, prior, first) for h in gain]


def _against(b: Array, prior: Array, first: Array) -> Array:
    """B S B^T - B S*^T - S* B^T."""
    mixed = b @ first.T
    return b @ prior @ b.T - mixed - mixed.T


def _merged(train: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    for name, value in test.items():
        if name not in train or not np.array_equal(train[name], value):
            raise ValueError(
                f"the keyword argument {name} of kernel_fn differs between training and test"
                " kernels: give it, with one value, to gradient_descent_mse_ensemble"
            )
    return {**train, **test}
