"""Kernel objects: neural-tangents' own attributes, networks behind a Kernel, masks, diagonals."""

import json
from pathlib import Path

import numpy as np
import pytest

import ntkcore as nk
from conftest import assert_close
from examples import BOUNDED
from ntkcore import stax
from stax_nets import behind, masked, nets

DATA = Path(__file__).parent / "data"
ARRAYS = np.load(DATA / "stax_reference.npz")
FACTS = json.loads((DATA / "stax_reference.json").read_text())
NETS = nets(stax)
X = np.random.default_rng(0).standard_normal((5, 4))
Z = np.random.default_rng(1).standard_normal((3, 4))
IMAGES = np.random.default_rng(2).standard_normal((2, 6, 6, 3))
BELOW = stax.serial(stax.Dense(16, 1.3, 0.2), stax.Relu(), stax.Dense(8, 1.1, 0.1))
ABOVE = stax.serial(stax.Erf(), stax.Dense(8, 0.9, 0.3), stax.Gelu(), stax.Dense(2))


@pytest.mark.parametrize("name", NETS)
def test_every_attribute_is_neural_tangents(name):
    kernel = NETS[name][0].kernel_fn(ARRAYS[f"{name}/x"])
    facts = FACTS[name]["kernel"]
    assert set(kernel.asdict()) == {*facts, "nngp", "ntk", "cov1"}
    for field, expected in facts.items():
        expected = tuple(expected) if isinstance(expected, list) else expected
        assert getattr(kernel, field) == expected
        assert type(getattr(kernel, field)) is type(expected)
    off = ~np.eye(len(kernel.cov1), dtype=bool)  # its own error at rho = 1 is 1e-9
    for field in ("nngp", "ntk"):
        assert_close(getattr(kernel, field)[off], ARRAYS[f"{name}/{field}"][off], 1e-13)
        assert_close(getattr(kernel, field), ARRAYS[f"{name}/{field}"], 1e-8)
    assert_close(kernel.cov1, ARRAYS[f"{name}/cov1"], 1e-13)


def test_replace():
    kernel = BELOW.kernel_fn(X, Z)
    changed = kernel.replace(ntk=2 * kernel.ntk, is_gaussian=False)
    assert (changed.ntk == 2 * kernel.ntk).all()
    assert not changed.is_gaussian
    assert changed.nngp is kernel.nngp
    assert kernel.is_gaussian
    assert kernel.astuple() == tuple(kernel.asdict().values())
    with pytest.raises(TypeError, match="nonesuch"):
        kernel.replace(nonesuch=1)


def test_every_attribute_by_its_name():
    kernel_fn = BELOW.kernel_fn
    kernel = kernel_fn(X, Z)
    for name, value in kernel.asdict().items():
        assert np.array_equal(kernel_fn(X, Z, name), value)


@pytest.mark.parametrize("x2", [None, Z, X])
def test_a_network_behind_a_kernel(x2):
    whole = stax.serial(BELOW, ABOVE).kernel_fn(X, x2)
    parted = ABOVE.kernel_fn(BELOW.kernel_fn(X, x2))
    for name, expected in whole.asdict().items():
        ours = getattr(parted, name)
        if name in ("nngp", "ntk", "cov1", "cov2") and expected is not None:
            assert_close(ours, expected, 1e-8 if x2 is X else 1e-14)
        else:
            assert ours == expected
    assert np.array_equal(ABOVE.kernel_fn(BELOW.kernel_fn(X, x2), get="ntk"), parted.ntk)
    got = ABOVE.kernel_fn(BELOW.kernel_fn(X, x2), None, ("cov1", "shape1"))
    assert np.array_equal(got.cov1, parted.cov1)
    assert got.shape1 == (5, 2)


@pytest.mark.parametrize("phi", BOUNDED, ids=repr)
def test_every_nonlinearity_behind_a_kernel(phi):
    below, above = nk.Serial(nk.Dense(1.2, 0.3), phi), nk.Dense(0.8, 0.1)
    layer = stax.combinators.layer_of
    parted = layer(above).kernel_fn(layer(below).kernel_fn(X, Z))
    behind = layer(nk.Serial(phi, above)).kernel_fn(layer(nk.Dense(1.2, 0.3)).kernel_fn(X, Z))
    for name in ("nngp", "ntk"):
        expected = nk.kernel(nk.Serial(below, above), X, Z, name)
        assert_close(getattr(parted, name), expected, 1e-14)
        assert_close(getattr(behind, name), expected, 1e-13)


def test_layer_by_layer_and_many_samples():
    rng = np.random.default_rng(3)
    x, z = rng.standard_normal((300, 4)), rng.standard_normal((1100, 4))
    layers = [stax.Dense(8, 1.2, 0.1), stax.Relu(), stax.Dense(8), stax.LayerNorm(), stax.Sin()]
    kernel = stax.Identity().kernel_fn(x, z)
    for layer in [*layers, stax.Dense(1)]:
        kernel = layer.kernel_fn(kernel)
    expected = stax.serial(*layers, stax.Dense(1)).kernel_fn(x, z)
    assert_close(kernel.nngp, expected.nngp, 1e-12)
    assert_close(kernel.ntk, expected.ntk, 1e-12)


def test_a_kernel_of_ones_own():
    """Linear regression: K <- 2 K, T <- K + 2 T."""
    kernel = BELOW.kernel_fn(X)
    ours = kernel.replace(nngp=np.eye(5), cov1=np.ones(5), ntk=np.full((5, 5), 3.0))
    after = stax.Dense(1, 2**0.5).kernel_fn(ours)
    assert_close(after.nngp, 2 * np.eye(5), 1e-15)
    assert_close(after.ntk, 2 * np.eye(5) + 6, 1e-15)
    full = kernel.replace(cov1=kernel.nngp, diagonal_batch=False)
    assert np.array_equal(ABOVE.kernel_fn(full).ntk, ABOVE.kernel_fn(kernel).ntk)


def test_residual_network_behind_a_kernel():
    block = stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.Identity(), stax.serial(stax.Relu(), stax.Dense(8, 1.1, 0.2))),
        stax.FanInSum(),
    )
    expected = stax.serial(BELOW, block, block).kernel_fn(X, Z)
    ours = block.kernel_fn(block.kernel_fn(BELOW.kernel_fn(X, Z)))
    assert_close(ours.ntk, expected.ntk, 1e-14)


def test_standard_parameterization_behind_a_kernel():
    """Its input's width is the Kernel's own."""
    dense = stax.Dense(7, 1.2, 0.1, parameterization="standard")
    expected = stax.serial(BELOW, stax.Relu(), dense).kernel_fn(X, Z)
    ours = dense.kernel_fn(stax.Relu().kernel_fn(BELOW.kernel_fn(X, Z)))
    assert_close(ours.ntk, expected.ntk, 1e-14)


@pytest.mark.parametrize("constant", [9.0, np.nan])
def test_masked_samples_and_entries(constant):
    """Masked entries count as 0; kernels of wholly masked samples are 0."""
    x, z, zero = X.copy(), Z.copy(), X.copy()
    x[1], x[2, :2], z[0] = constant, constant, constant
    zero[1], zero[2, :2] = 0, 0
    net = stax.serial(stax.Dense(8, 1.2, 0.4), stax.Cos(), stax.Dense(3, 1.1, 0.2))
    hidden, plain = net.kernel_fn(x, z, mask_constant=constant), net.kernel_fn(zero, Z)
    for name in ("nngp", "ntk"):
        expected = getattr(plain, name).copy()
        expected[1], expected[:, 0] = 0, 0
        assert_close(getattr(hidden, name), expected, 1e-14)
    assert hidden.cov1[1] == hidden.cov2[0] == 0
    assert_close(hidden.cov1[2:], plain.cov1[2:], 1e-14)
    assert hidden.mask1.tolist() == [[False], [True], [False], [False], [False]]
    assert hidden.mask2.tolist() == [[True], [False], [False]]
    alone = net.kernel_fn(x, mask_constant=constant)
    assert alone.mask2 is None
    assert (alone.ntk[1] == 0).all()
    assert (alone.ntk[:, 1] == 0).all()
    behind = stax.serial(stax.Cos(), stax.Dense(1, 1.0, 1.0)).kernel_fn(hidden)
    assert (behind.ntk[1] == 0).all()
    assert (behind.ntk[2, 1:] != 0).all()


def test_masked_and_zero_are_not_the_same():
    x, zero = X.copy(), X.copy()
    x[1], zero[1] = 9.0, 0.0
    net = stax.serial(stax.Dense(8, 1.2, 0.4), stax.Cos(), stax.Dense(3))
    kernel = net.kernel_fn(x, zero, "nngp", mask_constant=9.0)
    assert (kernel[1] == 0).all()
    assert (kernel[0] != 0).all()


def facts_of(name):
    """Everything but arrays of a Kernel of neural-tangents."""
    facts = FACTS[name]["kernel"].items()
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts}


@pytest.mark.parametrize("name", masked(stax))
def test_masks_are_neural_tangents(name):
    kernel_fn = masked(stax)[name][0].kernel_fn
    x = ARRAYS[f"{name}/x"]
    kernel = kernel_fn(x, x[1:] + (x[1:] != 100.0), mask_constant=100.0)
    for field in ("nngp", "ntk", "cov1", "cov2"):
        assert_close(getattr(kernel, field), ARRAYS[f"{name}/{field}"], 1e-13)
    for field in ("mask1", "mask2"):
        ours, theirs = getattr(kernel, field), ARRAYS[f"{name}/{field}"]
        assert (np.broadcast_to(ours, theirs.shape) == theirs).all()
    assert {key: getattr(kernel, key) for key in facts_of(name)} == facts_of(name)


@pytest.mark.parametrize("name", behind(stax))
def test_a_network_behind_a_kernel_is_neural_tangents(name):
    first, second, _ = behind(stax)[name]
    x = ARRAYS[f"behind {name}/x"]
    kernel = second.kernel_fn(first.kernel_fn(x, x[1:] + 1))
    for field in ("nngp", "ntk", "cov1", "cov2"):
        assert_close(getattr(kernel, field), ARRAYS[f"behind {name}/{field}"], 1e-13)
    expected = facts_of(f"behind {name}")
    assert {key: getattr(kernel, key) for key in expected} == expected


def test_kernels_of_pixels_sum_to_those_of_vectors():
    """Both engines: GlobalAvgPool is the mean over all pairs, Flatten over p = p'."""
    net = stax.serial(
        stax.Conv(6, (3, 3), (1, 2), "SAME", 1.2, 0.3),
        stax.Relu(),
        stax.Conv(4, (2, 2), b_std=0.1),
        stax.Gelu(),
    )
    other = IMAGES[:1] + 0.3
    pixels = net.kernel_fn(IMAGES, other)
    assert pixels.ntk.shape == (2, 1, 5, 5, 2, 2)
    assert pixels.shape1 == (2, 5, 2, 4)
    mean = stax.serial(net, stax.GlobalAvgPool()).kernel_fn(IMAGES, other)
    flat = stax.serial(net, stax.Flatten()).kernel_fn(IMAGES, other)
    for name in ("nngp", "ntk", "cov1", "cov2"):
        array = getattr(pixels, name)
        assert_close(array.mean((-4, -3, -2, -1)), getattr(mean, name), 1e-13)
        assert_close(np.einsum("...iijj->...", array) / 10, getattr(flat, name), 1e-13)
    diagonal = net.kernel_fn(IMAGES, other, diagonal_spatial=True)
    assert diagonal.diagonal_spatial
    assert (diagonal.ntk == np.einsum("...iijj->...ij", pixels.ntk)).all()
    last = stax.serial(stax.Conv(3, (2, 2)), stax.Relu(), stax.Flatten()).kernel_fn
    assert_close(last(diagonal).ntk, last(pixels).ntk, 1e-15)
    behind = stax.GlobalAvgPool().kernel_fn(pixels)
    assert_close(behind.ntk, mean.ntk, 1e-13)
    turned = pixels.replace(
        **{
            name: np.moveaxis(getattr(pixels, name), (-4, -3), (-2, -1))
            for name in ("nngp", "ntk", "cov1", "cov2")
        },
        is_reversed=True,
    )
    pool = stax.serial(stax.Conv(3, (3, 1)), stax.Flatten())
    assert (pool.kernel_fn(turned).ntk == pool.kernel_fn(pixels).ntk).all()


def test_one_data_set_and_float32():
    net = stax.serial(stax.Conv(6, (3, 3)), stax.Relu(), stax.Conv(4, (2, 2)), stax.Relu())
    alone, twice = net.kernel_fn(IMAGES), net.kernel_fn(IMAGES, IMAGES)
    other = net.kernel_fn(IMAGES, IMAGES.copy())
    assert alone.cov2 is None
    assert (twice.ntk == alone.ntk).all()
    assert (twice.cov2 == twice.cov1).all()
    assert_close(other.nngp, alone.nngp, 1e-7)  # correlations of 1 are not known to be
    single = net.kernel_fn(IMAGES.astype("float32"), dtype="float32")
    assert single.ntk.dtype == single.cov1.dtype == np.float32
    full = net.kernel_fn(IMAGES, IMAGES[:1], diagonal_batch=False)
    assert full.cov1.shape == (2, 2, 3, 3, 3, 3)
    assert_close(full.cov1, alone.nngp, 1e-14)


def test_all_covariances_of_a_data_set():
    kernel = BELOW.kernel_fn(X, Z, diagonal_batch=False)
    assert not kernel.diagonal_batch
    assert (kernel.cov1 == BELOW.kernel_fn(X, None, "nngp")).all()
    assert (kernel.cov2 == BELOW.kernel_fn(Z, None, "nngp")).all()
    assert BELOW.kernel_fn(X, get="diagonal_batch")


def test_diagonals_of_pixels():
    flat = stax.serial(stax.Conv(4, (3, 3)), stax.Relu(), stax.Flatten(), stax.Dense(1))
    assert np.array_equal(
        flat.kernel_fn(IMAGES, None, "ntk", diagonal_spatial=True),
        flat.kernel_fn(IMAGES, None, "ntk"),
    )
    assert not flat.kernel_fn(IMAGES, diagonal_spatial=True).diagonal_spatial
    local = stax.serial(stax.ConvLocal(4, (3, 3)), stax.Relu(), stax.GlobalAvgPool()).kernel_fn
    assert (local(IMAGES, None, "ntk", diagonal_spatial=True) == local(IMAGES, None, "ntk")).all()
    assert BELOW.kernel_fn(X, diagonal_spatial=True).diagonal_spatial


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda k: ABOVE.kernel_fn(k, k), TypeError, "takes no x2"),
        (lambda k: ABOVE.kernel_fn(X, k), TypeError, "Kernel as x1"),
        (lambda k: ABOVE.kernel_fn(k, mask_constant=0.0), TypeError, "mask_constant"),
        (lambda k: ABOVE.kernel_fn(k, diagonal_batch=False), TypeError, "diagonal_batch"),
        (lambda k: ABOVE.kernel_fn(k.replace(is_gaussian=False)), ValueError, "Gaussian input"),
        (lambda k: ABOVE.kernel_fn(k.replace(ntk=None), get="ntk"), ValueError, "holds no ntk"),
        (lambda k: ABOVE.kernel_fn(k.replace(nngp=k.nngp[:2])), ValueError, r"shape \(2, 3\)"),
        (lambda k: ABOVE.kernel_fn(k.replace(nngp=9 * k.nngp)), ValueError, "no covariance"),
        (lambda k: ABOVE.kernel_fn(k.replace(cov1=-k.cov1)), ValueError, "not be negative"),
        (lambda k: ABOVE.kernel_fn(k.replace(ntk=k.ntk * np.nan)), ValueError, "NaN"),
        (lambda k: ABOVE.kernel_fn(k.replace(cov2=None)), ValueError, r"not \(5, 5\)"),
        (
            lambda k: ABOVE.kernel_fn(k.replace(shape1=(5, 2, 2, 8), channel_axis=3)),
            ValueError,
            "pairs of pixels of an image",
        ),
        (
            lambda k: ABOVE.kernel_fn(
                k.replace(shape1=(5, 2, 8), channel_axis=2, diagonal_spatial=True)
            ),
            ValueError,
            "does not end with that of an image",
        ),
        (
            lambda k: stax.GlobalAvgPool().kernel_fn(
                stax.Conv(3, (2, 2)).kernel_fn(IMAGES, diagonal_spatial=True)
            ),
            ValueError,
            "diagonal_spatial=True leaves out.*GlobalAvgPool",
        ),
        (lambda k: ABOVE.kernel_fn([k, k]), TypeError, "x1"),
        (
            lambda k: stax.Dense(1, batch_axis=1, channel_axis=0).kernel_fn(k),
            ValueError,
            "Dense: batch_axis=1",
        ),
        (lambda k: stax.Conv(1, (3, 3)).kernel_fn(k), ValueError, "axis|images"),
        (lambda k: ABOVE.kernel_fn(k, dtype="float32"), TypeError, "dtype"),
        (lambda k: BELOW.kernel_fn(X, diagonal_batch="no"), ValueError, "diagonal_batch must be"),
        (
            lambda k: stax.serial(stax.Conv(4, (3, 3)), stax.GlobalAvgPool()).kernel_fn(
                IMAGES, diagonal_spatial=True
            ),
            NotImplementedError,
            "diagonal_spatial=True.*GlobalAvgPool",
        ),
        (
            lambda k: stax.serial(
                stax.ConvTranspose(4, (1, 1), (2, 2)), stax.Relu(), stax.Flatten()
            ).kernel_fn(np.where(np.arange(6)[:, None, None] < 1, 0.0, IMAGES), mask_constant=0.0),
            NotImplementedError,
            "mask_constant is not supported for layers whose windows",
        ),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(BELOW.kernel_fn(X, Z))
