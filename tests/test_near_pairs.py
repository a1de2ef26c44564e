"""float32 against float64 on near-duplicates, opposite and scaled pairs,
and rows behind offset activations.
"""

import numpy as np
import pytest

import ntkcore as nk
from examples import jumps
from ntkcore.engine import near_pairs
from ntkcore.engine.vectors import points_of
from ntkcore.specs.lowering import lower

BOTH = ("nngp", "ntk")
CONV = nk.Conv((3, 3), (1, 1), "SAME", 2**0.5)
BLOCK = nk.Residual(nk.Relu(), nk.Dense(1.0))
VECTORS = {
    "relu": nk.mlp(3),
    "abs": nk.mlp(3, activation=nk.Abs()),
    "steep erf": nk.mlp(3, activation=nk.Erf(1.0, 3.0)),
    "rbf": nk.mlp(2, activation=nk.Rbf()),
    "erf, relu": nk.Serial(nk.Dense(), nk.Erf(1.0, 1.0, 1.0), nk.Dense(), nk.Relu(), nk.Dense()),
    "residual": nk.Serial(nk.Dense(), *[BLOCK] * 4, nk.Relu(), nk.Dense()),
    "layer norm": nk.Serial(*[nk.Dense(), nk.LayerNorm(), nk.Relu()] * 3, nk.Dense()),
    "step": nk.Serial(nk.Dense(), nk.ArcCosine(0), nk.Dense()),
    "sign": nk.Serial(nk.Dense(), nk.Sign(), nk.Dense()),
}
IMAGES = {
    "gap with bias": nk.cntk(5, b_std=0.5),
    "flatten": nk.cntk(5, "flatten"),
    "deep flatten": nk.cntk(20, "flatten", b_std=0.5),
    "pool": nk.Serial(
        CONV, nk.Relu(), nk.AvgPool((2, 2), (2, 2)), CONV, nk.Relu(), nk.GlobalAvgPool(), nk.Dense()
    ),
    "resnet": nk.resnet(1),
    "dense head": nk.Serial(
        CONV, nk.Relu(), nk.Flatten(), nk.Dense(2**0.5, 0.1), nk.Relu(), nk.Dense()
    ),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def near(x, distance):
    """Rows of x moved by `distance` times their length."""
    return (x + distance * normal(*x.shape, seed=1)).astype(np.float32)


def worst(net, a, b=None, **options):
    """The largest |float32 - float64| over the largest entry, the diagonal included."""
    get = ("nngp",) if any(jumps(layer) for layer in net.layers) else BOTH
    single = nk.kernel(net, a, b, get, dtype="float32", **options)
    double = nk.kernel(net, a, b, get, dtype="float64", **options)
    own = nk.kernel_diag(net, a, get, dtype="float64")
    return max(
        np.abs(s - d).max() / max(np.abs(d).max(), o.max())
        for s, d, o in zip(single, double, own, strict=True)
    )


@pytest.mark.parametrize("distance", [0.1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("net", VECTORS.values(), ids=VECTORS)
def test_near_vectors(net, distance):
    x = normal(40, 30)
    assert worst(net, x, near(x, distance)) < 3e-6


@pytest.mark.parametrize("distance", [0.1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("net", IMAGES.values(), ids=IMAGES)
def test_near_images(net, distance):
    x = normal(20, 8, 8, 3)
    assert worst(net, x, near(x, distance)) < 2e-6


@pytest.mark.parametrize("factor", [-1, 2, -3])
def test_near_in_direction(factor):
    for nets, x in ((VECTORS, normal(20, 30)), (IMAGES, normal(9, 8, 8, 3))):
        for name, net in nets.items():
            assert worst(net, x, factor * near(x, 1e-5)) < 2e-6, name


@pytest.mark.parametrize("scale", [1.0, 0.3, 0.1])
@pytest.mark.parametrize(
    "phi", [nk.Cos(), nk.Erf(1.0, 1.0, 10.0), nk.Gaussian(1.0, -1.0)], ids=repr
)
def test_distinct_rows_behind_offset_activations(phi, scale):
    """They all come near c = 1 before the ReLUs."""
    net = nk.Serial(nk.Dense(scale), phi, *[nk.Dense(2**0.5), nk.Relu()] * 3, nk.Dense())
    assert worst(net, normal(60, 30)) < 5e-6
    assert worst(net, np.abs(normal(60, 30))) < 5e-6


@pytest.mark.parametrize(
    "net", [VECTORS["residual"], VECTORS["abs"], nk.cntk(2)], ids=["residual", "abs", "images"]
)
def test_symmetric_rectangular_and_tiled(net):
    """The same near pairs, mirrored, whatever the tile and the threads; nothing else is touched."""
    image = isinstance(net.layers[0], nk.Conv)
    x = normal(40, 4, 4, 2) if image else normal(600, 9)
    x = np.concatenate([x, near(x[:20], 1e-4), -x[:10]])
    K = nk.kernel(net, x, None, BOTH)
    tile = 16 if image else 256
    again = nk.kernel(net, x, None, BOTH, tile=tile, threads=2)
    across = nk.kernel(net, x, x.copy(), BOTH)
    for one, other, whole in zip(K, again, across, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, one.T)
        np.testing.assert_allclose(whole, one, rtol=0, atol=2e-6 * one.max())
    assert worst(net, x) < 2e-6


def test_one_kernel_is_the_same_as_of_both():
    x = np.concatenate([normal(30, 9), near(normal(30, 9), 1e-4)])
    for net in (VECTORS["residual"], VECTORS["steep erf"]):
        both = nk.kernel(net, x, None, BOTH)
        for name in BOTH:
            np.testing.assert_array_equal(nk.kernel(net, x, None, name), getattr(both, name))


def test_levels_and_flips():
    x = normal(20, 8, 8, 3)
    y = np.concatenate([near(x[:10], 1e-5), near(x[10:, :, ::-1], 1e-5)])
    assert worst(nk.cntk(3, "flatten"), x, y, augment="hflip") < 2e-6
    assert worst(nk.cntk(3, "flatten"), np.concatenate([x, y]), augment="hflip") < 2e-6
    assert worst(nk.cntk(3), x, y, depths=(1, 3), pool_windows=(1, "global")) < 2e-6
    rows = normal(20, 30)
    assert worst(VECTORS["erf, relu"], rows, near(rows, 1e-5), depths=(1, 2)) < 2e-6


def test_dark_and_huge_images():
    """Zero images have no direction; squares beyond float32 raise
    nothing on the way to the engine's own refusal.
    """
    x = normal(4, 4, 4, 1)
    x[0] = 0
    assert worst(nk.cntk(2), x, x) < 2e-6
    sketches = near_pairs.ImageSketches(1e25 * normal(3, 4, 4, 1))
    assert near_pairs.of_images(sketches, slice(0, 3), sketches, slice(0, 3), None)[0, 0]


def test_bounds_follow_the_program():
    """Of a mild activation the least bound; of one that brings all rows near c = 1 all pairs;
    of ReLU c = -1 alone.
    """

    def bounds(net):
        program = lower(net, (9,), wants_ntk=True)
        points = points_of(program, normal(20, 9))
        return near_pairs.VectorBounds(program, nk.backends()[0], points, points)

    dot = np.array([[0.0, 0.5, 0.9999, -0.9999]], np.float32)
    rows, cols = slice(0, 1), slice(0, 4)
    relus = [nk.Dense(2**0.5), nk.Relu()] * 3
    mild, offset = (
        bounds(nk.mlp(1, activation=nk.Erf())),
        bounds(nk.Serial(nk.Dense(0.03), nk.Cos(), *relus, nk.Dense())),
    )
    np.testing.assert_array_equal(mild.near(dot, rows, cols, False), [[False, False, True, True]])
    np.testing.assert_array_equal(offset.near(dot, rows, cols, False), [[True, True, True, True]])
    np.testing.assert_array_equal(
        bounds(nk.mlp(1)).near(dot, rows, cols, False), [[False, False, False, True]]
    )
    assert not mild.reached(dot[:, :2])
