"""The GPU's Python side, with the emulated engine and a CuPy made of NumPy;
its messages where a thing is missing.

What needs a device stands in test_gpu.py.
"""

import importlib.machinery
import sys
from types import ModuleType

import numpy as np
import pytest

import fake_cupy
import ntkcore as nk
from conftest import relative_error
from examples import IMAGE_NETS, OTHER_NETS
from ntkcore import _core
from ntkcore.engine import device_arrays, lanes
from ntkcore.engine.backends import cuda_description, cuda_problem, info
from ntkcore.specs.lowering import lower

NAMES = ("nngp", "ntk")
MLP = nk.mlp(3, b_std=0.1)
OTHER = nk.Serial(
    nk.Dense(), nk.Residual(nk.Erf(), nk.Dense()), nk.LayerNorm(), nk.Gelu(), nk.Dense(1.2, 0.1)
)
MACHINE = {"driver": 13000, "runtime": 13000, "error": None, "devices": [("H100", 90, 80 * 2**30)]}


def use(monkeypatch, machine, cupy=True):
    engine = ModuleType("ntkcore._cuda")
    engine.__spec__ = importlib.machinery.ModuleSpec("ntkcore._cuda", None)
    engine.ARCHITECTURES = "80-real 90-real 100"
    engine.machine = lambda: machine
    engine.evaluate = _core.emulated_cuda.evaluate
    engine.evaluate_images = _core.emulated_cuda.evaluate_images
    monkeypatch.setitem(sys.modules, "ntkcore._cuda", engine)
    monkeypatch.setattr(nk, "_cuda", engine, raising=False)
    fake = fake_cupy if cupy else None
    if cupy:
        monkeypatch.setattr(fake_cupy, "__spec__", importlib.machinery.ModuleSpec("cupy", None))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return engine


@pytest.fixture
def gpu(monkeypatch):
    return use(monkeypatch, MACHINE)


def vectors(n, dtype=np.float64):
    return np.random.default_rng(n).standard_normal((n, 6)).astype(dtype)


def images(n, dtype=np.float64):
    return np.random.default_rng(n).standard_normal((n, 5, 5, 2)).astype(dtype)


def sequences(n, dtype=np.float64):
    return np.random.default_rng(n).standard_normal((n, 9, 2)).astype(dtype)


SEQUENCES = nk.Serial(
    *(nk.Conv((3,), padding="SAME", b_std=0.1), nk.Relu(), nk.Conv((2,), dilation=(3,))),
    *(nk.Erf(), nk.AvgPool((2,), (2,)), nk.GlobalAvgPool(), nk.Dense()),
)


def volumes(n, dtype=np.float64):
    return np.random.default_rng(n).standard_normal((n, 2, 3, 2, 2)).astype(dtype)


VOLUMES = nk.Serial(
    *(nk.Conv((2, 2, 2), padding="SAME", b_std=0.1), nk.Relu(), nk.ConvLocal((1, 2, 1))),
    *(nk.Erf(), nk.AvgPool((2, 1, 1)), nk.Dense(), nk.GlobalAvgPool(), nk.Dense()),
    *(nk.LayerNorm(), nk.Relu(), nk.Dense()),
)
LOCAL = nk.Serial(
    *(nk.ConvLocal((3, 3), padding="SAME"), nk.Relu(), nk.Conv((3, 3), padding="SAME")),
    *(nk.Relu(), nk.Flatten()),
)
CASES = [
    (MLP, vectors, 256, {}),
    (OTHER, vectors, 256, {}),
    (MLP, vectors, 256, {"depths": [1, 3]}),
    (nk.cntk(3), images, 16, {}),
    (nk.cntk(3), images, 16, {"augment": "hflip", "pool_windows": [1, "global"]}),
    (nk.Serial(*nk.resnet(1).layers, nk.Relu(), nk.Dense()), images, 16, {}),
    (OTHER_NETS["gated"], vectors, 256, {}),
    (OTHER_NETS["dropout"], vectors, 256, {}),
    (IMAGE_NETS["dropout"], images, 16, {}),
    (IMAGE_NETS["normalised over pixels"], images, 16, {}),
    (SEQUENCES, sequences, 16, {}),
    (VOLUMES, volumes, 16, {}),
    (LOCAL, images, 16, {"augment": "hflip"}),
]


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("net", "data", "tile", "options"), CASES)
def test_same_as_the_cpu(gpu, net, data, tile, options, dtype, on_device):
    n = 2 * tile + tile // 2
    x, z = (
        data(n if data in (images, volumes) else 300, dtype),
        data(tile + 3 if data in (images, volumes) else 270, dtype),
    )
    for other in (None, z):
        expected = nk.kernel(net, x, other, NAMES, **options)
        place = fake_cupy.asarray if on_device else np.asarray
        given = [None if a is None else place(a) for a in (x, other)]
        devices = None if on_device else [0, 1]
        ours = nk.kernel(net, *given, NAMES, tile=tile, backend="cuda", devices=devices, **options)
        for k in (0, 1):
            assert isinstance(ours[k], fake_cupy.ndarray) == on_device
            assert relative_error(np.asarray(ours[k]), expected[k]) < (
                3e-6 if dtype == "float32" else 1e-12
            )


@pytest.mark.parametrize("axes", [(3, 2), (2, 1, 2)])
def test_more_read_outs_than_a_thread_has_room_for(gpu, axes):
    layers = (nk.Conv((1,) * len(axes), b_std=0.1), nk.Relu())
    net, depths = nk.Serial(*layers * 70, nk.GlobalAvgPool()), range(1, 71)
    x = np.random.default_rng(0).standard_normal((3, *axes, 2))
    expected = nk.kernel(net, x, depths=depths)
    for backend in ("cuda", "cuda-emulation"):
        ours = nk.kernel(net, x, depths=depths, backend=backend)
        assert relative_error(ours, expected) < 1e-12


def test_too_many_branches_of_vectors_are_refused(gpu):
    branches = (nk.Dense(),) * 70
    net = nk.Serial(nk.FanOut(70), nk.Parallel(*branches), nk.FanInSum(), nk.Relu(), nk.Dense())
    for backend in ("cuda", "cuda-emulation"):
        with pytest.raises(ValueError, match="at most 64 branches"):
            nk.kernel(net, vectors(3), backend=backend)


def test_data_on_a_device_need_no_backend(gpu):
    x = fake_cupy.asarray(vectors(5))
    assert isinstance(nk.kernel(MLP, x), fake_cupy.ndarray)
    assert isinstance(nk.kernel_diag(MLP, x), fake_cupy.ndarray)
    out = fake_cupy.empty((5, 5), np.float64)
    assert nk.kernel(MLP, x, out=out) is out
    assert np.isfinite(out).all()
    with pytest.raises(ValueError, match="asnumpy"):
        nk.kernel(MLP, x, backend="generic")
    with pytest.raises(TypeError, match="CuPy array"):
        nk.kernel(MLP, x, out=np.empty((5, 5)))


def test_lack_of_memory_makes_tiles_smaller(gpu, monkeypatch):
    sizes = []

    def scarce(program, rows, cols, place, *more):
        if place[1] * place[3] > 16 * 32:
            raise MemoryError
        sizes.append(place[1] * place[3])
        _core.emulated_cuda.evaluate_images(program, rows, cols, place, *more)

    monkeypatch.setattr(gpu, "evaluate_images", scarce)
    x = images(70)
    assert (
        relative_error(nk.kernel(nk.cntk(2), x, tile=64, backend="cuda"), nk.kernel(nk.cntk(2), x))
        < 1e-12
    )
    assert max(sizes) <= 16 * 32

    def none(*arguments):
        raise MemoryError

    monkeypatch.setattr(gpu, "evaluate_images", none)
    with pytest.raises(MemoryError, match="free arrays"):
        nk.kernel(nk.cntk(2), x, tile=64, backend="cuda")


def test_a_devices_error_names_the_tile(gpu, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("CUDA: DualOp of 9: unspecified launch failure")

    monkeypatch.setattr(gpu, "evaluate", fail)
    with pytest.raises(RuntimeError, match=r"DualOp of 9.*rows \(0, 5\)"):
        nk.kernel(MLP, vectors(5), backend="cuda")


def test_vectors_on_a_device_stay_there(gpu, monkeypatch):
    """Only a scalar a point travels, and the CPU's points, which need the data, are not made."""
    x, z, moved = vectors(300), vectors(280), []
    expected, diagonal = nk.kernel(MLP, x, z), nk.kernel_diag(MLP, x)

    def asnumpy(array):
        moved.append(array.shape)
        return np.array(array)

    monkeypatch.setattr(fake_cupy, "asnumpy", asnumpy)
    monkeypatch.setattr(fake_cupy.ndarray, "__array__", None, raising=False)
    for other in (z, fake_cupy.asarray(z)):
        ours = nk.kernel(MLP, fake_cupy.asarray(x), other)
        assert isinstance(ours, fake_cupy.ndarray)
        assert relative_error(np.array(ours), expected) < 1e-12
    assert relative_error(np.array(nk.kernel_diag(MLP, fake_cupy.asarray(x))), diagonal) < 1e-14
    assert moved == [(300,), (280,)] * 2 + [(300,)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_zero_tiny_and_huge_rows(gpu, dtype):
    x = vectors(5, dtype)
    x[1] = 0
    x[2] *= np.finfo(dtype).tiny
    x[3] *= np.sqrt(np.finfo(dtype).max) * 1e3  # a square overflows
    with np.errstate(over="ignore"):
        unit, norm2 = map(fake_cupy.asnumpy, device_arrays.unit_rows(fake_cupy.asarray(x)))
    wide = x.astype(np.longdouble)
    squares = (wide**2).sum(1)
    assert unit.shape == (8, 6)
    assert unit.dtype == dtype
    assert not unit[5:].any()
    expected = wide / np.sqrt(np.where(squares > 0, squares, 1))[:, None]
    assert np.abs(unit[:5] - expected).max() < 2 * np.finfo(dtype).eps
    with np.errstate(over="ignore"):
        assert np.allclose(norm2, squares.astype(np.float64), rtol=1e-14, atol=0)


def test_points_of_norms_are_those_of_the_data():
    x = vectors(5000)
    program = lower(OTHER, (6,), wants_ntk=True, depths=None, pool_windows=None)
    whole = _core.Vectors(program, x)
    for threads in (1, 3):
        points = _core.Vectors.of_norms(program, (x**2).sum(1), 6, True, threads)
        arrays = [(*p.arrays, p.nngp, p.ntk) for p in (points, whole)]
        for ours, theirs in zip(*arrays, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="without the data"):
        points.unit  # noqa: B018


def test_data_that_have_no_kernel(gpu):
    for bad, error, words in (
        (np.full((3, 2), np.nan), ValueError, "x1 holds NaN"),
        (np.full((3, 2), 1e300), ValueError, "variance that is not finite"),
        (np.ones((3, 2), complex), TypeError, "real numbers"),
        (np.ones(3), ValueError, "matrix of vectors"),
    ):
        with pytest.raises(error, match=words), np.errstate(over="ignore"):
            nk.kernel(MLP, fake_cupy.asarray(bad))
    with pytest.raises(ValueError, match="differ in features"):
        nk.kernel(MLP, fake_cupy.asarray(vectors(3)), images(3))


def test_too_many_positions_for_a_device_are_refused_before_any_work(gpu, monkeypatch):
    x = np.ones((2, 9, 9, 9, 1), np.float32)
    net = nk.Serial(nk.Conv((2, 2, 2)), nk.Relu(), nk.GlobalAvgPool())
    monkeypatch.setattr(fake_cupy.cuda.runtime, "memGetInfo", lambda: (2**22, 2**30))
    words = r"all pairs of positions, 8\.\d* MiB for a pair.*4 MiB are free on device 0"
    for data in (x, fake_cupy.asarray(x)):
        with pytest.raises(MemoryError, match=words):
            nk.kernel(net, data, backend="cuda")


def test_products_keep_their_precision(gpu):
    """CuPy's setting comes back; the stand-in refuses to multiply under it."""
    nk.kernel(MLP, fake_cupy.asarray(vectors(5, "float32")))
    assert fake_cupy.compute_types["f"] == "TF32"


def test_buffers_are_made_once_a_lane(gpu, monkeypatch):
    taken = []

    def alloc(size):
        taken.append(size)
        return bytearray(size)

    monkeypatch.setattr(fake_cupy.cuda, "alloc_pinned_memory", alloc)
    x = vectors(1500, "float32")
    ours = nk.kernel(MLP, x, tile=256, backend="cuda")
    assert relative_error(ours, nk.kernel(MLP, x)) < 3e-6
    # A lane's first tile may be on the diagonal, without a mirror image.
    assert sum(taken) <= 2 * 3 * 256 * 256 * 4


def test_results_lie_with_the_data(gpu):
    with fake_cupy.cuda.Device(1):
        x, out = fake_cupy.asarray(vectors(5)), fake_cupy.empty((5, 5), np.float64)
    for data in ((x,), (x, fake_cupy.asarray(vectors(4))), (vectors(4), x)):
        assert nk.kernel(MLP, *data).number == 1
    assert nk.kernel_diag(MLP, x).number == 1
    assert nk.kernel(MLP, x, out=out) is out
    assert fake_cupy.cuda.Device().id == 0
    with pytest.raises(ValueError, match="data's device 1, not on 0"):
        nk.kernel(MLP, x, out=fake_cupy.empty((5, 5), np.float64))
    with pytest.raises(ValueError, match="lie on device 1"):
        nk.kernel(MLP, x, devices=[0, 1])


class Host:
    """As JAX's arrays on a CPU: the class has a name that its instances have not."""

    def __init__(self, values, kind=1):
        self.values, self.kind = values, kind

    @property
    def __cuda_array_interface__(self):
        raise AttributeError("not on a GPU")

    def __dlpack_device__(self):
        return self.kind, 0

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_arrays_of_others(gpu, monkeypatch):
    x = vectors(5)
    assert not device_arrays.on_device(Host(x))
    assert type(nk.kernel(MLP, Host(x))) is np.ndarray
    exported = []

    class Both(Host):
        def __dlpack__(self, **options):
            raise NotImplementedError

    monkeypatch.setattr(
        fake_cupy, "from_dlpack", lambda a: exported.append(a) or fake_cupy.asarray(a.values)
    )
    assert isinstance(nk.kernel(MLP, Both(x, kind=2)), fake_cupy.ndarray)
    assert isinstance(nk.kernel(nk.cntk(2), Both(images(3), kind=2)), fake_cupy.ndarray)
    assert len(exported) == 2  # DLPack orders the streams


def test_lack_of_memory_is_tried_once_more(gpu, monkeypatch):
    tried = []

    def scarce(program, rows, cols, place, *more):
        tried.append(place)
        if len(tried) == 1:
            raise MemoryError
        _core.emulated_cuda.evaluate(program, rows, cols, place, *more)

    monkeypatch.setattr(gpu, "evaluate", scarce)
    fake_cupy.pool_calls.clear()
    x = vectors(300)
    assert relative_error(nk.kernel(MLP, x, backend="cuda"), nk.kernel(MLP, x)) < 1e-12
    assert tried == [(0, 300, 0, 300)] * 2
    assert ("trim", "pool 0", 0) in fake_cupy.pool_calls
    assert fake_cupy.pool_calls[-2:] == [("set", "pool 0", 4, 2**30), ("trim", "pool 0", 2**30)]


def test_an_earlier_tiles_error_is_not_laid_to_this_one(gpu, monkeypatch):
    class Broken(fake_cupy.cuda.Stream):
        def synchronize(self):
            raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(device_arrays.cupy_module().cuda, "Stream", Broken)
    lanes._stream.cache_clear()
    try:
        with pytest.raises(
            RuntimeError, match=r"illegal.*rows \(0, 256\).*or a tile before.*BLOCKING"
        ):
            nk.kernel(MLP, vectors(700), tile=256, backend="cuda")
    finally:
        lanes._stream.cache_clear()


@pytest.mark.parametrize("devices", [[], [2], [0.5], [-1]])
def test_devices_that_are_not_there(gpu, devices):
    with pytest.raises(ValueError, match="devices must be numbers of the 2"):
        nk.kernel(MLP, vectors(5), backend="cuda", devices=devices)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"driver": 0}, "no NVIDIA driver"),
        ({"driver": 12080}, r"supports CUDA 12.8, this build needs 13.0: update"),
        ({"devices": []}, "the driver finds none"),
        ({"error": "out of luck", "devices": []}, "out of luck"),
        (
            {"devices": [("V100", 70, 1)]},
            r"code for 80-real 90-real 100, but the machine has V100 \(sm_70\)",
        ),
    ],
)
def test_what_is_missing_is_said(monkeypatch, change, words):
    use(monkeypatch, MACHINE | change)
    with pytest.raises(ValueError, match=words):
        nk.kernel(MLP, vectors(5), backend="cuda")
    assert info()[-1].name == "cuda"


def test_description(monkeypatch):
    use(monkeypatch, MACHINE)
    assert (
        cuda_description()
        == "built with 13.0 for 80-real 90-real 100; driver 13.0; H100 (sm_90, 80 GiB)"
    )
    use(monkeypatch, MACHINE | {"driver": 0, "devices": []})
    assert cuda_description().endswith("driver none; no device")


@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
def test_devices_that_this_build_serves(monkeypatch, capability):
    use(monkeypatch, MACHINE | {"devices": [("a GPU", capability, 1)]})
    assert cuda_problem() is None


def test_without_the_module_or_cupy(monkeypatch):
    use(monkeypatch, MACHINE, cupy=False)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "cupy" else object()
    )
    assert "CuPy is not installed" in cuda_problem()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "no CUDA module" in cuda_problem()
    with pytest.raises(ValueError, match="NTKCORE_CUDA=ON"):
        nk.kernel(MLP, vectors(5), backend="cuda")


def test_numpy_data_do_not_lie_on_a_device():
    assert not any(map(device_arrays.on_device, (np.ones(3), [1.0], None, memoryview(b"1"))))


@pytest.mark.parametrize("side", [8, 16, 32, 7, 13, 20, 29])
def test_warps_of_every_width(side):
    """Exact and ragged rows of registers, tori side by side in a warp,
    positive and general ReLUs, biases.
    """
    x = np.random.default_rng(0).standard_normal((2, side, min(side + 3, 32), 2))
    for dtype, bound in (("float32", 3e-6), ("float64", 1e-12)):
        for bias in (None, 0.2):
            net = nk.cntk(2, b_std=bias)
            ours = nk.kernel(net, x[:1], x[1:], NAMES, dtype=dtype, backend="cuda-emulation")
            expected = nk.kernel(net, x[:1], x[1:], NAMES, dtype="float64")
            for k in (0, 1):
                assert relative_error(ours[k], expected[k]) < bound


@pytest.mark.parametrize(("dtype", "side"), [("float64", (16, 6)), ("float32", (28, 28))])
def test_lanes_without_a_torus_stay_finite(dtype, side):
    """Beside tori of two strips, a last image that is dark where it meets idle lanes."""
    x = np.random.default_rng(0).standard_normal((6, *side, 1))
    x[2, :, : side[1] // 3] = 0
    conv = nk.Conv((3, 3), padding="SAME")
    net = nk.Serial(conv, nk.Relu(), conv, nk.Relu(), nk.Flatten(), nk.Dense())
    ours = nk.kernel(net, x[:3], x[3:], NAMES, dtype=dtype, backend="cuda-emulation")
    theirs = nk.kernel(net, x[:3], x[3:], NAMES)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
