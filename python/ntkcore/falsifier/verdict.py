"""What a verdict rests on and what it says: evidence, gates, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ntkcore.falsifier.statistics import Estimate
from ntkcore.falsifier.tasks import Array

PRESENT = "present in the kernel"
NEEDS = "needs features"
SUFFICE = "needs features (and they suffice)"
PARTIAL = "partial"
ARCHITECTURE = "architecture"
FINITE = "finite width"
HOLDS, FAILS = "the contrast holds", "the contrast does not hold"
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Gate:
    """A condition that a verdict rests on, what was found, and what to try where it failed."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Evidence:
    """What the cells say about a claim.

    ``effects``: of every repetition (repeats,) by arm, complete. ``missing``: why an arm has none.
    ``movement``: tables (points, repeats): of the "lazy" network's kernel, of the "features" of the
    trained one. ``limit``: metrics (linearised at the largest width, infinite), where the axis is
    the width. ``n``: training samples. ``shared``: the share of test samples that two repetitions
    have in common. ``after``: effects of the trained network's kernel on fresh samples.
    """

    effects: Mapping[str, Array]
    missing: Mapping[str, str]
    movement: Mapping[str, Array]
    n: int
    limit: tuple[float, float] | None = None
    shared: float = 0.0
    after: Array | None = None
    differences: bool = False

    def minus(self, other: Evidence) -> Evidence:
        """Of the differences of effects to another network's, arm by arm, where both have it; lazy
        where both are.
        """
        both = {arm: table for arm, table in self.effects.items() if arm in other.effects}
        of_other = {arm: f"of the other network, {why}" for arm, why in other.missing.items()}
        lazy = np.fmax(self.movement["lazy"], other.movement["lazy"])
        return replace(
            self,
            effects={arm: table - other.effects[arm] for arm, table in both.items()},
            missing={**of_other, **self.missing},
            movement={**self.movement, "lazy": lazy},
            after=None,
            differences=True,
        )


@dataclass(frozen=True)
class Verdict:
    """``kind`` (one of the constants above), said in a sentence, with gates,
    effects and p-value (1: no test).

    ``differences``: network - arm, paired. ``tests``: p-values that the verdict rests on, by what
    they say. ``stands``: the least effects that count between which the verdict is the same.
    ``after``: the effect of the trained network's kernel on fresh samples, where it was asked for.
    """

    claim: str
    kind: str
    sentence: str
    gates: tuple[Gate, ...]
    effects: Mapping[str, Estimate]
    p: float
    minimum: float
    differences: Mapping[str, Estimate]
    tests: Mapping[str, float]
    stands: tuple[float, float] | None = None
    after: Estimate | None = None

    def __str__(self) -> str:
        return f"{self.claim}: {self.kind}. {self.sentence}"
