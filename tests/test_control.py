"""The falsifier: tasks, claims and studies by themselves."""

import functools
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import torch

import ntkcore.falsifier.checks
from ntkcore import cntk, mlp
from ntkcore.falsifier import PREDICATES, TASKS, Arrays, Budget, Claim, Training, falsify
from ntkcore.falsifier.cells import Key
from ntkcore.falsifier.claims import name_of
from ntkcore.falsifier.study import Network, Place, Study
from ntkcore.falsifier.tasks import modular_addition, sparse_parity

torch.set_num_threads(1)  # small matrices: more would only get into each other's way
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


def two_test_samples(seed):
    split = tiny(seed)
    two = np.argsort(split.y_test[:, 0])[[0, -1]]
    return replace(split, x_test=split.x_test[two], y_test=split.y_test[two])


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
        (np.zeros((20, 2)), np.arange(20), "too many for classes"),
        (np.zeros((20, 2)), np.arange(20.0).astype(object), "too many for classes"),
        (np.zeros((20, 2)), 1j * (np.arange(20) % 2), "complex128"),
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
            "decreases": [8, 4, 1],
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
        "decreases": 1,
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
        ({"axis": "n", "values": (np.nan, 2)}, "be finite and rise"),
        ({"predicate": "power_law", "axis": "noise", "values": (0, 0.1)}, "positive values"),
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
        (Claim("c", axis="width", values=(8, 8.5)), "positive whole number"),
        (Claim("c", "half_time"), "plain training"),
        (Claim("c", "train_nmse"), "keeps from fitting"),
    ],
)
def test_claims_that_no_arm_can_measure(claim, message):
    with pytest.raises(ValueError, match=message):
        falsify(tiny, mlp(1), claim, training=SMALL)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (Claim("c", floor=lambda split: 0.0), "floor must score a positive number"),
        (Claim("c", floor=lambda split: np.nan), "floor must score a positive number"),
        (Claim("c", predicate=lambda v, metric, chance: metric), "one effect of the points"),
    ],
)
def test_functions_of_a_claim_are_tried_before_any_work(claim, message):
    with pytest.raises(ValueError, match=message):
        falsify(tiny, mlp(1), claim, training=SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claims": "c"}, "must be a Claim"),
        ({"claims": [Claim("c"), "d"]}, "must be a Claim"),
        ({"budget": Budget(1.5)}, "repeats must be a whole number"),
        ({"budget": Budget(1, (0,))}, "positive multiples"),
        ({"spec": mlp(2)}, "leave spec away"),
        ({"spec": "mlp", "net": module}, "spec must be"),
        ({"versus": mlp(2), "baseline": mlp(1)}, "give one"),
        ({"net": lambda depth: mlp(depth)}, "over axis='depth'"),
        ({"data": lambda seed: tiny(0)}, "same data for every seed"),
        (
            {"data": two_test_samples, "training": replace(SMALL, after_kernel=True)},
            "all 1 targets",
        ),
        ({"training": Training(optimizer="nadam")}, "optimizer must be one of"),
        ({"training": Training(parameterization="none")}, "parameterization must be one of"),
        ({"training": Training(batch_size=0)}, "batch_size must lie between"),
        ({"training": Training(learning_rates=(1e-2, 0.0))}, "lr must be"),
    ],
)
def test_options_are_looked_at_before_any_work(options, message, monkeypatch):
    def work(*arguments):
        raise AssertionError("a cell was begun")

    monkeypatch.setattr("ntkcore.falsifier.performing.perform", work)
    given = {"data": tiny, "net": mlp(1), "claims": Claim("c"), "training": SMALL, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        falsify(given.pop("data"), given.pop("net"), given.pop("claims"), **given)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1.5},
        {"looks": 0},
        {"weight_decays": (-1.0,)},
        {"learning_rates": ()},
        {"ridge": 1e-3},
        {"ridge": (0, 1)},
        {"ridge": (1, 0.1)},
        {"optimizer": torch.optim.SGD},
    ],
)
def test_training_that_is_none(options):
    with pytest.raises((ValueError, TypeError), match="|".join(options)):
        Training(**options)


def test_numbers_of_numpy_are_numbers():
    training = Training(steps=np.int64(500), learning_rates=np.array([0.1, 0.01]))
    assert training == Training(steps=500, learning_rates=(0.1, 0.01))
    assert Claim("c", axis="n", values=np.array([1, 2])).values == (1.0, 2.0)
    assert type(Claim("c", axis="n", values=np.array([1, 2])).values[0]) is float
    assert Training(steps=500, looks=1).steps_looked_at() == [500]


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

    dropping = ntkcore.Serial(
        ntkcore.Dense(), ntkcore.Relu(), ntkcore.Dropout(0.5), ntkcore.Dense()
    )
    for network in (noisy, dropping):
        with pytest.raises(ValueError, match="dropout"):
            falsify(tiny, network, Claim("c"), training=SMALL)
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
    bare = type("Bare", (), {})
    names = [name_of(functools.partial(tiny, module, of=bare())) for _ in range(2)]
    assert names[0] == names[1]
    assert " at 0x" not in names[0]


def test_points_close_by_have_files_of_their_own():
    keys = [Key("ntk", Place(("compute", c), 0, 0)).file for c in (1e6, 1e6 + 1, 1e12, 1e12 + 1)]
    assert len(set(keys)) == 4
    assert keys[0] == "ntk/compute=1e+06/split=0,seed=0.json"
