"""Between learning features and staying lazy:
networks of different widths meet on the axis sqrt(h) alpha.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.datasets import digits
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp

CLAIM = (
    "Trained on alpha (f - f_0), networks of width h move their kernel by an amount that depends on"
    " sqrt(h) alpha alone, from feature learning to lazy training (Geiger et al. 2020): parity of"
    " digits, ten principal components."
)


@dataclass(frozen=True)
class Config:
    """Samples, widths, values of sqrt(h) alpha, steps, draws."""

    n: int = 200
    components: int = 10
    widths: tuple[int, ...] = (128, 512)
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    steps: int = 300
    draws: int = 4
    seed: int = 0


QUICK: dict[str, Any] = {"scales": (1.0, 8.0), "widths": (64, 256), "draws": 2}


def _problem(config: Config) -> tuple[Any, Any]:
    """Principal components of images, of norm sqrt(components) on average,
    and the parity of their digits.
    """
    x, y, _ = digits()
    rows = np.random.default_rng(config.seed).permutation(len(x))[: config.n]
    centred = x[rows] - x[rows].mean(0)
    U, s, _ = np.linalg.svd(centred, full_matrices=False)
    z = (U * s)[:, : config.components]
    return z / np.sqrt((z**2).mean()), np.where(y[rows] % 2, 1.0, -1.0)


def run(config: Config) -> dict[str, Any]:
    """Relative movement of the kernel and training loss, (widths, scales)."""
    from ntkcore.finite import empirical_ntk, kernel_movement, to_torch, train

    x, y = _problem(config)
    moved, loss = np.zeros((2, len(config.widths), len(config.scales)))
    for i, h in enumerate(config.widths):
        for j, scale in enumerate(steps(config.scales)):
            for draw in range(config.draws):
                start = to_torch(
                    mlp(2),
                    h,
                    input_shape=(config.components,),
                    alpha=scale / np.sqrt(h),
                    centred=True,
                    seed=draw + 100 * config.seed,
                    dtype="float64",
                )
                K = empirical_ntk(start, x)
                rate = config.n / float(np.linalg.eigvalsh(K)[-1]) * start.alpha**2
                module = copy.deepcopy(start)
                history = train(module, x, y, lr=0.5 * rate, steps=config.steps)
                moved[i, j] += kernel_movement(empirical_ntk(module, x), K) / config.draws
                loss[i, j] += float(history.loss[-1]) / config.draws
    return {
        "scales": np.array(config.scales),
        "widths": np.array(config.widths),
        "moved": moved,
        "loss": loss,
    }


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """The curves lie on each other up to sqrt(h) alpha = 10; beyond,
    narrow networks move by their own fluctuations.
    """
    ratio = arrays["moved"][0] / arrays["moved"][-1]
    fall = (arrays["moved"][:, 0] / arrays["moved"][:, -1]).min()
    loose = 0.15 if config.draws >= 4 else 0.3
    return [
        Criterion("least ratio of movements, narrow over wide", ratio.min(), 1 - loose),
        Criterion("largest ratio of movements, narrow over wide", ratio.max(), high=1 + loose),
        Criterion("movement at the least scale over that at the largest", fall, 5),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Movement over sqrt(h) alpha."""
    ax = figure.add_subplot()
    for h, row in zip(arrays["widths"], arrays["moved"], strict=True):
        ax.plot(arrays["scales"], row, "o-", label=f"h = {h}")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=r"$\sqrt{h}\,\alpha$",
        ylabel="relative movement of the kernel",
    )
    ax.legend(frameon=False)
