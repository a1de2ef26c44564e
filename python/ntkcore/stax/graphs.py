"""Sums over neighbours, by neural-tangents' name and arguments."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from ntkcore.specs import beside, layers
from ntkcore.stax.combinators import Layer
from ntkcore.stax.kernel_fn import KernelFn
from ntkcore.stax.parts import Placed
from ntkcore.stax.patterns import Summed


class AggregateImplementation(enum.Enum):
    """How patterns are written; their names do as well."""

    DENSE = "DENSE"
    SPARSE = "SPARSE"


def Aggregate(
    aggregate_axis: int | Sequence[int] | None = None,
    batch_axis: int = 0,
    channel_axis: int = -1,
    to_dense: Callable[[Any], Any] | None = None,
    implementation: str = "DENSE",
) -> Layer:
    """Sums over neighbours, by the ``pattern=(pattern1, pattern2)`` of `kernel_fn`, see
    `ntkcore.Aggregate`.

    "DENSE": ``to_dense(pattern)`` has shape (samples, positions, positions), with as many axes of
    positions as are aggregated; entry (i, j) is the weight of i in the sum at j. "SPARSE": whole
    numbers of shape (samples, edges, axes, 2), tails and heads; heads below 0 are no edges. The
    finite layer takes no pattern, and is the identity.
    """
    way = str(getattr(implementation, "value", implementation))
    if way not in AggregateImplementation.__members__:
        raise ValueError(
            f"stax.Aggregate: implementation must be 'DENSE' or 'SPARSE', not {implementation!r}"
        )
    if to_dense is not None and not callable(to_dense):
        raise TypeError(f"stax.Aggregate: to_dense must be a function, not {to_dense!r}")
    axes = (aggregate_axis,) if isinstance(aggregate_axis, int) else aggregate_axis
    taken = None if axes is None else tuple(axes)
    net = beside.Aggregate()
    kernel_fn = KernelFn(Summed(net, batch_axis, channel_axis, taken, to_dense, way))
    finite = Placed(layers.Identity(), batch_axis, channel_axis)
    return Layer(finite.init_fn, finite.apply_fn, kernel_fn)
