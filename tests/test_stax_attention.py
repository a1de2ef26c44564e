"""Attention by neural-tangents' spelling, against its numbers."""

import json
import sys

import numpy as np
import pytest

from conftest import ROOT, relative_error
from ntkcore import stax

sys.path.insert(0, str(ROOT / "benchmarks"))
import nt_attention

EXPECTED = json.loads((ROOT / "tests" / "data" / "nt_attention.json").read_text())
OPTIONS = list(EXPECTED)


def test_all_options_are_there():
    assert [json.dumps(chosen) for chosen in nt_attention.options()] == OPTIONS


@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_numbers_of_neural_tangents(number):
    """Through the engine where networks end with a vector, else over all pairs of positions."""
    chosen = json.loads(OPTIONS[number])
    nets = nt_attention.networks(stax, chosen)
    for case, expected in EXPECTED[OPTIONS[number]].items():
        name, which = case.split(", ")
        x1, x2, keywords = nt_attention.data()[which]
        found = nets[name][2](x1, x2, ("nngp", "ntk"), **keywords)
        for ours, theirs in zip(found, expected, strict=True):
            assert relative_error(ours.ravel(), np.array(theirs)) < 1e-12


@pytest.mark.parametrize("member", [stax.AttentionMechanism.RELU, "RELU", "relu"])
def test_members_and_names(member):
    embedding = stax.PositionalEmbedding.SUM
    layer = stax.GlobalSelfAttention(
        4, 4, 4, 2, attention_mechanism=member, pos_emb_type=embedding
    )[2].net
    assert (layer.attention_mechanism, layer.pos_emb_type) == ("relu", "sum")


def test_random_softmax_is_refused():
    with pytest.raises(ValueError, match="no kernel is known"):
        stax.GlobalSelfAttention(4, 4, 4, 2, linear_scaling=False)


def test_engine_and_pixels_agree_where_all_is_masked():
    """A sample that is masked as a whole takes the slow way, and is 0."""
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    x[1] = nt_attention.MASK
    net = stax.serial(stax.GlobalSelfAttention(4, 4, 4, 2, b_std=1.0), stax.GlobalAvgPool())
    k = net[2](x, None, "ntk", mask_constant=nt_attention.MASK)
    alone = net[2](x[:1], None, "ntk")
    assert relative_error(k[:1, :1], alone) < 1e-12
    assert (k[1] == 0).all()
    assert (k[:, 1] == 0).all()


def plain_attention(params, x, stds, random):
    """One sample after another, one head after another, embeddings added."""
    queries, keys, values, out, bias, added = (np.asarray(p, float) for p in params)
    heads, inner, size = keys.shape
    y = np.zeros((*x.shape[:2], out.shape[1]))
    for n, sample in enumerate(x):
        seen = sample + stds["W_pos_emb_std"] * added[0]
        parts = np.zeros((len(sample), values.shape[2], heads))
        for h in range(heads):
            k = seen @ keys[h]
            q = seen @ queries[h] if random else k
            logits = stds["W_query_std"] * stds["W_key_std"] * q @ k.T / inner
            logits /= size**0.5 if random else size
            weights = np.abs(logits)
            parts[:, :, h] = weights @ (sample @ values[h])
        scale = stds["W_out_std"] * stds["W_value_std"]
        flat = parts.reshape(len(sample), -1)
        y[n] = scale * flat @ out / (flat.shape[1] * inner) ** 0.5 + stds["b_std"] * bias[0]
    return y


def test_the_finite_layer():
    """Its parameters' shapes and its outputs; neural-tangents' agreed to 3e-14 when asked."""
    torch = pytest.importorskip("torch")
    stds = {
        **{"W_key_std": 1.2, "W_value_std": 0.9, "W_query_std": 0.8, "W_out_std": 1.1},
        **{"b_std": 0.3, "W_pos_emb_std": 1.3},
    }
    init_fn, apply_fn, _ = stax.GlobalSelfAttention(
        7, 3, 4, 2, attention_mechanism="ABS", pos_emb_type="SUM", **stds
    )
    shape, params = init_fn(0, (-1, 4, 5))
    assert shape == (-1, 4, 7)
    shapes = [None if p is None else tuple(p.shape) for p in params]
    assert shapes == [None, (2, 5, 3), (2, 5, 4), (8, 7), (1, 1, 7), (1, 4, 5)]
    x = np.random.default_rng(1).standard_normal((3, 4, 5))
    params = [None if p is None else p.double() for p in params]
    expected = plain_attention([params[1], *params[1:]], x, stds, random=False)
    assert relative_error(apply_fn(params, x), expected) < 1e-13
    assert isinstance(apply_fn(params, torch.as_tensor(x)), torch.Tensor)
    with pytest.raises(ValueError, match="params must be 6 arrays"):
        apply_fn(params[:3], x)
