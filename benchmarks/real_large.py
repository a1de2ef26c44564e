"""Out of core, on real images: all of MNIST with a fully connected kernel,
the part of CIFAR-10 with a CNTK.

    python benchmarks/real_large.py [mnist] [cifar] [--folder DIR] [--threads 2] [--quick]

The kernel of the training images goes into a Zarr store (MNIST: 14.4 GB; deleted afterwards),
conjugate gradients read it tile by tile, the kernel between test and training images is never held.
Ridge 1e-3 of the mean diagonal, one-hot labels less 1/10, relative residual 1e-4.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import measure, write
from real_cifar import FILE, normalised
from real_uci import data

from ntkcore import cntk, mlp
from ntkcore.linalg.cg import CGResult, cg
from ntkcore.linalg.operators import MatrixFree, Stored
from ntkcore.specs.layers import Layer
from ntkcore.store.build import build

RIDGE, RTOL, CLASSES = 1e-3, 1e-4, 10


def one(
    name: str, net: Layer, sets: list[np.ndarray], folder: Path, threads: int
) -> dict[str, Any]:
    """Build, solve, predict; seconds of each, passes, accuracy."""
    x, y, x_test, y_test = sets
    store, found, scores = folder / name, list[CGResult](), list[np.ndarray]()
    build_core, build_wall = measure(lambda: build(net, x, store, threads=threads))
    operator = Stored(build(net, x, store)["ntk"])
    targets = np.eye(CLASSES)[y] - 1 / CLASSES
    solve_core, solve_wall = measure(
        lambda: found.append(cg(operator, targets, RIDGE, relative=True, rtol=RTOL))
    )
    test = MatrixFree(net, x_test, x, tile=1024, threads=threads)
    predict_core, predict_wall = measure(lambda: scores.append(test @ found[0].x))
    accuracy = float((scores[0].argmax(1) == y_test).mean())
    shutil.rmtree(store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    times = f"build {build_wall:.0f} s, solve {solve_wall:.0f} s, predict {predict_wall:.0f} s"
    work = f"{found[0].iterations} iterations, {found[0].passes:.0f} passes"
    print(
        f"{name}: n={len(x)}, {100 * accuracy:.2f} % of {len(y_test)}; {times}; {work}; peak"
        f" {peak / 1e9:.1f} GB"
    )
    seconds = {"build": [build_core, build_wall], "solve": [solve_core, solve_wall]}
    seconds["predict"] = [predict_core, predict_wall]
    return {
        "train": len(x),
        "test": len(y_test),
        "accuracy": accuracy,
        "iterations": found[0].iterations,
        "passes": found[0].passes,
        "converged": found[0].converged,
        "seconds": seconds,
        "peak_memory": peak,
    }


def mnist(quick: bool) -> list[np.ndarray] | None:
    if (file := data("mnist.npz")) is None:
        return None
    n, m = (3000, 1000) if quick else (60_000, 10_000)
    x, z = (
        file[k].reshape(len(file[k]), -1).astype(np.float32) / 255 for k in ("X_train", "X_test")
    )
    return [x[:n], file["y_train"][:n], z[:m], file["y_test"][:m]]


def cifar(pixels: int, n: int) -> list[np.ndarray] | None:
    if (file := data(FILE)) is None:
        return None
    x, z = (normalised(file[k], pixels).astype(np.float32) for k in ("X_train", "X_test"))
    return [x[:n], file["y_train"][:n], z, file["y_test"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("which", nargs="*", default=["mnist", "cifar"], help="mnist, cifar")
    parser.add_argument(
        "--folder", type=Path, help="where the stores go; a temporary folder by default"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a minute; writes no results")
    options = parser.parse_args()
    few = 300 if options.quick else None
    jobs = {
        "mnist-fc3": ("mnist", mlp(3), lambda: mnist(options.quick)),
        "cifar-cntk10-flatten-32": ("cifar", cntk(10, "flatten"), lambda: cifar(32, few or 5170)),
        "cifar-cntk5-gap-16": ("cifar", cntk(5), lambda: cifar(16, few or 2000)),
    }
    folder = Path(tempfile.mkdtemp(prefix="ntkcore-large-", dir=options.folder))
    try:
        for name, (kind, net, load) in jobs.items():
            if kind not in options.which or (sets := load()) is None:
                continue
            result = one(name, net, sets, folder, options.threads)
            if not options.quick:
                print(f"written: {write(f'large_{name}', {'threads': options.threads, **result})}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
