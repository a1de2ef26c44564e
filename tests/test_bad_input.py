"""Bad input gives one error that says what, likely why, and what next, before any long work."""

import numpy as np
import pytest

import ntkcore as nk

NET = nk.mlp(1)
X = np.random.default_rng(0).standard_normal((4, 3))
BAD = X.copy()
BAD[1, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nk.kernel(NET, BAD), ValueError, "x1 holds NaN"),
        (lambda: nk.kernel(NET, X, BAD), ValueError, "x2 holds NaN"),
        (lambda: nk.kernel(NET, [[np.inf]]), ValueError, "infinity"),
        (lambda: nk.kernel(NET, X * 1e200, dtype="float32"), ValueError, "range of float32"),
        (lambda: nk.kernel(NET, X[0]), ValueError, "reshape"),
        (lambda: nk.kernel(NET, 3.0), ValueError, "0 dimension"),
        (lambda: nk.kernel(NET, X[None]), ValueError, "channels"),
        (lambda: nk.kernel(NET, X[None, None, None]), ValueError, "5 dimension"),
        (lambda: nk.kernel(NET, [[1.0, 2.0], [3.0]]), ValueError, "rectangular"),
        (lambda: nk.kernel(NET, X.astype(complex)), TypeError, "complex"),
        (lambda: nk.kernel(NET, [["a"]]), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, np.array([[None]])), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, X[:0]), ValueError, "empty"),
        (lambda: nk.kernel(NET, X[:, :0]), ValueError, "empty"),
        (lambda: nk.kernel(NET, X, X[:, :2]), ValueError, r"differ in features.*\(3,\) and \(2,\)"),
        (lambda: nk.kernel(NET, X, X[:, :, None, None]), ValueError, "differ"),
        (lambda: nk.kernel(NET, X, get="cov"), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, get=()), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, get=("ntk", "ntk")), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, get=3), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, dtype="int32"), ValueError, "float32 or float64"),
        (lambda: nk.kernel(NET, X, backend="tpu"), ValueError, "unknown backend 'tpu'"),
        (lambda: nk.kernel(NET, X, threads=0), ValueError, "threads"),
        (lambda: nk.kernel(NET, X, threads=1.5), ValueError, "threads"),
        (lambda: nk.kernel(NET, X, tile=100), ValueError, "multiple of 256"),
        (lambda: nk.kernel(NET, X, depths=[2]), ValueError, "depths"),
        (lambda: nk.kernel(NET, X, depths=[]), ValueError, "depths"),
        (lambda: nk.kernel(NET, X, depths=[1, 1]), ValueError, "depths"),
        (lambda: nk.kernel(NET, X, augment="rotate"), ValueError, "hflip"),
        (lambda: nk.kernel(NET, X, augment="hflip"), ValueError, "images"),
        (lambda: nk.kernel(NET, X, pool_windows=[1]), ValueError, "Flatten"),
        (lambda: nk.kernel("relu", X), TypeError, "Serial"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 3))), ValueError, "out must have shape"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 4), "f")), ValueError, "out must have"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 4)).T[::1]), ValueError, "C-contiguous"),
        (lambda: nk.kernel(NET, X, out=[[0.0] * 4] * 4), TypeError, "NumPy array"),
        (lambda: nk.kernel(NET, X, get=("nngp", "ntk"), out=(np.empty((4, 4)),)), ValueError, "2 array"),
        (lambda: nk.kernel(NET, np.ones((10**7, 1), "f")), MemoryError, "GiB.*free"),
        (lambda: nk.kernel(NET, 1e200 * X), ValueError, "variance that is not finite"),
        (lambda: nk.kernel(NET, 1e25 * X.astype("f")), ValueError, "sample 0.*float64"),
        (lambda: nk.kernel(nk.Serial(nk.Dense(9.0), nk.Gaussian(1, 0.5), nk.Dense()), X), ValueError, "4 b q"),
        (lambda: nk.kernel_diag(NET, BAD), ValueError, "NaN"),
        (lambda: nk.kernel_diag(NET, X, get="x"), ValueError, "get must be"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_frozen_out_is_refused():
    out = np.empty((4, 4))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        nk.kernel(NET, X, out=out)


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"ntkcore\[cli\]"):
        nk.kernel(NET, X, progress=True)
