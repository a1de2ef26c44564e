"""Kernels on disk: what does a build cost beside the same kernel
in memory and a plain write of the same bytes?

    python benchmarks/bench_build.py [--quick]

d = 784, 3 hidden ReLU layers, NTK, float32, 2 threads: time at N = 20 000, peak memory of a process
at N = 40 000, and what handing out a tile costs by executor. The stores (1.6 and 6.4 GB) go to a
temporary folder and are deleted.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness import measure, require, write

from ntkcore import kernel, mlp
from ntkcore.store.build import build

NET, THREADS = mlp(3), 2
_MEMORY = """
import re, sys, numpy as np
from ntkcore import mlp
from ntkcore.store.build import build
x = np.random.default_rng(0).standard_normal((int(sys.argv[2]), 784), dtype=np.float32)
build(mlp(3), x, sys.argv[1], threads=2)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


def points(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 784), dtype=np.float32)


def overhead(n: int, folder: Path) -> dict[str, Any]:
    x, found = points(n), []
    core, wall = measure(lambda: found.append(kernel(NET, x, threads=THREADS)))
    write_core, write_wall = measure(lambda: np.save(folder / "plain.npy", found[0]))
    build_core, build_wall = measure(lambda: build(NET, x, folder / "k.zarr", threads=THREADS))
    group = build(NET, x, folder / "k.zarr")
    error = float(
        np.abs(group["ntk"][:2000, -2000:] - found[0][:2000, -2000:]).max() / found[0].max()
    )
    require("the store", error, 1e-6)
    ratio = build_wall / (wall + write_wall)
    print(
        f"N={n}: kernel {wall:.1f} s, plain write {write_wall:.1f} s, build {build_wall:.1f} s:"
        f" {ratio:.2f} x of both together (goal 1.3); core time"
        f" {build_core / (core + write_core):.2f} x"
    )
    seconds = {
        "kernel": [core, wall],
        "write": [write_core, write_wall],
        "build": [build_core, build_wall],
    }
    return {"N": n, "ratio": ratio, "error": error, "seconds": seconds}


def peak_memory(n: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", _MEMORY, str(folder / "memory.zarr"), str(n)]
    peak = int(subprocess.check_output(command, text=True))
    print(f"N={n}: peak memory {peak / 1e9:.2f} GB (goal 1), of which data {n * 784 * 4 / 1e9:.2f}")
    return {"N": n, "bytes": peak}


def scheduling(n: int, folder: Path) -> dict[str, float]:
    """Milliseconds of wall time a tile of 32 x 32 (two chunks, two markers) takes, by executor,
    two workers each.
    """
    x, tiles, found = points(n), n // 32 * (n // 32 + 1) // 2, {}
    found["threads"] = measure(lambda: build(NET, x, folder / "s1.zarr", tile=32, threads=2))[1]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(abs, range(4)))
        found["processes"] = measure(
            lambda: build(NET, x, folder / "s2.zarr", tile=32, executor=pool)
        )[1]
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        found["dask"] = measure(
            lambda: build(NET, x, folder / "s3.zarr", tile=32, executor=client)
        )[1]
    found = {name: 1e3 * wall / tiles for name, wall in found.items()}
    print("a small tile: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="N = 4000 and 8000; writes no results")
    quick = parser.parse_args().quick
    folder = Path(tempfile.mkdtemp(prefix="ntkcore-bench-"))
    try:
        time, memory = (
            overhead(4000 if quick else 20_000, folder),
            peak_memory(8000 if quick else 40_000, folder),
        )
        per_tile = scheduling(320 if quick else 1600, folder)
    finally:
        shutil.rmtree(folder)
    if not quick:
        found = {"time": time, "memory": memory, "milliseconds_per_tile": per_tile}
        print(f"written: {write('build', found)}")


if __name__ == "__main__":
    main()
