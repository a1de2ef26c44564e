"""Convolutional kernels: core time per pair beside the arithmetic's limit, and beside neural-tangents.

    python benchmarks/bench_conv.py [--no-peer] [--repeats 7]

Goals are those of the project's issue 3; one core, float32, nngp and ntk together; medians of core time. The peer is
neural-tangents stock and in its strongest form (nt_worker.py). Correctness first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
from harness import alternate, last_core, measured, peak_fma, pinned, require, write
from nt_worker import Peer, Spelling, environment

import ntkcore as nk
from ntkcore import _core
from ntkcore.layers import Serial
from ntkcore.lowering import lower

BEST = nk.backends()[0]
LANES = 16
CONV_RELU = "stax.Conv(1, (3, 3), padding='SAME', W_std=2**.5), stax.Relu()"
POOL = "stax.AvgPool((2, 2), strides=(2, 2))"


def cntk_spelling(depth: int, head: str) -> str:
    return f"stax.serial({', '.join([CONV_RELU] * depth)}, stax.{head}(), stax.Dense(1, 2**.5))"


MYRTLE_5 = f"stax.serial({CONV_RELU}, {POOL}, {CONV_RELU}, {POOL}, {CONV_RELU}, {', '.join([POOL] * 3)}, stax.Flatten(), stax.Dense(1, 2**.5))"


@dataclass(frozen=True)
class Job:
    """A network on images; goals: ms per pair, and times less core time than the strongest peer."""

    name: str
    net: Serial
    size: int
    channels: int
    points: int  # of all planes and layers of one pair
    goal: float
    spelling: str = ""
    peer_images: int = 2
    peer_goal: float = 0


JOBS = [
    Job("CNTK-20 GAP 32x32", nk.cntk(20), 32, 3, 20 * 32**4, 9.5),
    Job("CNTK-10 GAP 16x16", nk.cntk(10), 16, 3, 10 * 16**4, 0.35, cntk_spelling(10, "GlobalAvgPool"), 4, 35),
    Job("CNTK-5 GAP 32x32", nk.cntk(5), 32, 3, 5 * 32**4, 2.5, cntk_spelling(5, "GlobalAvgPool"), 2, 50),
    Job("Myrtle-5 32x32", nk.myrtle(5), 32, 3, 32**4 + 16**4 + 8**4, 1.6, MYRTLE_5, 2, 35),
    Job(
        "CNTK-20 Flatten 32x32", nk.cntk(20, "flatten"), 32, 3, 20 * 32**2, 0.014, cntk_spelling(20, "Flatten"), 32, 15
    ),
    Job("CNTK-5 GAP 8x8 digits", nk.cntk(5), 8, 1, 5 * 8**4, 0.016),
]


def images(job: Job, count: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, job.size, job.size, job.channels)).astype(dtype)


def check(job: Job) -> float:
    """float32 against float64 on a few pairs; the float64 engine is checked in tests/test_images.py."""
    x = images(job, 2)
    single, double = (nk.kernel(job.net, x[:1], x[1:], dtype=t) for t in ("float32", "float64"))
    error = float(np.abs(single - double).max() / np.abs(double).max())
    require(job.name, error, 3e-6)
    return error


def milliseconds(job: Job, repeats: int, dtype: type = np.float32, backend: str = BEST) -> float:
    """Core time per pair of one strip of 16 images against 16 (one, where pairs are dear), the engine alone."""
    x = images(job, LANES, dtype)
    rows = LANES if job.points < 10**6 else 1
    strip = _core.Images(lower(job.net, x.shape[1:], wants_ntk=True), backend, x)
    nngp, ntk = np.empty((rows, LANES), dtype), np.empty((rows, LANES), dtype)
    call = measured(lambda: _core.evaluate_images(backend, strip, 0, strip, 0, [nngp], [ntk], [None], [None], False))
    return statistics.median(alternate({"": call}, repeats)[""].core) / rows / LANES * 1e3


def two_threads(repeats: int) -> float:
    """Wall time of one thread over that of two, CNTK-10 GAP 16x16, 96 images."""
    x = images(JOBS[1], 96)
    calls = {str(n): measured(lambda n=n: nk.kernel(JOBS[1].net, x, threads=n)) for n in (1, 2)}
    timings = alternate(calls, min(repeats, 5))
    return min(timings["1"].wall) / min(timings["2"].wall)


def own_extra_bytes(job: Job) -> int:
    """Peak memory above that after the imports, of a process that computes the peer's job."""
    code = (
        "import resource, sys, numpy as np, ntkcore as nk\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "x = np.load(sys.argv[1]); start = peak()\n"
        "nk.kernel(nk.from_json(sys.argv[2]), x, x.copy(), ('nngp', 'ntk'), threads=1)\n"
        "print(1024 * (peak() - start))"
    )
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, images(job, job.peer_images))
        return int(subprocess.check_output([sys.executable, "-c", code, file.name, job.net.to_json()]))


def against_peer(job: Job, python: str, own: float) -> dict[str, float]:
    x = images(job, job.peer_images)
    ours = nk.kernel(job.net, x, x.copy(), ("nngp", "ntk"), dtype="float64")
    found: dict[str, float] = {}
    for form in ("stock", "strongest"):
        with Peer(python, {"serial": job.spelling}, x, shift_add=form == "strongest") as peer:
            spelling = Spelling("serial", ("nngp", "ntk"), x2=True)
            theirs = peer.kernels()
            off = ~np.eye(len(x), dtype=bool)
            error = np.abs(theirs["ntk"] - ours.ntk)[off].max() / np.abs(ours.ntk).max()
            require(f"{job.name}, neural-tangents {form}", float(error), 1e-4)
            seconds = [peer.seconds(spelling)[0] for _ in range(3)]
            found[form] = statistics.median(seconds) / len(x) ** 2 * 1e3
            found[f"{form} extra MB"] = peer.extra_bytes() / 1e6
    found["own extra MB"] = max(own_extra_bytes(job), 1) / 1e6
    found["ratio to stock"] = found["stock"] / own
    found["ratio to strongest"] = found["strongest"] / own
    found["memory ratio"] = found["strongest extra MB"] / found["own extra MB"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--no-peer", action="store_true", help="ntkcore alone")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    with pinned(last_core()):
        peak = peak_fma(np.float32)
        slots = (peak or float("nan")) / 2 / LANES  # vector multiply-adds a ns
        print(f"peak: {slots:.2f} vector multiply-adds a ns")
        for job in JOBS:
            error = check(job)
            ms = milliseconds(job, options.repeats)
            ops = ms * 1e6 / job.points * LANES * slots
            verdict = "met" if ms <= job.goal else f"MISSED by {100 * (ms / job.goal - 1):.0f} %"
            print(
                f"{job.name:24s} {ms:8.4f} ms a pair  goal {job.goal:6g} {verdict:14s} {ops:5.1f} slots a point and layer"
            )
            results[job.name] = {"ms": ms, "goal": job.goal, "slots": ops, "error": error}
        ratios = {
            "float64 over float32, CNTK-10": milliseconds(JOBS[1], 5, np.float64) / milliseconds(JOBS[1], 5),
            "float64 over float32, digits": milliseconds(JOBS[5], 5, np.float64) / milliseconds(JOBS[5], 5),
        }
        if "x86-64-v3" in nk.backends()[1:]:
            ratios["AVX2 over AVX-512, CNTK-10"] = milliseconds(JOBS[1], 5, backend="x86-64-v3") / milliseconds(
                JOBS[1], 5
            )
    ratios["two threads, CNTK-10"] = two_threads(options.repeats)
    for name, value in ratios.items():
        print(f"{name:32s} {value:.2f} x")
    if not options.no_peer:
        python = environment()
        with pinned(last_core()):
            for job in JOBS:
                if job.spelling:
                    found = against_peer(job, python, float(results[job.name]["ms"]))  # type: ignore[arg-type]
                    results[job.name]["peer"] = found
                    met = "met" if found["ratio to strongest"] >= job.peer_goal else "MISSED"
                    print(
                        f"{job.name:24s} stock {found['stock']:8.2f} ms, {found['ratio to stock']:6.0f} x; strongest "
                        f"{found['strongest']:8.2f} ms, {found['ratio to strongest']:5.0f} x (goal {job.peer_goal:g} {met}); "
                        f"memory {found['memory ratio']:.0f} x less"
                    )
    print(f"written: {write('conv', {'peak_slots_per_ns': slots, 'jobs': results, 'ratios': ratios})}")


if __name__ == "__main__":
    main()
