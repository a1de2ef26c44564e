"""Every layer of images in every geometry: drawn networks against direct sums,
and errors that name the layer.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import ntkcore as nk
import reference as oracle
from conftest import relative_error
from examples import BOUNDED, SMOOTH
from reference import reference

PIXELS = 30  # of a drawn image, at most: the direct sums take the fourth power of a side


@pytest.fixture(autouse=True, scope="module")
def closed_forms():
    """The reference's activations by closed forms (which test_dual.py checks),
    quadrature being slow.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "MANY", 0)
        yield


def images(n, h, w, channels, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, h, w, channels)).astype(dtype)


def plain(layer):
    """Local average pooling in the reference's own layers."""
    if isinstance(layer, nk.LocalAvgPool):
        return nk.Serial(nk.AvgPool((layer.window,) * 2, (1, 1), "SAME"), nk.Flatten())
    return nk.Serial(*map(plain, layer.layers)) if isinstance(layer, nk.Serial) else layer


def agrees(net, x, z):
    """To rounding; with one channel, pixels may be proportional,
    and T then goes like the root of a rounding error.
    """
    ours, expected = nk.kernel(net, x, z, ("nngp", "ntk")), reference(plain(net), x, z)
    tolerance = 1e-12 if x.shape[-1] > 1 else 1e-6
    return all(relative_error(ours[k], expected[k]) < tolerance for k in (0, 1))


weights, biases = st.sampled_from([0.6, 1.0, 1.4]), st.sampled_from([None, 0.0, 0.3])
# Tables are made anew for every variance, and held against slow quadrature: test_elementwise.py.
activations = st.sampled_from([phi for phi in BOUNDED if not phi.tabulated])
dense = st.builds(nk.Dense, weights, biases)
norms = st.sampled_from([(), (), (nk.LayerNorm(1e-3),)])


def draw_window(draw, size, padding):
    """(window, strides, size after it) that fit an image of this size."""
    pairs = []
    for n in size:
        window = draw(st.sampled_from([k for k in (1, 2, 3, 3, 4) if padding != "VALID" or k <= n]))
        stride = draw(st.sampled_from([1, 1, 1, 2, 3]))
        pairs.append(
            (window, stride, (n - window) // stride + 1 if padding == "VALID" else -(-n // stride))
        )
    return tuple(zip(*pairs, strict=True))


def draw_conv(draw, size, keep=False):
    """(a convolution, size after it); keep: of the same size."""
    padding = draw(
        st.sampled_from(
            ["SAME", "SAME", "CIRCULAR"] if keep else ["SAME", "SAME", "VALID", "CIRCULAR"]
        )
    )
    window, strides, after = draw_window(draw, size, padding)
    if keep:
        strides, after = (1, 1), size
    return nk.Conv(window, strides, padding, draw(weights), draw(biases)), after


def draw_block(draw, size):
    kind = draw(st.sampled_from(["conv", "conv", "pool", "dense", "residual", "strided"]))
    if kind == "conv":
        conv, after = draw_conv(draw, size)
        return [conv, *draw(norms), draw(activations)], after
    if kind == "pool":
        padding = draw(st.sampled_from(["SAME", "VALID"]))
        window, strides, after = draw_window(draw, size, padding)
        conv, _ = draw_conv(draw, size, keep=True)
        average = nk.AvgPool(window, strides, padding, draw(st.booleans()))
        return [
            conv,
            draw(activations),
            draw(st.sampled_from([average, nk.SumPool(window, strides, padding)])),
        ], after
    if kind == "dense":
        return [draw(dense), draw(activations)], size
    first, inner = draw_conv(draw, size, keep=True)[0], draw_conv(draw, size, keep=True)[0]
    if kind == "residual":
        return [first, nk.Residual(draw(activations), inner), draw(activations)], size
    _, strides, after = draw_window(draw, size, "SAME")
    paddings = st.sampled_from(["SAME", "CIRCULAR"])
    shortcut, branch = (
        nk.Conv(draw_window(draw, size, "SAME")[0], strides, draw(paddings)) for _ in range(2)
    )
    last, _ = draw_conv(draw, after, keep=True)
    block = nk.Residual(draw(activations), branch, draw(activations), last, shortcut=shortcut)
    return [first, block, draw(activations)], after


@st.composite
def cases(draw):
    """(network, shape of its images)."""
    shape = draw(
        st.sampled_from([(h, w) for h in range(1, 9) for w in range(1, 9) if h * w <= PIXELS])
    )
    body, size = [], shape
    for _ in range(draw(st.sampled_from([1, 2, 2, 3]))):
        layers, size = draw_block(draw, size)
        body += layers
    windows = [nk.LocalAvgPool(3), nk.LocalAvgPool(5)]
    readout = draw(
        st.sampled_from(
            [nk.GlobalAvgPool(), nk.GlobalAvgPool(), nk.Flatten(), nk.GlobalSumPool(), *windows]
        )
    )
    head = draw(st.sampled_from(["", "dense", "deep", "pixelwise"]))
    if head == "pixelwise":  # the nonlinearity after the read-out of an affine layer
        body[-1:] = [body[-1], nk.Dense(0.9, 0.1)]
    if head in ("deep", "pixelwise"):
        head = [
            *([draw(dense)] if head == "deep" else []),
            *draw(norms),
            draw(activations),
            draw(dense),
        ]
    return nk.Serial(*body, readout, *([draw(dense)] if head == "dense" else head)), (
        *shape,
        draw(st.integers(1, 5)),
    )


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_every_activation(activation):
    first, second = (
        nk.Conv(size, padding="SAME", W_std=0.6, b_std=0.1) for size in ((2, 3), (3, 3))
    )
    net = nk.Serial(
        first, activation, second, nk.AvgPool((2, 2)), nk.Dense(0.8), activation, nk.GlobalAvgPool()
    )
    x, z = images(2, 4, 3, 2), images(1, 4, 3, 2, seed=1)
    ours, expected = nk.kernel(net, x, z, ("nngp", "ntk")), reference(net, x, z)
    assert relative_error(ours.nngp, expected[0]) < 1e-12
    assert relative_error(ours.ntk, expected[1]) < 1e-12


def check_drawn(case, n1, n2):
    """Exact, or refused by an error that names a layer: never a wrong number."""
    net, shape = case
    x, z = images(n1, *shape), None if n2 == 0 else images(n2, *shape, seed=1)
    refusal = ""
    try:
        nk.kernel(net, x[:1])
    except ValueError as error:
        refusal = str(error)
    event(refusal[-60:])
    assert refusal.startswith("layer ") if refusal else agrees(net, x, z)


def drawn(examples):
    def with_settings(test):
        relaxed = settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
        return relaxed(given(cases(), st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 2]))(test))

    return with_settings


@drawn(150)
def test_drawn_networks(case, n1, n2):
    check_drawn(case, n1, n2)


@pytest.mark.slow
@drawn(6000)
def test_many_drawn_networks(case, n1, n2):
    check_drawn(case, n1, n2)
