"""Kernels of images against direct sums over full tensors, and that nothing else changes them."""

import subprocess
import sys

import numpy as np
import pytest

import ntkcore as nk
from conftest import check_against_reference, relative_error
from examples import GAP, IMAGE_NETS, C, R
from reference import reference


def images(n, h=5, w=4, channels=2, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, h, w, channels)).astype(dtype)


@pytest.mark.parametrize("backend", nk.backends())
@pytest.mark.parametrize("name", IMAGE_NETS)
def test_against_the_reference(name, backend, once):
    net, x, z = IMAGE_NETS[name], images(3), images(2, seed=1)
    check_against_reference(lambda other: once(reference, net, x, other), net, x, z, backend, 3e-6)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("name", ["cntk gap", "pools", "head"])
def test_sizes_symmetry_and_diagonal(name, n):
    x = images(n, dtype=np.float32)
    k = nk.kernel(IMAGE_NETS[name], x, get=("nngp", "ntk"))
    cross = nk.kernel(IMAGE_NETS[name], x, x.copy(), ("nngp", "ntk"))
    for kernel in ("nngp", "ntk"):
        matrix = getattr(k, kernel)
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == nk.kernel_diag(IMAGE_NETS[name], x, kernel)).all()
        off = ~np.eye(n, dtype=bool)
        assert (
            np.abs(matrix - getattr(cross, kernel))[off].max(initial=0)
            < 1e-5 * np.abs(matrix).max()
        )


@pytest.mark.parametrize("name", ["cntk gap", "pools", "strided residual"])
def test_neither_threads_nor_tiles_change_a_bit(name):
    x, z = images(40, dtype=np.float32), images(35, seed=1, dtype=np.float32)
    for other in (None, z):
        first = nk.kernel(IMAGE_NETS[name], x, other, threads=1)
        for threads, tile in ((2, 16), (3, 32), (1, 64)):
            assert (
                nk.kernel(IMAGE_NETS[name], x, other, threads=threads, tile=tile) == first
            ).all()


def test_any_memory_order_and_dtype():
    x = images(3)
    expected = nk.kernel(IMAGE_NETS["residual"], x)
    wide = np.zeros((3, 10, 8, 4))
    wide[:, ::2, ::2, ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(x), wide[:, ::2, ::2, ::2], frozen):
        assert (nk.kernel(IMAGE_NETS["residual"], same) == expected).all()
    assert nk.kernel(IMAGE_NETS["residual"], (10 * x).astype(np.int8)).dtype == np.float64


def with_layers(net, *replacement):
    """The network with its last two layers (read-out, dense) replaced."""
    return nk.Serial(*net.layers[:-2], *replacement, net.layers[-1])


def test_depths_and_windows_are_the_plain_layers():
    x, z = images(3, 6, 5), images(2, 6, 5, seed=1)
    for other in (None, z):
        many = nk.kernel(
            nk.cntk(3, b_std=0.1),
            x,
            other,
            ("nngp", "ntk"),
            depths=[1, 3],
            pool_windows=[1, 3, 5, "global"],
        )
        for i, depth in enumerate((1, 3)):
            plain = nk.cntk(depth, b_std=0.1)
            readouts = [
                (nk.Flatten(),),
                *((nk.AvgPool((k, k), (1, 1), "SAME"), nk.Flatten()) for k in (3, 5)),
                (nk.GlobalAvgPool(),),
            ]
            for j, readout in enumerate(readouts):
                alone = nk.kernel(with_layers(plain, *readout), x, other, ("nngp", "ntk"))
                assert relative_error(many.nngp[i, j], alone.nngp) < 1e-13
                assert relative_error(many.ntk[i, j], alone.ntk) < 1e-13
    diagonal = nk.kernel_diag(nk.cntk(3), x, depths=[1, 3], pool_windows=[1, "global"])
    assert diagonal.shape == (2, 2, 3)


@pytest.mark.parametrize("name", ["cntk gap", "head", "residual"])
def test_flips_are_averaged(name):
    x, z = images(17, 4, 4), images(5, 4, 4, seed=1)
    net = IMAGE_NETS[name]
    for other in (None, z):
        right = x if other is None else other
        four = (
            sum(
                nk.kernel(net, a, b) for a in (x, x[:, :, ::-1]) for b in (right, right[:, :, ::-1])
            )
            / 4
        )
        ours = nk.kernel(net, x, other, augment="hflip")
        # The four know rho = 1 on the diagonal to rounding only.
        assert relative_error(ours, four) < 1e-8
        if other is None:
            assert (ours == ours.T).all()
            assert relative_error(np.diag(ours), nk.kernel_diag(net, x, augment="hflip")) < 1e-14


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="left and right"):
        nk.kernel(IMAGE_NETS["even filters"], images(2), augment="hflip")
    with pytest.raises(ValueError, match="odd"):
        nk.kernel(nk.cntk(1), images(2), pool_windows=[2])
    with pytest.raises(ValueError, match="multiple of 16"):
        nk.kernel(nk.cntk(1), images(2), tile=8)
    with pytest.raises(ValueError, match=r"differ.*\(5, 4, 2\) and \(5, 5, 2\)"):
        nk.kernel(nk.cntk(1), images(2), images(2, 5, 5))


def test_depths_of_a_network_with_pools():
    """Its read-outs stand beside pools: by full covariances."""
    x, z = images(3, 8, 4), images(2, 8, 4, seed=1)
    first = (C, R, nk.AvgPool((2, 2), (2, 2)))
    both = nk.kernel(nk.Serial(*first, C, R, GAP, nk.Dense()), x, z, ("nngp", "ntk"), depths=[1, 2])
    for name in ("nngp", "ntk"):
        for i, layers in enumerate(((C, R), (*first, C, R))):
            alone = nk.kernel(nk.Serial(*layers, GAP, nk.Dense()), x, z, name)
            assert relative_error(getattr(both, name)[i], alone) < 1e-12


def test_single_precision_at_20_layers():
    x = images(4, 8, 8, 3)
    single, double = (
        nk.kernel(nk.cntk(20), x.astype("f"), dtype=t).astype(float) for t in ("float32", "float64")
    )
    assert relative_error(single, double) < 3e-6
    assert np.abs(np.diag(single) / np.diag(double) - 1).max() < 1e-5


def near_duplicates(data_folder, side):
    """48 natural images: 16, each with two copies under noise of 1e-3, normalised,
    in the middle `side` pixels.
    """
    x = np.load(data_folder / "cifar10_lossless_5170_1017.npz")["X_train"][:16].astype(float)
    low = (32 - side) // 2
    x = x[:, low : low + side, low : low + side]
    x = (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    rng = np.random.default_rng(0)
    return np.concatenate([x, *(x + 1e-3 * rng.standard_normal(x.shape) for _ in range(2))]).astype(
        np.float32
    )


@pytest.mark.parametrize(
    "side", [8, pytest.param(16, marks=pytest.mark.slow), pytest.param(32, marks=pytest.mark.slow)]
)
def test_near_duplicates_keep_the_gram_positive(data_folder, side):
    k = nk.kernel(nk.cntk(20), near_duplicates(data_folder, side))
    assert np.isfinite(k).all()
    assert np.linalg.eigvalsh(k.astype(float))[0] > 0


def test_memory_does_not_grow_with_the_images():
    """Beyond the result: a child's peak over 300 images stays within 40 MiB of that over 30."""
    code = (
        "import resource, sys, numpy as np, ntkcore as nk\nx = np.zeros((int(sys.argv[1]), 16, 16,"
        " 1), 'f') + np.random.default_rng(0).random((1, 16, 16, 1))\nnk.kernel(nk.cntk(3,"
        " 'flatten'), x.astype('f'),"
        " threads=1)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peak = [int(subprocess.check_output([sys.executable, "-c", code, str(n)])) for n in (30, 300)]
    unit = 1 if sys.platform == "darwin" else 1024
    assert (peak[1] - peak[0]) * unit < 40 * 2**20
