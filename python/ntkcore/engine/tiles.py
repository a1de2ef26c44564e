"""Tiles of pairs, shared among threads: the unit of parallelism, of progress and of interruption.

Threads are Python's, one tile at a time with the GIL released inside, rather than OpenMP's: a
covariance block by BLAS and its recursion then stay on one core and in its cache, a tile's bits do
not depend on the number of threads, Ctrl-C takes effect at once, and no OpenMP runtime has to
survive a fork or live beside BLAS's own threads.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from ntkcore import _core

Tile = tuple[int, int, int, int]  # rows [i0, i1), columns [j0, j1)


def tiles(rows: int, cols: int, height: int, width: int, symmetric: bool) -> list[Tile]:
    """All tiles of a matrix; of a symmetric one the square tiles on
    the diagonal and the tiles right of them.
    """
    out: list[Tile] = []
    for i in range(0, rows, height):
        below = min(i + height, rows)
        if symmetric:
            out.append((i, below, i, below))
        out.extend(
            (i, below, j, min(j + width, cols))
            for j in range(below if symmetric else 0, cols, width)
        )
    return out


def pairs_in(task: Tile) -> int:
    """The number of pairs of a tile."""
    return (task[1] - task[0]) * (task[3] - task[2])


def banded(work: Sequence[Tile], size: int, width: int) -> list[Tile]:
    """The tiles of `size` in bands of `width` columns of them, to and fro:
    few rows and columns alternate.
    """

    def place(task: Tile) -> tuple[int, int, int]:
        row, col = task[0] // size, task[2] // size
        band = col // width
        return band, -row if band % 2 else row, -col if (row + band) % 2 else col

    return sorted(work, key=place)


_thread = threading.local()  # `stop`: the flag that this thread obeys


def _stop() -> _core.Stop:
    """The flag that the calling thread obeys, or a new one."""
    return getattr(_thread, "stop", None) or _core.Stop()


def obey(stop: _core.Stop) -> None:
    """From now on the calling thread, and those that it starts here,
    end early once `stop` is set.
    """
    _thread.stop = stop
    _core.obey(stop)


@contextmanager
def workers(count: int, stop: _core.Stop | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads for work in the background;
    when the block is left by an error their calls end early (`StoppedError`).
    """
    stop = stop or _stop()
    pool = ThreadPoolExecutor(count, "ntkcore", obey, (stop,))
    try:
        yield pool
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _set_threads(library: Any, count: int) -> None:
    # The setter of recent versions of threadpoolctl heeds one Python thread at a time; here the
    # last call out restores what the first one in changed, whichever threads they are.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


class _OneBlasThread:
    """BLAS on one thread while any call is inside: the setting is the process's,
    so the last one out restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []

    @functools.cached_property
    def _libraries(self) -> list[Any]:
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:  # slower threads, not wrong ones
            return []
        return list(ThreadpoolController().select(user_api="blas").lib_controllers)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [(library, library.num_threads) for library in self._libraries]
                for library, _ in self._before:
                    _set_threads(library, 1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, count in self._before:
                    _set_threads(library, count)


one_blas_thread = _OneBlasThread()


@contextmanager
def progress_bar(
    total: int, show: bool | None, *, unit: str = "pair", label: str = "kernel"
) -> Iterator[Callable[[int], object]]:
    """A function that counts finished pairs, or other units.

    ``show=None``: on a terminal, for calls of more than two seconds, if tqdm is installed; True:
    always (ImportError without tqdm); False: never.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda pairs: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        if show:
            raise ImportError('progress=True needs tqdm: pip install "ntkcore[cli]"') from None
        yield lambda pairs: None
        return
    with tqdm(total=total, unit=unit, unit_scale=True, delay=0 if show else 2, desc=label) as bar:
        yield bar.update


def run(
    work: Sequence[Tile],
    make_worker: Callable[[], Callable[[Tile], None]],
    threads: int,
    progress: bool | None,
    *,
    long: bool = False,
) -> None:
    """Every tile through one of `threads` workers,
    each made by `make_worker` (so that it may own a buffer).

    ``long``: tiles take seconds, so even one worker gets a thread: the main thread waits,
    and hears Ctrl-C.
    """
    queue, lock, stop = iter(work), threading.Lock(), _stop()
    count = min(threads, len(work))
    main = threading.current_thread() is threading.main_thread()
    with progress_bar(sum(map(pairs_in, work)), progress) as advance, one_blas_thread:

        def worker() -> None:
            do = make_worker()
            while not stop.is_set():
                with lock:
                    tile = next(queue, None)
                if tile is None:
                    return
                do(tile)
                with lock:
                    advance(pairs_in(tile))
            raise _core.StoppedError("the rest of the tiles was given up")

        if count == 1 and not (long and main):
            worker()
            return
        with workers(count, stop) as pool:
            for future in wait(
                [pool.submit(worker) for _ in range(count)], None, FIRST_EXCEPTION
            ).done:
                future.result()
