"""In the mean-field limit features move as much in wide networks as in narrow ones,
and outputs stop fluctuating.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp
from ntkcore.theory.sphere import random_points

CLAIM = (
    "In mean-field parameterization the relative movement of the features does not depend on the"
    " width, in NTK parameterization it vanishes; the initial output fluctuates like n^(-1/2) in"
    " the one, and at any width alike in the other (Mei et al. 2018; Chizat et al. 2019;"
    " Yang & Hu 2021)."
)
KINDS = ("mean_field", "ntk")


@dataclass(frozen=True)
class Config:
    """Points, widths, draws, steps."""

    points: int = 64
    d: int = 10
    widths: tuple[int, ...] = (64, 256, 1024, 4096)
    draws: int = 12
    steps: int = 100
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (64, 256, 1024), "draws": 8, "steps": 60}


def run(config: Config) -> dict[str, Any]:
    """Movement of features and size of the initial output, (kinds, widths), and their slopes."""
    from ntkcore.finite import empirical_ntk, feature_movement, to_torch, train

    rng = np.random.default_rng(config.seed)
    x = random_points(config.points, config.d, rng) * np.sqrt(config.d)
    y = np.tanh(x[:, 0] * x[:, 1])
    moved, output = np.zeros((2, len(KINDS), len(config.widths)))
    for i, kind in enumerate(KINDS):
        for j, width in enumerate(steps(config.widths)):
            rate = None
            for draw in range(config.draws):
                seed = draw + 100 * config.seed
                start = to_torch(
                    mlp(1),
                    width,
                    input_shape=(config.d,),
                    parameterization=kind,
                    seed=seed,
                    dtype="float64",
                )
                if rate is None:
                    rate = (
                        config.points
                        / np.linalg.eigvalsh(empirical_ntk(start, x, scales="sgd"))[-1]
                        / 2
                    )
                module = copy.deepcopy(start)
                train(module, x, y, lr=float(rate), steps=config.steps)
                moved[i, j] += feature_movement(module, start, x) / config.draws
                output[i, j] += _size(start, x) / config.draws
    output = np.sqrt(output)
    logs = np.log(config.widths)
    return {
        "widths": np.array(config.widths),
        "moved": moved,
        "output": output,
        "moved_slopes": np.array([np.polyfit(logs, np.log(row), 1)[0] for row in moved]),
        "output_slopes": np.array([np.polyfit(logs, np.log(row), 1)[0] for row in output]),
    }


def _size(module: Any, x: Any) -> float:
    import torch

    with torch.no_grad():
        return float((module(torch.as_tensor(x)) ** 2).mean())


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Slopes over the width."""
    return [
        Criterion(
            "slope of the features' movement, mean field", arrays["moved_slopes"][0], -0.1, 0.1
        ),
        Criterion("slope of the features' movement, NTK", arrays["moved_slopes"][1], -0.65, -0.35),
        Criterion(
            "slope of the initial output, mean field", arrays["output_slopes"][0], -0.65, -0.35
        ),
        Criterion("slope of the initial output, NTK", arrays["output_slopes"][1], -0.15, 0.15),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Both over the width."""
    for ax, name, label in zip(
        figure.subplots(1, 2),
        ("moved", "output"),
        ("movement of the features", "initial output, rms"),
        strict=True,
    ):
        for kind, row, slope in zip(KINDS, arrays[name], arrays[f"{name}_slopes"], strict=True):
            ax.plot(arrays["widths"], row, "o-", label=f"{kind}, slope {slope:.2f}")
        ax.set(xscale="log", yscale="log", xlabel="width", ylabel=label)
        ax.legend(frameon=False)
