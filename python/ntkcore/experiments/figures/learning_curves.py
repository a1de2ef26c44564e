"""Theory of learning curves against kernel regression, order by order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp
from ntkcore.theory.learning_curves import LearningCurve, sphere_experiment
from ntkcore.theory.sphere import sphere_spectrum

CLAIM = (
    "The errors of kernel regression with the NTK fall, order by order, as theory says (Bordelon et"
    " al. 2020, figure 2), in two dimensions d and for two depths. Each order's share of the error"
    " stays until P comes near the number of its harmonics; their sum, the envelope, is carried by"
    " one order after the other. In d = 10, theory is up to a tenth low for the most"
    " samples. Lines: theory; dots: measured; black: the envelope of orders 1 to"
    " 8. (Order 0, the mean, is left out.)"
)
ORDERS = range(1, 9)
SHOWN = 4  # the orders up to this one are drawn, and compared one by one


@dataclass(frozen=True)
class Config:
    """Dimensions, hidden layers, samples, repeats."""

    dimensions: tuple[int, ...] = (10, 20)
    depths: tuple[int, ...] = (2, 4)
    samples: tuple[int, ...] = (10, 22, 46, 100, 215, 464, 1000)
    repeats: int = 60
    seed: int = 0


QUICK: dict[str, Any] = {"samples": (10, 32, 100, 316), "repeats": 12}


def run(config: Config) -> dict[str, Any]:
    """Measured and predicted E_k(P)/E_k(0), (dimensions and depths, samples, orders); each order's
    share of the targets' power, (dimensions and depths, orders).
    """
    P = np.array(config.samples)
    fine = np.geomspace(P[0] / 2, 2 * P[-1], 80)
    found: dict[str, list[Any]] = {}
    pairs = [(d, depth) for d in config.dimensions for depth in config.depths]
    for d, depth in steps(pairs):
        net = mlp(depth)
        modes = sphere_spectrum(net, d, 16)
        curve = LearningCurve(modes.eigenvalues, modes.degeneracies, modes.tail)
        runs = [
            sphere_experiment(net, modes, n, ORDERS, repeats=config.repeats, seed=config.seed + n)
            for n in config.samples
        ]
        # Targets are sums of a_j K(., z_j): eta_k^2 N_k in order k.
        power = (modes.eigenvalues**2 * modes.degeneracies)[ORDERS]
        for key, value in (
            ("mean", [r.mean(0) for r in runs]),
            ("error", [r.std(0, ddof=1) / np.sqrt(len(r)) for r in runs]),
            ("theory", curve.mode_errors(P)[:, ORDERS]),
            ("curve", curve.mode_errors(fine)[:, ORDERS]),
            ("share", power / power.sum()),
        ):
            found.setdefault(key, []).append(value)
    return {
        "samples": P,
        "fine": fine,
        "pairs": np.array(pairs),
        **{key: np.array(value) for key, value in found.items()},
    }


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """All ratios of theory to experiment, their medians, the envelope's; and that at every P the
    order that carries most of it is the one that theory names, later orders for more samples.
    """
    theory, mean, share = arrays["theory"], arrays["mean"], arrays["share"][:, None]
    ratio = (theory / mean)[..., :SHOWN]
    medians = np.median(ratio, axis=(1, 2))
    envelope = (share * theory).sum(2) / (share * mean).sum(2)
    carries, named = (share * mean).argmax(2) + 1, (share * theory).argmax(2) + 1
    return [
        Criterion("least ratio of theory to experiment", ratio.min(), 0.85),
        Criterion("largest ratio of theory to experiment", ratio.max(), high=1.15),
        Criterion("least median ratio", medians.min(), 0.95),
        Criterion("largest median ratio", medians.max(), high=1.05),
        Criterion("least ratio of the envelopes", envelope.min(), 0.9),
        Criterion("largest ratio of the envelopes", envelope.max(), high=1.1),
        Criterion(
            "another order than theory's carries the envelope", (carries != named).sum(), 0, 0
        ),
        Criterion(
            "orders that carry it in turn, at least", (carries[:, -1] - carries[:, 0]).min() + 1, 2
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Shares of the error by order and their sum, a panel for each dimension and depth."""
    axes = figure.subplots(1, len(arrays["pairs"]), sharey=True)
    P, fine = arrays["samples"], arrays["fine"]
    for i, (ax, (d, depth)) in enumerate(zip(axes, arrays["pairs"], strict=True)):
        share = arrays["share"][i]
        measured, error, curve = (share * arrays[key][i] for key in ("mean", "error", "curve"))
        for k in range(SHOWN):
            ax.plot(fine, curve[:, k], color=f"C{k}", lw=1, label=f"k = {k + 1}")
            ax.errorbar(P, measured[:, k], error[:, k], fmt="o", ms=3, color=f"C{k}")
        ax.plot(fine, curve.sum(1), color="k", lw=1)
        ax.plot(P, measured.sum(1), "ko", ms=3)
        ax.set(xscale="log", yscale="log", xlabel="samples P", title=f"d = {d}, {depth} hidden")
    axes[0].set(ylabel="share of the error", ylim=(1e-4, 2))
    axes[0].legend(frameon=False)
