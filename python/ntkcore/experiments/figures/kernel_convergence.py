"""The kernel of a random network of width n approaches the infinite one like n^(-1/2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Relu
from ntkcore.specs.convolutions import Conv, GlobalAvgPool
from ntkcore.specs.layers import Dense, Serial
from ntkcore.specs.nets import HE, mlp
from ntkcore.theory.sphere import random_points

CLAIM = (
    "The empirical NTK at initialisation deviates from its infinite-width limit by a multiple of"
    " n^(-1/2), for one to three hidden layers and for a small convolutional network (Jacot et al."
    " 2018, theorem 1; Arora et al. 2019)."
)


@dataclass(frozen=True)
class Config:
    """Points, widths, draws of the weights; the CNN's fluctuate more and need more draws."""

    points: int = 32
    d: int = 10
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    draws: int = 10
    cnn_widths: tuple[int, ...] = (16, 32, 64, 128)
    cnn_draws: int = 100
    seed: int = 0


QUICK: dict[str, Any] = {
    "widths": (64, 128, 256, 512),
    "draws": 6,
    "points": 16,
    "cnn_widths": (16, 32, 64),
    "cnn_draws": 30,
}


def run(config: Config) -> dict[str, Any]:
    """Relative deviation in the Frobenius norm, (networks, widths), and its slope;
    the CNN by itself.
    """
    rng = np.random.default_rng(config.seed)
    x = random_points(config.points, config.d, rng)
    fc = np.array(
        [
            _deviations(mlp(depth), x, config.widths, config.draws, config.seed)
            for depth in (1, 2, 3)
        ]
    )
    conv = Conv((3, 3), (1, 1), "SAME", HE)
    cnn = Serial(conv, Relu(), conv, Relu(), GlobalAvgPool(), Dense(HE))
    images = rng.standard_normal((6, 6, 6, 2))
    small = np.array(_deviations(cnn, images, config.cnn_widths, config.cnn_draws, config.seed))
    return {
        "widths": np.array(config.widths),
        "deviation": fc,
        "cnn_widths": np.array(config.cnn_widths),
        "cnn_deviation": small,
        "slopes": np.array([_slope(config.widths, row) for row in fc]),
        "cnn_slope": _slope(config.cnn_widths, small),
    }


def _deviations(net: Any, x: Any, widths: tuple[int, ...], draws: int, first: int) -> list[float]:
    """Root of the mean square over draws."""
    from ntkcore.finite import empirical_ntk, to_torch

    limit = kernel(net, x, dtype=np.float64)
    out = []
    for width in steps(widths):
        squares = []
        for draw in range(draws):
            seed = 1000 * first + draw
            module = to_torch(net, width, input_shape=x.shape[1:], seed=seed, dtype="float64")
            squares.append(
                (np.linalg.norm(empirical_ntk(module, x) - limit) / np.linalg.norm(limit)) ** 2
            )
        out.append(float(np.sqrt(np.mean(squares))))
    return out


def _slope(widths: Any, values: Any) -> float:
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Slopes of -1/2 within 0.1, of the quick run's few draws within 0.15."""
    loose = 0.1 if config.draws >= 10 else 0.15
    slopes = [
        Criterion(f"slope, {depth} hidden layer(s)", slope, -0.5 - loose, -0.5 + loose)
        for depth, slope in enumerate(arrays["slopes"], 1)
    ]
    return [
        *slopes,
        Criterion("slope, two convolutions", arrays["cnn_slope"], -0.5 - loose, -0.5 + loose),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Deviation over width."""
    ax = figure.add_subplot()
    for depth, (row, slope) in enumerate(
        zip(arrays["deviation"], arrays["slopes"], strict=True), 1
    ):
        ax.plot(arrays["widths"], row, "o-", label=f"{depth} hidden, slope {slope:.2f}")
    ax.plot(
        arrays["cnn_widths"],
        arrays["cnn_deviation"],
        "s--",
        label=f"CNN, slope {arrays['cnn_slope']:.2f}",
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="width or channels",
        ylabel="relative deviation of the NTK",
    )
    ax.legend(frameon=False)
