"""Cells are done: here, or in worker processes; each is written when it is finished."""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from threadpoolctl import threadpool_limits

from ntkcore.falsifier.arms import ARMS
from ntkcore.falsifier.cells import Cells, Key
from ntkcore.falsifier.study import Content, Place, Study
from ntkcore.finite import DivergedError


def perform(study: Study, key: Key, setting: Content | None) -> Content:
    """A cell's content; where training diverged, that."""
    study = study if key.n is None else study.sized(key.n)
    arm, start = ARMS[key.arm], time.perf_counter()
    try:
        if key.setting:
            assert arm.settle is not None
            content = arm.settle(study, key.place.point)
        else:
            content = arm.measure(study, key.place, setting or {})
    except DivergedError as error:
        content = {"diverged": str(error)}
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(
            f"no room on the device for {key.file} ({error}); what was finished is whole: take a"
            " smaller width or batch_size, or device='cpu'"
        ) from None
    return {**content, "seconds": round(time.perf_counter() - start, 3)}


_study: Study | None = None  # of a worker process


def _start(study: Study) -> None:
    global _study
    _study = study
    # Ctrl-C ends workers without a word: their caller reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that begin in this block hear no Ctrl-C until `_start`,
    while Python would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _perform_here(key: Key, setting: Content | None) -> Content:
    assert _study is not None
    with threadpool_limits(1):
        return perform(_study, key, setting)


@contextlib.contextmanager
def processes(study: Study, workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """So many worker processes with the study in each; None for one, this process."""
    if workers == 1:
        yield None
        return
    try:
        pickle.dumps(study)
    except Exception as error:
        raise TypeError(
            f"workers={workers} needs data, net and metrics that can be pickled ({error}): define"
            " them as functions of a module, or take workers=1"
        ) from error
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(study,)
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise MemoryError(
            "a worker process died, for lack of memory perhaps; what was finished is whole: the"
            " same call goes on, with fewer workers if need be"
        ) from None
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class Runner:
    """Does the cells that are not done, here or in the pool's processes."""

    study: Study
    cells: Cells
    pool: ProcessPoolExecutor | None
    workers: int
    deadline: float
    count: Callable[[int], object]

    def run(self, keys: Sequence[Key]) -> None:
        """In order, until all are done or the time is over."""
        self.flying: dict[Future[Content], Key] = {}
        for key in keys:
            if self.cells.get(key) is not None:
                self.count(1)
                continue
            if time.monotonic() > self.deadline:
                break
            setting = (
                None
                if key.setting
                else self.cells.get(Key(key.arm, Place(key.place.point, 0, 0), setting=True))
            )
            if setting is not None and "diverged" in setting:
                continue
            if self.pool is None:
                self._land(key, perform(self.study, key, setting))
            else:
                with _deaf():
                    self.flying[self.pool.submit(_perform_here, key, setting)] = key
                self._wait(self.workers)
        self._wait(0)

    def _wait(self, least: int) -> None:
        while len(self.flying) > least:
            for future in wait(self.flying, return_when=FIRST_COMPLETED).done:
                self._land(self.flying.pop(future), future.result())

    def _land(self, key: Key, content: Content) -> None:
        self.cells.put(key, content)
        self.count(1)
