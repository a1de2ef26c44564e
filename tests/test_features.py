"""Random features against exact kernels: their mean, their error's decay, their parts;
ridge regression on them against kernel ridge.
"""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import ntkcore as nk
from ntkcore import Dense, Relu, Serial, kernel, mlp
from ntkcore.estimators import (
    NNGPFeatures,
    NTKFeatures,
    StreamedRidge,
    StreamedRidgeClassifier,
    feature_plan,
    models,
    sketches,
    streamed,
)

CHECKED = parametrize_with_checks(
    [
        NTKFeatures(n_components=64),
        NNGPFeatures(depth=1, n_components=64),
        StreamedRidge(),
        StreamedRidgeClassifier(),
    ]
)


@pytest.mark.parametrize(CHECKED.args[0], list(CHECKED.args[1]), **CHECKED.kwargs)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def points(n=6, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


FACES = {"ntk": NTKFeatures, "nngp": NNGPFeatures}
HIDDEN = 256  # columns of a hidden layer at least: the bias is of the order of their inverse
NETS = {
    "linear": (mlp(0, 1.3, 0.4), 0),
    "one": (mlp(1), 0),
    "one, biases, other scale": (mlp(1, 0.9, 0.7), 0),
    "two": (mlp(2, 1.1), 2),
    "three, biases": (mlp(3, 1.6, 0.3), 2),
    "no read-out": (Serial(Dense(1.2, 0.5), Relu()), 0),
    "two slopes": (Serial(Dense(1.2), nk.ABRelu(-0.5, 2.0), Dense(0.8, 0.2)), 0),
    "absolute value": (Serial(Dense(), nk.Abs(), Dense(2.0)), 0),
    "leaky": (Serial(Dense(1.2), nk.LeakyRelu(0.3), Dense(0.8), nk.Abs(), Dense()), 2),
    "denses": (Serial(Dense(1.2, 0.1), nk.Identity(), Dense(0.5, 1.0), Relu(), Dense()), 0),
    "biases alone": (Serial(Dense(0.0, 1.0), Relu(), Dense(1.0, 0.5)), 0),
    "one bias alone": (Serial(Dense(0.0, 1.0)), 0),
}


CASES = [(name, 5, 300) for name in NETS]
CASES += [("three, biases", 40, 70), ("three, biases", 5, 4)]  # inputs projected; all sketched


@pytest.mark.parametrize("get", FACES)
@pytest.mark.parametrize(("name", "inputs", "size"), CASES)
def test_the_mean_is_the_kernel(name, get, inputs, size):
    """By the standard error over seeds; beyond one hidden layer but for a bias of order 1/m."""
    (net, biased), x, seeds = NETS[name], points(d=inputs), 80
    found = np.empty((seeds, len(x), len(x)))
    for seed in range(seeds):
        Z = FACES[get](net, n_components=size, random_state=seed, threads=1).fit_transform(x)
        found[seed] = Z @ Z.T
    K = kernel(net, x, get=get)
    scale = np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    error = found.std(0) / seeds**0.5
    apart = np.abs(found.mean(0) - K)
    assert (apart <= 4.5 * error + biased / HIDDEN * scale + 1e-9 * scale).all()
    assert (error < {300: 0.02, 70: 0.05, 4: 0.2}[size] * scale).all()  # so that it may fail


@pytest.mark.parametrize("get", FACES)
def test_the_error_falls_as_one_over_the_root_of_the_size(get):
    x, net = points(40, 10), mlp(3, b_std=0.2)
    K = kernel(net, x, get=get)

    def error(size):
        Z = [FACES[get](net, n_components=size, random_state=s).fit_transform(x) for s in range(6)]
        return np.mean([np.linalg.norm(z @ z.T - K) for z in Z]) / np.linalg.norm(K)

    small, large = error(300), error(4800)
    assert 2.8 < small / large < 5.6  # 4
    assert large < {"ntk": 0.04, "nngp": 0.02}[get]


def test_a_linear_network_is_exact_in_few_features():
    x = points()
    Z = NTKFeatures(mlp(0, 1.5, 0.5), n_components=100).fit_transform(x)
    assert Z.shape == (6, 6)  # inputs, and one for the bias
    np.testing.assert_allclose(Z @ Z.T, kernel(mlp(0, 1.5, 0.5), x), rtol=1e-12)


@pytest.mark.parametrize("get", FACES)
@pytest.mark.parametrize("net", [mlp(0, b_std=1.0), mlp(1, b_std=0.1), mlp(3)])
def test_columns_are_shared_out_whole(net, get):
    """As many as are asked for, or one for each block; none that is not computed."""
    fewest = {1: 2, 3: 5, 7: 11}[len(net.layers)]
    for d in range(1, 40, 3):
        for size in range(1, 80):
            plan = feature_plan.feature_plan(net, d, size, get, "")
            exact = len(net.layers) == 1 and d + 1  # inputs and the bias
            assert plan.kept.sum() == min(max(size, fewest), exact or size + fewest)
            assert (plan.kept[1:] <= plan.widths[1:]).all()


class TestSketch:
    def test_is_random_signs_a_cosine_transform_and_some_entries(self):
        sketch = sketches.Sketch.of(5, 7, np.random.default_rng(0), np.float64)
        n, v = sketch.length, points(3)
        rows, columns = np.arange(n)[:, None], np.arange(5)
        cosines = np.cos(np.pi * (2 * columns + 1) * rows / (2 * n)) * (2 / n) ** 0.5
        cosines[0] /= 2**0.5
        expected = (v * sketch.signs) @ cosines[sketch.entries].T * (n / 7) ** 0.5
        np.testing.assert_allclose(sketch(v), expected, atol=1e-12)

    @pytest.mark.parametrize("outputs", [3, 11])
    def test_products_with_signs_have_the_product_of_inner_products_as_mean(self, outputs):
        rng = np.random.default_rng(0)
        u, a = points(2, 6)[0], points(2, 4)[0]
        v, b = u + points(2, 6)[1] / 2, a + points(2, 4)[1] / 2
        found, count = [], 3000
        for _ in range(count):
            left, right = sketches.Sketch.of(6, outputs, rng, np.float64)(np.stack([u, v]))
            g = rng.standard_normal((4, outputs))
            found.append((left * np.sign(a @ g)) @ (right * np.sign(b @ g)))
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        expected = u @ v * 2 / np.pi * np.arcsin(cosine)
        assert abs(np.mean(found) - expected) < 4 * np.std(found) / count**0.5
        assert np.std(found) / count**0.5 < 0.1 * abs(expected)


@pytest.mark.parametrize("face", FACES.values())
class TestDraws:
    def test_are_those_of_random_state(self, face):
        x = points(50)
        first, again, other = (
            face(n_components=80, random_state=seed).fit(x) for seed in (3, 3, 4)
        )
        np.testing.assert_array_equal(first.transform(x), again.transform(x))
        np.testing.assert_array_equal(first.transform(x), first.fit(x[:1]).transform(x))
        assert np.abs(first.transform(x) - other.transform(x)).max() > 0.1
        state = np.random.RandomState(3)
        a, b = (face(n_components=80, random_state=state).fit_transform(x) for _ in range(2))
        assert np.abs(a - b).max() > 0.1

    def test_do_not_depend_on_batches_or_threads(self, face, monkeypatch):
        x = points(50)
        model = face(n_components=80, random_state=0).fit(x)
        whole = model.transform(x)
        monkeypatch.setattr(sketches, "BATCH", 7)
        np.testing.assert_allclose(model.transform(x), whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(
            model.set_params(threads=3).transform(x), model.set_params(threads=1).transform(x)
        )
        pieces = np.concatenate([model.transform(x[:20]), model.transform(x[20:])])
        np.testing.assert_allclose(pieces, whole, rtol=1e-9, atol=1e-12)

    def test_of_both_precisions_agree(self, face):
        x = points(20)
        double, single = (
            face(n_components=400, random_state=0).fit_transform(x.astype(dtype))
            for dtype in ("f8", "f4")
        )
        assert (double.dtype, single.dtype) == (np.float64, np.float32)
        # A sign may differ where z is 0 up to rounding.
        assert np.abs(double @ double.T - single @ single.T).max() < 2e-2
        assert np.mean(np.abs(double - single) < 1e-5) > 0.999

    def test_survive_pickling_and_cloning(self, face):
        x = points()
        model = face(mlp(1, b_std=0.5), n_components=64, random_state=0).fit(x)
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(model)).transform(x), model.transform(x)
        )
        assert clone(model).get_params() == model.get_params()
        names = model.get_feature_names_out()
        assert names[0] == f"{face.__name__.lower()}0"
        assert len(names) == 64 == model.transform(x).shape[1]

    def test_of_any_magnitude(self, face):
        """Networks without biases are homogeneous."""
        x = points().astype("f4")
        model = face(mlp(2), n_components=64, random_state=0).fit(x)
        one = model.transform(x)
        for power in (-120, -40, 40, 120):
            scaled = model.transform(np.ldexp(x, power))
            np.testing.assert_array_equal(scaled, np.ldexp(one, power))
        assert not model.transform(np.zeros((2, 5), "f4")).any()
        with pytest.raises(ValueError, match=r"the features overflow float32: rescale the data"):
            face(mlp(2, 1e3), n_components=64).fit(x).transform(np.full((1, 5), 1e38, "f4"))

    def test_small_data_feel_the_biases_alone(self, face):
        net = mlp(2, 1.0, 0.5)
        model = face(net, n_components=4000, random_state=0).fit(points())
        Z = model.transform(1e-200 * points())
        expected = kernel(net, np.zeros((1, 5)), get=face._get)[0, 0]
        np.testing.assert_allclose(Z @ Z.T, expected, rtol=0.1)


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (mlp(2, activation=nk.Erf()), r"Erf\(\)"),
        (Serial(Dense(width=5), Relu(), Dense(parameterization="standard")), "parameteriz"),
        (Serial(Dense(), Relu(), nk.Dropout(0.5), Dense()), r"Dropout\("),
        (Serial(Dense(), nk.LayerNorm(), Relu(), Dense()), r"LayerNorm\(\)"),
        (Serial(Dense(), nk.Residual(Relu(), Dense())), r"Residual\("),
        (nk.cntk(2), r"Conv\("),
    ],
)
def test_networks_of_unknown_features_are_refused_by_name(net, layer):
    with pytest.raises(ValueError, match=rf"NTKFeatures: no random features .*{layer}.*Nystroem"):
        NTKFeatures(net).fit(points())


def test_what_does_not_fit_is_refused():
    x = points()
    for parameters, error, message in [
        ({"n_components": 0}, ValueError, "n_components must be a whole number of at least 1"),
        ({"depth": -1}, ValueError, "depth must be a number of hidden layers"),
        ({"net": "relu"}, TypeError, r"net must be a network spec"),
        ({"net": Serial(Relu(), Dense())}, ValueError, "a nonlinearity needs a Gaussian input"),
        ({"net": mlp(1, 0.0)}, ValueError, "NTKFeatures: the kernel of this network is 0"),
        ({"net": Serial()}, ValueError, "NTKFeatures: the kernel of this network is 0"),
        ({"threads": 0}, ValueError, "threads must be a positive number"),
        ({"random_state": "x"}, ValueError, "cannot be used to seed"),
    ]:
        with pytest.raises(error, match=message):
            NTKFeatures(**parameters).fit(x)
    with pytest.raises(ValueError, match=r"of images pass x.reshape\(len\(x\), -1\)"):
        NTKFeatures().fit(np.ones((2, 3, 3, 1)))
    with pytest.raises(ValueError, match="expecting 5 features"):
        NTKFeatures(n_components=20).fit(x).transform(x[:, :3])
    with pytest.raises(ValueError, match="beyond the range of float32: rescale"):
        NTKFeatures(n_components=20).fit(x.astype("f4")).transform(1e200 * x)


def test_features_that_do_not_fit_into_memory_are_refused(monkeypatch):
    model = NTKFeatures(n_components=64).fit(points())
    monkeypatch.setattr(models, "free_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match=r"drawing 64 features needs .* take fewer"):
        NTKFeatures(n_components=64).fit(points())
    with pytest.raises(MemoryError, match=r"needs 3 KiB, but 0.977 KiB are free: transform bat"):
        model.transform(points())
    with pytest.raises(MemoryError, match=r"Z\^T Z of 9 features needs 1.27 KiB, .* take fewer"):
        StreamedRidge().partial_fit(points(4, 9), points(4, 1))


class TestStreamedRidge:
    @pytest.mark.parametrize("outputs", [None, 1, 3])
    @pytest.mark.parametrize("dtype", ["f8", "f4"])
    def test_in_pieces_at_once_and_by_the_kernel(self, outputs, dtype, monkeypatch):
        monkeypatch.setattr(streamed, "ROWS", 16)
        x = points(90)
        y = x[:, 0] * x[:, 1] if outputs is None else x[:, :outputs] ** 2
        Z = NTKFeatures(n_components=200, random_state=0).fit_transform(x.astype(dtype))
        whole, pieces = StreamedRidge(ridge=1e-2).fit(Z, y), StreamedRidge(ridge=1e-2)
        for rows in (slice(0, 40), slice(40, 41), slice(41, 90)):
            pieces.partial_fit(Z[rows], y[rows])
        K = Z.astype(float) @ Z.T.astype(float)
        exact = KernelRidge(alpha=1e-2 * K.trace() / 90, kernel="precomputed").fit(K, y)
        tolerance = {"f8": 1e-9, "f4": 1e-3}[dtype]
        for model in (whole, pieces):
            assert (model.n_samples_seen_, model.coef_.shape) == (90, (200, *y.shape[1:]))
            assert model.predict(Z).dtype == dtype
            np.testing.assert_allclose(model.predict(Z), exact.predict(K), atol=tolerance)

    def test_fit_forgets_and_partial_fit_does_not(self):
        Z, y = points(30), points(30, 1, 1)[:, 0]
        again = StreamedRidge().fit(Z, -y).fit(Z, y)
        np.testing.assert_array_equal(again.coef_, StreamedRidge().fit(Z, y).coef_)
        assert StreamedRidge().fit(Z, y).partial_fit(Z, y).n_samples_seen_ == 60

    def test_the_ridge_may_change_without_another_fit(self):
        Z, y = points(30), points(30, 1, 1)[:, 0]
        model = StreamedRidge(ridge=1e-3).fit(Z, y).set_params(ridge=1.0)
        np.testing.assert_array_equal(model.coef_, StreamedRidge(ridge=1.0).fit(Z, y).coef_)

    def test_no_ridge_is_least_norm(self):
        Z, y = points(4, 9), points(4, 1, 1)[:, 0]
        np.testing.assert_allclose(
            StreamedRidge(ridge=0).fit(Z, y).coef_, np.linalg.pinv(Z) @ y, atol=1e-9
        )

    @pytest.mark.parametrize(
        ("dtype", "size"),
        [("f4", 2.0**-100), ("f4", 2.0**-60), ("f4", 2.0**100), ("f8", 2.0**-440)],
    )
    def test_features_of_any_size(self, dtype, size):
        """Whose squares vanish or overflow in their own precision."""
        Z, y = points(60).astype(dtype), points(60, 2, 1)
        one, other = StreamedRidge().fit(Z, y), StreamedRidge().fit(Z * Z.dtype.type(size), y)
        expected = one.predict(Z)
        np.testing.assert_allclose(other.predict(Z * Z.dtype.type(size)), expected, rtol=1e-5)
        np.testing.assert_allclose(other.coef_ * size, one.coef_, rtol=1e-12)

    def test_sums_in_float64(self):
        """Of float32 features: in float32, 1e8 + 1 is 1e8."""
        model = StreamedRidge().fit(np.full((1, 1), 1e4, "f4"), [1.0])
        for _ in range(100):
            model.partial_fit(np.ones((1, 1), "f4"), [1.0])
        assert model.gram_[0, 0] == 1e8 + 100
        assert model.moments_[0, 0] == 1e4 + 100

    def test_what_does_not_fit_is_refused(self):
        Z, y = points(30), points(30, 2, 1)
        for ridge in (-1.0, np.nan, "x"):
            with pytest.raises(ValueError, match="ridge must be finite and at least 0"):
                StreamedRidge(ridge=ridge).fit(Z, y)
        with pytest.raises(ValueError, match=r"y has targets of shape \(\), those before had"):
            StreamedRidge().fit(Z, y).partial_fit(Z, y[:, 0])
        for size in (1e-200, 1e200):
            with pytest.raises(ValueError, match="squares leave the range of float64"):
                StreamedRidge().fit(Z * size, y)
        with pytest.raises(AttributeError, match="no coef_ before fit"):
            _ = StreamedRidge().coef_


class TestStreamedClassifier:
    @pytest.mark.parametrize("count", [2, 4])
    def test_is_ridge_on_the_classes(self, count):
        Z = points(60)
        labels = np.array(["d", "b", "c", "a"])[np.digitize(Z[:, 0], [-0.7, 0, 0.7]) % count]
        names = np.unique(labels)
        pieces = StreamedRidgeClassifier()
        order = np.argsort(labels)  # the first batch holds one class
        for rows in (order[:10], order[10:]):
            pieces.partial_fit(Z[rows], labels[rows], classes=names)
        whole = StreamedRidgeClassifier().fit(Z, labels)
        one_hot = (labels[:, None] == names) * 1.0
        targets = one_hot - 1 / count if count > 2 else 2 * one_hot[:, 1] - 1
        expected = StreamedRidge().fit(Z, targets).predict(Z)
        for model in (pieces, whole):
            assert model.classes_.tolist() == names.tolist()
            np.testing.assert_allclose(model.decision_function(Z), expected, atol=1e-10)
            assert (model.predict(Z) == labels).mean() > 0.5

    def test_labels_and_classes_that_do_not_fit(self):
        Z, labels = points(6), np.arange(6) % 3
        model = StreamedRidgeClassifier().partial_fit(Z, labels)
        with pytest.raises(ValueError, match=r"labels that are not among the classes \[0 1 2\]"):
            model.partial_fit(Z, labels + 1)
        with pytest.raises(ValueError, match="classes are not those of the first call"):
            model.partial_fit(Z, labels, classes=[0, 1])
        with pytest.raises(ValueError, match=r"one class only \(0\).*pass classes="):
            StreamedRidgeClassifier().partial_fit(Z, 0 * labels)
        assert model.n_samples_seen_ == 6

    def test_digits_through_a_pipeline(self):
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        model = make_pipeline(
            NTKFeatures(n_components=1500, random_state=0), StreamedRidgeClassifier()
        ).fit(X[:1300].astype("f4"), y[:1300])
        assert model.score(X[1300:].astype("f4"), y[1300:]) > 0.92
