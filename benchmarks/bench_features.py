"""Random features: their error against the exact kernel, and MNIST by streamed ridge on them.

    python benchmarks/bench_features.py [--only errors] [--quick]

Errors are ||Z Z^T - K||_F/||K||_F on 2000 images of MNIST, 3 hidden layers, beside the paper's own
construction (Zandieh et al. 2021, algorithm 1, TensorSRHT) and scikit-learn's Nystroem with the
same kernel, whose landmarks are other images. Then 60 000 images, batch by batch, classified by
ridge regression on features; the bare lower bound is BLAS's syrk of Z^T Z alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from harness import measure, require, write
from real_large import mnist
from sklearn.kernel_approximation import Nystroem

from ntkcore import kernel, mlp
from ntkcore.estimators import NNGPFeatures, NTKFeatures, NTKKernel, StreamedRidgeClassifier

PIXELS, DEPTH, BATCH, RIDGE, SEEDS = 784, 3, 4096, 1e-3, 3
GOALS = {"error": 0.05, "accuracy": 0.98, "wall": 180.0}
Transform = Callable[[np.ndarray], np.ndarray]


def tensor_srht(x: np.ndarray, y: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """Features of the tensor product: two randomised cosine transforms, some of their entries."""
    parts = []
    for v in (x, y):
        moved = scipy.fft.dct(v * rng.choice([-1, 1], v.shape[1]).astype(v.dtype), norm="ortho")
        parts.append(moved[:, rng.integers(0, v.shape[1], m)] * np.float32(v.shape[1] ** 0.5))
    return parts[0] * parts[1] / np.float32(m**0.5)


def zandieh(size: int, seed: int, x: np.ndarray) -> np.ndarray:
    """Algorithm 1 as it stands in the paper: half of the features of each kind, He scaling."""
    rng, m, root = np.random.default_rng(seed), size // 2, np.float32(2**0.5)
    phi = psi = x * np.float32((2 / x.shape[1]) ** 0.5)
    for _ in range(DEPTH):
        z = phi @ rng.standard_normal((phi.shape[1], m), dtype=x.dtype)
        slopes = (z > 0).astype(x.dtype) / np.float32(m**0.5)
        phi = np.maximum(z, 0) * root / np.float32(m**0.5)
        psi = np.concatenate([phi, root * tensor_srht(psi, slopes, size - m, rng)], axis=1)
    return psi


def nystroem(size: int, seed: int, landmarks: np.ndarray) -> Transform:
    model = Nystroem(NTKKernel(mlp(DEPTH)), n_components=size, random_state=seed).fit(landmarks)
    return lambda x: model.transform(x).astype(np.float32)


def ours(face: Any, depth: int, size: int, seed: int) -> Transform:
    model = face(mlp(depth), n_components=size, random_state=seed)
    found: Transform = model.fit(np.zeros((1, PIXELS), np.float32)).transform
    return found


def errors(x: np.ndarray, others: np.ndarray, sizes: list[int]) -> dict[str, dict[int, float]]:
    """Of each construction at each size, the mean of some seeds."""
    K = {get: kernel(mlp(DEPTH), x, get=get) for get in ("ntk", "nngp")}
    made: dict[str, tuple[str, Callable[[int, int], Transform]]] = {
        "NTKFeatures": ("ntk", lambda m, s: ours(NTKFeatures, DEPTH, m, s)),
        "NNGPFeatures": ("nngp", lambda m, s: ours(NNGPFeatures, DEPTH, m, s)),
        "TensorSRHT": ("ntk", lambda m, s: lambda x: zandieh(m, s, x)),
        "Nystroem": ("ntk", lambda m, s: nystroem(m, s, others)),
    }
    table: dict[str, dict[int, float]] = {}
    for name, (get, make) in made.items():
        table[name] = {}
        for m in sizes:
            if name == "Nystroem" and m > 2048:  # an SVD of m x m
                continue
            found = [make(m, seed)(x) for seed in range(1 if name == "Nystroem" else SEEDS)]
            off = [np.linalg.norm(Z @ Z.T - K[get]) / np.linalg.norm(K[get]) for Z in found]
            table[name][m] = float(np.mean(off))
            print(f"{name}, {m} features: error {100 * table[name][m]:.2f} %", flush=True)
    return table


def classify(make: Callable[[], Transform], sets: list[np.ndarray]) -> dict[str, Any]:
    """Accuracy and (core, wall) seconds of the parts."""
    x, y, x_test, y_test = sets
    made: list[Transform] = []
    model = StreamedRidgeClassifier(ridge=RIDGE)
    seconds = {"draw": measure(lambda: made.append(make()))}
    for i in range(0, len(x), BATCH):
        rows, Z = slice(i, i + BATCH), []
        parts = {
            "features": measure(lambda rows=rows, Z=Z: Z.append(made[0](x[rows]))),
            "gram": measure(
                lambda rows=rows, Z=Z: model.partial_fit(Z[0], y[rows], classes=range(10))
            ),
        }
        for name, pair in parts.items():
            old = seconds.get(name, (0.0, 0.0))
            seconds[name] = old[0] + pair[0], old[1] + pair[1]
    seconds["solve"] = measure(lambda: model.coef_)
    accuracy: list[float] = []
    seconds["test"] = measure(lambda: accuracy.append(model.score(made[0](x_test), y_test)))
    syrk = scipy.linalg.blas.ssyrk
    block = np.ascontiguousarray(made[0](x[:BATCH]))
    bound = [s * len(x) / BATCH for s in measure(lambda: syrk(1, block.T))]
    core, wall = (sum(pair[k] for pair in seconds.values()) for k in (0, 1))
    return {
        "features": block.shape[1],
        "accuracy": accuracy[0],
        "core": core,
        "wall": wall,
        "seconds": seconds,
        "syrk alone": bound,
    }


RUNS: dict[str, Callable[[np.ndarray], Transform]] = {
    "NNGP, 1 hidden layer, 16384": lambda x: ours(NNGPFeatures, 1, 16384, 0),
    "NTK, 3 hidden layers, 8192": lambda x: ours(NTKFeatures, 3, 8192, 0),
    "NTK, 3 hidden layers, 2048": lambda x: ours(NTKFeatures, 3, 2048, 0),
    "Nystroem, 3 hidden layers, 2048": lambda x: nystroem(2048, 0, x),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="parts: errors, and runs whose name holds this")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    sets = mnist(chosen.quick)
    if sets is None:
        raise SystemExit("needs mnist.npz in $NTKCORE_DATA or shared/data")
    small = {False: [512, 2048, 8192], True: [512, 2048]}[chosen.quick]
    if chosen.only in "errors":
        table = errors(sets[2][:2000], sets[0], small)
        if not chosen.quick:
            require("NTKFeatures, 8192", table["NTKFeatures"][8192], GOALS["error"])
            print(f"written: {write('features_errors', {'errors': table})}", flush=True)
    for name, make in RUNS.items():
        if chosen.only not in name or (chosen.quick and "2048" not in name):
            continue
        found = classify(lambda make=make: make(sets[0]), sets)
        parts = ", ".join(f"{part} {pair[0]:.0f}" for part, pair in found["seconds"].items())
        print(
            f"{name}: {100 * found['accuracy']:.2f} % of {len(sets[3])}, {found['core']:.0f} s of"
            f" core time ({parts}; syrk alone {found['syrk alone'][0]:.0f}), {found['wall']:.0f} s",
            flush=True,
        )
        if not chosen.quick:
            file = "features_" + "".join(c if c.isalnum() else "-" for c in name).lower()
            print(f"written: {write(file, {'run': name, **found})}", flush=True)


if __name__ == "__main__":
    main()
