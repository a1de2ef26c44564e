"""A small student of three neurons: from small weights it learns features and wins, from large ones it stays lazy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments import Criterion, steps
from ntkcore.sphere import random_points

CLAIM = (
    "Over the scale tau of its initial weights, a two-layer ReLU student of a three-neuron teacher goes from feature "
    "learning (neurons move, small test loss) to lazy training (they stay, large loss): Chizat et al. 2019, figure 1."
)


@dataclass(frozen=True)
class Config:
    """Dimension, samples, student's neurons, steps, scales, seeds."""

    d: int = 50
    n: int = 500
    tests: int = 2000
    neurons: int = 50
    steps: int = 12_000
    rate: float = 0.02
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    seeds: int = 2
    seed: int = 0


QUICK: dict[str, Any] = {"scales": (0.01, 0.1, 3.0), "seeds": 1, "steps": 5000}


def run(config: Config) -> dict[str, Any]:
    """Test loss over the targets' variance and relative movement of the neurons, (seeds, scales)."""
    loss, moved = np.empty((2, config.seeds, len(config.scales)))
    for i in range(config.seeds):
        rng = np.random.default_rng([config.seed, i])
        teacher, sign = random_points(3, config.d, rng), rng.choice([-1.0, 1.0], 3)
        x = random_points(config.n + config.tests, config.d, rng) * np.sqrt(config.d)
        y = np.maximum(x @ teacher.T, 0) @ sign
        start = rng.standard_normal((config.neurons, config.d)) / np.sqrt(config.d), rng.standard_normal(config.neurons)
        for j, tau in enumerate(steps(config.scales)):
            loss[i, j], moved[i, j] = _train(
                x[: config.n], y[: config.n], x[config.n :], y[config.n :], start, tau, config
            )
    return {"scales": np.array(config.scales), "loss": loss, "movement": moved}


def _train(x: Any, y: Any, z: Any, target: Any, start: Any, tau: float, config: Config) -> tuple[float, float]:
    """Full-batch descent on both layers; twin neurons of opposite read-outs make the student zero at the start."""
    W, a = (np.concatenate([part, part]) * tau for part in start)
    a[len(start[1]) :] *= -1
    W_0 = W.copy()
    rate = config.rate / max(1.0, tau**2) / len(a)
    for _ in range(config.steps):
        h = np.maximum(x @ W.T, 0)
        residual = (h @ a - y) / len(y)
        back = np.outer(residual, a) * (h > 0)
        a, W = a - rate * len(a) * h.T @ residual, W - rate * len(a) * back.T @ x
    error = np.maximum(z @ W.T, 0) @ a - target
    return float((error**2).mean() / target.var()), float(np.linalg.norm(W - W_0) / np.linalg.norm(W_0))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Far apart at both ends, in loss and in movement."""
    loss, moved = arrays["loss"].mean(0), arrays["movement"].mean(0)
    return [
        Criterion("test loss at the largest scale over that at the least", loss[-1] / loss[0], 20),
        Criterion("movement at the least scale", moved[0], 1),
        Criterion("movement at the largest scale", moved[-1], high=0.1),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Loss and movement over the scale."""
    for ax, name, label in zip(
        figure.subplots(1, 2), ("loss", "movement"), ("test loss / variance", "|W - W_0| / |W_0|"), strict=True
    ):
        ax.plot(arrays["scales"], arrays[name].T, "o-", color="C0")
        ax.set(xscale="log", yscale="log", xlabel="scale of the initial weights", ylabel=label)
