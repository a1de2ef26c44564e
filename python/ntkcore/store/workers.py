"""Who computes the tiles of a store: threads of this process, any executor of concurrent.futures,
a Dask cluster.

A tile needs the store alone, and is the same bytes however often it runs.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ntkcore import _core
from ntkcore.engine.executors import Remote, check_executor, hand_out
from ntkcore.engine.tiles import obey, progress_bar
from ntkcore.store.format import TileIndex, Tiles

STREAMS = 2  # tiles at a time on a GPU


class Threads:
    """Threads of this process. As many tiles again as are being computed are in flight:
    those are being written.
    """

    def __init__(
        self, tiles: Tiles, backend: str, threads: int, devices: Sequence[int] | None
    ) -> None:
        self.tiles, self.backend = tiles, backend
        self.places: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        on_gpu = [[device] for device in devices or [0]] * STREAMS
        places: Sequence[list[int] | None] = on_gpu if backend == "cuda" else [None] * threads
        for place in places:
            self.places.put(place)
        self.width, self.stop = 2 * len(places), _core.Stop()
        self.pool = ThreadPoolExecutor(self.width, "ntkcore", obey, (self.stop,))

    def submit(self, index: TileIndex) -> Future[Any]:
        """Start computing and writing a tile."""
        return self.pool.submit(self._run, index)

    def _run(self, index: TileIndex) -> None:
        place = self.places.get()
        try:
            blocks = self.tiles.compute(index, self.backend, place)
        finally:
            self.places.put(place)
        self.tiles.write(index, blocks)

    def count(self) -> int:
        """Workers alive: this process."""
        return 1

    def died(self, error: BaseException) -> bool:
        """Never: an error is the tile's."""
        return False

    def close(self) -> None:
        """When all is done, or nothing more is wanted: tiles being computed are given up,
        being written finished.
        """
        self.stop.set()
        self.pool.shutdown(cancel_futures=True)


def run_tile(group: Any, index: TileIndex, backend: str) -> None:
    """One tile in another process, which gets the pickled group (where the store is)
    and no data.
    """
    tiles = Tiles(group)
    tiles.write(index, tiles.compute(index, backend))


class RemoteTiles(Remote):
    """An executor's workers, who reach the store."""

    def __init__(self, tiles: Tiles, backend: str, executor: Any) -> None:
        super().__init__(executor)
        self.tiles, self.backend = tiles, backend

    def submit(self, index: TileIndex) -> Future[Any]:
        """Start computing and writing a tile."""
        return self.call(run_tile, self.tiles.group, index, self.backend)

    def close(self) -> None:
        """Nothing: the executor is the caller's."""


def check_workers(executor: Any, backend: str, devices: Sequence[int] | None) -> None:
    """TypeError for an executor that is none; ValueError for devices that would not be used."""
    check_executor(executor)
    if devices is not None and (executor is not None or backend != "cuda"):
        raise ValueError(
            f"devices={devices!r} needs backend='cuda' and no executor, whose workers have"
            " their own"
        )


def workers_for(
    executor: Any, tiles: Tiles, backend: str, threads: int, devices: Sequence[int] | None
) -> Threads | RemoteTiles:
    """`executor` as one of the two."""
    return (
        Threads(tiles, backend, threads, devices)
        if executor is None
        else RemoteTiles(tiles, backend, executor)
    )


def compute_tiles(
    tiles: Tiles, work: Sequence[TileIndex], workers: Threads | RemoteTiles, progress: bool | None
) -> None:
    """Compute and write the tiles of `work`."""
    with progress_bar(sum(map(tiles.pairs, work)), progress) as count:
        try:
            hand_out(
                work,
                workers.submit,
                workers,
                lambda index, _: count(tiles.pairs(index)),
                "; the tiles written so far stay",
            )
        except OSError as error:
            raise OSError(
                f"{error}; the tiles written so far are whole: make room (or make the store"
                " writable) and run the same call again"
            ) from error
        finally:
            workers.close()
