"""Gaussian processes, and trained ensembles at infinite time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.predict.kernels import Gaussian, attribute, canonical
from ntkcore.predict.layout import Axes, Layout, cross_of, outputs_of, own_of, square_of, zipped
from ntkcore.predict.regularised import Regularised


def gp_inference(
    k_train_train: Any,
    y_train: npt.ArrayLike,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Gaussian processes, and trained ensembles at infinite time.

    "nngp": posterior of the Bayesian network; "ntk": trained ensemble; "ntkgp": GP of the NTK.

    Parameters
    ----------
    k_train_train : array_like, or an object with attributes ``nngp`` and ``ntk``
        The training kernels.
    y_train : array_like
        Targets.
    diag_reg : float, default=0
        Added to the training kernel's diagonal, in units of its mean.
    diag_reg_absolute_scale : bool, default=False
        Added as it is.
    trace_axes : int or sequence of int, default=(-1,)
        Axes of the outputs that the kernel lacks.

    Returns
    -------
    predict_fn : callable
        ``predict_fn(get=None, k_test_train=None, k_test_test=None)``: a mean, or a `Gaussian` if
        ``k_test_test`` is given; for a tuple ``get`` (None: ("nngp", "ntk")) a namedtuple.
        ``k_test_train=None``: the training set itself, N(y_train, 0).

    References
    ----------
    Lee et al. 2019, equations 10 to 16; He et al. 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import predict
    >>> predict_fn = predict.gp_inference(np.eye(2), np.array([[1.0], [2.0]]))
    >>> predict_fn("ntk", k_test_train=np.array([[0.5, 0.5]]))
    array([[1.5]])
    """
    y = outputs_of(y_train)
    layout = Layout.of(y, trace_axes)

    @functools.cache
    def regularised(name: str) -> Regularised:
        kernel = attribute(k_train_train, name)
        return Regularised(
            kernel, f"k_train_train ({name})", layout, diag_reg, diag_reg_absolute_scale
        )

    def one(g: str, k_test_train: Any, k_test_test: Any) -> Any:
        name, prior = ("ntk" if g == "ntkgp" else g), ("ntk" if g == "ntkgp" else "nngp")
        solver = regularised(name)
        if k_test_train is None:
            shape = np.shape(attribute(k_train_train, name))
            return y.copy() if k_test_test is None else Gaussian(y.copy(), np.zeros(shape))
        cross, rows = cross_of(attribute(k_test_train, name), layout)
        mean = layout.unflat(cross @ solver.solve(layout.flat(y)), (), rows)
        if k_test_test is None:
            return mean
        if g == "ntk" and not (hasattr(k_train_train, "nngp") and hasattr(k_test_train, "nngp")):
            raise ValueError(
                'the covariance of "ntk" needs both NNGP and NTK of train-train and test-train:'
                " pass namedtuples or Kernel objects with attributes nngp and ntk"
            )
        own = own_of(attribute(k_test_test, prior), "k_test_test", rows)
        first, others = cross_of(attribute(k_test_train, prior), layout)
        if others != rows:
            raise ValueError(
                f"k_test_train's nngp and ntk are of {others} and {rows} test points:"
                " they do not fit"
            )
        mixed = cross @ solver.solve(first.T)
        if g == "ntk":
            b = solver.solve(cross.T)
            nngp = square_of(k_train_train.nngp, "k_train_train (nngp)", layout)
            covariance = own + b.T @ (nngp @ b) - mixed - mixed.T
        else:
            covariance = own - mixed
        return Gaussian(mean, zipped(covariance, (), rows))

    def predict_fn(get: Any = None, k_test_train: Any = None, k_test_test: Any = None) -> Any:
        """Mean, or mean and covariance, of every kind that ``get`` names."""
        names, pack = canonical(get, ("nngp", "ntk", "ntkgp"))
        for kernel, what in ((k_train_train, "k_train_train"), (k_test_train, "k_test_train")):
            if hasattr(kernel, "__array__") and "nngp" in names and len(names) > 1:
                raise ValueError(
                    f"{what} is one array, and {', '.join(names)} take two kernels: pass a"
                    " namedtuple or Kernel with nngp and ntk, or name in get the one that it is"
                )
        return pack([one(name, k_test_train, k_test_test) for name in names])

    return predict_fn
