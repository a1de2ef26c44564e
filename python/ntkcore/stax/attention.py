"""Attention, by neural-tangents' name and arguments."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from ntkcore.specs import attention
from ntkcore.stax.attending import Attended
from ntkcore.stax.combinators import Layer, triple
from ntkcore.stax.support import whole


class AttentionMechanism(enum.Enum):
    """What turns logits into weights; their names do as well."""

    SOFTMAX = "SOFTMAX"
    IDENTITY = "IDENTITY"
    ABS = "ABS"
    RELU = "RELU"


class PositionalEmbedding(enum.Enum):
    """How positions are embedded; their names do as well."""

    NONE = "NONE"
    SUM = "SUM"
    CONCAT = "CONCAT"


def GlobalSelfAttention(
    n_chan_out: int,
    n_chan_key: int,
    n_chan_val: int,
    n_heads: int,
    linear_scaling: bool = True,
    W_key_std: float = 1.0,
    W_value_std: float = 1.0,
    W_query_std: float = 1.0,
    W_out_std: float = 1.0,
    b_std: float | None = None,
    attention_mechanism: str | AttentionMechanism = "SOFTMAX",
    pos_emb_type: str | PositionalEmbedding = "NONE",
    pos_emb_p_norm: float = 2,
    pos_emb_decay_fn: Callable[[Any], Any] | None = None,
    n_chan_pos_emb: int | None = None,
    W_pos_emb_std: float = 1.0,
    val_pos_emb: bool = False,
    batch_axis: int = 0,
    channel_axis: int = -1,
) -> Layer:
    """Attention between all positions, see `ntkcore.GlobalSelfAttention`.

    ``n_chan_out``, ``n_chan_key``, ``n_chan_val``, ``n_heads``: of the finite layer, whose params
    are (queries, keys, values, W_out, b, embeddings), None where there are none. ValueError for
    ``linear_scaling=False`` with another mechanism than "IDENTITY", whose kernel is not known.
    """
    sizes = [
        whole("GlobalSelfAttention", name, count)
        for name, count in (
            ("n_heads", n_heads),
            ("n_chan_key", n_chan_key),
            ("n_chan_val", n_chan_val),
        )
    ]
    mechanism, embedding = (
        str(given.value if isinstance(given, enum.Enum) else given).lower()
        for given in (attention_mechanism, pos_emb_type)
    )
    embeds = embedding != "none"
    net = attention.GlobalSelfAttention(
        linear_scaling=linear_scaling,
        W_key_std=W_key_std,
        W_query_std=W_query_std,
        W_value_std=W_value_std,
        W_out_std=W_out_std,
        b_std=b_std,
        attention_mechanism=mechanism,
        pos_emb_type=embedding,
        pos_emb_decay=pos_emb_decay_fn if embeds else None,
        pos_emb_p_norm=pos_emb_p_norm,
        pos_emb_channels=n_chan_pos_emb if embeds else None,
        W_pos_emb_std=W_pos_emb_std,
        val_pos_emb=val_pos_emb and embeds,
        width=whole("GlobalSelfAttention", "n_chan_out", n_chan_out),
    )
    batch = whole("GlobalSelfAttention", "batch_axis", batch_axis)
    channel = whole("GlobalSelfAttention", "channel_axis", channel_axis)
    return triple(Attended(net, batch, channel, *sizes))
