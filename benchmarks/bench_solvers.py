"""Kernel ridge regression beside its peers: core time, memory, distance from the exact solution.

    python benchmarks/bench_solvers.py [--n 10000] [--only cg askotch …]
    python benchmarks/bench_solvers.py --n 100000 --only cg askotch landmarks falkon eigenpro

The task of `real_million.py` (10 features, 3 hidden layers with biases, float32, ridge 1e-3 of the
mean diagonal), one thread. Each solver runs in a process of its own, so that its peak memory is
its own. Ours come first: `cg` to 1e-6 is what the others are compared with, itself compared with
scikit-learn's KernelRidge up to 20 000 points. Peers: scikit-learn's KernelRidge and the formula of
its Nystroem on the kernel that we compute; GPyTorch's conjugate gradients on it too (its
linear_operator, where that is installed); the formulas of Falkon (Rudi et al. 2017, 20 iterations)
and EigenPro 2 (Ma & Belkin 2019, 10 epochs, no ridge) in NumPy, on our tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import measure, require, write
from real_million import FEATURES, NET, NOISE, RIDGE, function

import ntkcore as nk
from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import cg
from ntkcore.linalg.landmarks import LandmarkRegression
from ntkcore.linalg.rpcholesky import rpcholesky

TEST, DENSE = 2000, 20_000  # points; the most whose matrix is made
PASSES, CLOSE, MEMORY = 30, 1e-3, 2e9  # goals at 100 000 points

Solved = tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any]]


def problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x_test, the function there; of unit variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n + TEST, FEATURES)).astype("f4")
    clean = function(x) / function(x).std()
    return x[:n], clean[:n] + NOISE**0.5 * rng.standard_normal(n), x[n:], clean[n:]


def free(x: np.ndarray, z: np.ndarray | None = None) -> nk.MatrixFree:
    return nk.MatrixFree(NET, x, z, threads=1, progress=False)


def predictor(z: np.ndarray, coefficients: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: free(x, z) @ coefficients


def ridge_of(x: np.ndarray) -> float:
    return RIDGE * float(nk.kernel_diag(NET, x).mean(dtype=float))


def landmarks_of(x: np.ndarray) -> np.ndarray:
    """10 sqrt(n) by RPCholesky on 3 times as many."""
    m = int(10 * len(x) ** 0.5)
    pool = x[np.random.default_rng(0).choice(len(x), min(len(x), 3 * m), replace=False)]
    return pool[rpcholesky(free(pool), m).landmarks]


def by_cg(x: np.ndarray, y: np.ndarray) -> Solved:
    found = cg(free(x), y, RIDGE, relative=True, rtol=1e-6)
    return predictor(x, found.x), {"passes": found.passes, "iterations": found.iterations}


def by_askotch(x: np.ndarray, y: np.ndarray) -> Solved:
    found = askotch(free(x), y, RIDGE, relative=True, rtol=1e-4)
    return predictor(x, found.x), {"passes": found.passes, "residual": float(found.residuals[0])}


def by_landmarks(x: np.ndarray, y: np.ndarray) -> Solved:
    z = landmarks_of(x)
    inner = nk.kernel(NET, z, dtype="f8", threads=1)
    found = LandmarkRegression(free(x, z), inner, y, ridge_of(x))
    return predictor(z, found.coefficients), {"passes": found.passes, "landmarks": len(z)}


def by_falkon(x: np.ndarray, y: np.ndarray, iterations: int = 20) -> Solved:
    """Rudi et al. 2017, algorithm 1, on the same landmarks: T^T T = K_mm, A^T A = T T^T/m + lambda,
    conjugate gradients on the preconditioned normal equations.
    """
    from scipy.linalg import solve_triangular

    z, n = landmarks_of(x), len(x)
    m, small = len(z), ridge_of(x) / len(x)
    inner = nk.kernel(NET, z, dtype="f8", threads=1)
    T = np.linalg.cholesky(inner + 1e-7 * inner.diagonal().mean() * np.eye(m)).T
    A = np.linalg.cholesky(T @ T.T / m + small * np.eye(m)).T
    K = free(x, z)

    def solve(matrix: np.ndarray, v: np.ndarray, trans: int = 0) -> np.ndarray:
        return solve_triangular(matrix, v, trans=trans)

    def product(v: np.ndarray) -> np.ndarray:
        inside = solve(A, v)
        whole = K.T @ (K @ solve(T, inside)) / n
        return solve(A, solve(T, whole, 1) + small * inside, 1)

    r = solve(A, solve(T, K.T @ y / n, 1), 1)
    b, p, square = np.zeros(m), r.copy(), r @ r
    for _ in range(iterations):
        q = product(p)
        step = square / (p @ q)
        b, r = b + step * p, r - step * q
        square, before = r @ r, square
        p = r + square / before * p
    return predictor(z, solve(T, solve(A, b))), {"passes": K.passes, "landmarks": m}


def by_eigenpro(x: np.ndarray, y: np.ndarray, epochs: int = 10) -> Solved:
    """Ma & Belkin 2019: stochastic gradients whose leading modes are damped by those of a
    subsample, with the batch and the rate that its eigenvalues allow.
    """
    from scipy.linalg import eigh

    rng, n = np.random.default_rng(0), len(x)
    s, top = min(n, 4000), 160
    at = rng.choice(n, s, replace=False)
    matrix = nk.kernel(NET, x[at], threads=1).astype("f8") / s
    values, vectors = eigh(matrix, subset_by_index=[s - top - 1, s - 1])
    last, values, vectors = values[0], values[:0:-1], vectors[:, :0:-1]
    damp = (1 - last / values) / values / s
    beta = float((matrix.diagonal() * s).max())
    batch = max(1, min(n, int(beta / last)))
    rate = 0.99 * batch / (beta + (batch - 1) * last)
    w = np.zeros(n)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(n), -(-n // batch)):
            g = free(x[rows], x) @ w - y[rows]
            w[rows] -= rate / len(rows) * g
            inside = vectors.T @ (nk.kernel(NET, x[at], x[rows], threads=1) @ g)
            w[at] += rate / len(rows) * (vectors @ (damp * inside))
    return predictor(x, w), {"passes": 2 * epochs, "batch": batch}


def by_kernel_ridge(x: np.ndarray, y: np.ndarray) -> Solved:
    from sklearn.kernel_ridge import KernelRidge

    K = nk.kernel(NET, x, threads=1).astype("f8")
    model = KernelRidge(alpha=ridge_of(x), kernel="precomputed").fit(K, y)
    return predictor(x, model.dual_coef_), {}


def by_nystroem(x: np.ndarray, y: np.ndarray) -> Solved:
    """scikit-learn's Nystroem as it computes (it takes no precomputed kernel between two sets), and
    its Ridge.
    """
    from sklearn.linear_model import Ridge

    m = int(10 * len(x) ** 0.5)
    z = x[np.random.default_rng(0).permutation(len(x))[:m]]
    U, S, V = np.linalg.svd(nk.kernel(NET, z, dtype="f8", threads=1))
    normalisation = (U / np.sqrt(np.maximum(S, 1e-12))) @ V
    features = nk.kernel(NET, x, z, threads=1) @ normalisation.T
    model = Ridge(alpha=ridge_of(x), fit_intercept=False).fit(features, y)
    return predictor(z, normalisation.T @ model.coef_), {"landmarks": m}


def by_gpytorch(x: np.ndarray, y: np.ndarray) -> Solved:
    import linear_operator
    import torch
    from linear_operator.operators import DenseLinearOperator

    torch.set_num_threads(1)
    K = torch.from_numpy(nk.kernel(NET, x, threads=1))
    settings = linear_operator.settings
    with (
        settings.cg_tolerance(1e-6 * np.linalg.norm(y) / len(y) ** 0.5),
        settings.max_cg_iterations(1000),
        settings.max_preconditioner_size(100),
        settings.fast_computations(solves=True),
        torch.no_grad(),
    ):
        right = torch.from_numpy(y[:, None].astype("f4"))
        found = DenseLinearOperator(K).add_diagonal(torch.tensor(ridge_of(x))).solve(right)
    return predictor(x, found.numpy()[:, 0].astype("f8")), {"preconditioner": 100}


SOLVERS: dict[str, Callable[[np.ndarray, np.ndarray], Solved]] = {
    "cg": by_cg,
    "askotch": by_askotch,
    "landmarks": by_landmarks,
    "falkon": by_falkon,
    "eigenpro": by_eigenpro,
    "kernel_ridge": by_kernel_ridge,
    "nystroem": by_nystroem,
    "gpytorch": by_gpytorch,
}
WHOLE_MATRIX = {"kernel_ridge", "gpytorch"}


def work(name: str, n: int, place: Path) -> None:
    """One solver, in a process of its own."""
    x, y, x_test, clean = problem(n)
    solved: list[Solved] = []
    try:
        core, wall = measure(lambda: solved.append(SOLVERS[name](x, y)))
    except ImportError as error:
        print(json.dumps({"absent": str(error)}))
        return
    predict, record = solved[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = predict(x_test)
    np.save(place / f"{name}.npy", found)
    excess = float(((found - clean) ** 2).mean())
    print(json.dumps({**record, "core": core, "wall": wall, "peak": peak, "excess": excess}))


def run(name: str, n: int, place: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", name, "--n", str(n), "--place", str(place)]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=alone)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def distance(place: Path, one: str, other: str) -> float:
    a, b = (np.load(place / f"{name}.npy") for name in (one, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--worker", choices=SOLVERS)
    parser.add_argument("--place", type=Path)
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.worker, chosen.n, chosen.place)
        return
    records: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in chosen.only:
            if name in WHOLE_MATRIX and chosen.n > DENSE:
                continue
            records[name] = record = run(name, chosen.n, place)
            if "absent" in record:
                print(f"{name}: not installed ({record['absent']})", flush=True)
                continue
            if (place / "cg.npy").exists():
                record["distance"] = distance(place, name, "cg")
            print(f"{name}: {record}", flush=True)
    if "kernel_ridge" in records:
        require("cg against KernelRidge", records["kernel_ridge"]["distance"], 1e-4)
    if "askotch" in records:
        require("ASkotch against cg", records["askotch"]["distance"], CLOSE)
    if chosen.n >= 100_000 and "cg" in records:
        print(f"goals: cg {PASSES} passes; ASkotch {MEMORY / 1e9:.0f} GB")
    print(f"written: {write(f'solvers_{chosen.n}', {'n': chosen.n, 'solvers': records})}")


if __name__ == "__main__":
    main()
