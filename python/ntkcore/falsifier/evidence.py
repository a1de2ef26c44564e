"""From finished cells to tables: what every arm measured, at every point,
for every seed and split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ntkcore.falsifier.arms import ARMS, FROZEN, arms_of
from ntkcore.falsifier.cells import Cells, Key
from ntkcore.falsifier.claims import Claim, Point
from ntkcore.falsifier.study import Content, Place, Study
from ntkcore.falsifier.tasks import Array
from ntkcore.falsifier.verdict import Evidence


@dataclass(frozen=True)
class Budget:
    """How often everything is repeated, and how long it may take.

    ``seeds`` initialisations x ``splits`` of the data (a verdict needs at least 5 x 3); ``sweep``:
    the infinite NTK is also measured at so many times n; ``seconds``: no cell is begun after that,
    and a rerun goes on.
    """

    seeds: int = 5
    splits: int = 3
    sweep: tuple[float, ...] = (0.25, 0.5, 1, 2)
    seconds: float | None = None


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
        for split in range(budget.splits):
            for seed in range(budget.seeds if ARMS[arm].seeded else 1):
                yield Place(point, seed, split)


@dataclass(frozen=True)
class Tables:
    """Numbers of the cells of a study, as tables (points, seeds, splits)."""

    study: Study
    budget: Budget
    cells: Cells

    def cell(self, arm: str, place: Place) -> Content | None:
        """One cell; an arm without seeds has one for all of them."""
        return self.cells.get(
            Key(arm, place if ARMS[arm].seeded else Place(place.point, 0, place.split))
        )

    def values(self, arm: str, points: list[Point], *path: str) -> Array:
        """An entry of the cells, e.g. "metrics", "nmse"; NaN where there is none."""
        budget = self.budget
        table = np.full((len(points), budget.seeds, budget.splits), np.nan)
        for at in np.ndindex(table.shape):
            found: object = self.cell(arm, Place(points[at[0]], at[1], at[2]))
            for name in path:
                found = found.get(name) if isinstance(found, dict) else None
            if isinstance(found, (int, float)):
                table[at] = found
        return table

    def effects(self, arm: str, claim: Claim) -> Array:
        """The claim's effect, (seeds, splits)."""
        metric, chance = (
            self.values(arm, claim.points, *path)
            for path in (("metrics", claim.metric_name), ("chance", claim.chance_name))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return claim.effect(np.moveaxis(metric, 0, -1), np.moveaxis(chance, 0, -1))

    def sweep(self, claim: Claim) -> dict[int, Array]:
        """The infinite NTK's metric (splits,) by n, at the claim's last point."""
        found: dict[int, Array] = {}
        point = self.study.points()[-1]
        for n in self.study.sizes(self.budget.sweep):
            contents = [
                self.cells.get(Key("ntk", Place(point, 0, i), n)) for i in range(self.budget.splits)
            ]
            if all(content is not None and "metrics" in content for content in contents):
                found[n] = np.array(
                    [content["metrics"][claim.metric_name] for content in contents if content]
                )
        return found

    def setting(self, arm: str, point: Point) -> Content | None:
        """What was tuned once for an arm at a point."""
        return self.cells.get(Key(arm, Place(point, 0, 0), setting=True))

    def evidence(self, claim: Claim) -> Evidence:
        """All that the verdict on a claim needs."""
        arms = self.arms(claim)
        effects = {arm: self.effects(arm, claim) for arm in arms}
        missing = {
            arm: reason for arm in arms if (reason := self._missing(arm, claim, effects[arm]))
        }
        return Evidence(
            {arm: table for arm, table in effects.items() if arm not in missing},
            missing,
            {arm: self.values(arm, claim.points, "movement") for arm in ("lazy", "features")},
            self.study.samples(),
            self._limit(claim),
        )

    def arms(self, claim: Claim) -> list[str]:
        """Those that can show the claim's effect: over the width the infinite ones cannot."""
        return [arm for arm in arms_of(self.study) if claim.axis != "width" or ARMS[arm].seeded]

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
        places = [
            Place(p, i, j)
            for p in claim.points
            for i in range(self.budget.seeds)
            for j in range(self.budget.splits)
        ]
        contents = [self.cell(arm, place) for place in places]
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
