"""Recurrent networks: against the recursion pair by pair, and against finite ones."""

import functools
import json
import math

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from ntkcore import _core

GET = ("nngp", "ntk")
LENGTHS = (1, 4, 6, 3)


def sequences(lengths=LENGTHS, features=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, features)) for length in lengths]


def relu(q, k, r):
    """(E, D) of max(z, 0); 0 where a state is 0."""
    if q == 0 or r == 0:
        return 0.0, 0.0
    angle = math.acos(max(-1.0, min(1.0, k / math.sqrt(q * r))))
    return (
        math.sqrt(q * r) * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi),
        (math.pi - angle) / (2 * math.pi),
    )


def cos(q, k, r):
    """(E, D) of cos z."""
    near, far = math.exp(k - (q + r) / 2), math.exp(-k - (q + r) / 2)
    return (near + far) / 2, (near - far) / 2


def exact(dual, layers, head, x, y, W=1.3, U=0.9, b=0.4):
    """(K, T) of a pair of sequences, by theorems 1 and 2 of Alemohammad et al. 2021 with a first
    state of 0: functions of positions, counted from 0, each calling those before.
    """

    @functools.cache
    def state(layer, s, t, p, q):
        """(K, T) of the states at p of s and q of t; 0 before the first."""
        if p < 0 or q < 0:
            return 0.0, 0.0
        if layer == 0:
            K, T = float(s_of[s][p] @ s_of[t][q]) / len(s_of[s][p]), 0.0
        else:
            K, T = after(layer - 1, s, t, p, q)
        E, ET = after(layer, s, t, p - 1, q - 1)
        new = U**2 * K + b**2 + W**2 * E
        return new, new + U**2 * T + W**2 * ET

    @functools.cache
    def after(layer, s, t, p, q):
        """(K, T) behind the nonlinearity."""
        one, two = state(layer, s, s, p, p)[0], state(layer, t, t, q, q)[0]
        K, T = state(layer, s, t, p, q)
        E, D = dual(one, K, two)
        return E, D * T

    s_of = {"x": x, "y": y}
    n, m = len(x), len(y)
    ends = [(n - 1, m - 1)] if head == "last" else list(np.ndindex(n, m))
    K, T = np.mean([after(layers - 1, "x", "y", p, q) for p, q in ends], axis=0)
    return W**2 * K + b**2, W**2 * K + b**2 + W**2 * T


def matrices(dual, layers, head, xs, ys):
    found = np.array([[exact(dual, layers, head, x, y) for y in ys] for x in xs])
    return found[..., 0], found[..., 1]


def masked(layers, head, phi):
    return nk.Serial(nk.MaskedInput(), nk.rnn(layers, head, 1.3, 0.9, 0.4, phi))


CASES = [
    (relu, nk.Relu(), 1, "last"),
    (relu, nk.Relu(), 2, "last"),
    (relu, nk.Relu(), 1, "gap"),
    (cos, nk.Cos(), 1, "last"),
    (cos, nk.Cos(), 2, "gap"),
]


@pytest.mark.parametrize("backend", [b for b in nk.backends() if b != "cuda"])
@pytest.mark.parametrize(("dual", "phi", "layers", "head"), CASES)
def test_sequences_of_different_lengths(dual, phi, layers, head, backend):
    xs, ys = sequences(), sequences((5, 2), seed=1)
    packed = nk.pack_sequences(xs, length=7, align="right")
    other = nk.pack_sequences(ys, length=7, align="right")
    net = masked(layers, head, phi)
    for theirs, second in ((xs, None), (ys, other)):
        ours = nk.kernel(net, packed, second, GET, backend=backend)
        expected = matrices(dual, layers, head, xs, theirs)
        short = nk.kernel(net, packed, second, GET, backend=backend, dtype="float32")
        for k in (0, 1):
            assert relative_error(ours[k], expected[k]) < 1e-12
            assert relative_error(short[k], expected[k]) < 2e-6
    diagonal = nk.kernel_diag(net, packed, GET, backend=backend)
    expected = [np.array([exact(dual, layers, head, x, x) for x in xs])[:, k] for k in (0, 1)]
    assert max(relative_error(diagonal[k], expected[k]) for k in (0, 1)) < 1e-12


def test_padding_changes_nothing():
    x, net = sequences((4,) * 5), nk.rnn(2, "gap", activation=nk.Cos())
    plain = nk.kernel(net, np.array(x))
    padded = nk.pack_sequences(x, length=9, align="right")
    assert relative_error(nk.kernel(nk.Serial(nk.MaskedInput(), net), padded), plain) < 1e-14


@pytest.mark.parametrize("phi", [nk.Relu(), nk.Cos(), nk.Gelu()], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_last_state_is_that_of_all_pairs(phi, dtype):
    """Along p = p' alone, and by full covariances."""
    x = np.array(sequences((9,) * 7)).astype(dtype)
    states = nk.Recurrent(phi, 1.2, 0.8, 0.3)
    last = nk.Recurrent(phi, 1.2, 0.8, 0.3, return_sequences=False)
    end = nk.Index((slice(-1, None),)), nk.GlobalAvgPool()
    for backend in nk.backends():
        if backend == "cuda":
            continue
        few = nk.kernel(nk.Serial(last, phi, nk.Dense()), x, None, GET, backend=backend)
        every = nk.kernel(nk.Serial(states, phi, *end, nk.Dense()), x, None, GET, backend=backend)
        picked = nk.kernel(
            nk.Serial(states, nk.Index((-1,)), phi, nk.Dense()), x, None, GET, backend=backend
        )
        for k in (0, 1):
            assert relative_error(few[k], every[k]) < (1e-6 if dtype == "float32" else 1e-13)
            assert (few[k] == picked[k]).all()


def test_one_position_is_a_dense_layer():
    x = np.random.default_rng(0).standard_normal((4, 1, 3))
    net = nk.Serial(nk.Recurrent(nk.Relu(), 7.0, 1.2, 0.3, False), nk.Relu(), nk.Dense())
    dense = nk.Serial(nk.Dense(1.2, 0.3), nk.Relu(), nk.Dense())
    for k in (0, 1):
        ours = nk.kernel(net, x, None, GET)[k]
        assert relative_error(ours, nk.kernel(dense, x[:, 0], None, GET)[k]) < 1e-14


def test_sequences_without_inputs_are_a_deep_network():
    """After one step W alone goes on: a fully connected network with shared weights has the same
    kernel as one with weights of its own, for each layer's share is a product of the same duals.
    """
    x = np.zeros((3, 4, 2))
    x[:, 0] = np.random.default_rng(0).standard_normal((3, 2))
    net = nk.Serial(nk.Recurrent(nk.Relu(), 1.4, 1.1, None, False), nk.Relu(), nk.Dense(1.4))
    hidden = (nk.Dense(1.4), nk.Relu())
    deep = nk.Serial(nk.Dense(1.1), nk.Relu(), *hidden * 3, nk.Dense(1.4))
    for k in (0, 1):
        ours = nk.kernel(net, x, None, GET)[k]
        assert relative_error(ours, nk.kernel(deep, x[:, 0], None, GET)[k]) < 1e-13


def test_depths():
    """A stage ends with the nonlinearity behind a recurrent layer."""
    x = np.array(sequences((5,) * 3))
    phi, pool, dense = nk.Relu(), nk.GlobalAvgPool(), nk.Dense(1.1, 0.2)
    layers = [nk.Recurrent(phi, 1.2, 0.9, 0.1), phi, nk.Recurrent(nk.Erf()), nk.Erf()]
    found = nk.kernel(nk.Serial(*layers, pool, dense), x, None, GET, depths=[1, 2])
    for i, count in enumerate((2, 4)):
        each = nk.kernel(nk.Serial(*layers[:count], pool, dense), x, None, GET)
        assert max(relative_error(found[k][i], each[k]) for k in (0, 1)) < 1e-14


def test_tables_behind_a_recurrent_layer_hold_its_variances():
    """States of variance far above the data's."""
    x = np.array(sequences((12,) * 3))
    states = nk.Recurrent(nk.Relu(), 1.8, 1.0, 0.5)
    slow = nk.Elementwise(lambda z: np.sin(z / 9), lambda z: np.cos(z / 9) / 9)
    table, exact_one = (
        nk.kernel(nk.Serial(states, phi, nk.GlobalAvgPool()), x, None, GET)
        for phi in (slow, nk.Sin(1, 1 / 9))
    )
    assert max(relative_error(table[k], exact_one[k]) for k in (0, 1)) < 1e-8


def test_magnitudes():
    x = np.array(sequences((5,) * 4)).astype(np.float32)
    net = nk.rnn(1, "last", 1.3, 0.8)
    k = nk.kernel(net, x)
    assert relative_error(nk.kernel(net, x * np.float32(2.0**-60)) * 2.0**120, k) < 1e-6
    erf = nk.rnn(1, "last", activation=nk.Erf())
    assert relative_error(nk.kernel(erf, 1e3 * x), k) > 0.1  # which is not homogeneous


@pytest.mark.parametrize("name", ["last", "gap"])
def test_threads_and_tiles(name):
    net, x = nk.rnn(2, name), np.array(sequences((6,) * 17)).astype(np.float32)
    k = nk.kernel(net, x, threads=1)
    assert (k == k.T).all()
    assert (np.diag(k) == nk.kernel_diag(net, x)).all()
    for threads, tile in ((2, None), (3, 16), (1, 32)):
        assert (nk.kernel(net, x, threads=threads, tile=tile) == k).all()


# --- data


def test_sequences_that_end_together():
    packed = nk.pack_sequences([np.ones((1, 1)), 2 * np.ones((2, 1))], length=3, align="right")
    assert (packed[..., 0] == [[0, 0, 1], [0, 2, 2]]).all()
    assert (packed[..., 1] == [[0, 0, 1], [0, 1, 1]]).all()
    x, mask = np.arange(1.0, 9).reshape(2, 4, 1), np.zeros((2, 4), bool)
    mask[0, 2:], mask[1, 0] = True, True
    moved = nk.pack_sequences(x, mask, align="right")
    assert (moved[..., 0] == [[0, 0, 1, 2], [0, 6, 7, 8]]).all()
    assert (moved[..., 1] == [[0, 0, 1, 1], [0, 1, 1, 1]]).all()
    with pytest.raises(ValueError, match="align must be"):
        nk.pack_sequences(x, align="end")
    with pytest.raises(ValueError, match="2 axes of positions"):
        nk.pack_sequences(x[:, :, None], align="right")


MASKED = nk.Serial(nk.MaskedInput(), nk.rnn())


@pytest.mark.parametrize("backend", [b for b in nk.backends() if b != "cuda"])
def test_a_mask_behind_the_beginning_is_refused(backend):
    x = np.ones((20, 5, 2))
    x[17, 4, 1] = 0  # the last position
    holes = x.copy()
    holes[17, 4, 1], holes[3, 2, 1] = 1, 0
    reverse = nk.Serial(nk.MaskedInput(), nk.Index((slice(None, None, -1),)), nk.rnn())
    for net, data in ((MASKED, x), (MASKED, holes), (reverse, x[:, ::-1])):
        for call in (nk.kernel, nk.kernel_diag):
            with pytest.raises(ValueError, match=r"Recurrent: .*masked.*align='right'"):
                call(net, data, backend=backend)
    assert nk.kernel(reverse, x, backend=backend).shape == (20, 20)
    with pytest.raises(ValueError, match="Recurrent"):
        nk.kernel(MASKED, x[:3], x[15:], backend=backend)


VECTORS, IMAGES, SEQUENCES = np.ones((3, 4)), np.ones((2, 3, 4, 2)), np.ones((2, 5, 3))
R, D = nk.Recurrent(), nk.Dense()


@pytest.mark.parametrize(
    ("layers", "x", "words"),
    [
        ([R, D], VECTORS, r"layer 0, Recurrent\(\): .*a vector of shape \(4,\)"),
        ([R, nk.Flatten()], IMAGES, r"layer 0, Recurrent.*images, with 2 axes"),
        ([nk.Dense(), nk.Flatten(), R, D], SEQUENCES, "layer 2, Recurrent.*a vector"),
        ([R, nk.Relu()], SEQUENCES, r"ends with an image of shape \(5, 3\)"),
        ([nk.Recurrent(nk.Sign()), nk.Flatten()], SEQUENCES, r"layer 0, Sign\(\): .*infinite"),
        ([R, nk.Relu(), nk.Erf(), nk.Flatten()], SEQUENCES, r"layer 2, Erf\(\): .*Gaussian"),
    ],
)
def test_networks_that_do_not_fit_are_refused(layers, x, words):
    with pytest.raises(ValueError, match=words):
        nk.kernel(nk.Serial(*layers), x)


def test_jumps_have_an_nngp():
    net = nk.Serial(nk.Recurrent(nk.Sign()), nk.Erf(), nk.GlobalAvgPool())
    assert np.isfinite(nk.kernel(net, SEQUENCES, get="nngp")).all()


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: nk.Recurrent(nk.Elementwise("tanh")), ValueError, "Elementwise.*Erf"),
        (lambda: nk.Recurrent(nk.Elementwise("relu6")), ValueError, "Elementwise.*Erf"),
        (lambda: nk.Recurrent(nk.Polynomial((1, 2))), ValueError, "Polynomial"),
        (lambda: nk.Recurrent(nk.Dense()), TypeError, r"activation.*not Dense\(\)"),
        (lambda: nk.Recurrent("relu"), TypeError, "activation"),
        (lambda: nk.Recurrent(W_std=-1), ValueError, "Recurrent: W_std"),
        (lambda: nk.Recurrent(U_std=math.nan), ValueError, "Recurrent: U_std"),
        (lambda: nk.Recurrent(b_std="1"), TypeError, "Recurrent: b_std"),
        (lambda: nk.Recurrent(width=1.5), ValueError, "Recurrent: width"),
        (lambda: nk.Recurrent(return_sequences=1), TypeError, "return_sequences"),
        (lambda: nk.rnn(0), ValueError, "rnn: depth"),
        (lambda: nk.rnn(1, "mean"), ValueError, "rnn: head"),
    ],
)
def test_bad_specs(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_json():
    net = nk.rnn(2, "gap", activation=nk.Erf(1.1))
    assert nk.from_json(net.to_json()) == net
    text = json.dumps({"layer": "Recurrent", "activation": {"layer": "Dense"}})
    with pytest.raises(ValueError, match="activation"):
        nk.from_json(text)


@pytest.mark.parametrize(
    ("dual", "params", "words"),
    [
        ("", (0, 1, 0, 1), "dual activation ''"),
        ("tanh", (0, 1, 0, 1), "dual activation 'tanh'"),
        ("even", (0, 1, 0, 1), "constants of its own"),
        ("abrelu", (0, 1, 0, -1), "weight"),
        ("abrelu", (0, 1, 0, math.inf), "weight"),
    ],
)
def test_programs_that_do_not_fit_are_refused(dual, params, words):
    ops = [("recur", dual, 0, 0, params, 4, 0, -1, "")]
    head = [("emit", "", 0, 0, (1.0, 0.0, 0.0, 0.0))]
    shape = (4, 2, False, False, False, False)
    with pytest.raises(ValueError, match=words):
        _core.FullProgram(ops, 1, [], [], [], [], head, 1, 1, shape)


# --- finite networks

WIDE = {
    "last": nk.rnn(1, "last", 1.3, 0.9, 0.4),
    "gap": nk.rnn(1, "gap", 1.3, 0.9, 0.4),
    "two layers": nk.rnn(2, "last", 1.3, 0.9, 0.4, nk.Erf()),
    "from a mean": nk.rnn(1, "gap", 1.0, 0.9, 0.2, nk.Cos()),
    "in a branch": nk.Serial(
        nk.Conv((2,), (1,), "SAME", 1.2, 0.1),
        nk.Residual(nk.Relu(), nk.Recurrent(nk.Relu(), 1.2, 0.9, 0.1)),
        *(nk.Relu(), nk.GlobalAvgPool(), nk.Dense(1.2, 0.1)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_finite_networks(name):
    """Means over 120 draws within 3 of their standard errors: few draws of an NTK are skewed."""
    torch = pytest.importorskip("torch")
    from ntkcore.finite import to_torch

    net, x, draws = WIDE[name], np.array(sequences((5, 5))), 120
    found = np.empty((2, draws, 2, 2))
    for n in range(draws):
        module = to_torch(net, 256, input_shape=x.shape[1:], seed=1000 + n, dtype="float64")
        read, caught = module.body[-1], []
        read.register_forward_pre_hook(lambda _, given, caught=caught: caught.append(given[0]))
        outputs, parameters = module(torch.tensor(x))[:, 0], list(module.parameters())
        one, two = (
            torch.cat([g.flatten() for g in torch.autograd.grad(f, parameters, retain_graph=True)])
            for f in outputs
        )
        jacobian = torch.stack([one, two])
        features = caught[0].detach()
        nngp = read.nngp[0] * (features @ features.T) + read.nngp[1]
        found[:, n] = nngp.numpy(), (jacobian @ jacobian.T).numpy()
    for kernel, each in zip(nk.kernel(net, x, None, GET), found, strict=True):
        error = each.std(0, ddof=1) / draws**0.5
        scale = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert (error < 0.03 * scale).all()
        assert (np.abs(each.mean(0) - kernel) < 3 * error).all()


def test_the_finite_network_by_hand():
    torch = pytest.importorskip("torch")
    from ntkcore.finite import to_torch

    net = nk.Serial(
        nk.Recurrent(nk.Erf(), 1.3, 0.9, 0.4), nk.GlobalAvgPool(), nk.Dense(1.1, width=2)
    )
    module = to_torch(net, 7, input_shape=(5, 3), dtype="float64", seed=3)
    layer, dense = module.body[0], module.body[2]
    U, W, b, v = (
        p.detach().numpy()
        for p in (layer.inputs.weight, layer.states.weight, layer.inputs.bias, dense.weight)
    )
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    for sample, found in zip(x, module(torch.tensor(x)).detach().numpy(), strict=True):
        h, total = np.zeros(7), np.zeros(7)
        for features in sample:
            phi = np.array([math.erf(z) for z in h])
            h = 1.3 / 7**0.5 * W @ phi + 0.9 / 3**0.5 * U @ features + 0.4 * b
            total += h / 5
        assert np.abs(1.1 / 7**0.5 * v @ total - found).max() < 1e-14


@pytest.mark.parametrize("last", [True, False])
def test_a_finite_network_does_not_see_padding(last):
    """phi(0) = 1: without the mask the state would move before the sequence begins."""
    torch = pytest.importorskip("torch")
    from ntkcore.finite import to_torch

    readout = nk.Identity() if last else nk.GlobalAvgPool()
    layers = (nk.Recurrent(nk.Cos(), b_std=0.4, return_sequences=not last), readout, nk.Dense())
    sequence = np.random.default_rng(0).standard_normal((3, 2))
    packed = nk.pack_sequences([sequence], length=7, align="right")
    masked, plain = (
        to_torch(nk.Serial(*first, *layers), 7, input_shape=shape, dtype="float64")
        for first, shape in (((nk.MaskedInput(),), packed.shape[1:]), ((), (3, 2)))
    )
    found = masked(torch.tensor(packed)), plain(torch.tensor(sequence[None]))
    assert float((found[0] - found[1]).detach().abs().max()) < 1e-13
