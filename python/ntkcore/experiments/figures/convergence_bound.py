"""A wide two-layer network converges at least as fast as its kernel's smallest eigenvalue
certifies: few activations flip, fewer the wider it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import ArcCosine
from ntkcore.specs.layers import Dense, Serial
from ntkcore.theory.sphere import random_points

CLAIM = (
    "Gradient descent on the first layer of a wide ReLU network with a fixed +-1 read-out keeps"
    " |r_t|^2 below (1 - eta lambda_0/2)^t |r_0|^2 at every step, lambda_0 > 0 the least eigenvalue"
    " of H; a narrow one need not. The reason: a neuron moves like width^(-1/2), so few activations"
    " flip, and H of the moved weights stays near H (Du et al. 2019)."
)

LABELS = {
    "flips": "flipped activations",
    "movement": "largest movement of a neuron",
    "distance": "distance to the kernel's course",
    "eigenvalue": "least eigenvalue of H at the end / $\\lambda_0$",
}


@dataclass(frozen=True)
class Config:
    """Points, dimension, widths, steps, draws."""

    n: int = 30
    d: int = 6
    widths: tuple[int, ...] = (32, 128, 512, 2048, 8192, 32768)
    steps: int = 1500
    draws: int = 5
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (32, 512, 2048, 8192), "draws": 3}


def gram(x: Any) -> Any:
    """H_ij = <x_i, x_j> P(both active) = <x_i, x_j> kappa_0/2;
    kappa_0 is the arc-cosine kernel of order 0.
    """
    kappa = kernel(Serial(Dense(), ArcCosine(0)), x, get="nngp", dtype=np.float64)
    return x @ x.T * kappa / 2


def run(config: Config) -> dict[str, Any]:
    """Squared residuals over their start, and the bound, by steps; of every width and draw the
    largest ratio to the bound, flips, movements, the kernel's distance, H's least eigenvalue.
    """
    rng = np.random.default_rng(config.seed)
    x, y = random_points(config.n, config.d, rng), rng.standard_normal(config.n)
    H = gram(x)
    values = np.linalg.eigvalsh(H)
    bound = (1 - 0.25 * values[0] / values[-1]) ** np.arange(config.steps)  # eta = 1/(2 lambda_max)
    curves, measures = [], []
    for width in steps(config.widths):
        runs = [
            _train(x, y, H, 0.5 / values[-1], width, config.steps, rng) for _ in range(config.draws)
        ]
        curve = np.array([run["curve"] for run in runs])
        ratios = (curve / bound).max(1)
        curves.append(curve[ratios.argmax()])
        measures.append([ratios, *(np.array([run[name] for run in runs]) for name in LABELS)])
    ratio, *others = np.moveaxis(np.array(measures), 1, 0)
    return {
        "widths": np.array(config.widths),
        "curves": np.array(curves),
        "bound": bound,
        "lambda_0": values[0],
        "ratio": ratio,
        **dict(zip(LABELS, others, strict=True)),
    }


def _train(x: Any, y: Any, H: Any, eta: float, width: int, steps: int, rng: Any) -> dict[str, Any]:
    """f = a . relu(W x)/sqrt(width); W alone is trained."""
    W, a = rng.standard_normal((width, x.shape[1])), rng.choice([-1.0, 1.0], width)
    W_0, scale = W.copy(), 1 / np.sqrt(width)
    curve, apart = np.empty(steps), np.empty(steps)
    for t in range(steps):
        z = x @ W.T
        residual = np.maximum(z, 0) @ a * scale - y
        if t == 0:
            linear, size = residual, np.linalg.norm(residual)
        curve[t] = residual @ residual / size**2
        apart[t] = np.linalg.norm(residual - linear) / size
        W -= eta * scale * a[:, None] * ((residual[:, None] * (z > 0)).T @ x)
        linear = linear - eta * H @ linear
    active = x @ W.T > 0
    moved = x @ x.T * (active.astype(float) @ active.T) / width
    return {
        "curve": curve,
        "flips": (active != (x @ W_0.T > 0)).mean(),
        "movement": np.linalg.norm(W - W_0, axis=1).max(),
        "distance": apart.max(),
        "eigenvalue": np.linalg.eigvalsh(moved)[0] / np.linalg.eigvalsh(H)[0],
    }


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """The bound at the largest width, every draw and step; not at the least; rates over width."""
    wide = np.log(arrays["widths"][-3:])
    slope = {
        name: np.polyfit(wide, np.log(arrays[name].mean(1)[-3:]), 1)[0]
        for name in ("flips", "movement", "distance")
    }
    return [
        Criterion("lambda_0", arrays["lambda_0"], 1e-3),
        Criterion(
            "|r_t|^2 over its bound, largest width: largest",
            arrays["ratio"][-1].max(),
            high=1 + 1e-9,
        ),
        Criterion("|r_t|^2 over its bound, least width: largest", arrays["ratio"][0].max(), 1.01),
        Criterion(
            "least eigenvalue of H at the end over lambda_0, largest width: least",
            arrays["eigenvalue"][-1].min(),
            0.5,
        ),
        Criterion("slope of the share of flipped activations", slope["flips"], -0.6, -0.4),
        Criterion("slope of the largest movement of a neuron", slope["movement"], -0.6, -0.4),
        Criterion("slope of | r_t - that of the kernel |", slope["distance"], -0.7, -0.3),
        Criterion(
            "largest | r_t - that of the kernel | over |r_0|, largest width",
            arrays["distance"][-1].max(),
            high=0.05,
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """The worst draw's curve of every width below its bound or not; what moves, over the width."""
    left, right = figure.subplots(1, 2)
    for place, (width, curve) in enumerate(zip(arrays["widths"], arrays["curves"], strict=True)):
        shade = 0.8 * (1 - place / (len(arrays["widths"]) - 1))
        left.plot(curve, color=str(shade), label=f"width {width}")
    left.plot(arrays["bound"], "C3--", label="bound")
    left.set(yscale="log", xlabel="steps", ylabel="squared error / its start", ylim=(1e-12, 2))
    left.legend(frameon=False, fontsize=8)
    for name, label in LABELS.items():
        right.plot(arrays["widths"], arrays[name].mean(1), "o-", label=label)
    right.set(xscale="log", yscale="log", xlabel="width")
    right.legend(frameon=False, fontsize=8, loc="lower left")
