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
    " and P_4 on the sphere together, one order after the other:"
    " the same shares are left at every step, the closer the wider it is"
    " (Cao et al. 2019, figure 1)."
)
ORDERS = (1, 2, 4)


@dataclass(frozen=True)
class Config:
    """Dimension, samples, widths, steps and looks at them, draws;
    root mean square of every order in the targets.
    """

    d: int = 10
    n: int = 300
    widths: tuple[int, ...] = (1024, 4096, 16384)
    steps: int = 1000
    looks: int = 60
    draws: int = 4
    amplitude: float = 0.1
    seed: int = 0


QUICK: dict[str, Any] = {"n": 200, "widths": (1024, 8192), "steps": 400, "draws": 3}


def run(config: Config) -> dict[str, Any]:
    """Shares left of every order, of the kernel (draws, looks, orders) and of the networks (widths,
    draws, looks, orders); the steps until half of it is left.
    """
    looks = np.unique(np.geomspace(1, config.steps, config.looks).round().astype(int)) - 1
    draws = [_draw(config, looks, [config.seed, draw]) for draw in steps(range(config.draws))]
    network = np.stack([networks for networks, _ in draws], 1)
    frozen = np.stack([shares for _, shares in draws])
    return {
        "steps": looks,
        "orders": np.array(ORDERS),
        "widths": np.array(config.widths),
        "network": network,
        "kernel": frozen,
        "network_half": _half_times(looks, network),
        "kernel_half": _half_times(looks, frozen),
    }


def _draw(config: Config, looks: Any, seed: list[int]) -> tuple[Any, Any]:
    """Shares of one draw of the samples and the harmonics: networks (widths, looks, orders),
    kernel (looks, orders).
    """
    rng = np.random.default_rng(seed)
    x, zeta = random_points(config.n, config.d, rng), random_points(len(ORDERS), config.d, rng)
    parts = np.stack(
        [legendre(k + 1, x @ z, config.d)[k] for k, z in zip(ORDERS, zeta, strict=True)], 1
    )
    parts *= config.amplitude / np.sqrt((parts**2).mean(0))
    y, project = parts.sum(1), np.linalg.pinv(parts)
    values, V = np.linalg.eigh(kernel(mlp(1, W_std=np.sqrt(2)), x, dtype=np.float64))
    left = (1 - values / values[-1]) ** looks[:, None] * (V.T @ y) @ V.T  # rate n/lambda_max
    rate = config.n / float(values[-1])
    networks = [_residuals(_Network(x, y, width, rng), looks, rate) for width in config.widths]
    return np.abs(np.array(networks) @ project.T), np.abs(left @ project.T)


def _residuals(network: _Network, looks: Any, rate: float) -> Any:
    rows = []
    for step in range(looks[-1] + 1):
        residual = network.residual()
        if step in looks:
            rows.append(residual)
        network.step(residual, rate)
    return np.array(rows)


class _Network:
    """f = sqrt(2/m) sum_j a_j relu(w_j . x sqrt(2/d)) of twin neurons, so that f_0 = 0,
    by plain gradient descent, in float32.
    """

    def __init__(self, x: Any, y: Any, width: int, rng: Any) -> None:
        w = rng.standard_normal((x.shape[1], width // 2), np.float32)
        a = rng.standard_normal(width // 2, np.float32)
        self.w, self.a = np.concatenate([w, w], 1), np.concatenate([a, -a])
        self.x, self.y = (x * np.sqrt(2 / x.shape[1])).astype(np.float32), y
        self.scale = np.float32(np.sqrt(2 / width))

    def residual(self) -> Any:
        self.h = self.x @ self.w
        np.maximum(self.h, 0, out=self.h)
        return self.scale * (self.h @ self.a) - self.y

    def step(self, residual: Any, rate: float) -> None:
        r = (residual * self.scale * rate / len(residual)).astype(np.float32)
        slope = (self.x * r[:, None]).T @ (self.h > 0).astype(np.float32)
        self.a, self.w = self.a - r @ self.h, self.w - slope * self.a


def _half_times(looks: Any, shares: Any) -> Any:
    """Steps until half is left, on the logarithm; NaN where more than that is left at the end."""
    columns = np.moveaxis(shares, -2, -1).reshape(-1, len(looks))
    logs = np.log(looks + 1)
    half = [np.exp(np.interp(-0.5, -c, logs)) if c[-1] < 0.5 else np.nan for c in columns]
    return np.reshape(half, (*shares.shape[:-2], shares.shape[-1]))


def _apart(arrays: dict[str, Any]) -> Any:
    """Largest difference of shares, network and kernel: (widths, draws)."""
    return np.abs(arrays["network"] - arrays["kernel"]).max((-2, -1))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Of every draw at the largest width: the same shares at every look, the same half-times, one
    order after the other. Farther from the kernel where narrower.
    """
    half = arrays["network_half"][-1]
    ratio = np.abs(half / arrays["kernel_half"] - 1).max(0)
    apart = _apart(arrays)
    slope = np.polyfit(np.log(config.widths), np.log(apart.mean(1)), 1)[0]
    return [
        Criterion(
            "difference of shares, network and kernel, largest width: largest",
            apart[-1].max(),
            high=0.05,
        ),
        Criterion("slope of the difference of shares over the width", slope, -0.7, -0.3),
        *(
            Criterion(
                f"half-time of order {k}, network over kernel, less 1: largest", value, high=0.1
            )
            for k, value in zip(ORDERS, ratio, strict=True)
        ),
        Criterion("half-time of order 2 over order 1, least", (half[:, 1] / half[:, 0]).min(), 2),
        Criterion("half-time of order 4 over order 2, least", (half[:, 2] / half[:, 1]).min(), 3),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Shares over steps, lines of the widest networks, dots of their kernels; how far they are
    apart over the width.
    """
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, k in enumerate(arrays["orders"]):
        color = f"C{place}"
        left.plot(arrays["steps"] + 1, arrays["network"][-1, :, :, place].T, color=color, lw=0.8)
        left.plot(arrays["steps"] + 1, arrays["kernel"][:, :, place].T, "k:", lw=1)
        left.plot([], [], color=color, label=f"order {k}")
    left.set(xscale="log", xlabel="steps + 1", ylabel="share left")
    left.set_title(f"width {arrays['widths'][-1]}; dotted: the kernel", fontsize=10)
    left.legend(frameon=False)
    right.plot(arrays["widths"], _apart(arrays), "ko", ms=4)
    right.set(xscale="log", yscale="log", xlabel="width", ylabel="largest difference of shares")
    right.set(xlim=(arrays["widths"][0] / 2, arrays["widths"][-1] * 2), ylim=(1e-3, 0.2))
