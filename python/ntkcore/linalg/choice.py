"""Which solver fits a problem: passes, memory and time of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from ntkcore.engine.inputs import size_text
from ntkcore.linalg.askotch import default_block
from ntkcore.linalg.landmarks import SKETCH

EXACT = ("cholesky", "cg", "askotch")
METHODS = (*EXACT, "landmarks")
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


def operations_per_second() -> float:
    """Of a product of matrices in float64 on this machine, all of BLAS's threads."""
    A = np.ones((768, 768))
    A @ A
    start = time.perf_counter()
    A @ A
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
) -> FitPlan:
    """The plan of a method; of "auto" that of the fastest exact one within memory and time, else
    landmarks. ValueError where nothing fits into the memory. Streamed data are held by the model of
    an exact method only.
    """
    if method not in ("auto", *METHODS):
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, not {method!r}")
    if n_landmarks is not None and method in EXACT:
        raise ValueError(f"n_landmarks has no effect with method={method!r}: leave it out")
    problem = _Problem(n, outputs, itemsize, data_bytes + SLACK, machine)
    restricted = replace(problem, held=SLACK) if streamed else problem
    if method == "landmarks" or n_landmarks is not None:
        return restricted.landmarks(n_landmarks)
    plans = [problem.plan(name) for name in EXACT if method in ("auto", name)]
    if method != "auto":
        return plans[0]
    fitting = [p for p in plans if p.memory <= machine.memory and p.seconds <= machine.seconds]
    if fitting:
        return min(fitting, key=lambda p: p.seconds)
    return restricted.landmarks(None, "; ".join(_too_much(p, machine) for p in plans))


def _too_much(plan: FitPlan, machine: Machine) -> str:
    """What speaks against an exact method."""
    if plan.memory > machine.memory:
        return f"{NAMES[plan.method]} would take {size_text(plan.memory)}"
    return f"{NAMES[plan.method]} about {time_text(plan.seconds)}"


@dataclass(frozen=True)
class _Problem:
    n: int
    outputs: int
    itemsize: int
    held: int  # bytes in any case
    machine: Machine

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
        n, copies = self.n, 8 if self.itemsize == 8 else 12
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
        matrices = max((24 + SKETCH * self.itemsize) * m**2, pool * m * self.itemsize)
        memory = self.held + matrices + 8 * n * self.outputs
        seconds = 22 * n * m * self.machine.pair + (2 * pool + 4 * SKETCH * m) * m**2 / flops
        seconds += 100 * n * m / flops  # the sketch: additions as slow as memory
        return FitPlan("landmarks", n, m, 0, 22, int(memory), seconds, reason)
