"""Where samples and channels lie in the arrays that layers take and give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# (axis of the samples, axis of the channels), negative from the end; None: any, or as it was.
Wanted = tuple[int | None, int | None]


@dataclass(frozen=True)
class Axes:
    """Of an array with ``ndim`` axes: that of the samples and that of the channels.

    ``scale``: s[1] of the layer before, by which its declared width is multiplied.
    """

    batch: int = 0
    channel: int = 1
    ndim: int = 2
    scale: int = 1

    def check(self, layer: str, wanted: Wanted) -> None:
        """ValueError where a layer looks for samples or channels on another axis."""
        found = {"batch_axis": self.batch, "channel_axis": self.channel}
        for (name, here), axis in zip(found.items(), wanted, strict=True):
            if axis is not None and axis % self.ndim != here:
                raise ValueError(
                    f"stax.{layer}: {name}={axis}, but the layer before leaves"
                    f" {'samples' if name == 'batch_axis' else 'channels'} on axis {here} of"
                    f" {self.ndim}: give both layers the same axes"
                )

    def to_vectors(self, batch: int) -> Axes:
        """Two axes are left, the samples' being ``batch``."""
        return replace(self, batch=batch, channel=1 - batch, ndim=2)

    def without(self, taken: Sequence[int]) -> Axes:
        """Axes are taken away, neither the samples' nor the channels'."""
        batch, channel = (
            axis - sum(other < axis for other in taken) for axis in (self.batch, self.channel)
        )
        return replace(self, batch=batch, channel=channel, ndim=self.ndim - len(taken))

    def outside(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an array here from that of (samples, …, channels)."""
        out = list(shape[1:-1])
        ends = {self.batch: shape[0], self.channel: shape[-1]}
        for axis in sorted(ends):
            out.insert(axis, ends[axis])
        return tuple(out)


def axes_of(wanted: Wanted, ndim: int, layer: str) -> Axes:
    """The axes of data; None: samples first, channels last.
    ValueError where one axis is both, or is not there.
    """
    batch, channel = wanted[0] or 0, wanted[1]
    if channel is None:
        channel = -2 if batch in (-1, ndim - 1) else -1
    if not all(-ndim <= axis < ndim for axis in (batch, channel)) or batch % ndim == channel % ndim:
        raise ValueError(
            f"stax.{layer}: batch_axis={batch} and channel_axis={channel} must be two axes of an"
            f" array that has {ndim}"
        )
    return Axes(batch % ndim, channel % ndim, ndim)
