"""Which solver fits a problem: passes, memory and time of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ntkcore.engine.inputs import size_text
from ntkcore.linalg.askotch import default_block
from ntkcore.linalg.landmarks import SKETCH

EXACT = ("cholesky", "cg", "askotch")
METHODS = (*EXACT, "landmarks")
RESUMABLE = METHODS[1:]  # keep checkpoints
LOOKS = 10  # iterations between two residuals that are said
NAMES = {
    "cholesky": "Cholesky",
    "cg": "conjugate gradients",
    "askotch": "ASkotch",
    "landmarks": "landmarks",
}
SLACK = 2**28  # bytes: tiles, panels, the interpreter's own
FEWEST_LANDMARKS = 50
POOL = 3  # times the landmarks: the samples that RPCholesky chooses them from
STEP = 3e-3  # seconds of ASkotch's step, whatever its size


@dataclass(frozen=True)
class Machine:
    """What the choice rests on: seconds a pair (all threads), float64 operations a second, bytes
    of memory and seconds that may be used.
    """

    pair: float
    flops: float
    memory: float
    seconds: float


@dataclass(frozen=True)
class FitPlan:
    """What a fit takes, and why it is done so; it prints readably.

    Attributes
    ----------
    method : {"cholesky", "cg", "askotch", "landmarks"}
    points, landmarks, rank : int
        Landmarks: all points unless ``method`` is "landmarks". Rank of the preconditioner, or 0.
    passes : int
        Over the kernel (of points and landmarks), about.
    memory : int
        Bytes, about.
    seconds : float
        About.
    reason : str
        Why none of the methods before it was taken.
    """

    method: str
    points: int
    landmarks: int
    rank: int
    passes: int
    memory: int
    seconds: float
    reason: str = ""

    def __str__(self) -> str:
        what = f"{NAMES[self.method]}, {self.points} points"
        if self.method == "landmarks":
            what += f", {self.landmarks} landmarks"
        if self.rank:
            what += f", preconditioner of rank {self.rank} at most"
        kind = "the restricted problem" if self.method == "landmarks" else "exact to rtol"
        if self.method == "cholesky":
            kind = "exact"
        passes = "1 pass" if self.passes == 1 else f"about {self.passes} passes"
        text = (
            f"{what}: {kind}; {passes}, {size_text(self.memory)}, about {time_text(self.seconds)}"
        )
        return text + (f" ({self.reason})" if self.reason else "")


def time_text(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def outcome_text(method: str, residual: float, passes: float, landmarks: int = 0) -> str:
    """What an answer is."""
    if method == "cholesky":
        return "exact"
    what = f"the restricted problem of {landmarks} landmarks" if landmarks else "exact"
    return f"{what} to a residual of {residual:.1e}, {passes:.1f} passes"


def residual_teller(say: Callable[[str], None], method: str) -> Callable[[float, Any], None]:
    """Says the residual of an iteration, every tenth time; ASkotch looks as rarely itself."""
    unit = "passes" if method == "askotch" else "iterations"

    def tell(done: float, residuals: Any) -> None:
        if method == "askotch" or done % LOOKS == 0:
            say(f"{done:.0f} {unit}: residual {residuals.max():.1e}")

    return tell


def operations_per_second(xp: Any = np) -> float:
    """Of a product of matrices in float64 where ``xp`` says, all of BLAS's threads."""
    A = xp.ones((768, 768))
    float((A @ A)[0, 0])
    start = time.perf_counter()
    float((A @ A)[0, 0])
    return 2 * 768**3 / (time.perf_counter() - start)


def choose(
    n: int,
    outputs: int,
    itemsize: int,
    data_bytes: int,
    machine: Machine,
    method: str = "auto",
    n_landmarks: int | None = None,
    streamed: bool = False,
    resumable: bool = False,
) -> FitPlan:
    """The plan of a method for data; of "auto" that of the fastest exact one within memory and
    time, else landmarks. ValueError where nothing fits into the memory. Streamed data are held by
    the model of an exact method only. ``resumable``: by a method that keeps a checkpoint.
    """
    if method not in ("auto", *METHODS):
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    if n_landmarks is not None and method in EXACT:
        raise ValueError(f"n_landmarks has no effect with method={method!r}: leave it out")
    work = Workload(n, outputs, itemsize, machine, data_bytes + SLACK)
    restricted = replace(work, held=SLACK) if streamed else work
    if method == "landmarks" or n_landmarks is not None:
        return restricted.landmarks(n_landmarks)
    if method != "auto":
        return work.plan(method)
    names = [name for name in EXACT if name in RESUMABLE or not resumable]
    return fastest(work, names) or restricted.landmarks(None, work.too_much(names))


def fastest(work: Workload, names: Sequence[str], first: str = "") -> FitPlan | None:
    """The plan of the fastest of these exact methods within memory and time, or of the ``first`` if
    it is; None if none is.
    """
    plans = [plan for name in names if work.allows(plan := work.plan(name))]
    return min(plans, key=lambda plan: (plan.method != first, plan.seconds), default=None)


@dataclass(frozen=True)
class Workload:
    """What methods are planned for; see `choose`.

    Attributes
    ----------
    n, outputs : int
        Points, right-hand sides.
    itemsize : int
        Bytes of an entry of the kernel.
    machine : Machine
    held : int
        Bytes in any case.
    matrix : bool
        The kernel is there, in memory or in a store: Cholesky needs no copy of its precision,
        landmarks keep their columns.
    """

    n: int
    outputs: int
    itemsize: int
    machine: Machine
    held: int = 0
    matrix: bool = False

    def allows(self, plan: FitPlan) -> bool:
        """Is it within memory and time?"""
        return plan.memory <= self.machine.memory and plan.seconds <= self.machine.seconds

    def too_much(self, names: Sequence[str]) -> str:
        """What speaks against exact methods that are not allowed."""
        return "; ".join(self.against(self.plan(name)) for name in names)

    def against(self, plan: FitPlan) -> str:
        """What speaks against a plan that is not allowed."""
        if plan.memory > self.machine.memory:
            return f"{NAMES[plan.method]} would take {size_text(plan.memory)}"
        return f"{NAMES[plan.method]} about {time_text(plan.seconds)}"

    def plan(self, method: str) -> FitPlan:
        """The plan of an exact method."""
        rank, passes, memory, seconds = {
            "cholesky": self._cholesky,
            "cg": self._cg,
            "askotch": self._askotch,
        }[method]()
        n = self.n
        return FitPlan(method, n, n, rank, passes, int(memory + self.held), seconds)

    def _cholesky(self) -> tuple[int, int, float, float]:
        n, copies = self.n, 8 if self.itemsize == 8 or self.matrix else 12
        seconds = n**2 / 2 * self.machine.pair + n**3 / 3 / self.machine.flops
        return 0, 1, copies * n**2, seconds

    def _cg(self) -> tuple[int, int, float, float]:
        """Of the 40 iterations that a rank of n/10 takes at usual ridges; more below it."""
        n, vectors = self.n, 48 * self.n * self.outputs
        room = 0.6 * max(self.machine.memory - self.held - vectors, 0)
        column = n * self.itemsize  # of r columns and 16 r^2 bytes, as many as fit into the room
        rank = int(min(n / 4, 2 * room / (column + (column**2 + 64 * room) ** 0.5)))
        memory = vectors + column * rank + 16 * rank**2
        passes = int(min(1000, 40 * max(1, n / 10 / max(rank, 1)) ** 0.5))
        seconds = passes * n**2 / 2 * self.machine.pair + n * rank * self.machine.pair
        return rank, passes, memory, seconds + 2 * n * rank**2 / self.machine.flops

    def _askotch(self) -> tuple[int, int, float, float]:
        n, block = self.n, default_block(self.n)
        seconds = 60 * n**2 * self.machine.pair
        seconds += 60 * n / block * (STEP + 1000 * block**2 / self.machine.flops)
        return 0, 60, 48 * n * self.outputs + 40 * block**2, seconds

    def landmarks(self, m: int | None, reason: str = "") -> FitPlan:
        """Of m landmarks, or of as many as memory and time allow, 10 sqrt(n) at most."""
        n, machine = self.n, self.machine
        if m is not None:
            return self._of_landmarks(m, reason)
        m = min(n, max(1000, int(10 * n**0.5)))
        while m > FEWEST_LANDMARKS:
            plan = self._of_landmarks(m, reason)
            if plan.memory <= machine.memory and plan.seconds <= machine.seconds:
                return plan
            m = int(0.9 * m)
        plan = self._of_landmarks(m, reason)
        if plan.memory > machine.memory:
            raise ValueError(
                f"{size_text(machine.memory)} of memory are too little for {n} points: even"
                f" {m} landmarks take {size_text(plan.memory)}; give more, or use fewer points"
            )
        return plan

    def _of_landmarks(self, m: int, reason: str) -> FitPlan:
        n, flops = self.n, self.machine.flops
        pool = min(n, POOL * m)
        # K_mm, its factor and the preconditioner beside the sketch; before them the choice.
        choice = pool * m * self.itemsize + (pool**2 * self.itemsize if self.matrix else 0)
        memory = (
            self.held + max((24 + SKETCH * self.itemsize) * m**2, choice) + 8 * n * self.outputs
        )
        pairs = 22 * n * m
        seconds = (2 * pool + 4 * SKETCH * m) * m**2 / flops
        seconds += 100 * n * m / flops  # the sketch: additions as slow as memory
        if self.matrix:  # read once for its columns, which then lie in memory
            pairs, memory = n**2, memory + n * m * self.itemsize
            seconds += 22 * n * m * (10 + 2 * self.outputs) / flops
        seconds += pairs * self.machine.pair
        return FitPlan("landmarks", n, m, 0, 22, int(memory), seconds, reason)
