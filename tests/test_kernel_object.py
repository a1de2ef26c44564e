"""scikit-learn's kernel object, in processes, machines and searches."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC, SVR

from ntkcore import kernel, kernel_diag, mlp
from ntkcore.estimators import NTKClassifier, NTKKernel, NTKRegressor, kernel_object, ridge
from test_estimators import NET, reference, toy


class TestKernelObject:
    @pytest.mark.parametrize("get", ["ntk", "nngp"])
    @pytest.mark.parametrize("net", [None, NET])
    def test_values(self, net, get):
        (X, _), (Z, _) = toy(), toy(25, seed=1)
        k, spec = NTKKernel(net, depth=2, get=get), net or mlp(2, 2**0.5, 0.1)
        np.testing.assert_array_equal(k(X), kernel(spec, X, get=get))
        np.testing.assert_array_equal(k(X, X), k(X))
        np.testing.assert_array_equal(k(X, Z), kernel(spec, X, Z, get=get))
        np.testing.assert_array_equal(k.diag(X), kernel_diag(spec, X, get=get))
        assert k(X.astype("f4")).dtype == k.diag(X.astype("f4")).dtype == np.float64
        assert not k.is_stationary()

    def test_hyperparameters(self):
        k = NTKKernel(W_std=1.5, b_std=0.25)
        assert [h.name for h in k.hyperparameters] == ["W_std", "b_std"]
        np.testing.assert_allclose(np.exp(k.theta), [1.5, 0.25])
        np.testing.assert_allclose(np.exp(k.bounds), [[0.1, 10], [1e-3, 10]])
        moved = k.clone_with_theta(np.log([2.0, 0.5]))
        np.testing.assert_allclose([moved.W_std, moved.b_std], [2.0, 0.5])
        assert clone(k) == k == pickle.loads(pickle.dumps(k)) != moved
        assert repr(k) == "NTKKernel(depth=3, W_std=1.5, b_std=0.25)"
        assert repr(NTKKernel(NET)) == f"NTKKernel({NET!r})"

    @pytest.mark.parametrize(
        ("k", "free"),
        [
            (NTKKernel(W_std_bounds="fixed"), ["b_std"]),
            (NTKKernel(b_std_bounds="fixed"), ["W_std"]),
            (NTKKernel(b_std=None), ["W_std"]),
            (NTKKernel(b_std=0.0), ["W_std"]),
            (NTKKernel(NET), []),
        ],
    )
    def test_fixed_hyperparameters(self, k, free):
        assert [h.name for h in k.hyperparameters if not h.fixed] == free
        assert len(k.theta) == len(k.bounds) == len(free)
        K, gradient = k([[1.0, 2.0], [0.0, 1.0]], eval_gradient=True)
        assert K.shape == (2, 2)
        assert gradient.shape == (2, 2, len(free))

    @pytest.mark.parametrize("depth", [0, 1, 3, 8])
    @pytest.mark.parametrize("get", ["ntk", "nngp"])
    def test_gradient_of_a_homogeneous_network(self, depth, get):
        """Without biases a ReLU network's kernels are W_std^(2 depth + 2) times a constant."""
        K, gradient = NTKKernel(depth=depth, b_std=None, W_std=1.3, get=get)(
            toy()[0], eval_gradient=True
        )
        scale = (2 * depth + 2) * np.abs(K).max()
        np.testing.assert_allclose(
            gradient[:, :, 0], (2 * depth + 2) * K, rtol=0, atol=1e-13 * scale
        )

    def test_gradient_against_richardson(self):
        """Fourth-order differences with a far larger step."""
        X, k, h = toy(20)[0], NTKKernel(depth=2, W_std=1.3, b_std=0.7), 3e-3
        _, gradient = k(X, eval_gradient=True)
        for i, e in enumerate(np.eye(2)):
            at = [k.clone_with_theta(k.theta + s * h * e)(X) for s in (-2, -1, 1, 2)]
            np.testing.assert_allclose(
                gradient[:, :, i], (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h), rtol=1e-7
            )


class TestGaussianProcess:
    def test_marginal_likelihood_is_maximised(self):
        X, y = toy(80, 2)
        k = NTKKernel(depth=2) + WhiteKernel(0.1)
        model, prior = (
            GaussianProcessRegressor(k, optimizer=o).fit(X, y) for o in ("fmin_l_bfgs_b", None)
        )
        assert model.log_marginal_likelihood_value_ > prior.log_marginal_likelihood_value_ + 5
        _, gradient = model.log_marginal_likelihood(model.kernel_.theta, eval_gradient=True)
        assert np.abs(gradient).max() < 0.1
        mean, std = model.predict(X, return_std=True)
        assert np.corrcoef(mean, y)[0, 1] > 0.95
        assert (std > 0).all()

    def test_gradient_of_the_marginal_likelihood(self):
        X, y = toy(40)
        model = GaussianProcessRegressor(
            ConstantKernel() * NTKKernel(depth=2) + WhiteKernel(), optimizer=None
        ).fit(X, y)
        theta, h = np.array([0.1, 0.3, -2.0, -1.0]), 1e-5
        _, gradient = model.log_marginal_likelihood(theta, eval_gradient=True)
        f = model.log_marginal_likelihood
        expected = [(f(theta + h * e) - f(theta - h * e)) / (2 * h) for e in np.eye(4)]
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)

    def test_nngp_mean_is_the_regressor_of_the_same_ridge(self):
        X, y = toy()
        noise = 1e-2 * kernel_diag(NET, X, "nngp").mean()
        process = GaussianProcessRegressor(NTKKernel(NET, get="nngp"), alpha=noise).fit(X, y)
        ridge = NTKRegressor(NET, get="nngp", ridge=1e-2).fit(X, y)
        np.testing.assert_allclose(process.predict(X), ridge.predict(X), rtol=1e-8)

    def test_classifier(self):
        X, y = toy(80, 2)
        model = GaussianProcessClassifier(NTKKernel(NET)).fit(X, y > 0)
        assert model.score(X, y > 0) > 0.8


@pytest.mark.parametrize(
    ("model", "apply", "fits"),
    [
        (SVC(kernel=NTKKernel(NET)), "predict", 1),
        (SVR(kernel=NTKKernel(NET)), "predict", 1),
        (KernelRidge(kernel=NTKKernel(NET)), "predict", 1),
        (Nystroem(NTKKernel(NET), n_components=60, random_state=0), "transform", 1),
        (KernelPCA(2, kernel=NTKKernel(NET)), "transform", 1),
        # Once more for the likelihood.
        (GaussianProcessRegressor(NTKKernel(NET), alpha=1e-3), "predict", 2),
        (NTKRegressor(NET), "predict", 1),
        (NTKClassifier(NET), "predict", 1),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_whole_matrices_are_asked_for(model, apply, fits, monkeypatch):
    """Symmetric calls to fit, one rectangular call to apply: never one a pair."""
    calls = []

    def counted(net, x1, x2=None, *args, **kwargs):
        calls.append((len(x1), None if x2 is None else len(x2)))
        return kernel(net, x1, x2, *args, **kwargs)

    for module in (ridge, kernel_object):
        monkeypatch.setattr(module, "kernel", counted)
    (X, y), (Z, _) = toy(), toy(25, seed=1)
    fitted = model.fit(X, y > 0 if isinstance(model, (SVC, NTKClassifier)) else y)
    assert calls == [(60, None)] * fits
    calls.clear()
    getattr(fitted, apply)(Z)
    assert calls == [(25, 60)]


def test_kernel_ridge_with_the_kernel_object():
    (X, y), (Z, _) = toy(), toy(25, seed=1)
    alpha = 1e-2 * kernel_diag(NET, X).mean()
    model = KernelRidge(alpha=alpha, kernel=NTKKernel(NET)).fit(X, y)
    np.testing.assert_allclose(model.predict(Z), reference(NET, X, y, Z, 1e-2), rtol=1e-9)


def test_svc_with_the_kernel_object():
    (X, y), (Z, _) = toy(), toy(25, seed=1)
    given = SVC(kernel=NTKKernel(NET)).fit(X, y > 0).decision_function(Z)
    precomputed = (
        SVC(kernel="precomputed").fit(kernel(NET, X), y > 0).decision_function(kernel(NET, Z, X))
    )
    np.testing.assert_allclose(given, precomputed, rtol=1e-9)


def test_nystroem_with_the_kernel_object():
    X, _ = toy()
    features = Nystroem(NTKKernel(), n_components=60, random_state=0).fit_transform(X)
    np.testing.assert_allclose(features @ features.T, NTKKernel()(X), rtol=1e-6, atol=1e-6)
