"""On a GPU: every layer, dtype, way in and way out against the CPU
engine (`pytest -m gpu`, tools/gpu_check.sh).
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from examples import FULL_NETS, IMAGE_NETS, SIGNAL_NETS, SMOOTH, VECTOR_NETS
from ntkcore.engine.backends import cuda_problem
from own_nets import data_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_problem() is not None, reason=str(cuda_problem())),
]
NAMES = ("nngp", "ntk")
BOUNDS = {"float32": 5e-6, "float64": 1e-12}


def check(net, x, z, dtype, **options):
    double = nk.kernel(net, x, z, NAMES, dtype="float64", **options)
    ours = nk.kernel(net, x, z, NAMES, dtype=dtype, backend="cuda", **options)
    for k in (0, 1):
        assert relative_error(ours[k], double[k]) < BOUNDS[dtype]


def images(n, h=5, w=4, channels=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, h, w, channels))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", IMAGE_NETS)
def test_networks_of_images(name, dtype):
    for z in (None, images(9, seed=1)):
        check(IMAGE_NETS[name], images(20), z, dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", SIGNAL_NETS)
def test_networks_of_signals(name, dtype):
    """On planes, and by full covariances."""
    net, shape = SIGNAL_NETS[name]
    for z in (None, data_of(net, 3, shape, seed=1)):
        check(net, data_of(net, 5, shape), z, dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", VECTOR_NETS)
def test_networks_of_vectors(name, dtype):
    rng = np.random.default_rng(0)
    for z in (None, rng.standard_normal((270, 7))):
        check(VECTOR_NETS[name], rng.standard_normal((300, 7)), z, dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_activations(activation, dtype):
    check(nk.Serial(nk.Dense(0.8, 0.1), activation, nk.Dense()), images(20)[:, 0, 0], None, dtype)
    net = nk.Serial(
        nk.Conv((3, 3), padding="SAME", W_std=0.7), activation, nk.GlobalAvgPool(), nk.Dense()
    )
    check(net, images(20), None, dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("side", [8, 16, 32, 7, 13, 29, 40])
def test_sides(side, dtype):
    for bias in (None, 0.2):
        check(
            nk.cntk(3, b_std=bias),
            images(3, side, max(side - 3, 1)),
            images(2, side, max(side - 3, 1), seed=1),
            dtype,
        )
        check(nk.cntk(3, b_std=bias), images(3, side, side), None, dtype)


@pytest.mark.parametrize("scale", [1e-15, 1e-19, 1e-21, 1e-30, 1e17])
def test_small_large_and_zero_pixels(scale):
    """No NaN, although the device flushes what is below 1e-38."""
    x = images(4, 8, 8) * scale
    x[1] = 0
    x[2, :, :4] = 0
    layer = nk.Conv((3, 3), padding="SAME"), nk.Relu()
    pooled = nk.Serial(*layer, nk.AvgPool((2, 2), (2, 2)), *layer, nk.Flatten())
    for net in (nk.cntk(4), nk.cntk(4, "flatten"), pooled):
        for kernel in nk.kernel(net, x, None, NAMES, dtype="float32", backend="cuda"):
            assert np.isfinite(kernel).all()


def test_options():
    check(
        nk.cntk(3),
        images(40),
        None,
        "float64",
        augment="hflip",
        pool_windows=[1, 3, "global"],
        tile=16,
    )
    check(nk.cntk(3), images(40), None, "float64", depths=[1, 3])


@pytest.mark.parametrize("net", [nk.mlp(3), nk.cntk(3)], ids=["vectors", "images"])
def test_arrays_of_cupy_and_of_others(net):
    cupy = pytest.importorskip("cupy")
    x = images(40) if net == nk.cntk(3) else images(40)[:, 0].reshape(40, -1)
    expected = nk.kernel(net, x)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        ours = nk.kernel(net, cupy.asarray(x))
        total = ours.sum()
    assert isinstance(ours, cupy.ndarray)
    assert relative_error(cupy.asnumpy(ours), expected) < 1e-12
    assert abs(float(total) - expected.sum()) < 1e-9 * np.abs(expected).sum()

    class OnlyDLPack:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    assert (
        relative_error(cupy.asnumpy(nk.kernel(net, OnlyDLPack(cupy.asarray(x)))), expected) < 1e-12
    )


def test_vectors_keep_their_precision():
    """Products in full float32 under CUPY_TF32=1; norms of zero, tiny and huge rows;
    the same on either side.
    """
    cupy = pytest.importorskip("cupy")
    types, float32 = cupy._core._routines_linalg, np.dtype("float32")
    x = np.random.default_rng(0).standard_normal((301, 200)).astype(float32)
    x[1], x[2], x[3] = 0, 1e-12 * x[2], 1e12 * x[3]
    expected = nk.kernel(nk.mlp(3), x, dtype="float64")
    scale = np.sqrt(np.diagonal(expected))
    scale = np.where(scale > 0, scale, 1)
    before = cupy._core.get_compute_type(float32)
    cupy._core.set_compute_type(float32, types.COMPUTE_TYPE_TF32)
    try:
        for data in (x, cupy.asarray(x)):
            ours = cupy.asnumpy(nk.kernel(nk.mlp(3), data, backend="cuda"))
            assert np.abs((ours - expected) / scale / scale[:, None]).max() < 5e-6
        assert cupy._core.get_compute_type(float32) == types.COMPUTE_TYPE_TF32
    finally:
        cupy._core.set_compute_type(float32, before)
    diagonal = cupy.asnumpy(nk.kernel_diag(nk.mlp(3), cupy.asarray(x)))
    assert np.allclose(diagonal, np.diagonal(expected), rtol=1e-6, atol=0)


def test_many_tiles_of_vectors_to_the_host():
    x = np.random.default_rng(0).standard_normal((1203, 7))
    for z in (None, x[:701] + 1):
        check(VECTOR_NETS["long chain"], x, z, "float64", tile=256)


def test_the_same_bits_every_time():
    local, shape = FULL_NETS["local"]
    for net, x in (
        (nk.cntk(4), images(40)),
        (nk.mlp(4), images(300)[:, 0, 0]),
        (local, images(40, *shape)),
    ):
        first = nk.kernel(net, x, backend="cuda", dtype="float32")
        assert np.array_equal(first, nk.kernel(net, x, backend="cuda", dtype="float32"))
        assert np.array_equal(first, first.T)


def torch_on_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no GPU")
    return torch


@pytest.mark.parametrize("name", ["chain with biases", "cntk gap"])
def test_finite_networks(name):
    torch = torch_on_gpu()
    from ntkcore.finite import empirical_nngp, empirical_ntk, to_torch, train

    net = {**VECTOR_NETS, **IMAGE_NETS}[name]
    x = images(12) if name in IMAGE_NETS else np.random.default_rng(0).standard_normal((12, 7))
    here = to_torch(net, 16, input_shape=x.shape[1:], dtype="float64", seed=0)
    there = to_torch(net, 16, input_shape=x.shape[1:], dtype="float64", seed=0).to("cuda")
    for kernel in (empirical_ntk, empirical_nngp):
        assert relative_error(kernel(there, x), kernel(here, x)) < 1e-10
    for module in (here, there):
        train(module, x, x.reshape(12, -1)[:, 0], lr=0.1, steps=5)
    z = torch.as_tensor(x)
    assert relative_error(there(z.cuda()).detach().cpu().numpy(), here(z).detach().numpy()) < 1e-8


def test_falsifier(tmp_path):
    torch_on_gpu()
    from ntkcore.falsifier import Budget, Claim, Training, falsify

    x = np.random.default_rng(0).choice([-1.0, 1.0], (200, 6))
    training = Training(steps=200, learning_rates=(1e-2,), weight_decays=(0.0,), batch_size=None)
    options = {
        "training": training,
        "budget": Budget(1, ()),
        "folder": tmp_path,
        "device": "cuda",
    }
    (verdict,) = falsify((x, x[:, 0]), nk.mlp(1), Claim("c"), width=64, **options).verdicts
    assert min(effect.mean for effect in verdict.effects.values()) > 0.5
