"""What experiments share: criteria, and a bar for their outer loop."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Criterion:
    """A number and the range it must lie in."""

    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))

    @property
    def met(self) -> bool:
        """Does it? NaN does not."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        above = "" if self.low == -math.inf else f"{self.low:g} ≤ "
        below = "" if self.high == math.inf else f" ≤ {self.high:g}"
        return f"{'met' if self.met else 'NOT MET'}: {self.name}: {above}{self.value:.4g}{below}"


def steps(values: Iterable[T]) -> Iterable[T]:
    """The values of an experiment's outer loop,
    with a bar on a terminal where tqdm is installed.
    """
    if not sys.stderr.isatty():
        return values
    try:
        from tqdm import tqdm
    except ImportError:
        return values
    bar: Iterable[T] = tqdm(list(values), leave=False)
    return bar
