"""The gates: conditions without which there is no verdict, whatever the tests say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ntkcore.falsifier.arms import ARMS
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.network_arms import LAZY, TURNED
from ntkcore.falsifier.statistics import Estimate
from ntkcore.falsifier.tasks import Array
from ntkcore.falsifier.verdict import FINITE, NEEDS, Evidence, Gate

REPEATS = 15  # the least that a verdict is given on
# What two frozen arms may be apart: a share of the least effect, or of the effect itself.
TOLERANCE, SPREAD = 1 / 2, 1 / 3
WIDER = "take a wider network"  # remedy of several


def gates_of(
    claim: Claim, found: Evidence, effects: Mapping[str, Estimate], frozen: Sequence[str], kind: str
) -> list[Gate]:
    """Movement is asked for by "needs features" only: a frozen arm that shows the effect is the
    proof that it can be shown, whatever moves elsewhere.
    """
    lazy = lazy_enough(found)
    turned = float(np.nanmean(found.movement["features"], axis=1).min())
    gates = [
        repeated(found),
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


def repeated(found: Evidence) -> Gate:
    """Fewer repetitions than `REPEATS` say too little about their spread."""
    repeats = len(next(iter(found.effects.values())))
    return Gate(
        "enough repetitions",
        repeats >= REPEATS,
        f"{repeats} repetitions, at least {REPEATS}",
        "raise Budget(repeats)",
    )


def lazy_enough(found: Evidence) -> Gate:
    """Its kernel stays, at the point where it moves most."""
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
