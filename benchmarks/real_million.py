"""A million points on landmarks: time, memory, and the excess risk over a known noise floor.

    python benchmarks/real_million.py [--n 1000000] [--landmarks 10000 20000]

Targets are a random smooth function of 10 features plus noise of a tenth of its variance; the
network has 3 hidden layers and biases (without them it is homogeneous, and the function is not),
float32. The excess risk is the mean square of prediction minus function on 20 000 fresh points,
over the function's variance.
"""

from __future__ import annotations

import argparse
import resource
from typing import Any

import numpy as np
from harness import measure, write

from ntkcore import fit, mlp

NET = mlp(3, b_std=1.0)
FEATURES, NOISE, TEST, RIDGE = 10, 0.1, 20_000, 1e-3
GOALS = {"wall": 1800.0, "memory": 16e9}


def function(x: np.ndarray) -> np.ndarray:
    """Of unit variance, about: 40 random waves and a product of two features."""
    rng = np.random.default_rng(1)
    waves, phases = rng.standard_normal((FEATURES, 40)) / FEATURES**0.5, rng.uniform(0, 6, 40)
    out: np.ndarray = np.sin(x @ waves + phases).mean(1) * 8 + 0.5 * x[:, 0] * x[:, 1]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--landmarks", type=int, nargs="+", default=[10_000])
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((chosen.n + TEST, FEATURES)).astype("f4")
    clean = function(x)
    scale = clean[: chosen.n].std()
    y = clean[: chosen.n] + NOISE**0.5 * scale * rng.standard_normal(chosen.n)
    record: dict[str, Any] = {"n": chosen.n, "runs": {}}
    for m in chosen.landmarks:
        models: list[Any] = []
        core, wall = measure(
            lambda m=m, models=models: models.append(
                fit(NET, x[: chosen.n], y, RIDGE, n_landmarks=m, say=lambda s: print(" ", s))
            )
        )
        error = models[0].predict(x[chosen.n :]) - clean[chosen.n :]
        excess = float((error**2).mean() / scale**2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        record["runs"][m] = {"core": core, "wall": wall, "peak": peak, "excess": excess}
        print(
            f"n={chosen.n}, {m} landmarks: {wall:.0f} s ({core:.0f} s of core time), peak"
            f" {peak / 1e9:.1f} GB, excess risk {excess:.4f} of the variance; with the noise"
            f" {excess + NOISE:.4f}"
        )
    if chosen.n == parser.get_default("n"):
        print(f"written: {write('million', record)}")


if __name__ == "__main__":
    main()
