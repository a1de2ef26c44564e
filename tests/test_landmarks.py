"""Regression on landmarks against dense linear algebra."""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.landmarks import LandmarkRegression, repeated
from ntkcore.linalg.operators import InMemory, MatrixFree
from test_solve import NET, problem


def test_landmarks():
    x, K, Y = problem(200, d=3)
    z = x[:40]
    K_nm, K_mm = nk.kernel(NET, x, z), nk.kernel(NET, z)
    model = LandmarkRegression(InMemory(K_nm, tile=64), K_mm, Y, 1e-2, rtol=1e-9)
    exact = np.linalg.solve(K_nm.T @ K_nm + 1e-2 * K_mm, K_nm.T @ Y)
    assert relative_error(model.predict(K_nm), K_nm @ exact) < 1e-6
    every = LandmarkRegression(K, K, Y, 1e-2).predict(K)  # all points: the plain ridge regression
    assert relative_error(every, K @ np.linalg.solve(K + 1e-2 * np.eye(200), Y)) < 1e-5


def of_landmarks(K, at):
    return K[:, at], K[np.ix_(at, at)]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_repeated_landmarks(dtype):
    """Up to rounding; of images, whose equal samples agree to half of the digits only, too."""
    x = problem(80)[0].astype(dtype)
    x[70] = x[50] = x[3]
    images = x[:, :4].reshape(80, 2, 2, 1)
    for net, data in ((NET, x), (nk.cntk(2), images), (nk.cntk(2, "flatten"), images)):
        assert repeated(nk.kernel(net, data)) == [(3, 50), (3, 70)]
        assert repeated(nk.kernel(net, data[:50])) == []
    x[4] = x[3] * (1 + 1e-5)
    assert (3, 4) not in repeated(nk.kernel(NET, x))


@pytest.mark.parametrize("ridge", [1e-4, 1e-1, 1e2])
def test_landmarks_take_few_passes_for_any_ridge(ridge):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 3)).astype("f4")
    K_nm, K_mm = MatrixFree(NET, x, x[:80], tile=400), nk.kernel(NET, x[:80], dtype="float64")
    model = LandmarkRegression(K_nm, K_mm, x[:, :2] ** 2, ridge)
    assert model.iterations < 30
    assert model.passes == K_nm.passes <= model.iterations + 3
    K = nk.kernel(NET, x, x[:80]).astype(float)
    exact = np.linalg.solve(K.T @ K + ridge * K_mm, K.T @ x[:, :2].astype(float) ** 2)
    assert relative_error(K @ model.coefficients, K @ exact) < 1e-5


def test_landmarks_go_on_where_they_stopped(tmp_path):
    _, K, Y = problem(300, d=3)
    given, file = (K[:, :40], K[:40, :40], Y, 1e-3), tmp_path / "state.npz"
    whole = LandmarkRegression(*given)
    with pytest.raises(RuntimeError, match="after 4 iterations: raise maxiter"):
        LandmarkRegression(*given, maxiter=4, checkpoint=file, every=1)
    resumed = LandmarkRegression(*given, checkpoint=file, every=1)
    assert np.array_equal(resumed.coefficients, whole.coefficients)
    assert resumed.iterations == whole.iterations
    for other in ((*given[:3], 1e-2), (K[:, 1:41], K[1:41, 1:41], Y, 1e-3)):
        with pytest.raises(ValueError, match="another problem"):
            LandmarkRegression(*other, checkpoint=file)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda K, Y: LandmarkRegression(K[:, :5], -K[:5, :5], Y, 1.0),
            "K_mm is not positive definite",
        ),
        (lambda K, Y: LandmarkRegression(K[:, :5], K[:5, :5], Y, -1.0), "ridge"),
        (lambda K, Y: LandmarkRegression(*of_landmarks(K, [3, 9, 9]), Y, 1.0), "landmarks 1 and 2"),
        (lambda K, Y: LandmarkRegression(K[:, :5], K[:5, :5], Y, 1.0, rtol=2), "rtol must be"),
        (lambda K, Y: LandmarkRegression(K[:, :5], K[:4, :4], Y, 1.0), "landmarks"),
        (
            lambda K, Y: LandmarkRegression(K[:, :5], K[:5, :5], Y, 1.0).predict(K),
            "K_test must have shape",
        ),
    ],
)
def test_bad_input(call, words):
    _, K, Y = problem(40)
    with pytest.raises(ValueError, match=words):
        call(K, Y)


def test_landmarks_of_low_rank_and_of_no_size():
    """Rounding is more than the usual jitter; what overflows is no solution."""
    a = problem(300)[0][:, 0]
    K, Y = np.outer(a, a), a + 1
    predicted = LandmarkRegression(K, K, Y, 0.5).predict(K)
    assert relative_error(predicted, K @ np.linalg.solve(K + 0.5 * np.eye(300), Y)) < 1e-5
    _, K, Y = problem(100)
    with (
        np.errstate(all="ignore"),
        pytest.raises((RuntimeError, ValueError), match=r"nan|finite|positive"),
    ):
        LandmarkRegression(1e290 * K[:, :20], 1e290 * K[:20, :20], Y, 1e288)
