"""Attention, masks and patterns: by hand, what must not change a kernel, and bad input.

Against the oracle they run in test_signals.py, as networks of own_nets.py.
"""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkcore as nk
import reference as plain
from conftest import relative_error
from own_nets import ABS, BESIDE, IDENTITY, OWN_NETS, RANDOM, RELU, SOFTMAX, SUMMED, data_of
from position_reference import reference

D, B, GAP, FLAT = nk.Dense(), nk.Dense(1.2, 0.3), nk.GlobalAvgPool(), nk.Flatten()
MASKED = nk.MaskedInput()
BOTH = ("nngp", "ntk")
MECHANISMS = (SOFTMAX, RELU, ABS, IDENTITY, RANDOM)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- by hand


def test_softmax_of_two_positions():
    """Features 1 and 0: weights of the first are e/(1 + e) and 1/2."""
    x = np.array([[[1.0], [0.0]]])
    mean = (math.e / (1 + math.e) + 0.5) / 2
    found = nk.kernel(nk.Serial(nk.GlobalSelfAttention(), GAP), x, get=BOTH)
    assert found.nngp[0, 0] == pytest.approx(mean**2, rel=1e-15)
    assert found.ntk[0, 0] == pytest.approx(2 * mean**2, rel=1e-15)  # values and output
    scaled = nk.GlobalSelfAttention(W_value_std=3.0, W_out_std=2.0, b_std=0.5)
    found = nk.kernel(nk.Serial(scaled, GAP, D), x, get=BOTH)
    assert found.nngp[0, 0] == pytest.approx(36 * mean**2 + 0.25, rel=1e-15)
    assert found.ntk[0, 0] == pytest.approx(108 * mean**2 + 0.5, rel=1e-15)


@pytest.mark.parametrize(("mechanism", "weight"), [("relu", 0), ("abs", 6), ("identity", -6)])
def test_weights_that_are_logits(mechanism, weight):
    """Features 2 and -3: logits 4, -6 of the first position and -6, 9 of the second."""
    layer = nk.GlobalSelfAttention(attention_mechanism=mechanism, W_key_std=1.0)
    first, second = 4 * 2 + weight * -3, weight * 2 + 9 * -3
    found = nk.kernel(nk.Serial(layer, FLAT), np.array([[[2.0], [-3.0]]]), get="nngp")
    assert found[0, 0] == pytest.approx((first**2 + second**2) / 2)


def test_random_logits_by_hand():
    """Covariances 2 and 3 of a pair at each of two positions, 0 between: S = 4 + 9."""
    x, z = np.diag([1.0, 1.0])[None], np.diag([4.0, 6.0])[None]
    found = nk.kernel(nk.Serial(RANDOM, FLAT), x, z, BOTH)
    c, b = (0.9 * 1.2 * 1.3 * 0.8) ** 2, 0.3**2
    assert found.nngp[0, 0] == pytest.approx(c * 13 * 2.5 + b)
    assert found.ntk[0, 0] == pytest.approx(c * 13 * 4 * 2.5 + b)


def test_embeddings_by_hand():
    """Data without features: what attention sees are positions alone."""
    layer = nk.GlobalSelfAttention(
        pos_emb_type="sum", W_pos_emb_std=2.0, val_pos_emb=True, pos_emb_decay="inverse"
    )
    R = 4 / (1 + np.subtract.outer(np.arange(3), np.arange(3)) ** 2.0)
    G = np.exp(R) / np.exp(R).sum(1, keepdims=True)
    found = nk.kernel(nk.Serial(layer, GAP), np.zeros((1, 3, 2)), get=BOTH)
    expected = (G @ R @ G.T).mean()
    assert found.nngp[0, 0] == pytest.approx(expected)
    assert found.ntk[0, 0] == pytest.approx(3 * expected)  # embeddings train


def test_a_graph_by_hand():
    """Two nodes that hear each other have the sum of both features; degree weights the mean."""
    x = [(np.array([[1.0], [3.0]]), np.array([[0, 1], [1, 0]]))]
    net = nk.Serial(nk.GraphInput(), nk.Aggregate(), nk.GlobalSumPool())
    for weights, each in (("uniform", 4), ("degree", 2), ("symmetric", 2)):
        k = nk.kernel(net, nk.pack_graphs(x, weights=weights), get="nngp")
        assert k[0, 0] == pytest.approx((2 * each) ** 2)
    given = nk.pack_graphs([(x[0][0], [[0.0, 1.0], [0.0, 0.0]])], weights="given")
    assert nk.kernel(net, given, get="nngp")[0, 0] == pytest.approx(
        9.0
    )  # the first hears the other


# --- what must not change a kernel


@pytest.mark.parametrize("attention", [*MECHANISMS, SUMMED, BESIDE], ids=range(7))
def test_a_masked_sequence_is_the_short_one(attention):
    lengths = (5, 3, 3, 1)
    rows = [draw(n, 2, seed=i) for i, n in enumerate(lengths)]
    layers = B, nk.Relu(), attention, nk.Cos(), attention, GAP, D
    together = nk.kernel(nk.Serial(MASKED, *layers), nk.pack_sequences(rows, length=7), get=BOTH)
    for i, j in ((0, 0), (1, 2), (2, 2), (3, 3)):
        alone = nk.kernel(
            nk.Serial(*layers), rows[i][None], None if i == j else rows[j][None], BOTH
        )
        for k, expected in zip(together, alone, strict=True):
            assert k[i, j] == pytest.approx(expected[0, 0], rel=1e-12)


def test_what_stands_at_masked_positions_does_not_matter():
    net, shape = OWN_NETS["masked attention, two blocks"]
    x = data_of(net, 4, shape)
    other = x.copy()
    other[..., :-1] += 7 * (x[..., -1:] == 0)
    assert (other != x).any()
    assert relative_error(nk.kernel(net, other), nk.kernel(net, x)) < 1e-12


@pytest.mark.parametrize("attention", MECHANISMS, ids=range(5))
def test_the_order_of_positions_does_not_matter(attention):
    net = nk.Serial(B, attention, nk.Relu(), attention, GAP, D)
    x = draw(3, 5, 2)
    turned = np.array([np.random.default_rng(i).permutation(row) for i, row in enumerate(x)])
    for k, expected in zip(
        nk.kernel(net, turned, get=BOTH), nk.kernel(net, x, get=BOTH), strict=True
    ):
        assert relative_error(k, expected) < 1e-12


def test_the_short_cut_is_the_long_way():
    """A mean at once, and over all positions by a pool."""
    x = draw(4, 5, 2)
    for attention in (SOFTMAX, ABS, SUMMED):
        short, long = (
            nk.kernel(nk.Serial(B, attention, *end, D), x, get=BOTH)
            for end in ((GAP,), (nk.AvgPool((5,)), FLAT))
        )
        assert max(relative_error(a, b) for a, b in zip(short, long, strict=True)) < 1e-13


def test_the_end_of_padding_does_not_matter():
    rows = [draw(n, 2, seed=n) for n in (2, 4)]
    net = nk.Serial(MASKED, B, SUMMED, nk.Relu(), GAP, D)
    short, long = (nk.kernel(net, nk.pack_sequences(rows, length=n)) for n in (4, 9))
    assert relative_error(short, long) < 1e-13


def test_depths():
    layers = [MASKED, B, nk.Relu(), SOFTMAX, nk.Cos()]
    x = data_of(nk.Serial(MASKED), 3, (5, 3))
    found = nk.kernel(nk.Serial(*layers, SUMMED, GAP, D), x, depths=[1, 2])
    for k, cut in zip(found, (3, 5), strict=True):
        alone = nk.kernel(nk.Serial(*layers[:cut], SUMMED, GAP, D), x)
        assert relative_error(k, alone) < 1e-14


NAMES = ["attention, two blocks", "masked images", "masked random attention", "graphs, branches"]


@settings(max_examples=12)
@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(0, 2**16))
def test_symmetric_and_positive_semidefinite(name, n, seed):
    net, shape = OWN_NETS[name]
    x = data_of(net, n, shape, seed)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        for k in nk.kernel(net, x, None, BOTH, dtype=dtype):
            assert (k == k.T).all()
            assert np.linalg.eigvalsh(k.astype(float))[0] > -tolerance * np.trace(k)


@settings(max_examples=12)
@given(st.sampled_from(NAMES), st.integers(1, 9), st.integers(1, 3), st.sampled_from([None, 16]))
def test_neither_threads_nor_tiles_change_a_bit(name, n, threads, tile):
    net, shape = OWN_NETS[name]
    x, z = data_of(net, n, shape), data_of(net, 3, shape, seed=1)
    for other in (None, z):
        assert (
            nk.kernel(net, x, other, threads=threads, tile=tile)
            == nk.kernel(net, x, other, threads=1)
        ).all()


mechanisms = st.sampled_from(["softmax", "relu", "abs", "identity", "random"])
stds = st.floats(0.2, 1.2)


@st.composite
def attentions(draw):
    mechanism = draw(mechanisms)
    random = mechanism == "random"
    kind = draw(st.sampled_from(["none", "sum", "concat"]))
    more = (
        {}
        if kind == "none"
        else {
            "pos_emb_decay": draw(st.sampled_from([None, "inverse", "exponential"])),
            "val_pos_emb": draw(st.booleans()),
            "pos_emb_channels": draw(st.sampled_from([None, 3])) if kind == "concat" else None,
        }
    )
    return nk.GlobalSelfAttention(
        not random,
        *(draw(stds) for _ in range(4)),
        draw(st.none() | stds),
        "identity" if random else mechanism,
        kind,
        W_pos_emb_std=draw(stds),
        **more,
    )


@settings(max_examples=25)
@given(attentions(), attentions(), st.booleans(), st.sampled_from([GAP, FLAT]))
def test_drawn_attention(first, second, masked, end):
    layers = nk.Dense(0.9, 0.2, width=4), first, nk.Relu(), nk.Dense(0.8, width=4), second, end
    net = nk.Serial(*([MASKED] if masked else []), *layers)
    x, z = (data_of(net, n, (4, 3), seed=n) for n in (2, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "MANY", 0)
        for other in (None, z):
            expected = reference(net, x, other)
            for backend in (None, "cuda-emulation"):
                for k, e in zip(
                    nk.kernel(net, x, other, BOTH, backend=backend), expected, strict=True
                ):
                    assert relative_error(k, e) < 1e-11


@pytest.mark.parametrize(
    "name", ["attention, two blocks", "masked attention, two blocks", "graphs"]
)
def test_near_equal_samples_in_float32(name):
    net, shape = OWN_NETS[name]
    x = data_of(net, 3, shape)
    near = x.copy()
    near[..., : (1 if name == "graphs" else 2)] *= 1 + 1e-4
    x = np.concatenate([x, near]).astype(np.float32)
    single, double = (nk.kernel(net, x, None, BOTH, dtype=t) for t in ("float32", "float64"))
    for ours, expected in zip(single, double, strict=True):
        assert relative_error(ours, expected) < 3e-6
        assert np.linalg.eigvalsh(ours.astype(float))[0] > -1e-5 * np.trace(expected)


def test_stores_operators_and_fits(tmp_path):
    net, shape = OWN_NETS["masked attention, two blocks"]
    x, z, y = data_of(net, 18, shape), data_of(net, 3, shape, seed=1), draw(18, seed=2)
    K = nk.kernel(net, x)
    store = nk.build(net, x, tmp_path / "k.zarr", tile=16, progress=False)
    assert relative_error(store["ntk"][...], K) < 1e-12
    assert relative_error(nk.MatrixFree(net, x, tile=16) @ y, K @ y) < 1e-12
    expected = nk.kernel(net, z, x) @ np.linalg.solve(K + 0.1 * np.trace(K) / 18 * np.eye(18), y)
    model = nk.fit(net, x, y, 0.1)
    assert relative_error(model.predict(z), expected) < 1e-8


# --- bad input


WIDE = nk.Serial(B, nk.GlobalSelfAttention(), GAP)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            lambda: nk.GlobalSelfAttention(False),
            ValueError,
            "no kernel is known.*softmax.*linear_s",
        ),
        (
            lambda: nk.GlobalSelfAttention(attention_mechanism="tanh"),
            ValueError,
            "one of 'softmax'",
        ),
        (lambda: nk.GlobalSelfAttention(pos_emb_type="add"), ValueError, "one of 'none', 'sum'"),
        (lambda: nk.GlobalSelfAttention(pos_emb_decay="inverse"), ValueError, "pos_emb_type is"),
        (lambda: nk.GlobalSelfAttention(val_pos_emb=True), ValueError, "pos_emb_type is"),
        (lambda: nk.GlobalSelfAttention(W_key_std=-1), ValueError, "W_key_std"),
        (lambda: nk.GlobalSelfAttention(b_std=math.nan), ValueError, "b_std.*finite"),
        (lambda: nk.GlobalSelfAttention(linear_scaling=1), TypeError, "linear_scaling"),
        (lambda: nk.kernel(nk.Serial(SOFTMAX, D), draw(3, 4)), ValueError, "input is a vector"),
        (lambda: nk.kernel(nk.Serial(MASKED, D), draw(3, 4)), ValueError, "data are vectors"),
        (lambda: nk.kernel(nk.Serial(MASKED, GAP), draw(3, 4, 1)), ValueError, "pack_sequences"),
        (lambda: nk.kernel(nk.Serial(nk.GraphInput(), GAP), draw(2, 4, 5)), ValueError, "pack_gr"),
        (
            lambda: nk.kernel(nk.Serial(B, MASKED, GAP), draw(2, 4, 5)),
            ValueError,
            "before all other",
        ),
        (
            lambda: nk.kernel(nk.Serial(MASKED, MASKED, GAP), draw(2, 4, 5)),
            ValueError,
            "before all",
        ),
        (
            lambda: nk.kernel(nk.Serial(nk.Residual(MASKED, B), GAP), draw(2, 4, 5)),
            ValueError,
            "layer 0.*MaskedInput.*before all other",
        ),
        (
            lambda: nk.kernel(nk.Serial(B, nk.Aggregate(), GAP), draw(2, 4, 5)),
            ValueError,
            r"hold no pattern: put GraphInput\(\)",
        ),
        (
            lambda: nk.kernel(
                nk.Serial(nk.GraphInput(), nk.Conv((2,)), nk.Aggregate(), GAP), draw(2, 3, 6)
            ),
            ValueError,
            "moved positions",
        ),
        (
            lambda: nk.kernel(nk.Serial(MASKED, B, nk.ImageResize((3,)), GAP), draw(2, 4, 5)),
            ValueError,
            "layer 2: masked data are not supported",
        ),
        (
            lambda: nk.kernel(
                nk.Serial(
                    *(MASKED, B),
                    nk.Residual(nk.Conv((3,), (2,), "SAME"), shortcut=nk.Conv((1,), (2,), "SAME")),
                    GAP,
                ),
                draw(2, 4, 5),
            ),
            ValueError,
            "layer 2.*branches differ in which positions are masked",
        ),
        (lambda: nk.kernel(WIDE, np.ones((2, 300_000, 1))), MemoryError, "pairs of positions"),
        (lambda: nk.pack_sequences([draw(0, 2)]), ValueError, "sequence 0 must have shape"),
        (
            lambda: nk.pack_sequences([draw(3, 2), draw(3, 1)]),
            ValueError,
            "sample 1 has 1 features",
        ),
        (
            lambda: nk.pack_sequences(draw(2, 3, 1), np.ones((2, 3), bool)),
            ValueError,
            "sample 0 has",
        ),
        (lambda: nk.pack_sequences(draw(2, 3, 1), np.zeros((2, 2), bool)), ValueError, "mask must"),
        (
            lambda: nk.pack_sequences(draw(2, 3, 1), np.zeros((2, 3))),
            ValueError,
            "mask must be of b",
        ),
        (lambda: nk.pack_sequences([draw(3, 1)], length=2), ValueError, "3 positions, more than"),
        (lambda: nk.pack_graphs([(draw(3, 2), np.eye(2))]), ValueError, "graph 0 has 3 nodes"),
        (lambda: nk.pack_graphs([(draw(2, 2), np.eye(2) / 0.0)]), ValueError, "graph 0 holds NaN"),
        (lambda: nk.pack_graphs([draw(2, 2)]), TypeError, "graph 0 must be a pair"),
        (lambda: nk.pack_graphs([], weights="none"), ValueError, "weights must be one of"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_input(build, error, words):
    with pytest.raises(error, match=words):
        build()


@pytest.mark.parametrize(
    ("decay", "words"),
    [
        (lambda d: np.where(d > 0, 1.5, 1.0), "no covariance.*eigenvalue -"),
        (lambda d: 1.0, "finite number for every entry"),
        (lambda d: d * np.inf, "finite number for every entry"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_decays_that_are_no_covariance(decay, words):
    layer = nk.GlobalSelfAttention(pos_emb_type="sum", pos_emb_decay=decay)
    with pytest.raises(ValueError, match=rf"layer 1, GlobalSelfAttention.*{words}"):
        nk.kernel(nk.Serial(B, layer, GAP), draw(2, 4, 2))


def test_json():
    for net, _ in OWN_NETS.values():
        assert nk.from_json(net.to_json()) == net
    named = nk.GlobalSelfAttention(pos_emb_type="sum", pos_emb_decay="inverse")
    assert json.loads(named.to_json())["pos_emb_decay"] == "inverse"
    own = nk.GlobalSelfAttention(pos_emb_type="sum", pos_emb_decay=lambda d: 1 / (1 + d))
    with pytest.raises(TypeError, match="holds a function, which JSON cannot"):
        own.to_json()
    x = draw(2, 4, 2)
    a, b = (nk.kernel(nk.Serial(B, layer, GAP), x) for layer in (named, own))
    assert relative_error(a, b) < 1e-14


def test_samples_masked_as_a_whole_are_refused_whoever_packed_them():
    net = nk.transformer(1, masked=True)
    x = np.ones((3, 4, 3))
    x[1, :, -1] = 0
    for call in (nk.kernel, nk.kernel_diag, lambda *a: nk.kernel(net, x[:1], x)):
        with pytest.raises(ValueError, match="sample 1 has no position in use"):
            call(net, x)
