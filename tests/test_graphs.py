"""Kernels of graphs: against the recursion of the papers, and networks of finite width."""

import re

import numpy as np
import pytest
from scipy import sparse

import ntkcore as nk
from conftest import relative_error
from graph_reference import PlainGntk, random_graph

CPU = [name for name in nk.backends() if name != "cuda"]


def some_graphs(sizes=(5, 3, 8, 1, 12), features=4, seed=0):
    rng = np.random.default_rng(seed)
    return [random_graph(rng, n, features) if n > 2 else lonely(n, features) for n in sizes]


def lonely(n, features):
    """Nodes without edges."""
    return np.linspace(0.5, 2, n * features).reshape(n, features), np.zeros((n, n))


@pytest.mark.parametrize("jumping", [True, False])
@pytest.mark.parametrize("weights", ["uniform", "degree"])
@pytest.mark.parametrize(("blocks", "layers"), [(1, 1), (3, 2), (2, 3)])
def test_gntk_is_that_of_its_authors(blocks, layers, weights, jumping):
    graphs = some_graphs()
    expected = PlainGntk(blocks + 1, layers, jumping, weights).matrix(graphs) / (2 * 4)
    net, x = nk.gntk(blocks, layers, jumping), nk.pack_graphs(graphs, weights=weights)
    for backend in CPU:
        double = nk.kernel(net, x, backend=backend)
        assert relative_error(double, expected) < 1e-11
        assert np.abs(double / expected - 1).max() < 1e-10
        assert relative_error(nk.kernel(net, x, dtype="float32", backend=backend), expected) < 5e-6
    assert relative_error(nk.kernel(net, x[:2], x[2:]), expected[:2, 2:]) < 1e-11
    assert relative_error(nk.kernel_diag(net, x), np.diag(expected)) < 1e-11


def test_equal_nodes():
    """Where nodes have equal neighbours, they correlate by 1, of whose rounding the dual takes a
    root.
    """
    rng = np.random.default_rng(1)
    twins = [random_graph(rng, n, 3, weighted=False) for n in (3, 5, 8)]
    labels = [(np.ones((n, 3)), np.eye(n, k=1) + np.eye(n, k=-1)) for n in (4, 6, 9)]
    for graphs, double in ((twins, 1e-9), (labels, 1e-7)):
        expected = PlainGntk(4, 2, True, "degree").matrix(graphs) / (2 * 3)
        x = nk.pack_graphs(graphs, weights="degree")
        assert relative_error(nk.kernel(nk.gntk(3, 2), x), expected) < double
        assert relative_error(nk.kernel(nk.gntk(3, 2), x, dtype="float32"), expected) < 1e-3


def test_padding_does_not_count():
    graphs = some_graphs()
    net = nk.gntk(2, 1)
    expected = nk.kernel(net, nk.pack_graphs(graphs))
    assert relative_error(nk.kernel(net, nk.pack_graphs(graphs, nodes=31)), expected) < 1e-13


def test_nodes_have_no_order():
    rng = np.random.default_rng(3)
    features, A = random_graph(rng, 9, 3)
    order = rng.permutation(9)
    both = nk.pack_graphs([(features, A), (features[order], A[np.ix_(order, order)])])
    K = nk.kernel(nk.gntk(2, 2), both)
    assert np.abs(K / K[0, 0] - 1).max() < 1e-7  # equal nodes: see above


def test_sparse_adjacency_is_the_same():
    graphs = some_graphs()
    kinds = (sparse.csr_matrix, sparse.coo_array, sparse.csc_array, list, np.asarray)
    given = [
        (features, kind(A if kind is not list else A.tolist()))
        for (features, A), kind in zip(graphs, kinds, strict=True)
    ]
    assert np.array_equal(nk.pack_graphs(given), nk.pack_graphs(graphs))


def test_gntk_refuses():
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="gntk: blocks must be a positive number"):
            nk.gntk(bad)
        with pytest.raises(ValueError, match="gntk: layers must be a positive number"):
            nk.gntk(1, bad)
    with pytest.raises(TypeError, match="jumping_knowledge must be True or False"):
        nk.gntk(1, 1, "yes")
    with pytest.raises(ValueError, match="pack_graphs"):
        nk.kernel(nk.gntk(1), np.ones((2, 5, 3)))


X, A = np.ones((3, 2)), np.ones((3, 3))
NAN = np.where(np.eye(3) > 0, np.nan, 1.0)
BAD = {
    "not square": ([(X, A), (X, A[:, :2])], "graph 1 has 3 nodes .* adjacency of shape (3, 2)"),
    "another size": ([(X, A[:2, :2])], "graph 0 has 3 nodes .* adjacency of shape (2, 2)"),
    "NaN weights": ([(X, A), (X, NAN)], "the adjacency of graph 1 holds NaN or infinity"),
    "infinite sparse": ([(X, sparse.csr_array(NAN))], "graph 0 holds NaN"),
    "NaN features": ([(NAN[:, :2], A)], "the features of graph 0 hold NaN or infinity"),
    "no nodes": ([(X, A), (np.ones((0, 2)), np.ones((0, 0)))], "graph 1 has no nodes"),
    "no features": ([(np.ones((3, 0)), A)], "graph 0 has no features"),
    "other features": ([(X, A), (X[:, :1], A)], "graph 1 has 1 features, graph 0 has 2"),
    "a vector": ([(X[0], A)], "the features of graph 0 must have shape (nodes, features)"),
    "no pair": ([X], "graph 0 must be a pair (features, adjacency)"),
    "text": ([(X, [["a"] * 3] * 3)], "the adjacency of graph 0 must hold real numbers"),
    "complex": ([(X, A * 1j)], "the adjacency of graph 0 must hold real numbers"),
    "none": ([], "no graphs: the list is empty"),
    "an array": (A, "graphs must be a list of pairs (features, adjacency)"),
    "an iterator": (iter([(X, A)]), "graphs must be a list of pairs (features, adjacency)"),
}


@pytest.mark.parametrize("case", BAD)
def test_graphs_that_are_none(case):
    graphs, message = BAD[case]
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises((TypeError, ValueError), match=pattern):
        nk.pack_graphs(graphs)


def test_weights_that_divide_by_nothing():
    negative = -np.ones((3, 3))
    for weights in ("degree", "symmetric"):
        with pytest.raises(ValueError, match=f"graph 0: node 0 .* weights={weights!r}"):
            nk.pack_graphs([(X, negative)], weights=weights)
    assert np.isfinite(nk.pack_graphs([(X, negative)])).all()
    with pytest.raises(ValueError, match="graph 0 has 3 nodes, more than the 2 asked for"):
        nk.pack_graphs([(X, A)], nodes=2)
    with pytest.raises(ValueError, match="nodes must be a positive number"):
        nk.pack_graphs([(X, A)], nodes=2.5)
    with pytest.raises(MemoryError, match="graphs of 10000000 nodes"):
        nk.pack_graphs([(X, A)], nodes=10**7)
