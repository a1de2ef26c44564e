"""Operators, solvers and stores on a GPU, CuPy being made of NumPy."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest

import fake_cupy
import ntkcore as nk
from conftest import relative_error
from test_cuda import MLP, gpu, vectors  # noqa: F401


@pytest.fixture
def gpu_solvers(gpu, monkeypatch):
    """The parts of cupyx that solvers and operators use, SciPy's own here."""
    sparse = pytest.importorskip("scipy.sparse.linalg")

    class Operator(sparse.LinearOperator):
        def __new__(cls, *arguments):
            return object.__new__(cls)

        def __init__(self, shape, matvec, rmatvec, matmat, dtype, rmatmat):
            super().__init__(dtype, shape)
            self._parts = matvec, rmatvec, matmat, rmatmat

        _matvec = property(lambda self: self._parts[0])
        _rmatvec = property(lambda self: self._parts[1])
        _matmat = property(lambda self: self._parts[2])
        _rmatmat = property(lambda self: self._parts[3])

    for name, parts in {
        "cupyx.scipy.linalg": {"solve_triangular": fake_cupy.solve_triangular},
        "cupyx.scipy.sparse.linalg": {"LinearOperator": Operator},
        "cupyx": {"errstate": fake_cupy.errstate},
    }.items():
        for depth in range(1, name.count(".") + 1):
            parent = ".".join(name.split(".")[:depth])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        module = ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)


def test_operators_and_solvers_on_a_device(gpu_solvers):
    from ntkcore.linalg.cg import cg
    from ntkcore.linalg.cholesky import Cholesky
    from ntkcore.linalg.eigen import Eigh
    from ntkcore.linalg.operators import InMemory, MatrixFree, cupy_operator
    from ntkcore.linalg.solve import solve

    x, Y = vectors(70), np.random.default_rng(1).standard_normal((70, 2))
    K, on_gpu = nk.kernel(MLP, x), fake_cupy.asarray(x)
    exact = np.linalg.solve(K + 0.3 * np.eye(70), Y)
    for operator in (InMemory(fake_cupy.asarray(K), tile=16), MatrixFree(MLP, on_gpu, tile=16)):
        assert operator.xp is fake_cupy
        assert relative_error(operator @ Y, K @ Y) < 1e-12
        assert relative_error(operator.rows([3, 60]), K[[3, 60]]) < 1e-12
        assert relative_error(operator.diagonal(), np.diagonal(K)) < 1e-12
        assert relative_error(cg(operator, Y, 0.3, rtol=1e-10).x, exact) < 1e-7
        for transposed in (False, True):
            assert isinstance(operator.product(fake_cupy.asarray(Y), transposed), fake_cupy.ndarray)
        twin = cupy_operator(operator)
        assert relative_error(twin.matmat(fake_cupy.asarray(Y)), K @ Y) < 1e-12
        assert relative_error(twin.matvec(fake_cupy.asarray(Y[:, 0])), K @ Y[:, 0]) < 1e-12
    wide = MatrixFree(MLP, on_gpu, on_gpu[:30], tile=16)
    assert (
        relative_error(cupy_operator(wide).rmatmat(fake_cupy.asarray(Y)), K[:, :30].T @ Y) < 1e-12
    )
    factor = Cholesky(fake_cupy.asarray(K), 0.3)
    assert isinstance(factor.solve(fake_cupy.asarray(Y)), fake_cupy.ndarray)
    assert not isinstance(factor.solve(Y), fake_cupy.ndarray)
    for found in (
        factor.solve(Y),
        Eigh(fake_cupy.asarray(K)).solve(Y, 0.3),
        solve(fake_cupy.asarray(K), Y, 0.3),
    ):
        assert relative_error(found, exact) < 1e-10
    with pytest.raises(ValueError, match="not positive definite"):
        Cholesky(fake_cupy.asarray(K - 100 * np.eye(70)))


def test_products_on_workers_with_a_device(gpu_solvers):
    """Tiles stay there; only data and vectors travel."""
    from ntkcore.linalg.operators import MatrixFree

    x, Y = vectors(70), np.random.default_rng(1).standard_normal((70, 2))
    K = nk.kernel(MLP, x)
    options = {"tile": 16, "backend": "cuda"}
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="data on a GPU stay there"):
            MatrixFree(MLP, fake_cupy.asarray(x), executor=executor)
        operator = MatrixFree(MLP, x, executor=executor, **options)
        fake_cupy.traffic.clear()
        assert relative_error(operator @ Y, K @ Y) < 1e-12
        wide = MatrixFree(MLP, x, x[:30], executor=executor, **options)
        assert relative_error(wide.T @ Y, K[:, :30].T @ Y) < 1e-12
        assert relative_error(wide.gram_product(Y[:30]), K[:30] @ K[:, :30] @ Y[:30]) < 1e-12
        assert not isinstance(operator @ Y, fake_cupy.ndarray)
    up = [size for way, size in fake_cupy.traffic if way == "up"]
    assert sum(size == x.size for size in up) == 2  # the data of each operator, once
    assert max(size for way, size in fake_cupy.traffic if way == "down") <= 70 * 2


def test_a_store_is_built_on_devices(gpu, tmp_path):
    pytest.importorskip("zarr")
    from ntkcore.store.build import build
    from ntkcore.store.verify import verify

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, of version 3
        group = build(
            MLP, vectors(70), tmp_path / "k.zarr", tile=16, backend="cuda", devices=[0, 1]
        )
        assert relative_error(group["ntk"][...], nk.kernel(MLP, vectors(70))) < 1e-12
        assert verify(tmp_path / "k.zarr", sample=100).ok
