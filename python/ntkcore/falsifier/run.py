"""`falsify`: would a claim about a network still hold if its features were frozen?"""

from __future__ import annotations

import contextlib
import inspect
import math
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import ntkcore
from ntkcore.engine.inputs import free_bytes, size_text
from ntkcore.engine.tiles import progress_bar
from ntkcore.falsifier.arms import ARMS, Content, Place, arms_of, make_network, predict
from ntkcore.falsifier.cells import Cells, Key
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.evidence import Budget, places
from ntkcore.falsifier.report import Report, refuse_folder
from ntkcore.falsifier.study import Network, Study, Training
from ntkcore.falsifier.tasks import Arrays, Split
from ntkcore.finite import DivergedError, empirical_ntk
from ntkcore.specs.layers import Layer

Shapes = list[tuple[str, tuple[int, ...]]]


def falsify(
    data: Any,
    net: Any,
    claims: Claim | Sequence[Claim],
    *,
    spec: Layer | None = None,
    baseline: Layer | None = None,
    width: int = 512,
    training: Training | None = None,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    workers: int = 1,
    device: str = "cpu",
    progress: bool | None = None,
) -> Report:
    """Compare a network with the same network whose features are frozen, and say what the claims need.

    Parameters
    ----------
    data
        Arrays (x, y) or (x, y, x_test, y_test), an `Arrays`, or any task: a function (seed, **axis) -> `Split`.
    net
        A spec; a function (depth) that gives one; or a function (seed) that makes a torch module, with keywords
        ``width`` or ``depth`` where a claim's axis is one.
    claims
        One or several `Claim`s.
    spec
        The infinite counterpart of a torch module. Without it the module's kernel at its start stands for the limit.
    baseline
        A spec whose kernel must not show the effect, for the verdict "architecture".
    width
        Of finite networks made from a spec.
    folder
        Where finished cells go: the same call goes on after any interruption. None: in memory.
    workers
        Processes; more than 1 need data and net that can be pickled (functions of a module, no lambdas).
    progress
        True, False, or None: on a terminal.

    Returns
    -------
    Report
        ``verdicts``, one for each claim; ``write(folder)`` makes Markdown, JSON, figures and one HTML page.

    Raises
    ------
    ValueError, TypeError
        Before any work: for data that do not fit, a claim that no arm can measure, a module that is no function of its
        parameters and one sample, a folder that holds another study.
    MemoryError, OSError
        Where a kernel or a cell's file has no room; what is finished stays, and the same call goes on.

    References
    ----------
    Chizat et al. 2019 (lazy training by scaling); Jacot et al. 2018; Owen 2007 (two-way bootstrap); Holm 1979.
    """
    study = Study(
        _task(data),
        _network(net, spec, width, device),
        (claims,) if isinstance(claims, Claim) else tuple(claims),
        training or Training(),
        baseline,
    )
    budget = budget or Budget()
    _check(study, budget, workers)
    if folder is not None:
        refuse_folder(Path(folder))
    sizes = study.sweep(budget.sweep, budget.splits)
    shapes = _check_models(study, sizes, workers)
    cells = Cells(folder, study.fingerprint(shapes))
    deadline = time.monotonic() + (math.inf if budget.seconds is None else budget.seconds)
    rounds = _kernels_and_settings(study, budget, sizes), _networks(study, budget)
    with (
        progress_bar(sum(map(len, rounds)), progress, unit="cell", label="falsify") as count,
        _pool(study, workers) as pool,
    ):
        for keys in rounds:
            _Runner(study, cells, pool, workers, deadline, count).run(keys)
    return Report(study, budget, cells)


# --- before any work


def _task(data: Any) -> Any:
    if callable(data):
        return data
    if isinstance(data, (tuple, list)) and len(data) in (2, 4):
        return Arrays(*data)
    raise TypeError(f"data must be arrays (x, y) or (x, y, x_test, y_test), or a task, not {type(data).__name__}")


def _network(net: Any, spec: Layer | None, width: int, device: str) -> Network:
    if isinstance(net, Layer):
        return Network(net, None, width, device)
    if isinstance(net, torch.nn.Module):
        raise TypeError(
            "give a function (seed) that makes the module, e.g. lambda seed: …: every seed needs a fresh one"
        )
    if not callable(net):
        raise TypeError(f"net must be a spec, or a function that gives one or a torch module, not {type(net).__name__}")
    if "depth" in inspect.signature(net).parameters and "seed" not in inspect.signature(net).parameters:
        return Network(net, None, width, device)
    return Network(spec, net, width, device)


def _check(study: Study, budget: Budget, workers: int) -> None:
    if not study.claims:
        raise ValueError("give at least one claim")
    if budget.seeds < 1 or budget.splits < 1 or workers < 1:
        raise ValueError(f"seeds, splits and workers must be positive, not {budget.seeds}, {budget.splits}, {workers}")
    study.check(budget.splits)


def _check_models(study: Study, sizes: list[int], workers: int) -> Shapes:
    """The shapes of the network's parameters; errors for kernels and networks that cannot be had."""
    _check_memory(max(sizes + [len(study.split(point, 0).x) for point in study.points()]), workers)
    point = study.points()[-1]
    split = study.split(point, 0)
    for spec in (study.network.at(point)[0], study.baseline):
        if spec is not None:
            ntkcore.kernel(spec, np.asarray(split.x[:2], np.float64))
    return _check_network(study, Place(point, 0, 0), split)


def _check_network(study: Study, place: Place, split: Split) -> Shapes:
    device = study.network.device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"PyTorch has no device {device!r} here ({error}): take 'cpu'") from None
    module = make_network(study, place, "ntk", split.y.shape[1]).double()
    try:
        empirical_ntk(module, split.x[:3])  # a function of its parameters and one sample; a Jacobian fits
    except RuntimeError as error:
        raise ValueError(f"the network does not take samples of shape {split.x.shape[1:]}: {error}") from error
    if (outputs := predict(module, split.x[:2]).shape[1]) != split.y.shape[1]:
        raise ValueError(f"the network has {outputs} outputs, the targets {split.y.shape[1]}")
    return [(name, tuple(p.shape)) for name, p in module.named_parameters()]


def _check_memory(n: int, workers: int) -> None:
    """Of an arm with a kernel: it, its eigenvectors, their work space, and its rows to the other samples."""
    need, free = workers * 8 * 6 * n**2, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"the kernels of {n} training samples need {size_text(need)}, but {size_text(free)} are free: "
            "claim it at a smaller n, with a shorter Budget.sweep, or take fewer workers"
        )


# --- the cells there are


def _kernels_and_settings(study: Study, budget: Budget, sizes: Sequence[int]) -> list[Key]:
    """What needs nothing else. Settings first: the longest cells."""
    tuned = [arm for arm in arms_of(study) if ARMS[arm].settle is not None]
    keys = [Key(arm, Place(point, 0, 0), setting=True) for arm in tuned for point in study.points()]
    keys += [Key(arm, place) for arm in arms_of(study) if arm not in tuned for place in places(study, arm, budget)]
    if "ntk" in arms_of(study):
        point = study.points()[-1]
        keys += [Key("ntk", Place(point, 0, i), n) for n in sizes for i in range(budget.splits)]
    return keys


def _networks(study: Study, budget: Budget) -> list[Key]:
    tuned = [arm for arm in arms_of(study) if ARMS[arm].settle is not None]
    return [Key(arm, place) for arm in tuned for place in places(study, arm, budget)]


# --- the work


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
            f"no room on the device for {key.file} ({error}); what was finished is whole: take a smaller width or "
            "batch_size, or device='cpu'"
        ) from None
    return {**content, "seconds": round(time.perf_counter() - start, 3)}


_study: Study | None = None  # of a worker process


def _start(study: Study) -> None:
    global _study
    _study = study
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends workers without a word: the caller says it
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that begin in this block hear no Ctrl-C until `_start`, while Python would print a traceback."""
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
def _pool(study: Study, workers: int) -> Iterator[ProcessPoolExecutor | None]:
    if workers == 1:
        yield None
        return
    try:
        pickle.dumps(study)
    except Exception as error:
        raise TypeError(
            f"workers={workers} needs data, net and metrics that can be pickled ({error}): define them as functions of "
            "a module, or take workers=1"
        ) from error
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start, initargs=(study,))
    try:
        yield pool
    except BrokenProcessPool:
        raise MemoryError(
            "a worker process died, for lack of memory perhaps; what was finished is whole: the same call goes on, "
            "with fewer workers if need be"
        ) from None
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class _Runner:
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
                None if key.setting else self.cells.get(replace(key, place=Place(key.place.point, 0, 0), setting=True))
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
