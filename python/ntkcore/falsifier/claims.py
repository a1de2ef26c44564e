"""What is claimed: a number measured on a trained model,
and the effect that a claim sees in it over an axis.

    Claim("learns the parity", "nmse", minimum=0.5)
    Claim("falls as a power", "error", "power_law", axis="n", values=(100, 400, 1600), minimum=0.2)

A metric is in METRICS or any function Outcome -> float; a predicate is in PREDICATES or any
function (values, metric, chance) -> effect, of arrays (points,), (…, points), (…, points) -> (…,).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ntkcore.falsifier.identity import identity
from ntkcore.falsifier.tasks import Array, Split
from ntkcore.finite import nmse

Point = tuple[()] | tuple[str, float]  # a place on an axis; () where a claim has none


@dataclass(frozen=True, eq=False)
class Outcome:
    """A trained model on one split: its predictions, and the path of its training.

    ``train`` (n, outputs), ``test`` (m, outputs). ``times`` (t,), ``residual`` (t,): ||f -
    y||^2/||y||^2 on the training set over training time; for networks that is the learning rate
    times steps.
    """

    split: Split
    train: Array
    test: Array
    times: Array
    residual: Array


def error(split: Split, y: Array, f: Array) -> float:
    """Share of wrong classes, of all tokens: of one output by the side of the two classes' middle,
    of several by the largest.
    """
    y, f = split.tokens(y), split.tokens(f)
    if y.shape[1] == 1:
        middle = (split.y.min() + split.y.max()) / 2
        return float(np.mean((f > middle) != (y > middle)))
    return float(np.mean(f.argmax(axis=1) != y.argmax(axis=1)))


def cross_entropy(split: Split, y: Array, f: Array) -> float:
    """Mean of -log p(class), of all tokens. The squared loss fits probabilities: p is where an
    output lies between its two values, at least RARE, and sums to 1.
    """
    low = split.tokens(split.y).min(axis=0)
    scale = (split.tokens(split.y) - low).max()
    q, p = (np.clip((split.tokens(part) - low) / scale, 0, 1) for part in (y, f))
    if q.shape[1] == 1:
        q, p = np.hstack([1 - q, q]), np.hstack([1 - p, p])
    p = np.maximum(p, RARE)
    return float(-np.log(p / p.sum(axis=1, keepdims=True))[np.arange(len(q)), q.argmax(1)].mean())


def half_time(outcome: Outcome) -> float:
    """When the training residual has fallen to half of its norm, a quarter of its square;
    NaN if it never does.
    """
    relative = outcome.residual / outcome.residual[0]
    below = np.flatnonzero(relative <= 0.25)
    if not len(below):
        return math.nan
    i = int(below[0])
    a, b = np.log(relative[i - 1]), np.log(relative[i])
    share = (math.log(0.25) - a) / (b - a)
    return float(outcome.times[i - 1] + share * (outcome.times[i] - outcome.times[i - 1]))


Metric = Callable[[Outcome], float]
Floor = Callable[[Split], float]

METRICS: dict[str, Metric] = {
    "nmse": lambda outcome: nmse(outcome.test, outcome.split.y_test),
    "error": lambda outcome: error(outcome.split, outcome.split.y_test, outcome.test),
    "cross_entropy": lambda outcome: cross_entropy(
        outcome.split, outcome.split.y_test, outcome.test
    ),
    "train_nmse": lambda outcome: nmse(outcome.train, outcome.split.y),
    "train_error": lambda outcome: error(outcome.split, outcome.split.y, outcome.train),
    "half_time": half_time,
}
OF_CLASSES = ("error", "cross_entropy", "train_error")
OF_PATHS = ("half_time",)
COMPUTE = "compute"  # an axis of every network

LEAST = 1e-6  # below it a metric counts as this much in logarithms
OF_LOGARITHMS = ("orders", "power_law", "increases", "decreases", "peak")
WORST = -1.0  # an arm more than twice as wrong as chance counts as twice: no split owns the mean
RARE = 1e-3  # the least probability that an output is read as


def _log(metric: Array) -> Array:
    return np.asarray(np.log(np.maximum(metric, LEAST)))


def _below(values: Array, metric: Array, chance: Array) -> Array:
    """How much of the way from chance to 0, at the last value: 1 - metric/chance."""
    return np.asarray(np.maximum(1 - metric[..., -1] / chance[..., -1], WORST))


def _everywhere(values: Array, metric: Array, chance: Array) -> Array:
    """The same at the worst value."""
    return np.asarray(np.maximum(1 - metric / chance, WORST).min(axis=-1))


def _orders(values: Array, metric: Array, chance: Array) -> Array:
    """log10(chance/metric) at the last value."""
    return np.asarray((_log(chance) - _log(metric))[..., -1] / math.log(10))


def _power_law(values: Array, metric: Array, chance: Array) -> Array:
    """Minus the slope of log metric over log value."""
    x = np.log(values) - np.log(values).mean()
    return np.asarray(-(_log(metric) @ x) / (x @ x))


def _increases(values: Array, metric: Array, chance: Array) -> Array:
    """The least log2 ratio of neighbours: positive if the metric rises all the way."""
    return np.asarray((np.diff(_log(metric), axis=-1) / math.log(2)).min(axis=-1))


def _decreases(values: Array, metric: Array, chance: Array) -> Array:
    """The least log2 ratio of neighbours, the left over the right: positive if it falls all the
    way.
    """
    return np.asarray((-np.diff(_log(metric), axis=-1) / math.log(2)).min(axis=-1))


def _peak(values: Array, metric: Array, chance: Array) -> Array:
    """log10 of the greatest metric between the ends over the greater of both ends."""
    inner = _log(metric[..., 1:-1]).max(axis=-1)
    return np.asarray((inner - _log(metric[..., [0, -1]]).max(axis=-1)) / math.log(10))


Predicate = Callable[[Array, Array, Array], Array]

PREDICATES: dict[str, Predicate] = {
    "below": _below,
    "everywhere": _everywhere,
    "orders": _orders,
    "power_law": _power_law,
    "increases": _increases,
    "decreases": _decreases,
    "peak": _peak,
}
POINTS = {"power_law": 2, "increases": 2, "decreases": 2, "peak": 3}  # how many values they need


@dataclass(frozen=True)
class Claim:
    """A phenomenon: ``predicate`` sees an effect of at least
    ``minimum`` in ``metric`` over ``axis``.

    Parameters
    ----------
    name
        Of the phenomenon, in words.
    metric
        "nmse" (test error over the targets' variance), "error" (share of wrong classes, token by
        token), "cross_entropy" (outputs read as probabilities, at least 0.001), "train_nmse",
        "train_error", "half_time" (when the training residual has halved), or a function of an
        `Outcome`.
    predicate
        "below": 1 - metric/chance at the last value of the axis, at least -1, chance being what the
        training set's mean scores; "everywhere": the same at its worst value; "orders":
        log10(chance/metric) at the last; "power_law": minus the slope of log metric over log value;
        "increases", "decreases": the least log2 ratio of neighbours; "peak": log10 of the greatest
        inner metric over the greater end; or a function (values, metric, chance) -> effect.
    minimum
        The least effect that counts, > 0.
    axis, values
        A keyword of the task ("n", "noise", …), or "width", or "depth"; its values rising.
        "compute": 6 x parameters x batch x steps, the metric being that of the best width of
        `Training.widths` at its best step. None: the task as it is.
    floor
        What counts as chance instead: a function `Split` -> metric, for example the score of the
        best linear fit, or of a rule that everybody knows.
    contrast
        Two arms, such as ("features", "ntk"): the claim is then that the first one's effect is
        larger than the second's, by at least ``minimum``, in the same repetitions. For example of
        two exponents.

    ValueError for what cannot be measured.
    """

    name: str
    metric: str | Metric = "nmse"
    predicate: str | Predicate = "below"
    minimum: float = 0.5
    axis: str | None = None
    values: tuple[float, ...] = ()
    floor: Floor | None = None
    contrast: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("metric", self.metric, METRICS),
            ("predicate", self.predicate, PREDICATES),
        ):
            if not callable(given) and given not in known:
                raise ValueError(
                    f"{kind} must be one of {', '.join(known)}, or a function, not {given!r}"
                )
        if not 0 < self.minimum < math.inf:
            raise ValueError(
                "minimum, the least effect that counts, must be a positive number, not"
                f" {self.minimum!r}"
            )
        object.__setattr__(self, "values", tuple(np.ravel(self.values).astype(float).tolist()))
        object.__setattr__(self, "contrast", tuple(self.contrast))
        if self.contrast and len(set(self.contrast)) != 2:
            raise ValueError(f"contrast must name two arms, not {self.contrast!r}")
        if (self.axis is None) != (not self.values):
            raise ValueError(f"claim {self.name!r}: give an axis and its values, or neither")
        if not (np.isfinite(self.values).all() and (np.diff(self.values) > 0).all()):
            raise ValueError(
                f"claim {self.name!r}: the values of {self.axis} must be finite and rise, not"
                f" {self.values}"
            )
        if self.predicate == "power_law" and min(self.values, default=1) <= 0:
            raise ValueError(f"claim {self.name!r}: a power law needs positive values")
        if not (self.floor is None or callable(self.floor)):
            raise TypeError(f"floor must be a function of a Split, not {self.floor!r:.60}")
        needed = POINTS.get(str(self.predicate), 1)
        if max(len(self.values), 1) < needed:
            raise ValueError(
                f"claim {self.name!r}: {self.predicate!r} needs at least {needed} values of an axis"
            )

    @property
    def points(self) -> list[Point]:
        """The places to measure at."""
        return [(self.axis, value) for value in self.values] if self.axis is not None else [()]

    @property
    def metric_name(self) -> str:
        """Of the metric, as cells and reports write it."""
        return name_of(self.metric)

    @property
    def chance_name(self) -> str:
        """Of what counts as chance, likewise."""
        floor = "" if self.floor is None else f" of {name_of(self.floor)}"
        return self.metric_name + floor

    def least(self, split: Split) -> float:
        """What a metric counts as at least: where logarithms are taken of a share of wrong samples,
        none wrong is half of one, for 0 says no more.
        """
        if self.metric not in ("error", "train_error") or self.predicate not in OF_LOGARITHMS:
            return -math.inf
        return 0.5 / len(split.tokens(split.y_test if self.metric == "error" else split.y))

    def effect(self, metric: Array, chance: Array) -> Array:
        """The effect in metrics (…, points), given what chance scores there: (…,)."""
        predicate = (
            PREDICATES[self.predicate] if isinstance(self.predicate, str) else self.predicate
        )
        return np.asarray(predicate(np.array(self.values, float), metric, chance), float)


def name_of(thing: Any) -> str:
    """Of a metric, predicate or task: itself, its own name (with what a partial fixes),
    or that of its class; the same in every process.
    """
    if isinstance(thing, functools.partial):
        fixed = [
            *map(_shown, thing.args),
            *(f"{key}={_shown(value)}" for key, value in thing.keywords.items()),
        ]
        return f"{name_of(thing.func)}({', '.join(fixed)})"
    return thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)


def _shown(value: Any) -> str:
    """Without the address in memory that functions and plain objects are printed with."""
    return name_of(value) if callable(value) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def measure(metric: str | Metric, outcome: Outcome) -> tuple[float, float]:
    """(metric, what the training set's mean as a constant prediction scores)."""
    function = METRICS[metric] if isinstance(metric, str) else metric
    constant = _constant(outcome.split)
    constant = replace(constant, times=outcome.times, residual=outcome.residual)
    return float(function(outcome)), float(function(constant))


def _constant(split: Split) -> Outcome:
    """The training set's mean as the model."""
    train, test = (np.broadcast_to(split.y.mean(axis=0), y.shape) for y in (split.y, split.y_test))
    return Outcome(split, train, test, np.arange(2.0), np.ones(2))


def scores(claims: Sequence[Claim], outcome: Outcome) -> dict[str, Any]:
    """Metrics of all claims, and what chance scores."""
    pairs = [(claim, *measure(claim.metric, outcome)) for claim in claims]
    return {
        "metrics": {claim.metric_name: value for claim, value, _ in pairs},
        "chance": {
            claim.chance_name: chance if claim.floor is None else float(claim.floor(outcome.split))
            for claim, _, chance in pairs
        },
    }


def check_names(claims: Sequence[Claim]) -> None:
    """ValueError for two metrics, or two floors, of one name: cells tell them apart by that."""
    known: dict[str, Any] = {}
    for name, thing in [
        *((claim.metric_name, claim.metric) for claim in claims),
        *((claim.chance_name, claim.floor) for claim in claims if claim.floor is not None),
    ]:
        if identity(known.setdefault(name, thing)) != identity(thing):
            raise ValueError(f"two functions of the claims are called {name!r}: rename one")


def check_effect(claim: Claim, split: Split) -> None:
    """ValueError for a floor or a predicate that gives no effect: with the best constant as the
    model, as well as with two repetitions of any numbers.
    """
    chance = scores([claim], _constant(split))["chance"][claim.chance_name]
    if claim.floor is not None and not 0 < chance < math.inf:
        raise ValueError(
            f"claim {claim.name!r}: the floor must score a positive number, not {chance!r}: effects"
            " are shares of it"
        )
    shape = 2, len(claim.points)
    found = claim.effect(np.linspace(0.5, 1, math.prod(shape)).reshape(shape), np.ones(shape))
    if found.shape != (2,):
        raise ValueError(
            f"claim {claim.name!r}: the predicate must make one effect of the points, (…, points)"
            f" -> (…,), and makes {found.shape} of {shape}"
        )


def check_classes(claim: Claim, split: Split) -> None:
    """ValueError where a metric needs classes, and the targets are none."""
    if claim.metric not in OF_CLASSES:
        return
    y = np.concatenate([split.tokens(part) for part in (split.y, split.y_val, split.y_test)])
    kinds = np.unique(y, axis=0)
    # One column has two values; of more, every class has its own row, with one largest entry.
    one_largest = (kinds == kinds.max(axis=1, keepdims=True)).sum(axis=1) == 1
    wrong = (
        len(kinds) > 2
        if y.shape[1] == 1
        else not one_largest.all() or len(set(kinds.argmax(axis=1))) < len(kinds)
    )
    if not wrong and y.shape[1] > 1 and claim.metric == "cross_entropy":
        about = kinds - kinds.min(axis=0)  # one-hot, in any unit and about any row
        wrong = not np.allclose(about, (about > 0) * about.max()) or (about > 0).sum() != len(kinds)
    if wrong:
        raise ValueError(
            f"claim {claim.name!r}: {claim.metric!r} needs classes, the targets are numbers: use"
            " 'nmse', or give two values, or one-hot rows (n, classes) or (n, tokens, classes)"
        )
