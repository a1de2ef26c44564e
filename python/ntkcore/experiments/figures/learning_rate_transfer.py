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
    "With Adam the best learning rate of a narrow network costs a wide one much less in"
    " maximal-update parameterization than in the standard one, where it falls with the width"
    " (Yang et al. 2022, figure 1): digits, two hidden layers, training loss after two epochs."
    " It is about transfer: tuned at its own width, the standard one reaches no higher a loss here."
)
KINDS = ("mup", "standard")


@dataclass(frozen=True)
class Config:
    """Images, widths, log2 of learning rates, draws, steps of 128 images."""

    n: int = 4000
    widths: tuple[int, ...] = (64, 256, 1024)
    rates: tuple[float, ...] = (-9, -8.5, -8, -7.5, -7, -6.5, -6, -5.5, -5, -4.5, -4)
    draws: int = 3
    steps: int = 64
    seed: int = 0


QUICK: dict[str, Any] = {
    "n": 2500,
    "widths": (64, 512),
    "rates": (-9, -8, -7, -6, -5, -4),
    "draws": 1,
    "steps": 40,
}


def _images(config: Config) -> tuple[Any, Any]:
    x, y, _ = digits()
    rows = np.random.default_rng(config.seed).permutation(len(x))[: config.n]
    return (x[rows] / x.max()).astype(np.float32), y[rows]


def run(config: Config) -> dict[str, Any]:
    """Training loss near the end, (kinds, widths, rates), the mean over draws."""
    x, y = _images(config)
    loss = np.array(
        [
            [[_loss(x, y, k, w, r, config) for r in config.rates] for w in steps(config.widths)]
            for k in KINDS
        ]
    )
    return {
        "widths": np.array(config.widths),
        "rates": np.array(config.rates),
        "loss": loss,
        "best": np.array(config.rates)[loss.argmin(2)],
    }


def _loss(x: Any, y: Any, kind: str, width: int, rate: float, config: Config) -> float:
    """Infinite where a draw diverges. One look would be a look at the noise of the last step."""
    from ntkcore.finite import DivergedError, to_torch, train

    net = Serial(Dense(2**0.5), Relu(), Dense(2**0.5), Relu(), Dense(1.0, width=10))
    options: dict[str, Any] = {
        "optimizer": "adam",
        "batch_size": 128,
        "loss": "cross_entropy",
        "base_width": 64,
        "steps": config.steps,
        "every": [config.steps - back for back in (9, 6, 3)],
    }
    losses = []
    for draw in range(config.draws):
        seed = draw + 100 * config.seed
        module = to_torch(net, width, input_shape=x.shape[1:], parameterization=kind, seed=seed)
        try:
            history = train(module, x, y, lr=2.0**rate, seed=seed, **options)
        except DivergedError:
            return float("inf")
        losses.append(history.loss[-4:].mean())
    return float(np.mean(losses))


def _transferred(arrays: dict[str, Any]) -> Any:
    """Loss of every width at the best rate of the narrowest: (kinds, widths)."""
    columns = arrays["loss"][:, 0].argmin(1)
    return np.take_along_axis(arrays["loss"], columns[:, None, None], 2)[..., 0]


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """What the widest loses by the narrowest's best rate; octaves between their best rates."""
    moved = arrays["best"][:, -1] - arrays["best"][:, 0]
    least = arrays["loss"].min(2)
    transferred = _transferred(arrays)
    excess = transferred[:, -1] / least[:, -1] - 1
    ratio = excess[1] / max(excess[0], 0.01)
    inside = min(
        np.abs(arrays["best"] - edge).min() for edge in (config.rates[0], config.rates[-1])
    )
    return [
        Criterion("excess loss at the transferred rate, maximal update", excess[0], high=0.35),
        Criterion("excess loss there, the standard one over it", ratio, 2),
        Criterion("octaves by which the best rate moves, maximal update", abs(moved[0]), high=1.5),
        Criterion("octaves by which the best rate falls, standard", -moved[1], 1),
        Criterion(
            "loss at the transferred rate, next width over width, maximal update: largest",
            (transferred[0, 1:] / transferred[0, :-1]).max(),
            high=1,
        ),
        Criterion(
            "least loss of the widest, standard over maximal update",
            least[1, -1] / least[0, -1],
            high=1,
        ),
        Criterion("octaves from a best rate to the grid's edge, least", inside, 0.5),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Loss over the learning rate, a line a width; a ring at the best rate of the narrowest."""
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kind, rows, best, ringed in zip(
        axes, KINDS, arrays["loss"], arrays["best"], _transferred(arrays), strict=True
    ):
        for place, (width, row) in enumerate(zip(arrays["widths"], rows, strict=True)):
            shade = 0.75 * (1 - place / max(len(rows) - 1, 1))
            ax.plot(arrays["rates"], row, "o-", color=str(shade), label=f"width {width}")
        rates = np.full(len(ringed), best[0])
        ax.plot(rates, ringed, "o", ms=10, mfc="none", mec="C3", label="at the narrowest's best")
        ax.set(yscale="log", xlabel="log2 learning rate", title=kind)
    axes[0].set(ylabel="training loss")
    axes[0].legend(frameon=False)
