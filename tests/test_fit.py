"""From data to a model: which solver is chosen, and what it gives."""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg import cg as cg_module
from ntkcore.linalg.choice import FitPlan, Machine, choose
from ntkcore.linalg.classes import class_targets
from ntkcore.linalg.fitting import KernelModel, fit
from test_cli import here, run
from test_solve import NET

RIDGE = 1e-2


@pytest.fixture(scope="module")
def samples():
    x = np.random.default_rng(0).standard_normal((400, 4))
    return x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], 1)


@pytest.mark.parametrize("method", ["auto", "cholesky", "cg", "askotch"])
def test_exact_methods_give_kernel_ridge_regression(samples, method):
    x, y = samples
    K = nk.kernel(NET, x)
    exact = K @ np.linalg.solve(K + RIDGE * np.diagonal(K).mean() * np.eye(len(x)), y)
    said = []
    model = fit(NET, x, y, RIDGE, method=method, rtol=1e-8, say=said.append)
    assert relative_error(model.predict(x), exact) < 1e-5
    assert said[0].endswith("s")
    assert all("residual" in line for line in said[1:-1])
    assert bool(said[1:-1]) == (method in ("cg", "askotch"))
    assert said[-1].startswith("exact")
    assert relative_error(fit(NET, x, y[:, 0], RIDGE).predict(x), exact[:, 0]) < 1e-5


@pytest.mark.parametrize("landmarks", ["rpcholesky", "uniform", np.arange(0, 400, 5)])
def test_landmarks_give_the_restricted_problem(samples, landmarks):
    x, y = samples
    number = 80 if isinstance(landmarks, str) else None
    model = fit(NET, x, y, RIDGE, n_landmarks=number, landmarks=landmarks, rtol=1e-9)
    z = model.samples
    assert z.shape == (80, 4)
    if number is None:
        assert np.array_equal(z, x[::5])
    ridge = RIDGE * nk.kernel_diag(NET, x).mean()
    K, inner = nk.kernel(NET, x, z), nk.kernel(NET, z)
    exact = np.linalg.solve(K.T @ K + ridge * inner, K.T @ y)
    assert relative_error(model.predict(x), K @ exact) < 1e-5
    every = fit(NET, x, y, RIDGE, landmarks=np.arange(len(x)), rtol=1e-9)
    assert relative_error(every.predict(x), fit(NET, x, y, RIDGE).predict(x)) < 1e-5


def test_a_classifier_predicts_labels(samples):
    x, y = samples
    for labels in (np.where(y[:, 0] > 0, "up", "down"), np.digitize(y[:, 0], [-0.5, 0.5])):
        model = fit(NET, x, labels, 1e-4, classify=True)
        assert (model.predict(x) == labels).mean() > 0.95
        own = nk.estimators.NTKClassifier(NET, ridge=1e-4).fit(x, labels)
        assert np.array_equal(own.predict(x), model.predict(x))
    targets, classes = class_targets([3, 1, 3])
    assert (targets.tolist(), classes.tolist()) == ([1, -1, 1], [1, 3])


def test_a_model_is_kept_in_a_file(samples, tmp_path):
    x, y = samples
    model = fit(NET, x, np.where(y[:, 0] > 0, "up", "down"), n_landmarks=50, classify=True)
    found = KernelModel.load(model.save(tmp_path / "model"))
    assert found.net == NET
    assert np.array_equal(found.predict(x), model.predict(x))
    whole = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "model.npz").write_bytes(whole[:-200])
    with pytest.raises(ValueError, match="no model of `ntkcore fit`, or damaged"):
        KernelModel.load(tmp_path / "model.npz")


def test_estimators_by_landmarks_and_iterations(samples):
    x, y = samples
    exact = nk.estimators.NTKRegressor(NET, ridge=RIDGE).fit(x, y).predict(x)
    for solver in ("cg", "askotch"):
        model = nk.estimators.NTKRegressor(NET, ridge=RIDGE, solver=solver).fit(x, y)
        assert relative_error(model.predict(x), exact) < 1e-4
    few = nk.estimators.NTKRegressor(NET, ridge=RIDGE, n_landmarks=200).fit(x, y)
    assert few.X_fit_.shape == (200, 4)
    assert relative_error(few.predict(x), exact) < 0.3
    with pytest.raises(ValueError, match="sample_weight needs solver='cholesky'"):
        few.fit(x, y, np.ones(len(x)))
    with pytest.raises(ValueError, match="method must be"):
        nk.estimators.NTKRegressor(NET, solver="qr").fit(x, y)


MACHINE = Machine(pair=2e-9, flops=1e11, memory=8e9, seconds=3600)


@pytest.mark.parametrize(
    ("n", "machine", "method"),
    [
        (2000, MACHINE, "cholesky"),
        (100_000, MACHINE, "cg"),
        (300_000, Machine(2e-9, 1e11, 1e9, 1e5), "askotch"),
        (1_000_000, MACHINE, "landmarks"),
        (100_000, Machine(1e-6, 1e11, 8e9, 3600), "landmarks"),
    ],
)
def test_the_choice(n, machine, method):
    plan = choose(n, 1, 4, n * 40, machine)
    assert plan.method == method
    assert plan.memory <= machine.memory
    assert plan.seconds <= machine.seconds
    if method == "landmarks":
        assert 1000 <= plan.landmarks <= 10 * n**0.5
        assert "Cholesky would take" in plan.reason
        assert f"{plan.landmarks} landmarks: the restricted problem" in str(plan)


@pytest.mark.parametrize("memory", [4e9, 8e9, 16e9, 64e9])
def test_the_rank_fits_the_memory_with_what_goes_with_it(memory):
    plan = choose(100_000, 1, 4, 10**7, Machine(2e-9, 1e12, memory, 1e5), "cg")
    assert memory / 4 < plan.memory <= memory


def test_streamed_data_are_held_by_a_model_of_all_of_them():
    machine = Machine(1e-9, 1e12, 1e9, 1e5)
    assert choose(2000, 1, 4, 10**10, machine, streamed=True).method == "landmarks"
    assert choose(2000, 1, 4, 10**7, machine, streamed=True).method == "cholesky"


def test_equal_samples_are_one_landmark(samples):
    x, y = np.tile(samples[0][:100], (2, 1)), samples[1][:200]
    model = fit(NET, x, y, RIDGE, landmarks=np.arange(200), rtol=1e-9)
    assert np.array_equal(model.samples, x[:100])
    assert relative_error(model.predict(x), fit(NET, x, y, RIDGE).predict(x)) < 1e-5


def test_a_checkpoint_asks_for_a_method_that_keeps_one(samples, tmp_path):
    (x, y), file, said = samples, tmp_path / "state.npz", []
    model = fit(NET, x, y, RIDGE, rtol=1e-8, checkpoint=file, say=said.append)
    assert "Cholesky" not in said[0]
    assert file.exists()
    assert relative_error(model.predict(x), fit(NET, x, y, RIDGE).predict(x)) < 1e-5
    for other in ((np.where(x == x[300, 1], 0, x), y), (x, -y)):
        with pytest.raises(ValueError, match=r"state\.npz was begun with other data"):
            fit(NET, *other, RIDGE, checkpoint=file)
    again = fit(NET, x, y, RIDGE, rtol=1e-8, checkpoint=file)
    assert np.array_equal(again.coefficients, model.coefficients)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "qr"}, "method must be 'auto' or one of"),
        ({"n_landmarks": 0}, "n_landmarks must be"),
        ({"n_landmarks": 401}, "401 landmarks are more than the 400 samples"),
        ({"n_landmarks": 5, "method": "cg"}, "no effect with method='cg'"),
        ({"landmarks": "best"}, "landmarks must be 'rpcholesky', 'uniform'"),
        ({"landmarks": [0, 400]}, "landmarks must be from 0 to 399, not 0 to 400"),
        ({"landmarks": [-1]}, "landmarks must be from 0"),
        ({"landmarks": [3, 9, 3]}, "landmarks hold sample 3 more than once"),
        ({"landmarks": [0.5]}, "whole numbers"),
        ({"memory": 0}, "memory must be positive"),
        ({"memory": "8 GB"}, "memory must be positive"),
        ({"memory": 1000}, "too little for 400 points"),
        ({"seconds": np.nan}, "seconds must be positive"),
        ({"rtol": 0}, "rtol must be"),
        ({"rtol": 1}, "rtol must be"),
        ({"checkpoint": "c.npz", "method": "cholesky"}, "Cholesky keeps no checkpoint"),
        ({"ridge": -1}, "ridge must be"),
        ({"seed": -1, "n_landmarks": 5}, "seed must be"),
        ({"get": "both"}, "get must be"),
        ({"classify": True}, "labels must have shape"),
    ],
)
def test_bad_options(samples, options, words):
    (x, y), said = samples, []
    with pytest.raises(ValueError, match=words):
        fit(NET, x, y, **options, say=said.append)
    assert not said  # before any work


def test_bad_data(samples):
    x, y = samples
    wrong = x.copy()
    wrong[398:, 0] = np.nan
    for given, words in (
        ((wrong, y), "x1 holds NaN or infinity in row 398, counted from 0"),
        ((x, np.where(np.arange(400)[:, None] > 255, np.inf, y)), "y holds NaN .* in row 256"),
        ((x, y[:-1]), "y must have shape"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(NET, *given)
    with pytest.raises(ValueError, match="one class only"):
        fit(NET, x, np.ones(400), classify=True)


def test_the_command_line(samples, tmp_path):
    x, y = samples
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.where(y[:, 0] > 0, "up", "down"))
    files = [str(tmp_path / name) for name in ("x.npy", "y.npy", "model.npz", "out.npy")]
    done = run("fit", "fc:2", *files[:3], "--landmarks", "60")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("landmarks, 400 points, 60 landmarks")
    assert lines[-1] == f"the model: {files[2]}"
    done = run("predict", files[2], files[0], files[3])
    assert done.stdout == f"400 predictions: {files[3]}\n"
    found = np.load(files[3])
    assert (found == np.load(files[1])).mean() > 0.9
    assert here("predict", files[2], files[0]).stdout.split() == found.tolist()
    for wrong, words in (
        (("predict", files[2]), "predict takes MODEL DATA [OUTPUT]"),
        (("predict", files[0], files[0]), "no model of `ntkcore fit`"),
        (("predict", files[2], files[0], files[0]), "would be overwritten"),
        (("predict", files[2], files[0], "--kernel", "ntk"), "has no effect"),
    ):
        done = here(*wrong)
        assert done.returncode != 0
        assert words in done.stderr


def test_labels_that_pandas_holds_as_objects(samples, tmp_path):
    x, y = samples
    labels = np.where(y[:, 0] > 0, "up", "down").astype(object)
    model = fit(NET, x, labels, RIDGE, classify=True)
    known = KernelModel.load(model.save(tmp_path / "model.npz"))
    assert np.array_equal(known.predict(x[:20]), model.predict(x[:20]))
    labels[7] = None
    with pytest.raises(TypeError, match="is one missing"):
        fit(NET, x, labels, RIDGE, classify=True)
    labels[7] = np.nan
    with pytest.raises(TypeError, match="is one missing"):
        fit(NET, x, labels, RIDGE, classify=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": "/nowhere/state.npz"}, "no folder"),
        ({"ridge": 0.0}, "need a positive ridge"),
        ({"classify": True}, "must have shape \\(400"),
    ],
)
def test_what_is_wrong_is_said_before_landmarks_are_chosen(samples, options, words, monkeypatch):
    x, y = samples
    monkeypatch.setattr("ntkcore.linalg.fitting.choose_landmarks", None)
    y = y[:-1, 0] if "classify" in options else y
    with pytest.raises((ValueError, OSError), match=words):
        fit(NET, x, y, n_landmarks=20, **options)


def test_a_killed_fit_goes_on_by_its_plan(samples, tmp_path, monkeypatch):
    """Measured anew, memory and speed give another rank, or another number of landmarks."""
    x, y = samples
    file, step = tmp_path / "state.npz", cg_module._Run.step

    def dies(self, columns):
        if self.done >= 10:
            raise KeyboardInterrupt
        step(self, columns)

    def choose(rank):
        return lambda n, *_: FitPlan("cg", n, n, rank, 1, 1, 1.0)

    monkeypatch.setattr(cg_module._Run, "step", dies)
    monkeypatch.setattr("ntkcore.linalg.fitting.choose", choose(3))
    with pytest.raises(KeyboardInterrupt):
        fit(NET, x, y, 1e-6, checkpoint=file)
    monkeypatch.setattr(cg_module._Run, "step", step)
    monkeypatch.setattr("ntkcore.linalg.fitting.choose", choose(7))
    said = []
    whole = fit(NET, x, y, 1e-6, checkpoint=file, say=said.append)
    assert "rank 3" in said[0]
    K = nk.kernel(NET, x)
    exact = K @ np.linalg.solve(K + 1e-6 * np.diagonal(K).mean() * np.eye(len(x)), y)
    assert relative_error(whole.predict(x), exact) < 1e-4
    with pytest.raises(ValueError, match="another problem"):  # asked for otherwise: a new plan
        fit(NET, x, y, 1e-6, checkpoint=file, memory=1e9)
