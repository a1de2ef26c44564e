"""What is looked at before any work: a study's data, kernels, networks, memory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

import ntkcore
from ntkcore.engine.inputs import check_count, free_bytes, size_text
from ntkcore.falsifier.arms import arms_for
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.compute import cost_of_step, paid
from ntkcore.falsifier.evidence import Budget
from ntkcore.falsifier.identity import identity
from ntkcore.falsifier.starts import draw_network, make_network, predict
from ntkcore.falsifier.study import Place, Study
from ntkcore.falsifier.tasks import Split
from ntkcore.finite import empirical_ntk, train


def check(study: Study, budget: Budget, workers: int) -> None:
    """ValueError for numbers and claims that give no verdict."""
    if not study.claims:
        raise ValueError("give at least one claim")
    for claim in study.claims:
        if not isinstance(claim, Claim):
            raise TypeError(f"claims must be a Claim or several, not {claim!r:.60}")
    check_count("repeats", budget.repeats, 1)
    check_count("workers", workers, 1)
    if not all(0 < factor < math.inf for factor in budget.sweep):
        raise ValueError(f"sweep must be positive multiples of n, not {budget.sweep!r}")
    for claim in study.claims:
        arms = arms_for(study, claim)
        if absent := [arm for arm in claim.contrast if arm not in arms]:
            raise ValueError(
                f"claim {claim.name!r}: no arm {absent[0]!r} to contrast here, only"
                f" {', '.join(arms)}"
            )
    study.check(budget.repeats)


def check_models(study: Study, sizes: list[int], workers: int) -> str:
    """Of the network, its parameters as the first seed makes them, as a hash;
    errors for kernels and networks that cannot be had.
    """
    _check_memory(max(sizes + [len(study.split(point, 0).x) for point in study.points()]), workers)
    point = study.points()[-1]
    split = study.split(point, 0)
    _check_paid(study)
    for spec in (study.network.at(point)[0], study.baseline):
        if spec is not None:
            ntkcore.kernel(spec, np.asarray(split.x[:2], np.float64))
    return _check_network(study, Place(point, 0, 0), split)


def _check_paid(study: Study) -> None:
    for point in study.points():
        if point and not paid(study, point):
            narrow = replace(study, network=replace(study.network, width=study.training.widths[0]))
            raise ValueError(
                f"{point[0]}={point[1]:g} pays for no step of the narrowest width,"
                f" {narrow.network.width}: 6 x parameters x batch is"
                f" {cost_of_step(narrow, point):.3g}; begin there, or take a smaller batch_size"
            )


def _check_network(study: Study, place: Place, split: Split) -> str:
    device = study.network.device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"PyTorch has no device {device!r} here ({error}): take 'cpu'") from None
    training = study.training
    module = make_network(study, place, training.parameterization, split.y.shape[1]).double()
    try:
        # It must be a function of its parameters and one sample, and its Jacobian must fit.
        empirical_ntk(module, split.x[:3])
    except RuntimeError as error:
        raise ValueError(
            f"the network does not take samples of shape {split.x.shape[1:]}: {error}"
        ) from error
    if (outputs := predict(module, split.x[:2]).shape[1]) != split.y.shape[1]:
        raise ValueError(f"the network has {outputs} outputs, the targets {split.y.shape[1]}")
    for each in training.configurations():  # of no step: what `train` refuses is told now
        train(
            module,
            split.x,
            split.y,
            lr=each["lr"],
            steps=0,
            optimizer=training.optimizer,
            batch_size=training.batch(len(split.x)),
            weight_decay=each["weight_decay"],
            base_width=training.base_width,
        )
    return _start(study, place, split)


def _start(study: Study, place: Place, split: Split) -> str:
    """Parameters and buffers of a seed's network, twice made the same, its head not yet fitted."""
    first, again = (
        identity(draw_network(study, place, "ntk", split.y.shape[1]).state_dict()) for _ in range(2)
    )
    if first != again:
        raise ValueError(
            "net(seed) makes another network every time: its weights must follow from the seed"
            " alone (begin with torch.manual_seed(seed))"
        )
    return first


def _check_memory(n: int, workers: int) -> None:
    """Of an arm with a kernel: it, its eigenvectors, their work space,
    and its rows to the other samples.
    """
    need, free = workers * 8 * 6 * n**2, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"the kernels of {n} training samples need {size_text(need)}, but {size_text(free)} are"
            " free: claim it at a smaller n, with a shorter Budget.sweep, or take fewer workers"
        )
