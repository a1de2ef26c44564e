"""How much a few steps of training move the hidden coordinates, over the width:
the coordinate check.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Relu
from ntkcore.specs.layers import Dense, Serial

CLAIM = (
    "After five steps at one learning rate the last hidden coordinates have moved by a share of"
    " themselves that does not depend on the width in maximal-update parameterization; in the"
    " standard one it grows with the width, and with a rate of SGD that falls as 1/n it vanishes"
    " (Yang & Hu 2021; Yang et al. 2022, appendix D): two hidden layers, which of ten Gaussian"
    " numbers is the largest."
)
LINES = {
    "maximal update": ("mup", 0),
    "standard": ("standard", 0),
    "standard, rate / n": ("standard", 1),
}
OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Config:
    """Samples and their dimension, widths, steps, draws;
    learning rates of SGD and of Adam at the least width.
    """

    n: int = 256
    d: int = 16
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    steps: int = 5
    draws: int = 5
    rates: tuple[float, float] = (0.3, 2.0**-8)
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (64, 256, 1024), "draws": 2}


def run(config: Config) -> dict[str, Any]:
    """RMS of the change over RMS before, last hidden layer, (optimizers, lines, widths),
    and its slopes.
    """
    x = np.random.default_rng(config.seed).standard_normal((config.n, config.d)).astype(np.float32)
    y = x[:, :10].argmax(axis=1)
    moved = np.array(
        [
            [
                [_moved(x, y, optimizer, rate, *line, w, config) for w in config.widths]
                for line in LINES.values()
            ]
            for optimizer, rate in zip(OPTIMIZERS, steps(config.rates), strict=True)
        ]
    )
    logs = np.log(config.widths)
    slopes = np.polyfit(logs, np.log(moved).reshape(-1, len(logs)).T, 1)[0].reshape(moved.shape[:2])
    return {"widths": np.array(config.widths), "moved": moved, "slopes": slopes}


def _moved(
    x: Any, y: Any, optimizer: str, rate: float, kind: str, power: int, width: int, config: Config
) -> float:
    from ntkcore.finite import activation_movement, to_torch, train

    net = Serial(Dense(2**0.5), Relu(), Dense(2**0.5), Relu(), Dense(1.0, width=10))
    shares = []
    for draw in range(config.draws):
        seed = draw + 100 * config.seed
        module = to_torch(net, width, input_shape=x.shape[1:], parameterization=kind, seed=seed)
        before = copy.deepcopy(module)
        lr = rate * (config.widths[0] / width) ** power
        options: dict[str, Any] = {"loss": "cross_entropy", "base_width": config.widths[0]}
        train(module, x, y, lr=lr, steps=config.steps, optimizer=optimizer, **options)
        change, size = activation_movement(module, before, x)["body.2"]
        shares.append(change / size)
    return float(np.mean(shares))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Slopes over the width: 0, above, and below;
    Adam at rate / n still moves the last layer by its own weights.
    """
    names = [f"{optimizer}: slope, {line}" for optimizer in OPTIMIZERS for line in LINES]
    ranges = [
        (-0.1, 0.1),
        (0.4, np.inf),
        (-np.inf, -0.4),
        (-0.1, 0.1),
        (0.4, np.inf),
        (-np.inf, 0.0),
    ]
    slopes = arrays["slopes"].ravel()
    return [
        Criterion(name, slope, *each)
        for name, slope, each in zip(names, slopes, ranges, strict=True)
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Both optimizers."""
    axes = figure.subplots(1, 2, sharey=True)
    for ax, optimizer, lines, slopes in zip(
        axes, OPTIMIZERS, arrays["moved"], arrays["slopes"], strict=True
    ):
        for name, row, slope in zip(LINES, lines, slopes, strict=True):
            ax.plot(arrays["widths"], row, "o-", label=f"{name}: {slope:.2f}")
        ax.set(xscale="log", yscale="log", xlabel="width", title=optimizer)
        ax.legend(frameon=False, title="slopes", fontsize=8)
    axes[0].set(ylabel="change / size, last hidden layer")
