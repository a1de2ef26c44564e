"""Closed-form training beside the one eigendecomposition that it rests on.

    python benchmarks/bench_dynamics.py [--repeats 5] [--n 2000]

N = 2000 training and 1000 test points, 10 outputs, float64, one core: everything from the kernel
matrices on. Means at 200 times on both sets; covariance diagonals of the test set at 10 of them.
Correctness first; medians of core time.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from harness import alternate, last_core, measured, pinned, require, write
from threadpoolctl import threadpool_limits

import ntkcore as nk
from ntkcore.theory.dynamics import Dynamics

OUTPUTS = 10
GOALS = {"means": 1.3, "covariances": 3.0}


def problem(n: int) -> dict[str, np.ndarray]:
    """Kernel blocks of a network of three hidden layers, targets, times."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((n, 50)), rng.standard_normal((n // 2, 50))
    train, cross = (
        nk.kernel(nk.mlp(3, 1.4, 0.1), *pair, ("ntk", "nngp")) for pair in ((x, None), (z, x))
    )
    return {
        "ntk": train.ntk,
        "nngp": train.nngp,
        "ntk_cross": cross.ntk,
        "nngp_cross": cross.nngp,
        "nngp_own": nk.kernel_diag(nk.mlp(3, 1.4, 0.1), z, "nngp"),
        "y": rng.standard_normal((n, OUTPUTS)),
        "times": np.geomspace(1, 1e6, 200),
    }


def means(p: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    dynamics = Dynamics(p["ntk"], p["y"])
    return dynamics.train.mean(p["times"]), dynamics.points(p["ntk_cross"]).mean(p["times"])


def covariances(p: dict[str, np.ndarray]) -> np.ndarray:
    dynamics = Dynamics(p["ntk"], p["y"], nngp=p["nngp"])
    points = dynamics.points(p["ntk_cross"], p["nngp_cross"], p["nngp_own"])
    return points.covariance(p["times"][::20], diagonal=True)


def check(n: int) -> dict[str, float]:
    """Against (1 - exp(-K t/N)) K^-1 y, and B S B^T, by scipy's matrix exponential and a solver."""
    from scipy.linalg import expm

    p = problem(n)
    train, test = means(p)
    variances = covariances(p)
    found = {"mean": 0.0, "covariance": 0.0}
    for i in (0, 100):
        learned = np.eye(n) - expm(-p["ntk"] * p["times"][i] / n)
        b = np.linalg.solve(p["ntk"], learned @ p["ntk_cross"].T).T
        full = b @ p["nngp"] @ b.T - 2 * b @ p["nngp_cross"].T
        expected = p["nngp_own"] + full.diagonal()
        errors = (train[i] - learned @ p["y"], test[i] - b @ p["y"])
        found["mean"] = max(
            found["mean"], *(float(np.abs(e).max() / np.abs(train).max()) for e in errors)
        )
        found["covariance"] = max(
            found["covariance"], float(np.abs(variances[i // 20] / expected - 1).max())
        )
    for what, error in found.items():
        require(what, error, 1e-9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--n", type=int, default=2000)
    given = parser.parse_args()
    with pinned(last_core()), threadpool_limits(1):
        errors = check(300)
        p = problem(given.n)
        contestants = {
            "eigh": measured(lambda: np.linalg.eigh(p["ntk"])),
            "means": measured(lambda: means(p)),
            "covariances": measured(lambda: covariances(p)),
        }
        timings = alternate(contestants, given.repeats)
    eigh = statistics.median(timings["eigh"].core)
    ratios = {name: statistics.median(timings[name].core) / eigh for name in GOALS}
    print(f"N = {given.n}: one float64 eigh {eigh:.2f} s; errors {errors}")
    for name, goal in GOALS.items():
        verdict = "met" if ratios[name] <= goal else "MISSED"
        print(f"  {name:12s} {ratios[name]:6.3f} x eigh   goal <= {goal:g}  {verdict}")
    path = write(
        "dynamics",
        {"n": given.n, "errors": errors, "timings": timings, "ratios": ratios, "goals": GOALS},
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
