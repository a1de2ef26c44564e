"""Losses other than the squared one, by an ODE, beside closed forms and small steps."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from conftest import assert_close
from ntkcore.theory.dynamics import (
    Dynamics,
    GradientDescent,
    GradientFlow,
    leading_modes,
)
from ntkcore.theory.loss_dynamics import LossDynamics
from ntkcore.theory.losses import CrossEntropy, SquaredError
from test_dynamics import RULES, TIMES, M, N, closed, problem  # noqa: F401


@pytest.mark.parametrize("rule", [GradientFlow(0.7), *RULES.values()], ids=["flow", *RULES])
def test_the_squared_loss_by_either_way(problem, rule):
    K, y, f0 = problem["K"], problem["y"], problem["f0"]
    exact, exact_test = closed(problem, rule)
    for kernel in (K[:N, :N], aslinearoperator(K[:N, :N])):
        solved = LossDynamics(kernel, y, SquaredError(), rule, f0=f0[:N])
        test = solved.points(K[N:, :N], f0=f0[N:])
        times = TIMES[[2, 0, 3, 1]]
        assert_close(solved.train.mean(times), exact.train.mean(times), 1e-7)
        assert_close(test.mean(times), exact_test.mean(times), 1e-7)
        assert_close(solved.train.loss(times), exact.train.loss(times), 1e-7)
    goal = 0.1 * exact.train_loss(0)
    assert solved.time_to_loss(goal, 1e3) == pytest.approx(exact.time_to_loss(goal), rel=1e-6)
    assert solved.time_to_loss(0.0, 20) == np.inf
    grid = np.arange(30.0)
    stop = solved.early_stopping(test, exact_test.mean(9.0), grid)
    assert stop.time == 9


def test_cross_entropy_against_euler(problem):
    K = problem["K"]
    y = np.eye(3)[np.arange(N) % 3]
    dynamics = LossDynamics(K[:N, :N], y, CrossEntropy(), GradientFlow(1.0))
    test = dynamics.points(K[N:, :N])
    found = []
    for h in (2e-3, 1e-3):
        f = np.zeros((N + M, 3))
        for _ in range(round(6 / h)):
            odds = np.exp(f[:N]) / np.exp(f[:N]).sum(1, keepdims=True)
            f -= h * K[:, :N] @ (odds - y) / N
        found.append(f)
    euler = 2 * found[1] - found[0]
    assert_close(dynamics.train.mean(6.0), euler[:N], 1e-6)
    assert_close(test.mean(6.0), euler[N:], 1e-6)
    steps = LossDynamics(K[:N, :N], y, CrossEntropy(), GradientDescent(1e-3)).points(K[N:, :N])
    assert_close(steps.mean(6000), found[1][N:], 1e-10)
    with pytest.raises(ValueError, match="separable"):
        LossDynamics(100 * K[:N, :N], y, CrossEntropy(), method="LSODA").train.mean(np.inf)


def test_losses_without_a_gradient_of_their_own(problem):
    """Any smooth function: here the Huber-like log cosh, by differences,
    against its gradient given.
    """

    class LogCosh:
        def __call__(self, f, y):
            return float(np.log(np.cosh(f - y)).sum() / len(f))

        def gradient(self, f, y):
            return np.tanh(f - y) / len(f)

    K, y = problem["K"][:N, :N], problem["y"]
    given, differenced = (LossDynamics(K, y, loss) for loss in (LogCosh(), LogCosh().__call__))
    assert_close(differenced.train.mean(20.0), given.train.mean(20.0), 1e-8)
    assert_close(given.train.mean(np.inf), y, 1e-5)
    with pytest.raises(TypeError, match="float64"):
        LossDynamics(K, y, lambda f, y: np.float32(((f - y) ** 2).sum()))


@pytest.mark.parametrize("average", [False, True])
def test_gradients_of_the_losses(average):
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((2, 4, 3))
    for loss, own in (
        (CrossEntropy(average), np.exp(y) / np.exp(y).sum(1, keepdims=True)),
        (SquaredError(average), y),
    ):
        for target in (own, np.eye(3)[[0, 2, 1, 1]]):
            gradient = loss.gradient(f, target)
            for index in np.ndindex(f.shape):
                moved = np.zeros_like(f)
                moved[index] = 1e-6
                slope = (loss(f + moved, target) - loss(f - moved, target)) / 2e-6
                assert gradient[index] == pytest.approx(slope, abs=1e-8)
    assert np.isfinite(CrossEntropy()(1e4 * f, [0, 2, 1, 1]))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Dynamics(np.eye(3), np.ones(3), "sgd"), TypeError, "rule must be"),
        (lambda: Dynamics(np.eye(3), np.ones(3), 0.0), TypeError, "rule must be"),
        (lambda: Dynamics(np.eye(3), np.ones(3), GradientFlow), TypeError, "rule must be"),
        (
            lambda: LossDynamics(np.eye(3), np.ones(3), SquaredError(), "sgd"),
            TypeError,
            "rule must be",
        ),
        (lambda: Dynamics(np.eye(3), np.ones((3, 0))), ValueError, "y has no columns"),
        (lambda: Dynamics(np.eye(3), np.ones(3), ridge="1"), ValueError, "ridge must be"),
        (
            lambda: Dynamics(np.eye(3), np.ones(3)).time_to_loss(np.nan),
            ValueError,
            "loss must be a number",
        ),
        (
            lambda: Dynamics(np.eye(3), np.ones(3)).time_to_loss("a"),
            ValueError,
            "loss must be a number",
        ),
        (
            lambda: Dynamics(np.eye(3), np.ones(3)).early_stopping(np.eye(3), np.ones(3)),
            TypeError,
            "must be Points",
        ),
        (
            lambda: LossDynamics(np.eye(3), np.ones(3), SquaredError(), tolerance=0.0),
            ValueError,
            "tolerance must",
        ),
        (lambda: leading_modes(np.triu(np.ones((3, 3))), 1), ValueError, "not symmetric"),
        (lambda: leading_modes(np.full((3, 3), np.nan), 1), ValueError, "NaN"),
        (lambda: leading_modes(np.eye(3) * 1j, 1), TypeError, "real"),
        (lambda: leading_modes("k.zarr", 1), TypeError, "path or text"),
        (lambda: leading_modes(np.eye(3), 2.0), ValueError, "leading modes"),
    ],
)
def test_what_is_no_rule_target_or_kernel(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_loss_is_waited_for_until_a_finite_time(bad):
    training = LossDynamics(np.eye(3), np.ones(3), SquaredError(), GradientDescent(0.5))
    with pytest.raises(ValueError, match="max_time must be a positive finite"):
        training.time_to_loss(-1.0, bad)


def test_a_gradient_of_another_shape():
    class TransposedError(SquaredError):
        def gradient(self, f, y):
            return super().gradient(f, y).T

    with pytest.raises(ValueError, match=r"gradient has shape \(2, 3\), and the outputs \(3, 2\)"):
        LossDynamics(np.eye(3), np.ones((3, 2)), TransposedError()).train.mean(1.0)
