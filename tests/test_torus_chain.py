"""Chains of 3x3 convolutions by the templates of the GPU, on the emulation: every geometry,
length and way to end.
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error

NAMES = ("nngp", "ntk")
BOUNDS = {"float32": 5e-6, "float64": 1e-12}
SIDES = [(8, 8), (16, 16), (32, 32), (7, 7), (5, 4), (13, 9), (17, 6), (3, 31), (1, 1)]


def conv(b_std=None):
    return nk.Conv((3, 3), (1, 1), "SAME", 1.3, b_std)


def images(n, h, w, seed=0):
    return np.random.default_rng(seed).standard_normal((n, h, w, 2))


def check(net, x, z, dtype):
    double = nk.kernel(net, x, z, NAMES, dtype="float64")
    ours = nk.kernel(net, x, z, NAMES, dtype=dtype, backend="cuda-emulation")
    for k in (0, 1):
        assert relative_error(ours[k], double[k]) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("side", SIDES, ids=str)
def test_every_number_of_layers(side, dtype):
    if max(side) > 16 and dtype == "float64":
        pytest.skip("no chain of doubles is as large")
    x = images(2, *side)
    for depth in (1, 2, 3, 4, 5, 6):
        for b_std in (None, 0.2):
            check(nk.Serial(*(conv(b_std), nk.Relu()) * depth, nk.GlobalAvgPool()), x, None, dtype)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_layers_without_a_relu_between(side):
    layers = (
        conv(),
        conv(),
        nk.Relu(),
        conv(),
        nk.Relu(),
        conv(0.1),
        conv(),
        nk.Relu(),
        conv(),
        nk.Relu(),
        conv(),
    )
    check(
        nk.Serial(*layers, nk.GlobalAvgPool()),
        images(2, side, side),
        images(1, side, side, 1),
        "float32",
    )


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("side", [(8, 8), (16, 16), (32, 32), (6, 10), (14, 4)], ids=str)
@pytest.mark.parametrize("end", [nk.Flatten(), nk.GlobalAvgPool()], ids=["flatten", "gap"])
def test_pools_from_registers_and_not(side, end, dtype):
    if max(side) > 16 and dtype == "float64":
        pytest.skip("no chain of doubles is as large")
    for pool in (
        nk.AvgPool((2, 2), (2, 2)),
        nk.SumPool((2, 2), (2, 2)),
        nk.AvgPool((2, 2), (1, 2)),
        nk.AvgPool((3, 1), (1, 1)),
    ):
        body = (conv(), nk.Relu(), conv(0.1), nk.Relu(), pool, conv(), nk.Relu())
        check(nk.Serial(*body, end), images(2, *side), None, dtype)


def test_chains_longer_than_a_launch():
    for dtype, depth in (("float32", 35), ("float64", 13)):
        check(
            nk.Serial(*(conv(), nk.Relu()) * depth, nk.GlobalAvgPool()),
            images(2, 8, 8),
            None,
            dtype,
        )


@pytest.mark.parametrize("scale", [1e-15, 1e-18, 1e-21, 1e-30, 1e17])
def test_small_and_large_pixels_give_no_nan(scale):
    x = images(4, 8, 8) * scale
    x[1] = 0
    x[2, :, :4] = 0
    for net in (nk.cntk(4), nk.cntk(4, "flatten"), nk.myrtle(5)):
        side = 32 if net == nk.myrtle(5) else 8
        data = np.kron(x, np.ones((1, side // 8, side // 8, 1)))
        for kernel in nk.kernel(net, data, None, NAMES, dtype="float32", backend="cuda-emulation"):
            assert np.isfinite(kernel).all()


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("W_std", [2.0, 3.0, 30.0])
def test_dark_pixels_stay_dark(W_std, dtype):
    x = images(3, 16, 13)
    x[0] = 0
    x[1, 2:] = 0
    for net in (nk.cntk(12, W_std=W_std), nk.cntk(12, "flatten", W_std=W_std)):
        check(net, x[1:], None, dtype)
        for kernel in nk.kernel(net, x[:1], x[1:], NAMES, dtype=dtype, backend="cuda-emulation"):
            assert not kernel.any()


def test_float32_is_exact_to_the_end_of_its_range():
    check(nk.cntk(8), images(2, 8, 8), images(1, 8, 8, 1) * 1e-17, "float32")
    check(nk.cntk(8, W_std=1), images(2, 8, 8) * 1e-16, images(1, 8, 8, 1) * 1e-16, "float32")
