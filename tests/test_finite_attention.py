"""Finite networks with attention, masks and patterns: against NumPy written out, and against the
kernels by draws.
"""

import numpy as np
import pytest

import ntkcore as nk
from conftest import relative_error
from finite_nets import torch
from ntkcore.finite import empirical_ntk, parameter_groups, to_torch, train
from own_nets import ABS, BESIDE, OWN_NETS, RANDOM, RANDOM_BESIDE, SOFTMAX, STDS, SUMMED, data_of
from test_finite_kernels import one_by_one

D, B, R, GAP = nk.Dense(), nk.Dense(1.2, 0.3), nk.Relu(), nk.GlobalAvgPool()
MASKED = nk.MaskedInput()


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors are small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outputs(net, x, width=8, **options):
    module = to_torch(net, width, input_shape=x.shape[1:], dtype="float64", **options)
    return module, module(torch.tensor(x)).detach().numpy()


def by_hand(attention, layer, x, seen):
    """One sample's attention, head by head; x of shape (positions, channels)."""
    c = x.shape[1]
    inside = x
    if attention.positions is not None:
        added = attention.positions().detach().numpy().T * seen[:, None]
        beside = layer.pos_emb_type == "concat"
        inside = np.concatenate([x, added], 1) if beside else x + added
    values = inside if layer.val_pos_emb else x
    weight = {n: p.detach().numpy() for n, p in attention.named_parameters()}
    heads, size = attention.heads, attention.size
    found = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        keys = inside @ weight["key.weight"][part].T
        queries = keys if layer.linear_scaling else inside @ weight["query.weight"][part].T
        logits = queries @ keys.T * layer.W_key_std * layer.W_query_std / inside.shape[1]
        logits /= size if layer.linear_scaling else size**0.5
        if layer.attention_mechanism == "softmax":
            G = np.exp(logits) * seen
            G /= G.sum(1, keepdims=True)
        else:
            phi = {"relu": lambda z: np.maximum(z, 0), "abs": np.abs, "identity": lambda z: z}
            G = phi[layer.attention_mechanism](logits) * seen
        found.append(G @ values @ weight["value.weight"][part].T)
    scale = layer.W_value_std * layer.W_out_std / (heads * size * values.shape[1]) ** 0.5
    assert c in (values.shape[1], values.shape[1] - (inside.shape[1] - c))
    y = scale * np.concatenate(found, 1) @ weight["out.weight"].T
    return (y + layer.b_std * weight["out.bias"]) * seen[:, None]


RELU = nk.GlobalSelfAttention(**STDS, attention_mechanism="relu", pos_emb_type="sum")
LAYERS = [SOFTMAX, RELU, ABS, SUMMED, BESIDE, RANDOM, RANDOM_BESIDE]


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("layer", LAYERS, ids=range(len(LAYERS)))
def test_a_module_is_its_formula(layer, heads):
    net, x = nk.Serial(MASKED, layer, GAP, D), data_of(nk.Serial(MASKED), 3, (5, 4))
    module, _ = outputs(net, x, 6, heads=heads)
    beside = module.body[1]
    given = torch.tensor(x).movedim(-1, 1)
    found = beside(given).detach().numpy()[:, :-1]
    for sample, y in zip(x, found, strict=True):
        expected = by_hand(beside.module, layer, sample[:, :-1], sample[:, -1])
        assert relative_error(y.T, expected) < 1e-12
    default = 1 if layer.linear_scaling else 6
    assert (beside.module.heads, beside.module.size) == (heads or default, 6 // (heads or default))


@pytest.mark.parametrize("attention", [SOFTMAX, ABS, RANDOM], ids=range(3))
def test_a_masked_sequence_is_the_short_one(attention):
    rows = list(np.random.default_rng(0).standard_normal((2, 4, 2)))
    net = nk.Serial(MASKED, B, nk.Conv((3,), (1,), "SAME", b_std=0.2), nk.Cos(), attention, GAP, D)
    short, long = (nk.pack_sequences(rows, length=n) for n in (4, 7))
    strange = long.copy()
    strange[..., :-1] += 3.0 * (long[..., -1:] == 0)
    a, b, c = (outputs(net, x)[1] for x in (short, long, strange))
    assert relative_error(b, a) < 1e-12
    assert relative_error(c, a) < 1e-12


def test_pools_and_flattened_features_leave_masked_positions_out():
    x = data_of(nk.Serial(MASKED), 4, (8, 3))
    body = MASKED, nk.Conv((3,), (2,), "SAME", b_std=1.0), nk.Cos()
    module, _ = outputs(nk.Serial(*body, GAP, D), x)
    hidden = module.body[:3](torch.tensor(x).movedim(-1, 1)).detach()
    seen = hidden[:, -1]
    middle = x[:, 1::2, -1]  # windows start at positions 0, 2, 4, 6
    assert (seen.numpy() == middle).all()
    features = hidden[:, :-1]
    assert not features.movedim(1, -1)[seen == 0].any()
    mean = features.sum(2) / seen.sum(1, keepdim=True)
    assert relative_error(module.body[3](hidden), mean) < 1e-14
    flat = nk.Serial(*body[:2], nk.Flatten(), nk.Cos(), D)
    one, other = outputs(flat, x)[1], outputs(nk.Serial(*body, nk.Flatten(), D), x)[1]
    assert relative_error(one, other) < 1e-14


def test_a_graph_is_its_formula():
    net = nk.Serial(nk.GraphInput(), nk.Aggregate(), nk.Dense(1.1, 0.2), nk.GlobalSumPool(), D)
    x = data_of(net, 3, (5, 8))
    module, f = outputs(net, x)
    layer, last = module.body[2].module, module.body[-1]
    for sample, y in zip(x, f, strict=True):
        hidden = sample[:, 3:] @ sample[:, :2] @ layer.weight.detach().numpy().T * 1.1 / 2**0.5
        hidden = (hidden + 0.2 * layer.bias.detach().numpy()) * sample[:, 2:3]
        expected = hidden.sum(0) @ last.weight.detach().numpy().T / 8**0.5
        assert y == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["masked attention, two blocks", "random attention", "graphs"])
def test_empirical_kernels_are_those_of_gradients(name):
    net, shape = OWN_NETS[name]
    x = data_of(net, 3, shape)
    module, _ = outputs(nk.Serial(*net.layers, D), x, 5)
    expected = one_by_one(module, x, x)[..., 0, 0]
    assert relative_error(empirical_ntk(module, x), expected) < 1e-12


@pytest.mark.parametrize("layer", LAYERS, ids=range(len(LAYERS)))
def test_mup_starts_as_the_same_function_and_trains(layer):
    net, x = nk.Serial(MASKED, B, layer, GAP, D), data_of(nk.Serial(MASKED), 3, (4, 3))
    (_, ntk), (module, mup) = (outputs(net, x, 16, parameterization=p) for p in ("ntk", "mup"))
    assert relative_error(4 * mup, ntk) < 1e-12
    rates = {g["name"]: g["lr"] for g in parameter_groups(module, 1.0, "adam")}
    assert rates["body.2.module.out.weight"] == pytest.approx(1 / 16)
    if layer.pos_emb_type != "none":  # an input layer's: as many as their channels
        count = layer.pos_emb_channels or 16
        assert rates["body.2.module.positions.weight"] == pytest.approx(count**-0.5)
    before = [p.detach().clone() for p in module.parameters()]
    train(module, x, np.ones(3), lr=0.1, steps=2)
    assert all((a != b).any() for a, b in zip(before, module.parameters(), strict=True))


def test_heads_are_refused_where_there_are_none():
    for heads in (0, True, 1.5):
        with pytest.raises(ValueError, match="heads must be a positive number"):
            to_torch(nk.Serial(SOFTMAX, GAP, D), 8, input_shape=(4, 2), heads=heads)


# --- kernels by draws


def drawn(net, x, width, draws):
    """(draws, 2, n, n): covariances given the features, which are the read-out's share of tangent
    kernels, and tangent kernels.
    """
    module, samples = (
        to_torch(net, width, input_shape=x.shape[1:], dtype="float64"),
        torch.tensor(x),
    )
    assert module.body[-1].bias is None
    parameters, found = list(module.parameters()), []
    generator = torch.Generator().manual_seed(1)
    for _ in range(draws):
        for _, layer in module.affine():
            layer.draw(generator)
        f = module(samples)
        rows = [torch.autograd.grad(y, parameters, retain_graph=True) for y in f[:, 0]]
        last = torch.stack([row[-1].flatten() for row in rows])
        all_of_it = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        found.append([(part @ part.T).numpy() for part in (last, all_of_it)])
    return np.array(found)


def scatters(net, x, width, draws, *, errors=3.0, bias=4.0, largest=0.15):
    """Are means of draws within so many standard errors and bias/width of the kernels?"""
    found = drawn(net, x, width, draws)
    for k, exact in enumerate(nk.kernel(net, x, get=("nngp", "ntk"))):
        mean, error = found[:, k].mean(0), found[:, k].std(0, ddof=1) / draws**0.5
        scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert (error < largest * scale).all()
        assert (np.abs(mean - exact) < errors * error + bias / width * scale).all()


QUICK = {
    "softmax": nk.Serial(B, SOFTMAX, R, GAP, D),
    "positions": nk.Serial(B, SUMMED, nk.Erf(), GAP, D),
    "masked": nk.Serial(MASKED, B, BESIDE, GAP, D),
    "graphs": nk.Serial(nk.GraphInput(), B, R, nk.Aggregate(), B, R, GAP, D),
    "random": nk.Serial(nk.Dense(0.9, 0.2), RANDOM_BESIDE, nk.Flatten(), D),
}


@pytest.mark.parametrize("name", QUICK)
def test_kernels_are_the_limits(name):
    shape = {"graphs": (4, 7), "masked": (4, 3)}.get(name, (3, 2))
    x = data_of(QUICK[name], 2, shape)
    scatters(QUICK[name], x, 96, 24, largest=0.25)


# Products of weights that are no means have tails too heavy for a mean of draws.
HEAVY = {"attention, a nonlinearity behind", "random attention", "masked random attention"}
HEAVY |= {"attention, channels of positions"}  # as many as declared


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(OWN_NETS) - HEAVY))
def test_all_kernels_are_the_limits(name):
    net, shape = OWN_NETS[name]
    if name.startswith("attention, ") and isinstance(net.layers[0], nk.GlobalSelfAttention):
        net = nk.Serial(B, *net.layers)  # embeddings have as many channels as what they join
    net = nk.Serial(*net.layers, D) if net.layers[-1] != D else net
    scatters(net, data_of(net, 3, shape), 192, 24, largest=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deterministic", "random"])
def test_declared_channels_of_positions(kind):
    options = {"pos_emb_type": "concat", "pos_emb_channels": 64, "pos_emb_decay": "inverse"}
    random = {"linear_scaling": False, "attention_mechanism": "identity"}
    layer = nk.GlobalSelfAttention(**options, **(random if kind == "random" else {}))
    net = nk.Serial(nk.Dense(0.9, 0.2, width=128), layer, nk.Flatten(), D)
    x = data_of(net, 2, (3, 2))
    scatters(net, x, 128, 30, largest=0.3)
