"""Order and chaos: W_std and b_std decide what depth does to a kernel's conditioning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion
from ntkcore.specs.activations import Erf
from ntkcore.specs.nets import mlp
from ntkcore.theory.spectrum import conditioning

CLAIM = (
    "Where chi_1 = W_std^2 E[phi'^2] < 1, depth makes all inputs alike and the NTK singular; where"
    " chi_1 > 1, depth decorrelates them and the NTK becomes well conditioned (Schoenholz et al."
    " 2017; Xiao et al. 2020). Nets of erf."
)


@dataclass(frozen=True)
class Config:
    """Grid of W_std and b_std, depth, samples."""

    W: int = 17
    b: int = 9
    depth: int = 48
    n: int = 16
    seed: int = 0


QUICK: dict[str, Any] = {"W": 9, "b": 4, "depth": 32, "n": 10}


def chi(W_std: float, b_std: float) -> float:
    """chi_1 of erf at the variance that depth converges to: E[phi'^2] = (4/pi)/sqrt(1 + 4q),
    by iteration.
    """
    q = 1.0
    for _ in range(2000):
        q = W_std**2 * (2 / math.pi) * math.asin(2 * q / (1 + 2 * q)) + b_std**2
    return W_std**2 * (4 / math.pi) / math.sqrt(1 + 4 * q)


def run(config: Config) -> dict[str, Any]:
    """chi_1, the correlation of inputs after the last layer, and the NTK's condition number,
    over the grid.
    """
    x = np.random.default_rng(config.seed).standard_normal((config.n, 20))
    W, b = np.linspace(0.6, 2.6, config.W), np.linspace(0, 1.2, config.b)
    chis, alike, condition = (np.empty((len(b), len(W))) for _ in range(3))
    for i, b_std in enumerate(b):
        for j, W_std in enumerate(W):
            net = mlp(config.depth, W_std, b_std, Erf())
            K, T = kernel(net, x, get=("nngp", "ntk"), dtype=np.float64)
            scale = np.sqrt(np.outer(K.diagonal(), K.diagonal()))
            chis[i, j] = chi(W_std, b_std)
            alike[i, j] = np.abs(K / np.maximum(scale, 1e-300))[
                ~np.eye(config.n, dtype=bool)
            ].mean()
            condition[i, j] = min(
                conditioning(T / max(T.diagonal().mean(), 1e-300)).condition, 1e16
            )
    return {"W_std": W, "b_std": b, "chi": chis, "correlation": alike, "condition": condition}


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Away from the edge (by 0.2 in chi_1): order is singular, chaos is well conditioned."""
    biased = arrays["b_std"][:, None] > 0  # with b_std = 0 order sends the variance itself to 0
    order, chaos = (arrays["chi"] < 0.8) & biased, arrays["chi"] > 1.2
    return [
        Criterion(
            "least correlation in the ordered phase", arrays["correlation"][order].min(), 0.99
        ),
        Criterion(
            "largest correlation in the chaotic phase",
            arrays["correlation"][chaos].max(),
            high=0.97,
        ),
        Criterion(
            "least log10 condition in the ordered phase",
            np.log10(arrays["condition"][order]).min(),
            4,
        ),
        Criterion(
            "largest log10 condition in the chaotic phase",
            np.log10(arrays["condition"][chaos]).max(),
            high=3,
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """The condition number and the correlation over the plane, with the edge chi_1 = 1."""
    panels = {
        "log10 condition of the NTK": np.log10(arrays["condition"]),
        "correlation": arrays["correlation"],
    }
    for ax, (title, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        image = ax.pcolormesh(arrays["W_std"], arrays["b_std"], values, shading="nearest")
        ax.contour(arrays["W_std"], arrays["b_std"], arrays["chi"], [1.0], colors="w")
        figure.colorbar(image, ax=ax)
        ax.set(xlabel="W_std", ylabel="b_std", title=title)
