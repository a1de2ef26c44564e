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


# Of the longest quick runs these run by default, whatever comes out; `make slow` looks at that.
SMALLER = {
    "feature_learning_scale": {"scales": (0.1, 3.0), "steps": 200, "plane_steps": 2000},
    "lazy_convolutions": {"scales": (0.1, 100.0), "tests": 50, "n": 30, "channels": 8, "side": 8},
    "wide_training": {"widths": (64, 32, 32), "networks": 10, "steps": (0, 3, 30)},
}
LONGEST = {*SMALLER, "lazy_transition"}


@pytest.fixture(scope="module")
def found():
    """found(name): an experiment's module, its quick configuration and what it computes,
    once for all tests.
    """
    known = {}

    def call(name):
        if name not in known:
            module = experiments.load(name)
            config = module.Config(**module.QUICK)
            # Small matrices; more threads would only get into each other's way.
            with threadpool_limits(1):
                known[name] = module, config, module.run(config)
        return known[name]

    return call


@pytest.fixture
def known(found, monkeypatch):
    """known(name): from here on the experiment's quick run takes what was computed before."""

    def call(name):
        module, expected, arrays = found(name)

        def run(config):
            assert config == expected
            return arrays

        monkeypatch.setattr(module, "run", run)

    return call


def check(name, folder):
    """Run it; its picture, its numbers and its place in the index are there."""
    record = experiments.run(name, folder, quick=True)
    assert (folder / f"{name}.png").stat().st_size > 5000
    assert json.loads((folder / f"{name}.json").read_text())["criteria"] == record["criteria"]
    assert f"![{name}]({name}.png)" in (folder / "index.md").read_text()
    return record


@pytest.mark.parametrize("name", SMALLER)
def test_smaller_run(name, tmp_path, monkeypatch):
    module = experiments.load(name)
    monkeypatch.setattr(module, "QUICK", {**module.QUICK, **SMALLER[name]})
    with threadpool_limits(1):
        assert check(name, tmp_path)["criteria"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONGEST else n for n in names()],
)
def test_quick_run(name, known, tmp_path):
    try:
        known(name)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    record = check(name, tmp_path)
    assert record["met"], [str(c) for c in experiments.criteria_of(record)]


def test_others_pages_stay(known, tmp_path):
    """A folder with somebody's index.md is refused before any work; their JSON is passed over."""
    known("spectral_bias")
    (tmp_path / "index.md").write_text("# My notes")
    with pytest.raises(FileExistsError, match="not written by ntkcore"):
        experiments.run("spectral_bias", tmp_path, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["index.md"]
    (tmp_path / "index.md").unlink()
    (tmp_path / "package.json").write_text("[]")
    for _ in range(2):
        experiments.run("spectral_bias", tmp_path, quick=True)
    assert "spectral_bias.png" in (tmp_path / "index.md").read_text()


def test_the_seed_counts(tmp_path, monkeypatch):
    small = {"samples": (32, 64), "draws": 2}
    monkeypatch.setattr(experiments.load("spectral_bias"), "QUICK", small)
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


def test_a_failed_criterion_is_not_hidden(known, tmp_path, monkeypatch):
    module = experiments.load("spectral_bias")
    known("spectral_bias")
    monkeypatch.setattr(module, "expected", lambda config, arrays: [Criterion("never", np.nan)])
    record = experiments.run("spectral_bias", tmp_path, quick=True)
    assert not record["met"]
    assert "NOT MET: never" in (tmp_path / "index.md").read_text()


def _met(module, arrays, config=None):
    return [c.met for c in module.expected(config or module.Config(), arrays)]


def test_uci_is_tested_over_sets():
    """One lucky set is no evidence; a small gain on most sets is; a loss is seen."""
    module, rng = experiments.load("uci_svm"), np.random.default_rng(0)
    rbf = rng.uniform(0.7, 0.9, 22)
    gain = 0.01 * rng.uniform(0, 2, 22)
    assert all(_met(module, {"ntk": rbf + gain, "rbf": rbf}))
    assert not all(_met(module, {"ntk": rbf - gain, "rbf": rbf}))
    lucky = {"ntk": rbf + 0.01 * rng.standard_normal(22) + 0.2 * (np.arange(22) == 0), "rbf": rbf}
    assert (lucky["ntk"] - lucky["rbf"]).mean() > 0
    assert not all(_met(module, lucky))


def test_cosine_of_students_to_their_teacher():
    """1 where every neuron that carries weight points where a teacher of its sign does."""
    module = experiments.load("feature_learning_scale")
    teacher = np.eye(3), np.array([1.0, 1.0, -1.0])
    W, a = np.array([[2.0, 0, 0], [0, 0, 5.0], [0, -1.0, 1.0]]), np.array([1.0, -3.0, 0.0])
    assert module._cosine((W, a), teacher) == pytest.approx(1)
    assert module._cosine((W, -a), teacher) == pytest.approx(0)  # the other signs


def test_filters_are_compared_with_the_pattern_of_their_label():
    torch = pytest.importorskip("torch")
    from ntkcore import Conv, Dense, GlobalAvgPool, Relu, Serial
    from ntkcore.finite import to_torch

    module, rng = experiments.load("lazy_convolutions"), np.random.default_rng(0)
    patterns = rng.standard_normal((2, 5, 5))
    patterns /= np.linalg.norm(patterns, axis=(1, 2), keepdims=True)
    net = to_torch(
        Serial(Conv((5, 5), (1, 1), "VALID"), Relu(), GlobalAvgPool(), Dense()),
        2,
        input_shape=(8, 8, 1),
    )
    (_, conv), (_, out) = net.affine()
    conv.weight.data[:, 0] = 3 * torch.as_tensor(patterns, dtype=torch.float32)
    for sign in (1, -1):
        out.weight.data[:] = sign * torch.tensor([[-1.0, 2.0]])
        filters, cosine = module._filters(net, patterns)
        np.testing.assert_allclose(filters, patterns[::sign], rtol=1e-5)
        assert (cosine > 0.99) == (sign > 0)


def test_curves_that_do_not_collapse_are_seen():
    """Movements like sqrt(h) alpha to the power -3/2 at all widths collapse; like alpha's not."""
    module = experiments.load("lazy_transition")
    config = module.Config(**module.QUICK)
    scales, ones = np.array([0.25, 1.0, 64.0])[:, None], np.ones((3, 3, config.draws))
    moved = 10 * scales**-1.5 * ones
    arrays = {
        f"{n}_{k}": v for n in module.NAMES for k, v in (("error", 0.1 * ones), ("moved", moved))
    }
    arrays |= {f"{n}_kappa": scales**-1 * ones for n in module.NAMES}
    assert all(_met(module, arrays, config))
    widths = np.array([1.0, 2.0, 4.0])[:, None, None]
    assert not all(_met(module, {**arrays, "cnn_moved": moved * widths**-0.5}, config))
    assert not all(_met(module, {**arrays, "fc_moved": moved + 0.1}, config))  # not lazy


def test_a_theory_of_another_network_is_seen(found):
    """Learning curves of the other depth, variances of half the size."""
    module, config, arrays = found("learning_curves")
    assert not all(_met(module, {**arrays, "theory": arrays["theory"][::-1]}, config))
    module = experiments.load("wide_training")
    ones = np.ones((3, 2, 4))
    same = {f"{t}{k}": ones for t in ("", "theory_") for k in ("mean", "variance", "loss")}
    assert all(_met(module, same))
    for key, value in (("variance", ones / 2), ("mean", ones * 1.2), ("loss", ones * 1.2)):
        assert not all(_met(module, {**same, key: value}))


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
    ("learning_rate_transfer", "the standard one over it"): lambda a: {
        "loss": a["loss"][[1, 1]],
        "best": a["best"][[1, 1]],
    },
}


@pytest.mark.parametrize("name", sorted({name for name, _ in SPOILED}))
def test_a_claim_that_does_not_hold_is_not_met(name, found):
    module, config, arrays = found(name)
    for (experiment, part), spoil in SPOILED.items():
        if experiment == name:
            criteria = module.expected(config, {**arrays, **spoil(arrays)})
            assert [c.met for c in criteria if part in c.name] == [False], part
