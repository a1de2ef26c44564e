"""The GPU of a benchmark: its name and driver, its clock under load, times on it,
results written after every job.

Nothing here changes the card's settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from harness import NO_GPU, RESULTS, facts, save

# Read when CuPy is imported: its products shall be float32 as ntkcore's are.
os.environ["CUPY_TF32"] = "0"


def require_gpu() -> Any:
    """CuPy, or the end of the program with a line that says why there is no GPU to use."""
    from ntkcore.engine.backends import cuda_problem

    if problem := cuda_problem():
        print(f"no usable GPU: {problem}", file=sys.stderr)
        sys.exit(NO_GPU)
    import cupy

    return cupy


def bus(cupy: Any) -> str:
    return str(cupy.cuda.Device().pci_bus_id)


def smi(cupy: Any, query: str) -> str:
    """One answer of nvidia-smi about this device; empty where there is none."""
    command = [
        "nvidia-smi",
        "-i",
        bus(cupy),
        f"--query-gpu={query}",
        "--format=csv,noheader,nounits",
    ]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    return ""


def device(cupy: Any) -> dict[str, Any]:
    """Name, driver, CUDA and CuPy, multiprocessors, highest clock, memory."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    attributes = cupy.cuda.Device().attributes
    return {
        "name": properties["name"].decode(),
        "driver": smi(cupy, "driver_version"),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "multiprocessors": attributes["MultiProcessorCount"],
        "mhz_highest": attributes["ClockRate"] / 1e3,
        "memory": properties["totalGlobalMem"],
    }


# --- the clock


class Clock:
    """Samples the multiprocessors' clock on a thread: `with Clock(cupy) as clock:
    ...; clock.mhz(start, end)`.
    """

    def __init__(self, cupy: Any, every: float = 0.02) -> None:
        self.every = every
        self.samples: list[tuple[float, float]] = []  # (time.perf_counter(), MHz)
        self.read = self._nvml(cupy) or (lambda: float(smi(cupy, "clocks.sm")))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @staticmethod
    def _nvml(cupy: Any) -> Callable[[], float] | None:
        """NVML's reading of the clock, where its Python package is."""
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus(cupy))
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        # Not installed, or its library is not there: nvidia-smi answers, more slowly.
        except Exception:
            return None
        return lambda: float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))

    def _sample(self) -> None:
        while not self._over.wait(self.every):
            # A clock that cannot be read must not end the measurement.
            with contextlib.suppress(Exception):
                self.samples.append((time.perf_counter(), self.read()))

    def __enter__(self) -> Clock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(1)

    def mhz(self, start: float, end: float) -> float | None:
        """Median between two moments of time.perf_counter(); None without a sample."""
        found = [mhz for at, mhz in list(self.samples) if start <= at <= end]
        return statistics.median(found) if found else None


# --- time


@dataclass
class Times:
    """Seconds of each repeat: the whole call between events and by the wall clock,
    the engine alone, and the clock.
    """

    events: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    mhz: float | None = None

    def summary(self) -> dict[str, Any]:
        """Medians in seconds; the number of repeats and their spread, (largest - least)
        / median.
        """
        whole = statistics.median(self.events)
        return {
            "seconds": whole,
            "wall": statistics.median(self.wall),
            "engine": statistics.median(self.engine),
            "repeats": len(self.events),
            "spread": (max(self.events) - min(self.events)) / whole,
            "mhz": self.mhz,
        }


def timed(
    cupy: Any, clock: Clock, call: Callable[[], object], repeats: int = 5, most: float = 3.0
) -> Times:
    """A call's times, after one call that warms up;
    fewer repeats where they would take more than `most` seconds.
    """
    call()
    times, start = Times(), time.perf_counter()
    while len(times.events) < repeats and (
        not times.wall or time.perf_counter() - start + times.wall[-1] < most
    ):
        cupy.cuda.Device().synchronize()
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        wall = time.perf_counter()
        before.record()
        with engine_calls(cupy) as calls:
            result = call()
        after.record()
        after.synchronize()
        times.wall.append(time.perf_counter() - wall)
        times.events.append(cupy.cuda.get_elapsed_time(before, after) / 1e3)
        times.engine.append(
            union([[cupy.cuda.get_elapsed_time(before, e) / 1e3 for e in pair] for pair in calls])
        )
        del result
    times.mhz = clock.mhz(start, time.perf_counter())
    return times


def once(cupy: Any, call: Callable[[], Any]) -> tuple[Any, float]:
    """(result, seconds of wall time until the device is done)."""
    cupy.cuda.Device().synchronize()
    start = time.perf_counter()
    result = call()
    cupy.cuda.Device().synchronize()
    return result, time.perf_counter() - start


@contextlib.contextmanager
def engine_calls(cupy: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Events before and after every call of the extension's evaluate... functions,
    on the stream each runs on.

    What lies outside of them: tables made on the host, products of vectors, copies.
    """
    from ntkcore import _cuda

    found: list[tuple[Any, Any]] = []

    def between_events(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            pair = cupy.cuda.Event(), cupy.cuda.Event()
            pair[0].record()
            result = function(*args, **kwargs)
            pair[1].record()
            found.append(pair)
            return result

        return call

    with contextlib.ExitStack() as stack:
        for name in [name for name in dir(_cuda) if name.startswith("evaluate")]:
            stack.enter_context(
                mock.patch.object(_cuda, name, between_events(getattr(_cuda, name)))
            )
        yield found


def union(intervals: list[list[float]]) -> float:
    """Length of the union: two streams at work at a time count once."""
    total, end = 0.0, float("-inf")
    for a, b in sorted(intervals):
        total += max(b - max(a, end), 0)
        end = max(end, b)
    return total


def copy_rate(cupy: Any, nbytes: int = 2**31) -> float:
    """Bytes a second, read and written, of a copy on the device:
    the bandwidth that its memory really has.
    """
    a, b, found = cupy.ones(nbytes // 4, "float32"), cupy.empty(nbytes // 4, "float32"), []
    for _ in range(4):
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        before.record()
        b[...] = a
        after.record()
        after.synchronize()
        found.append(cupy.cuda.get_elapsed_time(before, after) / 1e3)
    return 2 * nbytes / min(found[1:])


# --- memory and results


def free(cupy: Any) -> None:
    """Memory that CuPy keeps for reuse goes back to the device."""
    cupy.get_default_memory_pool().free_all_blocks()


class Record:
    """One section of <folder>/cuda.json, written anew after every entry;
    other sections stay as they are.
    """

    def __init__(self, cupy: Any, section: str, folder: Path | None) -> None:
        folder = folder or RESULTS
        folder.mkdir(exist_ok=True)
        self.path, self.section = folder / "cuda.json", section
        self.content: dict[str, Any] = {**facts(), "device": device(cupy), "jobs": {}}

    def add(self, name: str, entry: Any) -> None:
        self.content["jobs"][name] = entry
        everything = json.loads(self.path.read_text()) if self.path.exists() else {}
        save(self.path, {**everything, self.section: self.content})
