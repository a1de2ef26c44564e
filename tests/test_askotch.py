"""Sketch-and-project against dense linear algebra."""

import numpy as np
import pytest

import fake_cupy
import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.askotch import _Block, askotch
from ntkcore.linalg.operators import InMemory, MatrixFree, Stored
from test_cuda import gpu  # noqa: F401
from test_cuda_solvers import gpu_solvers  # noqa: F401
from test_solve import NET, problem


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ridge", [1e-2, 1.0, 1e3])
def test_it_solves_the_system(dtype, ridge):
    x, K, Y = problem(400, d=4)
    x = x.astype(dtype)
    exact = np.linalg.solve(nk.kernel(NET, x).astype(float) + ridge * np.eye(400), Y)
    for operator in (MatrixFree(NET, x, tile=150), InMemory(nk.kernel(NET, x))):
        found = askotch(operator, Y, ridge, rtol=1e-6, max_passes=1000)
        assert found.converged
        assert relative_error(found.x, exact) < 1e-3
        assert relative_error(K @ found.x, K @ exact) < 1e-4
        assert found.passes == operator.passes
    assert askotch(K, Y[:, 0], ridge, rtol=1e-3).x.shape == (400,)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200])
def test_targets_of_any_size(size):
    """Their squares vanish or overflow."""
    _, K, Y = problem(60, d=3)
    found = askotch(K, Y * size, 1.0, rtol=1e-8)
    assert found.converged
    assert relative_error(found.x / size, np.linalg.solve(K + np.eye(60), Y)) < 1e-6


def test_points_whose_kernel_is_zero():
    K, Y = np.diag(np.r_[np.zeros(40), 1.0, 2.0]), np.ones(42)
    for kernel in (K, 0 * K):
        found = askotch(kernel, Y, 0.5, block=5, rtol=1e-10)
        assert relative_error(found.x, Y / (kernel.diagonal() + 0.5)) < 1e-8


@pytest.mark.parametrize("rounding", [0.0, 3e-7])
def test_kernels_of_low_rank_and_single_precision(rounding):
    """Their blocks' zero eigenvalues are rounding, of either sign."""
    x, Y = np.random.default_rng(0).standard_normal((2, 200, 3))
    noise = np.random.default_rng(1).standard_normal((200, 200))
    K = (x @ x.T + rounding * (noise + noise.T)).astype("f4")
    found = askotch(K, Y, 0.3, rtol=1e-6)
    exact = np.linalg.solve(K.astype(float) + 0.3 * np.eye(200), Y)
    assert found.converged
    assert relative_error(found.x, exact) < 1e-5


def test_a_store_is_read_once_a_pass():
    zarr = pytest.importorskip("zarr")
    _, K, Y = problem(190, d=3)
    operator = Stored(zarr.array(K, chunks=(40, 40)))
    found = askotch(operator, Y, 100.0, rtol=1e-5, block=50)
    assert found.converged
    assert relative_error(found.x, np.linalg.solve(K + 100 * np.eye(190), Y)) < 1e-4
    assert found.passes == operator.passes < 1.4 * found.iterations / 5


def test_a_block_is_approximated_from_below():
    _, K, _ = problem(60, d=3)
    block = _Block(K, 0.1, 20, np.random.default_rng(0))
    inside = block.U * block.S @ block.U.T
    assert np.linalg.eigvalsh(K - inside).min() > -1e-10 * np.trace(K)
    whole = inside + block.rho * np.eye(60)
    assert relative_error(block.solve(K), np.linalg.solve(whole, K)) < 1e-9
    largest = np.linalg.eigvals(np.linalg.solve(whole, K + 0.1 * np.eye(60))).real.max()
    assert 0.8 * largest < block.smoothness <= 1.0001 * max(largest, 1)


def test_it_goes_on_where_it_stopped(tmp_path):
    _, K, Y = problem(300, d=3)
    options = {"rtol": 1e-5, "max_passes": 400}
    whole = askotch(K, Y, 0.1, **options)
    assert whole.converged
    first = askotch(K, Y, 0.1, rtol=1e-5, max_passes=4, checkpoint=tmp_path / "a.npz")
    assert not first.converged
    resumed = askotch(K, Y, 0.1, **options, checkpoint=tmp_path / "a.npz")
    assert np.array_equal(resumed.x, whole.x)
    again = askotch(K, Y, 0.1, **options, checkpoint=tmp_path / "a.npz")
    assert np.array_equal(again.x, whole.x)
    assert again.passes < 3
    for other in ((K, Y, 0.2), (K, -Y, 0.1), (2 * K, Y, 0.1)):
        with pytest.raises(ValueError, match="another problem"):
            askotch(*other, checkpoint=tmp_path / "a.npz")


@pytest.mark.usefixtures("gpu_solvers")
def test_a_kernel_on_a_device():
    _, K, Y = problem(200)
    there = askotch(fake_cupy.asarray(K), Y, 0.1)
    assert np.array_equal(there.x, askotch(K, Y, 0.1).x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda K, Y: askotch(K, Y, 0.0), "positive ridge"),
        (lambda K, Y: askotch(K, Y[:-1], 0.1), "Y must have shape"),
        (lambda K, Y: askotch(K, Y * np.nan, 0.1), "Y holds NaN"),
        (lambda K, Y: askotch(K, Y, 0.1, block=0), "block must be"),
        (lambda K, Y: askotch(K, Y, 0.1, rank=0), "rank must be"),
        (lambda K, Y: askotch(K, Y, 0.1, rtol=0), "rtol must be"),
        (lambda K, Y: askotch(K, Y, 0.1, max_passes=-1), "max_passes must be"),
        (lambda K, Y: askotch(-K, Y, 0.1), "not positive semidefinite"),
        (lambda K, Y: askotch(K[:3], Y, 0.1), "not symmetric"),
        (lambda K, Y: askotch(np.ones((40, 40)) - 0.9 * np.eye(40), Y, 0.1), "semidefinite"),
    ],
)
def test_bad_input(call, words):
    _, K, Y = problem(40)
    with pytest.raises(ValueError, match=words):
        call(K, Y)
