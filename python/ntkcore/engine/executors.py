"""Work in pieces, handed out to workers: threads, any executor of concurrent.futures, a Dask
cluster.

A piece is idempotent, so workers may die at any moment: theirs are handed out again. A small
number of pieces is in flight.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, Protocol

PATIENCE = 30.0  # seconds without any worker after which the work is given up
ATTEMPTS = 10  # of a piece whose workers die
LARGE = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}  # vectors travel as they are


class Workers(Protocol):
    """Who does the pieces."""

    @property
    def width(self) -> int:
        """Pieces in flight."""

    def count(self) -> int:
        """Workers alive."""

    def died(self, error: BaseException) -> bool:
        """Is the error that of a worker, not of its piece?"""


class Remote:
    """Any executor of concurrent.futures, or a Dask client: LocalCluster, SLURM,
    Kubernetes, dask-cuda give one.
    """

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.client: Any = None if isinstance(executor, Executor) else executor

    @property
    def threads(self) -> int:
        """Pieces that are worked on at the same time."""
        if self.client is None:
            return int(getattr(self.executor, "_max_workers", 2))
        if self.client.status in ("closing", "closed"):
            raise RuntimeError("the Dask client is closed: connect a new one, and make this anew")
        return sum(self.client.nthreads().values())

    @property
    def width(self) -> int:
        """As many pieces again wait at the workers."""
        return max(4, 2 * self.threads) if self.client else 2 * self.threads

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a function of an importable module on a worker."""
        if self.client is None:
            started: Future[Any] = self.executor.submit(function, *arguments)
            return started
        import dask.config

        here: Future[Any] = Future()
        with dask.config.set(LARGE):  # Dask's own get_executor() loses futures whose results die
            there = self.client.submit(function, *arguments, pure=False)
        here.add_done_callback(lambda future: there.cancel() if future.cancelled() else None)
        there.add_done_callback(functools.partial(_passed_on, here))
        return here

    def count(self) -> int:
        """Workers alive, as the scheduler says."""
        return 1 if self.client is None else len(self.client.nthreads())

    def died(self, error: BaseException) -> bool:
        """Dask's, after several workers' deaths, or when what it was given died with them."""
        lost = isinstance(error, CancelledError) and self._connected()
        return lost or type(error).__name__ == "KilledWorker"

    def _connected(self) -> bool:
        return self.client is not None and self.client.status == "running"


def _passed_on(here: Future[Any], there: Any) -> None:
    """The result of Dask's future, or its error, to one of concurrent.futures."""
    with suppress(InvalidStateError):  # cancelled meanwhile
        try:
            here.set_result(there.result())
        except Exception as error:
            here.set_exception(error)


class Kept:
    """A value that stays with the workers: it travels once to each, and again to later ones; in
    Dask's cluster from worker to worker.

    Workers get `handle` among their arguments, and find the value by `opened`.
    """

    def __init__(self, remote: Remote, value: Any) -> None:
        self._client: Any = remote.client
        self._value = value
        self._handle: Any = None
        if isinstance(remote.executor, ThreadPoolExecutor):
            self._handle = value
        elif self._client is None:
            self._handle = _in_file(self, value)

    def handle(self) -> Any:
        """What stands for the value; of Dask's cluster a future, which dies with the last worker
        that has it.
        """
        if self._client and (self._handle is None or self._handle.status != "finished"):
            self._handle = self._scattered()
        return self._handle

    def look(self) -> None:
        """After a death: the client may not have heard that the value died too."""
        if self._client and self._handle is not None:
            try:
                there = any(self._client.who_has(self._handle).values())
            except CancelledError:
                there = False
            self._handle = self._handle if there else None

    def _scattered(self) -> Any:
        until = time.monotonic() + PATIENCE
        while True:
            left = max(until - time.monotonic(), 0.1)
            try:
                return self._client.scatter(self._value, hash=False, timeout=left)
            except Exception as error:  # whatever Dask says when nobody is there, or dies meanwhile
                with _sending(self._value):
                    pickle.dumps(self._value)
                if time.monotonic() > until:
                    raise _nobody("the data cannot be sent", "") from error
                time.sleep(0.05)


@contextmanager
def _sending(value: Any) -> Iterator[None]:
    """TypeError, with the way on, for what cannot be pickled."""
    try:
        yield
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise TypeError(
            f"a {type(value).__name__} cannot be sent to workers ({error!s:.200}):"
            " a kernel in a Zarr store that they reach can"
        ) from error


class _Path(str):
    """Of the file of a pickled value."""


def _in_file(owner: object, value: Any) -> _Path:
    """A file that lives as long as its owner: processes on this machine read it."""
    handle, path = tempfile.mkstemp(".pickle", "ntkcore-")
    weakref.finalize(owner, os.unlink, path)
    with _sending(value), open(handle, "wb") as file:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
    return _Path(path)


@functools.lru_cache(2)
def _loaded(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"a worker does not see {path}: the processes of an executor must be on one machine;"
            " for several take a dask.distributed.Client"
        ) from None


def opened(handle: Any) -> Any:
    """The value that a handle stands for, on a worker."""
    return _loaded(handle) if isinstance(handle, _Path) else handle


def check_executor(executor: Any) -> None:
    """TypeError for an executor that is none."""
    known = not isinstance(executor, type) and (
        isinstance(executor, Executor)
        or (hasattr(executor, "get_executor") and hasattr(executor, "nthreads"))
    )
    if executor is not None and not known:
        raise TypeError(
            "executor must be None (threads), a concurrent.futures.Executor or a"
            f" dask.distributed.Client, not {executor!r}"
        )
    if getattr(executor, "asynchronous", False):
        raise TypeError(
            "executor is an asynchronous Dask client, whose calls wait for an event loop: pass one"
            " made without asynchronous=True"
        )


def hand_out(
    work: Sequence[Any],
    start: Callable[[Any], Future[Any]],
    workers: Workers,
    done: Callable[[Any, Any], object],
    kept: str,
    ahead: int = sys.maxsize,
) -> None:
    """All pieces of ``work`` by ``start``; ``done`` of each and its result, as they come.

    No piece is started before the one ``ahead`` places earlier is done. ``kept`` says in errors
    what stays when this ends early.
    """
    left, tries = list(range(len(work)))[::-1], [0] * len(work)
    flying = dict[Future[Any], int]()
    width, seen = workers.width, time.monotonic()  # when there last was a worker
    try:
        while left or flying:
            while left and len(flying) < width and left[-1] < _least(flying, left) + ahead:
                piece = left.pop()
                flying[start(work[piece])] = piece
            wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
            # A pool that is shut down cancels futures without telling those who wait.
            finished = [future for future in flying if future.done()]
            for future in finished:
                piece = flying.pop(future)
                tries[piece] += 1
                if _lost(future, workers, tries[piece] < ATTEMPTS, kept):
                    left.append(piece)
                else:
                    done(work[piece], future.result())
            seen = time.monotonic() if finished or workers.count() else seen
            if time.monotonic() - seen > PATIENCE:
                raise _nobody(f"{len(left) + len(flying)} pieces are missing", kept)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process of the pool died, and the pool with it: run the same call again with a new"
            f" one{kept}"
        ) from error
    finally:
        for future in flying:
            future.cancel()


def _least(flying: dict[Future[Any], int], left: list[int]) -> int:
    return min(flying.values(), default=left[-1])


def in_order(
    work: Sequence[Any],
    start: Callable[[Any], Future[Any]],
    workers: Workers,
    done: Callable[[Any, Any], object],
    kept: str,
) -> None:
    """`hand_out`, with the results in the order of ``work``; a few wait for their turn."""
    waiting, turn = dict[int, Any](), iter(range(len(work)))
    following = next(turn, None)

    def take(piece: int, result: Any) -> None:
        nonlocal following
        waiting[piece] = result
        while following in waiting:
            done(work[following], waiting.pop(following))
            following = next(turn, None)

    pieces = range(len(work))
    hand_out(pieces, lambda piece: start(work[piece]), workers, take, kept, 4 * workers.width)


def _nobody(missing: str, kept: str) -> RuntimeError:
    return RuntimeError(
        f"no worker has been left for {PATIENCE:.0f} s, {missing}:"
        f" start workers and run the same call again{kept}"
    )


def _lost(future: Future[Any], workers: Workers, again: bool, kept: str) -> bool:
    """Did the piece's worker die (then it is handed out again, so many times)?
    Raises what else went wrong.
    """
    try:
        future.result()
    except Exception as error:
        if workers.died(error) and again:
            return True
        if isinstance(error, CancelledError):
            raise RuntimeError(
                "a piece of the work was cancelled: its executor or scheduler is gone;"
                f" run the same call again{kept}"
            ) from error
        raise
    return False
