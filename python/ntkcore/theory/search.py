"""The time at which a loss is first reached, or is least."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.theory.points import Stop
from ntkcore.theory.rules import GradientDescent, Rule

Array = npt.NDArray[np.float64]
STEPS_A_BLOCK = 256  # of the scan for the first step that reaches a loss
TIMES_A_GRID = 200  # of the search for the best time to stop


def first_time(train_loss: Callable[[Any], Array], loss: float, rule: Rule) -> float:
    """The first time at which the training loss is at most ``loss``, which it reaches."""
    if isinstance(rule, GradientDescent) and rule.momentum > 0:
        return _scan(train_loss, loss)
    high = 1.0
    while train_loss(high) > loss:
        high *= 2
    return _bisect(train_loss, loss, high, isinstance(rule, GradientDescent))


def best_time(loss: Callable[[Any], Array], rates: Array, rule: Rule) -> Stop:
    """The time of the least loss, t = 0 and infinity included: the best of a grid, refined."""
    grid = _grid(rates, rule)
    losses = loss(grid)
    best = int(losses.argmin())
    time, least = float(grid[best]), float(losses[best])
    if 0 < best < len(grid) - 1:
        whole = isinstance(rule, GradientDescent)
        time, least = _refine(loss, whole, grid[best - 1 : best + 2], time, least)
    return Stop(time, least, float(losses[-1]) - least)


def _scan(train_loss: Callable[[Any], Array], loss: float) -> float:
    start = 0
    while True:
        steps = np.arange(start, start + STEPS_A_BLOCK, dtype=float)
        reached = np.flatnonzero(train_loss(steps) <= loss)
        if len(reached):
            return float(steps[reached[0]])
        start += STEPS_A_BLOCK


def _bisect(train_loss: Callable[[Any], Array], loss: float, high: float, whole: bool) -> float:
    """The falling loss crosses in [0, high]: to the step, or to relative 1e-14."""
    low = 0.0
    while high - low > (1 if whole else 1e-14 * high):
        middle = (low + high) / 2
        middle = math.floor(middle) if whole else middle
        if middle in (low, high):
            break
        low, high = (middle, high) if train_loss(middle) > loss else (low, middle)
    return float(high)


def _grid(rates: Array, rule: Rule) -> Array:
    """Times between the time scales of the fastest and the slowest mode, 0 and infinity."""
    positive = rates[rates > 0]
    if not len(positive):
        return np.array([0.0, np.inf])
    slow = 1 - getattr(rule, "momentum", 0.0)
    first, last = 1e-3 * slow / positive.max(), 50 / positive.min()
    times = np.geomspace(first, last, TIMES_A_GRID - 2) / rule.learning_rate
    if isinstance(rule, GradientDescent):
        times = np.unique(np.ceil(times))
    return np.concatenate([[0.0], times, [np.inf]])


def _refine(
    loss: Callable[[Any], Array], whole: bool, around: Array, time: float, least: float
) -> tuple[float, float]:
    """Ever finer grids about the best time; of steps until none lies between."""
    low, high = around[0], min(around[2], 4 * around[1])
    for _ in range(12):
        grid = np.linspace(low, high, 9)
        if whole:
            grid = np.unique(np.round(grid))
        losses = loss(grid)
        best = int(losses.argmin())
        if losses[best] <= least:
            time, least = float(grid[best]), float(losses[best])
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return time, least
