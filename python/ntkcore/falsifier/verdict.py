"""From effects to a verdict, through the gates that must be passed first.

Every test is one-sided, by bootstrap; a verdict needs all tests of its kind to reject, so that its
p-value is their largest (intersection-union), and the p-values of several claims are corrected by
Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntkcore.falsifier.arms import ARMS, FROZEN
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.network_arms import LAZY, MOVED
from ntkcore.falsifier.statistics import Estimate, estimate, holm, p_value
from ntkcore.falsifier.tasks import Array

SEEDS, SPLITS = 5, 3  # the least that a verdict is given on
SHARE = 2 / 3  # of the network's effect, below which the kernel's is a part only
# What the linearised network and the infinite one may be apart, as a share of the minimum effect.
TOLERANCE = 0.5

PRESENT = "present in the kernel"
NEEDS = "needs features"
PARTIAL = "partial"
ARCHITECTURE = "architecture"
FINITE = "finite width"
INCONCLUSIVE = "inconclusive"

WIDER = "take a wider network"  # remedy of several gates


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

    ``effects``: tables (seeds, splits) by arm, complete. ``missing``: why an arm has none.
    ``movement``: tables (points, seeds, splits) of "lazy" and "features". ``limit``: metrics
    (linearised at the largest width, infinite), where the axis is the width. ``n``: training
    samples.
    """

    effects: Mapping[str, Array]
    missing: Mapping[str, str]
    movement: Mapping[str, Array]
    n: int
    limit: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """``kind`` (one of the constants above), said in a sentence, with gates,
    effects and p-value (1: no test).
    """

    claim: str
    kind: str
    sentence: str
    gates: tuple[Gate, ...]
    effects: Mapping[str, Estimate]
    p: float

    def __str__(self) -> str:
        return f"{self.claim}: {self.kind}. {self.sentence}"


def judge(
    claims: Sequence[Claim], evidence: Sequence[Evidence], level: float = 0.05
) -> list[Verdict]:
    """A verdict for every claim, at a family-wise error level over all of them."""
    found = [_judge(claim, each) for claim, each in zip(claims, evidence, strict=True)]
    sure = holm([verdict.p for verdict in found], level)
    unsure = [
        verdict.kind != INCONCLUSIVE and not yes for verdict, yes in zip(found, sure, strict=True)
    ]
    return [
        _unsure(verdict, level) if no else verdict
        for verdict, no in zip(found, unsure, strict=True)
    ]


def _judge(claim: Claim, found: Evidence) -> Verdict:
    effects = {arm: estimate(table) for arm, table in found.effects.items()}
    if found.missing:
        arm, reason = next(iter(found.missing.items()))
        gate = Gate("every arm ran", False, f"{ARMS[arm].label}: {reason}")
        return Verdict(claim.name, INCONCLUSIVE, _failed([gate]), (gate,), effects, 1.0)
    frozen = [arm for arm in FROZEN if arm in found.effects] if found.limit is None else []
    frozen = frozen or ["linearised"]
    kind, p = _kind(claim, found, frozen)
    gates = _gates(claim, found, effects, frozen, kind)
    if failed := [gate for gate in gates if not gate.passed]:
        return Verdict(claim.name, INCONCLUSIVE, _failed(failed), tuple(gates), effects, 1.0)
    return Verdict(
        claim.name, kind, _sentence(claim, kind, effects, frozen, found), tuple(gates), effects, p
    )


# --- gates


def _gates(
    claim: Claim, found: Evidence, effects: Mapping[str, Estimate], frozen: Sequence[str], kind: str
) -> list[Gate]:
    seeds, splits = found.effects["features"].shape
    lazy, moved = (np.nanmean(found.movement[arm], axis=(1, 2)) for arm in ("lazy", "features"))
    gates = [
        Gate(
            "enough repetitions",
            seeds >= SEEDS and splits >= SPLITS,
            f"{seeds} initialisations x {splits} splits, at least {SEEDS} x {SPLITS}",
            "raise Budget(seeds, splits)",
        ),
        Gate(
            "the network shows the effect",
            effects["features"].low >= claim.minimum,
            f"{effects['features']}, at least {claim.minimum:g}",
            "nothing is to be explained before:"
            " train longer, try other learning rates and batches, or claim less",
        ),
        Gate(
            "the lazy network is lazy",
            bool(lazy.max() < LAZY),
            f"kernel movement {lazy.max():.3g}, below {LAZY:g}",
            WIDER,
        ),
        Gate(
            "the network's features move",
            bool(moved.min() > MOVED),
            f"kernel movement {moved.min():.3g}, above {MOVED:g}",
            "train longer, with larger learning rates, or from smaller weights",
        ),
    ]
    if kind != FINITE:
        gates.append(_wide_enough(claim, found, frozen))
    return gates


def _wide_enough(claim: Claim, found: Evidence, frozen: Sequence[str]) -> Gate:
    """Linearised = infinite; on an axis of widths at the largest; without a spec,
    one start like another.
    """
    if found.limit is not None:
        at_width, infinite = found.limit
        apart = abs(at_width - infinite) / abs(infinite)
        return Gate(
            "linearised is like infinite at the largest width",
            apart <= 0.25,
            f"{at_width:.3g} and {infinite:.3g}, at most 25 % apart",
            WIDER,
        )
    bound, linearised = TOLERANCE * claim.minimum, found.effects["linearised"]
    if frozen == ["linearised"]:
        spread = float(linearised.std(axis=0).mean())
        return Gate(
            "one initialisation's kernel is like another's",
            spread <= bound,
            f"effects spread by {spread:.3g}, at most {bound:.3g}",
            WIDER,
        )
    apart, least = min(
        (abs(estimate(linearised - found.effects[arm]).mean), arm) for arm in frozen[:1]
    )
    return Gate(
        "linearised is like infinite",
        apart <= bound,
        f"effects of the linearised network and the {ARMS[least].label} differ by {apart:.3g}, at"
        f" most {bound:.3g}",
        WIDER,
    )


# --- kinds


def _kind(claim: Claim, found: Evidence, frozen: Sequence[str]) -> tuple[str, float]:
    """The verdict if all gates are passed, and its p-value."""
    network = p_value(found.effects["features"], claim.minimum, "above")

    def p(arm: str, side: str) -> float:
        return p_value(found.effects[arm], claim.minimum, side)

    shown = min(1.0, len(frozen) * min(p(arm, "above") for arm in frozen))
    absent = max(p(arm, "below") for arm in frozen)
    if shown <= absent:
        best = max(frozen, key=lambda arm: float(found.effects[arm].mean()))
        less = p_value(SHARE * found.effects["features"] - found.effects[best], 0.0, "above")
        if less < 0.05:
            return PARTIAL, max(network, shown, less)
        if "baseline" in found.effects and (without := p("baseline", "below")) < 0.05:
            return ARCHITECTURE, max(network, shown, without)
        return PRESENT, max(network, shown)
    if "linearised" not in frozen and p("linearised", "above") < p("linearised", "below"):
        return FINITE, max(network, absent, p("linearised", "above"))
    return NEEDS, max(network, absent, p("linearised", "below"), p("lazy", "below"))


# --- words


def _failed(gates: Sequence[Gate]) -> str:
    reasons = [
        f"gate failed: {gate.name} ({gate.found})" + (gate.remedy and f": {gate.remedy}")
        for gate in gates
    ]
    return f"No verdict: {'; '.join(reasons)}."


def _unsure(verdict: Verdict, level: float) -> Verdict:
    sentence = (
        f"No verdict: {verdict.kind!r} is not sure enough (p = {verdict.p:.2g}, against {level:g}"
        " corrected for all claims); more seeds or splits may tell."
    )
    return Verdict(verdict.claim, INCONCLUSIVE, sentence, verdict.gates, verdict.effects, verdict.p)


def _sentence(
    claim: Claim, kind: str, effects: Mapping[str, Estimate], frozen: Sequence[str], found: Evidence
) -> str:
    best = max(frozen, key=lambda arm: effects[arm].mean)
    network, kernel = (
        f"the network shows {effects['features']}",
        f"the {ARMS[best].label} {effects[best]}",
    )
    counts = f"effects of at least {claim.minimum:g} count"
    return {
        PRESENT: f"Frozen features suffice: {network}, {kernel}; {counts}.",
        PARTIAL: f"Frozen features explain a part: {network}, {kernel}; {counts}.",
        ARCHITECTURE: (
            f"Frozen features suffice, but of this architecture only: {network}, {kernel}, "
            f"the {ARMS['baseline'].label} {effects.get('baseline')}; {counts}."
        ),
        FINITE: (
            f"Frozen features suffice at this width, and not in the limit: {network}, "
            f"the {ARMS['linearised'].label} {effects['linearised']}, {kernel}; {counts}."
        ),
        NEEDS: (
            f"Not explained by this kernel at this n ({found.n}): {network}, {kernel}; {counts}."
        ),
    }[kind]
