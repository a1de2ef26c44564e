"""Eigenmodes of kernels that are none, or nearly; leading modes of operators."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator

import ntkcore as nk
from conftest import assert_close
from ntkcore.linalg.operators import InMemory
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
from test_dynamics import M, N, make_problem, problem  # noqa: F401


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
        (lambda: leading_modes(EYE, True), ValueError, "leading modes"),
        (lambda: leading_modes(EYE, 1, tolerance="a"), ValueError, "tolerance must lie"),
        (lambda: leading_modes(EYE, 1, tolerance=-1), ValueError, "tolerance must lie"),
        (lambda: LossDynamics(EYE, np.ones(3), SquaredError), TypeError, r"SquaredError\(\)"),
        (lambda: LossDynamics(EYE, [0, 1, 0], CrossEntropy), TypeError, r"CrossEntropy\(\)"),
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


@pytest.mark.parametrize(
    "wrap",
    [
        InMemory,
        lambda K: InMemory(K).T,
        lambda K: InMemory(K, symmetric=False),
        aslinearoperator,
        csr_array,
        lambda K: aslinearoperator(K.astype("float32")),
    ],
)
def test_leading_modes_of_two_data_sets_are_refused(wrap):
    x = np.random.default_rng(0).standard_normal((60, 3))
    K, cross = nk.kernel(nk.mlp(1), x), nk.kernel(nk.mlp(1), x, x[::-1] + 0.1)
    assert_close(leading_modes(wrap(K), 2).values, np.linalg.eigvalsh(K)[:-3:-1], 1e-6)
    with pytest.raises(ValueError, match="operator is not symmetric"):
        leading_modes(wrap(cross), 2)
    if hasattr(wrap(K), "matmat"):
        LossDynamics(wrap(K), x, SquaredError())
        with pytest.raises(ValueError, match="operator is not symmetric"):
            LossDynamics(wrap(cross), x, SquaredError())


@pytest.mark.parametrize("wrap", [InMemory, aslinearoperator, csr_array])
def test_leading_modes_of_high_multiplicity(wrap):
    """Which a single vector's Krylov space does not hold: Lanczos went on to the next ones."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 120)))[0]
    K = basis * np.r_[np.full(40, 5.0), np.linspace(1, 0, 80)] @ basis.T
    modes = leading_modes(wrap((K + K.T) / 2), 30)
    assert_close(modes.values, np.full(30, 5.0), 1e-9)
    assert 5 <= modes.rest < 5.01


def test_rounding_of_single_precision_is_no_mode():
    """Every point thrice: a third of the modes, of an operator as of its matrix."""
    x = np.tile(np.random.default_rng(0).standard_normal((40, 3)), (3, 1)).astype("f4")
    K = nk.kernel(nk.mlp(2), x)
    whole = eigenmodes(K)
    for operator in (nk.MatrixFree(nk.mlp(2), x), aslinearoperator(K)):
        part = leading_modes(operator, 80)
        assert (part.values > 0).sum() <= 40
        assert part.noise > 0.1 * whole.noise
        assert_close(part.values[:30], whole.values[:30], 1e-6)


def test_leading_modes_of_nothing():
    modes = leading_modes(aslinearoperator(np.zeros((5, 5))), 2)
    assert (modes.values == 0).all()
    assert_close(modes.vectors.T @ modes.vectors, np.eye(2), 1e-12)


def test_modes_know_their_trace(problem):
    K = problem["K"][:N, :N]
    modes = leading_modes(K, 5, trace=np.trace(K))
    assert isinstance(modes, Modes)
    assert Dynamics(modes, problem["y"], ridge=0.1).ridge == pytest.approx(0.1 * np.trace(K) / N)
