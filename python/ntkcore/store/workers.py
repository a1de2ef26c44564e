"""Who computes the tiles of a store: threads of this process, any executor of concurrent.futures,
a Dask cluster.

A tile is idempotent (the same bytes however often it runs) and needs the store alone, so workers
may die at any moment: their tiles are handed out again. A small number of tiles is in flight.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ntkcore import _core
from ntkcore.engine.tiles import obey, progress_bar
from ntkcore.store.format import TileIndex, Tiles

PATIENCE = 30.0  # seconds without any worker after which a build gives up
ATTEMPTS = 10  # of a tile whose workers die
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


class Remote:
    """Any executor of concurrent.futures, or a Dask client: LocalCluster, SLURM,
    Kubernetes, dask-cuda give one.
    """

    def __init__(self, tiles: Tiles, backend: str, executor: Any) -> None:
        self.tiles, self.backend, self.client = tiles, backend, None
        self.executor: Executor = executor
        self.width = 2 * int(getattr(executor, "_max_workers", 4))
        if not isinstance(executor, Executor):
            self.client = executor
            self.executor = executor.get_executor(pure=False)
            self.width = max(4, 2 * sum(executor.nthreads().values()))

    def submit(self, index: TileIndex) -> Future[Any]:
        """Start computing and writing a tile."""
        return self.executor.submit(run_tile, self.tiles.group, index, self.backend)

    def count(self) -> int:
        """Workers alive, as the scheduler says."""
        return 1 if self.client is None else len(self.client.nthreads())

    def close(self) -> None:
        """Nothing: the executor is the caller's."""


def check_workers(executor: Any, backend: str, devices: Sequence[int] | None) -> None:
    """TypeError for an executor that is none; ValueError for devices that would not be used."""
    if executor is not None and not _is_executor(executor):
        raise TypeError(
            "executor must be None (threads), a concurrent.futures.Executor or a"
            f" dask.distributed.Client, not {executor!r}"
        )
    if devices is not None and (executor is not None or backend != "cuda"):
        raise ValueError(
            f"devices={devices!r} needs backend='cuda' and no executor, whose workers have"
            " their own"
        )


def _is_executor(executor: Any) -> bool:
    return isinstance(executor, Executor) or (
        hasattr(executor, "get_executor") and hasattr(executor, "nthreads")
    )


def workers_for(
    executor: Any, tiles: Tiles, backend: str, threads: int, devices: Sequence[int] | None
) -> Threads | Remote:
    """`executor` as one of the two."""
    return (
        Threads(tiles, backend, threads, devices)
        if executor is None
        else Remote(tiles, backend, executor)
    )


def compute_tiles(
    tiles: Tiles, work: Sequence[TileIndex], workers: Threads | Remote, progress: bool | None
) -> None:
    """Compute and write the tiles of `work`."""
    with progress_bar(sum(map(tiles.pairs, work)), progress) as count:
        try:
            _drain(work, workers, lambda index: count(tiles.pairs(index)))
        except OSError as error:
            raise OSError(
                f"{error}; the tiles written so far are whole: make room (or make the store"
                " writable) and run the same call again"
            ) from error
        finally:
            workers.close()


def _drain(
    work: Sequence[TileIndex], workers: Threads | Remote, done: Callable[[TileIndex], object]
) -> None:
    left, flying = list(reversed(work)), dict[Future[Any], TileIndex]()
    deaths: dict[TileIndex, int] = {}
    seen = time.monotonic()  # when there last was a worker
    try:
        while left or flying:
            while left and len(flying) < workers.width:
                index = left.pop()
                flying[workers.submit(index)] = index
            finished, _ = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                index = flying.pop(future)
                if _lost(future, deaths, index):
                    left.append(index)
                else:
                    done(index)
            seen = time.monotonic() if finished or workers.count() else seen
            if time.monotonic() - seen > PATIENCE:
                raise RuntimeError(
                    f"no worker has been left for {PATIENCE:.0f} s, {len(left) + len(flying)} tiles"
                    " are missing: start workers and run the same call again;"
                    " the tiles written so far stay"
                )
    finally:
        for future in flying:
            future.cancel()


def _lost(future: Future[Any], deaths: dict[TileIndex, int], index: TileIndex) -> bool:
    """Did the tile's worker die (then it is handed out again,
    so many times)? Raises what else went wrong.
    """
    try:
        future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process of the pool died, and the pool with it: run the same call again with a new"
            " one; the tiles written so far stay"
        ) from error
    except CancelledError as error:
        raise RuntimeError(
            f"the tile {index} was cancelled: its executor or scheduler is gone;"
            " run the same call again"
        ) from error
    except Exception as error:
        deaths[index] = deaths.get(index, 0) + 1
        # Dask's, after several workers' deaths.
        if type(error).__name__ == "KilledWorker" and deaths[index] < ATTEMPTS:
            return True
        raise
    return False
