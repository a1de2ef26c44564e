"""The scikit-learn face: its own estimator checks, numbers against its KernelRidge,
and calls by whole matrices.
"""

import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ntkcore import Dense, Erf, Relu, Serial, kernel, mlp
from ntkcore.estimators import NTKClassifier, NTKKernel, NTKRegressor, kernel_object, ridge
from ntkcore.linalg.cholesky import least_norm

NET = Serial(Dense(1.5, 0.1), Erf(), Dense(1.2, 0.3), Relu(), Dense())
CHECKED = parametrize_with_checks(
    [NTKClassifier(), NTKRegressor(), NTKRegressor(net=NET, get="nngp")]
)


@pytest.mark.parametrize(CHECKED.args[0], list(CHECKED.args[1]), **CHECKED.kwargs)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def toy(n=60, d=4, outputs=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = np.sin(2 * X[:, 0]) + X[:, 1] + 0.2 * rng.normal(size=n)
    return X, y if outputs is None else np.stack([y * (k + 1) - k for k in range(outputs)], axis=1)


def reference(net, X, y, Z, ridge, get="ntk", sample_weight=None):
    """The same by scikit-learn's KernelRidge on matrices of ntkcore.kernel."""
    K = kernel(net, X, get=get)
    shift = ridge * np.average(np.diag(K), weights=sample_weight)
    model = KernelRidge(alpha=shift, kernel="precomputed").fit(K, y, sample_weight)
    return model.predict(kernel(net, Z, X, get=get))


class TestRidge:
    @pytest.mark.parametrize("outputs", [None, 1, 3])
    @pytest.mark.parametrize("get", ["ntk", "nngp"])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_agrees_with_kernel_ridge(self, outputs, get, weighted):
        (X, y), (Z, _) = toy(outputs=outputs), toy(25, seed=1)
        weight = np.linspace(0, 3, len(X)) if weighted else None
        model = NTKRegressor(NET, ridge=1e-2, get=get).fit(X, y, weight)
        expected = reference(NET, X, y, Z, 1e-2, get, weight)
        assert model.dual_coef_.shape == y.shape
        np.testing.assert_allclose(model.predict(Z), expected, rtol=1e-9, atol=1e-10)

    def test_without_a_net_it_is_an_mlp(self):
        X, y = toy()
        given = NTKRegressor(mlp(2, 1.3, 0.2)).fit(X, y)
        described = NTKRegressor(depth=2, W_std=1.3, b_std=0.2).fit(X, y)
        np.testing.assert_array_equal(given.dual_coef_, described.dual_coef_)

    def test_dtypes(self):
        X, y = toy()
        exact = NTKRegressor().fit(X, y).predict(X)
        for data, dtype, result in [
            (X.astype("f4"), None, "f4"),
            (X, "float32", "f4"),
            (X.astype("f4"), "float64", "f8"),
        ]:
            predicted = NTKRegressor(dtype=dtype).fit(data, y).predict(data)
            assert predicted.dtype == result
            np.testing.assert_allclose(predicted, exact, atol=1e-3)

    def test_a_weight_is_a_number_of_copies(self):
        X, y = toy()
        copies = np.arange(len(X)) % 4
        weighted = NTKRegressor().fit(X, y, sample_weight=copies)
        repeated = NTKRegressor().fit(X.repeat(copies, axis=0), y.repeat(copies))
        np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)

    def test_ridge_is_relative_to_the_diagonal(self):
        """A kernel of any scale gives the same function."""
        X, y = toy()
        small, large = (NTKRegressor(mlp(2, scale)).fit(X, y).predict(X) for scale in (0.1, 10.0))
        np.testing.assert_allclose(small, large, rtol=1e-9)

    def test_no_ridge_interpolates(self):
        X, y = toy(outputs=2)
        np.testing.assert_allclose(NTKRegressor(ridge=0).fit(X, y).predict(X), y, atol=1e-9)

    def test_duplicates_without_ridge_get_the_mean_of_their_targets(self):
        X, y = toy()
        predicted = (
            NTKRegressor(ridge=0).fit(np.vstack([X, X]), np.concatenate([y, y + 2])).predict(X)
        )
        np.testing.assert_allclose(predicted, y + 1, atol=1e-8)

    def test_a_kernel_of_zeros(self):
        assert (
            not NTKRegressor(b_std=None)
            .fit(np.zeros((3, 2)), [1.0, 2.0, 3.0])
            .predict(np.ones((2, 2)))
            .any()
        )

    def test_solve_works_in_place(self):
        K = kernel(NET, toy()[0])
        before = K.copy()
        least_norm(K, np.ones((len(K), 1)), 0.5, overwrite=True)
        lower = np.tril_indices(len(K), -1)
        assert (K[lower] != before[lower]).all()  # Cholesky's factor
        # What the fallback rests on.
        np.testing.assert_array_equal(np.triu(K, 1), np.triu(before, 1))

    @pytest.mark.parametrize("scale", [1.0, 1e-200])
    def test_solve_of_a_singular_matrix_is_the_pseudo_inverse(self, scale):
        rng = np.random.default_rng(0)
        factor, targets = rng.normal(size=(80, 30)), rng.normal(size=(80, 2))
        K = scale * (factor @ factor.T)
        expected = np.linalg.pinv(factor @ factor.T, rcond=1e-12, hermitian=True) @ targets / scale
        np.testing.assert_allclose(
            least_norm(K, targets, 0.0), expected, rtol=1e-8, atol=1e-12 / scale
        )

    def test_solve_distrusts_pivots_below_rounding(self):
        """Cholesky runs through, but 1e-20 beside 1 is noise in a kernel matrix."""
        solved = least_norm(np.diag([1.0, 2.0, 1e-20]), np.ones((3, 1)), 0.0)
        np.testing.assert_allclose(solved[:, 0], [1.0, 0.5, 0.0])

    def test_prediction_in_batches(self, monkeypatch):
        (X, y), (Z, _) = toy(), toy(700, seed=1)
        model = NTKRegressor().fit(X, y)
        whole = model.predict(Z)
        monkeypatch.setattr(ridge, "BATCH_ENTRIES", 1)
        np.testing.assert_allclose(model.predict(Z), whole, rtol=1e-12)

    def test_float32_warns_of_a_ridge_below_its_noise(self):
        X, y = toy()
        with pytest.warns(
            UserWarning,
            match=r"below the rounding error of a float32 kernel of 60 samples.*dtype='float64'",
        ):
            NTKRegressor(ridge=1e-7, dtype="float32").fit(X, y)


class TestClassifier:
    def test_digits(self):
        X, y = load_digits(return_X_y=True)
        train, test, labels, truth = train_test_split(X / 16, y, train_size=1000, random_state=0)
        model = NTKClassifier().fit(train, labels)
        assert model.score(test, truth) > 0.98
        assert (
            NTKClassifier(get="nngp", depth=1).fit(train.astype("f4"), labels).score(test, truth)
            > 0.97
        )

    def test_decision_function_of_many_classes(self):
        X, y = toy(90)
        labels = np.digitize(y, [-1, 1])
        model = NTKClassifier().fit(X, labels)
        outputs = model.decision_function(X)
        targets = np.eye(3)[labels]
        np.testing.assert_allclose(
            outputs, NTKRegressor().fit(X, targets - 1 / 3).predict(X), atol=1e-10
        )
        np.testing.assert_allclose(outputs.sum(axis=1), 0, atol=1e-12)
        one_hot = NTKRegressor().fit(X, targets).predict(X)
        np.testing.assert_array_equal(model.predict(X), one_hot.argmax(axis=1))

    def test_decision_function_of_two_classes(self):
        X, y = toy()
        names = np.where(y > 0, "yes", "no")
        model = NTKClassifier().fit(X, names)
        assert model.classes_.tolist() == ["no", "yes"]
        assert model.dual_coef_.shape == (60,)
        np.testing.assert_allclose(
            model.decision_function(X), NTKRegressor().fit(X, np.sign(y)).predict(X), atol=1e-10
        )
        np.testing.assert_array_equal(
            model.predict(X), np.where(model.decision_function(X) > 0, "yes", "no")
        )

    def test_probabilities_are_left_to_calibration(self):
        X, y = toy(200)
        assert not hasattr(NTKClassifier(), "predict_proba")
        model = CalibratedClassifierCV(NTKClassifier(), cv=3).fit(
            X, y > 0, sample_weight=np.ones(200)
        )
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("model", "targets"), [(NTKRegressor(NET), lambda y: y), (NTKClassifier(), lambda y: y > 0)]
)
class TestLife:
    def test_pickle_and_clone(self, model, targets):
        X, y = toy()
        fitted = clone(model).fit(X, targets(y))
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
        assert clone(fitted).get_params() == model.get_params()
        assert not hasattr(clone(fitted), "dual_coef_")

    def test_grid_search(self, model, targets):
        X, y = toy(90)
        pipeline = make_pipeline(StandardScaler(), model.set_params(net=None))
        name = type(model).__name__.lower()
        grid = {f"{name}__depth": np.arange(1, 4), f"{name}__ridge": np.geomspace(1e-4, 1, 3)}
        search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, targets(y))
        assert search.best_score_ > 0.5
        assert len(set(search.cv_results_["mean_test_score"])) > 3


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"ridge": -1.0}, ValueError, r"ridge, a multiple .* finite and >= 0, not -1.0"),
        ({"ridge": np.nan}, ValueError, r"finite and >= 0, not nan"),
        ({"ridge": "auto"}, ValueError, r"finite and >= 0, not 'auto'"),
        (
            {"get": ("nngp", "ntk")},
            ValueError,
            r"'ntk' or 'nngp', not \('nngp', 'ntk'\): NTKRegressor uses one kernel",
        ),
        ({"depth": 2.5}, ValueError, r"depth must be a number of hidden layers, not 2.5"),
        ({"W_std": -1.0}, ValueError, r"W_std must be finite and at least 0.*not -1.0"),
        ({"net": "relu"}, TypeError, r"net must be a network spec such as Serial\(.*, not str"),
        ({"dtype": "int8"}, ValueError, r"dtype must be float32 or float64, not int8"),
        ({"threads": 0}, ValueError, r"threads must be a positive number, not 0"),
    ],
)
def test_bad_parameters_are_refused_by_fit(parameters, error, message):
    X, y = toy(5)
    with pytest.raises(error, match=message):
        NTKRegressor(**parameters).fit(X, y)


def test_bad_data_are_refused():
    X, y = toy()
    with pytest.raises(
        ValueError, match=r"y holds one class only \(a\): a classifier needs two or more"
    ):
        NTKClassifier().fit(X, ["a"] * 60)
    with pytest.raises(
        ValueError, match="sample_weight multiplies squared errors: none may be negative"
    ):
        NTKRegressor().fit(X, y, sample_weight=-np.ones(60))
    with pytest.raises(ValueError, match="X has 3 features, but NTKRegressor is expecting 4"):
        NTKRegressor().fit(X, y).predict(X[:, :3])
    with pytest.raises(ValueError, match="leave out Y, or eval_gradient"):
        NTKKernel()(X, X, eval_gradient=True)
    with pytest.raises(
        ValueError, match="get must be 'ntk' or 'nngp', not 'cov': NTKKernel uses one kernel"
    ):
        NTKKernel(get="cov").diag(X)


def test_missing_scikit_learn_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import ntkcore; import ntkcore.estimators"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last == "ImportError: ntkcore.estimators needs scikit-learn and SciPy: pip install"
        ' "ntkcore[sklearn]"'
    )


def test_examples_of_the_docstrings():
    for module in (ridge, kernel_object):
        result = doctest.testmod(module)
        assert result.failed == 0 < result.attempted
