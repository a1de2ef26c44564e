"""Theory of learning curves against kernel regression, order by order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.plots.spectra import mode_errors
from ntkcore.specs.nets import mlp
from ntkcore.theory.learning_curves import LearningCurve, sphere_experiment
from ntkcore.theory.sphere import sphere_spectrum

CLAIM = (
    "The errors of kernel regression with the NTK of a network of two hidden layers fall, order by"
    " order, as theory says (Bordelon et al. 2020, figure 2): d = 15, P = 10 ... 1000."
)
ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Config:
    """Dimension, hidden layers, samples, repeats."""

    d: int = 15
    depth: int = 2
    samples: tuple[int, ...] = (10, 22, 46, 100, 215, 464, 1000)
    repeats: int = 20
    seed: int = 0


QUICK: dict[str, Any] = {"samples": (10, 32, 100, 316), "repeats": 12}


def run(config: Config) -> dict[str, Any]:
    """Measured and predicted E_k(P)/E_k(0), (samples, orders)."""
    net = mlp(config.depth)
    modes = sphere_spectrum(net, config.d, 16)
    curve = LearningCurve(modes.eigenvalues, modes.degeneracies, modes.tail)
    runs = [
        sphere_experiment(net, modes, P, ORDERS, repeats=config.repeats, seed=config.seed + P)
        for P in steps(config.samples)
    ]
    mean = np.stack([r.mean(0) for r in runs])
    error = np.stack([r.std(0, ddof=1) / np.sqrt(len(r)) for r in runs])
    theory = curve.mode_errors(np.array(config.samples))[:, ORDERS]
    return {
        "samples": np.array(config.samples),
        "mean": mean,
        "error": error,
        "theory": theory,
        "curve": curve,
    }


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """All ratios, and their median."""
    ratio = arrays["theory"] / arrays["mean"]
    return [
        Criterion("least ratio of theory to experiment", ratio.min(), 0.85),
        Criterion("largest ratio of theory to experiment", ratio.max(), high=1.15),
        Criterion("median ratio", float(np.median(ratio)), 0.95, 1.05),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Curves of theory, dots of the experiment."""
    P = np.geomspace(arrays["samples"][0] / 2, arrays["samples"][-1] * 2, 80)
    measured = arrays["samples"], arrays["mean"], arrays["error"]
    mode_errors(arrays["curve"], P, np.array(ORDERS), measured, ax=figure.add_subplot())
