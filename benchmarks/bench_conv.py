"""Convolutional kernels: core time per pair beside the arithmetic's limit.

    python benchmarks/bench_conv.py [--repeats 7]

One core, float32, nngp and ntk together; medians of core time. A slot is one vector multiply-add at
the peak rate that the same run measured: "slots a point and layer" is the time in units that hold
on any machine. Correctness first.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import numpy as np
from harness import alternate, last_core, measured, peak_fma, pinned, require, write

import ntkcore as nk
from ntkcore import _core
from ntkcore.specs.layers import Serial
from ntkcore.specs.lowering import lower

BEST = nk.backends()[0]
LANES = 16


@dataclass(frozen=True)
class Job:
    """A network on images; the goal is in ms per pair."""

    name: str
    net: Serial
    size: int
    channels: int
    points: int  # of all planes and layers of one pair
    goal: float


JOBS = [
    Job("CNTK-20 GAP 32x32", nk.cntk(20), 32, 3, 20 * 32**4, 9.5),
    Job("CNTK-10 GAP 16x16", nk.cntk(10), 16, 3, 10 * 16**4, 0.35),
    Job("CNTK-5 GAP 32x32", nk.cntk(5), 32, 3, 5 * 32**4, 2.5),
    Job("Myrtle-5 32x32", nk.myrtle(5), 32, 3, 32**4 + 16**4 + 8**4, 1.6),
    Job("CNTK-20 Flatten 32x32", nk.cntk(20, "flatten"), 32, 3, 20 * 32**2, 0.014),
    Job("CNTK-5 GAP 8x8 digits", nk.cntk(5), 8, 1, 5 * 8**4, 0.016),
]


def images(job: Job, count: int, dtype: type = np.float32) -> np.ndarray:
    return (
        np.random.default_rng(0)
        .standard_normal((count, job.size, job.size, job.channels))
        .astype(dtype)
    )


def check(job: Job) -> float:
    """float32 against float64 on a few pairs;
    the float64 engine is checked in tests/test_images.py.
    """
    x = images(job, 2)
    single, double = (nk.kernel(job.net, x[:1], x[1:], dtype=t) for t in ("float32", "float64"))
    error = float(np.abs(single - double).max() / np.abs(double).max())
    require(job.name, error, 3e-6)
    return error


def milliseconds(job: Job, repeats: int, dtype: type = np.float32, backend: str = BEST) -> float:
    """Core time per pair of one strip of 16 images against 16 (one, where pairs are dear),
    the engine alone.
    """
    x = images(job, LANES, dtype)
    rows = LANES if job.points < 10**6 else 1
    strip = _core.Images(lower(job.net, x.shape[1:], wants_ntk=True), backend, x)
    nngp, ntk = np.empty((rows, LANES), dtype), np.empty((rows, LANES), dtype)
    call = measured(
        lambda: _core.evaluate_images(
            backend, strip, 0, strip, 0, [nngp], [ntk], [None], [None], False
        )
    )
    return statistics.median(alternate({"": call}, repeats)[""].core) / rows / LANES * 1e3


def two_threads(repeats: int) -> float:
    """Wall time of one thread over that of two, CNTK-10 GAP 16x16, 96 images."""
    x = images(JOBS[1], 96)
    calls = {str(n): measured(lambda n=n: nk.kernel(JOBS[1].net, x, threads=n)) for n in (1, 2)}
    timings = alternate(calls, min(repeats, 5))
    return min(timings["1"].wall) / min(timings["2"].wall)


def show(job: Job, found: dict[str, float]) -> None:
    ms, goal = found["ms"], job.goal
    verdict = "met" if ms <= goal else f"MISSED by {100 * (ms / goal - 1):.0f} %"
    slots = f"{found['slots']:5.1f} slots a point and layer"
    print(f"{job.name:24s} {ms:8.4f} ms a pair  goal {goal:6g} {verdict:14s} {slots}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    results: dict[str, dict[str, float]] = {}
    with pinned(last_core()):
        slots = (peak_fma(np.float32) or float("nan")) / 2 / LANES  # vector multiply-adds a ns
        print(f"peak: {slots:.2f} vector multiply-adds a ns")
        for job in JOBS:
            error, ms = check(job), milliseconds(job, repeats)
            used = ms * 1e6 / job.points * LANES * slots
            results[job.name] = {"ms": ms, "goal": job.goal, "slots": used, "error": error}
            show(job, results[job.name])
        cntk10, digits = JOBS[1], JOBS[5]
        ratios = {
            f"float64 over float32, {job.name}": milliseconds(job, 5, np.float64)
            / milliseconds(job, 5)
            for job in (cntk10, digits)
        }
        if "x86-64-v3" in nk.backends()[1:]:
            ratios["AVX2 over AVX-512"] = milliseconds(
                cntk10, 5, backend="x86-64-v3"
            ) / milliseconds(cntk10, 5)
    ratios["two threads"] = two_threads(repeats)
    for name, value in ratios.items():
        print(f"{name:45s} {value:.2f} x")
    print(
        f"written: {write('conv', {'peak_slots_per_ns': slots, 'jobs': results, 'ratios': ratios})}"
    )


if __name__ == "__main__":
    main()
