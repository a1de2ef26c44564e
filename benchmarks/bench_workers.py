"""A product on Dask's workers: what do two gain over one, and what do deaths cost?

    python benchmarks/bench_workers.py [--n 40000]

MatrixFree, 3 hidden layers, 20 features, float32, one column; workers of one thread, on this
machine, with client and scheduler in this process. Bare bound: the product on one thread here. Core
time is counted per process; `by core time` is the gain on two cores that nobody else uses: one
worker's core time (client and scheduler are on the other core) over half of all with two. Then
conjugate gradients while random workers are killed with SIGKILL, 20 in all: the answer must be that
of no executor, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
from dask.distributed import Client, LocalCluster
from harness import measure, require, write

from ntkcore import MatrixFree, cg, mlp
from ntkcore.engine.tiles import one_blas_thread
from ntkcore.linalg.products import square_groups

FEATURES, REPEATS, KILLS, GOAL = 20, 3, 20, 1.8
NET = mlp(3)


def core_seconds(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def started(workers: int) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=60
        )
    )
    stack.client = stack.enter_context(Client(cluster))  # type: ignore[attr-defined]
    return stack


def timed(call: Callable[[], np.ndarray], pids: list[int]) -> dict[str, float]:
    """Of one call: wall, core time here (client and scheduler), of all workers."""
    before = core_seconds(pids)
    here, wall = measure(call)
    return {"wall": wall, "here": here, "workers": core_seconds(pids) - before}


def passes(n: int) -> dict[str, Any]:
    """No executor, one worker, two, in turn."""
    x = np.random.default_rng(0).standard_normal((n, FEATURES)).astype("f4")
    X = np.random.default_rng(1).standard_normal((n, 1))
    with started(1) as one, started(2) as two, one_blas_thread:
        clients = {"one": one.client, "two": two.client}  # type: ignore[attr-defined]
        operators = {k: MatrixFree(NET, x, executor=c) for k, c in clients.items()}
        operators["bare"] = MatrixFree(NET, x, threads=1)
        pids = {k: list(c.run(os.getpid).values()) for k, c in clients.items()} | {"bare": []}
        expected = operators["bare"] @ X
        for name, K in operators.items():
            require(f"the product, {name}", float(np.abs(K @ X - expected).max()), 0.0)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in operators}
        for _ in range(REPEATS):
            for name, K in operators.items():
                rows[name].append(timed(lambda K=K: K @ X, pids[name]))
    found = {
        name: {key: statistics.median(row[key] for row in turns) for key in turns[0]}
        for name, turns in rows.items()
    }
    ratios = [a["wall"] / b["wall"] for a, b in zip(rows["one"], rows["two"], strict=True)]
    groups = len(square_groups((n, n), operators["bare"].tile, True))
    by_core = 2 * found["one"]["workers"] / (found["two"]["workers"] + found["two"]["here"])
    gain = {"ratio": statistics.median(ratios), "ratios": ratios, "by core time": by_core}
    return {"n": n, "groups": groups} | gain | found


def started_up(nanny: Any) -> bool:
    return bool(nanny.pid) and nanny.status.name == nanny.process.status.name == "running"


class Killer(threading.Thread):
    """Kills one of two workers, or both, at random, so many times; each time when both have come
    back (Dask gives a worker up that dies while it starts).
    """

    def __init__(self, client: Client, times: int) -> None:
        super().__init__(daemon=True)
        self.client, self.left, self.rng = client, times, random.Random(0)

    def run(self) -> None:
        while self.left > 0:
            time.sleep(self.rng.uniform(0.5, 2.0))
            nannies = list(self.client.cluster.workers.values())
            if len(self.client.nthreads()) == 2 and all(map(started_up, nannies)):
                for nanny in self.rng.sample(nannies, self.rng.choice([1, 1, 2])):
                    os.kill(nanny.pid, signal.SIGKILL)
                    self.left -= 1


def killed(n: int = 3000) -> dict[str, Any]:
    """Conjugate gradients until all kills are done."""
    x = np.random.default_rng(0).standard_normal((n, FEATURES)).astype("f4")
    y = np.sin(2 * x[:, :1].astype(float))
    options: dict[str, Any] = {"relative": True, "rank": 100, "rtol": 1e-6}
    with started(2) as two, one_blas_thread:
        client = two.client  # type: ignore[attr-defined]
        expected = cg(MatrixFree(NET, x, tile=512, threads=1), y, 1e-2, **options)
        K = MatrixFree(NET, x, tile=512, executor=client)
        quiet = measure(lambda: cg(K, y, 1e-2, **options))[1]
        killer = Killer(client, KILLS)
        killer.start()
        walls, kills = [], []
        while killer.left > 0:
            before, results = killer.left, list[Any]()
            walls.append(measure(lambda kept=results: kept.append(cg(K, y, 1e-2, **options)))[1])
            kills.append(before - killer.left)
            difference = float(np.abs(results[0].x - expected.x).max())
            require("conjugate gradients with deaths", difference, 0.0)
    return {"n": n, "passes": expected.passes, "quiet": quiet, "walls": walls, "kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=40_000)
    n = parser.parse_args().n
    deaths = killed()
    print(
        f"conjugate gradients, n={deaths['n']}, {deaths['passes']:.0f} passes,"
        f" {deaths['quiet']:.0f} s; with {deaths['kills']} kills {deaths['walls']} s: same bits",
        flush=True,
    )
    found = passes(n)
    bare, one, two = (found[name] for name in ("bare", "one", "two"))
    print(
        f"n={n}, {found['groups']} groups: bare {bare['wall']:.2f} s ({bare['here']:.2f} of core"
        f" time); one worker {one['wall']:.2f} s ({one['workers']:.2f} and {one['here']:.2f} here),"
        f" two {two['wall']:.2f} s ({two['workers']:.2f} and {two['here']:.2f} here):"
        f" {found['ratio']:.2f} x (goal {GOAL}), by core time {found['by core time']:.2f} x",
        flush=True,
    )
    if n == parser.get_default("n"):
        print(f"written: {write('workers', {'product': found, 'deaths': deaths})}")


if __name__ == "__main__":
    main()
