"""A wide network learns spherical harmonics in the order, and at the times,
of its frozen kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp
from ntkcore.theory.sphere import legendre, random_points

CLAIM = (
    "During gradient descent a wide bias-free two-layer ReLU network and its kernel learn P_1, P_2"
    " and P_4 on the sphere together:"
    " the same shares are left at every step (Cao et al. 2019, figure 1)."
)
ORDERS = (1, 2, 4)


@dataclass(frozen=True)
class Config:
    """Dimension, samples, width, steps; root mean square of every order in the targets."""

    d: int = 10
    n: int = 500
    width: int = 8192
    steps: int = 2000
    every: int = 10
    amplitude: float = 0.2
    seed: int = 0


QUICK: dict[str, Any] = {"n": 200, "width": 4096, "steps": 300}


def run(config: Config) -> dict[str, Any]:
    """Shares left of every order, of the network and of its kernel, (looks, orders)."""
    rng = np.random.default_rng(config.seed)
    x, zeta = random_points(config.n, config.d, rng), random_points(len(ORDERS), config.d, rng)
    parts = np.stack(
        [legendre(k + 1, x @ z, config.d)[k] for k, z in zip(ORDERS, zeta, strict=True)], 1
    )
    parts *= config.amplitude / np.sqrt((parts**2).mean(0))
    y, project = parts.sum(1), np.linalg.pinv(parts)
    K = kernel(mlp(1, W_std=np.sqrt(2)), x)
    rate = config.n / float(np.linalg.eigvalsh(K)[-1])
    residual, network, frozen = -y, _Network(x, y, config), []
    left = []
    for step in steps(range(config.steps + 1)):
        if step % config.every == 0:
            frozen.append(np.abs(project @ residual))
            left.append(np.abs(project @ network.residual()))
        residual = residual - rate / config.n * (K @ residual)
        network.step(rate)
    return {
        "steps": np.arange(0, config.steps + 1, config.every),
        "network": np.array(left),
        "kernel": np.array(frozen),
        "orders": np.array(ORDERS),
    }


class _Network:
    """f = sqrt(2/m) sum_j a_j relu(w_j . x sqrt(2/d)) of twin neurons, so that f_0 = 0,
    by plain gradient descent.
    """

    def __init__(self, x: Any, y: Any, config: Config) -> None:
        rng = np.random.default_rng([config.seed, 1])
        half = config.width // 2
        w, a = rng.standard_normal((half, config.d)), rng.standard_normal(half)
        self.w, self.a = np.concatenate([w, w]), np.concatenate([a, -a])
        self.x, self.y = x * np.sqrt(2 / config.d), y
        self.scale = np.sqrt(2 / config.width)

    def residual(self) -> Any:
        self.h = np.maximum(self.x @ self.w.T, 0)
        return self.scale * self.h @ self.a - self.y

    def step(self, rate: float) -> None:
        r = self.residual() * self.scale * rate / len(self.y)
        grad_w = (r[:, None] * (self.h > 0) * self.a).T @ self.x
        self.a, self.w = self.a - self.h.T @ r, self.w - grad_w


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """The same shares at every look; the low orders first."""
    apart = np.abs(arrays["network"] - arrays["kernel"]).max()
    last = arrays["network"][-1]
    half = [int((column > 0.5).sum()) for column in arrays["network"].T]
    return [
        Criterion("largest difference of shares, network and kernel", apart, high=0.05),
        Criterion("looks until half of order 2 over order 1", half[1] / max(half[0], 1), 1.3),
        Criterion(
            "share of order 4 less that of order 2 at the end",
            last[2] - last[1],
            0.05,
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Lines of the network, dots of the kernel."""
    ax = figure.add_subplot()
    for place, k in enumerate(arrays["orders"]):
        ax.plot(arrays["steps"], arrays["network"][:, place], color=f"C{place}", label=f"order {k}")
        ax.plot(arrays["steps"], arrays["kernel"][:, place], "k:", lw=1)
    ax.set(xscale="symlog", xlabel="steps", ylabel="share left", title="dotted: the kernel")
    ax.legend(frameon=False)
