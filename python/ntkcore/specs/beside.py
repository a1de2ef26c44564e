"""What samples hold beside their features, in channels that follow them: a mask of their positions,
and a matrix of positions such as a graph's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ntkcore.specs.layers import Layer, Signal, single
from ntkcore.specs.program import Builder, Value
from ntkcore.specs.windows import Shape


class _Input(Layer, abstract=True):
    """Comes before all other layers."""

    pattern: ClassVar[bool] = False
    packed_by: ClassVar[str]

    def channels(self, positions: Shape) -> int:
        """How many follow the features of samples with these axes of positions."""
        return 1 + (math.prod(positions) if self.pattern else 0)

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = single(self, builder, value)
        if value is not builder.input or value.mask >= 0:
            raise builder.error(self, "must come before all other layers: it is about the data")
        if not value.is_image:
            raise builder.error(
                self, "the data are vectors: samples must have shape (positions, channels)"
            )
        beside = self.channels(value.image)
        if value.shape[-1] <= beside:
            raise builder.error(
                self,
                f"the data have {value.shape[-1]} channels, of which the last {beside} are no"
                f" features: pack them by {self.packed_by}",
            )
        return builder.take_beside(self, value, self.pattern)


@dataclass(frozen=True, repr=False)
class MaskedInput(_Input):
    """First layer of a network of masked data, such as sequences of different lengths: the last
    channel says of each position whether it is in use (1) or masked (0). See `pack_sequences`.

    Masked positions count for nothing: attention does not see them, windows and pools read 0 there,
    and `GlobalAvgPool` takes the mean of those in use. A position behind a convolution or a pool is
    masked where the middle of its window is.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkcore as nk
    >>> net = nk.Serial(nk.MaskedInput(), nk.Dense(), nk.Relu(), nk.GlobalAvgPool(), nk.Dense())
    >>> short, long = np.ones((2, 3)), np.ones((4, 3))
    >>> nk.kernel(net, nk.pack_sequences([short, long]))
    array([[1., 1.],
           [1., 1.]])
    """

    packed_by = "pack_sequences"


@dataclass(frozen=True, repr=False)
class GraphInput(_Input):
    """First layer of a network of graphs: behind the features of every node follow whether it is in
    use (1) or padding (0), and its row of the matrix that `Aggregate` multiplies with. See
    `pack_graphs`.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkcore as nk
    >>> net = nk.Serial(nk.GraphInput(), nk.Aggregate(), nk.Dense(), nk.GlobalSumPool())
    >>> edge = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> nk.kernel(net, nk.pack_graphs([(np.eye(2), edge)]))
    array([[4.]])
    """

    pattern = True
    packed_by = "pack_graphs"


@dataclass(frozen=True, repr=False)
class Aggregate(Layer):
    """Sums over neighbours: every node's features become those of all nodes times its row of the
    sample's own matrix, K, T <- P K P'^T, P T P'^T (Du et al. 2019). Behind `GraphInput`.
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = builder.read(single(self, builder, value))
        if not value.is_image:
            raise builder.error(self, "sums over nodes, but its input is a vector")
        return builder.aggregate(self, value)
