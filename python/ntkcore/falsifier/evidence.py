"""From finished cells to tables: what every arm measured, at every point,
in every repetition.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ntkcore.falsifier.arms import ARMS, FROZEN, arms_for, arms_of
from ntkcore.falsifier.cells import Cells, Key
from ntkcore.falsifier.claims import OF_PATHS, Claim, Point
from ntkcore.falsifier.study import Content, Place, Study
from ntkcore.falsifier.tasks import Array
from ntkcore.falsifier.verdict import Evidence


@dataclass(frozen=True)
class Budget:
    """How often everything is repeated, and how long it may take.

    ``repeats``: cells of every arm at every point, the i-th with initialisation i and split i, both
    fresh, so that they are independent (a verdict needs at least 15); ``sweep``: the infinite NTK
    is also measured at so many times n, on the first 3 splits; ``seconds``: no cell is begun after
    that, and a rerun goes on.
    """

    repeats: int = 15
    sweep: tuple[float, ...] = (0.25, 0.5, 1, 2)
    seconds: float | None = None

    @property
    def swept(self) -> int:
        """Splits on which the sweep over n is measured."""
        return min(3, self.repeats)


def points_of(study: Study, arm: str) -> list[Point]:
    """Where an arm is measured: the infinite ones have no width,
    along it they are measured once.
    """
    points = study.points()
    if not ARMS[arm].seeded and any(_is_width(point) for point in points):
        points = [point for point in points if not _is_width(point)] + [
            p for p in points if _is_width(p)
        ][-1:]
    return points


def _is_width(point: Point) -> bool:
    return len(point) == 2 and point[0] == "width"


def places(study: Study, arm: str, budget: Budget) -> Iterator[Place]:
    """The cells of an arm."""
    for point in points_of(study, arm):
        for i in range(budget.repeats):
            yield cell_of(arm, point, i)


def rounds(study: Study, budget: Budget, sizes: Sequence[int]) -> tuple[list[Key], list[Key]]:
    """All cells: what needs nothing else, settings first, for they take longest; what needs
    settings, with the sweep of the infinite NTK over ``sizes``.
    """
    tuned = [arm for arm in arms_of(study) if ARMS[arm].settle is not None]
    others = [arm for arm in arms_of(study) if arm not in tuned]
    settings = [
        Key(arm, Place(point, 0, 0), setting=True) for arm in tuned for point in study.points()
    ]
    first, second = (
        [Key(arm, place) for arm in arms for place in places(study, arm, budget)]
        for arms in (others, tuned)
    )
    swept = itertools.product(sizes, range(budget.swept)) if "ntk" in tuned else ()
    last = study.points()[-1]
    return settings + first, second + [Key("ntk", Place(last, 0, i), n) for n, i in swept]


def cell_of(arm: str, point: Point, i: int) -> Place:
    """The i-th cell of an arm at a point: initialisation i on split i."""
    return Place(point, i if ARMS[arm].seeded else 0, i)


@dataclass(frozen=True)
class Tables:
    """Numbers of the cells of a study, as tables (points, repeats)."""

    study: Study
    budget: Budget
    cells: Cells

    def cell(self, arm: str, place: Place) -> Content | None:
        """What one cell holds, if it is finished."""
        return self.cells.get(Key(arm, place))

    def values(self, arm: str, points: list[Point], *path: str) -> Array:
        """An entry of the cells, e.g. "metrics", "nmse"; NaN where there is none."""
        table = np.full((len(points), self.budget.repeats), np.nan)
        for at in np.ndindex(table.shape):
            found: object = self.cell(arm, cell_of(arm, points[at[0]], at[1]))
            for name in path:
                found = found.get(name) if isinstance(found, dict) else None
            if isinstance(found, (int, float)):
                table[at] = found
        return table

    def effects(self, arm: str, claim: Claim, *inside: str) -> Array:
        """The claim's effect, (repeats,); ``inside``: an entry of the cells that holds metrics."""
        metric, chance = (
            self.values(arm, claim.points, *inside, *path)
            for path in (("metrics", claim.metric_name), ("chance", claim.chance_name))
        )
        least = [claim.least(self.study.split(point, 0)) for point in claim.points]
        metric = np.maximum(metric, np.array(least)[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            return claim.effect(np.moveaxis(metric, 0, -1), np.moveaxis(chance, 0, -1))

    def floor(self, claim: Claim) -> float | None:
        """The effect that the best constant shows; None where the metric is no prediction's."""
        if claim.metric in OF_PATHS:
            return None
        chance = self.values("features", claim.points, "chance", claim.chance_name).mean(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = float(claim.effect(chance, chance))
        return found if np.isfinite(found) else None

    def sweep(self, claim: Claim) -> dict[int, Array]:
        """The infinite NTK's metric (splits,) by n, at the claim's last point; empty where that is
        not the study's, at which n is swept.
        """
        found: dict[int, Array] = {}
        point = self.study.points()[-1]
        if claim.points[-1] != point:
            return found
        for n in self.study.sizes(self.budget.sweep):
            contents = [
                self.cells.get(Key("ntk", Place(point, 0, i), n)) for i in range(self.budget.swept)
            ]
            if all(content is not None and "metrics" in content for content in contents):
                found[n] = np.array(
                    [content["metrics"][claim.metric_name] for content in contents if content]
                )
        return found

    def setting(self, arm: str, point: Point) -> Content | None:
        """What was tuned once for an arm at a point."""
        return self.cells.get(Key(arm, Place(point, 0, 0), setting=True))

    def contents(self) -> Iterator[Content]:
        """All finished cells."""
        sizes = self.study.sizes(self.budget.sweep)
        keys = itertools.chain(*rounds(self.study, self.budget, sizes))
        return (content for key in keys if (content := self.cells.get(key)) is not None)

    def evidence(self, claim: Claim) -> Evidence:
        """All that the verdict on a claim needs."""
        arms = arms_for(self.study, claim)
        effects = {arm: self.effects(arm, claim) for arm in arms}
        missing = {
            arm: reason for arm in arms if (reason := self._missing(arm, claim, effects[arm]))
        }
        return Evidence(
            {arm: table for arm, table in effects.items() if arm not in missing},
            missing,
            {
                "lazy": self.values("lazy", claim.points, "movement"),
                "features": self.values("features", claim.points, "turned"),
            },
            self.study.samples(claim.points[-1]),
            self._limit(claim),
            self.study.shared(self.budget.repeats),
            self.effects("features", claim, "after") if self.study.training.after_kernel else None,
        )

    def _limit(self, claim: Claim) -> tuple[float, float] | None:
        if claim.axis != "width":
            return None
        last, name = claim.points[-1:], claim.metric_name
        infinite = [
            self.values(arm, last, "metrics", name).mean()
            for arm in FROZEN
            if arm in arms_of(self.study)
        ]
        linearised = self.values("linearised", last, "metrics", name).mean()
        return (float(linearised), float(infinite[0])) if infinite else None

    def _missing(self, arm: str, claim: Claim, effects: Array) -> str:
        """Why an arm has no complete table; empty if it has."""
        if np.isfinite(effects).all():
            return ""
        contents = [
            self.cell(arm, cell_of(arm, point, i))
            for point in claim.points
            for i in range(self.budget.repeats)
        ]
        contents += [
            self.setting(arm, point) for point in claim.points if ARMS[arm].settle is not None
        ]
        if diverged := [
            content["diverged"] for content in contents if content and "diverged" in content
        ]:
            return f"diverged in {len(diverged)} cells: {diverged[0]}"
        if absent := sum(content is None for content in contents):
            return (
                f"{absent} of {len(contents)} cells are not there: the budget ran out;"
                " the same call goes on"
            )
        return (
            f"{claim.metric_name} or its effect is not a number in"
            f" {int((~np.isfinite(effects)).sum())} cells"
        )
