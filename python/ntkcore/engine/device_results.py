"""Where tiles computed on GPUs go: arrays on the device,
or NumPy arrays by way of pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Protocol

import numpy as np

from ntkcore.engine.device_arrays import address, whole
from ntkcore.engine.inputs import KERNELS
from ntkcore.engine.jobs import Parts, levels
from ntkcore.engine.lanes import Lane
from ntkcore.engine.tiles import Tile

SLAB = 256  # rows that a thread copies at a time


class Kernels(Protocol):
    """What computes tiles of one kind of data."""

    step: int  # tiles start at multiples of it
    whole_diagonal: bool  # does a tile on the diagonal need its mirror image written

    def evaluate(
        self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool
    ) -> None:
        """A tile into arrays at these addresses: nngp, ntk, and their mirror images."""


class Results:
    """Tiles into `parts`, each in as many pieces as the device's memory asks for."""

    def __init__(self, parts: Parts, symmetric: bool) -> None:
        self.parts, self.symmetric = parts, symmetric

    def run(
        self, kernels: Kernels, lane: Lane, task: Tile, diagonal: bool, again: bool = True
    ) -> None:
        """Begin with a tile; out of memory, once more with all that is free, then in pieces."""
        lane.wait()
        lane.task = task
        try:
            self.evaluate(kernels, lane, task, diagonal)
        except RuntimeError as error:
            raise lane.fault(error) from error
        except MemoryError:
            lane.free()
            smaller = [(task, diagonal)] if again else _split(task, kernels.step, diagonal)
            for part, on_diagonal in smaller:
                self.run(kernels, lane, part, on_diagonal, not again)

    def evaluate(self, kernels: Kernels, lane: Lane, task: Tile, diagonal: bool) -> None:
        """Give the tile to the lane's stream."""
        raise NotImplementedError

    def places(self, task: Tile, diagonal: bool) -> list[tuple[slice, slice]]:
        """Where the tile goes, and its mirror image if it is another place."""
        here = slice(*task[:2]), slice(*task[2:])
        return [here, here[::-1]] if self.symmetric and not diagonal else [here]

    def into(self, kernels: Kernels, views: list[Parts], diagonal: bool) -> list[list[int]]:
        """Addresses of the tile's places, the last being the mirror image's."""
        mirrored = self.symmetric and (not diagonal or kernels.whole_diagonal)
        return _addresses(views[0]) + _addresses(views[-1], mirrored)


class OnDevice(Results):
    """Slices of arrays on the device."""

    def evaluate(self, kernels: Kernels, lane: Lane, task: Tile, diagonal: bool) -> None:
        """Give the tile to the lane's stream."""
        views = [
            {name: [part[place] for part in arrays] for name, arrays in self.parts.items()}
            for place in self.places(task, diagonal)
        ]
        stride = next(iter(self.parts.values()))[0].shape[1]
        kernels.evaluate(lane, task, self.into(kernels, views, diagonal), stride, diagonal)


class ThroughPinnedMemory(Results):
    """NumPy arrays, to which threads copy what has arrived."""

    def __init__(self, parts: Parts, symmetric: bool, copiers: Executor) -> None:
        super().__init__(parts, symmetric)
        self.copiers = copiers

    def evaluate(self, kernels: Kernels, lane: Lane, task: Tile, diagonal: bool) -> None:
        """Give the tile to the lane's stream, and its way to the host."""
        staging = _Staging(lane, self.parts, self.places(task, diagonal))
        kernels.evaluate(
            lane, task, self.into(kernels, staging.views(), diagonal), staging.side, diagonal
        )
        lane.finish = staging.fetch(self.copiers)


def _addresses(parts: Parts, wanted: bool = True) -> list[list[int]]:
    nothing = [0] * levels(parts)
    return [
        [address(p) for p in parts[name]] if wanted and name in parts else nothing
        for name in KERNELS
    ]


def _split(task: Tile, step: int, diagonal: bool) -> Iterator[tuple[Tile, bool]]:
    """A tile in four (of one on the diagonal, three);
    MemoryError where it is as small as can be.
    """
    i0, i1, j0, j1 = task
    if max(i1 - i0, j1 - j0) <= step:
        raise MemoryError(
            "the GPU has not the memory for one small tile of pairs: free arrays on it (cupy's "
            "get_default_memory_pool().free_all_blocks()), or use backend=None for the CPU"
        )
    cut = [lo + -(-(hi - lo) // (2 * step)) * step for lo, hi in ((i0, i1), (j0, j1))]
    rows = [(i0, min(cut[0], i1)), (min(cut[0], i1), i1)]
    cols = [(j0, min(cut[1], j1)), (min(cut[1], j1), j1)]
    for i, (r0, r1) in enumerate(rows):
        for j, (c0, c1) in enumerate(cols):
            if r0 < r1 and c0 < c1 and not (diagonal and j < i):
                yield (r0, r1, c0, c1), diagonal and i == j


class _Staging:
    """A tile, and its mirror image, on the device and in pinned memory,
    on the way to their places in the result.
    """

    def __init__(self, lane: Lane, parts: Parts, places: list[tuple[slice, slice]]) -> None:
        self.lane, self.parts, self.places = lane, parts, places
        self.arrays = [part for arrays in parts.values() for part in arrays]
        self.side = whole(max(s.stop - s.start for s in places[0]))
        shape, dtype = (len(places), len(self.arrays), self.side, self.side), self.arrays[0].dtype
        count = int(np.prod(shape))
        self.device = lane.room("tile", count, dtype).reshape(shape)
        self.host = lane.room("pinned tile", count, dtype, on_host=True).reshape(shape)

    def views(self) -> list[Parts]:
        """Where the engine writes, for every place."""
        sizes = [len(arrays) for arrays in self.parts.values()]
        starts = np.cumsum([0, *sizes]).tolist()
        return [
            {
                name: list(tile[at : at + size])
                for name, at, size in zip(self.parts, starts, sizes, strict=False)
            }
            for tile in self.device
        ]

    def fetch(self, copiers: Executor) -> Callable[[], None]:
        """Starts the way to the host; the function goes on to the result,
        by rows shared among threads.
        """
        copies = []
        for place, tile, pinned_tile in zip(self.places, self.device, self.host, strict=True):
            rows, cols = (s.stop - s.start for s in place)
            for part, source, staged in zip(self.arrays, tile, pinned_tile, strict=True):
                source[:rows].get(stream=self.lane.stream, out=staged[:rows], blocking=False)
                slabs = [slice(i, min(i + SLAB, rows)) for i in range(0, rows, SLAB)]
                copies += [(part[place][slab], staged[slab, :cols]) for slab in slabs]

        def finish() -> None:
            list(copiers.map(np.copyto, *zip(*copies, strict=True)))

        return finish
