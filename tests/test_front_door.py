"""solve(): which method is taken, what is said of it, and that it solves the system."""

import itertools

import numpy as np
import pytest

from conftest import relative_error
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import cg
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.operators import InMemory, MatrixFree
from ntkcore.linalg.solve import solve
from test_solve import NET, problem


def exact_solution(K, Y, ridge=0.1):
    return np.linalg.solve(K + ridge * np.eye(len(K)), Y)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, "cholesky"),
        ({"memory": 8 * 400 * 80}, "cg"),
        ({"max_passes": 500}, "askotch"),
        ({"maxiter": 500, "rank": 10}, "cg"),
        ({"seconds": 1e4}, "cholesky"),
    ],
)
def test_the_method_that_limits_and_options_allow(options, taken, monkeypatch):
    _, K, Y = problem(400)
    module, found = "ntkcore.linalg.solve", []

    def watched(name, call):
        def inner(*arguments, **options):
            found.append((name, options))
            return call(*arguments, **options)

        return inner

    for name, call in (("Cholesky", Cholesky), ("cg", cg), ("askotch", askotch)):
        monkeypatch.setattr(f"{module}.{name}", watched(name.lower(), call))
    assert relative_error(solve(K, Y, 0.1, **options), exact_solution(K, Y)) < 1e-5
    assert [name for name, _ in found] == [taken]
    if "memory" in options:
        assert 0 < found[0][1]["rank"] < 80


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *itertools.product([np.asarray, InMemory, "free"], ["auto", "cholesky", "cg", "askotch"]),
        *(("stored", method) for method in ("auto", "cholesky", "cg")),
    ],
)
def test_every_kernel_by_every_method(kind, method):
    x, K, Y = problem(150)
    before = K.copy()
    given = {
        "free": lambda K: MatrixFree(NET, x),
        "stored": lambda K: pytest.importorskip("zarr").array(K, chunks=(40, 40)),
    }.get(kind, kind)(K)
    said = []
    ours = solve(given, Y, 0.1, method=method, say=said.append)
    assert relative_error(ours, exact_solution(K, Y)) < (1e-3 if method == "askotch" else 1e-5)
    assert np.array_equal(K, before)
    assert "150 points" in said[0]
    assert ": exact" in said[0]
    assert said[-1].startswith("exact")


@pytest.mark.parametrize("landmarks", ["rpcholesky", "uniform", np.arange(0, 300, 6)])
@pytest.mark.parametrize("kind", [np.asarray, "free", "stored"])
def test_landmarks_by_the_front_door(kind, landmarks):
    x, K, Y = problem(300, d=3)
    given = {
        "free": lambda K: MatrixFree(NET, x),
        "stored": lambda K: pytest.importorskip("zarr").array(K, chunks=(80, 80)),
    }.get(kind, kind)(K)
    options = {"n_landmarks": 50} if isinstance(landmarks, str) else {}
    said = []
    A = solve(given, Y, 1e-2, landmarks=landmarks, rtol=1e-9, say=said.append, **options)
    at = np.flatnonzero(A.any(1))
    assert len(at) == 50
    if not isinstance(landmarks, str):
        assert np.array_equal(at, landmarks)
    C, inner = K[:, at], K[np.ix_(at, at)]
    exact = np.linalg.solve(C.T @ C + 1e-2 * inner, C.T @ Y)
    assert relative_error(K @ A, C @ exact) < 1e-5
    assert "50 landmarks: the restricted problem" in said[0]
    assert said[-1].startswith("the restricted problem of 50 landmarks to a residual of 1.0e-09")
    flat = solve(given, Y[:, 0], 1e-2, landmarks=at, rtol=1e-9)
    assert relative_error(K @ flat, K @ A[:, 0]) < 1e-5


def test_too_little_time_leaves_landmarks():
    x, _, Y = problem(2000, outputs=1, d=3)
    operator = MatrixFree(NET, x)
    operator.seconds_per_pair = lambda columns: 1e-3
    said = []
    A = solve(operator, Y, 0.1, relative=True, seconds=100, say=said.append)
    assert "landmarks: the restricted problem" in said[0]
    assert "conjugate gradients about" in said[0]
    assert 30 <= np.count_nonzero(A) <= 50
    with pytest.warns(UserWarning, match=r"restricted to \d+ landmarks \(Cholesky about"):
        solve(operator, Y, 0.1, relative=True, seconds=100)
    with pytest.raises(ValueError, match=r"conjugate gradients about .* more than is allowed"):
        solve(operator, Y, 0.1, method="cg", seconds=100)


def test_options_of_an_iteration_ask_for_one():
    _, K, Y = problem(60)
    assert relative_error(solve(K, Y, 0.1, rtol=1e-10), exact_solution(K, Y)) < 1e-8
    with pytest.raises(TypeError, match=r"no method .* the options maxiter, max_passes"):
        solve(K, Y, 0.1, maxiter=5, max_passes=3)


def test_no_ridge_leaves_cholesky():
    _, K, Y = problem(60)
    assert relative_error(solve(InMemory(K), Y), exact_solution(K, Y, 0)) < 1e-8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": 100}, "100 bytes of memory are too little for 400 points.*: Cholesky would"),
        ({"memory": 1000, "method": "cholesky"}, "Cholesky would take 1.22 MiB, more than is all"),
        ({"memory": 0}, "memory must be positive"),
        ({"memory": "1 GB"}, "memory must be positive"),
        ({"seconds": -1}, "seconds must be positive"),
        ({"seconds": "1 h"}, "seconds must be positive"),
        ({"method": "eigh", "seconds": 3}, "have no effect with method='eigh'"),
        ({"n_landmarks": 401}, "401 landmarks are more than the 400 samples"),
        ({"n_landmarks": 0}, "n_landmarks must be"),
        ({"landmarks": [1, 1]}, "hold sample 1 more than once"),
        ({"landmarks": [1, 400]}, "must be from 0 to 399"),
        ({"n_landmarks": 5, "ridge": 0}, "need a positive ridge"),
    ],
)
def test_limits_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=words):
        solve(np.eye(400), np.ones(400), **{"ridge": 1.0, **options})
