"""Kernels of sequences, volumes and all else with positions, against matrices over all pairs."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ntkcore as nk
import reference as plain
from conftest import check_against_reference, relative_error
from examples import FULL_NETS, IMAGE_NETS, PLANE_SIGNAL_NETS, SIGNAL_NETS
from ntkcore import _core
from ntkcore.engine.scales import range_of
from ntkcore.specs import lowering
from ntkcore.specs.lowering import lower
from own_nets import data_of
from position_reference import reference


@pytest.fixture(autouse=True, scope="module")
def closed_forms():
    """The reference's activations by closed forms (which test_dual.py checks)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "MANY", 0)
        yield


def samples(n, shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(dtype)


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, backend) for name in SIGNAL_NETS for backend in nk.backends() if backend != "cuda"],
)
def test_against_the_reference(name, backend, once):
    net, shape = SIGNAL_NETS[name]
    x, z = data_of(net, 3, shape), data_of(net, 2, shape, seed=1)
    check_against_reference(lambda other: once(reference, net, x, other), net, x, z, backend, 2e-6)


def test_what_runs_where():
    """Displacement planes wherever they can: they are faster by an order."""
    for names, kind in ((PLANE_SIGNAL_NETS, _core.ImageProgram), (FULL_NETS, _core.FullProgram)):
        for net, shape in names.values():
            assert type(lower(net, shape, wants_ntk=True)) is kind


CONV = nk.Conv((3, 3), (1, 1), "SAME", 1.2, 0.1)
ON_PLANES = {
    **{name: net for name, net in IMAGE_NETS.items() if name != "normalised over pixels"},
    "any activation": nk.Serial(
        CONV, nk.Elementwise("mish"), CONV, nk.Elementwise("elu"), nk.GlobalAvgPool(), nk.Dense()
    ),
}


@pytest.mark.parametrize("name", ON_PLANES)
def test_full_covariances_are_those_of_planes(name):
    """Networks that run on planes, through the other engine."""
    x = samples(3, (5, 4, 2))
    net = ON_PLANES[name]
    ours = nk.kernel(net, x, None, ("nngp", "ntk"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "Builder", lowering.FullBuilder)
        program = lower(net, x.shape[1:], wants_ntk=True, data=range_of(x, None))
    assert type(program) is _core.FullProgram
    for backend, missing in _core.backends():
        if missing:
            continue
        block = _core.FullSamples(program, backend, x, _core.image_diagonal(program, backend, x)[2])
        found = np.empty((2, 3, 3))
        nothing = [None]
        _core.evaluate_images(
            backend, block, 0, block, 0, *[[m] for m in found], nothing, nothing, False
        )
        for kernel, expected in zip(found, ours, strict=True):
            off = ~np.eye(3, dtype=bool)  # where planes know that the correlation is 1
            assert np.abs(kernel - expected)[off].max() < 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("axis", [-1, 2, (1, 2), (-2, -1)])
@pytest.mark.parametrize("first", [nk.Identity(), nk.Index((slice(None, None, -1),))])
def test_sequences_are_normalised_over_their_own_axes(axis, first):
    """Over channels alone, or over the length as well: by a formula for the data's covariances."""
    x = samples(2, (5, 3))
    net = nk.Serial(first, nk.Dense(), nk.LayerNorm(0.1, axis), nk.GlobalAvgPool())
    K = np.einsum("ipc,jqc->ijpq", x, x) / 3
    q = np.einsum("iipp->ip", K)
    q = q if axis in (-1, 2) else np.broadcast_to(q.mean(1, keepdims=True), q.shape)
    expected = np.einsum("ijpq,ip,jq->ij", K, (q + 0.1) ** -0.5, (q + 0.1) ** -0.5) / 25
    assert relative_error(nk.kernel(net, x, get="nngp"), expected) < 1e-13


FEW = ["volume, pools", "local", "transposed", "mixed", "pool in a branch"]
FEW += ["attention, two blocks", "random attention", "masked images", "masked attention", "graphs"]


@pytest.mark.parametrize("name", FEW)
def test_sizes_symmetry_threads_and_tiles(name):
    net, shape = SIGNAL_NETS[name]
    for n in (1, 15, 17):
        x = data_of(net, n, shape, dtype=np.float32)
        k = nk.kernel(net, x, threads=1)
        assert (k == k.T).all()
        assert (np.diag(k) == nk.kernel_diag(net, x)).all()
        for threads, tile in ((2, None), (3, 16), (1, 32)):
            assert (nk.kernel(net, x, threads=threads, tile=tile) == k).all()
        cross, off = nk.kernel(net, x, x[: n // 2 + 1].copy()), ~np.eye(n, n // 2 + 1, dtype=bool)
        assert np.abs(cross - k[:, : n // 2 + 1])[off].max(initial=0) < 1e-5 * np.abs(k).max()


EVERYWHERE = ["sequence, gap", "volume, pools", "transposed, circular"]


@pytest.mark.parametrize("name", [*EVERYWHERE, "masked attention", "random attention", "graphs"])
def test_every_entry_takes_any_axes(name, tmp_path):
    net, shape = SIGNAL_NETS[name]
    x, z = data_of(net, 20, shape), data_of(net, 4, shape, seed=1)
    k, y = nk.kernel(net, x), np.arange(20.0)
    store = tmp_path / "k.zarr"
    nk.build(net, x[:17], store, tile=16, progress=False)
    group = nk.extend(store, x[17:], progress=False)
    assert (group["ntk"][...] == k).all()
    assert nk.verify(store).ok
    model = nk.estimators.NTKRegressor(net, ridge=0.1).fit(x, y)
    assert model.predict(z).shape == (4,)
    assert relative_error(nk.MatrixFree(net, x).matmat(y[:, None])[:, 0], k @ y) < 1e-10


def test_magnitudes():
    net, shape = nk.Serial(nk.Conv((2, 2, 1)), nk.Relu(), nk.GlobalAvgPool()), (2, 3, 2, 2)
    x = samples(4, shape, dtype=np.float32)
    k = nk.kernel(net, x)
    assert relative_error(nk.kernel(net, x * np.float32(2.0**-60)) * 2.0**120, k) < 1e-6


@pytest.mark.parametrize("layer", [nk.Conv((2, 2)), nk.ConvLocal((2, 2))])
def test_products_grow_faster_than_their_input(layer):
    net = nk.Serial(nk.FanOut(2), nk.Parallel(layer, layer), nk.FanInProd(), nk.GlobalAvgPool())
    x = samples(3, (3, 4, 2))
    for kernel in ("nngp", "ntk"):
        large = nk.kernel(net, 2.0**30 * x, get=kernel)
        assert relative_error(large / 2.0**120, nk.kernel(net, x, get=kernel)) < 1e-14


def test_products_do_not_scale_as_their_data_do():
    """The fourth power of a magnitude beyond which data are scaled."""
    conv, dense = nk.Conv((2, 1, 1)), nk.Dense()
    pair = [nk.Parallel(conv, conv), nk.Parallel(dense, dense)]
    gated, head = ([nk.FanOut(2), both, nk.FanInProd()] for both in pair)
    pool, x = nk.GlobalAvgPool(), samples(3, (2, 3, 2, 2))
    for layers in ([*gated, nk.Flatten()], [conv, nk.Relu(), pool, *head]):
        k = nk.kernel(nk.Serial(*layers), x)
        assert relative_error(nk.kernel(nk.Serial(*layers), x * 2.0**20) / 2.0**80, k) < 1e-12


def test_flips():
    """Of networks that treat left and right alike."""
    x = samples(5, (3, 4, 2))
    for layer in (nk.ImageResize((5, 6)), nk.ConvLocal((3, 3), padding="SAME")):
        net = nk.Serial(layer, nk.Conv((3, 3), padding="SAME"), nk.Relu(), nk.Flatten())
        turned = [x, x[:, :, ::-1]]
        expected = sum(nk.kernel(net, a, b) for a in turned for b in turned) / 4
        assert relative_error(nk.kernel(net, x, augment="hflip"), expected) < 1e-8
    row = nk.Serial(nk.Index((1,)), nk.Conv((2,), padding="SAME"))
    one_sided = nk.Index((slice(None), slice(0, 3))), nk.ConvTranspose((1, 2), padding="SAME"), row
    for layer in one_sided:
        with pytest.raises(ValueError, match="left and right"):
            nk.kernel(nk.Serial(layer, nk.Flatten()), x, augment="hflip")
    with pytest.raises(ValueError, match="needs images"):
        nk.kernel(PLANE_SIGNAL_NETS["sequence, gap"][0], samples(2, (7, 2)), augment="hflip")


def test_all_pairs_are_read_before_a_layer_that_needs_fewer():
    x, conv = samples(3, (4, 2)), nk.ConvLocal((2,), padding="SAME", b_std=0.2)
    layers = [conv, nk.Relu(), conv, nk.Erf()]
    found = nk.kernel(
        nk.Serial(*layers, nk.Flatten()), x, depths=[0, 1, 2], pool_windows=[1, 3, "global"]
    )
    for depth, kernels in enumerate(found):
        pools = nk.Flatten(), nk.LocalAvgPool(3), nk.GlobalAvgPool()
        for k, pool in zip(kernels, pools, strict=True):
            net = nk.Serial(*layers[: 2 * depth], pool)
            assert np.abs(k - nk.kernel(net, x)).max() < 1e-14


def test_long_sequences():
    """Longer than an image is wide; on planes as by full covariances."""
    x = samples(2, (1500, 1))
    for readout in (nk.Flatten(), nk.GlobalAvgPool()):
        layers = (nk.Conv((3,), padding="SAME", b_std=0.1), nk.Relu(), readout)
        planes = nk.kernel(nk.Serial(*layers), x)
        full = nk.kernel(nk.Serial(nk.Index((slice(None),)), *layers), x)
        assert relative_error(planes, full) < 1e-12


def test_too_many_positions_are_refused_before_any_work():
    net = nk.Serial(nk.ConvLocal((1, 1)), nk.Relu(), nk.GlobalAvgPool())
    with pytest.raises(MemoryError, match=r"all pairs of positions.*for each of .* thread"):
        nk.kernel(net, np.ones((2, 500, 500, 1)), threads=2)


@pytest.mark.parametrize(
    ("windows", "matrices", "ops", "words"),
    [
        ([[[0, 4]]], [], [("window", 2, 0)], "reads beyond"),
        ([[[0, -2]]], [], [("window", 2, 0)], "out of range"),
        ([[[0, 1]]], [], [("window", 3, 0)], "positions differ"),
        ([[[0, 1]]], [], [("window", 2, 1)], "table out of range"),
        ([], [], [("window", 4, 0)], "table out of range"),
        ([], [([0, 1], [4], [1.0])], [("linear", 1, 0)], "reads beyond"),
        ([], [([0, 2], [0], [1.0])], [("linear", 1, 0)], "rows must follow"),
        ([], [([1, 1], [0], [1.0])], [("linear", 1, 0)], "rows must follow"),
        ([], [([0, 1], [-1], [1.0])], [("linear", 1, 0)], "column is out of range"),
        ([], [], [("spread", 4, 0)], "holds that already"),
        ([], [], [("diagonal", 4, 0), ("readout", 4, 0)], "does not hold all pairs"),
        ([], [], [("add", 4, 0)], "second slot"),
    ],
)
def test_programs_that_do_not_fit_are_refused(windows, matrices, ops, words):
    windows = [np.array(w, np.int32) for w in windows]
    matrices = [
        (np.array(a, np.int32), np.array(b, np.int32), np.array(c, float)) for a, b, c in matrices
    ]
    ones = (1.0, 0.0, 1.0, 0.0)
    full = [(kind, "", 0, 0, ones, positions, t, -1, "") for kind, positions, t in ops]
    head = [("emit", "", 0, 0, (1.0, 0.0, 1.0, 0.0))]
    shape = (4, 1, *(False,) * 4)
    with pytest.raises(ValueError, match=words):
        _core.FullProgram(full, 1, windows, matrices, [], [], head, 1, 1, shape)


# --- drawn networks


weights, biases = st.sampled_from([0.6, 1.0, 1.4]), st.sampled_from([None, 0.3])
paddings = st.sampled_from(["SAME", "VALID", "CIRCULAR"])


def draw_window(draw, axes, padding):
    """(window, strides) that fit."""
    window = tuple(draw(st.integers(1, min(n, 3) if padding == "VALID" else 4)) for n in axes)
    return window, tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in axes)


def draw_affine(draw, axes):
    """A layer after which a nonlinearity may follow."""
    padding = draw(paddings)
    window, strides = draw_window(draw, axes, padding)
    rest = (strides, padding, draw(weights), draw(biases))
    kind = draw(st.sampled_from([nk.Conv, nk.Conv, nk.ConvLocal, nk.ConvTranspose, nk.Dense]))
    if kind is nk.Dense:
        return nk.Dense(*rest[2:])
    if kind is nk.ConvTranspose:
        strides = tuple(min(s, 2) for s in strides)
        return nk.ConvTranspose(window, strides, *rest[1:])
    if kind is nk.Conv and padding != "VALID":
        return nk.Conv(window, *rest, dilation=tuple(draw(st.integers(1, 3)) for _ in axes))
    return kind(window, *rest)


def draw_linear(draw, axes):
    """A layer that acts on positions."""
    padding = draw(paddings)
    window, strides = draw_window(draw, axes, padding)
    kind = draw(st.sampled_from(["average", "sum", "index", "resize", "dot"]))
    if kind == "average":
        return nk.AvgPool(window, strides, padding, draw(st.booleans()))
    if kind == "sum":
        return nk.SumPool(window, strides, padding)
    if kind == "index":
        slices = [slice(None), slice(None, None, -1), slice(None, None, 2), slice(-2, None)]
        return nk.Index(tuple(draw(st.sampled_from(slices)) for _ in axes))
    if kind == "resize":
        sizes = tuple(draw(st.sampled_from([-1, 1, 2, 3, 5])) for _ in axes)
        return nk.ImageResize(
            sizes, draw(st.sampled_from(["linear", "nearest"])), draw(st.booleans())
        )
    axis = draw(st.integers(0, len(axes) - 1))
    matrix = [[(i * j) % 3 - 0.5 for j in range(axes[axis])] for i in range(2)]
    return nk.DotGeneral(rhs=matrix, dimension_numbers=(((axis + 1,), (1,)), ((), ())))


def axes_after(net, axes):
    """Read off the error of a network that ends there; None where it does not fit."""
    try:
        lower(net, (*axes, 2), wants_ntk=True)
    except ValueError as error:
        found = re.search(r"ends with an image of shape \(([\d, ]+)\)", str(error))
        return found and tuple(map(int, found[1].split(",")))[:-1]
    return ()


@st.composite
def networks(draw):
    """(network, axes of its samples)."""
    shapes = [(5,), (8,), (3, 4), (4, 3), (1, 6), (2, 3, 2), (3, 2, 2), (2, 1, 2, 2)]
    axes = shape = draw(st.sampled_from(shapes))
    layers = []
    for number in range(draw(st.integers(2, 4))):
        block = [draw_affine(draw, axes), draw(st.sampled_from([nk.Relu(), nk.Erf()]))]
        if number and draw(st.booleans()):
            same = nk.Conv((2,) * len(axes), padding="SAME")
            pool = nk.AvgPool((2,) * len(axes), padding="SAME")
            block = [same, nk.Residual(nk.Relu(), pool, same), nk.Relu()]
        elif draw(st.booleans()):
            block.append(draw_linear(draw, axes))
        after = axes_after(nk.Serial(*layers, *block), shape)
        if after and math.prod(after) <= 24:
            layers, axes = [*layers, *block], after
    return nk.Serial(*layers, draw(st.sampled_from([nk.Flatten(), nk.GlobalAvgPool()]))), shape


def check_drawn(case):
    net, axes = case
    x, z = samples(2, (*axes, 3)), samples(1, (*axes, 3), seed=1)
    for other in (None, z):
        expected = reference(net, x, other)
        for backend in (None, "cuda-emulation"):
            ours = nk.kernel(net, x, other, ("nngp", "ntk"), backend=backend)
            for k in (0, 1):
                # Flat positions may be proportional, and T goes like the root of a rounding error.
                assert np.abs(ours[k] - expected[k]).max() <= 1e-6 * np.abs(expected[k]).max()
    nngp = nk.kernel(net, x, z, "nngp")
    assert np.abs(nngp - expected[0]).max() <= 1e-12 * max(np.abs(expected[0]).max(), 1e-300)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_drawn_networks(case):
    check_drawn(case)


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_many_drawn_networks(case):
    check_drawn(case)


# neural-tangents 0.6.5 in float64, on samples of test_parity's. An odd number of convolutions
# before a ConvLocal of unequal sides or an ImageResize is left out: its kernels, whose axes a
# convolution turns, are then those of the turned layer.
NT = json.loads((Path(__file__).parent / "data" / "nt_positions.json").read_text())


@pytest.mark.parametrize("name", NT)
def test_parity_with_neural_tangents(name):
    case, rng = NT[name], np.random.default_rng(0)
    x, z = (rng.standard_normal((n, *case["shape"])) for n in (3, 2))
    ours = nk.kernel(nk.from_json(json.dumps(case["net"])), x, z, ("nngp", "ntk"))
    for kernel in ("nngp", "ntk"):
        assert relative_error(getattr(ours, kernel), np.array(case[kernel])) < 1e-10
