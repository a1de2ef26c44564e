"""A wide two-layer network converges at least as fast as its
kernel's smallest eigenvalue certifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion
from ntkcore.specs.activations import ArcCosine
from ntkcore.specs.layers import Dense, Serial
from ntkcore.theory.sphere import random_points

CLAIM = (
    "Gradient descent on the first layer of a wide ReLU network with a fixed +-1 read-out keeps"
    " |r_t|^2 below (1 - eta lambda_0/2)^t |r_0|^2 at every step, lambda_0 > 0 the least eigenvalue"
    " of H (Du et al. 2019)."
)


@dataclass(frozen=True)
class Config:
    """Points, dimension, width, steps."""

    n: int = 20
    d: int = 30
    width: int = 20_000
    steps: int = 1500
    seed: int = 0


QUICK: dict[str, Any] = {"width": 5000, "steps": 300}


def gram(x: Any) -> Any:
    """H_ij = <x_i, x_j> P(both active) = <x_i, x_j> kappa_0/2;
    kappa_0 is the arc-cosine kernel of order 0.
    """
    kappa = kernel(Serial(Dense(), ArcCosine(0)), x, get="nngp", dtype=np.float64)
    return x @ x.T * kappa / 2


def run(config: Config) -> dict[str, Any]:
    """Squared residuals of the network and of its kernel, and the bound, by steps."""
    rng = np.random.default_rng(config.seed)
    x, y = random_points(config.n, config.d, rng), rng.standard_normal(config.n)
    H = gram(x)
    values = np.linalg.eigvalsh(H)
    eta = 0.5 / values[-1]
    W, a = rng.standard_normal((config.width, config.d)), rng.choice([-1.0, 1.0], config.width)
    scale = 1 / np.sqrt(config.width)
    network, frozen = np.empty(config.steps), np.empty(config.steps)
    linear = np.maximum(x @ W.T, 0) @ a * scale - y
    for t in range(config.steps):
        z = x @ W.T
        residual = np.maximum(z, 0) @ a * scale - y
        network[t], frozen[t] = residual @ residual, linear @ linear
        W -= eta * scale * a[:, None] * ((residual[:, None] * (z > 0)).T @ x)
        linear = linear - eta * H @ linear
    bound = network[0] * (1 - eta * values[0] / 2) ** np.arange(config.steps)
    return {"network": network, "kernel": frozen, "bound": bound, "lambda_0": values[0]}


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """A positive eigenvalue; the bound at every step; the kernel's curve beside the network's."""
    above = arrays["network"] > 1e-20 * arrays["network"][0]
    near = np.abs(np.sqrt(arrays["network"]) - np.sqrt(arrays["kernel"])) / np.sqrt(
        arrays["network"][0]
    )
    return [
        Criterion("lambda_0", arrays["lambda_0"], 1e-3),
        Criterion(
            "largest |r_t|^2 over its bound",
            (arrays["network"] / arrays["bound"])[above].max(),
            high=1 + 1e-9,
        ),
        Criterion("largest | |r_t| - that of the kernel | over |r_0|", near.max(), high=0.05),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Three curves."""
    ax = figure.add_subplot()
    for name, style in (("bound", "k--"), ("network", "C0-"), ("kernel", "C1:")):
        ax.plot(arrays[name], style, label=name)
    ax.set(
        yscale="log",
        xlabel="steps",
        ylabel="squared error",
        ylim=(max(arrays["network"].min(), 1e-20), None),
    )
    ax.legend(frameon=False)
