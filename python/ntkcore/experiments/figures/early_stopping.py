"""Noisy labels: stopping early beats training to the end,
and every eigenmode decays at its own rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.datasets import digits
from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics, GradientFlow

CLAIM = (
    "On MNIST's parity with a fifth of the labels flipped, the kernel's training has a best time to"
    " stop, which 1000 validation images find; steps of gradient descent decay in the eigenbasis at"
    " the rates lambda_i/N."
)
MODES = (0, 1, 3, 10, 30)


@dataclass(frozen=True)
class Config:
    """Images, depth, share of flipped labels."""

    train: int = 3000
    held_out: int = 1000
    depth: int = 3
    flips: float = 0.2
    seed: int = 0


QUICK: dict[str, Any] = {"train": 500, "held_out": 300}


def _images(config: Config) -> tuple[Any, Any, str]:
    rng = np.random.default_rng(config.seed)
    x, y, name = digits()
    rows = rng.permutation(len(x))[: config.train + 2 * config.held_out]
    return x[rows] / np.max(x), np.where(y[rows] % 2, 1.0, -1.0), name


def run(config: Config) -> dict[str, Any]:
    """Losses over time, the time to stop, and the decay of modes by steps of gradient descent."""
    x, y, name = _images(config)
    a, b = config.train, config.train + config.held_out
    flipped = np.random.default_rng(config.seed + 1).random(a) < config.flips
    noisy = np.where(flipped, -y[:a], y[:a])
    dynamics = Dynamics.from_net(mlp(config.depth, b_std=0.1), x[:a], noisy, GradientFlow())
    validation, test = dynamics.at(x[a:b]), dynamics.at(x[b:])
    stop = dynamics.early_stopping(validation, y[a:b])
    scale = 1 / dynamics.rates.max()
    times = np.geomspace(0.1 * scale, 3e6 * scale, 120)
    decay, predicted = _steps(
        kernel(mlp(config.depth, b_std=0.1), x[:a], dtype=np.float64), noisy, dynamics
    )
    return {
        "data": name,
        "times": times,
        "train_loss": dynamics.train_loss(times),
        "validation_loss": validation.loss(times, y[a:b]),
        "test_loss": test.loss(times, y[b:]),
        "stop": stop.time,
        "test_at_stop": float(test.loss(stop.time, y[b:])),
        "test_at_end": float(test.loss(np.inf, y[b:])),
        "steps": np.arange(len(decay)),
        "decay": decay,
        "predicted": predicted,
    }


def _steps(K: Any, y: Any, dynamics: Dynamics) -> tuple[Any, Any]:
    """|v_i . r_t| relative to its start by 200 small steps, and exp(-rate t): both (201, modes)."""
    V, rates = dynamics.modes.vectors[:, MODES], dynamics.rates[list(MODES)]
    step = 0.05 / rates[0]
    residual, rows = -y.copy(), []
    for _ in range(201):
        rows.append(np.abs(V.T @ residual))
        residual -= step / len(y) * (K @ residual)
    decay = np.array(rows)
    return decay / decay[0], np.exp(-step * np.arange(201)[:, None] * rates)


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Stopping helps, validation finds it, rates within 10 % until e^-2."""
    seen = arrays["predicted"] > np.exp(-2)
    seen[0] = False
    rates = np.log(arrays["decay"][seen]) / np.log(arrays["predicted"][seen])
    stopped = arrays["test_at_stop"]
    return [
        Criterion(
            "test loss when stopped, over that at the end",
            stopped / arrays["test_at_end"],
            high=0.98,
        ),
        Criterion(
            "test loss when stopped, over the least", stopped / arrays["test_loss"].min(), high=1.05
        ),
        Criterion("least measured rate over lambda_i/N", rates.min(), 0.9),
        Criterion("largest measured rate over lambda_i/N", rates.max(), high=1.1),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Losses over time; decay of modes."""
    left, right = figure.subplots(1, 2)
    for color, part in zip(("0.3", "C0", "C1"), ("train", "validation", "test"), strict=True):
        left.plot(arrays["times"], arrays[f"{part}_loss"], color=color, label=part)
    left.axvline(arrays["stop"], color="C0", ls=":", label="stopped")
    left.set(
        xscale="log", xlabel="training time", ylabel="loss", title=arrays["data"], ylim=(0, None)
    )
    left.legend(frameon=False)
    for place, mode in enumerate(MODES):
        right.plot(
            arrays["steps"], arrays["decay"][:, place], color=f"C{place}", label=f"mode {mode}"
        )
        right.plot(arrays["steps"], arrays["predicted"][:, place], "k:", lw=1)
    right.set(
        yscale="log",
        ylim=(5e-3, 1.5),
        xlabel="steps",
        ylabel="share of the mode left",
        title="dotted: λ/N",
    )
    right.legend(frameon=False)
