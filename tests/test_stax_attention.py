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
