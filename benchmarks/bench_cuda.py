"""On a GPU: kernels of images, of vectors, and solvers,
beside what the hardware allows and CuPy's own calls.

    python benchmarks/bench_cuda.py [--only images,vectors,solvers] [--quick] [--out FOLDER]
        [--section bench]

Correctness first: every job's timed result is compared with the CPU engine in float64, within 2e-6
of its largest entry (float32). Data and results lie on the device. Times are medians: whole calls
between events and by the wall clock; the engine alone, between events around its calls, that is
without tables made on the host and without products of vectors. Limits are those of today's kernels
at the clock measured during the job. Written after every job, to a section of cuda.json: builds to
compare get one each.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cuda_machine import Clock, Record, copy_rate, device, free, once, require_gpu, timed

import ntkcore as nk
from ntkcore.specs.layers import Serial

GET = ("nngp", "ntk")
# Clocks of a multiprocessor for one layer of 32 points, by the image's side (sm_90,
# tools/sass_report.py). Instructions start 4 a clock; loads, stores, shuffles share a pipe of 4
# bytes a lane and clock; roots and reciprocals take 2 each.
CLOCKS = {
    "issue": {32: 30.2 / 4, 16: 29.5 / 4, 8: 31.4 / 4},
    "lsu": {32: 4.53, 16: 4.41, 8: 4.81},
    "roots": {32: 4.0, 16: 4.0, 8: 4.0},
}
# Of the state, per axis 1 of 2 rows at even displacements and all at odd ones: what a pool reads.
POOL_PARTS = 9 / 16
BOUNDS = {"float32": 2e-6, "float64": 1e-12}  # error over the largest entry
FC_GOAL = 1.1


# --- images


@dataclass(frozen=True)
class Job:
    """A network on square images; the goal is in microseconds a pair."""

    name: str
    net: Serial
    side: int
    images: int
    layers: dict[int, int]  # 3x3 convolutions with ReLU, by the side at which they stand
    goal: float | None
    dtype: str = "float32"
    flat: bool = False  # one displacement of side^2 points, else side^2 of them

    def points(self) -> dict[int, int]:
        """Points of all displacements and layers of a pair, by side."""
        return {
            side: count * side ** (2 if self.flat else 4) for side, count in self.layers.items()
        }

    def moved(self) -> int:
        """Bytes of K and T that a pair writes and reads at each pool: partial sums before it,
        the state after it.
        """
        bytes_a_point = 2 * np.dtype(self.dtype).itemsize
        sides = [] if len(self.layers) == 1 else list(self.layers)
        return sum(
            2 * bytes_a_point * int(POOL_PARTS * side**4 + (side // 2) ** 4) for side in sides
        )


JOBS = [
    Job("CNTK-20 GAP 32x32", nk.cntk(20), 32, 96, {32: 20}, 35),
    Job("CNTK-10 GAP 16x16", nk.cntk(10), 16, 384, {16: 10}, 2.2),
    Job("Myrtle-10", nk.myrtle(10), 32, 192, {32: 2, 16: 3, 8: 3}, 7),
    Job("Myrtle-5", nk.myrtle(5), 32, 192, {32: 1, 16: 1, 8: 1}, 5),
    Job("CNTK-20 Flatten 32x32", nk.cntk(20, "flatten"), 32, 2048, {32: 20}, 0.06, flat=True),
    Job("CNTK-5 GAP 16x16, float64", nk.cntk(5), 16, 256, {16: 5}, None, "float64"),
]


def images(count: int, side: int, dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, side, side, 3)).astype(dtype)


def limits(job: Job, chip: dict[str, Any], mhz: float, copies: float) -> dict[str, float]:
    """Microseconds a pair if one thing alone bound: a pipe of the multiprocessors,
    or memory (not held by L2).
    """
    found = {"memory": 1e6 * job.moved() / copies}
    if job.dtype == "float32":  # double's root is a program of its own: not counted
        for what, clocks in CLOCKS.items():
            total = sum(clocks[side] * count / 32 for side, count in job.points().items())
            found[what] = total / (chip["multiprocessors"] * mhz)
    return found


def compare(name: str, ours: Any, reference: Any, dtype: str) -> float:
    """Largest error over the largest entry; raises where it is too large."""
    error = max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, reference, strict=True)
    )
    if not error <= BOUNDS[dtype]:
        raise WrongError(f"{name}: error {error:.2g} exceeds {BOUNDS[dtype]:.0e}: not timed")
    return error


class WrongError(Exception):
    """A result that must not be timed."""


def corners(cupy: Any, kernels: Any, few: int) -> list[np.ndarray]:
    """First and last entries of a kernel, side by side."""
    return [cupy.asnumpy(cupy.hstack([k[:few, :few], k[-few:, -few:]])) for k in kernels]


def image_error(cupy: Any, job: Job, x: np.ndarray, z: np.ndarray, few: int = 3) -> float:
    """The job's own result in two corners, and a small symmetric kernel,
    against float64 on the CPU.
    """
    ours = corners(cupy, nk.kernel(job.net, cupy.asarray(x), cupy.asarray(z), GET), few)
    ends = [
        nk.kernel(job.net, x[at], z[at], GET, dtype="float64") for at in (np.s_[:few], np.s_[-few:])
    ]
    across = compare(
        job.name, ours, [np.hstack(pair) for pair in zip(*ends, strict=True)], job.dtype
    )
    small = [cupy.asnumpy(k) for k in nk.kernel(job.net, cupy.asarray(x[:few]), None, GET)]
    square = nk.kernel(job.net, x[:few], None, GET, dtype="float64")
    return max(across, compare(f"{job.name}, symmetric", small, square, job.dtype))


def image_job(
    cupy: Any, clock: Clock, job: Job, fraction: float, copies: float
) -> tuple[str, dict[str, Any]]:
    count = max(4, int(job.images * fraction))
    x, z = images(count, job.side, job.dtype), images(count, job.side, job.dtype, 1)
    error = image_error(cupy, job, x, z)
    x, z = cupy.asarray(x), cupy.asarray(z)
    found = timed(cupy, clock, lambda: nk.kernel(job.net, x, z, GET)).summary()
    chip = device(cupy)
    bound = limits(job, chip, found["mhz"] or chip["mhz_highest"], copies)
    per_pair = {what: 1e6 * found[what] / count**2 for what in ("seconds", "wall", "engine")}
    start = time.perf_counter()
    nk.kernel(job.net, x, None, GET)
    cupy.cuda.Device().synchronize()
    symmetric = 1e6 * (time.perf_counter() - start) / (count * (count + 1) / 2)
    us = per_pair["seconds"]
    line = (
        f"{us:9.4f} us a pair {verdict(us, job.goal)}; wall {per_pair['wall']:.4f}, engine"
        f" {per_pair['engine']:.4f}, with itself {symmetric:.4f}; limits"
        f" {', '.join(f'{k} {v:.4f}' for k, v in bound.items())}; 50 000 images"
        f" {us * 1e-6 * 50_000**2 / 2 / 3600:.2f} h; error {error:.1e}"
    )
    entry = {
        "us": us,
        "goal": job.goal,
        "per_pair": per_pair,
        "symmetric": symmetric,
        "limits": bound,
        "error": error,
    }
    return line, {**entry, "images": count, "times": found}


def verdict(value: float, goal: float | None) -> str:
    return "" if goal is None else f"(goal {goal:g}: {'met' if value <= goal else 'MISSED'})"


# --- vectors


def vector_job(
    cupy: Any, clock: Clock, N: int, dtype: str, goal: float | None, copies: float
) -> tuple[str, dict[str, Any]]:
    """The whole call over CuPy's bare product of the same size, which computes both triangles."""
    net, rng = nk.mlp(3), np.random.default_rng(0)
    x = rng.standard_normal((N, 784)).astype(dtype)
    few, given = min(500, N), cupy.asarray(x)
    single = [cupy.asnumpy(k) for k in nk.kernel(net, given[:few], None, GET)]
    error = compare("FC", single, nk.kernel(net, x[:few], None, GET, dtype="float64"), dtype)
    ours = corners(cupy, [nk.kernel(net, given)], few // 2)
    ends = [
        nk.kernel(net, x[at], dtype="float64") for at in (np.s_[: few // 2], np.s_[-(few // 2) :])
    ]
    error = max(error, compare("FC, whole", ours, [np.hstack(ends)], dtype))
    product = timed(cupy, clock, lambda: given @ given.T).summary()
    free(cupy)
    whole = timed(cupy, clock, lambda: nk.kernel(net, given)).summary()
    free(cupy)
    ratio = whole["seconds"] / product["seconds"]
    # One triangle of products written and read, the result written.
    memory = 2 * N * N * np.dtype(dtype).itemsize / copies
    line = (
        f"{1e3 * whole['seconds']:9.2f} ms, CuPy's product {1e3 * product['seconds']:.2f} ms:"
        f" {ratio:.2f} x {verdict(ratio, goal)}; wall {1e3 * whole['wall']:.2f}, engine"
        f" {1e3 * whole['engine']:.2f}; limits product of one triangle"
        f" {500 * product['seconds']:.2f}, memory {1e3 * memory:.2f}; error {error:.1e}"
    )
    entry = {
        "ratio": ratio,
        "goal": goal,
        "seconds": whole["seconds"],
        "product": product["seconds"],
        "error": error,
    }
    return line, {**entry, "limits": {"memory": memory}, "times": whole, "times_product": product}


def host_job(cupy: Any, N: int) -> tuple[str, dict[str, Any]]:
    """NumPy in, NumPy out, beside a copy of as many bytes from the device to pinned memory."""
    x = np.random.default_rng(0).standard_normal((N, 784)).astype(np.float32)
    nk.kernel(nk.mlp(3), x[:4096], backend="cuda")
    start = time.perf_counter()
    nk.kernel(nk.mlp(3), x, backend="cuda")
    wall = time.perf_counter() - start
    there, here = cupy.ones((N, N), np.float32), cupy.cuda.alloc_pinned_memory(4 * N * N)
    start = time.perf_counter()
    there.get(out=np.frombuffer(here, np.float32, N * N).reshape(N, N))
    copy = time.perf_counter() - start
    return f"{wall:9.3f} s, a pinned copy of the result {copy:.3f} s", {
        "seconds": wall,
        "copy": copy,
    }


# --- solvers


def smooth_data(N: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Vectors near a 10-dimensional surface, in 10 classes:
    their kernel's eigenvalues decay as real data's do.
    """
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((N, 10))
    x = np.tanh(hidden @ rng.standard_normal((10, 784))) + 0.1 * rng.standard_normal((N, 784))
    return x.astype(dtype), np.eye(10)[(hidden @ rng.standard_normal((10, 10))).argmax(1)] - 0.1


def cholesky_job(cupy: Any, N: int) -> tuple[str, dict[str, Any]]:
    """ntkcore.linalg.solve.Cholesky on a CuPy kernel of float64,
    beside CuPy's own factorisation.
    """
    from ntkcore.linalg.cholesky import Cholesky

    x, Y = smooth_data(N, "float64")
    K = nk.kernel(nk.mlp(3), cupy.asarray(x))
    targets = cupy.asarray(Y)
    free(cupy)
    ridge = 1e-3 * float(K.diagonal().mean())
    Cholesky(K[:512, :512].copy(), ridge).solve(targets[:512])  # loads the libraries
    factor, seconds = once(cupy, lambda: Cholesky(K, ridge))
    A, solve_seconds = once(cupy, lambda: factor.solve(targets))
    residual = float(cupy.linalg.norm(K @ A + ridge * A - targets) / cupy.linalg.norm(targets))
    factor = A = None  # their memory is needed
    free(cupy)
    if not residual <= 1e-9:
        raise WrongError(f"Cholesky: relative residual {residual:.1e}")
    at = cupy.arange(N)
    K[at, at] += ridge
    own = once(cupy, lambda: cupy.linalg.cholesky(K))[1]
    rate = N**3 / 3 / own / 1e12
    line = (
        f"{seconds:9.3f} s, CuPy's {own:.3f} s ({rate:.0f} TFLOP/s); solving for 10 columns"
        f" {solve_seconds:.3f} s; residual {residual:.1e}"
    )
    return line, {"seconds": seconds, "cupy": own, "solve": solve_seconds, "residual": residual}


def pcg_job(cupy: Any, N: int) -> tuple[str, dict[str, Any]]:
    """cg on a CuPy kernel of float32, 10 columns, beside CuPy's bare products of as many passes."""
    from ntkcore.linalg.cg import cg
    from ntkcore.linalg.operators import InMemory

    x, Y = smooth_data(N, "float32")
    K = nk.kernel(nk.mlp(3), cupy.asarray(x))
    free(cupy)
    cg(InMemory(K[:512, :512].copy()), Y[:512], 1e-3, relative=True, rank=64)  # loads the libraries
    operator = InMemory(K)
    found, seconds = once(
        cupy, lambda: cg(operator, Y, 1e-3, relative=True, rtol=1e-6, rank=min(2000, N // 4))
    )
    if not found.converged:
        raise WrongError(f"cg: not converged, residual {found.residuals.max():.1e}")
    V = cupy.asarray(Y, np.float32)
    own = statistics.median(once(cupy, lambda: K @ V)[1] for _ in range(3))
    line = (
        f"{seconds:9.3f} s, {found.iterations} iterations, {found.passes:.1f} passes,"
        f" {seconds / found.passes:.4f} s a pass; CuPy's product with 10 columns {own:.4f} s"
    )
    entry = {
        "seconds": seconds,
        "iterations": found.iterations,
        "passes": found.passes,
        "cupy_product": own,
    }
    return line, {**entry, "residual": float(found.residuals.max())}


# --- all jobs


def jobs(
    cupy: Any, clock: Clock, only: set[str], fraction: float
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, call giving (line, entry)), the most valuable first."""
    copies = copy_rate(cupy, int(2**31 * fraction) // 4 * 4)

    def scaled(N: int) -> int:
        return max(600, int(N * math.sqrt(fraction)))

    if "images" in only:
        for job in JOBS:
            yield job.name, lambda job=job: image_job(cupy, clock, job, fraction, copies)
    if "vectors" in only:
        for N, dtype, goal in (
            (50_000, "float32", FC_GOAL),
            (20_000, "float32", FC_GOAL),
            (10_000, "float64", None),
        ):
            given = scaled(N), dtype, goal, copies
            yield f"FC N={given[0]}, {dtype}", lambda given=given: vector_job(cupy, clock, *given)
    if "solvers" in only:
        N, M = scaled(40_000), scaled(20_000)
        yield f"Cholesky N={N}, float64", lambda: cholesky_job(cupy, N)
        yield f"PCG N={N}, float32", lambda: pcg_job(cupy, N)
        yield f"FC N={M}, NumPy to NumPy", lambda: host_job(cupy, M)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", default="images,vectors,solvers", help="groups of jobs, by default %(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="small jobs; nothing is written")
    parser.add_argument(
        "--fraction",
        type=float,
        default=1.0,
        help="of the pairs of every job, to try this file out",
    )
    parser.add_argument(
        "--out", type=Path, help="where cuda.json is written; by default benchmarks/results"
    )
    parser.add_argument("--section", default="bench", help="of cuda.json, by default %(default)s")
    options = parser.parse_args()
    cupy = require_gpu()
    fraction = 0.05 if options.quick else options.fraction
    record = None if options.quick else Record(cupy, options.section, options.out)
    wrong, missed, done, began = [], [], 0, time.perf_counter()
    print(f"{device(cupy)['name']}, driver {device(cupy)['driver']}", flush=True)
    with Clock(cupy) as clock:
        for name, call in jobs(cupy, clock, set(options.only.split(",")), fraction):
            start = time.perf_counter()
            try:
                line, entry = call()
            except Exception as error:  # the next job may go
                line, entry = f"FAILED: {type(error).__name__}: {error}", {"failed": str(error)}
                wrong.append(name)
            done += 1
            missed += [name] if "MISSED" in line else []
            print(f"{name:26s} {line}  [{time.perf_counter() - start:.1f} s]", flush=True)
            if record:
                record.add(name, entry)
            free(cupy)
    seconds = time.perf_counter() - began
    print(f"{done} jobs in {seconds:.0f} s; failed: {', '.join(wrong) or 'none'}")
    print(f"goals missed: {', '.join(missed) or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
