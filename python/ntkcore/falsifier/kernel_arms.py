"""Arms that are kernels: regression in the infinite limit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import ntkcore
from ntkcore.falsifier.claims import Outcome, scores
from ntkcore.falsifier.study import Content, Place, Setting, Study, Training
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import nmse
from ntkcore.linalg.eigen import Modes, eigenmodes
from ntkcore.theory.dynamics import Dynamics

RANKS = 40  # points of the curve of cumulative power


def fit_kernel(
    kernels: tuple[Array, Array, Array], split: Split, training: Training
) -> tuple[Outcome, Setting, Modes]:
    """Kernel regression by gradient flow from 0, its ridge and time chosen on the validation set.

    ``kernels``: of training, validation and test samples with training samples.
    """
    K, K_val, K_test = kernels
    modes = eigenmodes(K)
    best: tuple[float, float, float] = (math.inf, 0.0, math.inf)
    for ridge in training.ridges():
        dynamics = Dynamics(modes, split.y, ridge=ridge)
        times = _times(dynamics, training.looks) if training.early_stopping else np.array([np.inf])
        if len(times) == 1 and len(training.ridges()) == 1:
            best = (0.0, ridge, np.inf)
            break
        for time, f in zip(times, dynamics.points(K_val).mean(times), strict=True):
            best = min(best, (nmse(f, split.y_val), ridge, float(time)))
    _, ridge, time = best
    dynamics = Dynamics(modes, split.y, ridge=ridge)
    path = np.concatenate([[0.0], _times(dynamics, 60)[:-1]])
    residual = 2 * len(split.y) * dynamics.train_loss(path) / (split.y**2).sum()
    train_mean, test_mean = dynamics.train.mean([time])[0], dynamics.points(K_test).mean([time])[0]
    outcome = Outcome(split, train_mean, test_mean, path, residual)
    return outcome, {"ridge": ridge, "time": time}, modes


def _times(dynamics: Dynamics, count: int) -> Array:
    """Geometric, from the time scale of the fastest mode to that of the slowest, and infinity."""
    rates = dynamics.rates[dynamics.modes.values > 0]
    return np.append(np.geomspace(0.1 / rates.max(), 10 / rates.min(), count - 1), np.inf)


def infinite(get: str, of: str) -> Callable[[Study, Place, Setting], Content]:
    """The arm of this kernel, of the network or of the baseline."""

    def measure_infinite(study: Study, place: Place, setting: Setting) -> Content:
        split = study.split(place.point, place.split)
        net = study.baseline if of == "baseline" else study.network.at(place.point)[0]
        assert net is not None
        x, others = np.asarray(split.x, np.float64), (split.x_val, split.x_test)
        blocks = [np.asarray(ntkcore.kernel(net, x, get=get))]
        blocks += [
            np.asarray(ntkcore.kernel(net, np.asarray(z, np.float64), x, get=get)) for z in others
        ]
        outcome, tuned, modes = fit_kernel((blocks[0], blocks[1], blocks[2]), split, study.training)
        return {**scores(study.claims, outcome), "setting": tuned, "power": power(modes, split.y)}

    return measure_infinite


def power(modes: Modes, y: Array) -> dict[str, list[float]]:
    """Share of the targets in the first so many modes (Canatar et al. 2021): {ranks, share}."""
    power = ((modes.vectors.T @ (y - y.mean(axis=0))) ** 2).sum(axis=1).cumsum()
    ranks = np.unique(np.geomspace(1, len(power), RANKS).astype(int))
    return {"ranks": ranks.tolist(), "share": (power[ranks - 1] / power[-1]).tolist()}
