"""Bad input gives one error that says what, likely why, and what next, before any long work."""

import re
import time

import numpy as np
import pytest

import ntkcore as nk

NET = nk.mlp(1)
X = np.random.default_rng(0).standard_normal((4, 3))
BAD = X.copy()
BAD[1, 1] = np.nan


def gaussian(b, *more):
    """Variances are x^2 for one feature."""
    return nk.Serial(nk.Dense(), nk.Gaussian(1, b), *more, nk.Dense())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nk.kernel(NET, BAD), ValueError, "x1 holds NaN"),
        (lambda: nk.kernel(NET, X, BAD), ValueError, "x2 holds NaN"),
        (lambda: nk.kernel(NET, [[np.inf]]), ValueError, "infinity"),
        (lambda: nk.kernel(NET, X * 1e200, dtype="float32"), ValueError, "range of float32"),
        (lambda: nk.kernel(NET, X[0]), ValueError, "reshape"),
        (lambda: nk.kernel(NET, 3.0), ValueError, "0 dimension"),
        (lambda: nk.kernel(NET, X[None]), ValueError, r"without channels are x\[\.\.\., None"),
        (lambda: nk.kernel(NET, X[None, None, None]), ValueError, r"shape \(1, 1, 4, 3\)"),
        (lambda: nk.kernel(NET, [[1.0, 2.0], [3.0]]), ValueError, "rectangular"),
        (lambda: nk.kernel(NET, X.astype(complex)), TypeError, "complex"),
        (lambda: nk.kernel(NET, [["a"]]), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, np.array([[None]])), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, X[:0]), ValueError, "empty"),
        (lambda: nk.kernel(NET, X[:, :0]), ValueError, "empty"),
        (lambda: nk.kernel(NET, X, X[:, :2]), ValueError, r"differ in features.*\(3,\) and \(2,\)"),
        (lambda: nk.kernel(NET, X, X[:, :, None, None]), ValueError, "differ"),
        (
            lambda: nk.kernel(NET, X, dtype="half size"),
            TypeError,
            "dtype must be float32 or float64",
        ),
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
        (lambda: nk.error_bounds("relu", X), TypeError, "Serial"),
        (lambda: nk.error_bounds(NET, BAD), ValueError, "x1 holds NaN"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 3))), ValueError, "out must have shape"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 4), "f")), ValueError, "out must have"),
        (lambda: nk.kernel(NET, X, out=np.empty((4, 4)).T[::1]), ValueError, "C-contiguous"),
        (lambda: nk.kernel(NET, X, out=[[0.0] * 4] * 4), TypeError, "NumPy array"),
        (
            lambda: nk.kernel(NET, X, get=("nngp", "ntk"), out=(np.empty((4, 4)),)),
            ValueError,
            "2 array",
        ),
        (lambda: nk.kernel(NET, np.ones((10**7, 1), "f")), MemoryError, "GiB.*free"),
        (lambda: nk.kernel(NET, 1e200 * X), ValueError, "variance that is not finite"),
        (lambda: nk.kernel(NET, 1e25 * X.astype("f")), ValueError, "sample 0.*float64"),
        (
            lambda: nk.kernel(nk.Serial(nk.Dense(9.0), nk.Gaussian(1, 0.5), nk.Dense()), X),
            ValueError,
            "4 b q",
        ),
        # Only the product has no finite moment.
        (lambda: nk.kernel(gaussian(0.3), [[1.0]]), ValueError, "4 b q"),
        (lambda: nk.kernel(gaussian(0.6), [[0.1], [1.0]]), ValueError, "sample 1.*4 b q"),
        (lambda: nk.kernel(gaussian(0.3), [[0.1]], [[1.0]]), ValueError, "4 b q"),
        (lambda: nk.kernel(gaussian(0.3, nk.Dense(), nk.Erf()), [[1.0]]), ValueError, "4 b q"),
        (lambda: nk.kernel_diag(gaussian(0.3), [[1.0]]), ValueError, "4 b q"),
        (
            lambda: nk.kernel(nk.Serial(nk.Dense(), nk.Exp(), nk.Dense()), [[12.0]], dtype="f4"),
            ValueError,
            "float64",
        ),
        (
            lambda: nk.kernel(nk.Serial(nk.Dense(), nk.Exp(), nk.Dense()), [[40.0]]),
            ValueError,
            "not finite",
        ),
        (
            lambda: nk.kernel(nk.Serial(nk.Dense(), nk.LayerNorm(0.0)), 0 * X),
            ValueError,
            "not finite",
        ),
        (lambda: nk.kernel(NET, X, 1e200 * X), ValueError, "variance that is not finite"),
        (lambda: nk.kernel(NET, None), TypeError, "x1 must hold real numbers"),
        (lambda: nk.kernel(NET, X, {}), TypeError, "x2 must be an array, not a dict"),
        (lambda: nk.kernel(NET, np.array([["2020"]], "M8[D]")), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, [[10**400]]), TypeError, "real numbers"),
        (lambda: nk.kernel(NET, X, [[1.0, np.inf, 0.0]]), ValueError, "x2 holds NaN or infinity"),
        (lambda: nk.kernel(NET, X, X[0]), ValueError, "x2 must be"),
        (lambda: nk.kernel(NET, X, X[:0]), ValueError, "x2 is empty"),
        (lambda: nk.kernel(NET, X, get=None), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, get=("ntk", 1)), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, dtype="bogus"), TypeError, "bogus"),
        (lambda: nk.kernel(NET, X, dtype="float16"), ValueError, "float32 or float64"),
        (lambda: nk.kernel(NET, X, dtype="complex128"), ValueError, "float32 or float64"),
        (lambda: nk.kernel(NET, X, backend=5), ValueError, "unknown backend 5.*generic"),
        (lambda: nk.kernel(NET, X, threads=True), ValueError, "threads"),
        (lambda: nk.kernel(NET, X, threads=-1), ValueError, "threads"),
        (lambda: nk.kernel(NET, X, threads="two"), ValueError, "threads.*'two'"),
        (lambda: nk.kernel(NET, X, tile=0), ValueError, "multiple of 256"),
        (lambda: nk.kernel(NET, X, tile=-256), ValueError, "multiple of 256"),
        (lambda: nk.kernel(NET, X, tile=256.0), ValueError, "multiple of 256"),
        (lambda: nk.kernel(NET, X, depths=[-1]), ValueError, "from 0.*to 1"),
        (lambda: nk.kernel(NET, X, depths=["a"]), TypeError, "depths"),
        (lambda: nk.kernel(NET, X, augment=True), ValueError, "hflip"),
        (lambda: nk.kernel(None, X), TypeError, "NoneType"),
        (lambda: nk.kernel(nk.Relu, X), TypeError, "Serial"),
        (lambda: nk.kernel(NET, X, out=np.empty((1, 4, 4))), ValueError, "out must have shape"),
        (lambda: nk.kernel(NET, X, depths=[1], out=np.empty((4, 4))), ValueError, r"\(1, 4, 4\)"),
        (
            lambda: nk.kernel(NET, np.ones((10**7, 1), "f"), get=("nngp", "ntk")),
            MemoryError,
            "2 of shape",
        ),
        (lambda: nk.kernel(gaussian(0.25), [[1.0]]), ValueError, "4 b q"),
        (lambda: nk.kernel(NET, np.ma.masked_array(X, X > 0)), TypeError, "mask"),
        (lambda: nk.kernel(NET, X, get=[["ntk"]]), ValueError, "get must be"),
        (lambda: nk.kernel(NET, X, backend=["generic"]), ValueError, "backend"),
        (lambda: nk.kernel(NET, X, depths=1), (ValueError, TypeError), "depths"),
        (lambda: nk.kernel(NET, X, depths=[1.0]), (ValueError, TypeError), "depths"),
        (lambda: nk.kernel(NET, X, depths=[[1]]), (ValueError, TypeError), "depths"),
        (lambda: nk.kernel(NET, X, get=("nngp", "ntk"), out=5), TypeError, "out"),
        (
            lambda: nk.kernel(NET, X, get=("nngp", "ntk"), out=(np.empty((4, 4)),) * 2),
            ValueError,
            "out",
        ),
        (lambda: nk.kernel(nk.mlp(1, 1e200), X), ValueError, "W_std"),
        (lambda: nk.kernel(nk.Serial(nk.Dense(), nk.ArcCosine(1.0)), X), ValueError, "order"),
        (lambda: nk.kernel_diag("relu", X), TypeError, "Serial"),
        (lambda: nk.kernel_diag(NET, X, depths=[2]), ValueError, "depths"),
        (lambda: nk.kernel_diag(NET, X, backend="tpu"), ValueError, "unknown backend"),
        (lambda: nk.kernel_diag(NET, X, augment="hflip"), ValueError, "images"),
        (lambda: nk.kernel_diag(NET, X, dtype="int8"), ValueError, "float32 or float64"),
        (lambda: nk.kernel_diag(NET, BAD), ValueError, "NaN"),
        (lambda: nk.kernel_diag(NET, X, get="x"), ValueError, "get must be"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_what_cannot_fit_is_refused_before_any_work():
    start = time.perf_counter()
    with pytest.raises(
        MemoryError, match="use fewer points, dtype='float32', one kernel at a time"
    ):
        nk.kernel(nk.mlp(30), np.ones((10**7, 1)))
    assert time.perf_counter() - start < 20  # the points alone, no pair


def test_nothing_is_written_on_bad_input():
    out = np.full((4, 4), 7.0)
    for bad in ({"threads": 0}, {"tile": 1}, {"backend": "tpu"}, {"depths": [9]}):
        with pytest.raises(ValueError, match=r"must|unknown"):
            nk.kernel(NET, X, out=out, **bad)
    with pytest.raises(ValueError, match="not finite"):
        nk.kernel(NET, 1e200 * X, out=out)
    assert (out == 7).all()


def test_a_frozen_out_is_refused():
    out = np.empty((4, 4))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        nk.kernel(NET, X, out=out)


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"ntkcore\[cli\]"):
        nk.kernel(NET, X, progress=True)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 28, 28)])
def test_images_with_their_channels_first_are_warned_of(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    net = nk.Serial(nk.Conv((1, 1)), nk.Relu(), nk.Flatten())
    with pytest.warns(UserWarning, match=r"channels first.*moveaxis\(x1, 1, -1\)") as caught:
        nk.kernel(net, x)
    assert caught[0].filename == __file__
    nk.kernel(net, np.moveaxis(x, 1, -1))
    nk.kernel(net, x[:, :, :, :7])  # no image is that narrow by mistake


CONV = nk.Conv((3, 3), padding="SAME")
WINDOWS = (nk.Conv, nk.ConvLocal, nk.ConvTranspose, nk.AvgPool, nk.SumPool)
SIZES = [(2.5, 2), (True, 2), (0, 2), (-1, 2), (), None, "ab", (10**9, 2), (10**30, 2)]


def of_images(*layers):
    """An error before any long work."""
    start = time.perf_counter()
    with pytest.raises((ValueError, TypeError)) as caught:
        nk.kernel(nk.Serial(CONV, *layers, nk.Flatten()), np.ones((2, 5, 5, 3)))
    assert time.perf_counter() - start < 2
    return str(caught.value)


@pytest.mark.parametrize("layer", WINDOWS, ids=lambda layer: layer.__name__)
@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_windows_and_strides_are_whole_numbers_of_some_size(layer, size):
    name = layer.__name__
    for make in (lambda: layer(size), lambda: layer((2, 2), size or (1,))):
        with pytest.raises(ValueError, match=rf"^{name}: \w+ must hold whole numbers from 1 to"):
            make()
    with pytest.raises(ValueError, match=r"^Conv: dilation must hold whole"):
        nk.Conv((2, 2), dilation=size or (1,))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nk.ImageResize((10**9, 10**9)), "layer 1, ImageResize.* x 1000000000 positions.*fewer"),
        (nk.ConvTranspose((2, 2), (1000, 1000)), "layer 1, ConvTranspose.*5000 x 5000 positions"),
        (nk.DotGeneral(rhs=np.ones((99, 99))), "layer 1, DotGeneral.* 5 x 5 x 99 x 99 positions"),
    ],
)
def test_too_many_positions(layer, words):
    message = of_images(layer)
    assert re.search(words, message)
    assert len(message) < 500


def test_a_constant_of_too_many_numbers():
    with pytest.raises(ValueError, match="DotGeneral: rhs has 27000000 numbers, more than"):
        nk.DotGeneral(rhs=np.ones((300, 300, 300)))


@pytest.mark.parametrize("join", [nk.FanInSum(), nk.FanInProd()], ids=repr)
def test_branches_of_other_widths(join):
    for a, b in ((nk.Dense(width=3), nk.Dense(width=4)), (nk.Identity(), nk.Dense(width=4))):
        with pytest.raises(ValueError, match=rf"layer 2, {re.escape(repr(join))}: .*width: 3, 4"):
            nk.kernel(nk.Serial(nk.FanOut(2), nk.Parallel(a, b), join), X)
    open_width = nk.Parallel(nk.Dense(width=4), nk.Dense())
    assert np.isfinite(nk.kernel(nk.Serial(nk.FanOut(2), open_width, join), X)).all()


def test_numpys_whole_numbers_and_flags():
    assert nk.FanOut(np.int64(2)) == nk.FanOut(2)
    assert nk.FanInConcat(np.int32(1)) == nk.FanInConcat(1)
    assert nk.AvgPool(np.array([2, 3]), np.array([1, 2])) == nk.AvgPool((2, 3), (1, 2))
    for make in (
        lambda: nk.AvgPool((2, 2), normalize_edges=3),
        lambda: nk.ImageResize((3, 3), antialias="no"),
        lambda: nk.Sign(frozen=1),
    ):
        with pytest.raises(TypeError, match="must be True or False"):
            make()


def test_layers_that_say_nothing_or_the_same_twice():
    with pytest.raises(ValueError, match=r"Parallel: takes .* at least one"):
        nk.Parallel()
    for axis in ((3, 3), (-1, 3), (1, -3, -1)):
        assert "names an axis twice" in of_images(nk.LayerNorm(axis=axis))
