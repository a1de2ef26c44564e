"""Low orders first: a two-layer network learns spherical
harmonics in the order of its kernel's eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics, GradientFlow
from ntkcore.theory.sphere import legendre, random_points, sphere_spectrum

CLAIM = (
    "A bias-free two-layer ReLU network in its kernel limit learns P_1, P_2 and P_4 on the sphere"
    " one after the other (Cao et al. 2019, figure 1, the kernel's side), at the rates of the"
    " eigenvalues."
)
ORDERS = (1, 2, 4)


@dataclass(frozen=True)
class Config:
    """Dimension, samples, times."""

    d: int = 10
    n: int = 1000
    times: int = 120
    seed: int = 0


QUICK: dict[str, Any] = {"n": 500}


def run(config: Config) -> dict[str, Any]:
    """Share of every order's part of the target that is left, over time."""
    rng = np.random.default_rng(config.seed)
    x = random_points(config.n, config.d, rng)
    zeta = random_points(len(ORDERS), config.d, rng)
    parts = np.stack(
        [legendre(k + 1, x @ z, config.d)[k] for k, z in zip(ORDERS, zeta, strict=True)], 1
    )
    parts /= np.sqrt((parts**2).mean(0))
    net = mlp(1)
    dynamics = Dynamics(kernel(net, x), parts.sum(1), GradientFlow())
    modes = sphere_spectrum(net, config.d, max(ORDERS) + 1)
    eta = modes.eigenvalues[list(ORDERS)]
    times = np.geomspace(0.03 / eta[0], 20 / eta[-1], config.times)
    residual = dynamics.train.mean(times) - parts.sum(1)
    left = np.abs(residual @ np.linalg.pinv(parts).T)
    half = np.array([np.exp(np.interp(-0.5, -column, np.log(times))) for column in left.T])
    return {
        "times": times,
        "left": left,
        "half_times": half,
        "predicted": np.log(2) / eta,
        "orders": np.array(ORDERS),
    }


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """In order, and the low orders at the population's rates;
    order 4 has more harmonics than there are samples.
    """
    half, predicted = arrays["half_times"], arrays["predicted"]
    return [
        Criterion("half-time of order 2 over order 1", half[1] / half[0], 1.3),
        Criterion("half-time of order 4 over order 2", half[2] / half[1], 3),
        Criterion("half-time of order 1 over ln 2/eta_1", half[0] / predicted[0], 0.8, 1.25),
        Criterion("half-time of order 2 over ln 2/eta_2", half[1] / predicted[1], 0.7, 1.4),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """The share left over time, and each order's half-time."""
    ax = figure.add_subplot()
    for place, k in enumerate(arrays["orders"]):
        ax.plot(arrays["times"], arrays["left"][:, place], label=f"order {k}", color=f"C{place}")
        ax.axvline(arrays["predicted"][place], color=f"C{place}", ls=":", lw=1)
    ax.axhline(0.5, color="0.8", lw=1, zorder=0)
    ax.set(
        xscale="log", xlabel="training time", ylabel="share left", title="dotted: ln 2 / eigenvalue"
    )
    ax.legend(frameon=False)
