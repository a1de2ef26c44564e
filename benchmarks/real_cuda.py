"""On a GPU: kernels of real images with their accuracy,
and a build of 50 000 images of CIFAR-10's size.

    python benchmarks/real_cuda.py [--seconds 150] [--out FOLDER] [--quick]

Real: the 5170 training and 1017 test images of a part of CIFAR-10 ($NTKCORE_DATA), normalised as in
real_cifar.py; CNTK-20 Flatten at 32x32 and CNTK-10 GAP at 16x16, with and without horizontal flips;
ridge regression on the device (ntkcore.Cholesky), the ridge chosen on the last fifth of the
training images. Size: CNTK-20 Flatten of 50 000 random images, or of as many as the seconds left
allow, float32, result on the device. Section "large" of cuda.json.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cuda_machine import Record, free, once, require_gpu
from real_cifar import FILE, RIDGES, normalised
from real_uci import data

import ntkcore as nk
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.noise import RidgeWarning

# (name, network, side, augment), the cheapest first
REAL = [
    ("CNTK-20 Flatten 32x32", nk.cntk(20, "flatten"), 32, None),
    ("CNTK-20 Flatten 32x32, flips", nk.cntk(20, "flatten"), 32, "hflip"),
    ("CNTK-10 GAP 16x16", nk.cntk(10), 16, None),
    ("CNTK-10 GAP 16x16, flips", nk.cntk(10), 16, "hflip"),
]
BIG, PROBE = 50_000, 10_000


# --- real images


def right(cupy: Any, K: Any, Ks: Any, y: np.ndarray, ys: np.ndarray, ridge: float) -> float:
    """Share of the rows of Ks whose class ridge regression on K names rightly."""
    A = Cholesky(K, ridge, relative=True).solve(cupy.asarray(np.eye(10)[y] - 0.1))
    return float((cupy.asnumpy(Ks @ A.astype(Ks.dtype)).argmax(1) == ys).mean())


def classify(cupy: Any, K: Any, Ks: Any, y: np.ndarray, ys: np.ndarray) -> dict[str, float]:
    known, valid = len(y) - len(y) // 5, {}
    for ridge in RIDGES:
        # Too small a ridge for float32: not positive definite.
        with contextlib.suppress(ValueError):
            valid[ridge] = right(
                cupy, K[:known, :known], K[known:, :known], y[:known], y[known:], ridge
            )
    ridge = max(valid, key=lambda r: valid[r])
    return {"ridge": ridge, "valid": valid[ridge], "test": right(cupy, K, Ks, y, ys, ridge)}


def real(
    cupy: Any, file: Mapping[str, np.ndarray], job: tuple[Any, ...], limit: float, most: int
) -> dict[str, Any]:
    """Kernels, their time, the accuracy;
    fewer training images where 300 of them foretell more than `limit` seconds.
    """
    name, net, side, augment = job
    x, xs = (
        cupy.asarray(normalised(file[k], side).astype(np.float32)) for k in ("X_train", "X_test")
    )
    few = min(300, most)
    once(cupy, lambda: nk.kernel(net, x[:few], x[:few], augment=augment))
    pair = once(cupy, lambda: nk.kernel(net, x[:few], x[:few], augment=augment))[1] / few**2
    n = most
    while n > few and pair * n * (n / 2 + len(xs)) > limit:
        n = int(0.9 * n)
    K, seconds = once(cupy, lambda: nk.kernel(net, x[:n], augment=augment))
    Ks, more = once(cupy, lambda: nk.kernel(net, xs, x[:n], augment=augment))
    pairs = n * (n + 1) // 2 + n * len(xs)
    found, solving = once(cupy, lambda: classify(cupy, K, Ks, file["y_train"][:n], file["y_test"]))
    us = 1e6 * (seconds + more) / pairs
    error = (found["test"] * (1 - found["test"]) / len(xs)) ** 0.5
    print(
        f"{name:30s} n={n}: {100 * found['test']:.1f} ± {100 * error:.1f} % of {len(xs)}; "
        f"kernels {seconds + more:.2f} s ({us:.3f} us a pair); ridge regression {solving:.1f} s",
        flush=True,
    )
    return {
        **found,
        "error": error,
        "train": n,
        "seconds": seconds + more,
        "us": us,
        "solving": solving,
    }


# --- size


def build(cupy: Any, n: int, tile: int | None) -> dict[str, Any]:
    """CNTK-20 Flatten of n random images;
    three entries of the result against float64 on the CPU.
    """
    net, rng = nk.cntk(20, "flatten"), np.random.default_rng(0)
    x = rng.standard_normal((n, 32, 32, 3), dtype=np.float32)
    K, seconds = once(cupy, lambda: nk.kernel(net, cupy.asarray(x), tile=tile))
    ends = [0, n // 2, n - 1]
    ours = np.array([[float(K[i, j]) for j in ends] for i in ends])
    reference = nk.kernel(net, x[ends], dtype="float64")
    error = float(np.abs(ours - reference).max() / reference.max())
    if not error <= 2e-6:
        raise ValueError(f"CNTK-20 Flatten of {n} images: error {error:.1e}")
    us = 1e6 * seconds / (n * (n + 1) / 2)
    print(
        f"CNTK-20 Flatten of {n} random images: {seconds:.1f} s, {us:.4f} us a pair; error"
        f" {error:.1e}",
        flush=True,
    )
    return {"images": n, "seconds": seconds, "us": us, "error": error, "bytes": int(K.nbytes)}


def sizes(
    cupy: Any, end: float, add: Callable[[str, Any], None], tile: int | None, most: int
) -> None:
    """A fifth of the images first; then all of them,
    or as many as it foretells for the time left.
    """
    first = build(cupy, min(PROBE, most), tile)
    add(f"{first['images']} images", first)
    left = end - time.perf_counter() - 5  # random numbers
    n = min(most, int(first["images"] * (max(left, 0) / first["seconds"]) ** 0.5) // 1000 * 1000)
    if n <= first["images"]:
        print(f"no time is left for more than {first['images']} images")
        return
    if n < most:
        print(
            f"{most} images would take {first['seconds'] * (most / first['images']) ** 2:.0f} s:"
            f" {n} of them"
        )
    add(f"{n} images", build(cupy, n, tile))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=150, help="for everything")
    parser.add_argument("--tile", type=int, help="of the large kernel; by default ntkcore's own")
    parser.add_argument("--images", type=int, default=BIG, help="of the large kernel")
    parser.add_argument("--train", type=int, default=5170, help="real training images")
    parser.add_argument("--quick", action="store_true", help="few images; nothing is written")
    parser.add_argument(
        "--out", type=Path, help="where cuda.json is written; by default benchmarks/results"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", RidgeWarning)  # the ridge is chosen by what it gives
    cupy, end, few = require_gpu(), time.perf_counter() + options.seconds, options.quick
    add = (lambda name, entry: None) if few else Record(cupy, "large", options.out).add
    failed = []

    def attempt(name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # the next one may go
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        free(cupy)

    file = data(FILE)
    jobs = REAL if file is not None else []
    file = dict(file or {})

    def one(job: tuple[Any, ...], limit: float) -> None:
        add(job[0], real(cupy, file, job, limit, 200 if few else options.train))

    # Flatten, then the large kernel with most of the time, then the dear GAP with what is left.
    for job in jobs[:1]:
        attempt(job[0], lambda job=job: one(job, options.seconds / 8))
    most = min(end, time.perf_counter() + 0.7 * options.seconds)
    attempt("large", lambda: sizes(cupy, most, add, options.tile, 200 if few else options.images))
    for job in jobs[1:]:
        left = end - time.perf_counter()
        if left < 10 and not few:
            print(f"no time is left for {job[0]}")
            break
        attempt(job[0], lambda job=job, left=left: one(job, 0.6 * left))
    print(f"failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
