"""MNIST with 10 000 training images: time of the kernel of 5 hidden ReLU layers, solve,
accuracy on the test images.

Time is that of the whole float32 call, beside BLAS's own symmetric X @ X.T. Pixels (/255) as they
are or centred, and the ridge (times the mean of the diagonal), are chosen on the last fifth of the
training images; then the kernel ridge regression of the labels (one-hot, less 1/10) is solved in
float64 with all of them. Memory: about 2 GiB.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from harness import alternate, errors, measure, measured, require, write
from real_uci import data, reference
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from ntkcore import kernel, mlp

HIDDEN = 5
NET = mlp(HIDDEN)
TRAIN = 10_000
RIDGES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
PIXELS = ("raw", "centred")


def images(file: Any, pixels: str, train: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, float32 of shape (n, 784); centred by the mean training image,
    if at all.
    """
    x, xs = (file[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("X_train", "X_test"))
    mean = x[:train].mean(0) if pixels == "centred" else np.float32(0)
    return x[:train] - mean, xs - mean


def check(x: np.ndarray) -> dict[str, float]:
    """Errors of the float32 NTK of some images against the recursion in float64.

    Summing 784 products in float32 makes nearly all of it (6e-7 in a correlation of 0.94,
    1e-6 in the NTK after it).
    """
    exact = 2 ** (HIDDEN + 1) * reference(x.astype(np.float64) / x.shape[1] ** 0.5, HIDDEN + 1, 0)
    found = errors(kernel(NET, x), exact)
    for where, error in found.items():
        require(f"float32 NTK, {where}", error, 4e-6)
    return found


def times(x: np.ndarray, threads: int, repeats: int) -> dict[str, Any]:
    """Seconds of the kernel call, for one matrix and for both, and of X @ X.T,
    on `threads` threads.

    All write to arrays that exist: a fresh one of 400 MB can cost
    the system as much as the kernel costs us.
    """
    out = tuple(np.ones((len(x), len(x)), x.dtype) for _ in range(2))
    contestants = {
        "X @ X.T": measured(lambda: np.matmul(x, x.T, out=out[0])),
        "ntk": measured(lambda: kernel(NET, x, threads=threads, out=out[0])),
        "nngp, ntk": measured(
            lambda: kernel(NET, x, get=("nngp", "ntk"), threads=threads, out=out)
        ),
    }
    with threadpool_limits(threads):
        return {name: timing.summary() for name, timing in alternate(contestants, repeats).items()}


def fit(K: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
    """Coefficients (n, 10) of kernel ridge regression."""
    A = np.array(K, np.float64, order="F")
    A.flat[:: len(A) + 1] += ridge * A.diagonal().mean()
    return cho_solve(
        cho_factor(A, lower=True, overwrite_a=True, check_finite=False), np.eye(10)[labels] - 0.1
    )


def accuracy(K: np.ndarray, coefficients: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean((K @ coefficients.astype(K.dtype)).argmax(1) == labels))


def validate(file: Any, get: str, train: int, threads: int) -> dict[tuple[str, float], float]:
    """Accuracy on the last fifth of the training images, by pixels and ridge."""
    y, known, found = file["y_train"][:train], train - train // 5, {}
    for pixels in PIXELS:
        K = kernel(NET, images(file, pixels, train)[0], get=get, threads=threads)
        for ridge in RIDGES:
            coefficients = fit(K[:known, :known], y[:known], ridge)
            found[pixels, ridge] = accuracy(K[known:, :known], coefficients, y[known:])
    return found


def evaluate(file: Any, get: str, train: int, threads: int) -> dict[str, Any]:
    """Choice, seconds of the final solve and test accuracy of one kernel."""
    valid = validate(file, get, train, threads)
    pixels, ridge = max(valid, key=lambda choice: valid[choice])
    x, xs = images(file, pixels, train)
    K, found = kernel(NET, x, get=get, threads=threads), []
    core, wall = measure(lambda: found.append(fit(K, file["y_train"][:train], ridge)))
    test = accuracy(kernel(NET, xs, x, get=get, threads=threads), found[0], file["y_test"])
    table = [
        {"pixels": p, "ridge": r, "accuracy": valid[p, r]}
        for p, r in itertools.product(PIXELS, RIDGES)
    ]
    choice = {"pixels": pixels, "ridge": ridge, "valid": valid[pixels, ridge]}
    return {**choice, "test": test, "solve": {"core": core, "wall": wall}, "grid": table}


def report_times(found: dict[int, dict[str, Any]]) -> None:
    print(f"{'threads':>7} {'call':<12}{'core s':>9}{'wall s':>9}{'/ X @ X.T':>11}")
    for threads, by_name in found.items():
        for name, seconds in by_name.items():
            ratio = seconds["core"] / by_name["X @ X.T"]["core"]
            print(
                f"{threads:7} {name:<12}{seconds['core']:9.2f}{seconds['wall']:9.2f}{ratio:11.2f}"
            )


def report_accuracy(get: str, found: dict[str, Any]) -> None:
    for pixels in PIXELS:
        row = [entry for entry in found["grid"] if entry["pixels"] == pixels]
        values = "  ".join(f"{entry['ridge']:g}: {100 * entry['accuracy']:.2f}" for entry in row)
        print(f"{get:>5} validation, {pixels:<8} {values}")
    choice = f"{found['pixels']}, ridge {found['ridge']:g}"
    solve = f"solve {found['solve']['core']:.1f} s of core time, {found['solve']['wall']:.1f} s"
    print(f"{get:>5} test {100 * found['test']:.2f} % ({choice}; {solve})", flush=True)


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
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if (file := data("mnist.npz")) is None:
        return
    x = images(file, "raw", options.train)[0]
    record: dict[str, Any] = {
        "train": options.train,
        "hidden": HIDDEN,
        "float32_error": check(x[:1000]),
    }
    record["seconds"] = {
        threads: times(x, threads, options.repeats) for threads in sorted({1, options.threads})
    }
    report_times(record["seconds"])
    with threadpool_limits(options.threads):
        for get in ("ntk", "nngp"):
            record[get] = evaluate(file, get, options.train, options.threads)
            report_accuracy(get, record[get])
    if options.train == TRAIN:
        print(f"wrote {write('real_mnist', record)}")


if __name__ == "__main__":
    main()
