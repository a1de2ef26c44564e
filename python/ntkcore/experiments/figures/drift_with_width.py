"""What training moves, over the width: the kernel and the weights relative to themselves,
and the function.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.rules import GradientDescent
from ntkcore.theory.sphere import random_points

CLAIM = (
    "After 200 steps of gradient descent the kernel's relative movement, the weights' relative"
    " movement, the distance to the linearised network and that to the infinite one, on new points,"
    " fall with the width; the weights' absolute movement does not (Lee et al. 2019; Chizat et al."
    " 2019). One hidden ReLU layer, NTK parameterization."
)
MEASURES = ("kernel", "weights, relative", "f - f_lin", "f - f_infinite", "weights, absolute")


@dataclass(frozen=True)
class Config:
    """Points, new points, widths, draws, steps."""

    points: int = 32
    tests: int = 100
    d: int = 10
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    draws: int = 6
    steps: int = 200
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (64, 128, 256, 512), "draws": 4}


def run(config: Config) -> dict[str, Any]:
    """Means over draws, (widths, measures), and their slopes."""
    from ntkcore.finite import to_torch

    rng = np.random.default_rng(config.seed)
    x = random_points(config.points + config.tests, config.d, rng)
    y = x[: config.points, 0] * x[: config.points, 1]
    infinite = kernel(mlp(1), x, x[: config.points], dtype=np.float64)
    out = np.zeros((len(config.widths), len(MEASURES)))
    for row, width in zip(out, steps(config.widths), strict=True):
        for draw in range(config.draws):
            start = to_torch(
                mlp(1),
                width,
                input_shape=(config.d,),
                seed=draw + 100 * config.seed,
                dtype="float64",
            )
            row += _movements(start, x, y / y.std(), infinite, config.steps)
    out /= config.draws
    slopes = np.polyfit(np.log(config.widths), np.log(out), 1)[0]
    return {"widths": np.array(config.widths), "movement": out, "slopes": slopes}


def _movements(start: Any, x: Any, y: Any, infinite: Any, steps: int) -> list[float]:
    """MEASURES of one network after so many steps, beside both linear models after as many;
    first ``y``'s points.
    """
    import torch

    from ntkcore.finite import (
        empirical_ntk,
        kernel_movement,
        parameter_movement,
        rms_deviation,
        train,
    )

    n = len(y)
    K = empirical_ntk(start, x, x[:n])
    rule = GradientDescent(n / float(np.linalg.eigvalsh(K[:n])[-1]))
    module = copy.deepcopy(start)
    train(module, x[:n], y, lr=rule.learning_rate, steps=steps)
    with torch.no_grad():
        f0, f = (net(torch.as_tensor(x))[:, 0].numpy() for net in (start, module))
    linear, limit = (
        Dynamics(block[:n], y, rule, f0=f0[:n]).points(block[n:], f0=f0[n:]).mean(steps)
        for block in (K, infinite)
    )
    return [
        kernel_movement(empirical_ntk(module, x[:n]), K[:n]),
        parameter_movement(module, start),
        rms_deviation(f[n:], linear),
        rms_deviation(f[n:], limit),
        parameter_movement(module, start, relative=False),
    ]


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Slopes over the width."""
    kernel, relative, linear, infinite, absolute = arrays["slopes"]
    return [
        Criterion("slope of the kernel's relative movement", kernel, -1.1, -0.4),
        Criterion("slope of the weights' relative movement", relative, -0.65, -0.35),
        Criterion("slope of |f - f_lin|", linear, high=-0.5),
        Criterion("slope of |f - f_infinite|", infinite, -0.65, -0.35),
        Criterion("slope of the weights' absolute movement", absolute, -0.1, 0.1),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Every measure relative to that at the least width."""
    ax = figure.add_subplot()
    for name, column, slope in zip(MEASURES, arrays["movement"].T, arrays["slopes"], strict=True):
        ax.plot(arrays["widths"], column / column[0], "o-", label=f"{name}: {slope:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="width", ylabel="movement, least width = 1")
    ax.legend(frameon=False, title="slopes")
