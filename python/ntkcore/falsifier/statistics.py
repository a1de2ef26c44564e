"""Means over independent repetitions with their intervals, and how sure a comparison is.

Repetition i is initialisation i on split i, both fresh: one number each, Student's t over them.
Differences of arms are taken within a repetition, on the same split: that makes them paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

SKEWED = 1.5  # the greatest skewness that a statistic is freed of


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def standard_error(values: npt.ArrayLike, shared: float = 0.0) -> float:
    """Of a mean of repetitions that have a share of their test samples in common.

    sd sqrt(1/J + s/(1 - s)), the correlation of two repetitions being s (Nadeau and Bengio 2003);
    of more than half as of half, for then the repetitions hardly show what is common to them.
    """
    table = np.asarray(values, float)
    if len(table) < 2:
        return math.inf
    share = min(shared, 0.5)
    return float(table.std(ddof=1) * math.sqrt(1 / len(table) + share / (1 - share)))


def estimate(values: npt.ArrayLike, shared: float = 0.0, confidence: float = 0.95) -> Estimate:
    """Mean of repetitions with the interval of Student's t."""
    table = np.asarray(values, float)
    mean, error = float(table.mean()), standard_error(table, shared)
    if not 0 < error < math.inf:
        return Estimate(mean, mean - error, mean + error)
    half = error * float(stdtrit(len(table) - 1, (1 + confidence) / 2))
    return Estimate(mean, mean - half, mean + half)


def p_value(values: npt.ArrayLike, threshold: float, side: str, shared: float = 0.0) -> float:
    """One-sided p-value of Student's t against a mean of at most ``threshold`` (side "above"), or
    of at least it ("below").

    The statistic is freed of skewness g (Hall 1992), as errors bounded on one side have it:
    sqrt(J) (S + g S^2/3 + g^2 S^3/27 + g/(6 J)), S = (mean - threshold)/sd. |g| counts as SKEWED at
    most: the cubic is flat at S = -3/g, where one repetition that failed would outweigh all others.
    """
    table = (np.asarray(values, float) - threshold) * (1 if side == "above" else -1)
    mean, error, count = float(table.mean()), standard_error(table, shared), len(table)
    if not 0 < error < math.inf:
        return 0.0 if mean > 0 and error == 0 else 1.0
    sd = float(table.std(ddof=1))
    ratio, skew = mean / sd, float(((table - mean) ** 3).mean()) / sd**3
    skew = max(-SKEWED, min(skew, SKEWED))
    freed = ratio + skew * ratio**2 / 3 + skew**2 * ratio**3 / 27 + skew / (6 * count)
    return float(stdtr(count - 1, -freed * sd / error))


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several hypotheses are rejected at a family-wise level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
