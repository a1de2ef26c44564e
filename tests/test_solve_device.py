"""Solvers of kernels on a GPU, CuPy being made of NumPy."""

import numpy as np
import pytest

import fake_cupy
from conftest import relative_error
from ntkcore.linalg.cg import cg
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.eigen import Eigh
from ntkcore.linalg.landmarks import LandmarkRegression
from ntkcore.linalg.leading import eigs
from ntkcore.linalg.operators import InMemory
from test_cuda import gpu  # noqa: F401
from test_cuda_solvers import gpu_solvers  # noqa: F401
from test_solve import problem


def crossings(way):
    """Sizes of what went "up" or "down" or was copied since the list was cleared."""
    return [size for what, size in fake_cupy.traffic if what == way]


@pytest.mark.usefixtures("gpu_solvers")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conjugate_gradients_stay_on_the_device(dtype):
    _, K, Y = problem(300)
    K = K.astype(dtype)
    n, operator = len(K), InMemory(fake_cupy.asarray(K))
    operator.panel = 20 * n
    for rank in (0, 70):
        fake_cupy.traffic.clear()
        result, expected = (
            cg(operator, Y, 0.1, rank=rank, rtol=1e-9),
            cg(K, Y, 0.1, rank=rank, rtol=1e-9),
        )
        assert result.converged
        assert abs(result.iterations - expected.iterations) <= 3  # rounding alone parts them
        residual = K.astype(float) @ result.x + 0.1 * result.x - Y
        assert (np.linalg.norm(residual, axis=0) < 1.01e-9 * np.linalg.norm(Y, axis=0)).all()
        assert type(result.x) is np.ndarray
        assert relative_error(result.x, expected.x) < 1e-8
        assert max(crossings("up") + crossings("down")) <= (64**2 if rank else Y.size)
        assert max(crossings("copy"), default=0) <= (70 if rank else 20) * n
        waits = len(crossings("down")) - result.iterations
        # The diagonal, start, solution, residuals; of a block of pivots their matrix, what is left.
        assert 4 <= waits - (1 + 2 * 3 if rank else 0) <= 5
    there = cg(operator, fake_cupy.asarray(Y), 0.1, rank=70, rtol=1e-9).x
    assert isinstance(there, fake_cupy.ndarray)
    assert np.array_equal(there, result.x)


@pytest.mark.usefixtures("gpu_solvers")
def test_resumed_on_the_device_or_off_it(tmp_path):
    _, K, Y = problem(200)
    on_gpu, options = (
        fake_cupy.asarray(K),
        {"rank": 20, "checkpoint": tmp_path / "state.npz", "every": 2},
    )
    whole = cg(on_gpu, Y, 1e-2, rank=20)
    assert whole.iterations > 4
    cg(on_gpu, Y, 1e-2, maxiter=2, **options)
    seen = []
    resumed = cg(on_gpu, Y, 1e-2, callback=lambda i, r: seen.append(i), **options)
    assert seen[0] == 3
    assert np.array_equal(resumed.x, whole.x)
    assert relative_error(cg(K, Y, 1e-2, **options).x, whole.x) < 1e-8


@pytest.mark.usefixtures("gpu_solvers")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_factorised_on_the_device(dtype, overwrite):
    _, K, Y = problem(90)
    K = K.astype(dtype)
    exact, on_gpu, n = np.linalg.solve(K + 0.1 * np.eye(90), Y), fake_cupy.asarray(K), len(K)
    fake_cupy.traffic.clear()
    factor = Cholesky(on_gpu, 0.1, overwrite=overwrite)
    ours = factor.solve(Y)
    assert relative_error(ours, exact) < 1e-9
    assert max(crossings("up") + crossings("down")) == Y.size
    in_place = overwrite and dtype == "float64"
    assert [size for size in crossings("copy") if size > Y.size] == [n * n] * (1 if in_place else 2)
    assert np.array_equal(on_gpu, K) != in_place


@pytest.mark.usefixtures("gpu_solvers")
def test_decomposed_on_the_device():
    _, K, Y = problem(90)
    on_gpu, here, ridges = fake_cupy.asarray(K), Eigh(K), [0.1, 1.0]
    fake_cupy.traffic.clear()
    modes = Eigh(on_gpu)
    assert isinstance(modes.vectors, fake_cupy.ndarray)
    for name in ("path", "leave_one_out", "gcv"):
        assert (
            relative_error(getattr(modes, name)(Y, ridges), getattr(here, name)(Y, ridges)) < 1e-10
        )
    assert isinstance(modes.path(fake_cupy.asarray(Y), ridges), fake_cupy.ndarray)
    assert type(modes.solve(Y, 0.1)) is np.ndarray
    assert relative_error(eigs(on_gpu, 4, method="eigh")[0], here.values[:-5:-1]) < 1e-12
    assert max(crossings("up") + crossings("down")) <= 4 * len(K)  # 4 eigenvectors


@pytest.mark.usefixtures("gpu_solvers")
def test_a_failed_factorisation_on_the_device_is_said():
    _, K, _ = problem(40)
    with pytest.raises(ValueError, match=r"K \+ 0 I is not positive definite .* try a ridge"):
        Cholesky(fake_cupy.asarray(K - 100 * np.eye(40)))


@pytest.mark.usefixtures("gpu_solvers")
def test_landmarks_from_a_device():
    _, K, Y = problem(60)
    given = [fake_cupy.asarray(array) for array in (K[:, :9], K[:9, :9], Y)]
    ours, here = LandmarkRegression(*given, 1e-2), LandmarkRegression(K[:, :9], K[:9, :9], Y, 1e-2)
    assert type(ours.coefficients) is np.ndarray
    assert np.array_equal(ours.predict(given[0]), here.predict(K[:, :9]))
