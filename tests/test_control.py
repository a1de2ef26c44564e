"""The falsifier: tasks, claims, statistics and verdicts by themselves, and small comparisons from data to report."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import torch

from ntkcore import mlp
from ntkcore.control import METRICS, PREDICATES, TASKS, Arrays, Budget, Claim, Split, Training, falsify
from ntkcore.control import verdict as verdicts
from ntkcore.control.statistics import bootstrap, estimate, holm, p_value
from ntkcore.control.tasks import sparse_parity
from ntkcore.control.verdict import Evidence, judge

SMALL = Training(steps=30, learning_rates=(1e-2,), weight_decays=(0.0,), batch_size=None, ridge=(1e-3, 1e-3), looks=4)


def tiny(seed, *, n=40, d=6):
    """y = x_1 x_2 of a few bits: nothing that a test has to wait for."""
    return sparse_parity(seed, n=n, d=d, k=2, validation=20, test=20)


def module(seed, width=16):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))


# --- tasks


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_seeded_and_grow(name):
    pytest.importorskip("sklearn")
    small, again, large, other = (TASKS[name](seed, n=n) for seed, n in ((0, 50), (0, 50), (0, 60), (1, 50)))
    for key, array in small.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[key])
        assert np.isfinite(array).all()
    np.testing.assert_array_equal(small.x, large.x[:50])
    if name != "modular_addition":  # whose test set is all the rest
        np.testing.assert_array_equal(small.x_test, large.x_test)
    assert not np.array_equal(small.y_test, other.y_test)


def test_arrays_keep_test_and_training_apart():
    x, y = np.arange(100.0)[:, None], np.arange(100) % 3
    task = Arrays(x, y)
    split = task(3)
    parts = [set(split.x.ravel()), set(split.x_val.ravel()), set(split.x_test.ravel())]
    assert sum(map(len, parts)) == 100 == len(set.union(*parts))
    assert split.y.shape == (task.limit, 3)
    np.testing.assert_allclose(split.y.sum(axis=1), 0, atol=1e-12)
    with pytest.raises(ValueError, match="between 1 and the 64"):
        task(0, n=65)


def test_label_noise_leaves_the_test_set():
    task = Arrays(np.arange(100.0)[:, None], np.arange(100) % 2)
    clean, noisy = task(0), task(0, noise=0.25)
    assert (clean.y != noisy.y).sum() == round(0.25 * len(clean.y))
    np.testing.assert_array_equal(clean.y_test, noisy.y_test)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((9, 2)), np.zeros(9), "at least 10"),
        (np.full((20, 2), np.nan), np.zeros(20), "NaN"),
        (np.zeros((20, 2)), np.zeros(20, int), "one class"),
        (np.zeros((20, 2)), np.zeros(21), "as many"),
    ],
)
def test_arrays_that_do_not_do(x, y, message):
    with pytest.raises(ValueError, match=message):
        Arrays(x, y)


# --- claims


def test_predicates_on_known_numbers():
    v, chance = (1.0, 10.0, 100.0), np.ones(3)
    found = {
        name: float(Claim("c", predicate=name, axis="n", values=v).effect(np.array(metric), chance))
        for name, metric in {
            "below": [1, 1, 0.2],
            "everywhere": [0.9, 0.2, 0.1],
            "orders": [1, 1, 0.01],
            "power_law": [1, 0.1, 0.01],
            "increases": [1, 2, 8],
            "peak": [1, 100, 0.5],
        }.items()
    }
    assert set(found) == set(PREDICATES)
    expected = {"below": 0.8, "everywhere": 0.1, "orders": 2, "power_law": 1, "increases": 1, "peak": 2}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "beauty"}, "metric"),
        ({"predicate": "nice"}, "predicate"),
        ({"minimum": 0}, "minimum"),
        ({"axis": "n"}, "axis and its values"),
        ({"axis": "n", "values": (2, 1)}, "rise"),
        ({"predicate": "peak", "axis": "n", "values": (1, 2)}, "at least 3"),
    ],
)
def test_claims_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        Claim("c", **options)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (Claim("c", axis="temperature", values=(1,)), "no arm can measure"),
        (Claim("c", axis="depth", values=(1, 2)), "no arm can measure"),
        (Claim("c", "half_time"), "plain training"),
    ],
)
def test_claims_that_no_arm_can_measure(claim, message):
    with pytest.raises(ValueError, match=message):
        falsify(tiny, mlp(1), claim, training=SMALL)


def test_classes_need_classes():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="targets are numbers"):
        falsify((rng.standard_normal((50, 6)), rng.standard_normal(50)), mlp(1), Claim("c", "error"), training=SMALL)


def test_modules_that_are_no_functions():
    def noisy(seed):
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    with pytest.raises(ValueError, match="dropout"):
        falsify(tiny, noisy, Claim("c"), training=SMALL)
    with pytest.raises(TypeError, match="fresh one"):
        falsify(tiny, module(0), Claim("c"), training=SMALL)


# --- statistics


def test_bootstrap_against_its_variance():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40, 30))
    rows, columns = table.mean(axis=1).var() / 40, table.mean(axis=0).var() / 30
    assert bootstrap(table, 20_000).var() == pytest.approx(
        rows + columns, rel=0.15 + table.var() / 1200 / (rows + columns)
    )
    found = estimate(table)
    assert found.low < table.mean() < found.high


def test_p_values_and_holm():
    assert p_value(np.ones((5, 3)), 0.5, "above") < 0.001
    assert p_value(np.ones((5, 3)), 0.5, "below") == 1.0
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]


# --- verdicts


def evidence(**effects):
    """Tables of constant effects with a little spread, both gates of movement passed."""
    rng = np.random.default_rng(0)
    tables = {name: value + 0.01 * rng.standard_normal((5, 3)) for name, value in effects.items()}
    movement = {"lazy": np.full((1, 5, 3), 0.01), "features": np.ones((1, 5, 3))}
    return Evidence(tables, {}, movement, 100)


NEEDS = {"ntk": 0.0, "nngp": 0.0, "linearised": 0.0, "lazy": 0.0, "features": 0.9}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, verdicts.NEEDS),
        ({"ntk": 0.9, "linearised": 0.9, "lazy": 0.9}, verdicts.PRESENT),
        ({"ntk": 0.9, "linearised": 0.9, "baseline": 0.0}, verdicts.ARCHITECTURE),
        ({"ntk": 0.9, "linearised": 0.9, "baseline": 0.9}, verdicts.PRESENT),
        ({"ntk": 0.55, "linearised": 0.55, "features": 1.0}, verdicts.PARTIAL),
        ({"linearised": 0.9}, verdicts.FINITE),
        ({"features": 0.2}, verdicts.INCONCLUSIVE),
        ({"lazy": 0.9}, verdicts.INCONCLUSIVE),
        ({"linearised": 0.4}, verdicts.NEEDS),
    ],
)
def test_kinds(change, kind):
    (found,) = judge([Claim("c", minimum=0.5)], [evidence(**{**NEEDS, **change})])
    assert (found.kind == kind) or (change == {"linearised": 0.4} and "linearised is like infinite" in found.sentence)


@pytest.mark.parametrize(("arm", "movement"), [("lazy", 0.2), ("features", 0.2)])
def test_gates_of_movement(arm, movement):
    found = evidence(**NEEDS)
    found.movement[arm][:] = movement
    (verdict,) = judge([Claim("c")], [found])
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "gate failed" in verdict.sentence


def test_an_arm_without_numbers_is_named():
    found = evidence(**NEEDS)
    (verdict,) = judge([Claim("c")], [Evidence(found.effects, {"lazy": "diverged"}, found.movement, 100)])
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "lazy network: diverged" in verdict.sentence


# --- from data to report


def test_a_run_resumes_and_reports(tmp_path):
    budget = Budget(seeds=2, splits=2, sweep=(0.5, 1))
    claims = [Claim("learns it", minimum=0.2), Claim("fits", "train_error", "everywhere", axis="n", values=(20, 40))]
    first = falsify(tiny, mlp(1), claims, width=16, training=SMALL, budget=budget, folder=tmp_path)
    files = sorted((tmp_path / "cells").rglob("*.json"))
    stamps = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    again = falsify(tiny, mlp(1), claims, width=16, training=SMALL, budget=budget, folder=tmp_path)
    assert {f: f.stat().st_mtime_ns for f in files[1:]} == {f: stamps[f] for f in files[1:]}
    assert str(again) == str(first)
    assert "2 initialisations x 2 splits" in str(again)  # too few for a verdict
    page = again.write(tmp_path / "report")
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert 'src="http' not in text
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [v["kind"] for v in record["verdicts"]] == ["inconclusive"] * 2
    assert record["data"]
    with pytest.raises(ValueError, match="another study"):
        falsify(tiny, mlp(2), claims, width=16, training=SMALL, budget=budget, folder=tmp_path)


def test_a_module_of_ones_own():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (120, 6))
    report = falsify((x, x[:, 0] > 0), module, Claim("c", "error"), training=SMALL, budget=Budget(1, 1, ()))
    (verdict,) = report.verdicts
    assert set(verdict.effects) == {"linearised", "lazy", "features"}
    assert verdict.effects["linearised"].mean > 0.5


def test_divergence_is_a_verdict():
    wild = Training(steps=60, optimizer="sgd", learning_rates=(1e6,), weight_decays=(0.0,), batch_size=None)
    report = falsify(tiny, mlp(1), Claim("c"), width=16, training=wild, budget=Budget(1, 1, ()))
    assert report.kind == "inconclusive"
    assert "diverged" in str(report)


def test_no_time_left():
    report = falsify(tiny, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, 1, (), seconds=0))
    assert "the budget ran out" in str(report)


def test_processes_find_the_same(tmp_path):
    options = {"width": 16, "training": SMALL, "budget": Budget(1, 1, ())}
    here = falsify(sparse_parity, mlp(1), Claim("c", axis="n", values=(50,)), **options)
    there = falsify(sparse_parity, mlp(1), Claim("c", axis="n", values=(50,)), workers=2, **options)
    for arm, effect in here.verdicts[0].effects.items():
        assert there.verdicts[0].effects[arm].mean == pytest.approx(effect.mean, abs=1e-4)
    with pytest.raises(TypeError, match="pickled"):
        falsify(lambda seed: tiny(seed), mlp(1), Claim("c"), workers=2, **options)


def test_splits_must_fit():
    x, y = np.zeros((4, 2)), np.ones((4, 1))
    with pytest.raises(ValueError, match="other axes"):
        Split(x, y, np.zeros((4, 3)), y, x, y)
    with pytest.raises(ValueError, match="NaN"):
        Split(x, y * np.nan, x, y, x, y)
    assert "nmse" in METRICS


def test_the_command(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (60, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (x[:, 0] > 0).astype(int))
    command = [sys.executable, "-c", "from ntkcore.cli import main; main()", "falsify", "fc:depth=1"]
    options = [
        "--metric",
        "error",
        "--width",
        "16",
        "--steps",
        "5",
        "--seconds",
        "0",
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the budget ran out" in done.stdout
    assert (tmp_path / "out" / "report.html").exists()
