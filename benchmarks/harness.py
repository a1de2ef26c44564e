"""The one harness of the benchmarks: timer, correctness check, machine description,
lower bounds, results as JSON.

Core time is the processor time of the whole process, all threads together, as `time.process_time`
gives it. On a shared machine it varies far less than wall time; both are kept, and medians are
reported. What is compared is called in turn (`alternate`), so that a change of clock or of load
meets all of it alike.

Standard library and NumPy only at import: the peers' environments import this file too.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
NO_GPU = 3  # exit status of a benchmark that finds none, and has said so


# --- time


@dataclass
class Timing:
    """Seconds of each repeat."""

    core: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, core: float, wall: float) -> None:
        self.core.append(core)
        self.wall.append(wall)

    def summary(self) -> dict[str, Any]:
        """Medians and least core time in seconds, number of repeats."""
        return {
            "core": statistics.median(self.core),
            "core_min": min(self.core),
            "wall": statistics.median(self.wall),
            "repeats": len(self.core),
        }


Measure = Callable[[], tuple[float, float]]


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """(core, wall) seconds of one call. Its result is freed after the clocks stop."""
    wall, core = time.perf_counter(), time.process_time()
    result = call()
    core, wall = time.process_time() - core, time.perf_counter() - wall
    del result
    return core, wall


def measured(call: Callable[[], object]) -> Measure:
    """A call of this process, for `alternate`."""
    return lambda: measure(call)


def alternate(
    contestants: Mapping[str, Measure], repeats: int = 7, warmups: int = 1, settle: int = 0
) -> dict[str, Timing]:
    """Calls the contestants in turn; the first `warmups` rounds are not counted.

    `settle` uncounted calls go before each counted one. Beside calls of seconds in other processes
    use 1: a virtual machine gives their freed memory back to its host, and whoever touches it next
    pays for its return.
    """
    timings = {name: Timing() for name in contestants}
    for turn in range(warmups + repeats):
        for name, contestant in contestants.items():
            for _ in range(settle):
                contestant()
            seconds = contestant()
            if turn >= warmups:
                timings[name].add(*seconds)
    return timings


@contextlib.contextmanager
def pinned(cores: set[int] | None) -> Iterator[None]:
    """This thread, and the children it starts, on `cores` only. None,
    or a system that cannot pin: everywhere.
    """
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def last_core() -> set[int]:
    """The last core this process may use: the first ones are busiest on most machines."""
    return {max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else {0}


# --- correctness


def errors(kernel: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Largest |K - R| / sqrt(R_ii R_jj) of a square kernel, on its diagonal and off it."""
    scale = np.sqrt(np.diagonal(reference))
    error = np.abs(kernel - reference) / np.outer(scale, scale)
    diagonal = float(np.diagonal(error).max())
    np.fill_diagonal(error, 0)
    return {"off_diagonal": float(error.max()), "diagonal": diagonal}


def require(what: str, error: float, bound: float) -> None:
    """Stops the benchmark: nothing wrong is timed."""
    if not error <= bound:  # also when it is NaN
        raise SystemExit(
            f"{what}: error {error:.2g} exceeds {bound:.2g}; nothing is timed before this is right."
        )


# --- lower bounds


def syrk(x: np.ndarray) -> Measure:
    """BLAS's own symmetric X @ X.T (NumPy calls syrk for it): no kernel of x can cost less."""
    return measured(lambda: x @ x.T)


_FMA = """
typedef REAL vec __attribute__((vector_size(64)));
/* 16 independent chains hide the latency of 4 cycles on 2 ports twice over */
double fma_flops(long n) {
    vec a[16], m = (vec){} + (REAL)0.999, c = (vec){} + (REAL)1e-3;
    for (int i = 0; i < 16; ++i) a[i] = c * (REAL)i;
    for (long k = 0; k < n; ++k)
        for (int i = 0; i < 16; ++i) a[i] = a[i] * m + c;
    REAL sum = 0;
    for (int i = 0; i < 16; ++i) sum += a[i][0];
    return sum == 0 ? 0. : 2. * 16 * (64 / sizeof(REAL)) * n;
}
"""


def peak_fma(dtype: type = np.float32, repeats: int = 5) -> float | None:
    """GFLOP/s of one core doing nothing but multiply-adds in registers;
    None where there is no C compiler.
    """
    real = {"float32": "float", "float64": "double"}[np.dtype(dtype).name]
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "fma.c"), Path(folder, "fma.so")
        source.write_text(_FMA)
        flags = [
            "-O3",
            "-march=native",
            "-funroll-loops",
            "-ffp-contract=fast",
            "-fPIC",
            "-shared",
            f"-DREAL={real}",
        ]
        try:
            subprocess.run(["cc", *flags, "-o", library, source], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        function = ctypes.CDLL(str(library)).fma_flops
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_long]
    n = 10**7
    seconds = [measure(lambda: function(n))[0] for _ in range(repeats)]
    return float(function(1)) * n / min(seconds) / 1e9


# --- machine and results


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def _instruction_set(flags: set[str]) -> str:
    levels = {
        "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
        "x86-64-v3": {"avx2", "fma", "bmi2", "f16c"},
        "x86-64-v2": {"sse4_2", "ssse3", "popcnt"},
    }
    return next((name for name, needed in levels.items() if needed <= flags), platform.machine())


def _blas() -> list[dict[str, Any]]:
    try:
        import threadpoolctl
    except ImportError:
        return [{"name": "unknown: threadpoolctl is not installed"}]
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return [
        {
            "name": pool["internal_api"],
            "version": pool["version"],
            "threads": pool["num_threads"],
            "architecture": pool.get("architecture"),
        }
        for pool in pools
    ]


def machine() -> dict[str, Any]:
    """Processor, instruction set, cores, BLAS, versions, load."""
    cpu = _cpuinfo()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "instruction_set": _instruction_set(set(cpu.get("flags", "").split())),
        "cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "load": os.getloadavg()[0],
        "blas": _blas(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def facts() -> dict[str, Any]:
    """Date, machine, commit and command of a run."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "commit": _commit(),
        "machine": machine(),
    }


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Writes benchmarks/results/<name>.json, with date, machine, commit and command."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    save(path, {"name": name, **facts(), **results})
    return path


def save(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all: a time-out may come at any moment."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(record, indent=1, default=_plain) + "\n")
    new.replace(path)


def _plain(value: object) -> object:
    if isinstance(value, Timing):
        return value.summary()
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    raise TypeError(f"not for JSON: {type(value).__name__}")
