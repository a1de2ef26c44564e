"""Layers that take axes away or move them: indexing, products with a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from ntkcore.specs import layers, positions
from ntkcore.stax.axes import Axes, axes_of
from ntkcore.stax.parts import Placed


class SliceMaker:
    """``Slice[:, ::2, 0]`` is the index of that spelling, for `Index`."""

    def __getitem__(self, index: Any) -> Any:
        return index


Slice = SliceMaker()


ALL = (None, None, None)  # of an axis


@dataclass(frozen=True)
class Indexed(Placed):
    """x[head, ..., tail] of a batch."""

    head: tuple[Any, ...] = ()
    tail: tuple[Any, ...] = ()
    samples: tuple[int | None, int | None, int | None] = ALL

    @classmethod
    def of(cls, idx: Any, batch_axis: int, channel_axis: int) -> Indexed:
        """From an index; NotImplementedError where it picks channels, or one sample."""
        items = [_item(item) for item in (idx if isinstance(idx, tuple) else (idx,))]
        while "..." not in items and items and items[-1] == ALL:
            items.pop()
        at = items.index("...") if "..." in items else len(items)
        head, tail = items[:at], items[at + 1 :]
        places = [_place(axis, len(head), len(tail)) for axis in (batch_axis, channel_axis)]
        whole = [*head, "...", *tail]
        samples, channels = (whole[place] for place in places)
        if not (samples == "..." or isinstance(samples, tuple)) or channels not in ("...", ALL):
            raise NotImplementedError(
                f"stax.Index: idx={idx!r} picks one sample (axis {batch_axis}) or some channels"
                f" (axis {channel_axis}): give a slice for samples and : for channels"
            )
        left = [item for at, item in enumerate(whole) if at not in places or item == "..."]
        net = layers.Identity() if left == ["..."] else positions.Index(tuple(left))
        samples = ALL if samples == "..." else samples
        return cls(net, batch_axis, channel_axis, tuple(head), tuple(tail), samples)

    def picked(self, samples: Any) -> Any:
        return samples if self.samples == ALL else samples[slice(*self.samples)]

    def output_shape(self, input_shape: Any, run: Callable[[], Any]) -> Any:
        out = list(super().output_shape(input_shape, run))
        batch = self.left(axes_of(self.takes, len(input_shape), self.name)).batch
        if out[batch] not in (-1, None):
            out[batch] = len(self.picked(range(out[batch])))
        return tuple(out)

    def inside(self, x: Any) -> Any:
        return self.picked(super().inside(x))

    def left(self, axes: Axes) -> Axes:
        between = [ALL] * (axes.ndim - len(self.head) - len(self.tail))
        whole = [*self.head, *between, *self.tail]
        picked = whole[axes.batch] if axes.batch < len(whole) else None
        fits = len(whole) == axes.ndim and picked == self.samples and isinstance(picked, tuple)
        if not fits or whole[axes.channel] != ALL:
            raise NotImplementedError(
                f"stax.Index: {self.head} and, from the last axis, {self.tail} of {axes.ndim} axes"
                f" must hold a slice for samples (axis {axes.batch}) and : for channels (axis"
                f" {axes.channel})"
            )
        return axes.without([axis for axis, item in enumerate(whole) if isinstance(item, int)])


def _item(item: Any) -> Any:
    """As `ntkcore.Index` takes it."""
    if isinstance(item, slice):
        return item.start, item.stop, item.step
    if getattr(item, "ndim", 0):
        return item.tolist()  # the spec says that it takes none
    if isinstance(item, Integral) and not isinstance(item, bool):
        return int(item)
    return "..." if item is Ellipsis else item


def _place(axis: int, head: int, tail: int) -> int:
    """Where the item of an axis stands in (head, ..., tail), which `Indexed.left` makes sure of."""
    if 0 <= axis < head:
        return axis
    return head + 1 + tail + axis if -tail <= axis < 0 else head


@dataclass(frozen=True)
class Dotted(Placed):
    """dot_general of a batch with a constant of ``rank`` axes; ``lhs``: is the constant left."""

    lhs: bool = False
    contracted: tuple[int, ...] = ()
    together: tuple[int, ...] = ()  # the batch axes of dot_general, of the samples
    rank: int = 0

    @classmethod
    def of(cls, lhs: Any, rhs: Any, numbers: Any, batch_axis: int, channel_axis: int) -> Dotted:
        """From neural-tangents' arguments; NotImplementedError for axes that it cannot take."""
        left = rhs is None
        try:
            mine = [tuple(pair[int(left)]) for pair in numbers]
        except (TypeError, IndexError):
            raise ValueError(
                f"stax.DotGeneral: dimension_numbers={numbers!r} must be ((contracted, contracted),"
                " (batch, batch)), the axes of the left and of the right"
            ) from None
        taken = [axis for axes in mine for axis in axes]
        if min(taken, default=0) < 0 or {batch_axis, channel_axis} & set(taken):
            raise NotImplementedError(
                f"stax.DotGeneral: dimension_numbers={numbers!r} must count axes of positions from"
                f" the batch's first, without samples (axis {batch_axis}) and channels (axis"
                f" {channel_axis})"
            )
        before = [axis for axis in (batch_axis, channel_axis) if axis >= 0]

        def place(axis: int) -> int:
            return 1 + axis - sum(other < axis for other in before)

        renamed: Any = tuple(
            tuple(
                tuple(map(place, axes)) if side == left else tuple(axes)
                for side, axes in enumerate(pair)
            )
            for pair in numbers
        )
        constant = np.asarray(lhs if left else rhs, np.float64)
        array = constant.tolist()
        sides = {"lhs": array if left else None, "rhs": None if left else array}
        net = positions.DotGeneral(dimension_numbers=renamed, **sides)
        return cls(net, batch_axis, channel_axis, left, mine[0], mine[1], constant.ndim)

    def left(self, axes: Axes) -> Axes:
        taken = (*self.contracted, *self.together)
        rest = axes.without(taken)
        new = self.rank - len(taken)
        before = len(self.together) + (new if self.lhs else 0)
        ndim = len(self.together) + rest.ndim + new
        return replace(axes, batch=rest.batch + before, channel=rest.channel + before, ndim=ndim)
