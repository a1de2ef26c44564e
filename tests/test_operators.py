"""Operators against dense products, in every storage and tiling."""

import dask.array
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import svds

import fake_cupy
import ntkcore as nk
from conftest import relative_error
from ntkcore.linalg.operators import InMemory, MatrixFree, Stored, as_operator
from ntkcore.store.build import build
from test_cuda import gpu  # noqa: F401

NET = nk.mlp(2, b_std=0.1)


def data(n, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


class Chunked:
    """A chunked array that counts what is read."""

    def __init__(self, array, chunk):
        self.array, self.shape, self.dtype, self.chunks, self.read = (
            array,
            array.shape,
            array.dtype,
            (chunk, chunk),
            [],
        )

    def __getitem__(self, key):
        self.read.append((key[0].start, key[1].start))
        return self.array[key]


def operators(n, tile, dtype):
    x = data(n).astype(dtype)
    K = nk.kernel(NET, x)
    return K, [InMemory(K, tile=tile), Stored(Chunked(K, tile)), MatrixFree(NET, x, tile=tile)]


@given(
    st.integers(1, 40),
    st.integers(1, 45),
    st.integers(1, 4),
    st.sampled_from(["float32", "float64"]),
)
def test_products_diagonals_and_rows(n, tile, columns, dtype):
    K, all_kinds = operators(n, tile, dtype)
    X = data(n, columns, seed=1)
    some = np.random.default_rng(2).integers(0, n, 3)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    for operator in all_kinds:
        assert operator.dtype == np.float64
        assert relative_error(operator @ X, K.astype(float) @ X) < tolerance
        assert relative_error(operator @ X[:, 0], K.astype(float) @ X[:, 0]) < tolerance
        assert relative_error(operator.T @ X, K.astype(float) @ X) < tolerance
        assert operator.passes == 3
        assert relative_error(operator.diagonal(), np.diagonal(K)) < tolerance
        assert relative_error(operator.rows(some), K[some]) < tolerance
        assert relative_error(operator.row_product(some, X), K[some].astype(float) @ X) < tolerance
        assert relative_error(operator.submatrix(some), K[np.ix_(some, some)]) < tolerance


def test_rectangular_kernels():
    x, z = data(30), data(17, seed=3)
    K = nk.kernel(NET, x, z)
    for operator in (InMemory(K, tile=7), Stored(Chunked(K, 8)), MatrixFree(NET, x, z, tile=7)):
        assert relative_error(operator @ data(17, 2), K @ data(17, 2)) < 1e-12
        assert relative_error(operator.T @ data(30, 2), K.T @ data(30, 2)) < 1e-12
        assert relative_error(operator.rows([3, 1]), K[[3, 1]]) < 1e-12


def test_a_symmetric_store_is_read_once_and_half():
    K = nk.kernel(NET, data(40))
    chunked = Chunked(K, 10)
    operator = Stored(chunked)
    chunked.read.clear()
    operator @ data(40, 3)
    assert sorted(chunked.read) == [(i, j) for i in range(0, 40, 10) for j in range(i, 40, 10)]


@pytest.mark.parametrize(
    "wrap", [InMemory, lambda K: Stored(Chunked(K, 8)), lambda K: InMemory(K, symmetric=False)]
)
def test_a_square_kernel_of_two_data_sets_is_not_mirrored(wrap):
    K, X = nk.kernel(NET, data(20), data(20, seed=5)), data(20, 3, seed=6)
    operator = wrap(K)
    assert not operator.symmetric
    assert relative_error(operator @ X, K @ X) < 1e-12
    assert relative_error(operator.T @ X, K.T @ X) < 1e-12
    assert relative_error(svds(operator, 2)[1], np.linalg.svd(K)[1][[1, 0]]) < 1e-9


def test_a_store_says_if_it_is_symmetric(tmp_path):
    x, z = data(20), data(20, seed=5)
    own, two = build(NET, x, tmp_path / "own", tile=16), build(NET, x, tmp_path / "two", z, tile=16)
    assert Stored(own["ntk"]).symmetric
    assert not Stored(two["ntk"]).symmetric
    assert relative_error(Stored(two["ntk"]) @ z, nk.kernel(NET, x, z) @ z) < 1e-12


def test_dask_arrays():
    K = nk.kernel(NET, data(20))
    operator = Stored(dask.array.from_array(K, chunks=(8, 8)))
    assert relative_error(operator @ data(20, 2), K @ data(20, 2)) < 1e-12


@pytest.mark.parametrize(
    "K", ["k.zarr", nk.kernel(NET, data(3), get=("nngp", "ntk")), {"ntk": 1}, scipy.sparse.eye(3)]
)
def test_neighbours_of_kernels_are_told_what_to_pass(K):
    with pytest.raises(TypeError, match=r"^K "):
        as_operator(K)


def test_images_need_no_matrix():
    x = np.random.default_rng(0).standard_normal((20, 5, 4, 2))
    assert (
        relative_error(
            MatrixFree(nk.cntk(2), x, tile=8) @ data(20, 2), nk.kernel(nk.cntk(2), x) @ data(20, 2)
        )
        < 1e-12
    )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(50, 50), (50, 30)])
def test_a_matrix_on_a_device_is_converted_by_panels_and_stays_there(shape, dtype):
    K = (
        nk.kernel(NET, data(50), data(shape[1])) if shape[1] < 50 else nk.kernel(NET, data(50))
    ).astype(dtype)
    operator = InMemory(fake_cupy.asarray(K))
    operator.panel = 8 * shape[1]
    for transposed, full in ((False, K), (True, K.T)):
        X = data(full.shape[1], 3)
        given = fake_cupy.asarray(X)
        fake_cupy.traffic.clear()
        found = operator.product(given, transposed)
        copies = [("copy", rows * shape[1]) for rows in [8] * 6 + [2]]
        assert fake_cupy.traffic == (copies if dtype == "float32" else [])
        assert isinstance(found, fake_cupy.ndarray)
        assert relative_error(found, full.astype(float) @ X) < 1e-14  # sums of float64
    assert operator.passes == 2
    rows = operator.rows([3, 40])
    assert isinstance(rows, fake_cupy.ndarray)
    assert np.array_equal(rows, K[[3, 40]].astype(float))
    with pytest.raises(ValueError, match="rows is needed"):
        operator.product(fake_cupy.asarray(data(3)))


def test_bad_input():
    with pytest.raises(ValueError, match="not symmetric"):
        InMemory(np.ones((2, 3)), symmetric=True)
    with pytest.raises(ValueError, match="matrix"):
        InMemory(np.ones(3))
    with pytest.raises(ValueError, match="not finished"):
        Stored(Chunked(np.full((4, 4), np.nan), 2)) @ np.ones(4)
    with pytest.raises(TypeError, match="before the data"):
        MatrixFree(data(4), NET)
    for tile in ("a", 0, -1, 2.5):
        for make in (
            lambda t: InMemory(np.eye(2), tile=t),
            lambda t: MatrixFree(NET, data(4), tile=t),
        ):
            with pytest.raises(ValueError, match="tile must be a whole number of at least 1"):
                make(tile)
    for get in ("both", ("ntk", "nngp"), None):
        with pytest.raises(ValueError, match="get must be"):
            MatrixFree(NET, data(4), get=get)
    assert isinstance(as_operator(np.eye(2)), InMemory)
    assert isinstance(as_operator(Chunked(np.eye(2), 1)), Stored)


@pytest.mark.parametrize("K", [InMemory(np.eye(2)), InMemory(np.eye(2)).T])
@pytest.mark.parametrize("X", [np.full(2, 1j), np.full((2, 3), 1j)])
def test_imaginary_parts_are_not_dropped(K, X):
    with pytest.raises(TypeError, match=r"multiply \.real and \.imag apart"):
        K @ X


@pytest.mark.parametrize("what", ["k.zarr", {"ntk": np.eye(3)}, None])
def test_what_is_no_stored_array(what):
    with pytest.raises(TypeError, match="a stored kernel is an array"):
        Stored(what)


def test_an_array_that_is_its_whole_store():
    zarr = pytest.importorskip("zarr")
    K = problem_matrix()
    operator = Stored(zarr.array(K, chunks=(7, 7)), progress=False)
    assert operator.symmetric
    np.testing.assert_allclose(operator @ np.ones(len(K)), K.sum(axis=1))


def problem_matrix(n=20):
    x = np.random.default_rng(0).standard_normal((n, 3))
    return nk.kernel(nk.mlp(1), x)


def test_any_block_holds_samples_with_themselves():
    """Which Dropout tells apart from samples equal to them."""
    net = nk.Serial(nk.Dense(), nk.Relu(), nk.Dropout(0.5), nk.Dense())
    x = data(12)
    operator, K = MatrixFree(net, x), nk.kernel(net, x)
    for rows, cols in (
        (slice(0, 8), slice(3, 12)),
        (slice(5, 6), slice(0, 12)),
        (slice(None),) * 2,
    ):
        assert relative_error(operator.read(rows, cols), K[rows, cols]) < 1e-12
    assert relative_error(operator.rows([3, 1, 3]), K[[3, 1, 3]]) < 1e-12
