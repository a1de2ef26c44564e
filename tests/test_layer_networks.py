"""Networks whose layers fit, or are refused by name."""

import math

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore.specs.lowering import stages
from numpy_nets import scatters_about
from reference import reference
from test_image_layers import plain
from test_layers import IMAGES, VECTORS, C, D


def dot(axis):
    return nk.DotGeneral(rhs=(1.0, 2.0), dimension_numbers=(((axis,), (0,)), ((), ())))


def gated(one, other, join=nk.FanInProd()):  # noqa: B008
    return [nk.FanOut(2), nk.Parallel(one, other), join]


@pytest.mark.parametrize(
    ("layers", "x", "words"),
    [
        ([nk.Relu()], VECTORS, r"layer 0, Relu\(\): .*affine"),
        ([D, nk.Relu(), nk.Erf(), D], VECTORS, r"layer 2, Erf\(\)"),
        ([nk.LayerNorm()], VECTORS, "LayerNorm.*Gaussian"),
        ([D, nk.Relu(), nk.LayerNorm()], VECTORS, "layer 2, LayerNorm"),
        ([D, nk.FanOut(2)], VECTORS, "branches"),
        ([D, nk.FanInSum()], VECTORS, "FanOut"),
        ([D, nk.Parallel(D, D)], VECTORS, "FanOut"),
        ([D, nk.FanOut(3), nk.Parallel(D, D), nk.FanInSum()], VECTORS, "2 branches, got 3"),
        (
            [D, nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Identity()), nk.FanInSum()],
            VECTORS,
            "correlated",
        ),
        ([D, nk.Residual(nk.Relu())], VECTORS, "correlated"),
        (
            [
                nk.Dense(parameterization="standard"),
                nk.Relu(),
                nk.Dense(parameterization="standard"),
            ],
            VECTORS,
            "width",
        ),
        ([D, nk.ArcCosine(0), D], VECTORS, "infinite"),
        ([D, nk.Sign(), D], VECTORS, r"layer 1, Sign\(\): .*infinite.*frozen=True"),
        ([D, nk.RectifiedMonomial(0), D], VECTORS, "infinite"),
        ([nk.Polynomial((1, 1)), D], VECTORS, r"layer 0, Polynomial.*affine"),
        ([D, nk.FanInProd()], VECTORS, "FanOut"),
        ([nk.FanOut(2), nk.FanInProd(), D], VECTORS, r"layer 1, FanInProd.*do not multiply"),
        ([D, nk.FanOut(2), nk.FanInProd()], VECTORS, "correlated"),
        ([D, *gated(nk.Dense(), nk.Dense()), nk.Relu()], VECTORS, r"layer 4, Relu\(\): .*Gaussian"),
        (
            gated(nk.Serial(C, nk.Flatten(), nk.LayerNorm()), nk.Serial(C, nk.Flatten())),
            IMAGES,
            "FanInProd.*differ in variance",
        ),
        ([*gated(D, D, nk.FanInConcat()), nk.Relu()], VECTORS, r"Relu\(\): .*concatenation"),
        (
            [*gated(D, D, nk.FanInConcat(0))],
            VECTORS,
            r"FanInConcat\(axis=0\): axis=0 of .*only features",
        ),
        (
            [C, *gated(nk.Identity(), nk.Identity(), nk.FanInConcat(1)), nk.Flatten()],
            IMAGES,
            "FanInConcat.*correlated",
        ),
        ([*gated(D, nk.Identity(), nk.FanInConcat())], VECTORS, "FanInConcat.*None, 4.*declare"),
        ([nk.Dropout(0.5), D], VECTORS, r"layer 0, Dropout.*the data"),
        ([D, nk.Dropout(0.5), nk.Relu()], VECTORS, r"layer 2, Relu\(\): .*Gaussian"),
        ([D, nk.Dropout(0.5), nk.LayerNorm()], VECTORS, "layer 2, LayerNorm.*Gaussian"),
        ([D, nk.LayerNorm(axis=0)], VECTORS, "layer 1, LayerNorm.*samples"),
        ([D, nk.LayerNorm(axis=(1, 2))], VECTORS, "layer 1, LayerNorm.*2 axes"),
        ([C, nk.LayerNorm(axis=(1, 2)), nk.Flatten()], IMAGES, "LayerNorm.*no infinite limit"),
        ([nk.GlobalAvgPool(), D], VECTORS, "needs images"),
        ([C, nk.Relu(), nk.Flatten(), D], VECTORS, r"Conv.*needs images.*\(4,\)"),
        ([nk.Conv((7, 3)), nk.Flatten()], IMAGES, r"layer 0, Conv.*no pixel.*\(6, 5\)"),
        ([C, nk.Relu(), nk.AvgPool((9, 9)), nk.Flatten()], IMAGES, "layer 2, AvgPool.*no pixel"),
        (
            [C, nk.Relu(), nk.AvgPool((2, 2)), nk.Relu(), nk.Flatten()],
            IMAGES,
            r"layer 3, Relu\(\): .*affine",
        ),
        ([C, nk.Relu()], IMAGES, r"image of shape \(6, 5, 3\)"),
        (
            [C, nk.Flatten(), nk.LayerNorm(), nk.Relu(), D],
            IMAGES,
            r"layer 3, Relu\(\): .*flattened image",
        ),
        (
            [C, nk.Flatten(), nk.Residual(nk.Relu(), D), nk.Erf(), D],
            IMAGES,
            r"layer 3, Erf\(\): .*flattened image",
        ),
        ([C, nk.Relu(), nk.Flatten(), nk.Erf(), D], IMAGES, r"layer 3, Erf\(\): .*Gaussian"),
        ([nk.Conv((3,)), nk.Flatten()], IMAGES, r"layer 0, Conv.*1 axis, for sequences.*\(6, 5, 3"),
        ([C, nk.SumPool((3,)), nk.Flatten()], IMAGES, r"layer 1, SumPool.*1 axis"),
        ([C, nk.Flatten()], IMAGES[0], r"layer 0, Conv.*2 axes.*without channels are x\[..., None"),
        ([nk.ConvTranspose((1, 1, 1)), nk.Flatten()], IMAGES, "layer 0, ConvTranspose.*3 axes"),
        ([nk.ConvLocal((7, 1)), nk.Flatten()], IMAGES, "layer 0, ConvLocal.*no pixel"),
        ([nk.Conv((3, 3), dilation=(3, 1)), nk.Flatten()], IMAGES, "layer 0, Conv.*no pixel"),
        ([nk.Index((9,)), nk.Flatten()], IMAGES, "layer 0, Index.*position 9 is outside axis 0"),
        ([nk.Index((slice(4, 2),)), nk.Flatten()], IMAGES, "layer 0, Index.*leaves nothing"),
        ([nk.Index((0, 0, 0)), nk.Flatten()], IMAGES, "layer 0, Index.*3 items.* 2 axes"),
        ([nk.Index((0,))], VECTORS, "layer 0, Index.*needs images"),
        ([nk.ImageResize((4,)), nk.Flatten()], IMAGES, "layer 0, ImageResize.*1 sizes.* 2 axes"),
        ([dot(1), nk.Dense()], VECTORS, "layer 0, DotGeneral.*needs images"),
        ([dot(3), nk.Flatten()], IMAGES, "layer 0, DotGeneral.*channels are infinitely many"),
        ([dot(1), nk.Flatten()], IMAGES, "layer 0, DotGeneral.*differ in size"),
        (
            [nk.FanOut(2), nk.Parallel(nk.Conv((3, 3)), C), nk.FanInSum(), nk.Flatten()],
            IMAGES,
            "differ in shape",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, x, words):
    with pytest.raises(ValueError, match=words):
        nk.kernel(nk.Serial(*layers), x)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        # Nested Serials count as one.
        ([nk.Serial(D, nk.Serial(nk.Relu(), nk.Erf())), D], r"layer 2, Erf\(\)"),
        (
            [D, nk.Residual(nk.Serial(nk.Relu(), nk.Erf()), D), D],
            r"layer 1\.1\.branch 1\.\S*1, Erf\(\)",
        ),
        (
            [D, nk.FanOut(2), nk.Parallel(D, nk.Serial(D, nk.Relu())), nk.FanInSum(), nk.Relu()],
            r"layer 4, Relu\(\)",
        ),
        ([D, nk.FanOut(2), nk.Parallel(nk.FanOut(2), D), nk.FanInSum()], "branches"),
        ([D, nk.FanOut(2), nk.FanOut(2)], "layer 2, FanOut"),
        ([D, nk.FanOut(2), nk.Relu()], r"layer 2, Relu\(\): got 2 branches"),
        ([D, nk.FanOut(3), nk.Parallel(D, nk.Relu(), nk.Identity()), nk.FanInSum()], "correlated"),
        (
            [D, nk.Residual(nk.Relu(), D, nk.Relu(), shortcut=nk.Serial(D, nk.Relu()))],
            r"FanInSum.*means do not vanish",
        ),
        ([D, nk.Residual(nk.Residual(nk.Relu(), D))], "FanInSum.*share a signal"),
        (
            [D, nk.Residual(nk.Residual(nk.Relu(), D), nk.Relu(), shortcut=nk.Identity())],
            "share a signal",
        ),
        ([D, nk.Residual(D), nk.Residual()], "share a signal"),
        ([nk.Residual(D, nk.Relu())], "means do not vanish"),
    ],
)
def test_the_place_of_a_layer_is_its_path(layers, words):
    with pytest.raises(ValueError, match=words):
        nk.kernel(nk.Serial(*layers), VECTORS)


def test_one_branch_without_weights_is_enough_for_independence():
    net = nk.Serial(
        D,
        nk.FanOut(3),
        nk.Parallel(nk.Identity(), nk.Serial(nk.Relu(), D), D),
        nk.FanInSum(),
        nk.Relu(),
    )
    # All are Gaussian, so that a nonlinearity may follow.
    assert nk.kernel(net, VECTORS).shape == (3, 3)


N, R, E = nk.Dense(1.1, 0.2), nk.Relu(), nk.Erf()
NESTED = {
    "nested": nk.Serial(N, nk.Residual(R, N, nk.Residual(R, N)), R, N),
    "three deep": nk.Serial(
        N, nk.Residual(E, N, nk.Residual(R, N, nk.Residual(R, N), nk.LayerNorm())), E, N
    ),
    "in the shortcut": nk.Serial(
        N, nk.Residual(R, N, shortcut=nk.Serial(N, nk.Residual(E, N))), R, N
    ),
    "branch of a sum": nk.Serial(N, nk.Residual(nk.Residual(R, N), N), R, N),
    "one mean": nk.Serial(N, nk.Residual(N, R, shortcut=nk.Residual(E, N)), N),
    "fans": nk.Serial(
        *(N, nk.FanOut(3)),
        nk.Parallel(nk.Identity(), nk.Serial(R, N, nk.Residual(N)), nk.Residual(R, N, shortcut=N)),
        *(nk.FanInSum(), R, N),
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_blocks(name):
    """Against the formula, and against wide networks, which know nothing of independence."""
    x = np.random.default_rng(0).standard_normal((3, 5))
    x = x @ np.linalg.qr(np.random.default_rng(1).standard_normal((256, 5)))[0].T * (256 / 5) ** 0.5
    ours, expected = nk.kernel(NESTED[name], x, None, ("nngp", "ntk")), reference(NESTED[name], x)
    assert max(relative_error(ours[k], expected[k]) for k in (0, 1)) < 1e-12
    assert scatters_about(NESTED[name], x, width=256)


def test_a_nested_block_by_hand():
    """q of a ReLU is q/2: z0 = 1, z1 = 1/2, z2 = 1/4 and their sum 7/4,
    of which the last ReLU keeps half.
    """
    net = nk.Serial(D, nk.Residual(nk.Relu(), D, nk.Residual(nk.Relu(), D)), nk.Relu(), D)
    assert nk.kernel_diag(net, np.ones((1, 4)), "nngp") == pytest.approx(7 / 8, rel=1e-14)


@pytest.mark.parametrize(
    ("phi", "expected"),
    [
        # Pixels 9, 0, 0, 0 and 1, 0, 0, 9; 3 * 1 in common: 1.5/4.
        (nk.Relu(), [[1.125, 0.375], [0.375, 1.25]]),
        (nk.Erf(), np.arcsin([[18 / 19, 6 / 57**0.5]]) / (2 * math.pi)),
    ],
)
def test_a_nonlinearity_after_flatten_acts_on_pixels(phi, expected):
    x = np.array([[3.0, 0, 0, 0], [1, 0, 0, 3]]).reshape(2, 1, 4, 1)
    k = nk.kernel(nk.Serial(nk.Conv((1, 1)), nk.Flatten(), phi, D), x, get="nngp")
    assert k[0] == pytest.approx(expected[0], rel=1e-14)
    before = nk.kernel(nk.Serial(nk.Conv((1, 1)), phi, nk.Flatten(), D), x, get="nngp")
    assert (k == before).all()


def test_a_nonlinearity_after_pools():
    """After a mean over pixels, of one variance each; with a flatten in it, pixel by pixel."""
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    pool, phi = nk.AvgPool((3, 3), (1, 1), "SAME"), nk.Erf()
    local = nk.kernel(nk.Serial(C, nk.LocalAvgPool(3), phi, D), x, None, ("nngp", "ntk"))
    spelled = nk.kernel(nk.Serial(C, pool, phi, nk.Flatten(), D), x, None, ("nngp", "ntk"))
    assert max(relative_error(local[k], spelled[k]) for k in (0, 1)) < 1e-14
    branches = nk.Serial(C, nk.LocalAvgPool(3), nk.Residual(phi, D), D)
    assert relative_error(nk.kernel(branches, x), reference(plain(branches), x)[1]) < 1e-12
    mean = nk.kernel(nk.Serial(C, nk.GlobalAvgPool(), phi, D), x)
    assert relative_error(mean, reference(nk.Serial(C, nk.GlobalAvgPool(), phi, D), x)[1]) < 1e-12


def test_depths_of_a_network_that_flattens_first():
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    head = (C, nk.Flatten(), nk.Relu())
    both = nk.kernel(nk.Serial(*head, D, nk.Erf(), D), x, depths=[1, 2])
    assert relative_error(both[0], nk.kernel(nk.Serial(*head, D), x)) < 1e-14
    assert relative_error(both[1], nk.kernel(nk.Serial(*head, D, nk.Erf(), D), x)) < 1e-14


def test_a_residual_block_is_a_fan_out():
    x = np.random.default_rng(0).standard_normal((4, 3))
    for shortcut in (nk.Identity(), nk.Dense(0.5)):
        block = nk.Residual(nk.Relu(), nk.Dense(1.3, 0.1), shortcut=shortcut)
        spelled = [
            nk.FanOut(2),
            nk.Parallel(shortcut, nk.Serial(nk.Relu(), nk.Dense(1.3, 0.1))),
            nk.FanInSum(),
        ]
        first, second = (nk.kernel(nk.Serial(D, *inner, D), x) for inner in ([block], spelled))
        assert (first == second).all()


def test_the_standard_parameterization_knows_the_input_width():
    x = np.random.default_rng(0).standard_normal((4, 3))
    k = nk.kernel(nk.Dense(1.5, 0.0, "standard"), x, get=("nngp", "ntk"))
    assert np.allclose(k.nngp, 2.25 * x @ x.T / 3, rtol=1e-14)
    # The gradient of W is x itself, that of b is 1.
    assert np.allclose(k.ntk, x @ x.T + 1, rtol=1e-14)
    assert np.allclose(nk.kernel(nk.Dense(1.5, None, "standard"), x), x @ x.T, rtol=1e-14)


def test_arc_cosine_of_order_0_has_an_nngp_kernel():
    assert nk.kernel(nk.Serial(D, nk.ArcCosine(0), D), VECTORS, get="nngp").shape == (3, 3)


def test_stages():
    parts, readout = stages(
        nk.Serial(D, nk.Relu(), nk.Serial(D, nk.Residual(nk.Relu(), D)), nk.LayerNorm(), D)
    )
    assert [len(part) for part in parts] == [2, 2]
    assert readout == [nk.LayerNorm(), D]
    branches = [nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Serial(nk.Relu(), D)), nk.FanInSum()]
    parts, readout = stages(nk.Serial(D, *branches, nk.Relu(), D))
    assert [len(part) for part in parts] == [4, 1]


@pytest.mark.parametrize("net", [nk.Serial(), nk.Identity(), nk.Serial(nk.Serial(), nk.Identity())])
def test_a_network_without_layers_is_the_identity(net):
    """Its kernel is that of the inputs, and without parameters nothing trains."""
    x = np.random.default_rng(0).standard_normal((6, 3))
    found = nk.kernel(net, x, x[:4], get=("nngp", "ntk"))
    assert relative_error(found.nngp, x @ x[:4].T / 3) < 1e-14
    assert (found.ntk == 0).all()
    with_it, without = (nk.Serial(nk.Dense(), *between, nk.Erf()) for between in ([net], []))
    assert (nk.kernel(with_it, x) == nk.kernel(without, x)).all()
