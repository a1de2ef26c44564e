"""Pictures of spectra: what is drawn is what was computed, on the caller's axes or on new ones."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

import ntkcore as nk
from ntkcore.plots import spectra as plots
from ntkcore.theory.dynamics import Dynamics, GradientDescent
from ntkcore.theory.learning_curves import LearningCurve
from ntkcore.theory.spectrum import spectrum
from ntkcore.theory.sphere import sphere_spectrum


@pytest.fixture(scope="module")
def found():
    x = np.random.default_rng(0).standard_normal((200, 5))
    return spectrum(nk.kernel(nk.mlp(2, b_std=0.1), np.repeat(x, 2, axis=0)), np.repeat(x[:, 0], 2))


def lines(ax):
    return [line.get_xydata() for line in ax.lines]


def drawn(ax, tmp_path):
    ax.figure.savefig(tmp_path / "p.png")
    return (tmp_path / "p.png").stat().st_size > 3000


def test_eigenvalues(found, tmp_path):
    fit = found.power_law()
    ax = plots.eigenvalues(found, fit)
    dots, law = lines(ax)
    assert len(dots) == 200  # the other half is null, and has no place on a logarithmic axis
    assert np.array_equal(dots[:, 1], found.eigenvalues[:200])
    assert (law[0, 0], law[-1, 0]) == (fit.first, fit.last)
    assert any("rounding" in text.get_text() for text in ax.get_legend().get_texts())
    assert drawn(ax, tmp_path)


def test_cumulative_power(found, tmp_path):
    ax = Figure().add_subplot()
    assert plots.cumulative_power(found, "x_0", ax=ax) is ax
    assert lines(ax)[0][-1, 1] == pytest.approx(1)
    assert drawn(ax, tmp_path)


def test_orders_and_curves(tmp_path):
    modes = sphere_spectrum(nk.mlp(1), 5, 8)
    ax = plots.by_order(modes, "two layers")
    assert lines(ax)[0][:, 0].tolist() == [0, 1, 2, 4, 6]
    curve = LearningCurve(modes.eigenvalues, modes.degeneracies, modes.tail)
    P, orders = [1, 10, 100], [0, 2]
    measured = P, np.ones((3, 2)), np.full((3, 2), 0.1)
    with_dots = plots.mode_errors(curve, P, orders, measured)
    assert np.array_equal(lines(with_dots)[0][:, 1], curve.mode_errors(P)[:, 0])
    assert drawn(ax, tmp_path)
    assert drawn(with_dots, tmp_path)


def test_the_bound_is_drawn_above(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 5))
    K = nk.kernel(nk.mlp(2), x)
    dynamics = Dynamics(K, x[:, 0], GradientDescent(20 / np.linalg.eigvalsh(K)[-1]))
    ax = plots.certified(dynamics, np.arange(50))
    bound, actual = lines(ax)
    assert (actual[:, 1] <= bound[:, 1] * (1 + 1e-12)).all()
    assert drawn(ax, tmp_path)
