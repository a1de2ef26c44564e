"""Estimators of lists of graphs, and of packed ones."""

import pickle
import re

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import ntkcore as nk
from conftest import relative_error
from graph_reference import random_graph
from ntkcore.estimators import GraphKernel, NTKClassifier, NTKRegressor


def ring(n, closed):
    """A cycle or a path, whose nodes know their degree."""
    A = np.eye(n, k=1) + np.eye(n, k=-1)
    if closed:
        A[0, -1] = A[-1, 0] = 1
    return np.eye(3)[A.sum(axis=1).astype(int)], sparse.csr_array(A)


RINGS = [ring(n, closed) for n in range(4, 16) for closed in (False, True)]
LABELS = np.array(["path", "cycle"] * 12)


def some_graphs(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [random_graph(rng, n, 3) for n in sizes]


@pytest.mark.parametrize("weights", ["uniform", "degree"])
@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("normalize", [False, True])
def test_kernels_of_lists(weights, get, normalize):
    graphs = some_graphs((5, 3, 8, 12, 20))
    K = nk.kernel(nk.gntk(3, 1), nk.pack_graphs(graphs, weights=weights), get=get)
    if normalize:
        K = K / np.sqrt(np.outer(np.diag(K), np.diag(K)))
    model = GraphKernel(blocks=3, layers=1, weights=weights, get=get, normalize=normalize)
    train, test = graphs[:3], graphs[3:]  # larger ones
    assert relative_error(model.fit_transform(train), K[:3, :3]) < 1e-12
    assert relative_error(model.transform(test), K[3:, :3]) < 1e-12
    assert relative_error(model.transform(train), K[:3, :3]) < 1e-8  # equal nodes
    own = GraphKernel(nk.gntk(3, 1), weights=weights, get=get, normalize=normalize)
    assert np.array_equal(own.fit(train).transform(test), model.transform(test))
    single = clone(model).set_params(dtype="float32").fit(train).transform(test)
    assert single.dtype == np.float32
    assert relative_error(single, K[3:, :3]) < 5e-6


def test_a_graph_without_features_has_no_cosine():
    zero = (np.zeros((3, 3)), np.ones((3, 3)))
    K = GraphKernel(normalize=True).fit_transform([*some_graphs((4,)), zero])
    assert np.allclose(K, np.diag([1.0, 0.0]))


def test_with_scikit_learn():
    """Pipelines, cross-validation, searches over the kernel's parameters; pickled and cloned."""
    machine = make_pipeline(GraphKernel(normalize=True), SVC(kernel="precomputed", C=100))
    assert cross_val_score(machine, RINGS, LABELS, cv=3).mean() > 0.9
    search = GridSearchCV(
        machine,
        {"graphkernel__weights": ["uniform", "degree"], "graphkernel__blocks": [1, 2]},
        cv=2,
    ).fit(RINGS, LABELS)
    larger = [ring(18, False), ring(19, True)]
    assert search.predict(larger).tolist() == ["path", "cycle"]
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert again.predict(larger).tolist() == ["path", "cycle"]
    sizes = [g[0].shape[0] for g in RINGS]
    ridge = make_pipeline(GraphKernel(blocks=1), KernelRidge(alpha=1e-6, kernel="precomputed"))
    assert ridge.fit(RINGS, sizes).score(RINGS, sizes) > 0.99


def test_ridge_on_packed_graphs():
    """Those of `predict` may be larger, or padded otherwise."""
    net, x = nk.gntk(2, 1), nk.pack_graphs(RINGS)
    larger = [ring(17, False), ring(18, True)]
    both = nk.pack_graphs([*RINGS, *larger])
    K = nk.kernel(net, both)
    n = len(RINGS)
    shift = 1e-3 * np.diag(K)[:n].mean()
    sizes = np.array([g[0].shape[0] for g in RINGS], float)
    expected = K[n:, :n] @ np.linalg.solve(K[:n, :n] + shift * np.eye(n), sizes)
    model = NTKRegressor(net).fit(x, sizes)
    assert relative_error(model.predict(nk.pack_graphs(larger)), expected) < 1e-6
    assert relative_error(model.predict(both[n:]), expected) < 1e-6
    assert relative_error(model.predict(nk.pack_graphs(RINGS[:1])), model.predict(x)[:1]) < 1e-6
    labels = NTKClassifier(net, ridge=1e-5).fit(x, LABELS)
    assert labels.predict(nk.pack_graphs(larger)).tolist() == ["path", "cycle"]
    with pytest.raises(ValueError, match="have 2 and 3 features"):
        model.predict(nk.pack_graphs([(np.ones((3, 2)), np.ones((3, 3)))]))
    with pytest.raises(ValueError, match=re.escape("packed graphs of shapes (3, 2)")):
        model.predict(np.ones((3, 2)))


BAD = {
    "other features": (lambda m: m.transform([(np.ones((3, 2)), np.eye(3))]), "nodes have 2 feat"),
    "misfit": (lambda m: m.transform([(np.ones((3, 3)), np.eye(4))]), "graph 0 has 3 nodes"),
    "NaN": (lambda m: m.fit([(np.ones((1, 3)), [[np.nan]])]), "adjacency of graph 0 holds NaN"),
    "empty": (lambda m: m.fit([]), "no graphs: the list is empty"),
    "no nodes": (lambda m: m.fit([(np.ones((0, 3)), np.ones((0, 0)))]), "graph 0 has no nodes"),
    "array": (lambda m: m.fit(np.ones((3, 3))), "graphs must be a list of pairs"),
    "net": (lambda m: m.set_params(net=nk.mlp(1)).fit(RINGS), "must begin with GraphInput()"),
    "get": (lambda m: m.set_params(get="cov").fit(RINGS), "get must be 'ntk' or 'nngp'"),
    "blocks": (lambda m: m.set_params(blocks=0).fit(RINGS), "gntk: blocks must be"),
    "weights": (lambda m: m.set_params(weights="w").fit_transform(RINGS), "weights must be one"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call(GraphKernel().fit(RINGS))


def test_not_fitted():
    with pytest.raises(NotFittedError):
        GraphKernel().transform(RINGS)
