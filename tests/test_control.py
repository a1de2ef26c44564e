"""The falsifier: tasks, claims, statistics and verdicts by themselves,
and small comparisons from data to report.
"""

import functools
import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import torch

import ntkcore.falsifier.checks
from ntkcore import cntk, mlp
from ntkcore.falsifier import PREDICATES, TASKS, Arrays, Budget, Claim, Split, Training, falsify
from ntkcore.falsifier import verdict as verdicts
from ntkcore.falsifier.claims import name_of
from ntkcore.falsifier.controls import CONTROLS, Control, run_control
from ntkcore.falsifier.statistics import bootstrap, estimate, holm, p_value
from ntkcore.falsifier.study import Network, Study
from ntkcore.falsifier.tasks import modular_addition, sparse_parity
from ntkcore.falsifier.verdict import Evidence, judge

SMALL = Training(
    steps=30,
    learning_rates=(1e-2,),
    weight_decays=(0.0,),
    batch_size=None,
    ridge=(1e-3, 1e-3),
    looks=4,
)


def tiny(seed, *, n=40, d=6):
    """y = x_1 x_2 of a few bits: nothing that a test has to wait for."""
    return sparse_parity(seed, n=n, d=d, k=2, validation=20, test=20)


def dying(seed, *, n=40):
    """A task that takes its worker process with it."""
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return tiny(seed, n=n)


def module(seed, width=16):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(6, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
    )


# --- tasks


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_seeded_and_grow(name):
    pytest.importorskip("sklearn")
    small, again, large, other = (
        TASKS[name](seed, n=n) for seed, n in ((0, 50), (0, 50), (0, 60), (1, 50))
    )
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
    expected = {
        "below": 0.8,
        "everywhere": 0.1,
        "orders": 2,
        "power_law": 1,
        "increases": 1,
        "peak": 2,
    }
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
        falsify(
            (rng.standard_normal((50, 6)), rng.standard_normal(50)),
            mlp(1),
            Claim("c", "error"),
            training=SMALL,
        )


def test_modules_that_are_no_functions():
    def noisy(seed):
        return torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

    with pytest.raises(ValueError, match="dropout"):
        falsify(tiny, noisy, Claim("c"), training=SMALL)
    with pytest.raises(TypeError, match="fresh one"):
        falsify(tiny, module(0), Claim("c"), training=SMALL)


def test_memory_is_asked_for_before_any_work(monkeypatch):
    monkeypatch.setattr(ntkcore.falsifier.checks, "free_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="smaller n"):
        falsify(tiny, mlp(1), Claim("c"), training=SMALL)


def test_a_jacobian_that_does_not_fit(monkeypatch):
    monkeypatch.setattr("ntkcore.finite.empirical.free_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="Jacobians"):
        falsify(tiny, module, Claim("c"), training=SMALL)


def test_samples_and_devices_that_do_not_fit():
    with pytest.raises(ValueError, match=r"samples of shape \(6,\)"):
        falsify(tiny, lambda seed: torch.nn.Linear(5, 1), Claim("c"), training=SMALL)
    with pytest.raises(ValueError, match="no device 'abacus'"):
        falsify(tiny, mlp(1), Claim("c"), training=SMALL, device="abacus")


def test_a_baseline_that_does_not_fit():
    images = np.random.default_rng(0).standard_normal((30, 4, 4, 1))
    with pytest.raises(ValueError, match="Flatten"):
        falsify((images, images[:, 0, 0, 0]), cntk(1), Claim("c"), baseline=mlp(1), training=SMALL)


# --- studies


def study(task, training=SMALL):
    return Study(task, Network(mlp(1), None, 16, "cpu"), (Claim("c"),), training)


def test_the_sweep_goes_as_far_as_the_data():
    assert study(tiny).sweep((0.25, 0.5, 1, 2), 3) == [10, 20, 40, 80]
    assert study(modular_addition).sweep((0.5, 1, 2), 3) == [158, 317]  # of 529 pairs
    x = np.arange(100.0)[:, None]
    assert study(Arrays(x, x[:, 0])).sweep((0.5, 1, 2), 3) == [32, 64]


def test_another_source_is_another_study():
    def one(seed, *, n=40):
        return tiny(seed, n=n)

    first = study(one).fingerprint()

    def one(seed, *, n=40):
        return tiny(seed, n=n, d=6)

    assert first != study(one).fingerprint() == study(one).fingerprint()
    assert study(one).fingerprint([("w", (3, 2))]) != study(one).fingerprint([("w", (3, 4))])


def test_partials_have_names():
    assert name_of(functools.partial(tiny, n=30)) == "tiny(n=30)"


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


def test_a_claim_without_verdict_does_not_help_another():
    """Of two claims each counts at half the level, whatever became of the other."""
    weak = evidence(**NEEDS)
    weak.effects["lazy"][:] = np.linspace(-0.1, 0.7, 15).reshape(5, 3)
    broken = Evidence(weak.effects, {"lazy": "diverged"}, weak.movement, 100)
    alone, beside = judge([Claim("c")], [weak]), judge([Claim("c"), Claim("d")], [weak, broken])
    assert 0.025 < alone[0].p == beside[0].p < 0.05 < 1 == beside[1].p
    assert (alone[0].kind, beside[0].kind) == (verdicts.NEEDS, verdicts.INCONCLUSIVE)
    assert "diverged" in beside[1].sentence


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
    assert (found.kind == kind) or (
        change == {"linearised": 0.4} and "linearised is like infinite" in found.sentence
    )


@pytest.mark.parametrize(("arm", "movement"), [("lazy", 0.2), ("features", 0.2)])
def test_gates_of_movement(arm, movement):
    found = evidence(**NEEDS)
    found.movement[arm][:] = movement
    (verdict,) = judge([Claim("c")], [found])
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "gate failed" in verdict.sentence


def test_an_arm_without_numbers_is_named():
    found = evidence(**NEEDS)
    (verdict,) = judge(
        [Claim("c")], [Evidence(found.effects, {"lazy": "diverged"}, found.movement, 100)]
    )
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert "lazy network: diverged" in verdict.sentence


# --- from data to report


def test_a_run_resumes_and_reports(tmp_path):
    budget = Budget(seeds=2, splits=2, sweep=(0.5, 1))
    claims = [
        Claim("learns it", minimum=0.2),
        Claim("fits", "train_error", "everywhere", axis="n", values=(20, 40)),
    ]
    (tmp_path / "report.md").write_text("# My report")
    with pytest.raises(FileExistsError, match="not written by ntkcore"):
        falsify(tiny, mlp(1), claims, width=16, training=SMALL, budget=budget, folder=tmp_path)
    (tmp_path / "report.md").unlink()
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
    report = falsify(
        (x, x[:, 0] > 0), module, Claim("c", "error"), training=SMALL, budget=Budget(1, 1, ())
    )
    (verdict,) = report.verdicts
    assert set(verdict.effects) == {"linearised", "lazy", "features"}
    assert verdict.effects["linearised"].mean > 0.5


def test_divergence_is_a_verdict():
    wild = Training(
        steps=60, optimizer="sgd", learning_rates=(1e6,), weight_decays=(0.0,), batch_size=None
    )
    report = falsify(tiny, mlp(1), Claim("c"), width=16, training=wild, budget=Budget(1, 1, ()))
    assert report.kind == "inconclusive"
    assert "diverged" in str(report)


def test_no_time_left():
    report = falsify(
        tiny, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, 1, (), seconds=0)
    )
    assert "the budget ran out" in str(report)


def test_processes_find_the_same(tmp_path):
    options = {"width": 16, "training": SMALL, "budget": Budget(1, 1, ())}
    here = falsify(sparse_parity, mlp(1), Claim("c", axis="n", values=(50,)), **options)
    there = falsify(sparse_parity, mlp(1), Claim("c", axis="n", values=(50,)), workers=2, **options)
    for arm, effect in here.verdicts[0].effects.items():
        assert there.verdicts[0].effects[arm].mean == pytest.approx(effect.mean, abs=1e-4)
    with pytest.raises(TypeError, match="pickled"):
        falsify(lambda seed: tiny(seed), mlp(1), Claim("c"), workers=2, **options)


def test_a_device_that_is_full(monkeypatch):
    def full(*arguments, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ntkcore.falsifier.network_arms.train", full)
    with pytest.raises(MemoryError, match="what was finished is whole"):
        falsify(tiny, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, 1, ()))


def test_a_dead_worker():
    with pytest.raises(MemoryError, match="the same call goes on"):
        falsify(
            dying, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, 1, ()), workers=2
        )


def test_splits_must_fit():
    x, y = np.zeros((4, 2)), np.arange(4.0)[:, None]
    with pytest.raises(ValueError, match="other axes"):
        Split(x, y, np.zeros((4, 3)), y, x, y)
    with pytest.raises(ValueError, match="NaN"):
        Split(x, y * np.nan, x, y, x, y)
    with pytest.raises(ValueError, match="are the same"):
        Split(x, y, x, np.ones((4, 1)), x, y)


# --- the command


def command(capsys, *arguments):
    """(exit code, standard output) of `ntkcore falsify`."""
    from ntkcore.cli.commands import app

    code = app(["falsify", *map(str, arguments)], standalone_mode=False)
    return code or 0, capsys.readouterr().out


def test_the_command(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (60, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (x[:, 0] > 0).astype(int))
    call = [sys.executable, "-c", "from ntkcore.cli import main; main()", "falsify", "fc:depth=1"]
    options = ["--metric", "error", "--width", "16", "--steps", "5", "--seconds", "0", "--output"]
    done = subprocess.run(
        [*call, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), *options, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the budget ran out" in done.stdout
    assert (tmp_path / "out" / "report.html").exists()


def test_the_command_on_a_task_over_an_axis(tmp_path, capsys):
    claim = ["--axis", "d", "--values", "5,6", "--predicate", "increases"]
    budget = ["--seeds", 1, "--splits", 1, "--seconds", 0, "--width", 8]
    code, out = command(
        capsys, "fc:depth=1", "sparse_parity", *claim, *budget, "--json", "--output", tmp_path
    )
    assert code == 0
    found = json.loads(out)["claims"][0]
    assert {key: found[key] for key in ("axis", "values", "predicate")} == {
        "axis": "d",
        "values": [5.0, 6.0],
        "predicate": "increases",
    }
    with pytest.raises(ValueError, match="no task"):
        command(capsys, "fc:depth=1", "x.npy")
    with pytest.raises(ValueError, match="must be numbers separated by"):
        command(capsys, "fc:depth=1", "sparse_parity", "--axis", "d", "--values", "5,b")
    with pytest.raises(ValueError, match="or --controls"):
        command(capsys, "fc:depth=1")


# --- controls


def test_there_are_five_on_each_side():
    kinds = [control.expected for control in CONTROLS]
    assert (kinds.count(verdicts.PRESENT), kinds.count(verdicts.NEEDS)) == (5, 5)
    assert len({control.slug for control in CONTROLS}) == 10


def test_the_command_on_controls(tmp_path, capsys, monkeypatch):
    """An easy one that comes out right, and its contrary, which is told to be wrong."""
    easy = Training(
        steps=300, learning_rates=(3e-2,), weight_decays=(0.0,), ridge=(1e-3, 1e-3), looks=6
    )
    claim = Claim("learns one of six bits", "train_nmse", minimum=0.5)
    task = functools.partial(sparse_parity, n=60, d=6, k=1, validation=30, test=30)
    options = {"net": mlp(1), "width": 64}
    pair = [
        Control(f"{kind}", kind, task, (claim,), easy, options)
        for kind in (verdicts.PRESENT, verdicts.NEEDS)
    ]
    monkeypatch.setattr("ntkcore.falsifier.controls.CONTROLS", pair)
    code, out = command(capsys, "--controls", "--output", tmp_path)
    assert code == 1
    assert "right: learns one of six bits: present in the kernel" in out
    assert "WRONG, expected needs features" in out
    page = (tmp_path / "controls.md").read_text()
    assert page.count("| present in the kernel") == 2
    assert page.count("(expected: needs features)") == 1
    assert (tmp_path / "controls.png").stat().st_size > 5000
    assert (tmp_path / "needs-features" / "report.html").exists()


def test_controls_without_time_are_told(tmp_path, capsys, monkeypatch):
    control = Control("idle", verdicts.PRESENT, tiny, (Claim("c"),), SMALL, {"width": 16})
    monkeypatch.setattr("ntkcore.falsifier.controls.CONTROLS", [control])
    code, out = command(capsys, "--controls", "--seconds", 0, "--output", tmp_path)
    assert code == 1
    assert "the budget ran out" in out
    assert "expected: present in the kernel" in (tmp_path / "controls.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.slug)
def test_controls_come_out_right(control, tmp_path):
    pytest.importorskip("sklearn")
    report = run_control(control, tmp_path, workers=2)
    assert control.right(report), str(report)
    assert all(gate.passed for verdict in report.verdicts for gate in verdict.gates)
    # The peak is where features are as many as samples.
    if control.slug.startswith("double-descent"):
        metric = report.tables.values("linearised", control.claims[0].points, "metrics", "nmse")
        assert control.claims[0].values[metric.mean(axis=(1, 2)).argmax()] == report.study.samples()


@pytest.mark.slow
def test_a_network_that_fails_to_train_gives_no_verdict(tmp_path):
    """AdamW on all samples at once interpolates the parity and stays at chance,
    as the kernel does.
    """
    training = Training(steps=1000, learning_rates=(1e-2,), weight_decays=(1e-2,), batch_size=None)
    (verdict,) = falsify(
        sparse_parity, mlp(1, b_std=0.1), Claim("c"), training=training, budget=Budget(1, 1, ())
    ).verdicts
    assert verdict.kind == verdicts.INCONCLUSIVE
    assert abs(verdict.effects["features"].mean) < 0.2
    assert "the network shows the effect" in verdict.sentence


def test_markdown_carries_no_html_of_names():
    from ntkcore.falsifier.report import markdown

    text = markdown([("heading", "<script>a</script>"), ("table", [("a|b",), ("<b>",)])])
    assert "<" not in text
    assert "a\\|b" in text


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000])
def test_a_damaged_study_is_named(content, tmp_path):
    from ntkcore.falsifier.cells import Cells

    (tmp_path / "study.json").write_text(content)
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        Cells(tmp_path, "a")
