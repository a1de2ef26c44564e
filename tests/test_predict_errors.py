"""What neural-tangents' predict refuses, in a line."""

from collections import namedtuple

import numpy as np
import pytest

from ntkcore import predict
from ntkcore.theory.losses import SquaredError
from test_predict import DD, F0, TD, TT, X, Y, Z, kernel_fn


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: predict.gradient_descent_mse(-DD.ntk, Y)(1.0), ValueError, "indefinite"),
        (
            lambda: predict.gradient_descent_mse(np.triu(DD.ntk), Y)(1.0),
            ValueError,
            "not symmetric",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y)(None, None, None),
            ValueError,
            "no predictions",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y)(None, 0.0, 0.0),
            ValueError,
            "k_test_train",
        ),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y)(-1.0), ValueError, "t must be numbers"),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y, -1.0),
            ValueError,
            "learning_rate must be a positive",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y, np.nan),
            ValueError,
            "learning_rate must be a positive",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y)(1.0, Y[0]),
            ValueError,
            "fx_train_0 must be a number or",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y)(1.0, 0.0, Y[0], TD.ntk),
            ValueError,
            "fx_test_0 must be",
        ),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y)(None, np.nan),
            ValueError,
            "fx_train_0 holds NaN",
        ),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y[:, :0]), ValueError, "y_train is empty"),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y, diag_reg="1")(1.0), ValueError, "ridge"),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y, trace_axes="a"), ValueError, "trace_axes"),
        (
            lambda: predict.gradient_descent(SquaredError(), DD.ntk, Y, 0.0),
            ValueError,
            "learning_rate must be",
        ),
        (
            lambda: predict.gradient_descent(SquaredError(), DD.ntk, Y)(1.0, Y[0]),
            ValueError,
            "fx_train must be",
        ),
        (
            lambda: predict.gp_inference(DD, Y)("nngp", TD, TD.nngp),
            ValueError,
            "k_test_test has shape .* do not fit",
        ),
        (
            lambda: predict.gp_inference(DD, Y)("ntk", TD, DD),
            ValueError,
            "k_test_test has shape .* do not fit",
        ),
        (
            lambda: predict.gp_inference(DD, Y)(3),
            TypeError,
            "get must be a name or a tuple of names",
        ),
        (
            lambda: predict.gp_inference(DD, Y)((1,)),
            TypeError,
            "get must be a name or a tuple of names",
        ),
        (
            lambda: predict.gradient_descent_mse_ensemble("ntk", X, Y),
            TypeError,
            "kernel_fn must be a function",
        ),
        (
            lambda: predict.gradient_descent_mse_ensemble(kernel_fn(), X, Y, -1.0),
            ValueError,
            "learning_rate must be",
        ),
        (
            lambda: predict.max_learning_rate(DD.ntk, -3),
            ValueError,
            "y_train_size must be a positive",
        ),
        (
            lambda: predict.max_learning_rate(DD.ntk, Y),
            ValueError,
            "y_train_size must be a positive",
        ),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y[:3]), ValueError, "must have shape"),
        (
            lambda: predict.gradient_descent_mse(DD.ntk, Y, trace_axes=(2,)),
            ValueError,
            "trace_axes",
        ),
        (lambda: predict.gradient_descent_mse(DD.ntk, Y, diag_reg=-1.0)(1.0), ValueError, "ridge"),
        (
            lambda: predict.gp_inference(DD.ntk, Y)("ntk", TD.ntk, TT.ntk),
            ValueError,
            "both NNGP and NTK",
        ),
        (lambda: predict.gp_inference(DD, Y)("cov"), NotImplementedError, "nngp, ntk, ntkgp"),
        (lambda: predict.gp_inference(DD, Y)(("ntk", "NTK")), ValueError, "unique"),
        (lambda: predict.gp_inference(DD, Y)(()), ValueError, "non-empty"),
        (lambda: predict.gradient_descent(lambda f, y: f, DD.ntk, Y), TypeError, "float64 number"),
        (lambda: predict.gradient_descent("mse", DD.ntk, Y), TypeError, "function"),
        *(
            (
                lambda m=m: predict.gradient_descent(SquaredError(), DD.ntk, Y, momentum=m),
                ValueError,
                "momentum must lie in",
            )
            for m in (-1, 1.5, np.nan, "a", True)
        ),
        (
            lambda: predict.max_learning_rate(DD.ntk, momentum=-3),
            ValueError,
            "momentum must lie in",
        ),
        (
            lambda: predict.gradient_descent(SquaredError(), DD.ntk, Y)(
                1.0, predict.ODEState(F0), 0.0
            ),
            ValueError,
            "included in `ODEState`",
        ),
        (
            lambda: predict.gradient_descent(SquaredError(), DD.ntk, Y)(
                1.0, predict.ODEState(F0, None, F0)
            ),
            ValueError,
            "momentum is None",
        ),
        (
            lambda: predict.gradient_descent_mse_ensemble(kernel_fn(), X, Y)(
                1.0, Z, "ntk", threads=1
            ),
            ValueError,
            "threads.*differs",
        ),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("fn", [predict.gradient_descent_mse, predict.gp_inference])
def test_targets_without_an_axis_for_outputs(fn):
    with pytest.raises(ValueError, match=r"y_train \(5,\).*y_train\[:, None\]"):
        fn(np.eye(5), np.ones(5))("ntk" if fn is predict.gp_inference else 1.0)


def test_one_array_is_not_two_kernels():
    for train, test, what in ((DD.ntk, TD, "k_train_train"), (DD, TD.ntk, "k_test_train")):
        with pytest.raises(ValueError, match=f"{what} is one array"):
            predict.gp_inference(train, Y)(k_test_train=test)
        agreed = predict.gp_inference(train, Y)("ntk", test)
        np.testing.assert_array_equal(agreed, predict.gp_inference(DD, Y)("ntk", TD))


@pytest.mark.parametrize("order", [("nngp", "ntk"), ("ntk", "nngp")])
def test_kernels_are_read_by_name(order):
    """A kernel_fn may give its fields in any order; one that gives none is refused."""
    given = kernel_fn()

    def swapped(x1, x2, get, **options):
        kernels = given(x1, x2, get, **options)
        mine = [name for name in order if name in get]
        return (
            kernels
            if isinstance(get, str)
            else namedtuple("Mine", mine)(*(getattr(kernels, k) for k in mine))
        )

    arguments = (X, Y, 0.7, 1e-3)
    asked = {"x_test": Z, "get": ("nngp", "ntk"), "compute_cov": True}
    for t in (None, 2.0):
        expected = predict.gradient_descent_mse_ensemble(given, *arguments)(t, **asked)
        found = predict.gradient_descent_mse_ensemble(swapped, *arguments)(t, **asked)
        for name in ("nngp", "ntk"):
            np.testing.assert_array_equal(getattr(found, name).mean, getattr(expected, name).mean)
            np.testing.assert_array_equal(
                getattr(found, name).covariance, getattr(expected, name).covariance
            )
    unnamed = lambda *data, **options: tuple(given(*data, **options))  # noqa: E731
    with pytest.raises(TypeError, match=r"kernel_fn, asked for get=.*namedtuple"):
        predict.gradient_descent_mse_ensemble(unnamed, *arguments)(2.0, Z)
