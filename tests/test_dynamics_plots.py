"""Pictures of training show what the numbers say, on axes given or their own, without pyplot."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import ntkcore as nk
from ntkcore.plots import dynamics as plots
from ntkcore.theory.dynamics import Dynamics

TIMES = np.geomspace(1e-1, 1e4, 40)


@pytest.fixture(scope="module")
def training():
    """A 1-D problem on the circle: (dynamics, points, their inputs, targets)."""
    rng = np.random.default_rng(0)
    angle, grid = np.sort(rng.uniform(-2, 2, 14)), np.linspace(-3, 3, 60)
    lift = lambda a: np.stack([np.cos(a), np.sin(a)], axis=1)  # noqa: E731
    y = np.sin(2 * angle) + 0.1 * rng.standard_normal(14)
    dynamics = Dynamics.from_net(nk.mlp(2, 1.4, 0.3), lift(angle), y, covariance=True)
    return dynamics, dynamics.at(lift(grid), "diagonal"), (angle, grid), (y, np.sin(2 * grid))


def test_losses(training):
    dynamics, points, _, (_, y) = training
    ax = plots.losses(dynamics, [0.0, *TIMES, np.inf], {"validation": (points, y)})
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert np.allclose(lines["training"].get_ydata(), dynamics.train_loss(TIMES))
    assert np.allclose(lines["validation"].get_ydata(), points.loss(TIMES, y))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_modes(training):
    dynamics, *_ = training
    ax = plots.modes(dynamics, TIMES, (0, 5, 99))
    assert len(ax.get_lines()) == 2
    assert np.allclose(ax.get_lines()[1].get_ydata(), dynamics.decay(TIMES)[:, 5])


def test_predictions(training):
    dynamics, points, (x, grid), (y, _) = training
    own = Figure().add_subplot()
    ax = plots.predictions(points, grid, [0, 30, np.inf], data=(x, y), ax=own)
    assert ax is own
    assert np.allclose(ax.get_lines()[1].get_ydata(), points.mean(30.0))
    assert len(ax.collections) == 3
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "t = 0",
        "t = 30",
        "t = ∞",
        "data",
    ]
    bare = plots.predictions(dynamics.at(np.ones((2, 2))), [1, 0], 1.0)
    assert not bare.collections


def test_pictures_can_be_written(training, tmp_path):
    dynamics, points, (x, grid), (y, target) = training
    for name, ax in {
        "losses": plots.losses(dynamics, TIMES, {"validation": (points, target)}),
        "modes": plots.modes(dynamics, TIMES),
        "predictions": plots.predictions(points, grid, [0, 30, np.inf], data=(x, y)),
    }.items():
        ax.figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_pyplot_is_left_alone():
    code = (
        "import sys, ntkcore.plots.axes as p; p.own_axes(None); assert 'matplotlib.pyplot' not in"
        " sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors(training):
    dynamics, points, (_, grid), _ = training
    with pytest.raises(ValueError, match="positive"):
        plots.losses(dynamics, [0.0])
    two = Dynamics(dynamics.modes, np.ones((14, 2))).points(points.kernel_cross)
    with pytest.raises(ValueError, match="one output"):
        plots.predictions(two, grid, 1.0)
