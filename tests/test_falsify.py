"""From data to a verdict: runs, reports, the command, the controls."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import torch

from ntkcore import mlp
from ntkcore.falsifier import Budget, Claim, Split, Training, falsify
from ntkcore.falsifier import verdict as verdicts
from ntkcore.falsifier.controls import CONTROLS, Control, run_control
from ntkcore.falsifier.tasks import sparse_parity
from test_control import SMALL, dying, module, tiny


def test_a_run_resumes_and_reports(tmp_path):
    budget = Budget(repeats=2, sweep=(0.5, 1))
    claims = [
        Claim("learns it", minimum=0.2),
        Claim("classes", "error", "everywhere", axis="n", values=(20, 40)),
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
    assert "2 repetitions" in str(again)  # too few for a verdict
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
        (x, x[:, 0] > 0), module, Claim("c", "error"), training=SMALL, budget=Budget(1, ())
    )
    (verdict,) = report.verdicts
    assert set(verdict.effects) == {"mean", "linearised", "lazy", "features"}
    assert verdict.effects["linearised"].mean > 0.5


def test_divergence_is_a_verdict():
    wild = Training(
        steps=60, optimizer="sgd", learning_rates=(1e6,), weight_decays=(0.0,), batch_size=None
    )
    report = falsify(tiny, mlp(1), Claim("c"), width=16, training=wild, budget=Budget(1, ()))
    assert report.kind == "inconclusive"
    assert "diverged" in str(report)


def test_no_time_left():
    report = falsify(
        tiny, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, (), seconds=0)
    )
    assert "the budget ran out" in str(report)


def test_processes_find_the_same(tmp_path):
    options = {"width": 16, "training": SMALL, "budget": Budget(1, ())}
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
        falsify(tiny, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, ()))


def test_a_dead_worker():
    with pytest.raises(MemoryError, match="the same call goes on"):
        falsify(
            dying, mlp(1), Claim("c"), width=16, training=SMALL, budget=Budget(1, ()), workers=2
        )


def test_splits_must_fit():
    x, y = np.zeros((4, 2)), np.arange(4.0)[:, None]
    with pytest.raises(ValueError, match="other axes"):
        Split(x, y, np.zeros((4, 3)), y, x, y)
    with pytest.raises(ValueError, match="NaN"):
        Split(x, y * np.nan, x, y, x, y)
    tokens = np.random.default_rng(0).random((4, 2, 3))
    with pytest.raises(ValueError, match="other axes"):
        Split(x, tokens, x, tokens.transpose(0, 2, 1), x, tokens)
    with pytest.raises(ValueError, match="not rows of 3 classes"):
        Split(x, np.eye(4), x, np.eye(4), x, np.eye(4), classes=3)
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
    budget = ["--repeats", 1, "--seconds", 0, "--width", 8]
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
        steps=100,
        learning_rates=(3e-2,),
        weight_decays=(0.0,),
        ridge=(0, 0),
        looks=3,
        early_stopping=False,
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
        assert control.claims[0].values[metric.mean(axis=1).argmax()] == report.study.samples()


@pytest.mark.slow
def test_a_network_that_fails_to_train_gives_no_verdict(tmp_path):
    """AdamW on all samples at once interpolates the parity and stays at chance,
    as the kernel does.
    """
    training = Training(steps=1000, learning_rates=(1e-2,), weight_decays=(1e-2,), batch_size=None)
    (verdict,) = falsify(
        sparse_parity, mlp(1, b_std=0.1), Claim("c"), training=training, budget=Budget(1, ())
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
