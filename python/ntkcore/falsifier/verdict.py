"""From effects to a verdict, through the gates that must be passed first.

Every test is one-sided, by Student's t over independent repetitions; a verdict needs all tests of
its kind to reject, so that its p-value is their largest (intersection-union), and the p-values of
several claims are corrected by Holm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ntkcore.falsifier.arms import ARMS, FROZEN
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.network_arms import LAZY, TURNED
from ntkcore.falsifier.statistics import Estimate, estimate, holm, p_value
from ntkcore.falsifier.tasks import Array

LEVEL = 0.05  # of a family of claims
REPEATS = 15  # the least that a verdict is given on
# A frozen arm is as good as the network where it shows SHARE of its effect and, where an effect
# says what error is left, leaves at most LEFT times the network's or MARGIN more.
SHARE, LEFT, MARGIN = 2 / 3, 2.0, 0.05
# What two frozen arms may be apart: a share of the least effect, or of the effect itself.
TOLERANCE, SPREAD = 1 / 2, 1 / 3

PRESENT = "present in the kernel"
NEEDS = "needs features"
SUFFICE = "needs features (and they suffice)"
PARTIAL = "partial"
ARCHITECTURE = "architecture"
FINITE = "finite width"
HOLDS, FAILS = "the contrast holds", "the contrast does not hold"
INCONCLUSIVE = "inconclusive"

LEARNED = "the learned features are as good as the network"  # a test's name
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
    stands = low, high
    words = f" It stands for least effects between {stands[0]:.3g} and {stands[1]:.3g}."
    return replace(verdict, sentence=verdict.sentence + words, stands=stands)


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
        gates = [_repeated(found), *([_lazy(found)] if "lazy" in claim.contrast else [])]
        if failed := [gate for gate in gates if not gate.passed]:
            return verdict(INCONCLUSIVE, _failed(failed), gates, tests, 1.0)
        return verdict(kind, sentence, gates, tests, max(tests.values()))
    frozen = [arm for arm in FROZEN if arm in found.effects] or ["linearised"]
    kind, tests = _kind(claim, found, frozen)
    gates = _gates(claim, found, effects, frozen, kind)
    if failed := [gate for gate in gates if not gate.passed]:
        return verdict(INCONCLUSIVE, _failed(failed), gates, tests, 1.0)
    if kind == NEEDS and found.after is not None and np.isfinite(found.after).all():
        kind, tests = _with_after(claim, found, tests)
    sentence = _sentence(claim, kind, effects, differences, frozen, found, after)
    return verdict(kind, sentence, gates, tests, max(tests.values()))


# --- kinds

Tests = Mapping[str, float]  # p-values by what they say


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


# --- gates


def _gates(
    claim: Claim, found: Evidence, effects: Mapping[str, Estimate], frozen: Sequence[str], kind: str
) -> list[Gate]:
    """Movement is asked for by "needs features" only: a frozen arm that shows the effect is the
    proof that it can be shown, whatever moves elsewhere.
    """
    lazy = _lazy(found)
    turned = float(np.nanmean(found.movement["features"], axis=1).min())
    gates = [
        _repeated(found),
        Gate(
            "the network shows the effect",
            effects["features"].low >= claim.minimum,
            f"{effects['features']}, at least {claim.minimum:g}",
            "nothing is to be explained before:"
            " train longer, try other learning rates and batches, or claim less",
        ),
        _agree(claim, effects, frozen, kind, lazy.passed),
    ]
    if kind == NEEDS:
        gates += [
            lazy,
            Gate(
                "the network's features move",
                turned > TURNED,
                f"1 - CKA of the last hidden layer {turned:.3g}, above {TURNED:g}",
                "train longer, with larger learning rates, or from smaller weights",
            ),
        ]
    if found.limit is not None:
        gates.append(_limit(*found.limit))
    elif frozen == ["linearised"]:
        gates.append(_alike(claim, found.effects["linearised"]))
    return gates


def _repeated(found: Evidence) -> Gate:
    repeats = len(next(iter(found.effects.values())))
    return Gate(
        "enough repetitions",
        repeats >= REPEATS,
        f"{repeats} repetitions, at least {REPEATS}",
        "raise Budget(repeats)",
    )


def _lazy(found: Evidence) -> Gate:
    moved = float(np.nanmean(found.movement["lazy"], axis=1).max())
    return Gate(
        "the lazy network is lazy",
        moved < LAZY,
        f"kernel movement {moved:.3g}, below {LAZY:g}",
        WIDER,
    )


def _agree(
    claim: Claim,
    effects: Mapping[str, Estimate],
    frozen: Sequence[str],
    kind: str,
    lazy: bool,
) -> Gate:
    """One frozen kernel, met in several ways: the NNGP is another kernel,
    a lazy network that moved is none.
    """
    first = "linearised" if kind == FINITE else frozen[0]
    reference = effects[first].mean
    bound = max(TOLERANCE * claim.minimum, SPREAD * abs(reference))
    others = [arm for arm in ("linearised", "lazy") if arm != first and (arm != "lazy" or lazy)]
    if kind == FINITE:
        others = ["lazy"] if lazy else []
    apart = {arm: abs(effects[arm].mean - reference) for arm in others}
    causes = {
        "lazy": (
            "the optimiser may see another kernel than gradient descent (adaptive steps"
            " precondition it: try optimizer='sgd'), above all with unscaled inputs or a small"
            " b_std; look at these, at the ridge and at the steps; more repetitions will not tell"
        ),
        "linearised": f"{WIDER}; look at b_std, at the scale of the inputs and at the ridge",
    }
    other = next((arm for arm in others if apart[arm] > bound), None)
    found = ", ".join(f"{ARMS[arm].label} {effects[arm].mean:.3g}" for arm in (first, *others))
    return Gate(
        "frozen arms agree",
        other is None,
        f"{found}; at most {bound:.3g} apart",
        causes[other] if other else "",
    )


def _limit(at_width: float, infinite: float) -> Gate:
    return Gate(
        "linearised is like infinite at the largest width",
        abs(at_width - infinite) <= 0.25 * abs(infinite),
        f"{at_width:.3g} and {infinite:.3g}, at most 25 % apart",
        WIDER,
    )


def _alike(claim: Claim, linearised: Array) -> Gate:
    spread, bound = float(linearised.std()), TOLERANCE * claim.minimum
    return Gate(
        "one initialisation's kernel is like another's",
        spread <= bound,
        f"effects spread by {spread:.3g}, at most {bound:.3g}",
        WIDER,
    )


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
