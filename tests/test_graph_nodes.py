"""Kernels of the nodes of one graph, and networks of finite width."""

import numpy as np
import pytest
from scipy import sparse

import ntkcore as nk
from conftest import relative_error
from graph_reference import random_graph, relu

RNG = np.random.default_rng(5)
FEATURES, ADJACENCY = random_graph(RNG, 11, 3)
LOOPED = ADJACENCY + np.eye(11)
DEGREE = LOOPED.sum(axis=1)
PATTERNS = {
    "symmetric": LOOPED / np.sqrt(np.outer(DEGREE, DEGREE)),
    "degree": LOOPED / DEGREE[:, None],
    "uniform": LOOPED,
    "given": ADJACENCY,
}


def plain(X, P, depth, W, b):
    """(NNGP, NTK) of a graph convolutional network with ReLU, layer by layer."""
    K, T = X @ X.T / X.shape[1], np.zeros((len(X), len(X)))
    for layer in range(depth + 1):
        K = W**2 * P @ K @ P.T + b**2
        T = W**2 * P @ T @ P.T + K
        if layer < depth:
            q = np.diag(K).copy()
            K, D = (dual / 2 for dual in relu(K, q, q))
            T = T * D
    return K, T


@pytest.mark.parametrize("weights", PATTERNS)
@pytest.mark.parametrize(("depth", "b_std"), [(0, None), (1, None), (2, 0.3), (4, 0.1)])
def test_against_numpy(weights, depth, b_std):
    expected = plain(FEATURES, PATTERNS[weights], depth, 1.3, b_std or 0)
    for adjacency in (ADJACENCY, sparse.csr_array(ADJACENCY), sparse.coo_matrix(ADJACENCY)):
        found = nk.gcn_kernel(
            FEATURES, adjacency, depth, ("nngp", "ntk"), W_std=1.3, b_std=b_std, weights=weights
        )
        for K, reference in zip(found, expected, strict=True):
            assert relative_error(K, reference) < 1e-10
            assert np.array_equal(K, K.T)
    assert np.array_equal(
        nk.gcn_kernel(FEATURES, adjacency, depth, W_std=1.3, b_std=b_std, weights=weights),
        found.ntk,
    )


@pytest.mark.parametrize("activation", [nk.Erf(), nk.Gelu()])
def test_sums_are_those_of_the_graph(activation):
    """The kernel of a graph whose read-out sums over its nodes, by the engine of many graphs."""
    hidden = nk.Aggregate(), nk.Dense(1.3, 0.2), activation
    net = nk.Serial(
        nk.GraphInput(), *hidden * 2, nk.Aggregate(), nk.Dense(1.3, 0.2), nk.GlobalSumPool()
    )
    whole = nk.kernel(
        net, nk.pack_graphs([(FEATURES, ADJACENCY)], weights="symmetric"), get=("nngp", "ntk")
    )
    nodes = nk.gcn_kernel(
        FEATURES, ADJACENCY, 2, ("nngp", "ntk"), W_std=1.3, b_std=0.2, activation=activation
    )
    for one, all_nodes in zip(whole, nodes, strict=True):
        assert relative_error(one, [[all_nodes.sum()]]) < 1e-9


def test_any_activation():
    """By its table, as long as variances of sums do."""
    found = nk.gcn_kernel(FEATURES, ADJACENCY, 2, activation=nk.Elementwise(np.sin))
    expected = nk.gcn_kernel(FEATURES, ADJACENCY, 2, activation=nk.Sin())
    assert relative_error(found, expected) < 1e-9


def check_finite_networks(width, seeds, case):
    pytest.importorskip("torch")
    from graph_networks import deviations

    features, adjacency = FEATURES[:5], ADJACENCY[:5, :5]
    x = nk.pack_graphs(
        [(features, adjacency), (features[:3] + 1, adjacency[:3, :3])], weights="symmetric"
    )
    samples = [(x[i, :n, :3], x[i, :n, 4 : 4 + n]) for i, n in enumerate((5, 3))]
    if case == "nodes":
        layers = (
            *(nk.Aggregate(), nk.Dense(1.3, 0.2), nk.Relu()) * 2,
            nk.Aggregate(),
            nk.Dense(1.3, 0.2),
        )
        samples = samples[:1]
        expected = nk.gcn_kernel(features, adjacency, 2, ("nngp", "ntk"), W_std=1.3, b_std=0.2)
    else:
        net = nk.gntk(2, 2, case == "jumping")
        layers, expected = net.layers, nk.kernel(net, x, get=("nngp", "ntk"))
    z = deviations(layers, samples, np.array(expected), width, seeds)
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("case", ["nodes", "jumping"])
def test_finite_networks(case):
    check_finite_networks(96, 12, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nodes", "jumping", "last block"])
def test_wide_finite_networks(case):
    check_finite_networks(768, 40, case)


def test_wrong_kernels_are_found():
    """A kernel without the read-out's tangents is beyond what finite networks allow."""
    pytest.importorskip("torch")
    from graph_networks import deviations

    layers = (nk.Aggregate(), nk.Dense(1.3), nk.Relu(), nk.Aggregate(), nk.Dense(1.3))
    P = PATTERNS["symmetric"][:5, :5]
    K, T = plain(FEATURES[:5], P, 1, 1.3, 0)
    z = deviations(layers, [(FEATURES[:5], P)], np.array([K, T - K]), 96, 12)
    assert np.abs(z[1]).max() > 10


BAD = {
    "features have shape": ({"features": np.ones(3)}, r"features must have shape \(nodes, feat"),
    "no nodes": ({"features": np.ones((0, 2))}, r"features must have shape \(nodes, features\)"),
    "NaN": ({"features": FEATURES * [1, np.nan, 1]}, "features of node 0 hold NaN"),
    "shape": ({"adjacency": np.eye(4)}, r"11 nodes, but the adjacency has shape \(4, 4\)"),
    "sparse shape": ({"adjacency": sparse.eye_array(4)}, r"adjacency has shape \(4, 4\)"),
    "infinite": (
        {"adjacency": np.where(ADJACENCY > 0, np.inf, 0)},
        "the adjacency holds NaN or infinity",
    ),
    "sparse NaN": ({"adjacency": sparse.csr_array(np.eye(11) * np.nan)}, "holds NaN"),
    "complex": ({"adjacency": sparse.csr_array(np.eye(11) * 1j)}, "adjacency must hold real"),
    "depth": ({"depth": -1}, "depth must be a number of hidden layers"),
    "weights": ({"weights": "mean"}, "weights must be one of"),
    "negative": ({"adjacency": -LOOPED}, "node 0 has degree .*weights='symmetric' divides by it"),
    "get": ({"get": "cov"}, "get must be 'nngp', 'ntk'"),
    "activation": ({"activation": nk.GlobalAvgPool()}, "GlobalAvgPool"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    given, message = BAD[case]
    with pytest.raises((TypeError, ValueError), match=message):
        nk.gcn_kernel(**{"features": FEATURES, "adjacency": ADJACENCY, **given})


def test_more_than_memory():
    nodes = 10**6
    with pytest.raises(MemoryError, match="all pairs of 1000000 nodes"):
        nk.gcn_kernel(np.ones((nodes, 1)), sparse.eye_array(nodes))
