"""Means over initialisations and splits with their intervals, and how sure a comparison is.

Effects come as tables (seeds, splits): initialisations and splits are both drawn, so both are drawn
again (the two-way bootstrap of Owen 2007). Differences of arms are taken within a cell, on the same
split: that is what makes them paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntkcore.falsifier.tasks import Array

DRAWS = 4000


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(table: npt.ArrayLike, draws: int = DRAWS, seed: int = 0) -> Array:
    """Means of a table (seeds, splits) under two-way resampling, (draws,)."""
    values = np.asarray(table, float)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.integers(size, size=(draws, size)) for size in values.shape)
    return np.asarray(values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)))


def estimate(table: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of a table (seeds, splits) with its bootstrap percentile interval."""
    means = bootstrap(table)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(np.asarray(table, float).mean()), float(low), float(high))


def p_value(table: npt.ArrayLike, threshold: float, side: str) -> float:
    """One-sided bootstrap p-value against a mean below ``threshold`` (side "above"),
    or at least it ("below").
    """
    means = bootstrap(table)
    against = (means < threshold) if side == "above" else (means >= threshold)
    return float((1 + against.sum()) / (1 + len(means)))


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several hypotheses are rejected at a family-wise level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
