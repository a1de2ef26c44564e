"""Self-attention of finite networks, and its embeddings of positions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ntkcore.finite.modules import Affine, Dense
from ntkcore.finite.parameterizations import ABC
from ntkcore.specs.attention import GlobalSelfAttention
from ntkcore.specs.program import Matrix


def weights_of(mechanism: str, logits: Tensor) -> Tensor:
    """What a mechanism makes of logits (…, positions)."""
    if mechanism == "softmax":
        return torch.softmax(logits, -1)
    by_name = {"relu": torch.relu, "abs": torch.abs}
    return by_name[mechanism](logits) if mechanism in by_name else logits


def root_of(covariance: Matrix) -> Tensor:
    """L with L L' the covariance, float64."""
    values, vectors = np.linalg.eigh(covariance)
    return torch.as_tensor(vectors * np.sqrt(np.maximum(values, 0)))


class Positions(Affine):
    """Random embeddings of positions, with covariance std^2 R between positions: an input layer,
    whose inputs are the rows of a root of R.
    """

    def __init__(self, channels: int, covariance: Matrix, std: float, abc: ABC) -> None:
        size = len(covariance)
        super().__init__((channels, size), 1, (std * math.sqrt(size), None), "input", False, abc)
        self.register_buffer("root", root_of(covariance), persistent=False)

    def forward(self) -> Tensor:
        """(channels, positions)."""
        return self.multiplier * self.weight @ self.root.T.to(self.weight)


class SelfAttention(torch.nn.Module):
    """Every position hears all others: heads of mechanism(Q K'/d) V, or mechanism(Q K'/d^1/2) V,
    side by side, and an output layer.

    Q and K are tied under the first scaling. ``size``: channels of keys and of values in every
    head.
    """

    sees = True  # what is in use

    def __init__(
        self,
        layer: GlobalSelfAttention,
        positions: Positions | None,
        channels: tuple[int, int],
        heads: tuple[int, int],
        role: str,
        abc: ABC,
    ) -> None:
        """``channels`` in and out; ``heads``: (number, size)."""
        super().__init__()
        self.mechanism, self.tied = layer.attention_mechanism, layer.linear_scaling
        self.beside = layer.pos_emb_type == "concat"
        self.of_values = layer.val_pos_emb
        (inner, out), (self.heads, self.size) = channels, heads
        self.positions = positions
        more = len(positions.weight) if self.beside and positions is not None else 0

        def dense(width: int, fan_in: int, std: float, bias: float | None, role: str) -> Dense:
            return Dense((width, fan_in), 1, (std, bias), role, False, abc)

        total, key = self.heads * self.size, layer.W_key_std
        if self.tied:  # only the product of both deviations counts
            key = math.sqrt(layer.W_key_std * layer.W_query_std)
        self.key = dense(total, inner + more, key, None, role)
        self.query = (
            None if self.tied else dense(total, inner + more, layer.W_query_std, None, role)
        )
        of_values = inner + (more if self.of_values else 0)
        self.value = dense(total, of_values, layer.W_value_std, None, role)
        self.out = dense(out, total, layer.W_out_std, layer.b_std, "hidden")

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(samples, channels, …), and (samples, 1, …), 1 where in use, to (samples, out, …)."""
        flat = x.flatten(2)
        mask = None if seen is None else seen[:, 0].flatten(1)
        embedded = self._embedded(flat, mask)
        keys = self._split(self.key(embedded))
        queries = keys if self.query is None else self._split(self.query(embedded))
        scale = self.size if self.tied else math.sqrt(self.size)
        weights = self._weights(torch.einsum("nhcp,nhcq->nhpq", queries, keys) / scale, mask)
        values = self._split(self.value(embedded if self.of_values else flat))
        heads = torch.einsum("nhpq,nhcq->nhcp", weights, values).flatten(1, 2)
        y: Tensor = self.out(heads)
        return y.reshape(*y.shape[:2], *x.shape[2:])

    def _embedded(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.positions is None:
            return x
        added = self.positions().expand(len(x), -1, -1)
        if mask is not None:
            added = added * mask[:, None]
        return torch.cat([x, added], 1) if self.beside else x + added

    def _split(self, x: Tensor) -> Tensor:
        """(samples, heads, size, positions)."""
        return x.unflatten(1, (self.heads, self.size))

    def _weights(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        if self.mechanism == "softmax":
            if mask is not None:
                hidden = (mask == 0)[:, None, None]
                logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
        elif mask is not None:
            logits = logits * mask[:, None, None]
        return weights_of(self.mechanism, logits)
