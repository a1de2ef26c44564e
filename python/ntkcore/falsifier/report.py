"""What a comparison found, for people and for machines: Markdown, JSON, figures,
one HTML page without other files.
"""

from __future__ import annotations

import functools
import io
import math
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ntkcore
from ntkcore.falsifier import figures
from ntkcore.falsifier.arms import ARMS, arms_of, tuning
from ntkcore.falsifier.cells import Cells, label, write
from ntkcore.falsifier.claims import Claim, name_of
from ntkcore.falsifier.evidence import Budget, Tables, places
from ntkcore.falsifier.figures import effect_name, floor_name
from ntkcore.falsifier.pages import Block, markdown, page
from ntkcore.falsifier.study import Study
from ntkcore.falsifier.verdict import Verdict, judge
from ntkcore.store import files

MARK = "Falsifier"  # a report's first word


def refuse_folder(folder: Path, pictures: Iterable[str] = ("kernels",)) -> None:
    """FileExistsError where a report in this folder would overwrite what is somebody else's."""
    names = ["report.json", "report.html", *(f"{name}.png" for name in pictures)]
    files.refuse_foreign(folder / "report.md", MARK, names)


@dataclass(frozen=True)
class Report:
    """What `falsify` gives: ``verdicts``, one for each claim, and the tables behind them.

    ``before``: of every claim the other least effects that this folder was judged under earlier.
    """

    study: Study
    budget: Budget
    cells: Cells
    before: tuple[tuple[float, ...], ...] = ()
    versus: Tables | None = None

    @property
    def tables(self) -> Tables:
        """Metrics, effects and movements as arrays."""
        return Tables(self.study, self.budget, self.cells)

    @functools.cached_property
    def verdicts(self) -> list[Verdict]:
        """One for each claim, at a family-wise error level of 5 %."""
        claims = self.study.claims
        evidence = [self.tables.evidence(claim) for claim in claims]
        if self.versus is not None:
            evidence = [
                each.minus(self.versus.evidence(claim))
                for each, claim in zip(evidence, claims, strict=True)
            ]
        found = judge(claims, evidence)
        return [
            replace(verdict, sentence=f"{verdict.sentence}{_judged_again(verdict.minimum, before)}")
            for verdict, before in zip(found, self.before or [()] * len(found), strict=True)
        ]

    @property
    def kind(self) -> str:
        """That of all claims where they agree, else "mixed"."""
        kinds = {verdict.kind for verdict in self.verdicts}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))

    def write(self, folder: str | Path) -> Path:
        """report.md, report.json, figures (PNG) and report.html into a folder;
        the path of the HTML page.

        ImportError without Matplotlib.
        """
        target = files.make_folder(folder)
        pictures = self._pictures()
        refuse_folder(target, pictures)
        record = self.record()
        blocks = list(self._blocks(record))
        # This file first: it tells whose the others are.
        files.write(target / "report.md", markdown(blocks))
        for name, picture in pictures.items():
            files.write(target / f"{name}.png", picture)
        write(target / "report.json", record)
        whole = target / "report.html"
        files.write(whole, page(blocks, pictures))
        return whole

    def record(self) -> dict[str, Any]:
        """All numbers as JSON's types: verdicts, effects, gates, seeds, settings, versions,
        hashes of the data.
        """
        study = self.study
        return {
            "kind": self.kind,
            "verdicts": [_plain(asdict(verdict)) for verdict in self.verdicts],
            "claims": [
                {
                    "name": claim.name,
                    "metric": claim.metric_name,
                    "predicate": name_of(claim.predicate),
                    "minimum": claim.minimum,
                    "judged_before_with": list(before),
                    "contrast": list(claim.contrast),
                    "axis": claim.axis,
                    "values": list(claim.values),
                }
                for claim, before in zip(
                    study.claims, self.before or [()] * len(study.claims), strict=True
                )
            ],
            "metrics": {
                claim.metric_name: {
                    arm: {
                        label(p): _plain(
                            self.tables.values(arm, [p], "metrics", claim.metric_name)[0].tolist()
                        )
                        for p in claim.points
                    }
                    for arm in arms_of(study)
                }
                for claim in study.claims
            },
            "settings": {
                arm: {label(point): self.tables.setting(arm, point) for point in study.points()}
                for arm in arms_of(study)
                if ARMS[arm].settle is not None
            },
            "training": asdict(study.training),
            "network": {
                "spec": str(study.network.spec),
                "module": name_of(study.network.module),
                "width": study.network.width,
                "versus": self.versus and str(self.versus.study.network.spec),
            },
            "budget": asdict(self.budget),
            "samples": study.samples(),
            "shared_test_samples": study.shared(self.budget.repeats),
            "data": {
                f"{label(point)}, split {i}": study.data_hash(point, i)
                for point in study.points()
                for i in range(self.budget.repeats)
            },
            "seconds": self.seconds(),
            "versions": _versions(),
        }

    def seconds(self) -> float:
        """Time that all cells took, summed over processes."""
        keys = [
            self.tables.cell(arm, place)
            for arm in arms_of(self.study)
            for place in places(self.study, arm, self.budget)
        ]
        keys += [
            self.tables.setting(arm, point)
            for arm in ("lazy", "features")
            for point in self.study.points()
        ]
        return float(round(sum(content["seconds"] for content in keys if content), 1))

    # --- inside

    def _pictures(self) -> dict[str, bytes]:
        from matplotlib.figure import Figure

        found = {}
        for number, claim in enumerate(self.study.claims):
            figure = Figure(figsize=(13, 4), layout="constrained")
            figures.of_claim(self.tables, claim, self.verdicts[number], figure)
            found[f"claim-{number + 1}"] = _png(figure)
        figure = Figure(figsize=(9, 4), layout="constrained")
        figures.of_kernels(self.tables, figure)
        return {**found, "kernels": _png(figure)}

    def _blocks(self, record: dict[str, Any]) -> Iterator[Block]:
        """(kind, content): heading, text, table (rows, the first a head), figure (name)."""
        yield "heading", f"{MARK}: {self.kind}"
        for number, (claim, verdict) in enumerate(
            zip(self.study.claims, self.verdicts, strict=True)
        ):
            yield "heading", f"{claim.name}: {verdict.kind}"
            yield "text", verdict.sentence
            yield "figure", f"claim-{number + 1}"
            yield (
                "text",
                (
                    f"Effect: {effect_name(claim)}, at least {claim.minimum:g}. Means over"
                    f" {self.budget.repeats} repetitions (initialisation"
                    " i on split i) with 95 % intervals by Student's t; the difference network -"
                    " arm is taken within repetitions."
                    f" {_of_shared(record['shared_test_samples'], self.budget.repeats)}"
                ),
            )
            yield "table", self._effects(claim, verdict)
            gates = [
                ("passed" if gate.passed else "FAILED", gate.name, gate.found)
                for gate in verdict.gates
            ]
            yield "table", [("", "gate", "found"), *gates]
            if swept := self.tables.sweep(claim):
                yield "text", f"The infinite NTK over n at the same tuning: {claim.metric_name}"
                yield (
                    "table",
                    [
                        ("n", claim.metric_name),
                        *((str(n), f"{t.mean():.3g}") for n, t in swept.items()),
                    ],
                )
        yield "heading", "Kernels"
        yield "figure", "kernels"
        yield "heading", "How it was run"
        study = self.study
        yield (
            "text",
            f"Task: {name_of(study.task)}, {study.samples()} training samples at the last point.",
        )
        network = ", ".join(
            map(str.strip, str(study.network.spec or name_of(study.network.module)).splitlines())
        )
        yield "text", f"Network: {network}; width {study.network.width}."
        if self.versus is not None:
            other = self.versus.study.network
            yield (
                "text",
                f"Effects are differences to those of {other.spec or name_of(other.module)}.",
            )
        yield "text", f"Training: {study.training}."
        yield "text", tuning(study)
        yield "text", "Chosen on the validation set of the first split:"
        chosen = [
            (
                ARMS[arm].label,
                at,
                str({key: found[key] for key in ("config", "alpha", "net") if key in found}),
            )
            for arm, settings in record["settings"].items()
            for at, found in settings.items()
            if found is not None
        ]
        yield "table", [("arm", "at", "setting"), *chosen]
        yield "text", "Data, SHA-256:"
        yield "table", [("split", "hash"), *record["data"].items()]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        yield "text", f"{versions}; {record['seconds']:.0f} s."

    def _effects(self, claim: Claim, verdict: Verdict) -> list[tuple[str, ...]]:
        """Rows: arm, effect, paired difference, and the mean metric at every point; the floor."""
        name = claim.metric_name
        rows: list[tuple[str, ...]] = [
            (
                "arm",
                f"effect: {effect_name(claim)}",
                "network - arm",
                *(f"{name}, {label(point)}" for point in claim.points),
            )
        ]
        for arm, effect in verdict.effects.items():
            metric = self.tables.values(arm, claim.points, "metrics", name).mean(axis=1)
            rows.append(
                (
                    ARMS[arm].label,
                    str(effect),
                    str(verdict.differences.get(arm, "")),
                    *(f"{each:.3g}" for each in metric),
                )
            )
        if (floor := self.tables.floor(claim)) is None:
            return rows
        chance = self.tables.values("features", claim.points, "chance", claim.chance_name).mean(
            axis=1
        )
        return [*rows, (floor_name(claim), f"{floor:.3g}", "", *(f"{each:.3g}" for each in chance))]


def _judged_again(minimum: float, before: tuple[float, ...]) -> str:
    """A warning where other least effects were tried on the same cells."""
    if not before:
        return ""
    others = ", ".join(f"{each:g}" for each in before)
    return (
        f" JUDGED AGAIN: these cells were judged before with a least effect of {others}, now"
        f" {minimum:g}; one that is chosen after the effects were seen proves nothing."
    )


def _of_shared(share: float, repeats: int) -> str:
    """What repetitions have in common, and what that does to the intervals."""
    if share == 0:
        return "The repetitions share no test sample."
    widened = math.sqrt(1 + repeats * min(share, 0.5) / (1 - min(share, 0.5)))
    whence = "one test set for all" if share > 0.999 else "splits of one pool"
    return (
        f"The repetitions are not independent: they share {share:.0%} of their test samples"
        f" ({whence}), and intervals and tests are {widened:.2g} times as wide for it (Nadeau and"
        " Bengio 2003). They speak of this pool; fresh samples would say more."
    )


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, format="png")
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "ntkcore": ntkcore.__version__,
        "numpy": numpy.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
