"""Closed-form training against training: step by step, by an Euler-resolved flow,
by sampled initial functions.
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import assert_close
from ntkcore.theory.dynamics import (
    Dynamics,
    GradientDescent,
    GradientFlow,
    eigenmodes,
)

N, M, OUTPUTS = 12, 5, 2
TIMES = np.array([0.0, 1.0, 7.0, 60.0])
RULES = {
    "steps": GradientDescent(0.8),
    "large steps": GradientDescent(3.0),
    "momentum": GradientDescent(0.5, 0.9),
    "little momentum": GradientDescent(2.0, 0.1),
}


@pytest.fixture(scope="module")
def problem():
    """Features of a linear model, its kernel blocks, an NNGP of other features, targets,
    initial outputs.
    """
    return make_problem()


def make_problem(features=30, seed=0):
    rng = np.random.default_rng(seed)
    phi, psi = rng.standard_normal((2, N + M, features)) / features**0.5
    K, S = phi @ phi.T, psi @ psi.T
    y, f0 = rng.standard_normal((N, OUTPUTS)), rng.standard_normal((N + M, OUTPUTS))
    return {"phi": phi, "K": K, "S": S, "y": y, "f0": f0}


def simulate(p, rule, steps, ridge=0.0, f0=None, divisor=N):
    """Parameters of f0(x) + phi(x) w by gradient descent on the loss plus ridge/(2N) ||w||^2,
    one step at a time.
    """
    phi = p["phi"]
    start = p["f0"] if f0 is None else f0
    w = before = np.zeros((phi.shape[1], OUTPUTS))
    for _ in range(int(steps)):
        gradient = (phi[:N].T @ (start[:N] + phi[:N] @ w - p["y"]) + ridge * w) / divisor
        w, before = w - rule.learning_rate * gradient + rule.momentum * (w - before), w
    return start + phi @ w


def closed(p, rule, **options):
    K, f0 = p["K"], p["f0"]
    dynamics = Dynamics(K[:N, :N], p["y"], rule, f0=f0[:N], **options)
    return dynamics, dynamics.points(K[N:, :N], f0=f0[N:])


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("features", [30, 4], ids=["full rank", "rank 4"])
def test_steps_are_those_of_the_linear_model(rule, ridge, features):
    p = make_problem(features)
    dynamics, test = closed(p, rule, ridge=ridge, absolute_ridge=True)
    train_means, test_means = dynamics.train.mean(TIMES), test.mean(TIMES)
    assert train_means.shape == (4, N, OUTPUTS)
    for i, t in enumerate(TIMES):
        expected = simulate(p, rule, t, ridge)
        assert_close(train_means[i], expected[:N], 1e-10)
        assert_close(test_means[i], expected[N:], 1e-10)
        loss = ((expected[:N] - p["y"]) ** 2).sum() / (2 * N)
        assert dynamics.train.loss(t) == pytest.approx(loss, rel=1e-10)
        assert dynamics.train_loss(t) == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("average", [False, True])
def test_the_flow_is_the_limit_of_small_steps(problem, average):
    """Euler with step h errs by O(h): Richardson's
    extrapolation of two step sizes is far closer.
    """
    divisor = N * OUTPUTS if average else N
    _, test = closed(problem, GradientFlow(2.0), average_outputs=average)
    h = 2e-3
    coarse, fine = (
        simulate(problem, GradientDescent(2.0 * k * h), 5 / (k * h), divisor=divisor)[N:]
        for k in (1, 0.5)
    )
    assert_close(coarse, test.mean(5.0), 1e-3)
    assert_close(2 * fine - coarse, test.mean(5.0), 1e-6)


@pytest.mark.parametrize("rule", [GradientFlow(0.7), *RULES.values()], ids=["flow", *RULES])
def test_infinite_time(problem, rule):
    K, f0, y = problem["K"], problem["f0"], problem["y"]
    dynamics, test = closed(problem, rule)
    assert_close(dynamics.train.mean(np.inf), y, 1e-12)
    assert_close(
        test.mean(np.inf), f0[N:] + K[N:, :N] @ np.linalg.solve(K[:N, :N], y - f0[:N]), 1e-10
    )
    assert_close(test.mean(1e6), test.mean(np.inf), 1e-10)
    dynamics, test = closed(problem, rule, ridge=0.2)
    shift = 0.2 * np.trace(K[:N, :N]) / N
    dual = np.linalg.solve(K[:N, :N] + shift * np.eye(N), y - f0[:N])
    assert_close(test.mean(np.inf), f0[N:] + K[N:, :N] @ dual, 1e-12)
    assert_close(dynamics.train.mean(np.inf), f0[:N] + K[:N, :N] @ dual, 1e-12)


@pytest.mark.parametrize(
    "rule", [GradientFlow(0.7), RULES["steps"], RULES["momentum"]], ids=["flow", "steps", "ball"]
)
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_covariance_is_that_of_trained_draws(problem, rule, ridge):
    """Every trained function is linear in the initial one: f_t = L f_0 + b,
    so its covariance is L S L^T.
    """
    K, S, y = problem["K"], problem["S"], problem["y"]
    times = [0.0, 3.0, 40.0, np.inf]
    linear = np.empty((len(times), N + M, N + M))
    zero = Dynamics(K[:N, :N], np.zeros((N, N + M)), rule, f0=np.eye(N + M)[:N], ridge=ridge)
    linear[:, :N] = zero.train.mean(times)
    linear[:, N:] = zero.points(K[N:, :N], f0=np.eye(N + M)[N:]).mean(times)
    expected = linear @ S @ linear.swapaxes(1, 2)
    dynamics = Dynamics(K[:N, :N], y, rule, nngp=S[:N, :N], ridge=ridge)
    test = dynamics.points(K[N:, :N], S[N:, :N], S[N:, N:])
    assert_close(dynamics.train.covariance(times), expected[:, :N, :N], 1e-12)
    assert_close(test.covariance(times), expected[:, N:, N:], 1e-12)
    diagonals = np.einsum("tii->ti", expected)
    assert_close(dynamics.train.covariance(times, diagonal=True), diagonals[:, :N], 1e-12)
    only = dynamics.points(K[N:, :N], S[N:, :N], S[N:, N:].diagonal())
    assert_close(only.covariance(times, diagonal=True), diagonals[:, N:], 1e-12)
    # The expected loss of one network is that of the mean plus the variances.
    mean = only.mean(times)
    losses = (mean**2).sum((1, 2)) / (2 * M) + OUTPUTS * diagonals[:, N:].sum(1) / (2 * M)
    assert_close(only.loss(times, np.zeros((M, OUTPUTS)), expected=True), losses, 1e-12)


def test_a_singular_nngp_and_one_of_several_blocks():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4))
    K, S = nk.kernel(nk.mlp(1, 1.4, 0.1), x, get=("ntk", "nngp"))
    for prior in (S, x @ x.T):
        dynamics = Dynamics(K[:280, :280], np.ones(280), nngp=prior[:280, :280])
        test = dynamics.points(K[280:, :280], prior[280:, :280], prior[280:, 280:])
        gain = dynamics.modes.vectors * -np.expm1(-30 * dynamics.rates) / dynamics.modes.values
        b = K[280:, :280] @ gain @ dynamics.modes.vectors.T
        mixed = b @ prior[:280, 280:]
        expected = prior[280:, 280:] + b @ prior[:280, :280] @ b.T - mixed - mixed.T
        assert_close(test.covariance(30.0), expected, 1e-10)


def test_posterior(problem):
    K, y = problem["K"], problem["y"]
    dynamics = Dynamics(K[:N, :N], y, ridge=0.1)
    test = dynamics.points(K[N:, :N], kernel_test=K[N:, N:])
    noisy = K[:N, :N] + dynamics.ridge * np.eye(N)
    assert_close(
        test.posterior(np.inf), K[N:, N:] - K[N:, :N] @ np.linalg.solve(noisy, K[:N, N:]), 1e-12
    )
    assert_close(test.posterior(0.0), K[N:, N:], 1e-14)
    train = dynamics.train.posterior([0.0, np.inf])
    assert_close(train[0], K[:N, :N], 1e-12)
    assert_close(train[1], K[:N, :N] - K[:N, :N] @ np.linalg.solve(noisy, K[:N, :N]), 1e-12)
    for points in (test, dynamics.train):
        diagonal = points.posterior(TIMES, diagonal=True)
        assert_close(diagonal, np.einsum("tii->ti", points.posterior(TIMES)), 1e-12)


@pytest.mark.parametrize("rule", [GradientFlow(0.7), *RULES.values()], ids=["flow", *RULES])
def test_many_times_are_those_one_by_one(rule):
    """Many times are compressed to the few dimensions that they span:
    early ones keep their digits.
    """
    for features in (30, 4):
        _, test = closed(make_problem(features) | {"f0": np.zeros((N + M, OUTPUTS))}, rule)
        times = np.concatenate([[0.0], np.unique(np.round(np.geomspace(1, 1e9, 300))), [np.inf]])
        together = test.mean(times)
        for t, found in zip(times, together, strict=True):
            if t == 0:
                assert (found == 0).all()
            else:
                assert_close(found, test.mean(t), 1e-11)


def test_one_decomposition_serves_all(problem, monkeypatch):
    K, S, y = problem["K"], problem["S"], problem["y"]
    calls, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: calls.append(1) or eigh(a))
    modes = eigenmodes(K[:N, :N])
    for rule in (None, RULES["momentum"]):
        dynamics = Dynamics(modes, y[:, 0], rule, nngp=S[:N, :N], ridge=0.1)
        test = dynamics.points(K[N:, :N], S[N:, :N], S[N:, N:])
        assert test.mean(TIMES.reshape(2, 2)).shape == (2, 2, M)
        assert test.covariance(TIMES).shape == (4, M, M)
        assert dynamics.train.mean(3.0).shape == (N,)
        assert test.mean([]).shape == (0, M)
        assert test.covariance(np.empty((2, 0))).shape == (2, 0, M, M)
        assert dynamics.residuals(TIMES).shape == (4, N)
        dynamics.early_stopping(test, np.zeros(M))
    assert len(calls) == 1


def test_residuals_are_coefficients_on_the_modes(problem):
    dynamics, _ = closed(problem, GradientFlow(0.7), ridge=0.1)
    error = dynamics.train.mean(TIMES) - problem["y"]
    expected = np.einsum("ni,tno->tio", dynamics.modes.vectors, error)
    assert_close(dynamics.residuals(TIMES), expected, 1e-12)
    assert_close(dynamics.decay(TIMES), np.exp(-0.7 * TIMES[:, None] * dynamics.rates), 1e-14)


def test_networks(problem):
    rng = np.random.default_rng(1)
    x, z, y = (
        rng.standard_normal((N, 3)).astype("f4"),
        rng.standard_normal((M, 3)),
        rng.standard_normal(N),
    )
    net = nk.mlp(2, 1.4, 0.1)
    dynamics = Dynamics.from_net(net, x, y, covariance=True)
    kernels = [
        nk.kernel(net, *pair, ("ntk", "nngp"), dtype="f8")
        for pair in ((x, None), (z, x), (z, None))
    ]
    by_hand = Dynamics(kernels[0].ntk, y, nngp=kernels[0].nngp)
    points = by_hand.points(kernels[1].ntk, kernels[1].nngp, kernels[2].nngp)
    full, diagonal = dynamics.at(z, "full"), dynamics.at(z, "diagonal")
    assert_close(full.mean(TIMES), points.mean(TIMES), 1e-13)
    assert_close(full.covariance(TIMES), points.covariance(TIMES), 1e-12)
    assert_close(
        diagonal.covariance(TIMES, diagonal=True), points.covariance(TIMES, diagonal=True), 1e-12
    )
    last_layer = Dynamics.from_net(net, x, y, get="nngp", covariance=True)
    own = last_layer.at(z, "full")
    assert_close(own.covariance(TIMES), own.posterior(TIMES), 1e-12)  # the NNGP is its own prior
    assert dynamics.modes.values.dtype == np.float64


# --- times


@pytest.mark.parametrize("rule", [GradientFlow(0.7), *RULES.values()], ids=["flow", *RULES])
@pytest.mark.parametrize("fraction", [0.5, 1e-2, 1e-4])
def test_time_to_loss(problem, rule, fraction):
    dynamics, _ = closed(problem, rule)
    goal = fraction * dynamics.train_loss(0)
    time = dynamics.time_to_loss(goal)
    if isinstance(rule, GradientFlow):
        assert dynamics.train_loss(time) == pytest.approx(goal, rel=1e-10)
    else:
        steps = np.arange(time + 1)
        reached = dynamics.train_loss(steps) <= goal
        assert reached[-1]
        assert not reached[:-1].any()


def test_losses_that_are_never_reached(problem):
    dynamics, _ = closed(make_problem(4), GradientFlow())
    assert dynamics.time_to_loss(1e-9) == np.inf
    assert dynamics.time_to_loss(1e9) == 0
    assert closed(problem, GradientFlow())[0].time_to_loss(0.0) == np.inf


@pytest.mark.parametrize("rule", [GradientFlow(0.7), *RULES.values()], ids=["flow", *RULES])
def test_early_stopping(problem, rule):
    rng = np.random.default_rng(3)
    dynamics = Dynamics(problem["K"][:N, :N], problem["y"], rule)
    test = dynamics.points(problem["K"][N:, :N])
    for y in (
        rng.standard_normal((M, OUTPUTS)),
        test.mean(9.0),
        np.zeros((M, OUTPUTS)),
        test.mean(np.inf),
    ):
        stop = dynamics.early_stopping(test, y)
        fine = np.concatenate([np.arange(2000.0), [np.inf]])
        losses = test.loss(fine, y)
        assert stop.loss <= losses.min() * (1 + 1e-13) + 1e-18
        assert test.loss(stop.time, y) == pytest.approx(stop.loss, rel=1e-12, abs=1e-20)
        assert stop.gain == pytest.approx(losses[-1] - stop.loss, abs=1e-12)
    assert dynamics.early_stopping(test, np.zeros((M, OUTPUTS))).time == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_max_learning_rate_is_where_the_linear_model_diverges(problem, momentum):
    limit = closed(problem, GradientDescent(0.1, momentum))[0].max_learning_rate()
    below, above = (GradientDescent(factor * limit, momentum) for factor in (0.999, 1.001))
    start = np.abs(problem["f0"]).max()
    assert np.abs(simulate(problem, below, 20000)[:N] - problem["y"]).max() < start
    assert np.abs(simulate(problem, above, 20000 * (1 - momentum))[:N]).max() > 1e3 * start
    assert_close(closed(problem, below)[1].mean(40), simulate(problem, below, 40)[N:], 1e-9)
    assert_close(closed(problem, above)[1].mean(40), simulate(problem, above, 40)[N:], 1e-9)
    with pytest.raises(ValueError, match="no limit at t = infinity"):
        closed(problem, above)[1].mean(np.inf)
    with pytest.raises(ValueError, match="diverges"):
        closed(problem, GradientDescent(1e3 * limit, momentum))[1].mean(1e5)
