"""Fully connected kernels: accuracy in float32, the recursion alone,
the whole call beside BLAS, threads.

    python benchmarks/bench_fc.py [--repeats 9]

Accuracy first; nothing wrong is timed. Goals are those of the project's issue 2;
medians of core time, one core.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from harness import (
    Timing,
    alternate,
    errors,
    last_core,
    measured,
    peak_fma,
    pinned,
    require,
    syrk,
    write,
)
from threadpoolctl import threadpool_limits

import ntkcore as nk
from ntkcore import _core
from ntkcore.specs.lowering import lower

N, D = 4000, 784
BLOCK = _core.STRIP
# Multiply, add and root slots of one vector of pairs in the plain step of csrc/cpu/chain.h: 6 + 5
# for A and C, 3 to apply them, 1 for t; the subtractions go to ports of their own where there are
# any.
FMA_SLOTS = 15


def accuracy() -> dict[str, float]:
    """Errors of float32 against float64, relative to sqrt(K_ii K_jj)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 50))
    deep = errors(
        nk.kernel(nk.mlp(30), x.astype(np.float32)),
        nk.kernel(nk.mlp(30), x.astype(np.float32), dtype="float64"),
    )
    twins = np.concatenate([x, x + 1e-3 * rng.standard_normal(x.shape)]).astype(np.float32)
    low, high = (
        np.linalg.eigvalsh(nk.kernel(nk.mlp(10), twins, dtype=t).astype(float))
        for t in ("float32", "float64")
    )
    found = {
        "depth 30, diagonal": deep["diagonal"],
        "depth 30, off the diagonal": deep["off_diagonal"],
        "near-duplicates, depth 10: |change of lambda_min| / lambda_max": (
            abs(low[0] - high[0]) / high[-1]
        ),
    }
    for (what, error), bound in zip(found.items(), (1e-6, 1e-6, 1e-5), strict=True):
        require(what, error, bound)
    return found


def recursion(net: nk.Serial, dtype: type, backend: str) -> tuple[Timing, int]:
    """One tile of BLOCK x BLOCK pairs, the products given: the engine alone.
    Returns times and pairs per call.
    """
    rng = np.random.default_rng(1)
    points = _core.Vectors(
        lower(net, (64,), wants_ntk=True), rng.standard_normal((BLOCK, 64)).astype(dtype)
    )
    dot = np.clip(rng.standard_normal((BLOCK, BLOCK)) / 5, -0.9, 0.9).astype(dtype)
    nngp, ntk = np.empty((BLOCK, BLOCK), dtype), np.empty((BLOCK, BLOCK), dtype)

    def calls() -> None:
        for _ in range(20):
            _core.evaluate(backend, points, 0, points, 0, dot, [nngp], [ntk], [None], [None], False)

    return alternate({"recursion": measured(calls)}, repeats=15)["recursion"], 20 * BLOCK**2


def nanoseconds(depth: int, b_std: float | None, dtype: type, backend: str) -> float:
    timing, pairs = recursion(nk.mlp(depth, b_std=b_std), dtype, backend)
    return statistics.median(timing.core) / pairs / depth * 1e9


def whole_call(repeats: int) -> dict[str, Timing]:
    x = np.random.default_rng(2).standard_normal((N, D)).astype(np.float32)
    contestants = {"BLAS X @ X.T": syrk(x)}
    for depth in (3, 10):
        for get in ("ntk", ("nngp", "ntk")):
            call = lambda depth=depth, get=get: nk.kernel(nk.mlp(depth), x, get=get, threads=1)  # noqa: E731
            contestants[f"L={depth} {get}"] = measured(call)
    with threadpool_limits(1):
        return alternate(contestants, repeats)


def two_threads(repeats: int) -> float:
    """Wall time of one thread over that of two."""
    x = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)
    out = np.empty((N, N), np.float32)
    calls = {n: measured(lambda n=n: nk.kernel(nk.mlp(3), x, threads=n, out=out)) for n in (1, 2)}
    timings = alternate({str(n): call for n, call in calls.items()}, repeats)
    return min(timings["1"].wall) / min(timings["2"].wall)


def show(what: str, value: float, goal: float, unit: str = "", at_least: bool = False) -> None:
    met = value >= goal if at_least else value <= goal
    print(
        f"  {what:62s} {value:9.3g}{unit}   goal {'>=' if at_least else '<='} {goal:g} "
        f" {'met' if met else 'MISSED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print("accuracy, float32 against float64")
    found = accuracy()
    for (what, error), bound in zip(found.items(), (1e-6, 1e-6, 1e-5), strict=True):
        show(what, error, bound)
    with pinned(last_core()):
        peak = peak_fma(np.float32)
        speeds = {
            f"{np.dtype(dtype).name} {backend}{' with bias' if bias else ''}": nanoseconds(
                10, bias, dtype, backend
            )
            for dtype in (np.float32, np.float64)
            for backend in nk.backends()
            for bias in (None, 0.1)
        }
        calls = whole_call(repeats)
    best = nk.backends()[0]
    print("the recursion alone, nngp and ntk, ns of core time per pair and hidden ReLU layer")
    show(f"float32 {best}", speeds[f"float32 {best}"], 0.35, " ns")
    limit = FMA_SLOTS * 2 / peak if peak else float("nan")
    print(
        f"  limit: {FMA_SLOTS} multiply-add slots at {peak or 0:.0f} GFLOP/s measured:"
        f" {limit:.3f} ns"
    )
    for name, value in list(speeds.items())[1:]:
        print(f"  {name:62s} {value:9.3g} ns")
    base = statistics.median(calls["BLAS X @ X.T"].core)
    print(f"the whole call, N={N}, d={D}, float32, over BLAS's own X @ X.T ({base * 1e3:.0f} ms)")
    ratios = {name: statistics.median(t.core) / base for name, t in calls.items()}
    show("L=3 ntk", ratios["L=3 ntk"], 1.35, " x")
    show("L=10 ntk", ratios["L=10 ntk"], 1.8, " x")
    for name in ("L=3 ('nngp', 'ntk')", "L=10 ('nngp', 'ntk')"):
        print(f"  {name:62s} {ratios[name]:9.3g} x")
    speedup = two_threads(repeats)
    show("two threads over one, wall time", speedup, 1.8, " x", at_least=True)
    path = write(
        "fc",
        {
            "accuracy": found,
            "peak_gflops": peak,
            "ns_per_pair_layer": speeds,
            "limit_ns": limit,
            "calls": calls,
            "ratios": ratios,
            "two_threads": speedup,
        },
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
