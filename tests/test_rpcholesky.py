"""Randomly pivoted Cholesky against its definition."""

import collections
import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.operators import InMemory, MatrixFree
from ntkcore.linalg.rpcholesky import LowRank, rpcholesky
from test_solve import NET, problem


def one_by_one(K, rank, seed):
    """Algorithm 2.1, a pivot at a time: pivots, and the residual's trace over K's."""
    rng, left, pivots = np.random.default_rng(seed), K.astype(float).copy(), []
    for _ in range(rank):
        d = np.maximum(left.diagonal(), 0)
        s = rng.choice(len(K), p=d / d.sum())
        left -= np.outer(left[:, s], left[s]) / left[s, s]
        pivots.append(s)
    return pivots, np.trace(left) / np.trace(K)


def chance(K, pivots):
    """The probability that one-by-one pivoting draws these, in this order."""
    left, p = K.copy(), 1.0
    for s in pivots:
        p *= left[s, s] / np.trace(left)
        left -= np.outer(left[:, s], left[s]) / left[s, s]
    return p


@threadpool_limits.wrap(1)  # threads that wait for each other cost more than these products
def test_the_law_is_that_of_one_pivot_at_a_time():
    root = np.random.default_rng(3).standard_normal((5, 5)) * [3, 1, 1, 0.3, 0.3]
    K, draws = InMemory(root @ root.T, symmetric=True), 2000
    seen = collections.Counter(
        tuple(rpcholesky(K, 3, seed=seed).landmarks.tolist()) for seed in range(draws)
    )
    sequences = list(itertools.permutations(range(5), 3))
    K = root @ root.T
    expected = np.array([draws * chance(K, s) for s in sequences])
    assert abs(expected.sum() / draws - 1) < 1e-9
    often = expected > 5
    counts = np.array([seen[s] for s in sequences])
    both = [np.append(a[often], a[~often].sum()) for a in (counts, expected)]
    assert scipy.stats.chisquare(*both).pvalue > 1e-3


def test_its_error_is_that_of_one_pivot_at_a_time():
    _, K, _ = problem(400, d=3)
    ours = [rpcholesky(K, 80, seed=seed).trace_error for seed in range(20)]
    theirs = [one_by_one(K, 80, seed)[1] for seed in range(20)]
    assert abs(np.mean(ours) / np.mean(theirs) - 1) < 0.05
    assert np.mean(ours) < 1.5 * np.linalg.eigvalsh(K)[:-80].sum() / np.trace(K) * 2


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["float32", "float64"]))
def test_what_the_factor_is(n, rank, dtype):
    _, K, _ = problem(n)
    K, rank = K.astype(dtype), min(rank, n)
    found, close = rpcholesky(K, rank), 1e-4 if dtype == "float32" else 1e-10
    F, exact, at = found.factor.astype(float), K.astype(float), found.landmarks
    assert isinstance(found, LowRank)
    assert found.factor.dtype == dtype
    assert found.factor.shape == (len(at), n)
    assert len(set(at.tolist())) == len(at) <= rank
    assert relative_error((F.T @ F)[at], exact[at]) < close
    left = (exact - F.T @ F).diagonal()
    assert np.abs(found.residual - left).max() < close * exact.max()
    assert abs(found.trace_error - left.sum() / np.trace(exact)) < close
    assert np.linalg.eigvalsh(exact - F.T @ F).min() > -close * np.trace(exact)


@pytest.mark.parametrize("rank", [1, 33, 64, 150])
def test_every_operator_gives_the_same_factor(rank, tmp_path):
    zarr = pytest.importorskip("zarr")
    x, K, _ = problem(150)
    stored = zarr.create_array(
        store=tmp_path / "K.zarr", shape=K.shape, chunks=(40, 40), dtype="f8"
    )
    stored[:] = K
    expected = rpcholesky(K, rank, seed=2)
    for operator in (InMemory(K, tile=32), MatrixFree(NET, x, tile=32)):
        found = rpcholesky(operator, rank, seed=2)
        assert np.array_equal(found.landmarks, expected.landmarks)
        assert relative_error(found.factor, expected.factor) < 1e-6
    assert (
        relative_error(
            *(f.T @ f for f in (rpcholesky(stored, 150).factor, np.linalg.cholesky(K).T))
        )
        < 1e-9
    )


def test_few_rows_are_read():
    _, K, _ = problem(500, d=3)
    operator = InMemory(K)
    found = rpcholesky(operator, 100)
    assert operator.passes == pytest.approx(len(found.landmarks) / 500)


def test_where_it_ends():
    _, K, _ = problem(300, d=2)
    assert rpcholesky(K, 300, tol=1e-2).trace_error <= 1e-2
    assert len(rpcholesky(K, 300, tol=1e-2).landmarks) < 150
    found = rpcholesky(K, 300, ridge=1.0)
    effective = np.trace(K @ np.linalg.inv(K + np.eye(300)))
    assert effective <= 2 * len(found.landmarks) < 300
    single = (K[:, :20] @ K[:20, :20] @ K[:20]).astype("f4")  # rank 20
    assert len(rpcholesky((single + single.T) / 2, 300).landmarks) <= 25
    twice = np.tile(K, (2, 2))  # every point twice: none is chosen a second time
    assert len(set((rpcholesky(twice, 600).landmarks % 300).tolist())) == len(
        rpcholesky(twice, 600).landmarks
    )
    assert rpcholesky(np.zeros((4, 4)), 2).trace_error == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda K: rpcholesky(K, 0), "rank must be"),
        (lambda K: rpcholesky(K, 41), "rank 41 is more than the kernel's 40 rows"),
        (lambda K: rpcholesky(K, 2.5), "rank must be"),
        (lambda K: rpcholesky(K[:3], 2), "not symmetric"),
        (lambda K: rpcholesky(K * np.nan, 2), "NaN"),
        (lambda K: rpcholesky(K, 2, ridge=-1.0), "ridge"),
        (lambda K: rpcholesky(K, 2, tol=np.nan), "tol"),
        (lambda K: rpcholesky(K, 2, tol="a"), r"tol, a share of the trace, must lie in \[0, 1\)"),
        (lambda K: rpcholesky(K, 2, tol=1), "tol"),
        (lambda K: rpcholesky(K - 20 * np.eye(40), 30), "semidefinite"),
        (lambda K: rpcholesky(K - 1.5 * np.linalg.eigvalsh(K)[20] * np.eye(40), 40), "semidef"),
    ],
)
def test_bad_input(call, words):
    _, K, _ = problem(40)
    with pytest.raises(ValueError, match=words):
        call(K)


def test_landmarks_of_a_kernel_serve_regression():
    _, K, Y = problem(200, d=3)
    at = rpcholesky(K, 60).landmarks
    model = nk.LandmarkRegression(K[:, at], K[np.ix_(at, at)], Y, 1e-2)
    assert model.predict(K[:, at]).shape == Y.shape
