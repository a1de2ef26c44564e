"""Arms that are networks: as they are trained, scaled until they are lazy, and linearised."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ntkcore.falsifier.claims import Outcome, Point, scores
from ntkcore.falsifier.compute import paid
from ntkcore.falsifier.kernel_arms import Parts, fit_kernel, regression
from ntkcore.falsifier.starts import make_network, predict, start_of
from ntkcore.falsifier.study import Content, Place, Setting, Study, Training
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import (
    DivergedError,
    empirical_nngp,
    empirical_ntk,
    kernel_distance,
    kernel_movement,
    nmse,
    train,
)
from ntkcore.finite import features as hidden_features
from ntkcore.finite.networks import learning_rate_factor

# Movement of the kernel below which a network is lazy; turn of the last hidden layer's features,
# 1 - CKA, above which they have moved.
LAZY, TURNED = 0.1, 0.05
STARTS, SURE = (3, 15), 0.03  # of the mean kernel: least and most; standard error that will do
FULL = 1500  # rows of a kernel over all outputs
ALPHAS = (1.0, 8.0, 64.0, 512.0, 4096.0, 32768.0)  # output scales that the lazy network tries
PROBES = 100  # training samples on which the movement of the kernel is measured


class Scaled(torch.nn.Module):
    """alpha (f - f_0), f_0 the network as it was given: lazy for large alpha (Chizat et al. 2019).

    ``keeps``: from f_0 on, not from 0.
    """

    def __init__(self, network: torch.nn.Module, alpha: float, keeps: bool = False) -> None:
        super().__init__()
        self.network, self.alpha, self.kept = network, alpha, float(keeps)
        # In a list, so that its parameters are not this module's.
        self._start = [copy.deepcopy(network).requires_grad_(False)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, outputs)."""
        now, start = self.network(x), self._start[0](x)
        return (self.alpha * (now - start) + self.kept * start).reshape(len(x), -1)


class Plain(torch.nn.Module):
    """The network itself, its outputs (samples, outputs)."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, outputs)."""
        out: torch.Tensor = self.network(x)
        return out.reshape(len(x), -1)


def linearised(study: Study, place: Place, setting: Setting) -> Content:
    """The linearisation of the network that is trained, its output at the start taken away as the
    lazy network's is, unless it says something; in closed form, as the infinite ones are.
    """
    split = study.split(place.point, place.split)
    module = _start(study, place, split)
    kernels, start = _kernels(study, module, split), start_of(module, split)
    return regression(study, place.point, split, kernels, start)


def mean_kernel(study: Study, place: Place, setting: Setting) -> Content:
    """The mean kernel over initialisations: the limit of a network without an infinite counterpart,
    up to a share of 1/width. Starts are added until its standard error is small.
    """
    split = study.split(place.point, place.split)
    total, squares, count, starts = [np.zeros(())] * 3, 0.0, 0, []
    while count < STARTS[1] and (count < STARTS[0] or not _sure(total[0], squares, count)):
        module = _start(study, replace(place, seed=count), split)
        kernels = _kernels(study, module, split)
        total = [held + part for held, part in zip(total, kernels, strict=True)]
        squares, count = squares + float((kernels[0] ** 2).sum()), count + 1
        starts.append(start_of(module, split))
    mean = total[0] / count, total[1] / count, total[2] / count
    found = regression(study, place.point, split, mean, _mean_start(starts))
    return {**found, "starts": count}


def _mean_start(starts: list[Parts | None]) -> Parts | None:
    """Of networks that all say something before they are trained."""
    told = [each for each in starts if each is not None]
    if len(told) < len(starts):
        return None
    train, val, test = (np.mean(parts, axis=0) for parts in zip(*told, strict=True))
    return train, val, test


def _sure(total: Array, squares: float, count: int) -> bool:
    """Is the standard error of the mean of so many kernels below SURE of its norm?"""
    norm = float((total**2).sum()) / count**2
    variance = (squares - count * norm) / (count - 1)
    return variance / count < SURE**2 * norm


def _start(study: Study, place: Place, split: Split) -> torch.nn.Module:
    """The network of a cell before training, in float64."""
    return make_network(study, place, study.training.parameterization, split.y.shape[1]).double()


def of_mean_output(study: Study) -> bool:
    """Are outputs too many for a kernel over all of them, somewhere? Then everywhere: points are
    compared.
    """
    shapes = [study.split(point, 0).y.shape for point in study.points()]
    return any(outputs > 1 and samples * outputs > FULL for samples, outputs in shapes)


def _kernels(study: Study, module: torch.nn.Module, split: Split) -> Parts:
    """Of training, validation and test samples with training samples: over all outputs of all
    samples where they are few, else the mean over outputs, the same for each.
    """
    full = split.y.shape[1] > 1 and not of_mean_output(study)
    rates = {
        name: learning_rate_factor(module, name, "sgd", study.training.base_width)
        for name, p in module.named_parameters()
        if p.requires_grad
    }

    def kernel(x1: Any, x2: Any = None) -> Array:
        if study.training.readout:
            return empirical_nngp(module, x1, x2)
        if not full:
            return empirical_ntk(module, x1, x2, scales=rates)
        K = empirical_ntk(module, x1, x2, scales=rates, outputs="full")
        return K.transpose(0, 2, 1, 3).reshape(K.shape[0] * K.shape[2], -1)

    return kernel(split.x), kernel(split.x_val, split.x), kernel(split.x_test, split.x)


def _train(
    study: Study, place: Place, config: Mapping[str, float], alpha: float | None
) -> tuple[Content, Outcome, float, torch.nn.Module]:
    """Train a network, lazily scaled by ``alpha`` if that is given: (content, outcome,
    validation score, the network).
    """
    split, training = study.split(place.point, place.split), study.training
    network = make_network(study, place, training.parameterization, split.y.shape[1])
    module: torch.nn.Module = Plain(network)
    if alpha is not None:
        module = Scaled(network, alpha, start_of(network, split) is not None)
    probes = split.x[:PROBES]
    K_0, hidden_0 = empirical_ntk(network, probes), _hidden_kernel(network, probes)
    looks = _Looks(split, training)
    rate = (
        config["lr"]
        if alpha is None
        else config["lr"] / alpha ** (2 if training.optimizer == "sgd" else 1)
    )
    try:
        history = train(
            module,
            split.x,
            split.y,
            lr=rate,
            steps=training.steps,
            optimizer=training.optimizer,
            batch_size=training.batch(len(split.x)),
            weight_decay=config["weight_decay"],
            base_width=training.base_width,
            seed=place.seed,
            callbacks=[looks],
            every=training.steps_looked_at(),
        )
    except DivergedError as error:  # told with the rate that was given, not the one of alpha f
        raise DivergedError(error.step, error.loss, config["lr"]) from None
    K_end = empirical_ntk(network, probes)
    looks.restore(module)
    # Both gates on the safe side: lazy to the end of training, moved where it was stopped.
    movement = kernel_movement(empirical_ntk(network, probes) if alpha is None else K_end, K_0)
    turned = _turned(_hidden_kernel(network, probes), hidden_0)
    residual = 2 * len(split.y) * history.loss / (split.y**2).sum()
    times = np.asarray(config["lr"] * history.steps, np.float64)
    setting: dict[str, Any] = {**config, "steps": looks.best_step}
    if training.readout:
        outcome, tuned, *_ = fit_kernel(_kernels(study, network.double(), split), split, training)
        setting.update(tuned)
        outcome = Outcome(split, outcome.train, outcome.test, times, residual)
    else:
        f_train, f_test = predict(module, split.x), predict(module, split.x_test)
        outcome = Outcome(split, f_train, f_test, times, residual)
    content = {"movement": movement, "turned": turned, "setting": setting}
    content["validation"] = looks.best
    return content, outcome, looks.best, network


def _hidden_kernel(network: torch.nn.Module, x: Any) -> Array:
    """Covariance of the last hidden layer's features about their mean: not of the read-out.

    The tangent kernel where no layer is known to be the last.
    """
    try:
        phi = hidden_features(network, x).astype(np.float64)
    except ValueError:
        return empirical_ntk(network, x)
    phi -= phi.mean(axis=0)
    return np.asarray(phi @ phi.T)


def _turned(after: Array, before: Array) -> float:
    """1 - CKA, blind to the features' size; 0 where there are none."""
    return kernel_distance(after, before) if before.any() and after.any() else 0.0


class _Looks:
    """Scores the network on the validation set at every look, and keeps the best one's weights."""

    def __init__(self, split: Split, training: Training) -> None:
        self.split, self.stops = split, training.early_stopping and not training.readout
        self.best, self.best_step, self.state = math.inf, 0, None

    def __call__(self, step: int, module: torch.nn.Module) -> None:
        score = nmse(predict(module, self.split.x_val), self.split.y_val)
        if not self.stops or score < self.best:
            self.best, self.best_step = score, step
            self.state = copy.deepcopy(module.state_dict()) if self.stops else None

    def restore(self, module: torch.nn.Module) -> None:
        if self.state is not None:
            module.load_state_dict(self.state)


def features(study: Study, place: Place, setting: Setting) -> Content:
    """The network as it is trained in practice; its kernel then, on samples that it never saw."""
    found, outcome, _, network = _train(study, place, setting["config"], None)
    if study.training.after_kernel:
        split = study.fresh(place.point, place.split)
        kernels = _kernels(study, network.double(), split)
        found["after"] = regression(study, place.point, split, kernels)
    return {**scores(study.claims, outcome), **found}


def settle_features(study: Study, point: Point) -> Content:
    """The best configuration on the validation set of the first split."""
    return _best(study, point, None)


def lazy(study: Study, place: Place, setting: Setting) -> Content:
    """The same network with its output scaled until its kernel stays."""
    found, outcome, _, _ = _train(study, place, setting["config"], setting["alpha"])
    return {**scores(study.claims, outcome), **found}


def settle_lazy(study: Study, point: Point) -> Content:
    """alpha, raised until the kernel moves by less than half of LAZY;
    then the best configuration.
    """
    sweep: list[Content] = []
    first = study.training.configurations()[0]
    for alpha in ALPHAS:
        try:
            tried = [_train(each, Place(point, 0, 0), first, alpha) for each in paid(study, point)]
        except DivergedError:
            sweep.append({"alpha": alpha, "diverged": True})
            continue
        movement = max(found["movement"] for found, *_ in tried)
        outcome = min(tried, key=lambda each: each[2])[1]
        sweep.append({"alpha": alpha, "movement": movement, **scores(study.claims, outcome)})
        if movement < LAZY / 2:
            break
    return {**_best(study, point, alpha), "alpha": alpha, "sweep": sweep}


def _best(study: Study, point: Point, alpha: float | None) -> Content:
    """The configuration of the least validation error; of lazy ones only those that stayed lazy,
    if any did.
    """
    configurations = study.training.configurations()
    if len(configurations) == 1:
        return {"config": configurations[0]}
    tried: list[tuple[bool, float, int]] = []
    for number, each in itertools.product(range(len(configurations)), paid(study, point)):
        try:
            found, _, score, _ = _train(each, Place(point, 0, 0), configurations[number], alpha)
        except DivergedError:
            continue
        tried.append((alpha is not None and found["movement"] >= LAZY, score, number))
    if not tried:
        return {
            "diverged": (
                f"training diverged with every learning rate of {study.training.learning_rates}"
            )
        }
    return {"config": configurations[min(tried)[2]]}
