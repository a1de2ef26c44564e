"""The rules of training, mode by mode, against their recursions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkcore.theory.dynamics import (
    GradientDescent,
    GradientFlow,
)


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
