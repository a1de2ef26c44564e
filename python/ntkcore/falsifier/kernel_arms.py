"""Arms that are kernels: regression in the infinite limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

import ntkcore
from ntkcore.falsifier.claims import COMPUTE, Outcome, Point, scores
from ntkcore.falsifier.study import Content, Place, Setting, Study, Training
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import nmse
from ntkcore.linalg.eigen import Modes, eigenmodes
from ntkcore.specs.convolutions import Convolution
from ntkcore.specs.layers import Container, Dense, Layer
from ntkcore.theory.dynamics import Dynamics

B_STDS, W_FACTORS = (0.1, 1.0), (0.5, 2.0)  # what a kernel tries beside what it is given
RANKS = 40  # points of the curve of cumulative power

Parts = tuple[Array, Array, Array]  # of training, validation and test samples


def fit_kernel(
    kernels: Parts,
    split: Split,
    training: Training,
    start: Parts | None = None,
    steps: float = math.inf,
) -> tuple[Outcome, Setting, Modes, float]:
    """Kernel regression by gradient flow from ``start`` (else 0), its ridge and time chosen on the
    validation set: (outcome, what was chosen, modes, validation score).

    ``kernels``: with training samples; their rows may be samples, the same for every output, or all
    outputs of all samples. ``steps``: not longer than so many of gradient descent at half of the
    greatest stable learning rate.
    """
    K, K_val, K_test = kernels
    modes, outputs = eigenmodes(K), split.y.shape[1]
    f_0, f_val, f_test = start or (0.0, 0.0, 0.0)
    y, y_val = (split.y - f_0).reshape(len(K), -1), split.y_val - f_val
    best: tuple[float, float, float] = (math.inf, 0.0, math.inf)
    for ridge in training.ridges():
        dynamics = Dynamics(modes, y, ridge=ridge)
        times = np.array([np.inf])
        if training.early_stopping:
            times = _times(dynamics, training.looks, steps)
        for time, f in zip(times, dynamics.points(K_val).mean(times), strict=True):
            score = nmse(f.reshape(-1, outputs), y_val)
            best = min(best, (score, ridge, float(time)))
    score, ridge, time = best
    dynamics = Dynamics(modes, y, ridge=ridge)
    path = np.concatenate([[0.0], _times(dynamics, 60)[:-1]])
    residual = 2 * len(y) * dynamics.train_loss(path) / (split.y**2).sum()
    train_mean, test_mean = (
        points.mean([time])[0].reshape(-1, outputs)
        for points in (dynamics.train, dynamics.points(K_test))
    )
    outcome = Outcome(split, f_0 + train_mean, f_test + test_mean, path, residual)
    return outcome, {"ridge": ridge, "time": time}, modes, score


def _times(dynamics: Dynamics, count: int, steps: float = math.inf) -> Array:
    """Geometric, from the time scale of the fastest mode to that of the slowest, and infinity;
    with ``steps``, each of the fastest mode's time scale, none beyond them.
    """
    rates = dynamics.rates[dynamics.modes.values > 0]
    first, last = 0.1 / rates.max(), steps / rates.max()
    return np.append(np.geomspace(first, min(10 / rates.min(), last), count - 1), last)


def regression(
    study: Study, point: Point, split: Split, kernels: Parts, start: Parts | None = None
) -> Content:
    """A cell of kernel regression."""
    steps = _steps(study, point)
    outcome, tuned, modes, score = fit_kernel(kernels, split, study.training, start, steps)
    found = {"setting": tuned, "validation": score, "power": power(modes, split.y)}
    return {**scores(study.claims, outcome), **found}


def _steps(study: Study, point: Point) -> float:
    """Over compute as many as a network of the study takes; else no bound."""
    return study.training.steps if point[:1] == (COMPUTE,) else math.inf


def infinite(get: str, of: str) -> Callable[[Study, Place, Setting], Content]:
    """The arm of this kernel, of the network or of the baseline."""

    def measure_infinite(study: Study, place: Place, setting: Setting) -> Content:
        split, net = study.split(place.point, place.split), _net(study, place.point, of)
        if setting.get("variant"):
            net = variants(net)[setting["variant"]]
        return regression(study, place.point, split, _blocks(net, get, split))

    return measure_infinite


def settle_infinite(get: str, of: str) -> Callable[[Study, Point], Content]:
    """The best of `variants` on the validation set of the first split, as networks are tuned."""

    def settle(study: Study, point: Point) -> Content:
        net, split = _net(study, point, of), study.split(point, 0)
        tried = variants(net) if study.chooses() else [net]
        found = [
            fit_kernel(
                _blocks(each, get, split), split, study.training, None, _steps(study, point)
            )[3]
            if len(tried) > 1
            else 0.0
            for each in tried
        ]
        best = int(np.argmin(found))
        return {"variant": best, "net": str(tried[best]), "validation": found}

    return settle


def _net(study: Study, point: Point, of: str) -> Layer:
    net = study.baseline if of == "baseline" else study.network.at(point)[0]
    assert net is not None
    return net


def _blocks(net: Layer, get: str, split: Split) -> Parts:
    """Kernels of training, validation and test samples with training samples."""
    x, x_val, x_test = (
        np.asarray(part, np.float64) for part in (split.x, split.x_val, split.x_test)
    )
    return (
        np.asarray(ntkcore.kernel(net, x, get=get)),
        np.asarray(ntkcore.kernel(net, x_val, x, get=get)),
        np.asarray(ntkcore.kernel(net, x_test, x, get=get)),
    )


def variants(net: Layer) -> list[Layer]:
    """The net, and it with other standard deviations of its dense and convolutional layers: a
    network that is trained may grow its biases and weights, a kernel has them for good.
    """
    others = [_with_stds(net, b_std=b) for b in B_STDS]
    others += [_with_stds(net, factor=factor) for factor in W_FACTORS]
    return list({each.to_json(): each for each in (net, *others)}.values())


def _with_stds(layer: Any, b_std: float | None = None, factor: float = 1.0) -> Any:
    """The same with this b_std wherever there is one, and so many times every W_std."""
    if isinstance(layer, tuple):
        return tuple(_with_stds(each, b_std, factor) for each in layer)
    if isinstance(layer, Container):
        inner = {field.name: getattr(layer, field.name) for field in fields(layer)}
        changed = {name: _with_stds(each, b_std, factor) for name, each in inner.items()}
        return type(layer)._from_fields(changed)
    if not isinstance(layer, (Dense, Convolution)):
        return layer
    own = None if layer.b_std is None else (layer.b_std if b_std is None else b_std)
    return replace(layer, W_std=factor * layer.W_std, b_std=own)


def power(modes: Modes, y: Array) -> dict[str, list[float]]:
    """Share of the targets in the first so many modes (Canatar et al. 2021): {ranks, share}."""
    about = (y - y.mean(axis=0)).reshape(len(modes.vectors), -1)
    power = ((modes.vectors.T @ about) ** 2).sum(axis=1).cumsum()
    ranks = np.unique(np.geomspace(1, len(power), RANKS).astype(int))
    return {"ranks": ranks.tolist(), "share": (power[ranks - 1] / power[-1]).tolist()}
