"""MNIST, 20 000 training images: how often does preconditioned CG read the kernel,
and what of SciPy's class by class?

    python benchmarks/bench_pcg.py [--train 20000]

NTK of 3 hidden layers, float32, ridge 1e-3 of the mean diagonal, 10 classes, relative residual
1e-6. Checked against Cholesky. Memory: 6 GiB.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import scipy.sparse.linalg
from harness import measure, require, write
from real_uci import data

from ntkcore import kernel, mlp
from ntkcore.linalg.cg import cg
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.operators import InMemory

RIDGE, RTOL, GOAL_PASSES, GOAL_RATIO = 1e-3, 1e-6, 60, 10


def one_by_one(K: InMemory, Y: np.ndarray, ridge: float) -> int:
    """Passes of SciPy's cg for all classes one after another, from those of the first one."""
    before = K.passes
    shifted = scipy.sparse.linalg.LinearOperator(
        K.shape, lambda v: K @ v + ridge * v, dtype=np.float64
    )
    scipy.sparse.linalg.cg(shifted, Y[:, 0], rtol=RTOL, maxiter=2000)
    return int(K.passes - before) * Y.shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--train", type=int, default=20_000, help="only %(default)s are written down"
    )
    n = parser.parse_args().train
    if (file := data("mnist.npz")) is None:
        return
    x = file["X_train"][:n].reshape(n, -1).astype(np.float32) / 255
    Y = np.eye(10)[file["y_train"][:n]] - 0.1
    K = kernel(mlp(3), x, threads=2)
    ridge = RIDGE * float(np.diagonal(K).mean())
    operator, found = InMemory(K), []
    core, wall = measure(lambda: found.append(cg(operator, Y, ridge, rtol=RTOL)))
    result = found[0]
    exact = Cholesky(K, ridge).solve(Y)
    error = float(np.abs(result.x - exact).max() / np.abs(exact).max())
    require("conjugate gradients against Cholesky", error, 1e-4)
    scipys = one_by_one(operator, Y, ridge)
    ratio = scipys / result.passes
    record: dict[str, Any] = {
        "train": n,
        "passes": result.passes,
        "iterations": result.iterations,
        "error": error,
    }
    record |= {"core": core, "wall": wall, "scipy_passes": scipys, "ratio": ratio}
    print(
        f"n={n}: {result.iterations} iterations, {result.passes:.1f} passes (goal {GOAL_PASSES}),"
        f" {core:.0f} s of core time; SciPy class by class {scipys} passes, {ratio:.1f} x (goal"
        f" {GOAL_RATIO}); error {error:.1e}"
    )
    if n == parser.get_default("train"):
        print(f"written: {write('pcg', record)}")


if __name__ == "__main__":
    main()
