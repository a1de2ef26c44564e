"""`falsify`: would a claim about a network still hold if its features were frozen?"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ntkcore.engine.tiles import progress_bar
from ntkcore.falsifier.cells import Cells
from ntkcore.falsifier.checks import check, check_models
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.evidence import Budget, Tables, rounds
from ntkcore.falsifier.minima import recorded
from ntkcore.falsifier.performing import Runner, processes
from ntkcore.falsifier.report import Report, refuse_folder
from ntkcore.falsifier.study import Network, Study, Training
from ntkcore.falsifier.tasks import Arrays
from ntkcore.specs.layers import Layer


def falsify(
    data: Any,
    net: Any,
    claims: Claim | Sequence[Claim],
    *,
    spec: Layer | None = None,
    baseline: Layer | None = None,
    versus: Any = None,
    width: int = 512,
    training: Training | None = None,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    workers: int = 1,
    device: str = "cpu",
    progress: bool | None = None,
) -> Report:
    """Compare a network with the same network whose features are frozen,
    and say what the claims need.

    Parameters
    ----------
    data
        Arrays (x, y) or (x, y, x_test, y_test), an `Arrays`, or any task: a function (seed,
        **axis) -> `Split`.
    net
        A spec; a function (depth) that gives one; or a function (seed) that makes a torch module,
        with keywords ``width`` or ``depth`` where a claim's axis is one.
    claims
        One or several `Claim`s.
    spec
        The infinite counterpart of a torch module.
        Without it the mean kernel over initialisations stands for the limit.
    baseline
        A spec whose kernel must not show the effect, for the verdict "architecture".
    versus
        Another network, given as ``net`` is: the claims are then of the difference of its effects
        to those of ``net``, arm by arm in the same repetitions. For example: is what a
        convolutional network gains over a fully connected one more than its kernel gains?
    width
        Of finite networks made from a spec.
    folder
        Where finished cells go: the same call goes on after any interruption. None: in memory.
    workers
        Processes; more than 1 need data and net that can be pickled (functions of a module,
        no lambdas).
    progress
        True, False, or None: on a terminal.

    Returns
    -------
    Report
        ``verdicts``, one for each claim; ``write(folder)`` makes Markdown, JSON,
        figures and one HTML page.

    Raises
    ------
    ValueError, TypeError
        Before any work: for data that do not fit, a claim that no arm can measure, a module that is
        no function of its parameters and one sample, a folder that holds another study.
    MemoryError, OSError
        Where a kernel or a cell's file has no room; what is finished stays,
        and the same call goes on.

    References
    ----------
    Chizat et al. 2019 (lazy training by scaling); Jacot et al. 2018; Nadeau and Bengio 2003
    (repetitions that share test samples); Holm 1979.
    """
    if baseline is not None and versus is not None:
        raise ValueError("versus takes differences of all arms, the baseline has none: give one")
    study = Study(
        _task(data),
        _network(net, spec, width, device),
        (claims,) if isinstance(claims, Claim) else tuple(claims),
        training or Training(),
        baseline,
    )
    budget, home = budget or Budget(), None if folder is None else Path(folder)
    works = [_Work(study, budget, workers, home)]
    if versus is not None:
        other = replace(study, network=_network(versus, None, width, device), baseline=None)
        works.append(_Work(other, budget, workers, home and home / "versus"))
    deadline = time.monotonic() + (math.inf if budget.seconds is None else budget.seconds)
    for work in works:
        work.run(deadline, progress)
    before = recorded(works[-1].home, study.claims)
    against = works[1].tables if versus is not None else None
    return Report(study, budget, works[0].cells, tuple(before), against)


class _Work:
    """All cells of a study, checked first."""

    def __init__(self, study: Study, budget: Budget, workers: int, home: Path | None) -> None:
        self.study, self.budget, self.workers, self.home = study, budget, workers, home
        check(study, budget, workers)
        if home is not None:
            refuse_folder(home)
        self.sizes = study.sweep(budget.sweep, budget.swept)
        start = check_models(study, self.sizes, workers)
        self.cells = Cells(home, study.fingerprint(start))

    @property
    def tables(self) -> Tables:
        """What was found."""
        return Tables(self.study, self.budget, self.cells)

    def run(self, deadline: float, progress: bool | None) -> None:
        """Do what is not done."""
        study = self.study
        both = rounds(study, self.budget, self.sizes)
        with (
            progress_bar(sum(map(len, both)), progress, unit="cell", label="falsify") as count,
            processes(study, self.workers) as pool,
        ):
            for keys in both:
                Runner(study, self.cells, pool, self.workers, deadline, count).run(keys)


def _task(data: Any) -> Any:
    if callable(data):
        return data
    if isinstance(data, (tuple, list)) and len(data) in (2, 4):
        return Arrays(*data)
    raise TypeError(
        "data must be arrays (x, y) or (x, y, x_test, y_test), or a task, not"
        f" {type(data).__name__}"
    )


def _network(net: Any, spec: Layer | None, width: int, device: str) -> Network:
    if not (spec is None or isinstance(spec, Layer)):
        raise TypeError(f"spec must be a network spec, not {type(spec).__name__}")
    of_depth = callable(net) and _is_of_depth(net)
    if spec is not None and (isinstance(net, Layer) or of_depth):
        raise ValueError("net is a spec itself: leave spec away, it is for torch modules")
    if isinstance(net, Layer):
        return Network(net, None, width, device)
    if isinstance(net, torch.nn.Module):
        raise TypeError(
            "give a function (seed) that makes the module, e.g. lambda seed: …:"
            " every seed needs a fresh one"
        )
    if not callable(net):
        raise TypeError(
            "net must be a spec, or a function that gives one or a torch module, not"
            f" {type(net).__name__}"
        )
    return Network(net, None, width, device) if of_depth else Network(spec, net, width, device)


def _is_of_depth(net: Callable[..., Any]) -> bool:
    names = inspect.signature(net).parameters
    return "depth" in names and "seed" not in names
