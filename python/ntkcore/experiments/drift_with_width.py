"""What training moves, over the width: the kernel and the weights relative to themselves, and the function."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments import Criterion, steps
from ntkcore.nets import mlp
from ntkcore.sphere import random_points

CLAIM = (
    "After 200 steps of gradient descent the kernel's relative movement, the weights' relative movement and the "
    "distance to the linearised network fall with the width; the weights' absolute movement does not (Lee et al. 2019; "
    "Chizat et al. 2019). One hidden ReLU layer, NTK parameterization."
)
MEASURES = ("kernel", "weights, relative", "f - f_lin", "weights, absolute")


@dataclass(frozen=True)
class Config:
    """Points, widths, draws, steps."""

    points: int = 32
    d: int = 10
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    draws: int = 6
    steps: int = 200
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (64, 128, 256, 512), "draws": 4}


def run(config: Config) -> dict[str, Any]:
    """Means over draws, (widths, measures), and their slopes."""
    from ntkcore.finite import (
        empirical_ntk,
        kernel_movement,
        linearization_error,
        parameter_movement,
        to_torch,
        train,
    )

    rng = np.random.default_rng(config.seed)
    x = random_points(config.points, config.d, rng)
    y = rng.standard_normal(config.points)
    out = np.zeros((len(config.widths), len(MEASURES)))
    for row, width in zip(out, steps(config.widths), strict=True):
        for draw in range(config.draws):
            start = to_torch(mlp(1), width, input_shape=(config.d,), seed=draw + 100 * config.seed, dtype="float64")
            K = empirical_ntk(start, x)
            module = copy.deepcopy(start)
            train(module, x, y, lr=config.points / float(np.linalg.eigvalsh(K)[-1]), steps=config.steps)
            row += [
                kernel_movement(empirical_ntk(module, x), K),
                parameter_movement(module, start),
                linearization_error(module, start, x),
                parameter_movement(module, start, relative=False),
            ]
    out /= config.draws
    slopes = np.polyfit(np.log(config.widths), np.log(out), 1)[0]
    return {"widths": np.array(config.widths), "movement": out, "slopes": slopes}


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Slopes over the width."""
    kernel, relative, function, absolute = arrays["slopes"]
    return [
        Criterion("slope of the kernel's relative movement", kernel, -1.1, -0.4),
        Criterion("slope of the weights' relative movement", relative, -0.65, -0.35),
        Criterion("slope of |f - f_lin|", function, high=-0.3),
        Criterion("slope of the weights' absolute movement", absolute, -0.1, 0.1),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Every measure relative to that at the least width."""
    ax = figure.add_subplot()
    for name, column, slope in zip(MEASURES, arrays["movement"].T, arrays["slopes"], strict=True):
        ax.plot(arrays["widths"], column / column[0], "o-", label=f"{name}: {slope:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="width", ylabel="movement, least width = 1")
    ax.legend(frameon=False, title="slopes")
