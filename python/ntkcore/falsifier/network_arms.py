"""Arms that are networks: as they are trained, scaled until they are lazy, and linearised."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import ntkcore
from ntkcore.falsifier.claims import Outcome, Point, scores
from ntkcore.falsifier.kernel_arms import fit_kernel, power
from ntkcore.falsifier.study import ALL, Content, Place, Setting, Study, Training
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import (
    DivergedError,
    empirical_nngp,
    empirical_ntk,
    kernel_distance,
    kernel_movement,
    nmse,
    to_torch,
    train,
)
from ntkcore.finite import features as hidden_features
from ntkcore.finite.arrays import as_tensor
from ntkcore.finite.networks import learning_rate_factor
from ntkcore.specs.layers import Layer

# Movement of the kernel below which a network is lazy; turn of the last hidden layer's features,
# 1 - CKA, above which they have moved.
LAZY, TURNED = 0.1, 0.05
STARTS, SURE = (3, 15), 0.03  # of the mean kernel: least and most; standard error that will do
FULL = 1500  # rows of a kernel over all outputs
ALPHAS = (1.0, 8.0, 64.0, 512.0, 4096.0, 32768.0)  # output scales that the lazy network tries
PROBES = 100  # training samples on which the movement of the kernel is measured
ROWS = 4096  # of a forward pass


class Scaled(torch.nn.Module):
    """alpha (f - f_0), f_0 the network as it was given:
    lazy for large alpha (Chizat et al. 2019).
    """

    def __init__(self, network: torch.nn.Module, alpha: float) -> None:
        super().__init__()
        self.network, self.alpha = network, alpha
        # In a list, so that its parameters are not this module's.
        self._start = [copy.deepcopy(network).requires_grad_(False)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, outputs)."""
        now, start = self.network(x), self._start[0](x)
        return self.alpha * (now - start).reshape(len(x), -1)


class Plain(torch.nn.Module):
    """The network itself, its outputs (samples, outputs)."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, outputs)."""
        out: torch.Tensor = self.network(x)
        return out.reshape(len(x), -1)


def make_network(
    study: Study, place: Place, parameterization: str, outputs: int
) -> torch.nn.Module:
    """The finite network of a cell, in float32 on its device."""
    network, (spec, keywords) = study.network, study.network.at(place.point)
    if network.module is not None:
        module = network.module(place.seed, **keywords)
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"the maker must give a torch module, not {type(module).__name__}")
        return _with_trained(module, study.training)
    assert spec is not None
    shape = study.split(place.point, place.split).x.shape[1:]
    made = to_torch(
        _with_outputs(spec, outputs),
        int(keywords.get("width", network.width)),
        input_shape=shape,
        parameterization=parameterization,
        seed=place.seed,
        dtype="float32",
    )
    return _with_trained(made.to(network.device), study.training)


def _with_trained(module: torch.nn.Module, training: Training) -> torch.nn.Module:
    """The same module, where only the parameters that train require gradients."""
    if training.parameters == ALL:
        return module
    names = dict(module.named_parameters())
    wanted = {name for pattern in training.parameters for name in fnmatch.filter(names, pattern)}
    if absent := [pattern for pattern in training.parameters if not fnmatch.filter(names, pattern)]:
        raise ValueError(
            f"no parameter is called {absent[0]!r}: the network has {', '.join(names)}"
        )
    for name, parameter in names.items():
        parameter.requires_grad_(name in wanted)
    return module


def _with_outputs(spec: Layer, outputs: int) -> Layer:
    """The spec with as many outputs as the targets have: its last Dense says how many."""
    if isinstance(spec, ntkcore.Dense):
        return ntkcore.Dense(spec.W_std, spec.b_std, spec.parameterization, width=outputs)
    if isinstance(spec, ntkcore.Serial) and spec.layers:
        return ntkcore.Serial(*spec.layers[:-1], _with_outputs(spec.layers[-1], outputs))
    return spec


def predict(module: torch.nn.Module, x: Any) -> Array:
    """Outputs (samples, outputs), float64."""
    with torch.no_grad():
        parts = [
            module(as_tensor(module, np.ascontiguousarray(part), "x")).reshape(len(part), -1)
            for part in np.array_split(np.asarray(x), max(1, math.ceil(len(x) / ROWS)))
        ]
    return np.asarray(torch.cat(parts).double().cpu())


def linearised(study: Study, place: Place, setting: Setting) -> Content:
    """The linearisation of the network that is trained, its output at the start taken away as the
    lazy network's is; in closed form, as the infinite ones are.
    """
    split = study.split(place.point, place.split)
    return _regression(study, split, _kernels(study, _start(study, place, split), split))


def mean_kernel(study: Study, place: Place, setting: Setting) -> Content:
    """The mean kernel over initialisations: the limit of a network without an infinite counterpart,
    up to a share of 1/width. Starts are added until its standard error is small.
    """
    split = study.split(place.point, place.split)
    total, squares, count = [np.zeros(())] * 3, 0.0, 0
    while count < STARTS[1] and (count < STARTS[0] or not _sure(total[0], squares, count)):
        module = _start(study, replace(place, seed=count), split)
        kernels = _kernels(study, module, split)
        total = [held + part for held, part in zip(total, kernels, strict=True)]
        squares, count = squares + float((kernels[0] ** 2).sum()), count + 1
    found = _regression(study, split, (total[0] / count, total[1] / count, total[2] / count))
    return {**found, "starts": count}


def _sure(total: Array, squares: float, count: int) -> bool:
    """Is the standard error of the mean of so many kernels below SURE of its norm?"""
    norm = float((total**2).sum()) / count**2
    variance = (squares - count * norm) / (count - 1)
    return variance / count < SURE**2 * norm


def _start(study: Study, place: Place, split: Split) -> torch.nn.Module:
    """The network of a cell before training, in float64."""
    made = make_network(study, place, study.training.parameterization, split.y.shape[1])
    return copy.deepcopy(made).double()


def _regression(study: Study, split: Split, kernels: tuple[Array, Array, Array]) -> Content:
    outcome, tuned, modes = fit_kernel(kernels, split, study.training)
    return {**scores(study.claims, outcome), "setting": tuned, "power": power(modes, split.y)}


def of_mean_output(study: Study) -> bool:
    """Are outputs too many for a kernel over all of them?"""
    shape = study.split(study.points()[-1], 0).y.shape
    return bool(shape[1] > 1 and shape[0] * shape[1] > FULL)


def _kernels(study: Study, module: torch.nn.Module, split: Split) -> tuple[Array, Array, Array]:
    """Of training, validation and test samples with training samples: over all outputs of all
    samples where they are few, else the mean over outputs, the same for each.
    """
    full = 1 < split.y.shape[1] <= FULL / len(split.x)
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
    module = Plain(network) if alpha is None else Scaled(network, alpha)
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
            batch_size=min(training.batch_size or len(split.x), len(split.x)),
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
        outcome, tuned, _ = fit_kernel(_kernels(study, network.double(), split), split, training)
        setting.update(tuned)
        outcome = Outcome(split, outcome.train, outcome.test, times, residual)
    else:
        f_train, f_test = predict(module, split.x), predict(module, split.x_test)
        outcome = Outcome(split, f_train, f_test, times, residual)
    content = {"movement": movement, "turned": turned, "setting": setting}
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
        found["after"] = _regression(study, split, _kernels(study, network.double(), split))
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
            found, outcome, _, _ = _train(study, Place(point, 0, 0), first, alpha)
        except DivergedError:
            sweep.append({"alpha": alpha, "diverged": True})
            continue
        sweep.append(
            {"alpha": alpha, "movement": found["movement"], **scores(study.claims, outcome)}
        )
        if found["movement"] < LAZY / 2:
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
    for number, config in enumerate(configurations):
        try:
            found, _, score, _ = _train(study, Place(point, 0, 0), config, alpha)
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
