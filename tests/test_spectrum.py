"""Spectra, spheres and learning curves against slow sums, closed forms and experiments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import eval_gegenbauer, eval_legendre

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.operators import InMemory
from ntkcore.theory.dynamics import Dynamics, GradientDescent, GradientFlow, eigenmodes
from ntkcore.theory.learning_curves import LearningCurve, sphere_experiment
from ntkcore.theory.spectrum import certified_decay, conditioning, power_law, spectrum
from ntkcore.theory.sphere import (
    degeneracy,
    dot_product_kernel,
    legendre,
    order_power,
    random_points,
    sphere_spectrum,
)


def problem(n=60, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    return nk.kernel(nk.mlp(2, b_std=0.1), x), rng.standard_normal((n, outputs))


# --- spectra


def test_numbers_of_a_spectrum():
    K, y = problem()
    s = spectrum(K, y)
    values = np.linalg.eigvalsh(K)[::-1]
    assert relative_error(s.eigenvalues, values) < 1e-12
    G = y @ y.T
    assert s.alignment == pytest.approx(
        (K * G).sum() / np.linalg.norm(K) / np.linalg.norm(G), rel=1e-12
    )
    assert s.participation == pytest.approx(np.trace(K) ** 2 / np.trace(K @ K), rel=1e-12)
    assert s.condition == pytest.approx(np.linalg.cond(K), rel=1e-8)
    for ridge in (0.1, 3.0):
        inverse = np.linalg.inv(K + ridge * np.eye(60))
        assert s.effective_dimension(ridge, absolute=True) == pytest.approx(
            np.trace(K @ inverse), rel=1e-10
        )
    mean = np.trace(K) / 60
    assert s.effective_dimension(0.1) == pytest.approx(
        s.effective_dimension(0.1 * mean, absolute=True)
    )
    assert s.cumulative_power[-1] == pytest.approx(1)
    k = 7
    projected = s.modes.vectors[:, :k] @ (s.modes.vectors[:, :k].T @ y)
    assert s.cumulative_power[k - 1] == pytest.approx(
        (projected**2).sum() / (y**2).sum(), rel=1e-12
    )


def test_leading_modes_of_an_operator():
    K, y = problem(100)
    whole, part = spectrum(K, y), spectrum(InMemory(K), y, leading=8)
    assert relative_error(part.eigenvalues, whole.eigenvalues[:8]) < 1e-9
    assert relative_error(part.cumulative_power, whole.cumulative_power[:8]) < 1e-7
    assert part.alignment is None
    for number in ("participation", "condition"):
        with pytest.raises(ValueError, match="needs all 100 eigenvalues"):
            getattr(part, number)
    with pytest.raises(ValueError, match="give y"):
        _ = spectrum(K).cumulative_power


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_numbers_of_any_size(scale):
    x = np.random.default_rng(0).standard_normal((20, 3))
    K, y = nk.kernel(nk.mlp(1), x), x[:, :2]
    unit, ours = spectrum(K, y), spectrum(K * scale, y * scale)
    assert relative_error(ours.power, unit.power) < 1e-10
    assert ours.alignment == pytest.approx(unit.alignment)
    assert ours.participation == pytest.approx(unit.participation)


def test_one_output_as_a_vector():
    K, y = problem()
    a, b = spectrum(K, y[:, 0]), spectrum(K, y[:, :1])
    assert a.alignment == b.alignment
    assert a.alignment == pytest.approx(
        y[:, 0] @ K @ y[:, 0] / np.linalg.norm(K) / (y[:, 0] @ y[:, 0]), rel=1e-12
    )


@given(st.floats(0.3, 3), st.floats(1e-3, 1e3))
def test_a_power_law_is_recovered(exponent, constant):
    i = np.arange(1, 400)
    fit = power_law(constant * i**-exponent, 5, 300)
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.error < 1e-8
    assert relative_error(fit(i), constant * i**-exponent) < 1e-6
    assert fit.halves == pytest.approx((exponent, exponent), abs=1e-8)


def test_the_error_of_a_fit_covers_the_truth():
    rng = np.random.default_rng(0)
    i = np.arange(1, 201)
    far = 0
    for _ in range(200):
        fit = power_law(i**-1.5 * np.exp(0.2 * rng.standard_normal(200)), 1, 200)
        far += abs(fit.exponent - 1.5) > 2 * fit.error
    assert far < 25  # 5 % of 200 are expected


def test_ranges_are_honest():
    K, y = problem(400, 1)
    s = spectrum(K.astype(np.float32), y)
    fit = s.power_law()
    assert (fit.first, fit.last) == (10, 40)
    assert s.eigenvalues[fit.last - 1] > 10 * s.modes.noise
    curved = spectrum(np.diag(np.exp(-0.02 * np.arange(400))))
    a, b = curved.power_law(first=2, last=300).halves
    assert b > 2 * a
    for call in (
        lambda: power_law(np.ones(100), 50, 100),
        lambda: power_law(np.ones(100), 1, 9),
        lambda: spectrum(np.eye(40)[:30, :30]).power_law(),
    ):
        with pytest.raises(ValueError, match="too few"):
            call()
    with pytest.raises(ValueError, match="not all positive"):
        power_law(np.concatenate([np.ones(50), np.zeros(50)]), 1, 100)


def test_conditioning_and_what_rounding_hides():
    K, _ = problem(50)
    found = conditioning(K)
    assert found.resolved
    assert found.smallest == pytest.approx(np.linalg.eigvalsh(K)[0], rel=1e-6)
    twice = np.repeat(np.repeat(K, 2, 0), 2, 1)
    assert not conditioning(twice).resolved
    assert conditioning(twice).condition == math.inf
    assert "lost in rounding" in str(conditioning(twice))
    assert "exceeds rounding" in str(found)


@pytest.mark.parametrize("rule", [GradientFlow(0.5), GradientDescent(0.5)])
def test_the_certified_curve_lies_above(rule):
    K, y = problem(30)
    rule = type(rule)(30 / np.linalg.eigvalsh(K)[-1])
    dynamics = Dynamics(K, y, rule)
    times = np.arange(200)
    bound, actual = certified_decay(dynamics, times)
    f, eta = np.zeros_like(y), rule.learning_rate / 30
    for t in times:
        if isinstance(rule, GradientDescent):
            assert actual[t] == pytest.approx(((f - y) ** 2).sum(), rel=1e-9)
        assert actual[t] <= bound[t] * (1 + 1e-12)
        f = f - eta * K @ (f - y)
    assert bound[0] == pytest.approx((y**2).sum())
    with pytest.raises(ValueError, match="without momentum"):
        certified_decay(Dynamics(K, y, GradientDescent(0.1, 0.5)), times)
    with pytest.raises(ValueError, match="ridge=0"):
        certified_decay(Dynamics(K, y, rule, ridge=0.1), times)


# --- the sphere


def test_degeneracies():
    assert [degeneracy(k, 3) for k in range(5)] == [1, 3, 5, 7, 9]
    assert [degeneracy(k, 2) for k in range(4)] == [1, 2, 2, 2]
    for d in (2, 5, 15):
        for k in range(1, 9):
            by_formula = (2 * k + d - 2) * math.comb(k + d - 3, k - 1) / k if d > 2 else 2
            assert degeneracy(k, d) == pytest.approx(by_formula)


def test_polynomials():
    t = np.linspace(-1, 1, 41)
    assert relative_error(legendre(9, t, 3), [eval_legendre(k, t) for k in range(9)]) < 1e-13
    assert relative_error(legendre(9, t, 2), [np.cos(k * np.arccos(t)) for k in range(9)]) < 1e-13
    for k in range(9):
        one = eval_gegenbauer(k, 4.0, 1.0)
        assert relative_error(legendre(9, t, 10)[k], eval_gegenbauer(k, 4.0, t) / one) < 1e-12
    assert relative_error(legendre(300, np.ones(1), 7)[:, 0], np.ones(300)) < 1e-12


@pytest.mark.parametrize(
    "net", [nk.mlp(1), nk.mlp(3, 1.2, 0.3), nk.Serial(nk.Dense(), nk.Erf(), nk.Dense())]
)
@pytest.mark.parametrize("d", [2, 3, 10])
def test_eigenvalues_against_adaptive_quadrature(net, d):
    found = sphere_spectrum(net, d, 8)

    def density(theta):
        return math.sin(theta) ** (d - 2)

    norm = quad(density, 0, math.pi, epsabs=1e-14)[0]
    for k in range(8):

        def integrand(theta, k=k):
            t = math.cos(theta)
            return (
                float(dot_product_kernel(net, theta, d)) * legendre(k + 1, t, d)[k] * density(theta)
            )

        expected = quad(integrand, 0, math.pi, epsabs=1e-12, limit=200)[0] / norm
        assert found.eigenvalues[k] == pytest.approx(expected, abs=1e-10)
    assert found.total == pytest.approx(float(dot_product_kernel(net, 0.0, d)), rel=1e-12)


def test_the_trace_is_exhausted():
    found = sphere_spectrum(nk.mlp(2, b_std=0.1), 3, 400)
    assert 0 < found.tail < 3e-3 * found.total
    assert sphere_spectrum(nk.mlp(2, b_std=0.1), 3, 100).tail > 2 * found.tail
    smooth = sphere_spectrum(nk.Serial(nk.Dense(), nk.Erf(), nk.Dense()), 5, 40, norm=2.0)
    assert smooth.tail < 1e-12 * smooth.total
    assert (smooth.errors > 0).all()


def test_a_bias_free_two_layer_relu_net_has_no_odd_orders():
    """Bietti & Mairal 2019: eta_k = 0 for odd k >= 3; a bias brings them back."""
    found = sphere_spectrum(nk.mlp(1), 10, 20)
    assert (found.eigenvalues[3::2] == 0).all()
    assert (found.eigenvalues[[0, 1, *range(2, 20, 2)]] > 0).all()
    assert (sphere_spectrum(nk.mlp(1, b_std=1.0), 10, 12).eigenvalues > 0).all()


def test_eigenvalues_are_those_of_a_gram_matrix():
    """Large-sample eigenvalues of K/n, order by order."""
    d, n = 3, 1500
    net = nk.mlp(1, b_std=0.5)
    x = random_points(n, d, np.random.default_rng(0))
    values = eigenmodes(nk.kernel(net, x)).values / n
    found = sphere_spectrum(net, d, 3)
    assert values[0] == pytest.approx(found.eigenvalues[0], rel=0.05)
    assert values[1:4].mean() == pytest.approx(found.eigenvalues[1], rel=0.05)
    assert values[4:9].mean() == pytest.approx(found.eigenvalues[2], rel=0.1)


def test_orders_of_a_function():
    rng = np.random.default_rng(0)
    d, n = 5, 3000
    x, zeta = random_points(n, d, rng), random_points(2, d, rng)
    values = 2 * legendre(2, x @ zeta[0], d)[1] + 3 * legendre(4, x @ zeta[1], d)[3]
    power = order_power(x, values, [0, 1, 2, 3, 4])
    expected = [0, 4 / degeneracy(1, d), 0, 9 / degeneracy(3, d), 0]
    assert np.abs(power - expected).max() < 0.05
    with pytest.raises(ValueError, match="none of them 0"):
        order_power(np.zeros((3, 2)), np.ones(3), [0])


# --- learning curves


def slow_kappa(eta, counts, P, ridge):
    kappa = ridge + (counts * eta).sum()
    for _ in range(200_000):
        kappa = ridge + kappa * (counts * eta / (kappa + P * eta)).sum()
    return kappa


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("P", [0, 1, 7, 40])
def test_the_effective_ridge_against_iteration(ridge, P):
    eta, counts = np.array([1.0, 0.3, 0.05, 0.0]), np.array([1.0, 5, 60, 10])
    curve = LearningCurve(eta, counts, ridge=ridge)
    assert float(curve.effective_ridge(P)) == pytest.approx(
        slow_kappa(eta, counts, P, ridge), rel=1e-9
    )


@given(
    st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=30),
    st.floats(0, 10),
    st.floats(0, 1e7),
)
def test_never_nan(eta, ridge, P):
    curve = LearningCurve(np.array(eta), np.arange(1.0, len(eta) + 1) ** 3, ridge=ridge)
    errors = curve.mode_errors([0.0, P])
    assert not np.isnan(errors).any()
    assert (errors >= 0).all()
    assert relative_error(errors[0], np.ones(len(eta))) < 1e-9
    total = curve.error([0.0, P], np.ones(len(eta)), noise=1.0, beyond=0.5)
    assert not np.isnan(total).any()
    assert 0 <= float(curve.gamma(P)) <= (1 + 1e-9 if curve.multiplicities.sum() > P else np.inf)


def test_more_samples_than_modes_without_ridge():
    curve = LearningCurve(np.array([1.0, 0.5]), np.array([1.0, 4.0]))
    assert (curve.mode_errors(6) == 0).all()
    assert curve.error(5, np.ones(2), noise=0.1) == np.inf  # the peak at as many samples as modes
    assert float(curve.error(10, np.ones(2), noise=0.1)) == pytest.approx(0.01 * 0.5 / 0.5)


def test_a_gram_matrix_against_an_experiment():
    """n points as the population, drawn with replacement:
    theory within 10 % of the mean over draws.
    """
    rng = np.random.default_rng(0)
    x = np.sqrt(20) * random_points(1500, 20, rng)
    K = nk.kernel(nk.mlp(1, b_std=0.3), x)
    y = x[:, 0] + 0.5 * x[:, 1] * x[:, 2]
    curve, power = LearningCurve.from_gram(K, y, ridge=0.05)
    assert power.sum() == pytest.approx((y**2).mean())
    for P in (20, 80):
        measured = []
        for _ in range(40):
            rows = rng.integers(0, 1500, P)
            a = np.linalg.solve(K[np.ix_(rows, rows)] + 0.05 * np.eye(P), y[rows])
            measured.append(((K[:, rows] @ a - y) ** 2).mean())
        assert float(curve.error(P, power)) == pytest.approx(np.mean(measured), rel=0.1)


def test_noise_against_an_experiment():
    rng = np.random.default_rng(1)
    x = np.sqrt(20) * random_points(1000, 20, rng)
    K = nk.kernel(nk.mlp(1, b_std=0.3), x)
    y, sigma, P = x[:, 0], 0.7, 60
    curve, power = LearningCurve.from_gram(K, y, ridge=0.2)
    measured = []
    for _ in range(80):
        rows = rng.integers(0, 1000, P)
        noisy = y[rows] + sigma * rng.standard_normal(P)
        a = np.linalg.solve(K[np.ix_(rows, rows)] + 0.2 * np.eye(P), noisy)
        measured.append(((K[:, rows] @ a - y) ** 2).mean())
    assert float(curve.error(P, power, noise=sigma)) == pytest.approx(np.mean(measured), rel=0.1)


def test_orders_on_the_sphere_against_an_experiment():
    """Bordelon et al. 2020, figure 2, in small."""
    net = nk.mlp(2)
    modes = sphere_spectrum(net, 15, 16)
    curve = LearningCurve(modes.eigenvalues, modes.degeneracies, modes.tail)
    for P in (10, 100):
        measured = sphere_experiment(net, modes, P, [1, 2, 4], repeats=12, seed=P).mean(0)
        theory = curve.mode_errors(P)[[1, 2, 4]]
        assert (np.abs(theory / measured - 1) < 0.15).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LearningCurve([-1.0]), ">= 0"),
        (lambda: LearningCurve([0.0]), "not all 0"),
        (lambda: LearningCurve([1.0], ridge=-1), "ridge must be"),
        (lambda: LearningCurve([1.0], ridge="a"), "ridge must be"),
        (lambda: power_law(np.ones(50), "1", 40), "whole numbers"),
        (lambda: LearningCurve([1.0]).mode_errors(-3), "numbers of samples"),
        (lambda: LearningCurve([1.0]).error(3, [1.0, 2.0]), "power must have shape"),
        (lambda: LearningCurve([1.0]).error(3, [1.0], noise="a"), "noise must be a finite"),
        (lambda: LearningCurve([1.0]).error(3, [1.0], noise=np.nan), "noise must be a finite"),
        (lambda: LearningCurve([1.0]).error(3, [1.0], beyond=None), "beyond must be a finite"),
        (lambda: sphere_spectrum(nk.mlp(1), 1), "d must be a whole number of at least 2"),
        (lambda: sphere_spectrum(nk.mlp(1), "3"), "d must be a whole number"),
        (lambda: sphere_spectrum(nk.mlp(1), np.ones((3, 2))), "d must be a whole number"),
        (lambda: sphere_spectrum(nk.mlp(1), 3, 2.5), "orders must be a whole number"),
        (lambda: sphere_spectrum(nk.mlp(1), 3, norm=-1), "norm must be a positive"),
        (lambda: degeneracy("a", 3), "k must be a whole number"),
        (lambda: degeneracy(2, 3.5), "d must be a whole number"),
        (lambda: legendre(3, 2.0, 3), r"t must lie in \[-1, 1\]"),
        (lambda: legendre(3, np.nan, 3), r"t must lie in \[-1, 1\]"),
        (lambda: legendre(3, 0.5, 1), "d must be a whole number of at least 2"),
        (lambda: spectrum(np.zeros((3, 3)), np.ones(3)), "K is zero"),
        (lambda: spectrum(np.ones((2, 3))), "square"),
        (lambda: spectrum(np.eye(3), np.zeros(3)), "y is zero"),
        (lambda: spectrum(np.eye(3), np.ones(4)), "y must have shape"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
