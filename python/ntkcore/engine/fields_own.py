"""Attention, over all pairs of positions in NumPy: the part of fields.py that has matrices of every
sample's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
AnyField = TypeVar("AnyField", bound=Any)


def mixed(field: AnyField, mechanism: str, params: Sequence[float], grid: Array | None) -> AnyField:
    """K, T <- G K G'^T, G T G'^T with the attention of every sample."""
    first = _attention(field.own1, field.mask1, mechanism, params, grid)
    second = first
    if field.own2 is not None:
        second = _attention(field.own2, field.mask2, mechanism, params, grid)

    def both(matrix: Array | None) -> Array | None:
        if matrix is None:
            return None
        return np.asarray(first[:, None] @ matrix @ second[None].swapaxes(-1, -2))

    own2 = None if field.own2 is None else second @ field.own2 @ second.swapaxes(-1, -2)
    own1 = first @ field.own1 @ first.swapaxes(-1, -2)
    return replace(field, nngp=both(field.nngp), ntk=both(field.ntk), own1=own1, own2=own2)


def related(field: AnyField, other: AnyField) -> AnyField:
    """K, T <- s K, s' K + s (T + 4 K), s = sum K K2, s' = sum K2 T + K T2."""

    def dot(a: Array, b: Array) -> Array:
        return np.asarray((a * b).sum((-2, -1), keepdims=True))

    s, ntk = dot(field.nngp, other.nngp), None
    if field.ntk is not None:
        slope = dot(field.ntk, other.nngp) + dot(field.nngp, other.ntk)
        ntk = slope * field.nngp + s * (field.ntk + 4 * field.nngp)
    own1 = dot(field.own1, other.own1) * field.own1
    own2 = None if field.own2 is None else dot(field.own2, other.own2) * field.own2
    return replace(field, nngp=s * field.nngp, ntk=ntk, own1=own1, own2=own2)


def _attention(
    own: Array, mask: Any, mechanism: str, params: Sequence[float], grid: Array | None
) -> Array:
    """G of every sample, (n, P, P): 0 where it would read what is masked."""
    logits = params[2] * own
    if grid is not None:
        logits = logits + params[3] * grid
    seen = (
        np.ones_like(logits, bool) if mask is None else np.broadcast_to(~mask[:, None], own.shape)
    )
    if mechanism == "softmax":
        top = np.where(seen, logits, -np.inf).max(-1, keepdims=True)
        weights = np.where(seen, np.exp(logits - np.where(np.isfinite(top), top, 0)), 0)
        total = weights.sum(-1, keepdims=True)
        return np.asarray(weights / np.where(total > 0, total, 1))
    applied = {"relu": np.maximum(logits, 0), "abs": np.abs(logits), "identity": logits}
    return np.where(seen, applied[mechanism], 0)
