"""MNIST, 10 000 training images: the kernel of 5 convolutions with ReLU and Flatten, its time,
and test accuracy.

    python benchmarks/real_mnist_cnn.py [--train 10000] [--threads 2]

Pixels / 255 as they are; the ridge (times the mean of the diagonal) is chosen on the last fifth of
the training images; then the kernel ridge regression of the labels (one-hot, less 1/10) is solved
in float64 with all of them. Memory: about 4 GiB.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import errors, measure, require, write
from real_mnist import RIDGES, accuracy, fit
from real_uci import data
from threadpoolctl import threadpool_limits

from ntkcore import cntk, kernel

DEPTH = 5
NET = cntk(DEPTH, "flatten")
TRAIN = 10_000


def check(x: np.ndarray) -> dict[str, float]:
    """Errors of the float32 NTK of some images against float64."""
    found = errors(kernel(NET, x), kernel(NET, x, dtype=np.float64))
    for where, error in found.items():
        require(f"float32 NTK, {where}", error, 1e-5)
    return found


def timed(
    pairs: int, x: np.ndarray, z: np.ndarray | None, threads: int
) -> tuple[Any, dict[str, float]]:
    """(nngp, ntk) and what they took."""
    found: list[Any] = []
    core, wall = measure(
        lambda: found.append(kernel(NET, x, z, get=("nngp", "ntk"), threads=threads))
    )
    seconds = {"core": core, "wall": wall, "pairs": pairs, "core_per_pair": core / pairs}
    print(
        f"  {pairs / 1e6:.1f} M pairs: {core:.0f} s of core time, {wall:.0f} s,"
        f" {core / pairs * 1e6:.2f} µs a pair"
    )
    return found[0], seconds


def evaluate(K: np.ndarray, Ks: np.ndarray, y: np.ndarray, ys: np.ndarray) -> dict[str, Any]:
    """Choice of the ridge, seconds of the final solve, test accuracy."""
    known, found = len(y) - len(y) // 5, []
    valid = {
        r: accuracy(K[known:, :known], fit(K[:known, :known], y[:known], r), y[known:])
        for r in RIDGES
    }
    ridge = max(valid, key=lambda r: valid[r])
    core, wall = measure(lambda: found.append(fit(K, y, ridge)))
    solve = {"core": core, "wall": wall}
    return {"ridge": ridge, "valid": valid, "test": accuracy(Ks, found[0], ys), "solve": solve}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--train",
        type=int,
        default=TRAIN,
        help="training images; only %(default)s are written down",
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if (file := data("mnist.npz")) is None:
        return
    n, y, ys = options.train, file["y_train"][: options.train], file["y_test"]
    x, xs = (file[name][..., None].astype(np.float32) / 255 for name in ("X_train", "X_test"))
    x = x[:n]
    record: dict[str, Any] = {
        "train": n,
        "depth": DEPTH,
        "threads": options.threads,
        "float32_error": check(x[:200]),
    }
    print(f"CNTK, {DEPTH} layers, Flatten, 28x28, nngp and ntk, float32, {options.threads} threads")
    train, record["train_seconds"] = timed(n * (n + 1) // 2, x, None, options.threads)
    test, record["test_seconds"] = timed(n * len(xs), xs, x, options.threads)
    with threadpool_limits(options.threads):
        for get in ("ntk", "nngp"):
            record[get] = found = evaluate(getattr(train, get), getattr(test, get), y, ys)
            grid = "  ".join(
                f"{ridge:g}: {100 * value:.2f}" for ridge, value in found["valid"].items()
            )
            solve = f"solve {found['solve']['core']:.1f} s of core time"
            print(
                f"  {get:>5} validation {grid}; test {100 * found['test']:.2f} % (ridge"
                f" {found['ridge']:g}; {solve})"
            )
    if n == TRAIN:
        print(f"wrote {write('real_mnist_cnn', record)}")


if __name__ == "__main__":
    main()
