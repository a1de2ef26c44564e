"""The best learning rate of a narrow network serves a wide one,
in maximal-update parameterization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.datasets import digits
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Relu
from ntkcore.specs.layers import Dense, Serial

CLAIM = (
    "With Adam the best learning rate hardly moves with the width in maximal-update"
    " parameterization, and falls in the standard one (Yang et al. 2022, figure 1): digits, two"
    " hidden layers, training loss after three epochs."
)
KINDS = ("mup", "standard")


@dataclass(frozen=True)
class Config:
    """Images, widths, log2 of learning rates, draws, steps of 128 images."""

    n: int = 4000
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    rates: tuple[int, ...] = (-11, -10, -9, -8, -7, -6, -5, -4)
    draws: int = 3
    steps: int = 94
    seed: int = 0


QUICK: dict[str, Any] = {
    "n": 1500,
    "widths": (64, 512),
    "rates": (-10, -9, -8, -7, -6, -5),
    "draws": 1,
    "steps": 60,
}


def _images(config: Config) -> tuple[Any, Any]:
    x, y, _ = digits()
    rows = np.random.default_rng(config.seed).permutation(len(x))[: config.n]
    return (x[rows] / x.max()).astype(np.float32), y[rows]


def run(config: Config) -> dict[str, Any]:
    """Training loss after the last step, mean over draws, (kinds, widths, rates)."""
    x, y = _images(config)
    net = Serial(Dense(2**0.5), Relu(), Dense(2**0.5), Relu(), Dense(1.0, width=10))
    loss = np.array(
        [
            [
                [_loss(net, x, y, k, w, r, config) for r in config.rates]
                for w in steps(config.widths)
            ]
            for k in KINDS
        ]
    )
    best = np.array(config.rates)[loss.argmin(2)]
    return {
        "widths": np.array(config.widths),
        "rates": np.array(config.rates),
        "loss": loss,
        "best": best,
    }


def _loss(net: Any, x: Any, y: Any, kind: str, width: int, rate: int, config: Config) -> float:
    import torch

    from ntkcore.finite import DivergedError, to_torch, train

    losses = []
    for draw in range(config.draws):
        seed = draw + 100 * config.seed
        module = to_torch(net, width, input_shape=x.shape[1:], parameterization=kind, seed=seed)
        options: dict[str, Any] = {
            "optimizer": "adam",
            "batch_size": 128,
            "loss": "cross_entropy",
            "base_width": 64,
        }
        try:
            train(module, x, y, lr=2.0**rate, steps=config.steps, seed=seed, **options)
        except DivergedError:
            return float("inf")
        with torch.no_grad():
            losses.append(
                float(
                    torch.nn.functional.cross_entropy(
                        module(torch.as_tensor(x)), torch.as_tensor(y)
                    )
                )
            )
    return float(np.mean(losses))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Octaves between the best rates of the narrowest and the widest."""
    mup, standard = arrays["best"]
    return [
        Criterion(
            "octaves by which the best rate moves, maximal update",
            abs(int(mup[-1] - mup[0])),
            high=1,
        ),
        Criterion(
            "octaves by which the best rate falls, standard", int(standard[0] - standard[-1]), 1
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Loss over the learning rate, a line a width."""
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kind, rows in zip(axes, KINDS, arrays["loss"], strict=True):
        for place, (width, row) in enumerate(zip(arrays["widths"], rows, strict=True)):
            shade = 0.8 - 0.8 * place / max(len(rows) - 1, 1)
            ax.plot(arrays["rates"], row, "o-", color=str(shade), label=f"width {width}")
        ax.set(yscale="log", xlabel="log2 learning rate", title=kind)
    axes[0].set(ylabel="training loss")
    axes[0].legend(frameon=False)
