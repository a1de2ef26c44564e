"""Networks with attention, masks and patterns, and data for them: a part of examples.py."""

import math

import numpy as np

import ntkcore as nk
from ntkcore.specs.lowering import flat

D, B, R = nk.Dense(), nk.Dense(1.2, 0.3), nk.Relu()
GAP, FLAT, NORM = nk.GlobalAvgPool(), nk.Flatten(), nk.LayerNorm(0.1)
MASKED, GRAPH, SUMS = nk.MaskedInput(), nk.GraphInput(), nk.Aggregate()
STDS = {"W_key_std": 0.9, "W_query_std": 1.2, "W_value_std": 1.3, "W_out_std": 0.8, "b_std": 0.3}
SOFTMAX, RELU, ABS, IDENTITY = (
    nk.GlobalSelfAttention(attention_mechanism=mechanism, **STDS)
    for mechanism in ("softmax", "relu", "abs", "identity")
)
SUMMED = nk.GlobalSelfAttention(
    **STDS, pos_emb_type="sum", pos_emb_decay="inverse", W_pos_emb_std=0.7, val_pos_emb=True
)
BESIDE = nk.GlobalSelfAttention(**STDS, pos_emb_type="concat", pos_emb_decay="exponential")
CHANNELS = nk.GlobalSelfAttention(
    **STDS, pos_emb_type="concat", pos_emb_channels=3, pos_emb_p_norm=1.5, pos_emb_decay="inverse"
)
RANDOM, RANDOM_SUMMED, RANDOM_BESIDE = (
    nk.GlobalSelfAttention(linear_scaling=False, attention_mechanism="identity", **STDS, **more)
    for more in (
        {},
        {"pos_emb_type": "sum", "W_pos_emb_std": 0.7},
        {"pos_emb_type": "concat", "val_pos_emb": True, "pos_emb_decay": "inverse"},
    )
)
CONV1, CONV2 = (nk.Conv(size, (1,) * len(size), "SAME", 1.3, 0.2) for size in ((3,), (3, 2)))
STRIDED = nk.Conv((3,), (2,), "SAME", 1.2, 0.3)


def block(attention):
    """Of a transformer."""
    return nk.Residual(NORM, attention), nk.Residual(NORM, B, R, B)


# By name: the network and the shape of a sample.
OWN_NETS = {
    "attention, gap": (nk.Serial(SOFTMAX, GAP, D), (5, 2)),
    "attention, flatten": (nk.Serial(B, RELU, FLAT, D), (5, 2)),
    "attention, a nonlinearity behind": (nk.Serial(B, ABS, R, B, IDENTITY, R, GAP, B), (4, 2)),
    "attention behind convolutions": (nk.Serial(CONV1, R, CONV1, SOFTMAX, R, GAP, D), (5, 2)),
    "attention, two blocks": (
        nk.Serial(B, *block(SOFTMAX), *block(SUMMED), GAP, D),
        (4, 2),
    ),
    "attention, positions beside": (nk.Serial(B, BESIDE, R, FLAT, D), (4, 2)),
    "attention, channels of positions": (
        nk.Serial(nk.Dense(1.2, 0.3, width=4), CHANNELS, GAP),
        (4, 2),
    ),
    "attention, twice before a mean": (nk.Serial(SUMMED, BESIDE, GAP), (4, 2)),
    "attention in two branches": (
        nk.Serial(B, nk.FanOut(2), nk.Parallel(SOFTMAX, nk.Serial(R, BESIDE)), nk.FanInSum(), GAP),
        (4, 2),
    ),
    "attention of images": (nk.Serial(CONV2, R, BESIDE, R, B, GAP), (2, 3, 2)),
    "random attention": (nk.Serial(B, RANDOM, R, RANDOM_SUMMED, GAP, B), (4, 2)),
    "random attention, residual": (
        nk.Serial(nk.Dense(0.7, 0.2), nk.Residual(RANDOM_BESIDE), R, FLAT, D),
        (4, 2),
    ),
    "masked": (nk.Serial(MASKED, B, nk.Cos(), FLAT, D), (6, 3)),
    "masked, flattened before a nonlinearity": (nk.Serial(MASKED, B, FLAT, nk.Cos(), D), (6, 3)),
    "masked attention": (nk.Serial(MASKED, SOFTMAX, GAP, B), (6, 3)),
    "masked attention, every mechanism": (
        nk.Serial(MASKED, B, RELU, nk.Cos(), SUMMED, nk.Erf(), ABS, B, GAP),
        (5, 3),
    ),
    "masked attention, two blocks": (
        nk.Serial(MASKED, B, *block(BESIDE), *block(SOFTMAX), GAP, D),
        (5, 3),
    ),
    "masked random attention": (nk.Serial(MASKED, B, RANDOM_SUMMED, R, RANDOM, FLAT, B), (5, 3)),
    "masked convolutions": (
        nk.Serial(MASKED, CONV1, nk.Cos(), STRIDED, R, nk.Conv((2,), b_std=0.3), R, GAP),
        (8, 3),
    ),
    "masked pools": (
        nk.Serial(
            *(MASKED, B, nk.Cos(), nk.AvgPool((3,), (2,), "SAME", True), B, R),
            *(nk.SumPool((2,)), CONV1, nk.Cos(), nk.LocalAvgPool(3), D),
        ),
        (8, 3),
    ),
    "masked images": (
        nk.Serial(MASKED, CONV2, R, nk.AvgPool((2, 2), padding="SAME"), CONV2, SUMMED, R, B, GAP),
        (3, 3, 3),
    ),
    "graphs": (
        nk.Serial(GRAPH, SUMS, B, R, D, SUMS, nk.Cos(), nk.Dense(2**0.5), nk.GlobalSumPool()),
        (5, 8),
    ),
    "graphs, a mean at once": (nk.Serial(GRAPH, B, SUMS, GAP), (5, 8)),
    "graphs, branches": (
        nk.Serial(
            *(GRAPH, B, nk.Residual(R, SUMS, B, R, SUMS, B), SUMS, BESIDE),
            *(nk.FanOut(2), nk.Parallel(nk.Identity(), nk.Serial(SUMS, B)), nk.FanInConcat(), FLAT),
        ),
        (5, 8),
    ),
}


def data_of(net, n, shape, seed=0, dtype=np.float64):
    """Samples of that shape: what the network's first layer takes beside features is drawn too."""
    rng = np.random.default_rng(seed)
    first = flat(net)[0]
    if isinstance(first, nk.GraphInput):
        nodes, features = shape[0], shape[1] - 1 - shape[0]
        sizes = rng.integers(2, nodes + 1, n)
        graphs = [(rng.standard_normal((m, features)), rng.standard_normal((m, m))) for m in sizes]
        return nk.pack_graphs(graphs, weights="given", nodes=nodes).astype(dtype)
    if not isinstance(first, nk.MaskedInput):
        return rng.standard_normal((n, *shape)).astype(dtype)
    axes, positions = shape[:-1], math.prod(shape[:-1])
    x = rng.standard_normal((n, *axes, shape[-1] - 1)).astype(dtype)
    lengths = rng.integers(positions // 2, positions + 1, n)
    mask = np.arange(positions) >= lengths[:, None]
    mask[1::2, 1] = True  # a hole
    return nk.pack_sequences(x, mask.reshape(n, *axes))
