"""Gradient flow on the mean squared error, from kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.linalg.checks import check_symmetric
from ntkcore.predict.layout import Axes, Layout, Time, cross_of, initial, matrix_of, outputs_of
from ntkcore.predict.regularised import Regularised
from ntkcore.theory.rules import check_momentum, flat_times, positive


def gradient_descent_mse(
    k_train_train: npt.ArrayLike,
    y_train: npt.ArrayLike,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: Axes = (-1,),
) -> Callable[..., Any]:
    """Gradient flow on the mean squared error ||f - y||^2/(2 y.size), from given initial outputs.

    Parameters
    ----------
    k_train_train : array_like
        The training kernel, of shape ``zip(y_train.shape, y_train.shape)`` without ``trace_axes``.
    y_train : array_like
        Targets.
    learning_rate : float, default=1
    diag_reg : float, default=0
        Added to the training kernel's diagonal, in units of its mean.
    diag_reg_absolute_scale : bool, default=False
        Added as it is.
    trace_axes : int or sequence of int, default=(-1,)
        Axes of the outputs that the kernel lacks.

    Returns
    -------
    predict_fn : callable
        ``predict_fn(t=None, fx_train_0=0.0, fx_test_0=None, k_test_train=None)``: outputs at times
        of any shape (None: infinity) on the training set, or (train, test) if ``fx_test_0`` is
        given, or those of the test set if ``fx_train_0`` is None; time axes lead. At t = None the
        training outputs are y_train, whatever diag_reg, as in neural-tangents.

    Raises
    ------
    ValueError
        For shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import predict
    >>> predict_fn = predict.gradient_descent_mse(np.eye(1), np.array([[1.0]]))
    >>> predict_fn(np.log(2)).round(6)
    array([[0.5]])
    """
    y, learning_rate = outputs_of(y_train), positive("learning_rate", learning_rate)
    layout = Layout.of(y, trace_axes)
    regularised = Regularised(
        k_train_train, "k_train_train", layout, diag_reg, diag_reg_absolute_scale
    )

    def predict_fn(
        t: Time = None,
        fx_train_0: npt.ArrayLike | None = 0.0,
        fx_test_0: npt.ArrayLike | None = None,
        k_test_train: npt.ArrayLike | None = None,
    ) -> Any:
        """Outputs at time t: of the training set, the test set, or (train, test)."""
        check_inputs(fx_train_0, fx_test_0, k_test_train)
        start = initial(fx_train_0, y.shape, "fx_train_0")
        error = layout.flat(y - start)
        cross, rows = (None, ()) if fx_test_0 is None else cross_of(k_test_train, layout)
        if t is None:
            train = y.copy()
            change = (
                None if cross is None else layout.unflat(cross @ regularised.solve(error), (), rows)
            )
        else:
            times, shape = flat_times(t, "t")
            rho, gain = regularised.flow(times * learning_rate, y.size)
            vectors = regularised.modes.vectors
            learned = layout.unflat(
                regularised.apply(vectors, 1 - rho, error), shape, layout.rows_shape
            )
            train = learned + start
            basis = None if cross is None else cross @ vectors
            change = (
                None
                if basis is None
                else layout.unflat(regularised.apply(basis, gain, error), shape, rows)
            )
        if change is None:
            return train
        test = change + initial(fx_test_0, layout.outputs_shape(rows), "fx_test_0")
        return test if fx_train_0 is None else (train, test)

    return predict_fn


def check_inputs(fx_train_0: Any, fx_test_0: Any, k_test_train: Any) -> None:
    """ValueError where nothing is asked for, or a kernel is missing."""
    if fx_train_0 is None and fx_test_0 is None:
        raise ValueError(
            "Both `fx_train_0` and `fx_test_0` are `None`, i.e. no predictions will be computed."
        )
    if fx_test_0 is not None and k_test_train is None:
        raise ValueError(
            "To get predictions on the test set, please provide `k_test_train` kernel."
        )


def max_learning_rate(
    ntk_train_train: npt.ArrayLike,
    y_train_size: int | None = None,
    momentum: float = 0.0,
    eps: float = 1e-12,
) -> float:
    """The largest step size at which gradient descent converges.

    2 (1 + momentum) size / (lambda_max + eps); the loss is ||f - y||^2/(2 size).

    Parameters
    ----------
    ntk_train_train : array_like
        The training kernel.
    y_train_size : int, optional
        Of y_train, all outputs counted; by default the kernel's rows.
    momentum : float, default=0
    eps : float, default=1e-12

    Returns
    -------
    float

    Examples
    --------
    >>> from ntkcore import predict
    >>> round(predict.max_learning_rate([[2.0, 0.0], [0.0, 1.0]]), 6)
    2.0
    """
    matrix, _, _ = matrix_of(ntk_train_train, "ntk_train_train")
    K = check_symmetric(matrix, "ntk_train_train")
    try:
        from scipy.linalg import eigvalsh

        top = eigvalsh(K, subset_by_index=(len(K) - 1, len(K) - 1))[-1]
    except ImportError:
        top = np.linalg.eigvalsh(K)[-1]
    size = len(K) if y_train_size is None else positive("y_train_size", y_train_size)
    return float(2 * (1 + check_momentum(momentum)) * size / (top + eps))
