"""The finite layer of attention, with neural-tangents' parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

from ntkcore.specs.attention import GlobalSelfAttention
from ntkcore.stax.axes import axes_of
from ntkcore.stax.parts import Placed, Tree


@dataclass(frozen=True)
class Attended(Placed):
    """Attention of so many heads, with so many channels of keys and of values in each.

    ``params``: (queries, keys, values, W_out, b, embeddings) of shapes (heads, in, key),
    (heads, in, key), (heads, in, value), (value heads, out), one of a whole batch's rank, and that
    of one sample; None where there are none.
    """

    heads: int = 1
    keys: int = 1
    values: int = 1

    @property
    def spec(self) -> GlobalSelfAttention:
        """The layer."""
        return cast(GlobalSelfAttention, self.net)

    def init_fn(self, rng: Any, input_shape: Any) -> tuple[Any, Any]:
        """(output_shape, params), see `Part.init_fn`."""
        from ntkcore.stax import networks

        generator, layer, rank = networks.generator_of(rng), self.spec, len(input_shape)
        axes = axes_of(self.takes, rank, self.name)
        channels, out = int(input_shape[axes.channel]), cast(int, layer.width)
        added = 0
        if layer.pos_emb_type != "none":
            added = channels if layer.pos_emb_channels is None else layer.pos_emb_channels
        beside = added if layer.pos_emb_type == "concat" else 0
        of_keys = (self.heads, channels + beside, self.keys)
        of_values = (self.heads, channels + beside * layer.val_pos_emb, self.values)
        bias, embedding = [1] * rank, [int(n) for n in input_shape]
        bias[axes.channel], embedding[axes.channel], embedding[axes.batch] = out, added, 1
        shapes: list[Any] = [
            None if layer.linear_scaling else of_keys,
            *(of_keys, of_values, (self.values * self.heads, out)),
            None if layer.b_std is None else bias,
            embedding if added else None,
        ]
        params = tuple(networks.normal(shape, generator) for shape in shapes)
        shape = list(input_shape)
        shape[axes.channel] = out
        return tuple(shape), params

    def run(self, params: Any, x: Tree, rng: Any) -> Tree:
        """`apply_fn` of tensors."""
        from ntkcore.stax import networks

        queries, keys, values, out, bias, embedding = networks.params_of(self.name, params, 6)
        layer, axes = self.spec, axes_of(self.takes, x.ndim, self.name)

        def flat(signal: Any) -> Any:  # (samples, positions, channels)
            moved = signal.movedim((axes.batch, axes.channel), (0, -1))
            return moved.reshape(len(moved), -1, moved.shape[-1])

        x = x.to(keys)
        places = x.movedim((axes.batch, axes.channel), (0, -1)).shape[1:-1]
        plain = embedded = flat(x)
        if embedding is not None:
            added = self._embeddings(flat(embedding), places)
            if layer.pos_emb_type == "sum":
                embedded = plain + added
            else:
                embedded = networks.beside(plain, added)
        seen = embedded if layer.val_pos_emb else plain
        weights = self._weights(embedded, keys if queries is None else queries, keys)
        # (heads, n, positions, values) to (n, positions, values heads)
        heads = (weights @ networks.by_heads(seen, values)).movedim(0, -1).flatten(-2)
        scale = layer.W_out_std * layer.W_value_std
        y = scale * heads @ out / math.sqrt(self.values * self.heads * seen.shape[-1])
        y = y.reshape(len(y), *places, -1).movedim((0, -1), (axes.batch, axes.channel))
        return y if bias is None else y + layer.b_std * bias

    def _weights(self, x: Any, queries: Any, keys: Any) -> Any:
        from ntkcore.finite.attention import weights_of
        from ntkcore.stax import networks

        layer = self.spec
        q, k = networks.by_heads(x, queries), networks.by_heads(x, keys)
        scale = self.keys ** (1.0 if layer.linear_scaling else 0.5) * x.shape[-1]
        logits = layer.W_query_std * layer.W_key_std / scale * (q @ k.mT)
        return weights_of(layer.attention_mechanism, logits)

    def _embeddings(self, drawn: Any, places: Any) -> Any:
        """With the covariance of positions."""
        from ntkcore.finite.attention import root_of

        if self.spec.pos_emb_decay is not None:
            covariance = self.spec.position_covariance(tuple(places))
            drawn = root_of(covariance).to(drawn) @ drawn
        return self.spec.W_pos_emb_std * drawn
