"""Accelerated randomly pivoted Cholesky beside one pivot at a time, and uniform landmarks.

    python benchmarks/bench_rpcholesky.py [--n 20000] [--rank 2000]

The law first: mean trace error over 20 seeds, n = 2000, rank 200, within 2 %. Then core time of
both, from the kernel matrix (float32, 3 hidden layers, d = 10) on.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import measure, require, write

import ntkcore as nk
from ntkcore.linalg.operators import InMemory

SEEDS, SMALL, WITHIN, GOAL = 20, (2000, 200), 0.02, 5.0


def data(n: int) -> np.ndarray:
    """Kernel of normal points."""
    x = np.random.default_rng(0).standard_normal((n, 10)).astype("f4")
    return nk.kernel(nk.mlp(3), x)


def one_by_one(K: np.ndarray, rank: int, seed: int) -> float:
    """Chen et al. 2023, algorithm 2.1, a pivot at a time; the trace error."""
    rng, n = np.random.default_rng(seed), len(K)
    factor, d = np.empty((rank, n), K.dtype), K.diagonal().astype(float)
    start = d.sum()
    for k in range(rank):
        s = rng.choice(n, p=d / d.sum())
        row = K[s] - factor[:k, s] @ factor[:k]
        factor[k] = row / row[s] ** 0.5
        d = np.maximum(d - factor[k].astype(float) ** 2, 0)
    return float(d.sum() / start)


def uniform(K: np.ndarray, rank: int, seed: int) -> float:
    """The trace error of landmarks drawn uniformly (scikit-learn's Nystroem)."""
    at = np.random.default_rng(seed).choice(len(K), rank, replace=False)
    root = np.linalg.cholesky(K[np.ix_(at, at)].astype(float) + 1e-6 * np.eye(rank))
    factor = np.linalg.solve(root, K[at].astype(float))
    return 1 - float((factor**2).sum()) / float(np.trace(K))


def check(K: np.ndarray, rank: int) -> dict[str, float]:
    ours = [nk.rpcholesky(K, rank, seed=seed).trace_error for seed in range(SEEDS)]
    theirs = [one_by_one(K, rank, 1000 + seed) for seed in range(SEEDS)]
    drawn = [uniform(K, rank, seed) for seed in range(SEEDS)]
    means = [float(np.mean(errors)) for errors in (ours, theirs, drawn)]
    require("mean trace error over one-by-one pivoting's", abs(means[0] / means[1] - 1), WITHIN)
    return dict(zip(("ours", "one by one", "uniform"), means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--rank", type=int, default=2000)
    chosen = parser.parse_args()
    record: dict[str, Any] = {"trace errors": check(data(SMALL[0]), SMALL[1])}
    K = data(chosen.n)
    operator, errors = InMemory(K, symmetric=True), {}
    calls = {
        "ours": lambda: errors.update(ours=nk.rpcholesky(operator, chosen.rank).trace_error),
        "one by one": lambda: errors.update(theirs=one_by_one(K, chosen.rank, 0)),
    }
    times = {name: measure(call) for name, call in calls.items()}
    ratio = times["one by one"][0] / times["ours"][0]
    record |= {"n": chosen.n, "rank": chosen.rank, "seconds": times, "errors": errors}
    print(
        f"trace errors {record['trace errors']}\n"
        f"n={chosen.n}, rank {chosen.rank}: {times['ours'][0]:.1f} s of core time, one by one"
        f" {times['one by one'][0]:.1f} s, {ratio:.1f} x (goal {GOAL}); errors {errors}"
    )
    if (chosen.n, chosen.rank) == (parser.get_default("n"), parser.get_default("rank")):
        print(f"written: {write('rpcholesky', record)}")


if __name__ == "__main__":
    main()
