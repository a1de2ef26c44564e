"""Every experiment, quickly: it runs, comes out, and leaves its picture,
its numbers and its place in the index.
"""

import json

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ntkcore import experiments
from ntkcore.experiments import Criterion, names

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


@pytest.mark.parametrize("name", names())
def test_quick_run(name, tmp_path, monkeypatch):
    try:
        # Small matrices; more threads would only get into each other's way.
        with threadpool_limits(1):
            record = experiments.run(name, tmp_path, quick=True)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    assert record["met"], [str(c) for c in experiments.criteria_of(record)]
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert json.loads((tmp_path / f"{name}.json").read_text())["criteria"] == record["criteria"]
    assert f"![{name}]({name}.png)" in (tmp_path / "index.md").read_text()


def test_others_pages_stay(tmp_path):
    """A folder with somebody's index.md is refused before any work; their JSON is passed over."""
    (tmp_path / "index.md").write_text("# My notes")
    with pytest.raises(FileExistsError, match="not written by ntkcore"):
        experiments.run("spectral_bias", tmp_path, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["index.md"]
    (tmp_path / "index.md").unlink()
    (tmp_path / "package.json").write_text("[]")
    for _ in range(2):
        experiments.run("spectral_bias", tmp_path, quick=True)
    assert "spectral_bias.png" in (tmp_path / "index.md").read_text()


def test_the_seed_counts(tmp_path):
    a, b, c = (
        experiments.run("spectral_bias", tmp_path / str(i), quick=True, seed=s)["criteria"]
        for i, s in enumerate((0, 0, 1))
    )
    assert a == b
    assert a != c


def test_progress_on_a_terminal_only(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    assert list(experiments.steps(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(experiments.steps(range(3))) == [0, 1, 2]
    assert "/3" in capsys.readouterr().err


def test_criteria():
    assert Criterion("a", 1, 0, 2).met
    assert not Criterion("a", 3, 0, 2).met
    assert not Criterion("a", float("nan")).met
    assert str(Criterion("a", 3, 0, 2)) == "NOT MET: a: 0 ≤ 3 ≤ 2"


def test_an_unknown_name():
    with pytest.raises(ValueError, match="spectral_bias"):
        experiments.load("nothing")


def test_a_failed_criterion_is_not_hidden(tmp_path, monkeypatch):
    module = experiments.load("spectral_bias")
    monkeypatch.setattr(module, "expected", lambda config, arrays: [Criterion("never", np.nan)])
    record = experiments.run("spectral_bias", tmp_path, quick=True)
    assert not record["met"]
    assert "NOT MET: never" in (tmp_path / "index.md").read_text()


SPOILED = {
    # The kernel's distance grows to the end; the linearised network is the network.
    ("linearized_from", "speed of S"): lambda a: {"distance": 0 * a["distance"] + a["steps"] / 1e3},
    ("linearized_from", "share of the network's"): lambda a: {"linearised": a["network"]},
    # Wide networks flip as much as narrow ones, and break the bound.
    ("convergence_bound", "flipped"): lambda a: {"flips": 0 * a["flips"] + 0.1},
    ("convergence_bound", "bound, largest width"): lambda a: {"ratio": 0 * a["ratio"] + 2},
    # Every order at the rate of the first.
    ("spectral_bias", "of order 4 over ln 2/eta_4, 1024"): lambda a: {
        "half_times": 0 * a["half_times"] + a["half_times"][..., :1]
    },
    # The network learns order 4 half as fast as its kernel.
    ("spectral_bias_network", "half-time of order 4, network"): lambda a: {
        "network_half": a["network_half"] * [1, 1, 2]
    },
    # Both parameterizations are the standard one.
    ("learning_rate_transfer", "excess loss at the transferred rate, maximal"): lambda a: {
        "loss": a["loss"][[1, 1]],
        "best": a["best"][[1, 1]],
    },
}


@pytest.mark.parametrize("name", sorted({name for name, _ in SPOILED}))
def test_a_claim_that_does_not_hold_is_not_met(name):
    module = experiments.load(name)
    config = module.Config(**module.QUICK)
    with threadpool_limits(1):
        arrays = module.run(config)
    for (experiment, part), spoil in SPOILED.items():
        if experiment == name:
            criteria = module.expected(config, {**arrays, **spoil(arrays)})
            assert [c.met for c in criteria if part in c.name] == [False], part
