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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def error(y: Array, f: Array) -> float:
    """Share of wrong classes: by sign for one output, by the largest for several."""
    if y.shape[1] == 1:
        return float(np.mean((f > 0) != (y > 0)))
    return float(np.mean(f.argmax(axis=1) != y.argmax(axis=1)))


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

METRICS: dict[str, Metric] = {
    "nmse": lambda outcome: nmse(outcome.test, outcome.split.y_test),
    "error": lambda outcome: error(outcome.split.y_test, outcome.test),
    "train_nmse": lambda outcome: nmse(outcome.train, outcome.split.y),
    "train_error": lambda outcome: error(outcome.split.y, outcome.train),
    "half_time": half_time,
}
OF_CLASSES = ("error", "train_error")
OF_PATHS = ("half_time",)

LEAST = 1e-6  # below it a metric counts as this much in logarithms


def _log(metric: Array) -> Array:
    return np.asarray(np.log(np.maximum(metric, LEAST)))


def _below(values: Array, metric: Array, chance: Array) -> Array:
    """How much of the way from chance to 0, at the last value: 1 - metric/chance."""
    return np.asarray(1 - metric[..., -1] / chance[..., -1])


def _everywhere(values: Array, metric: Array, chance: Array) -> Array:
    """The same at the worst value."""
    return np.asarray((1 - metric / chance).min(axis=-1))


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
    "peak": _peak,
}
POINTS = {"power_law": 2, "increases": 2, "peak": 3}  # how many values they need


@dataclass(frozen=True)
class Claim:
    """A phenomenon: ``predicate`` sees an effect of at least
    ``minimum`` in ``metric`` over ``axis``.

    Parameters
    ----------
    name
        Of the phenomenon, in words.
    metric
        "nmse" (test error over the targets' variance), "error" (share of wrong classes),
        "train_nmse", "train_error", "half_time" (when the training residual has halved), or a
        function of an `Outcome`.
    predicate
        "below": 1 - metric/chance at the last value of the axis, chance being what the best
        constant scores; "everywhere": the same at its worst value; "orders": log10(chance/metric)
        at the last; "power_law": minus the slope of log metric over log value; "increases": the
        least log2 ratio of neighbours; "peak": log10 of the greatest inner metric over the greater
        end; or a function (values, metric, chance) -> effect.
    minimum
        The least effect that counts, > 0.
    axis, values
        A keyword of the task ("n", "noise", …), or "width", or "depth"; its values rising.
        None: the task as it is.

    ValueError for what cannot be measured.
    """

    name: str
    metric: str | Metric = "nmse"
    predicate: str | Predicate = "below"
    minimum: float = 0.5
    axis: str | None = None
    values: tuple[float, ...] = ()

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
        object.__setattr__(self, "values", tuple(self.values))
        if (self.axis is None) != (not self.values):
            raise ValueError(f"claim {self.name!r}: give an axis and its values, or neither")
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError(
                f"claim {self.name!r}: the values of {self.axis} must rise, not {self.values}"
            )
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

    def effect(self, metric: Array, chance: Array) -> Array:
        """The effect in metrics (…, points), given what chance scores there: (…,)."""
        predicate = (
            PREDICATES[self.predicate] if isinstance(self.predicate, str) else self.predicate
        )
        return np.asarray(predicate(np.array(self.values, float), metric, chance), float)


def name_of(thing: Any) -> str:
    """Of a metric, predicate or task: itself, its own name (with what a partial fixes),
    or that of its class.
    """
    if isinstance(thing, functools.partial):
        fixed = [
            *map(repr, thing.args),
            *(f"{key}={value!r}" for key, value in thing.keywords.items()),
        ]
        return f"{name_of(thing.func)}({', '.join(fixed)})"
    return thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)


def measure(metric: str | Metric, outcome: Outcome) -> tuple[float, float]:
    """(metric, what the training set's mean as a constant prediction scores)."""
    function = METRICS[metric] if isinstance(metric, str) else metric
    mean = outcome.split.y.mean(axis=0)
    constant = Outcome(
        outcome.split,
        np.broadcast_to(mean, outcome.train.shape),
        np.broadcast_to(mean, outcome.test.shape),
        outcome.times,
        outcome.residual,
    )
    return float(function(outcome)), float(function(constant))


def scores(claims: Sequence[Claim], outcome: Outcome) -> dict[str, Any]:
    """Metrics of all claims, and what chance scores."""
    pairs = {claim.metric_name: measure(claim.metric, outcome) for claim in claims}
    return {
        "metrics": {name: value for name, (value, _) in pairs.items()},
        "chance": {name: value for name, (_, value) in pairs.items()},
    }
