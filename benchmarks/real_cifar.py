"""Part of CIFAR-10 (5170 + 1017 images): do kernels of convolutional networks classify better,
and at what cost?

    python benchmarks/real_cifar.py [--quick] [--threads 2]

A seed draws up to 1000 training images; n = 250 and 500 are its first ones and slices of the same
matrices. Pixels are prepared in one of two ways: "normalised" (each image has mean 0 and variance
1), or "zca" after that (whitened over all 5170 training images, without their labels, eigenvalues +
0.1). "flips" averages the kernel over horizontal flips. Ridge regression of the labels (one-hot,
less 1/10); the ridge (times the mean of the diagonal) is chosen on the last fifth of the training
images. Large images are costly: 16x16 and 8x8 are means of blocks of pixels. Times are those of the
float32 kernels.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness import measure, write
from real_mnist import accuracy, fit
from real_uci import data
from threadpoolctl import threadpool_limits

from ntkcore import Flatten, Serial, cntk, kernel, mlp, myrtle

FILE = "cifar10_lossless_5170_1017.npz"
DEPTH = 5
SIZES = (250, 500, 1000)
RIDGES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
ZCA = 0.1
NETS: dict[str, Serial] = {
    "FC": Serial(Flatten(), *mlp(DEPTH).layers),
    "Flatten": cntk(DEPTH, "flatten"),
    "GAP": cntk(DEPTH),
    "Myrtle-5": myrtle(5),
}


@dataclass(frozen=True)
class Job:
    """One kernel between up to `train` images of every seed,
    and between them and all test images.
    """

    net: str
    pixels: int
    prepared: str
    flips: bool
    seeds: int = 3
    train: int = 1000

    def __str__(self) -> str:
        return (
            f"{self.net:<9}{self.pixels:3}x{self.pixels:<3}"
            f" {self.prepared:<11}{'flips' if self.flips else '':<6}"
        )


def full() -> list[Job]:
    """Cheap kernels with all options and three seeds; GAP at 16x16 and Myrtle-5 at 32x32 once."""
    cheap = [
        ("FC", 8),
        ("Flatten", 8),
        ("GAP", 8),
        ("FC", 16),
        ("Flatten", 16),
        ("FC", 32),
        ("Flatten", 32),
    ]
    options = [(prepared, flips) for prepared in ("normalised", "zca") for flips in (False, True)]
    jobs = [Job(*net, *option) for net, option in itertools.product(cheap, options)]
    gap = [Job("GAP", 16, "zca", flips, seeds=1) for flips in (False, True)]
    return [
        *jobs,
        *gap,
        Job("Myrtle-5", 32, "normalised", False, 1),
        Job("Myrtle-5", 32, "normalised", True, 1, 250),
    ]


def quick() -> list[Job]:
    """A minute: 250 training images, 8x8 pixels."""
    return [
        Job(net, 8, "zca", flips, 1, 250)
        for net in ("FC", "Flatten", "GAP")
        for flips in (False, True)
    ]


# --- images


def normalised(images: np.ndarray, pixels: int) -> np.ndarray:
    """uint8 (n, 32, 32, 3) to float64 (n, pixels, pixels, 3), each with mean 0 and variance 1."""
    block = images.shape[1] // pixels
    x = images.reshape(-1, pixels, block, pixels, block, 3).mean((2, 4))
    x -= x.mean((1, 2, 3), keepdims=True)
    return x / x.std((1, 2, 3), keepdims=True)


def whitened(x: np.ndarray, *images: np.ndarray) -> Iterator[np.ndarray]:
    """The images times (covariance of x + ZCA)^(-1/2)."""
    flat, mean = x.reshape(len(x), -1), x.reshape(len(x), -1).mean(0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(x))
    root = (vectors / np.sqrt(values + ZCA)) @ vectors.T
    for a in images:
        yield ((a.reshape(len(a), -1) - mean) @ root).reshape(a.shape)


def images(
    file: Mapping[str, np.ndarray], job: Job, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    every, xs = (normalised(file[name], job.pixels) for name in ("X_train", "X_test"))
    x = every[rows]
    if job.prepared == "zca":
        x, xs = whitened(every, x, xs)
    return x.astype(np.float32), xs.astype(np.float32)


# --- one job


def classify(K: np.ndarray, Ks: np.ndarray, y: np.ndarray, ys: np.ndarray) -> dict[str, Any]:
    """Ridge chosen on the last fifth; accuracy on the test images."""
    known = len(y) - len(y) // 5
    valid = {
        r: accuracy(K[known:, :known], fit(K[:known, :known], y[:known], r), y[known:])
        for r in RIDGES
    }
    ridge = max(valid, key=lambda r: valid[r])
    right = (Ks @ fit(K, y, ridge)).argmax(1) == ys
    return {"ridge": ridge, "valid": valid[ridge], "test": float(right.mean()), "right": right}


def one_seed(file: Mapping[str, np.ndarray], job: Job, seed: int, threads: int) -> dict[str, Any]:
    """Results by n, and the time of the kernels."""
    rows = np.random.default_rng(seed).permutation(len(file["X_train"]))[: job.train]
    x, xs = images(file, job, rows)
    matrices: list[np.ndarray] = []
    augment = "hflip" if job.flips else None

    def compute() -> None:
        for a, b in ((x, None), (xs, x)):
            matrices.append(kernel(NETS[job.net], a, b, augment=augment, threads=threads))

    core, wall = measure(compute)
    y, ys = file["y_train"][rows], file["y_test"]
    K, Ks = (matrix.astype(np.float64) for matrix in matrices)
    by_n = {n: classify(K[:n, :n], Ks[:, :n], y[:n], ys) for n in SIZES if n <= job.train}
    return {"core": core, "wall": wall, "pairs": pairs(job.train, len(xs)), "by_n": by_n}


def pairs(train: int, test: int) -> int:
    return train * (train + 1) // 2 + train * test


def evaluate(file: Mapping[str, np.ndarray], job: Job, threads: int) -> list[dict[str, Any]]:
    """One entry for every n: accuracy over seeds,
    and the share of the kernel's time that n images take.
    """
    seeds = [one_seed(file, job, seed, threads) for seed in range(job.seeds)]
    entries = []
    for n in (n for n in SIZES if n <= job.train):
        found = [seed["by_n"][n] for seed in seeds]
        share = pairs(n, len(file["y_test"])) / seeds[0]["pairs"]
        entries.append(
            {
                **vars(job),
                "n": n,
                "test": float(np.mean([f["test"] for f in found])),
                "tests": [f["test"] for f in found],
                "ridges": [f["ridge"] for f in found],
                "core": share * float(np.mean([seed["core"] for seed in seeds])),
                "wall": share * float(np.mean([seed["wall"] for seed in seeds])),
                "core_per_pair": float(np.mean([seed["core"] / seed["pairs"] for seed in seeds])),
                "right": np.array([f["right"] for f in found]),
            }
        )
    return entries


# --- report


def standard_error(right: np.ndarray) -> float:
    """Of a mean over test images (last axis),
    each image's mean over seeds being one observation.
    """
    values = right.mean(0)
    return float(values.std(ddof=1) / len(values) ** 0.5)


def show(job: Job, entries: Iterable[dict[str, Any]]) -> None:
    for e in entries:
        error = 100 * standard_error(e["right"])
        seconds = (
            f"{e['core']:8.1f} s core {e['wall']:7.1f} s wall {1e3 * e['core_per_pair']:9.4f}"
            " ms/pair"
        )
        print(
            f"{job}{e['n']:5} {100 * e['test']:6.1f} ± {error:.1f} % ({job.seeds} seeds) {seconds}",
            flush=True,
        )


def best(
    entries: list[dict[str, Any]], where: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    return max(filter(where, entries), key=lambda e: e["test"], default=None)


def compare(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """GAP over Flatten and Flatten over FC, at the largest n, same pixels, preparation,
    flips and seeds.
    """
    largest, found = max(e["n"] for e in entries), []
    key = lambda e: (e["pixels"], e["prepared"], e["flips"], e["n"])  # noqa: E731
    by_net = {
        name: {key(e): e for e in entries if e["net"] == name and e["n"] == largest}
        for name in NETS
    }
    for better, worse in (("GAP", "Flatten"), ("Flatten", "FC")):
        for k in sorted(by_net[better].keys() & by_net[worse].keys()):
            a, b = by_net[better][k]["right"], by_net[worse][k]["right"]
            seeds = min(len(a), len(b))
            gap = a[:seeds].astype(float) - b[:seeds]
            difference, error = float(gap.mean()), standard_error(gap)
            entry = {
                "better": better,
                "worse": worse,
                "seeds": seeds,
                "difference": difference,
                "error": error,
            }
            found.append(
                {**entry, **dict(zip(("pixels", "prepared", "flips", "n"), k, strict=True))}
            )
    return found


def show_comparison(comparisons: list[dict[str, Any]]) -> None:
    for c in comparisons:
        what = (
            f"{c['better']} - {c['worse']}, {c['pixels']}x{c['pixels']}"
            f" {c['prepared']}{' flips' * c['flips']}"
        )
        numbers = f"{100 * c['difference']:+5.1f} ± {100 * c['error']:.1f} points"
        print(
            f"n={c['n']} {what:<38} {numbers} ({c['seeds']} seeds)"
            f" {'holds' if c['difference'] > 0 else 'FAILS'}"
        )


def show_best(entries: list[dict[str, Any]]) -> None:
    for n, net in itertools.product(SIZES, NETS):
        if e := best(entries, lambda e, n=n, net=net: (e["n"], e["net"]) == (n, net)):
            how = f"{e['pixels']}x{e['pixels']} {e['prepared']}{' flips' * e['flips']}"
            print(f"best {net:<9} n={n:<5} {100 * e['test']:5.1f} %  {how}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="250 images of 8x8; nothing is written"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if (file := data(FILE)) is None:
        return
    file, entries = dict(file), []
    with threadpool_limits(options.threads):
        for job in quick() if options.quick else full():
            found = evaluate(file, job, options.threads)
            show(job, found)
            entries += found
    show_best(entries)
    show_comparison(comparisons := compare(entries))
    if not options.quick:
        rows = [{**e, "error": standard_error(e["right"]), "right": None} for e in entries]
        found = {"depth": DEPTH, "zca": ZCA, "rows": rows, "comparisons": comparisons}
        print(f"wrote {write('real_cifar', found)}")


if __name__ == "__main__":
    main()
