"""stax.Aggregate: patterns against matrices over all pairs of positions."""

import re

import numpy as np
import pytest

from conftest import relative_error
from graph_reference import relu
from ntkcore import stax

RNG = np.random.default_rng(2)


def network(axis=None, ends=(0, -1), read_out=stax.GlobalAvgPool, **how):
    """Dense, ReLU, a sum over neighbours, a mean over positions, Dense."""
    batch, channel = ends
    vector = int(batch % 4 > channel % 4)
    return stax.serial(
        stax.Dense(8, 1.3, 0.2, batch, channel),
        stax.Relu(),
        stax.Aggregate(axis, batch, channel, **how),
        read_out(batch, channel),
        stax.Dense(1, 1.1, 0.1, vector, 1 - vector),
    )[2]


def plain(x1, x2, A1, A2, seen1=None, seen2=None):
    """(NNGP, NTK) of data (n, P, C) whose position j sums i by A[i, j]."""
    out = np.empty((2, len(x1), len(x2)))
    seen1 = np.ones(x1.shape[:2], bool) if seen1 is None else seen1
    seen2 = np.ones(x2.shape[:2], bool) if seen2 is None else seen2

    def own(x):
        return 1.3**2 * (x**2).mean(-1) + 0.2**2

    for i, x in enumerate(x1):
        for j, y in enumerate(x2):
            K = 1.3**2 * x @ y.T / x.shape[-1] + 0.2**2
            E, D = (dual / 2 for dual in relu(K, own(x), own(y)))
            T = D * K
            both = np.outer(seen1[i], seen2[j])
            count = seen1[i].sum() * seen2[j].sum()
            E, T = (A1[i].T @ (m * both) @ A2[j] * both for m in (E, T))
            E, T = E.sum() / count, T.sum() / count
            out[:, i, j] = 1.1**2 * E + 0.01, 1.1**2 * (T + E) + 0.01
    return out


X, Z = RNG.standard_normal((3, 5, 2)), RNG.standard_normal((2, 5, 2))
P, Q = RNG.standard_normal((3, 5, 5)), RNG.standard_normal((2, 5, 5))


def check(found, expected, tolerance=1e-10):
    for K, reference in zip(found, expected, strict=True):
        assert relative_error(K, reference) < tolerance


def test_dense_patterns():
    kernel_fn = network()
    both = ("nngp", "ntk")
    check(kernel_fn(X, Z, both, pattern=(P, Q)), plain(X, Z, P, Q))
    check(kernel_fn(X, None, both, pattern=(P, P)), plain(X, X, P, P))
    check(kernel_fn(X, X, both, pattern=(P, P)), plain(X, X, P, P))
    other = P[::-1]  # the same data in other graphs
    check(kernel_fn(X, X, both, pattern=(P, other)), plain(X, X, P, other), 1e-7)
    check(kernel_fn(X, Z, both, pattern=(P, Q), dtype="float32"), plain(X, Z, P, Q), 1e-5)
    found = kernel_fn(X, Z, pattern=(P, Q))
    assert relative_error(found.cov1, np.diag(plain(X, X, P, P)[0])) < 1e-10
    assert relative_error(found.cov2, np.diag(plain(Z, Z, Q, Q)[0])) < 1e-10
    full = kernel_fn(X, Z, "cov1", pattern=(P, Q), diagonal_batch=False)
    assert relative_error(full, plain(X, X, P, P)[0]) < 1e-10
    assert found.shape1 == (3, 1)


def test_masked_nodes():
    seen = np.ones((3, 5), bool)
    seen[0, 1] = seen[1, 3:] = False
    x = np.where(seen[..., None], X, np.nan)
    found = network()(x, Z, ("nngp", "ntk"), pattern=(P, Q), mask_constant=np.nan)
    check(found, plain(np.where(seen[..., None], X, 0), Z, P, Q, seen))


@pytest.mark.parametrize("ends", [(0, -1), (1, 2), (3, 0), (2, 1)])
@pytest.mark.parametrize("taken", [(0, 1), (1, 0), (0,), (1,)])
def test_axes(ends, taken):
    """Positions of two axes, in any order among samples and channels, all or one of them summed."""
    x, z = RNG.standard_normal((2, 3, 4, 2)), RNG.standard_normal((3, 3, 4, 2))
    sizes = tuple((3, 4)[a] for a in taken)
    patterns, whole = [], []
    for n in (2, 3):
        A = RNG.standard_normal((n, *sizes, *sizes))
        patterns.append(A)
        if len(taken) == 2:
            back = np.argsort(taken)
            full = A.transpose(0, *(1 + back), *(3 + back))
        elif taken == (0,):
            full = np.einsum("nij,ab->niajb", A, np.eye(4))
        else:
            full = np.einsum("nab,ij->niajb", A, np.eye(3))
        whole.append(full.reshape(n, 12, 12))
    places = [a for a in range(4) if a not in (ends[0] % 4, ends[1] % 4)]
    kernel_fn = network(tuple(places[a] for a in taken), ends)
    moved = [np.moveaxis(data, (0, -1), ends) for data in (x, z)]
    found = kernel_fn(*moved, ("nngp", "ntk"), pattern=tuple(patterns))
    check(found, plain(x.reshape(2, 12, 2), z.reshape(3, 12, 2), *whole))


def test_sparse_patterns():
    edges = RNG.integers(0, 5, (3, 9, 1, 2))
    edges[1, 4:] = -1  # none
    A = np.zeros((3, 5, 5))
    for n, sample in enumerate(edges[:, :, 0]):
        for tail, head in sample:
            A[n, tail, head] += head >= 0
    expected = plain(X, X, A, A)
    kernel_fn = network(implementation=stax.AggregateImplementation.SPARSE)
    for given in (edges, edges[:, :, 0]):
        check(kernel_fn(X, None, ("nngp", "ntk"), pattern=(given, given)), expected)
    dense = network(to_dense=lambda p: A + 0 * p)
    check(dense(X, None, ("nngp", "ntk"), pattern=(0, 0)), expected)


def test_without_a_pattern_it_is_the_identity():
    kernel_fn, bare = network(), stax.serial(*BARE)[2]
    for pattern in (None, (None, None)):
        found = kernel_fn(X, Z, pattern=pattern)
        assert np.array_equal(found.ntk, bare(X, Z, "ntk"))
    branches = stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.serial(stax.Aggregate(), stax.Dense(3)), stax.Dense(3)),
        stax.FanInSum(),
    )
    assert branches[2](X, Z, "nngp").shape == (3, 2, 5, 5)
    pytest.importorskip("torch")
    init_fn, apply_fn, _ = stax.Aggregate()
    shape, params = init_fn(0, (-1, 5, 2))
    assert shape == (-1, 5, 2)
    assert np.allclose(apply_fn(params, X), X)


BARE = stax.Dense(8, 1.3, 0.2), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1, 1.1, 0.1)
TWO = stax.serial(stax.Aggregate(), stax.Aggregate(to_dense=lambda p: 2 * p), stax.GlobalAvgPool())[
    2
]
MOVED = stax.serial(stax.Conv(4, (2,)), stax.Aggregate(), stax.GlobalAvgPool())[2]
SPARSE = network(implementation="SPARSE")
EDGES = np.zeros((3, 4, 1, 2), int)
BAD = {
    "shape": (lambda: network()(X, Z, "ntk", pattern=(P, P)), ValueError, "pattern2 must have"),
    "one": (lambda: network()(X, Z, "ntk", pattern=P), ValueError, "must be a pair"),
    "half": (lambda: network()(X, Z, "ntk", pattern=(P, None)), NotImplementedError, "one of both"),
    "NaN": (lambda: network()(X, None, "ntk", pattern=(P * np.nan, P)), ValueError, "holds NaN"),
    "text": (lambda: network()(X, None, "ntk", pattern=("a", "a")), TypeError, "pattern1"),
    "nodes": (
        lambda: stax.Aggregate()[2](X, Z, "nngp", pattern=(P, Q)),
        NotImplementedError,
        "ends with positions",
    ),
    "no sum": (
        lambda: stax.serial(*BARE)[2](X, Z, "ntk", pattern=(P, Q)),
        NotImplementedError,
        "without stax.Aggregate: pattern",
    ),
    "Kernel": (
        lambda: network()(stax.Dense(3)[2](X), pattern=(P, P)),
        NotImplementedError,
        "not supported with a Kernel",
    ),
    "two": (lambda: TWO(X, Z, "nngp", pattern=(P, Q)), NotImplementedError, "read the pattern"),
    "moved": (
        lambda: MOVED(X, Z, "ntk", pattern=(P, Q)),
        ValueError,
        "moved positions",
    ),
    "masked": (
        lambda: network()(0 * X, Z, "ntk", pattern=(P, Q), mask_constant=0.0),
        ValueError,
        "masked everywhere",
    ),
    "axis": (
        lambda: network(axis=0)(X, Z, "ntk", pattern=(P, Q)),
        ValueError,
        "must be axes of positions, (1,)",
    ),
    "edges": (lambda: SPARSE(X, None, "ntk", pattern=(P, P)), ValueError, "whole numbers of shape"),
    "beyond": (
        lambda: SPARSE(X, None, "ntk", pattern=(EDGES + 5, EDGES)),
        ValueError,
        "positions beyond (5,)",
    ),
    "way": (lambda: stax.Aggregate(implementation="CSR"), ValueError, "'DENSE' or 'SPARSE'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=re.escape(message)):
        call()
