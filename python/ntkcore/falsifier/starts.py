"""Where networks start: drawn or loaded, their head fitted first, and the parameters that train."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import ntkcore
from ntkcore.falsifier.kernel_arms import Parts, fit_kernel
from ntkcore.falsifier.study import ALL, Place, Study, Training
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import empirical_ntk, nmse, to_torch
from ntkcore.finite.arrays import as_tensor
from ntkcore.specs.layers import Layer

ROWS = 4096  # of a forward pass
SAYS = 0.9  # validation nmse below which a network says something before it is trained


def make_network(
    study: Study, place: Place, parameterization: str, outputs: int
) -> torch.nn.Module:
    """The finite network of a cell where its training starts, in float32 on its device."""
    module = draw_network(study, place, parameterization, outputs)
    if study.training.head:
        _fit_head(module, study.split(place.point, place.split), study.training)
    if study.training.parameters != ALL:
        _let_train(module, named(module, study.training.parameters))
    return module


def draw_network(
    study: Study, place: Place, parameterization: str, outputs: int
) -> torch.nn.Module:
    """The same before its head is fitted: the seed's."""
    network, (spec, keywords) = study.network, study.network.at(place.point)
    if network.module is not None:
        module = network.module(place.seed, **keywords)
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"the maker must give a torch module, not {type(module).__name__}")
        return copy.deepcopy(module)  # it may give the same one again, which training would change
    assert spec is not None
    made = to_torch(
        _with_outputs(spec, outputs),
        int(keywords.get("width", network.width)),
        input_shape=study.split(place.point, place.split).x.shape[1:],
        parameterization=parameterization,
        seed=place.seed,
        dtype="float32",
    )
    return made.to(network.device)


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
        parts = [_outputs(module, part) for part in _pieces(x)]
    return np.asarray(torch.cat(parts).double().cpu())


def _pieces(x: Any) -> list[Any]:
    return np.array_split(np.asarray(x), max(1, math.ceil(len(x) / ROWS)))


def _outputs(module: torch.nn.Module, x: Any) -> torch.Tensor:
    found: torch.Tensor = module(as_tensor(module, np.ascontiguousarray(x), "x"))
    return found.reshape(len(x), -1)


def start_of(module: torch.nn.Module, split: Split) -> Parts | None:
    """Its outputs on training, validation and test samples, where they say something: so do those
    of a network that was trained before. None where they are noise, which frozen arms leave out.
    """
    train, val, test = (predict(module, x) for x in (split.x, split.x_val, split.x_test))
    return (train, val, test) if nmse(val, split.y_val) < SAYS else None


# --- which parameters


def named(module: torch.nn.Module, patterns: Sequence[str]) -> set[str]:
    """The parameters whose names fit; ValueError for a pattern that fits none."""
    names = [name for name, _ in module.named_parameters()]
    if absent := [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]:
        raise ValueError(
            f"no parameter is called {absent[0]!r}: the network has {', '.join(names)}"
        )
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern)}


def _let_train(module: torch.nn.Module, wanted: set[str]) -> None:
    """These parameters alone."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in wanted)


# --- the head


def _fit_head(module: torch.nn.Module, split: Split, training: Training) -> None:
    """The head, in place, as ridge regression on the features finds it: f_0 + J (w - w_0), where
    w - w_0 = J^T c and c = K^+ (f - f_0), f the regression's outputs and K = J J^T.
    """
    probe = copy.deepcopy(module).double()
    _let_train(probe, named(probe, training.head))
    f_0 = [predict(probe, x) for x in (split.x, split.x_val, split.x_test)]
    kernels = [empirical_ntk(probe, x, split.x) for x in (split.x, split.x_val, split.x_test)]
    kernel = (kernels[0] + kernels[0].T) / 2, kernels[1], kernels[2]
    alone = replace(training, early_stopping=False)
    outcome, _, modes, _ = fit_kernel(kernel, split, alone, (f_0[0], f_0[1], f_0[2]))
    alive = modes.values > 0
    V = modes.vectors[:, alive]
    c = V / modes.values[alive] @ (V.T @ (outcome.train - f_0[0]))
    head = {name: p for name, p in probe.named_parameters() if p.requires_grad}
    moved = {name: torch.zeros_like(p) for name, p in head.items()}
    home = next(probe.parameters()).device
    for x, part in zip(_pieces(split.x), _pieces(c), strict=True):
        total = (_outputs(probe, x) * torch.as_tensor(part, device=home)).sum()
        for name, each in zip(head, torch.autograd.grad(total, list(head.values())), strict=True):
            moved[name] += each
    with torch.no_grad():
        for name, p in head.items():
            p += moved[name]
    _check_linear(predict(probe, split.x), outcome.train, training.head)
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, p in head.items():
            own[name].copy_(p)


def _check_linear(found: Array, expected: Array, head: Sequence[str]) -> None:
    if np.linalg.norm(found - expected) > 1e-4 * np.linalg.norm(expected):
        raise ValueError(
            f"outputs are not linear in the parameters head={tuple(head)!r}, all alike: name those"
            " of the last layer alone"
        )
