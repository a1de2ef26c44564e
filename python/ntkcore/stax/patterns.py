"""Patterns of data, which sums over neighbours take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array, real_array
from ntkcore.specs import branches, layers
from ntkcore.stax.axes import Axes, axes_of
from ntkcore.stax.masks import Mask, with_mask
from ntkcore.stax.parts import Branches, Part, Placed, Series

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summed(Placed):
    """A sum over neighbours; the identity without a pattern."""

    aggregate_axis: tuple[int, ...] | None = None
    to_dense: Callable[[Any], Any] | None = None
    implementation: str = "DENSE"

    def matrices(self, pattern: Any, n: int, shape: Sequence[int], name: str) -> Array:
        """What every sample's positions are multiplied with, (n, P, P), from a pattern of data with
        this shape (as the layer takes them); ValueError where it does not fit.
        """
        axes = axes_of(self.takes, len(shape), self.name)
        places = [a for a in range(len(shape)) if a not in (axes.batch, axes.channel)]
        taken = places
        if self.aggregate_axis is not None:
            taken = [a % len(shape) for a in self.aggregate_axis]
        if not set(taken) <= set(places) or len(set(taken)) < len(taken):
            raise ValueError(
                f"stax.Aggregate: aggregate_axis={self.aggregate_axis} must be axes of positions,"
                f" {tuple(places)} of these data, each once"
            )
        sizes = [shape[a] for a in taken]
        if self.implementation == "DENSE":
            found = self._dense(pattern, n, sizes, name)
        else:
            found = _of_edges(pattern, n, sizes, name)
        others = [a for a in places if a not in taken]
        rest = [shape[a] for a in others]
        # Positions that are not summed over stay apart.
        whole = np.einsum("nij,bd->njbid", found, np.eye(math.prod(rest)))
        order = [(*taken, *others).index(a) for a in places]
        k = len(order)
        whole = whole.reshape(n, *(*sizes, *rest) * 2)
        whole = whole.transpose(0, *(1 + i for i in order), *(1 + k + i for i in order))
        return np.ascontiguousarray(whole.reshape(n, *(math.prod((*sizes, *rest)),) * 2))

    def _dense(self, pattern: Any, n: int, sizes: Sequence[int], name: str) -> Array:
        given = pattern if self.to_dense is None else self.to_dense(pattern)
        array = real_array(given, name)
        if array.shape != (n, *sizes, *sizes):
            raise ValueError(
                f"stax.Aggregate: {name} must have shape {(n, *sizes, *sizes)}, samples and twice"
                f" the positions that are summed over, not {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"stax.Aggregate: {name} holds NaN or infinity")
        return array.reshape(n, *(math.prod(sizes),) * 2)


def _of_edges(pattern: Any, n: int, sizes: Sequence[int], name: str) -> Array:
    """Entry (tail, head) is how often this edge is named."""
    edges = as_array(pattern, name)
    if edges.ndim == 3 and len(sizes) == 1:
        edges = edges[:, :, None]
    if edges.dtype.kind not in "iu" or edges.ndim != 4 or edges.shape[::2] != (n, len(sizes)):
        raise ValueError(
            f"stax.Aggregate: {name} must hold whole numbers of shape ({n}, edges, {len(sizes)}, 2)"
            f" where implementation='SPARSE', not {edges.dtype} of shape {edges.shape}"
        )
    if edges.shape[3] != 2:
        raise ValueError(
            f"stax.Aggregate: the last axis of {name} must be of two, tail and head, not"
            f" {edges.shape[3]}"
        )
    kept = ~(edges[..., 1] < 0).any(axis=-1)
    sample, _ = np.nonzero(kept)
    ends = edges[kept]  # (kept, axes, 2)
    if ((ends < 0) | (ends >= np.array(sizes)[:, None])).any():
        raise ValueError(
            f"stax.Aggregate: {name} names positions beyond {tuple(sizes)}; an edge that is none"
            " has a head below 0"
        )
    found = np.zeros((n, math.prod(sizes), math.prod(sizes)))
    tail, head = (np.ravel_multi_index(tuple(ends[..., i].T), tuple(sizes)) for i in (0, 1))
    np.add.at(found, (sample, tail, head), 1)
    return found


def sums_of(part: Part) -> Iterator[Summed]:
    """All sums over neighbours of a network."""
    if isinstance(part, Summed):
        yield part
    elif isinstance(part, (Series, Branches)):
        for layer in part.layers:
            yield from sums_of(layer[2].part)


def with_pattern(x: Any, mask: Mask | None, matrices: Array) -> Any:
    """Data (samples first, channels last) with what `GraphInput` reads beside them."""
    hidden = np.zeros(x.shape[:-1], bool) if mask is None else mask
    rows = matrices.reshape(*x.shape[:-1], -1)
    return np.concatenate([with_mask(x, hidden), rows], -1, dtype=x.dtype)


def without_sums(part: Part) -> Part:
    """The network whose sums over neighbours are the identity."""
    if isinstance(part, Summed):
        return Placed(layers.Identity(), part.batch_axis, part.channel_axis)
    if not isinstance(part, (Series, Branches)) or not any(sums_of(part)):
        return part
    inner = tuple(
        (*layer[:2], replace(layer[2], part=without_sums(layer[2].part))) for layer in part.layers
    )
    kind = layers.Serial if isinstance(part, Series) else branches.Parallel
    return replace(part, net=kind(*(layer[2].net for layer in inner)), layers=inner)


def both_patterns(pattern: Any, one: bool) -> tuple[Any, Any] | None:
    """Of both data sets; None without any. ValueError for anything but a pair."""
    if pattern is None:
        return None
    if not isinstance(pattern, (tuple, list)) or len(pattern) != 2:
        raise ValueError(
            "kernel_fn: pattern must be a pair (pattern1, pattern2), those of x1 and x2, not"
            f" {type(pattern).__name__}; of x1 alone (pattern1, pattern1)"
        )
    first, second = pattern
    if first is None and second is None:
        return None
    if first is None or (second is None and not one):
        raise NotImplementedError("kernel_fn: one of both patterns is None: give both, or none")
    return first, second


def matrices_of(part: Part, pattern: Any, axes: Axes, shape: Sequence[int], name: str) -> Array:
    """What all sums over neighbours multiply with; ``shape``: samples first and channels last."""
    outside = axes.outside(tuple(shape))
    found: Array | None = None
    for summed in sums_of(part):
        matrices = summed.matrices(pattern, shape[0], outside, name)
        if found is not None and not np.array_equal(found, matrices):
            raise NotImplementedError(
                "stax.Aggregate: layers that read the pattern otherwise than each other are not"
                " supported: give all of them the same aggregate_axis, implementation and to_dense"
            )
        found = matrices
    assert found is not None
    return found


def refuse_graphs(names: Sequence[str], is_image: bool, masks: Sequence[Mask | None]) -> None:
    """NotImplementedError for what is not known of data with patterns."""
    if is_image:
        raise NotImplementedError(
            "kernel_fn: a pattern of a network that ends with positions is not supported: put"
            " GlobalAvgPool(), GlobalSumPool() or Flatten() behind"
        )
    given = [mask for mask in masks if mask is not None]
    if given and {"mask1", "mask2"} & set(names):
        raise NotImplementedError(
            "kernel_fn: masks behind a pattern are not followed: ask for 'nngp', 'ntk', 'cov1' or"
            " 'cov2'"
        )
    if any(mask.all(axis=1).any() for mask in given):
        raise ValueError("kernel_fn: a sample with a pattern is masked everywhere: drop it")
