"""From effects to a verdict, through the gates that must be passed first.

Every test is one-sided, by Student's t over independent repetitions; a verdict needs all tests of
its kind to reject, so that its p-value is their largest (intersection-union), and the p-values of
several claims are corrected by Holm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ntkcore.falsifier.arms import ARMS, FROZEN
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.gates import gates_of, lazy_enough, repeated
from ntkcore.falsifier.statistics import Estimate, estimate, holm, p_value
from ntkcore.falsifier.tasks import Array
from ntkcore.falsifier.verdict import (
    ARCHITECTURE,
    FAILS,
    FINITE,
    HOLDS,
    INCONCLUSIVE,
    NEEDS,
    PARTIAL,
    PRESENT,
    SUFFICE,
    Evidence,
    Gate,
    Verdict,
)

LEVEL = 0.05  # of a family of claims
# A frozen arm is as good as the network where it shows SHARE of its effect and, where an effect
# says what error is left, leaves at most LEFT times the network's or MARGIN more.
SHARE, LEFT, MARGIN = 2 / 3, 2.0, 0.05
LEARNED = "the learned features are as good as the network"  # a test's name

Tests = Mapping[str, float]  # p-values by what they say


def judge(
    claims: Sequence[Claim], evidence: Sequence[Evidence], level: float = LEVEL
) -> list[Verdict]:
    """A verdict for every claim, at a family-wise error level over all of them."""
    found = [_judge(claim, each) for claim, each in zip(claims, evidence, strict=True)]
    return [
        _with_range(verdict, _again(claim, each, found, number, level))
        for number, (verdict, claim, each) in enumerate(
            zip(_corrected(found, level), claims, evidence, strict=True)
        )
    ]


def _corrected(found: Sequence[Verdict], level: float) -> list[Verdict]:
    """As Holm leaves them; "and they suffice" is given up first where that alone is not sure."""
    sure = holm([verdict.p for verdict in found], level)
    found = [
        verdict if yes else _without_after(verdict)
        for verdict, yes in zip(found, sure, strict=True)
    ]
    sure = holm([verdict.p for verdict in found], level)
    return [
        verdict if yes or verdict.kind == INCONCLUSIVE else _unsure(verdict, level)
        for verdict, yes in zip(found, sure, strict=True)
    ]


def _without_after(verdict: Verdict) -> Verdict:
    if verdict.kind != SUFFICE:
        return verdict
    tests = {name: p for name, p in verdict.tests.items() if name != LEARNED}
    return replace(verdict, kind=NEEDS, tests=tests, p=max(tests.values()))


def _with_range(verdict: Verdict, kind_at: Callable[[float], str]) -> Verdict:
    if verdict.kind == INCONCLUSIVE:
        return verdict

    def same(minimum: float) -> bool:
        return kind_at(minimum) == verdict.kind

    nothing = 1e-6 * verdict.minimum
    # More than any effect, or any difference of two.
    everything = 2 * sum(max(-e.low, e.high) for e in verdict.effects.values()) + verdict.minimum
    low = 0.0 if same(nothing) else _edge(same, verdict.minimum, nothing)
    high = math.inf if same(everything) else _edge(same, verdict.minimum, everything)
    words = f" It stands for least effects between {low:.3g} and {high:.3g}."
    return replace(verdict, sentence=verdict.sentence + words, stands=(low, high))


def _again(
    claim: Claim, each: Evidence, found: Sequence[Verdict], number: int, level: float
) -> Callable[[float], str]:
    """The kind of one claim's verdict under another least effect, the other claims as they are."""

    def kind_at(minimum: float) -> str:
        verdict = _judge(replace(claim, minimum=minimum), each)
        family = [*found[:number], verdict, *found[number + 1 :]]
        return _corrected(family, level)[number].kind

    return kind_at


def _edge(same: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last place from ``inside`` towards ``outside`` that is the same, by bisection."""
    for _ in range(16):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if same(middle) else (inside, middle)
    return inside


def _judge(claim: Claim, found: Evidence) -> Verdict:
    effects = {arm: estimate(table, found.shared) for arm, table in found.effects.items()}
    differences = {
        arm: estimate(found.effects["features"] - table, found.shared)
        for arm, table in found.effects.items()
        if arm != "features" and "features" in found.effects
    }

    after = None if found.after is None else estimate(found.after, found.shared)

    def verdict(kind: str, sentence: str, gates: Sequence[Gate], tests: Tests, p: float) -> Verdict:
        held = effects, p, claim.minimum, differences, tests
        return Verdict(claim.name, kind, sentence, tuple(gates), *held, after=after)

    of = claim.contrast or (*found.missing,)
    if missing := {arm: why for arm, why in found.missing.items() if arm in of}:
        arm, reason = next(iter(missing.items()))
        gates = [Gate("every arm ran", False, f"{ARMS[arm].label}: {reason}")]
        return verdict(INCONCLUSIVE, _failed(gates), gates, {}, 1.0)
    if claim.contrast:
        kind, tests, sentence = _contrast(claim, found, effects)
        gates = [repeated(found), *([lazy_enough(found)] if "lazy" in claim.contrast else [])]
        if failed := [gate for gate in gates if not gate.passed]:
            return verdict(INCONCLUSIVE, _failed(failed), gates, tests, 1.0)
        return verdict(kind, sentence, gates, tests, max(tests.values()))
    frozen = [arm for arm in FROZEN if arm in found.effects] or ["linearised"]
    kind, tests = _kind(claim, found, frozen)
    gates = gates_of(claim, found, effects, frozen, kind)
    if failed := [gate for gate in gates if not gate.passed]:
        return verdict(INCONCLUSIVE, _failed(failed), gates, tests, 1.0)
    if kind == NEEDS and found.after is not None and np.isfinite(found.after).all():
        kind, tests = _with_after(claim, found, tests)
    sentence = _sentence(claim, kind, effects, differences, frozen, found, after)
    return verdict(kind, sentence, gates, tests, max(tests.values()))


# --- kinds


def as_good(claim: Claim, network: Array) -> Array:
    """The effect from which on a frozen arm counts as good as the network."""
    share = SHARE * network
    if claim.predicate in ("below", "everywhere"):  # an effect of 1 - what is left
        return np.maximum(share, np.minimum(1 - LEFT * (1 - network), network - MARGIN))
    if claim.predicate == "orders":  # log10 of 1 over what is left
        return np.maximum(share, network - math.log10(LEFT))
    return share


def criterion(claim: Claim) -> str:
    """`as_good` in words."""
    left = {
        "below": f" and at most {LEFT:g} times what the network leaves, or {MARGIN:g} more",
        "orders": f" and at most {LEFT:g} times what the network leaves",
    }
    left["everywhere"] = left["below"]
    return f"at least {SHARE:.2g} of the network's effect{left.get(str(claim.predicate), '')}"


def _kind(claim: Claim, found: Evidence, frozen: Sequence[str]) -> tuple[str, Tests]:
    """The verdict if all gates are passed, and the tests that it rests on."""
    network = found.effects["features"]
    needed = SHARE * network if found.differences else as_good(claim, network)

    def p(arm: str, side: str) -> float:
        return p_value(found.effects[arm], claim.minimum, side, found.shared)

    def paired(arm: str, side: str) -> float:
        return p_value(found.effects[arm] - needed, 0.0, side, found.shared)

    def any_of(tests: Sequence[float]) -> float:
        return min(1.0, len(tests) * min(tests))

    shows = {"the network shows the effect": p("features", "above")}
    finite = [] if "linearised" in frozen else ["linearised"]
    every = [*frozen, *finite, "lazy"]
    kinds: dict[str, Tests] = {
        PRESENT: {
            **shows,
            "a frozen arm shows it, as good as the network": any_of(
                [max(p(arm, "above"), paired(arm, "above")) for arm in frozen]
            ),
        },
        PARTIAL: {
            **shows,
            "a frozen arm shows it": any_of([p(arm, "above") for arm in frozen]),
            "none is as good as the network": max(paired(arm, "below") for arm in frozen),
        },
        NEEDS: {
            **shows,
            "no frozen arm shows it": max(p(arm, "below") for arm in every),
            "none is as good as the network": max(paired(arm, "below") for arm in every),
        },
    }
    if finite:
        kinds[FINITE] = {
            **shows,
            "no infinite arm shows it": max(p(arm, "below") for arm in frozen),
            "no infinite arm is as good as the network": max(
                paired(arm, "below") for arm in frozen
            ),
            "the linearised network shows it, as good as the network": max(
                p("linearised", "above"), paired("linearised", "above")
            ),
        }
    kind = min(kinds, key=lambda kind: tuple(sorted(kinds[kind].values(), reverse=True)))
    if kind == PRESENT and "baseline" in found.effects:
        without = {
            "the baseline does not show it": p("baseline", "below"),
            "the baseline is not as good as the network": paired("baseline", "below"),
        }
        if max(without.values()) <= LEVEL:
            return ARCHITECTURE, {**kinds[PRESENT], **without}
    return kind, kinds[kind]


def _contrast(
    claim: Claim, found: Evidence, effects: Mapping[str, Estimate]
) -> tuple[str, Tests, str]:
    """Is one arm's effect the larger by the least that counts: kind, tests, sentence."""
    one, other = claim.contrast
    more = found.effects[one] - found.effects[other]
    tests = {
        HOLDS: p_value(more, claim.minimum, "above", found.shared),
        FAILS: p_value(more, claim.minimum, "below", found.shared),
    }
    kind = min(tests, key=lambda kind: tests[kind])
    sentence = (
        f"The {ARMS[one].label} shows {effects[one]}, the {ARMS[other].label} {effects[other]}:"
        f" {estimate(more, found.shared)} more; differences of at least {claim.minimum:g} count."
    )
    return kind, {kind: tests[kind]}, sentence


def _with_after(claim: Claim, found: Evidence, tests: Tests) -> tuple[str, Tests]:
    """Is a linear model over the learned features, on samples that did not shape them, as good as
    the network? If not surely, what is known stays.
    """
    assert found.after is not None
    more = p_value(
        found.after - as_good(claim, found.effects["features"]), 0.0, "above", found.shared
    )
    if more > LEVEL:
        return NEEDS, tests
    return SUFFICE, {**tests, LEARNED: more}


# --- words


def _failed(gates: Sequence[Gate]) -> str:
    reasons = [
        f"gate failed: {gate.name} ({gate.found})" + (gate.remedy and f": {gate.remedy}")
        for gate in gates
    ]
    return f"No verdict: {'; '.join(reasons)}."


def _unsure(verdict: Verdict, level: float) -> Verdict:
    weakest = max(verdict.tests, key=lambda name: verdict.tests[name])
    remedy = "more repetitions may tell" if verdict.p < 0.3 else "more repetitions will hardly tell"
    sentence = (
        f"No verdict: {verdict.kind!r} is not sure enough (p = {verdict.p:.2g} for {weakest!r},"
        f" against {level:g} corrected for all claims); {remedy}."
    )
    return replace(verdict, kind=INCONCLUSIVE, sentence=sentence)


def _sentence(
    claim: Claim,
    kind: str,
    effects: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
    frozen: Sequence[str],
    evidence: Evidence,
    after: Estimate | None,
) -> str:
    best = max(frozen, key=lambda arm: effects[arm].mean)
    found = (
        f"the network shows {effects['features']}, the {ARMS[best].label} {effects[best]},"
        f" difference {differences[best]}"
    )
    learned = f", a linear model over the learned features {after} on fresh samples"
    better = f"at least {SHARE:.2g} of the network's effect"
    if not evidence.differences:
        better = criterion(claim)
    counts = f"effects of at least {claim.minimum:g} count, and as good is {better}"
    return {
        PRESENT: f"Frozen features suffice: {found}; {counts}.",
        PARTIAL: f"Frozen features explain a part: {found}; {counts}.",
        ARCHITECTURE: (
            f"Frozen features suffice, but of this architecture only: {found}, "
            f"the {ARMS['baseline'].label} {effects.get('baseline')}; {counts}."
        ),
        FINITE: (
            f"Frozen features suffice at this width, and not in the limit: {found}, "
            f"the {ARMS['linearised'].label} {effects['linearised']}; {counts}."
        ),
        NEEDS: f"Not explained by this kernel at this n ({evidence.n}): {found}"
        f"{learned if after else ''}; {counts}.",
    }[NEEDS if kind == SUFFICE else kind]
