"""Low orders first: a two-layer network learns spherical
harmonics in the order of its kernel's eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics, GradientFlow
from ntkcore.theory.sphere import legendre, random_points, sphere_spectrum

CLAIM = (
    "A bias-free two-layer ReLU network in its kernel limit learns P_1, P_2 and P_4 on the sphere"
    " one after the other, each at the rate of its eigenvalue, where samples are many more than the"
    " order's harmonics; with few the high order comes early (Cao et al. 2019, figure 1, the"
    " kernel's side)."
)
ORDERS = (1, 2, 4)


@dataclass(frozen=True)
class Config:
    """Dimension, numbers of samples, draws, times."""

    d: int = 4
    samples: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    draws: int = 6
    times: int = 120
    seed: int = 0


QUICK: dict[str, Any] = {"samples": (64, 256, 1024), "draws": 3}


def run(config: Config) -> dict[str, Any]:
    """Share of every order's part of the target that is left, (draws, times, orders), of the most
    samples; half-times (samples, draws, orders).
    """
    rng = np.random.default_rng(config.seed)
    spectrum = sphere_spectrum(mlp(1), config.d, max(ORDERS) + 1)
    eta = spectrum.eigenvalues[list(ORDERS)]
    times = np.geomspace(0.03 / eta[0], 20 / eta[-1], config.times)
    half = []
    for n in steps(config.samples):
        left = np.array([_left(n, config.d, times, rng) for _ in range(config.draws)])
        half.append([[_half_time(times, column) for column in draw.T] for draw in left])
    return {
        "samples": np.array(config.samples),
        "times": times,
        "left": left,
        "half_times": np.array(half),
        "eigenvalues": eta,
        "harmonics": spectrum.degeneracies[list(ORDERS)],
        "orders": np.array(ORDERS),
    }


def _left(n: int, d: int, times: Any, rng: Any) -> Any:
    """Shares (times, orders) of one draw of the samples and of the harmonics."""
    x, zeta = random_points(n, d, rng), random_points(len(ORDERS), d, rng)
    parts = np.stack([legendre(k + 1, x @ z, d)[k] for k, z in zip(ORDERS, zeta, strict=True)], 1)
    parts /= np.sqrt((parts**2).mean(0))
    y = parts.sum(1)
    residual = Dynamics(kernel(mlp(1), x), y, GradientFlow()).train.mean(times) - y
    return np.abs(residual @ np.linalg.pinv(parts).T)


def _half_time(times: Any, left: Any) -> float:
    return float(np.exp(np.interp(-0.5, -left, np.log(times))))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """In order; every order's half-time and course, where samples are most; early where few."""
    half = arrays["half_times"]
    relative = half.mean(1) * arrays["eigenvalues"] / np.log(2)
    left = np.exp(-arrays["times"][:, None] * arrays["eigenvalues"])
    apart = np.abs(arrays["left"].mean(0) - left).max(0)
    most = f"{config.samples[-1]} samples"
    return [
        Criterion(
            "half-time of order 2 over order 1, least", (half[-1, :, 1] / half[-1, :, 0]).min(), 1.3
        ),
        Criterion(
            "half-time of order 4 over order 2, least", (half[-1, :, 2] / half[-1, :, 1]).min(), 3
        ),
        *(
            Criterion(f"half-time of order {k} over ln 2/eta_{k}, {most}", ratio, 0.9, 1.1)
            for k, ratio in zip(ORDERS, relative[-1], strict=True)
        ),
        *(
            Criterion(f"share left of order {k} less exp(-eta_{k} t), largest", value, high=0.05)
            for k, value in zip(ORDERS, apart, strict=True)
        ),
        Criterion(
            f"half-time of order 4 over ln 2/eta_4, {config.samples[0]} samples",
            relative[0, 2],
            high=0.8,
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """The share left over time; half-times over samples, beside what the eigenvalues say."""
    left, right = figure.subplots(1, 2)
    times, eta = arrays["times"], arrays["eigenvalues"]
    relative = arrays["half_times"] * eta / np.log(2)
    for place, k in enumerate(arrays["orders"]):
        color = f"C{place}"
        left.plot(times, arrays["left"][:, :, place].T, color=color, lw=0.5)
        left.plot([], [], color=color, label=f"order {k}")
        left.plot(times, np.exp(-eta[place] * times), "k:", lw=1)
        label = f"order {k}, {arrays['harmonics'][place]:.0f} harmonics"
        spread = relative[:, :, place].std(1)
        right.errorbar(
            arrays["samples"],
            relative[:, :, place].mean(1),
            spread,
            fmt="o-",
            color=color,
            label=label,
        )
    left.set(xscale="log", xlabel="training time", ylabel="share left")
    left.set_title("dotted: exp(-eigenvalue · time)", fontsize=10)
    left.legend(frameon=False)
    right.axhline(1, color="k", ls=":", lw=1)
    right.set(xscale="log", xlabel="samples", ylabel="half-time · eigenvalue / ln 2", ylim=(0, 1.4))
    right.legend(frameon=False, loc="lower right")
