"""A pass over a matrix-free kernel beside the kernel alone and BLAS; eigenpairs beside SciPy's.

    python benchmarks/bench_operators.py [--n 16384]

float32, d = 10, 3 hidden layers, one thread. A pass computes half of the tiles and multiplies each
in float64 sums; its floor is `kernel` (the same half) and one float32 product of the whole matrix.
Eigenpairs: the 50 largest by block Krylov, by SciPy's Lanczos and LOBPCG through the same operator
(the matrix in memory), each to 1e-8 of the largest; passes are the products with the matrix.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import alternate, measure, measured, require, write
from scipy.sparse.linalg import eigsh, lobpcg

from ntkcore import MatrixFree, eigs, kernel, kernel_diag, mlp
from ntkcore.linalg.operators import InMemory

GOAL, LARGEST, TOLERANCE = 0.8, 50, 1e-8


def passes(x: np.ndarray, outputs: int) -> dict[str, Any]:
    """Core time of a pass, and of its floor."""
    net, v = mlp(3), np.random.default_rng(1).standard_normal((len(x), outputs))
    operator, K, single = (
        MatrixFree(net, x, threads=1, progress=False),
        kernel(net, x),
        v.astype("f4"),
    )
    exact = K.astype("f8") @ v
    error = float(np.abs(operator @ v - exact).max() / np.abs(exact).max())
    require("a pass against the matrix", error, 1e-6)
    del exact
    times = alternate(
        {
            "pass": measured(lambda: operator @ v),
            "kernel": measured(lambda: kernel(net, x, threads=1)),
            "blas": measured(lambda: K @ single),
        },
        repeats=5,
    )
    found = {name: timing.summary()["core"] for name, timing in times.items()}
    found["ratio"] = (found["kernel"] + found["blas"]) / found["pass"]
    print(f"{outputs} outputs: {found} (goal: ratio {GOAL})", flush=True)
    return found


def eigenpairs(x: np.ndarray) -> dict[str, Any]:
    """Passes, core time and the largest residual of each method."""
    K, found = kernel(mlp(3), x), {}
    largest = float(kernel_diag(mlp(3), x).sum())  # a bound
    start = np.random.default_rng(0).standard_normal((len(x), LARGEST))
    methods: dict[str, Callable[[InMemory], Any]] = {
        "krylov": lambda A: eigs(A, LARGEST, tolerance=TOLERANCE),
        "lanczos": lambda A: eigsh(A, LARGEST, which="LA", tol=TOLERANCE, v0=start[:, 0]),
        "lobpcg": lambda A: lobpcg(A, start, tol=TOLERANCE * largest, maxiter=200),
    }
    for method, call in methods.items():
        operator, results = InMemory(K), list[Any]()
        core, _ = measure(
            lambda operator=operator, results=results, call=call: results.append(call(operator))
        )
        order = np.argsort(results[0][0])[::-1]
        values, vectors = results[0][0][order], results[0][1][:, order]
        products = operator.passes
        residual = np.linalg.norm(operator @ vectors - vectors * values, axis=0).max() / values[0]
        if method == "krylov":
            first = values
            require("block Krylov's residuals", float(residual), TOLERANCE)
        distance = float(np.abs(values - first).max() / first[0])
        found[method] = {"passes": products, "core": core, "residual": float(residual)}
        print(f"{method}: {found[method]}, {distance:.0e} from block Krylov's", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=16_384)
    n = parser.parse_args().n
    x = np.random.default_rng(0).standard_normal((n, 10)).astype("f4")
    record = {"n": n, "passes": {k: passes(x, k) for k in (1, 10)}, "eigenpairs": eigenpairs(x)}
    if n == parser.get_default("n"):
        print(f"written: {write('operators', record)}")


if __name__ == "__main__":
    main()
