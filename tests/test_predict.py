"""neural-tangents' predict: its own numbers (tools/predict_reference.py, shared references),
shapes and names.
"""

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import assert_close
from ntkcore import predict, stax
from ntkcore.predict.kernels import Kernels
from ntkcore.theory.losses import CrossEntropy, SquaredError

REFERENCE = np.load(Path(__file__).parent / "data" / "predict_reference.npz")
DD, TD, TT = (Kernels(REFERENCE[f"{k}/nngp"], REFERENCE[f"{k}/ntk"]) for k in ("dd", "td", "tt"))
X, Z, Y, F0, G0, TIMES, LABELS = (
    REFERENCE[k] for k in ("x", "z", "y", "f0", "g0", "times", "labels")
)
REGULARISATIONS = {"none": (0.0, False), "relative": (1e-2, False), "absolute": (0.3, True)}
ODE = 1e-6  # neural-tangents' own solver has a relative tolerance of 1.4e-8


def kernel_fn():
    layers = (
        stax.Dense(64, 1.4, 0.2),
        stax.Erf(),
        stax.Dense(64, 1.3, 0.1),
        stax.Relu(),
        stax.Dense(1),
    )
    return stax.serial(*layers)[2]


def agrees(found, name, tolerance=1e-8):
    """Arrays, (train, test) and namedtuples against what is stored under `name`."""
    if hasattr(found, "_fields") or isinstance(found, tuple):
        fields = getattr(found, "_fields", ("train", "test"))
        for field, part in zip(fields, found, strict=True):
            agrees(part, f"{name}/{field}", tolerance)
        return
    expected = REFERENCE[name]
    assert type(found) is np.ndarray
    if not np.abs(expected).max() > 1e-12:  # variances that vanish: theirs are rounding
        assert found.shape == expected.shape
        assert np.abs(found).max() < 1e-12
    else:
        assert_close(found, expected, tolerance)


@pytest.mark.parametrize("name", REGULARISATIONS)
def test_gradient_descent_mse(name):
    fn = predict.gradient_descent_mse(DD.ntk, Y, 0.7, *REGULARISATIONS[name])
    agrees(fn(TIMES, F0, G0, TD.ntk), f"mse/{name}/finite")
    agrees(fn(None, F0, G0, TD.ntk), f"mse/{name}/infinite")
    agrees(fn(TIMES, None, 0.0, TD.ntk), f"mse/{name}/test only")
    agrees(fn(TIMES[1]), f"mse/{name}/train only")
    for t in (np.inf, 1e12):
        for late, last in zip(fn(t, F0, G0, TD.ntk), fn(None, F0, G0, TD.ntk), strict=True):
            assert_close(late, last, 1e-10)


@pytest.mark.parametrize("name", REGULARISATIONS)
@pytest.mark.parametrize("where", ["test", "train"])
@pytest.mark.parametrize("when", ["finite", "infinite", "scalar"])
def test_ensemble(name, where, when):
    fn = predict.gradient_descent_mse_ensemble(kernel_fn(), X, Y, 0.7, *REGULARISATIONS[name])
    t, points = (
        {"finite": TIMES, "infinite": None, "scalar": 2.5}[when],
        {"test": Z, "train": None}[where],
    )
    found = fn(t, points, ("ntk", "nngp"), compute_cov=True)
    assert type(found).__name__ == "Gaussians"
    # Theirs errs by 1e-8 in the kernel's diagonal.
    agrees(found, f"ensemble/{name}/{where}/{when}", 2e-8)
    both = fn(t, points, compute_cov=True)
    assert both._fields == ("nngp", "ntk")
    alone = fn(t, points, "ntk")
    assert_close(alone, found.ntk.mean, 1e-12)


@pytest.mark.parametrize("name", REGULARISATIONS)
def test_gp_inference(name):
    fn = predict.gp_inference(DD, Y, *REGULARISATIONS[name])
    agrees(fn(("nngp", "ntk", "ntkgp"), TD, TT), f"gp/{name}")
    assert_close(fn("ntk", TD), REFERENCE[f"gp/{name}/ntk/mean"], 1e-8)
    mean, covariance = fn("nngp", None, True)
    assert (mean == Y).all()
    assert (covariance == 0).all()


def test_kernels_with_output_axes():
    mix = np.array([[1.0, 0.3], [0.3, 0.8]])
    dd, td, tt = (np.einsum("ij,kl->ijkl", k.ntk, mix) for k in (DD, TD, TT))
    fn = predict.gradient_descent_mse(dd, Y, 0.7, 1e-2, trace_axes=())
    agrees(fn(TIMES, F0, G0, td), "full")
    agrees(fn(None, F0, G0, td), "full infinite")
    agrees(predict.gp_inference(dd, Y, 1e-2, trace_axes=())("nngp", td, tt), "full gp")
    agrees(
        predict.gradient_descent_mse(DD.ntk, Y.T, 0.7, trace_axes=0)(TIMES, F0.T, G0.T, TD.ntk),
        "first",
    )


@pytest.mark.parametrize("axes", [(0, 1), (-1, 0)])
def test_scalar_kernels(axes):
    """All axes traced: k times the identity, every output by itself."""
    k, cross, times = 1.7, 0.6, np.array([0.0, 2.0, 30.0])
    y, f0, g0 = np.random.default_rng(0).standard_normal((3, 5, 2))
    left = np.exp(-0.7 * k * times / y.size)[:, None, None]
    flows = (
        predict.gradient_descent_mse(k, y, 0.7, trace_axes=axes),
        predict.gradient_descent(SquaredError(True), np.array(k), y, 0.7, trace_axes=axes),
    )
    for flow in flows:
        train, test = flow(times, f0, g0, cross)
        assert_close(train, y + left * (f0 - y), 1e-8)
        assert_close(test, g0 + cross / k * (1 - left) * (y - f0), 1e-8)
    kernels = [
        SimpleNamespace(nngp=1.3, ntk=k),
        SimpleNamespace(nngp=0.4, ntk=cross),
        SimpleNamespace(nngp=1.1, ntk=2),
    ]
    found = predict.gp_inference(kernels[0], y, trace_axes=axes)("nngp", *kernels[1:])
    assert_close(found.mean, 0.4 / 1.3 * y, 1e-14)
    assert found.covariance == pytest.approx(1.1 - 0.4**2 / 1.3, rel=1e-14)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_gradient_descent_on_a_loss(momentum):
    times = np.array([0.0, 1.5, 20.0])
    losses = {
        "square": (Y, SquaredError(True), lambda f, y: 0.5 * np.mean((f - y) ** 2)),
        "entropy": (
            LABELS,
            CrossEntropy(True),
            lambda f, y: np.mean((np.log(np.exp(f).sum(1, keepdims=True)) - f) * y),
        ),
    }
    for name, (targets, *forms) in losses.items():
        for loss in forms:  # with its gradient, and by differences
            fn = predict.gradient_descent(loss, DD.ntk, targets, 0.6, momentum)
            agrees(fn(times, F0, G0, TD.ntk), f"descent/{name}/{momentum}", ODE)
            backwards = fn(times[::-1, None], F0, G0, TD.ntk)[1]
            assert_close(backwards[::-1, 0], REFERENCE[f"descent/{name}/{momentum}/test"], ODE)


def test_ode_state():
    fn = predict.gradient_descent(CrossEntropy(True), DD.ntk, LABELS, 0.6, 0.9)
    state = predict.ODEState(F0, G0, 0.1 * F0, -0.2 * G0)
    after = fn(np.array([0.0, 1.5, 20.0]), state, None, TD.ntk)
    for field in ("fx_train", "fx_test", "qx_train", "qx_test"):
        agrees(getattr(after, field), f"state/{field}", ODE)
    half = fn(10.0, state, None, TD.ntk)
    assert_close(fn(10.0, half, None, TD.ntk).fx_test, after.fx_test[2], ODE)


def test_infinite_time_of_an_ode():
    fn = predict.gradient_descent(SquaredError(True), DD.ntk, Y, 1.0)
    closed = predict.gradient_descent_mse(DD.ntk, Y)
    for found, expected in zip(fn(None, F0, G0, TD.ntk), closed(None, F0, G0, TD.ntk), strict=True):
        assert_close(found, expected, 1e-5)


def test_max_learning_rate():
    top = np.linalg.eigvalsh(DD.ntk)[-1]
    assert predict.max_learning_rate(DD.ntk) == pytest.approx(2 * 7 / top, rel=1e-10)
    assert predict.max_learning_rate(DD.ntk, Y.size, momentum=0.9) == pytest.approx(
        2 * 1.9 * 14 / top, rel=1e-10
    )


@pytest.fixture(scope="module")
def shared(data_folder):
    """The shared references, and the kernels of their network."""
    arrays = np.load(data_folder / "nt_reference.npz")
    layers = (
        stax.Dense(64, 1.5, 0.1),
        stax.Relu(),
        stax.Dense(64, 1.5, 0.1),
        stax.Relu(),
        stax.Dense(1, 1, 0.1),
    )
    return arrays, stax.serial(*layers)[2]


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("t", [0.0, 3.7, 150.0, None])
def test_shared_ensembles(shared, get, t):
    arrays, kernel_fn = shared
    x, y, xs = (arrays[f"pred/{name}"] for name in ("x", "y", "xs"))
    found = predict.gradient_descent_mse_ensemble(kernel_fn, x, y, 0.3, 1e-4)(t, xs, get, True)
    assert isinstance(found, predict.Gaussian)
    assert_close(found.mean, arrays[f"pred/{get}/{t}/mean"], 1e-8)
    assert_close(found.covariance, arrays[f"pred/{get}/{t}/cov"], 1e-8)


def test_shared_single_networks(shared):
    arrays, kernel_fn = shared
    x, y, xs, f0, g0 = (
        arrays[name] for name in ("pred/x", "pred/y", "pred/xs", "mse/f0", "mse/g0")
    )
    dd, td = kernel_fn(x, None, "ntk"), kernel_fn(xs, x, "ntk")
    cases = [
        (predict.gradient_descent_mse(dd, y, 0.5), t, f0, g0, f"mse/{t}", 1e-8) for t in (0.9, 40.0)
    ] + [
        (predict.gradient_descent(SquaredError(True), dd, y, 0.4, 0.8), 5, f0, g0, "mom/5", 1e-7),
        (predict.gradient_descent(CrossEntropy(), dd, arrays["ce/y"]), 20, 0.0, 0.0, "ce/20", 1e-5),
    ]
    for fn, t, start, start_test, name, tolerance in cases:
        train, test = fn(t, start, start_test, td)
        assert_close(train, arrays[f"{name}/train"], tolerance)
        assert_close(test, arrays[f"{name}/test"], tolerance)


# neural-tangents 0.6.5's, word for word.
SIGNATURES = {
    "gradient_descent_mse": (
        "k_train_train, y_train, learning_rate=1.0, diag_reg=0.0, diag_reg_absolute_scale=False, "
        "trace_axes=(-1,)"
    ),
    "gradient_descent": (
        "loss, k_train_train, y_train, learning_rate=1.0, momentum=None, trace_axes=(-1,)"
    ),
    "gradient_descent_mse_ensemble": (
        "kernel_fn, x_train, y_train, learning_rate=1.0, diag_reg=0.0, "
        "diag_reg_absolute_scale=False, trace_axes=(-1,), **kernel_fn_train_train_kwargs"
    ),
    "gp_inference": (
        "k_train_train, y_train, diag_reg=0.0, diag_reg_absolute_scale=False, trace_axes=(-1,)"
    ),
    "max_learning_rate": "ntk_train_train, y_train_size=None, momentum=0.0, eps=1e-12",
    "ODEState": "fx_train=None, fx_test=None, qx_train=None, qx_test=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_neural_tangents(name):
    parameters = inspect.signature(getattr(predict, name)).parameters.values()
    assert ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) == SIGNATURES[name]


def test_singular_kernels_give_finite_numbers():
    x = np.concatenate([X, X])  # every sample twice, with other targets
    y = np.concatenate([Y, Y + 1])
    # Exact between duplicates.
    relu = stax.serial(stax.Dense(64, 1.4, 0.2), stax.Relu(), stax.Dense(1))[2]
    fn = predict.gradient_descent_mse_ensemble(relu, x, y)
    for t in (0.0, 10.0, 1e6, 1e18, None):
        for mean, covariance in fn(t, Z, compute_cov=True):
            assert np.isfinite(mean).all()
            assert np.linalg.eigvalsh(covariance).min() > -1e-12
    merged = predict.gradient_descent_mse_ensemble(relu, X, Y + 0.5)(None, Z, "ntk")
    for t in (1e18, None):
        assert_close(fn(t, Z, "ntk"), merged, 1e-12)


def test_momentum_without_friction_swings_for_ever():
    """f'' = -lambda (f - y)/n with momentum 1: f - y is a cosine."""
    predict_fn = predict.gradient_descent(SquaredError(), [[4.0]], np.ones((1, 1)), momentum=1.0)
    times = np.linspace(0, 20, 9)
    assert predict_fn(times)[:, 0, 0] == pytest.approx(1 - np.cos(2 * times), abs=1e-6)
