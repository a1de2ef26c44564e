"""Solvers against dense linear algebra."""

import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import CGResult, cg
from ntkcore.linalg.cholesky import Cholesky, factorise
from ntkcore.linalg.eigen import Eigh
from ntkcore.linalg.landmarks import LandmarkRegression
from ntkcore.linalg.leading import eigs
from ntkcore.linalg.noise import RidgeWarning, noise_floor
from ntkcore.linalg.operators import InMemory, MatrixFree
from ntkcore.linalg.solve import solve

NET = nk.mlp(2)


def problem(n=120, outputs=3, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, nk.kernel(NET, x), rng.standard_normal((n, outputs))


@given(st.integers(2, 40), st.integers(0, 3), st.sampled_from([1e-6, 1e-2, 1.0, 100.0]))
def test_all_methods_solve_the_system(n, outputs, ridge):
    _, K, Y = problem(n, max(outputs, 1))
    Y = Y[:, 0] if outputs == 0 else Y
    expected = np.linalg.solve(K + ridge * np.eye(n), Y)
    for method, options in (("cholesky", {}), ("eigh", {}), ("cg", {"rtol": 1e-10}), ("auto", {})):
        ours = solve(K, Y, ridge, method=method, **options)
        assert ours.shape == Y.shape
        assert relative_error(ours, expected) < 1e-6
    relative = Cholesky(K, ridge, relative=True).solve(Y)
    assert relative_error(relative, Cholesky(K, ridge * np.diagonal(K).mean()).solve(Y)) < 1e-10


def test_one_eigendecomposition_serves_all_ridges():
    _, K, Y = problem()
    modes, ridges = Eigh(K), [1e-3, 1e-1, 10.0]
    path = modes.path(Y, ridges)
    left_out = modes.leave_one_out(Y, ridges)
    gcv = modes.gcv(Y, ridges)
    for at, ridge in enumerate(ridges):
        inverse = np.linalg.inv(K + ridge * np.eye(len(K)))
        assert relative_error(path[at], inverse @ Y) < 1e-9
        errors = []
        for i in range(len(K)):
            rest = np.arange(len(K)) != i
            A = np.linalg.solve(K[np.ix_(rest, rest)] + ridge * np.eye(rest.sum()), Y[rest])
            errors.append((K[i, rest] @ A - Y[i]) ** 2)
        assert abs(left_out[at] / np.mean(errors) - 1) < 1e-8
        assert abs(gcv[at] / np.mean((inverse @ Y / (np.trace(inverse) / len(K))) ** 2) - 1) < 1e-8


@given(st.integers(1, 40), st.integers(1, 45))
def test_factors_by_blocks(n, block):
    A = problem(n)[1] + 0.1 * np.eye(n)
    own = A.copy()
    factorise(own, block)
    assert relative_error(np.tril(own), np.linalg.cholesky(A)) < 1e-10
    np.testing.assert_array_equal(np.triu(own, 1), np.triu(A, 1))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16])
def test_kernels_of_any_real_dtype(dtype):
    K, Y = np.array([[3, 0, 1], [0, 1, 0], [1, 0, 2]], dtype), [1.0, 2.0, 3.0]
    expected = np.linalg.solve(K.astype(float) + np.eye(3), Y)
    for found in (
        Cholesky(K, 1.0).solve(Y),
        Eigh(K).solve(Y, 1.0),
        solve(K, Y, 1.0),
        solve(K.tolist(), Y, 1.0),
    ):
        assert relative_error(found, expected) < 1e-12
    assert (
        relative_error(
            nk.Dynamics(K, Y, ridge=1.0, absolute_ridge=True).train.mean(np.inf),
            K.astype(float) @ expected,
        )
        < 1e-12
    )


def test_overwriting_saves_a_copy():
    _, K, Y = problem()
    expected, own = Cholesky(K, 0.1).solve(Y), K.copy()
    assert relative_error(Cholesky(own, 0.1, overwrite=True).solve(Y), expected) < 1e-12
    assert not np.array_equal(own, K)
    own = K.copy()
    own.flags.writeable = False
    assert relative_error(Cholesky(own, 0.1, overwrite=True).solve(Y), expected) < 1e-12


def test_the_preconditioner_saves_passes():
    _, K, Y = problem(600, d=4)
    results = [cg(K, Y, 1e-4, relative=True, rank=rank) for rank in (0, 100)]
    assert all(r.converged and isinstance(r, CGResult) for r in results)
    assert results[1].passes < results[0].passes / 3
    exact = np.linalg.solve(K + 1e-4 * np.diagonal(K).mean() * np.eye(600), Y)
    assert relative_error(results[1].x, exact) < 1e-3
    assert (results[1].residuals <= 1e-6).all()
    assert results[1].passes == pytest.approx(results[1].iterations + 1 + 100 / 600, abs=0.1)


def test_columns_that_are_done_rest():
    _, K, Y = problem()
    Y[:, 0] = np.linalg.eigh(K)[1][:, -1]
    Y[:, 1] = 0
    result = cg(K, Y, 1e-2, rank=0)
    assert result.converged
    assert np.array_equal(result.x[:, 1], np.zeros(len(K)))


def test_matrix_free():
    x, K, Y = problem()
    result = cg(MatrixFree(NET, x, tile=50), Y, 0.1)
    assert relative_error(result.x, Cholesky(K, 0.1).solve(Y)) < 1e-5


def test_interrupted_and_resumed(tmp_path):
    _, K, Y = problem(300, d=4)
    file = tmp_path / "state.npz"
    options = {"rank": 20, "checkpoint": file, "every": 3}
    whole = cg(K, Y, 1e-3, rank=20)

    def stop(iteration, residuals):
        if iteration == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cg(K, Y, 1e-3, callback=stop, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]
    seen = []
    resumed = cg(K, Y, 1e-3, callback=lambda i, r: seen.append(i), **options)
    assert seen[0] == 10  # the state of iteration 9 was kept
    assert np.array_equal(resumed.x, whole.x)
    with pytest.raises(ValueError, match="another problem"):
        cg(K, Y + 1, 1e-3, **options)


KILLED = """
import os, signal, sys, numpy as np, threadpoolctl
from ntkcore.linalg.cg import cg
threadpoolctl.threadpool_limits(1)
K, Y = np.load(sys.argv[1]), np.load(sys.argv[2])
kill = lambda i, residuals: os.kill(os.getpid(), signal.SIGKILL) if i == 8 else None
cg(K, Y, 1e-3, rank=20, checkpoint=sys.argv[3], every=3, callback=kill)
"""


def test_conjugate_gradients_go_on_after_a_kill(tmp_path):
    _, K, Y = problem(150)
    K_file, Y_file, state = (tmp_path / name for name in ("K.npy", "Y.npy", "state.npz"))
    np.save(K_file, K)
    np.save(Y_file, Y)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, K_file, Y_file, state], timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    seen = []
    # BLAS of two threads adds in another order, and tests before may have set their number.
    with threadpool_limits(1):
        resumed = cg(K, Y, 1e-3, rank=20, checkpoint=state, callback=lambda i, r: seen.append(i))
        whole = cg(K, Y, 1e-3, rank=20)
    assert seen[0] == 7
    assert np.array_equal(resumed.x, whole.x)


@pytest.mark.parametrize(
    ("memory", "taken"), [(2**30, "cholesky"), (8 * 400 * 80, "cg"), (8 * 400 * 3, "askotch")]
)
def test_the_method_that_memory_allows(memory, taken, monkeypatch):
    _, K, Y = problem(400)
    module, found = "ntkcore.linalg.solve", []

    def watched(name, call):
        def inner(*arguments, **options):
            found.append((name, options))
            return call(*arguments, **options)

        return inner

    for name, call in (("Cholesky", Cholesky), ("cg", cg), ("askotch", askotch)):
        monkeypatch.setattr(f"{module}.{name}", watched(name.lower(), call))
    solution = solve(K, Y, 0.1, memory=memory)
    assert [name for name, _ in found] == [taken]
    assert relative_error(solution, np.linalg.solve(K + 0.1 * np.eye(400), Y)) < 1e-5
    if taken == "cg":
        assert found[0][1]["rank"] == 80


def test_options_of_an_iteration_ask_for_one():
    _, K, Y = problem(60)
    exact = np.linalg.solve(K + 0.1 * np.eye(60), Y)
    assert relative_error(solve(K, Y, 0.1, rtol=1e-10), exact) < 1e-8


def test_too_little_memory_is_said():
    with pytest.raises(ValueError, match="too little for 400 points: even ASkotch"):
        solve(np.eye(400), np.ones(400), 1.0, memory=100)
    with pytest.raises(ValueError, match="memory must be positive"):
        solve(np.eye(4), np.ones(4), 1.0, memory=0)
    with pytest.raises(ValueError, match="memory must be positive"):
        solve(np.eye(4), np.ones(4), 1.0, memory="1 GB")


@pytest.mark.parametrize("method", ["auto", "krylov", "eigh", "lanczos"])
def test_leading_eigenvalues(method):
    _, K, _ = problem(150)
    values, vectors = eigs(InMemory(K), 5, method=method)
    exact = np.linalg.eigvalsh(K)[::-1][:5]
    assert relative_error(values, exact) < 1e-6
    assert relative_error(np.einsum("ij,ij->j", vectors, K @ vectors), values) < 1e-6
    assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize("method", ["krylov", "eigh", "lanczos"])
@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e160, 1e300])
def test_leading_eigenvalues_of_any_size(method, scale):
    _, K, _ = problem(40)
    exact = np.linalg.eigvalsh(K)[:-4:-1]
    assert relative_error(eigs(K * scale, 3, method=method)[0] / scale, exact) < 1e-3


@pytest.mark.parametrize("method", ["krylov", "eigh", "lanczos"])
def test_leading_eigenvalues_are_the_largest_not_the_longest(method):
    assert eigs(np.diag([-5.0, *range(40)]), 2, method=method)[0] == pytest.approx([39, 38])


@pytest.mark.parametrize("method", ["auto", "krylov", "lanczos"])
def test_leading_eigenvalues_where_lanczos_has_none(method):
    _, K, _ = problem(12)
    assert relative_error(eigs(K, 12, method=method)[0], np.linalg.eigvalsh(K)[::-1]) < 1e-8
    assert (eigs(np.zeros((12, 12)), 3, method=method)[0] == 0).all()


def test_landmarks():
    x, K, Y = problem(200, d=3)
    z = x[:40]
    K_nm, K_mm = nk.kernel(NET, x, z), nk.kernel(NET, z)
    model = LandmarkRegression(InMemory(K_nm, tile=64), K_mm, Y, 1e-2, rtol=1e-9)
    exact = np.linalg.solve(K_nm.T @ K_nm + 1e-2 * K_mm, K_nm.T @ Y)
    assert relative_error(model.predict(K_nm), K_nm @ exact) < 1e-6
    every = LandmarkRegression(K, K, Y, 1e-2).predict(K)  # all points: the plain ridge regression
    assert relative_error(every, K @ np.linalg.solve(K + 1e-2 * np.eye(200), Y)) < 1e-5


def test_landmarks_of_low_rank_and_of_no_size():
    """Rounding is more than the usual jitter; what overflows is no solution."""
    a = problem(300)[0][:, 0]
    K, Y = np.outer(a, a), a + 1
    predicted = LandmarkRegression(K, K, Y, 0.5).predict(K)
    assert relative_error(predicted, K @ np.linalg.solve(K + 0.5 * np.eye(300), Y)) < 1e-5
    _, K, Y = problem(100)
    with (
        np.errstate(all="ignore"),
        pytest.raises((RuntimeError, ValueError), match=r"nan|finite|positive"),
    ):
        LandmarkRegression(1e290 * K[:, :20], 1e290 * K[:20, :20], Y, 1e288)


def test_a_ridge_below_the_noise_is_said():
    _, K, _ = problem()
    single = K.astype(np.float32)
    floor = noise_floor("float32", len(K), np.diagonal(K).mean())
    with pytest.warns(RidgeWarning, match="rounding noise"):
        Cholesky(single, 0.9 * floor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cholesky(single, 1.1 * floor)
        Cholesky(K, 0.1 * floor)
    rounding = np.linalg.norm(single.astype(float) - K, 2)
    assert rounding < floor
    assert 0.9e-4 < noise_floor("float32", 50_000, 1.0) < 1.2e-4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda K, Y: solve(K, Y[:-1]), "Y must have shape"),
        (lambda K, Y: solve(K, Y * np.nan), "Y holds NaN"),
        (lambda K, Y: solve(K * np.nan, Y), "K holds NaN"),
        (lambda K, Y: solve(K[:3], Y), "square"),
        (lambda K, Y: solve(K, Y[:, :0]), "Y must have shape"),
        (lambda K, Y: cg(K[:3], Y, 0.1), "not symmetric"),
        (lambda K, Y: cg(K, Y, 0.1, every=0), "every must be"),
        (lambda K, Y: cg(K, Y, 0.1, checkpoint=""), "folder"),
        (
            lambda K, Y: LandmarkRegression(K[:, :5], -K[:5, :5], Y, 1.0),
            "K_mm is not positive definite",
        ),
        (lambda K, Y: LandmarkRegression(K[:, :5], K[:5, :5], Y, -1.0), "ridge"),
        (lambda K, Y: solve(K, Y, -1.0), "ridge"),
        (lambda K, Y: solve(K, Y, method="qr"), "method must be"),
        (lambda K, Y: solve(K - 100 * np.eye(len(K)), Y), "not positive definite"),
        (lambda K, Y: solve(K - 100 * np.eye(len(K)), Y, method="eigh"), "singular"),
        (lambda K, Y: cg(K, Y, 0.0), "positive ridge"),
        (lambda K, Y: eigs(K, 0), "k must be"),
        (lambda K, Y: eigs(K, 2.5), "k must be"),
        (lambda K, Y: eigs(K, 2, method="qr"), "method must be"),
        (lambda K, Y: LandmarkRegression(K[:, :5], K[:4, :4], Y, 1.0), "landmarks"),
        (
            lambda K, Y: LandmarkRegression(K[:, :5], K[:5, :5], Y, 1.0).predict(K),
            "K_test must have shape",
        ),
    ],
)
def test_bad_input(call, words):
    _, K, Y = problem(40)
    with pytest.raises((ValueError, OSError), match=words):
        call(K, Y)


@pytest.mark.parametrize("call", [lambda K, Y: solve(K + 1j, Y), lambda K, Y: cg(K, Y + 1j, 0.1)])
def test_complex_numbers_are_refused(call):
    _, K, Y = problem(20)
    with pytest.raises(TypeError, match="real numbers"):
        call(K, Y)


def test_the_residual_itself_decides():
    rng = np.random.default_rng(0)
    x = np.tile(rng.standard_normal((60, 5)), (3, 1))
    K, Y = nk.kernel(NET, x), rng.standard_normal((180, 2))
    result = cg(K, Y, 1e-13)
    residual = np.linalg.norm(K @ result.x + 1e-13 * result.x - Y, axis=0) / np.linalg.norm(
        Y, axis=0
    )
    assert relative_error(result.residuals, residual) < 1e-2
    assert result.converged == (residual.max() <= 1e-6)
    assert not result.converged


def test_an_accuracy_beyond_rounding_is_not_reached():
    _, K, Y = problem()
    result = cg(K, Y, 0.1, rtol=1e-300)
    assert not result.converged
    assert relative_error(result.x, Cholesky(K, 0.1).solve(Y)) < 1e-11


@pytest.mark.parametrize("K", [-np.eye(40), np.eye(40) - 0.5], ids=["diagonal", "beside it"])
def test_what_is_no_kernel_has_no_conjugate_gradients(K):
    with pytest.raises(ValueError, match="not positive semidefinite"):
        cg(K, np.ones(40), 0.1, rank=40)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 5e-310])
def test_targets_of_any_size(scale):
    _, K, Y = problem()
    Y[:, 1] = 0
    result, unit = cg(K, Y * scale, 0.1), cg(K, Y, 0.1)
    assert result.converged
    assert relative_error(result.x / scale, unit.x) < 1e-6


@pytest.mark.parametrize("call", [cg, eigs, Cholesky, Eigh, solve])
def test_a_square_kernel_of_two_data_sets_is_refused(call):
    x, _, Y = problem(30)
    K = nk.kernel(NET, x, x[::-1] + 0.1)
    arguments = {cg: (Y, 0.1), eigs: (2,), solve: (Y, 0.1)}.get(call, ())
    with pytest.raises(ValueError, match="not symmetric"):
        call(K, *arguments)


def test_no_convergence_is_an_error():
    _, K, Y = problem()
    with pytest.raises(RuntimeError, match="maxiter"):
        solve(K, Y, 1e-6, method="cg", maxiter=2, rank=0)


@pytest.mark.parametrize("call", [Cholesky, lambda K, ridge: cg(K, np.ones(len(K)), ridge)])
@pytest.mark.parametrize("ridge", ["0.1", np.ones(3), None, -1, np.nan])
def test_a_ridge_is_one_number(call, ridge):
    with pytest.raises(ValueError, match="ridge must be finite and at least 0"):
        call(np.eye(3), ridge)


def test_iterations_are_not_negative():
    with pytest.raises(ValueError, match="maxiter must be"):
        cg(np.eye(3), np.ones(3), 0.1, maxiter=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": -1}, "rtol must be a number > 0"),
        ({"rtol": np.nan}, "rtol must be a number > 0"),
        ({"rtol": "x"}, "rtol must be a number > 0"),
        ({"rank": -3}, "rank must be a whole number of at least 0"),
        ({"rank": 2.5}, "rank must be a whole number"),
        ({"maxiter": "x"}, "maxiter must be a whole number"),
        ({"maxiter": -1}, "maxiter must be a whole number of at least 0"),
        ({"every": 0}, "every must be a whole number of at least 1"),
    ],
)
def test_options_of_conjugate_gradients(options, message):
    _, K, Y = problem()
    with pytest.raises(ValueError, match=message):
        cg(K, Y, 0.1, **options)


@pytest.mark.parametrize("method", ["path", "leave_one_out", "gcv"])
def test_ridges_are_a_sequence(method):
    _, K, Y = problem()
    with pytest.raises(ValueError, match="sequence of numbers"):
        getattr(Eigh(K), method)(Y, 0.1)


@pytest.mark.parametrize("ridge", [1e-4, 1e-1, 1e2])
def test_landmarks_take_few_passes_for_any_ridge(ridge):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 3)).astype("f4")
    K_nm, K_mm = MatrixFree(NET, x, x[:80], tile=400), nk.kernel(NET, x[:80], dtype="float64")
    model = LandmarkRegression(K_nm, K_mm, x[:, :2] ** 2, ridge)
    assert model.iterations < 30
    assert model.passes == K_nm.passes <= model.iterations + 3
    K = nk.kernel(NET, x, x[:80]).astype(float)
    exact = np.linalg.solve(K.T @ K + ridge * K_mm, K.T @ x[:, :2].astype(float) ** 2)
    assert relative_error(K @ model.coefficients, K @ exact) < 1e-5


def test_landmarks_go_on_where_they_stopped(tmp_path):
    _, K, Y = problem(300, d=3)
    given, file = (K[:, :40], K[:40, :40], Y, 1e-3), tmp_path / "state.npz"
    whole = LandmarkRegression(*given)
    with pytest.raises(RuntimeError, match="after 4 iterations: raise maxiter"):
        LandmarkRegression(*given, maxiter=4, checkpoint=file, every=1)
    resumed = LandmarkRegression(*given, checkpoint=file, every=1)
    assert np.array_equal(resumed.coefficients, whole.coefficients)
    assert resumed.iterations == whole.iterations
    for other in ((*given[:3], 1e-2), (K[:, 1:41], K[1:41, 1:41], Y, 1e-3)):
        with pytest.raises(ValueError, match="another problem"):
            LandmarkRegression(*other, checkpoint=file)


def test_products_of_single_precision_are_in_double():
    rng = np.random.default_rng(0)
    K, X = rng.standard_normal((300, 2000)).astype("f4"), rng.standard_normal((2000, 2))
    operator = InMemory(K, tile=700)  # in panels of 131 rows
    assert relative_error(operator @ X, K.astype(float) @ X) < 1e-14
    assert relative_error(operator.T @ X[:300], K.T.astype(float) @ X[:300]) < 1e-14
