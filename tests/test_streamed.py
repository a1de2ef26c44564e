"""Data read when they are needed give what data in memory give."""

import dask.array
import numpy as np
import pytest
import zarr

import ntkcore as nk
from conftest import assert_close
from ntkcore.engine.streamed import PANEL, Streamed, check_samples
from ntkcore.linalg.fitting import KernelModel

N, NET = 120, nk.mlp(2, 1.4, 0.3)
X = np.random.default_rng(0).standard_normal((N, 4)).astype("f4")
Y = np.sin(X @ np.ones((4, 2)))


def of_zarr(x, folder):
    return zarr.create_array(folder / "x.zarr", data=x, chunks=(50, 4))


def of_dask(x, folder):
    return dask.array.from_array(x, chunks=(50, 4))


def mapped(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def mapped_double(x, folder):
    return mapped(x.astype("f8"), folder)


def of_hdf5(x, folder):
    """A chunked dataset of h5py's, where that is installed."""
    h5py = pytest.importorskip("h5py", reason="no h5py: HDF5 is tested by a stand-in only")
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=x, chunks=(50, 4))


def of_hdf5_in_one_piece(x, folder):
    h5py = pytest.importorskip("h5py", reason="no h5py: HDF5 is tested by a stand-in only")
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=x)


class Hdf5:
    """A stand-in: like h5py it reads rising numbers only, each once."""

    chunks = (50, 4)

    def __init__(self, x, folder):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        if not isinstance(rows, slice) and (np.diff(rows) <= 0).any():
            raise TypeError("Indexing elements must be in increasing order")
        return self.x[rows]


KINDS = [of_zarr, of_dask, mapped, mapped_double, of_hdf5, of_hdf5_in_one_piece, Hdf5]


@pytest.mark.parametrize("kind", KINDS)
def test_operators_of_streamed_data(kind, tmp_path):
    x = kind(X, tmp_path)
    streamed, here = (nk.MatrixFree(NET, data, tile=32, dtype="f4") for data in (x, X))
    v, at = np.random.default_rng(1).standard_normal((N, 2)), [7, 3, 110, 3]
    assert np.array_equal(streamed @ v, here @ v)
    assert np.array_equal(streamed.rows(at), here.rows(at))
    assert np.array_equal(streamed.submatrix(at), here.submatrix(at))
    assert np.array_equal(streamed.diagonal(), here.diagonal())
    cross = nk.MatrixFree(NET, x, X[:5], tile=32, dtype="f4")
    assert np.array_equal(cross @ v[:5], nk.MatrixFree(NET, X, X[:5], tile=32) @ v[:5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["cholesky", "cg", "landmarks"])
def test_fits_of_streamed_data(kind, method, tmp_path):
    x = kind(X, tmp_path)
    streamed, here = (nk.fit(NET, data, Y, 1e-2, method=method, dtype="f4") for data in (x, X))
    assert_close(streamed.coefficients, here.coefficients, 1e-6)
    assert np.array_equal(streamed.samples, here.samples)
    assert_close(streamed.predict(x), here.predict(X), 1e-6)
    place = streamed.save(tmp_path / "model.npz")
    assert np.array_equal(KernelModel.load(place).predict(X), streamed.predict(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x: np.where(np.arange(N)[:, None] >= 90, np.nan, x), "x1 holds NaN .* in row 90,"),
        (lambda x: x * 0 + np.inf, "x1 holds NaN .* in row 0,"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(kind, wrong, words, tmp_path, monkeypatch):
    monkeypatch.setattr("ntkcore.engine.streamed.PANEL", 80)  # numbers: 20 rows
    with pytest.raises(ValueError, match=words):
        nk.MatrixFree(NET, kind(wrong(X).astype("f4"), tmp_path), dtype="f4")


def test_a_kernel_in_hdf5(tmp_path):
    K = nk.kernel(NET, X)
    stored = nk.Stored(of_hdf5(K, tmp_path), symmetric=False)
    assert_close(stored @ Y, K.astype(float) @ Y, 1e-12)
    assert np.array_equal(stored.rows([7, 3, 110, 3]), K[[7, 3, 110, 3]])


def test_values_beyond_the_range(tmp_path):
    x = np.where(np.arange(3)[:, None] == 1, 1e60, np.ones((3, 2)))
    with pytest.raises(ValueError, match="beyond the range of float32 in row 1,"):
        check_samples(mapped(x, tmp_path), None, "f4")


def test_features_and_axes(tmp_path):
    x = of_zarr(X, tmp_path)
    with pytest.raises(ValueError, match="differ in features"):
        nk.MatrixFree(NET, x, X[:, :3])
    with pytest.raises(ValueError, match="must be a matrix"):
        nk.MatrixFree(NET, dask.array.from_array(X[:, 0]))
    with pytest.raises(TypeError, match="must hold real numbers"):
        nk.MatrixFree(NET, dask.array.from_array(X.astype(complex)))


def test_no_more_is_held_than_asked_for(tmp_path, monkeypatch):
    """The pass that looks at data and a product read some rows at a time."""
    monkeypatch.setattr("ntkcore.engine.streamed.PANEL", 80)
    most = []

    class Watched(Hdf5):
        def __getitem__(self, rows):
            found = super().__getitem__(rows)
            most.append(len(found))
            return found

    operator = nk.MatrixFree(NET, Watched(X, tmp_path), tile=32)
    operator @ np.ones(N)
    operator.rows([1, 2])
    assert max(most) <= 32
    assert PANEL > 80


def test_streamed_is_an_array(tmp_path):
    rows = Streamed(Hdf5(X, tmp_path), np.dtype("f8"))
    assert np.array_equal(np.asarray(rows), X.astype("f8"))
    assert rows.ndim == 2
    assert rows[1:3].dtype == np.float64
