"""Closed-form training against training: step by step, by an Euler-resolved flow,
by sampled initial functions.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import ntkcore as nk
from conftest import assert_close
from ntkcore.theory.dynamics import (
    Dynamics,
    GradientDescent,
    GradientFlow,
    Modes,
    eigenmodes,
    leading_modes,
)
from ntkcore.theory.loss_dynamics import LossDynamics
from ntkcore.theory.losses import CrossEntropy, SquaredError

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


# --- rules


def recursion(x, beta, steps):
    """rho and the sum of steps (1 - rho)/x, by their recursions in extended precision."""
    x, beta = np.longdouble(x), np.longdouble(beta)
    rho, rho_before, gain, gain_before = (
        np.longdouble(1),
        np.longdouble(1),
        np.longdouble(0),
        np.longdouble(0),
    )
    for _ in range(steps):
        rho, rho_before = (1 + beta - x) * rho - beta * rho_before, rho
        gain, gain_before = (1 + beta - x) * gain - beta * gain_before + 1, gain
    return float(rho), float(gain)


@given(
    st.floats(0, 1.999) | st.floats(-18, 0).map(lambda e: 10**e),
    st.floats(0, 0.99),
    st.integers(0, 300),
)
def test_decay_and_gain_solve_the_recursion(x, beta, steps):
    rule = GradientDescent(1.0, beta)
    rates, times = np.array([x]), np.array([float(steps)])
    rho, gain = recursion(x, beta, steps)
    assert rule.decay(rates, times)[0, 0] == pytest.approx(rho, rel=1e-11, abs=1e-12)
    assert rule.gain(rates, times)[0, 0] == pytest.approx(gain, rel=1e-9, abs=1e-10)
    if x <= 1:
        assert gain <= rule.bound(times)[0] * (1 + 1e-12)
        assert -1 - 1e-12 <= rho <= 1 + 1e-12


@pytest.mark.parametrize("beta", [0.01, 0.25, 0.81])
def test_double_roots(beta):
    for x in ((1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2):
        for nudge in (0, 1e-15, -1e-15, 1e-9, -1e-9):
            rule = GradientDescent(1.0, beta)
            found = rule.decay(np.array([x + nudge]), np.array([0.0, 1.0, 2.0, 25.0]))[:, 0]
            assert found == pytest.approx(
                [recursion(x + nudge, beta, t)[0] for t in (0, 1, 2, 25)], abs=1e-12
            )


@given(st.floats(-18, 1).map(lambda e: 10**e), st.floats(1e-9, 1e9))
def test_flow_at_small_rates(r, t):
    rule = GradientFlow(0.5)
    gain = rule.gain(np.array([r, 0.0]), np.array([t]))[0]
    assert gain[1] == 0.5 * t
    assert gain[0] <= gain[1] * (1 + 1e-14)
    if r * t < 1e-9:
        assert gain[0] == pytest.approx(0.5 * t, rel=1e-9)


@pytest.mark.parametrize("rule", [GradientFlow(), GradientDescent(0.5), GradientDescent(0.5, 0.9)])
def test_zero_eigenvalues(rule):
    rates, times = np.array([0.0, 1.0]), np.array([0.0, 4.0, np.inf])
    gain = rule.gain(rates, times)
    assert gain[0].tolist() == [0.0, 0.0]
    assert gain[1, 0] == pytest.approx(
        rule.learning_rate * recursion(0.0, getattr(rule, "momentum", 0.0), 4)[1]
    )
    assert gain[2].tolist() == [0.0, 1.0]
    assert rule.decay(rates, times)[2].tolist() == [1.0, 0.0]


# --- kernels that are none, or nearly


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_duplicated_samples(dtype):
    """Duplicates with two targets each train as one sample with the mean of both, at all times."""
    rng = np.random.default_rng(0)
    x, z, y = rng.standard_normal((8, 3)), rng.standard_normal((M, 3)), rng.standard_normal(8)
    net, options = nk.mlp(2, 1.4, 0.1), {"dtype": dtype}
    twice = Dynamics.from_net(
        net, np.concatenate([x, x]), np.concatenate([y, y + 1]), covariance=True, **options
    )
    once = Dynamics.from_net(net, x, y + 0.5, covariance=True, **options)
    times = [0.0, 10.0, 1e3, 1e9, 1e18, np.inf]
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    assert (twice.modes.values[8:] == 0).all()
    a, b = twice.at(z, "full"), once.at(z, "full")
    assert_close(a.mean(times), b.mean(times), tolerance)
    assert_close(a.covariance(times), b.covariance(times), tolerance)
    assert_close(twice.train.mean(np.inf), np.concatenate([y + 0.5, y + 0.5]), tolerance)
    assert twice.train_loss(np.inf) == pytest.approx(0.125, rel=tolerance)


def test_indefinite_by_rounding():
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((N + M, 5))
    K = phi @ phi.T
    noise = rng.standard_normal((N, N))
    noisy = K[:N, :N] + 1e-12 * (noise + noise.T)
    assert np.linalg.eigvalsh(noisy)[0] < 0
    dynamics = Dynamics(noisy, rng.standard_normal(N))
    assert dynamics.modes.values.min() == 0
    test = dynamics.points(K[N:, :N])
    exact = Dynamics(K[:N, :N], dynamics.y[:, 0]).points(K[N:, :N])
    for t in (0.0, 1.0, 1e6, 1e15, np.inf):
        assert np.abs(test.mean(t) - exact.mean(t)).max() < 1e-10


def test_the_zero_kernel():
    dynamics = Dynamics(np.zeros((3, 3)), np.ones(3), f0=0.5)
    assert (dynamics.train.mean([0.0, 1e9, np.inf]) == 0.5).all()
    assert dynamics.max_learning_rate() == np.inf
    assert dynamics.early_stopping(dynamics.train, np.zeros(3)).time == 0


@pytest.mark.parametrize(
    ("K", "words"),
    [
        (np.diag([1.0, 1.0, -0.1]), "indefinite.*-0.1"),
        (-np.eye(3), "indefinite"),
        (np.array([[1.0, 0.5, 0], [0.4, 1, 0], [0, 0, 1]]), "not symmetric"),
        (np.diag([1.0, np.nan, 1.0]), "NaN"),
        (np.ones((3, 2)), "square|shape"),
        (np.ones(3), "shape"),
    ],
)
def test_matrices_that_are_no_kernels(K, words):
    with pytest.raises(ValueError, match=words):
        Dynamics(K, np.ones(len(K)))


def test_a_cross_kernel_that_does_not_belong():
    p = make_problem(4)
    dynamics = Dynamics(p["K"][:N, :N], p["y"])
    shuffled = dynamics.points(p["K"][N:, :N][:, ::-1])
    with pytest.raises(ValueError, match=r"null space.*order"):
        shuffled.mean(1.0)


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Dynamics(EYE, np.ones(4)), ValueError, "y must have shape"),
        (lambda: Dynamics(EYE, np.array(["a"] * 3)), TypeError, "real numbers"),
        (lambda: Dynamics(EYE, np.ones(3), nngp=np.eye(4)), ValueError, "nngp"),
        (lambda: Dynamics(EYE, np.ones(3), ridge=-1), ValueError, "ridge"),
        (lambda: Dynamics(EYE, np.ones(3)).train.mean(-1.0), ValueError, "times"),
        (lambda: Dynamics(EYE, np.ones(3)).train.mean(np.nan), ValueError, "times"),
        (
            lambda: Dynamics(EYE, np.ones(3), GradientDescent(0.1)).train.mean(0.5),
            ValueError,
            "whole",
        ),
        (lambda: Dynamics(EYE, np.ones(3)).train.covariance(1.0), ValueError, "nngp"),
        (
            lambda: Dynamics(EYE, np.ones(3), f0=0.0, nngp=EYE).train.covariance(1.0),
            ValueError,
            "ensemble",
        ),
        (lambda: Dynamics(EYE, np.ones(3), f0=0.0).points(EYE), ValueError, "f0 of both"),
        (lambda: Dynamics(EYE, np.ones(3)).points(np.eye(4)), ValueError, "test-train"),
        (lambda: Dynamics(EYE, np.ones(3)).points(EYE).loss(1.0), ValueError, "targets"),
        (lambda: Dynamics(EYE, np.ones(3)).at(EYE), ValueError, "from_net"),
        (
            lambda: Dynamics(EYE, np.ones(3), nngp=EYE).points(EYE).covariance(1.0),
            ValueError,
            "NNGP",
        ),
        (
            lambda: (
                Dynamics(EYE, np.ones(3), nngp=EYE).points(EYE, EYE, np.ones(3)).covariance(1.0)
            ),
            ValueError,
            "full matrix",
        ),
        (
            lambda: Dynamics.from_net(nk.mlp(1), EYE, np.ones(3), get="both"),
            ValueError,
            "one kernel trains",
        ),
        (lambda: GradientFlow(0.0), ValueError, "learning_rate"),
        (lambda: GradientDescent(0.1, 1.0), ValueError, "momentum"),
        (lambda: leading_modes(EYE, 3), ValueError, "leading modes"),
        (lambda: leading_modes(-EYE, 1), ValueError, "indefinite"),
        (
            lambda: LossDynamics(EYE, [0, 1, 0], CrossEntropy()).train.covariance(1.0),
            ValueError,
            "squared loss",
        ),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- leading modes


@pytest.mark.parametrize(
    "rule", [GradientFlow(0.7), GradientDescent(0.5), GradientDescent(0.5, 0.8)]
)
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_leading_modes_of_an_operator_err_within_their_bound(rule, ridge):
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((60, 3)), rng.standard_normal((20, 3))
    y = np.sin(3 * x[:, 0]) + rng.standard_normal(60)
    net = nk.mlp(2, 1.4, 0.1)
    K, cross, own = nk.kernel(net, x), nk.kernel(net, z, x), nk.kernel_diag(net, z)
    exact = Dynamics(K, y, rule, ridge=ridge, absolute_ridge=True)
    part = Dynamics(
        leading_modes(aslinearoperator(K), 20), y, rule, ridge=ridge, absolute_ridge=True
    )
    assert_close(part.modes.values, exact.modes.values[:20], 1e-10)
    times = np.array([0.0, 1.0, 10.0, 100.0, 1e4])
    wanted = exact.points(cross).mean(times)
    for points in (part.points(cross), part.points(aslinearoperator(cross), kernel_test=own)):
        error, bound = np.abs(points.mean(times) - wanted), points.bound(times)
        assert (error <= bound + 1e-9).all()
        assert bound[1].max() < 1  # it says something
    error = np.linalg.norm(part.train.mean(times) - exact.train.mean(times), axis=1)
    assert (error <= part.train.bound(times).max(axis=1) + 1e-9).all()
    assert part.train.bound(0.0).max() == 0
    assert (exact.points(cross).bound(times) == 0).all()
    assert_close(part.train_loss(times), part.train.loss(times), 1e-12)
    with pytest.raises(ValueError, match="all eigenmodes"):
        part.train.posterior(1.0)
    with pytest.raises(ValueError, match="trace"):
        Dynamics(part.modes, y, ridge=0.1)


def test_modes_know_their_trace(problem):
    K = problem["K"][:N, :N]
    modes = leading_modes(K, 5, trace=np.trace(K))
    assert isinstance(modes, Modes)
    assert Dynamics(modes, problem["y"], ridge=0.1).ridge == pytest.approx(0.1 * np.trace(K) / N)


# --- other losses


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
