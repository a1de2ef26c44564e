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
from ntkcore.falsifier.claims import COMPUTE, Claim, name_of
from ntkcore.falsifier.evidence import Budget, Tables, points_of
from ntkcore.falsifier.figures import effect_name, floor_name
from ntkcore.falsifier.judging import judge
from ntkcore.falsifier.pages import Block, markdown, page
from ntkcore.falsifier.study import Network, Study
from ntkcore.falsifier.verdict import Verdict
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
            **_numbers(self.tables),
            "versus": self.versus and _numbers(self.versus),
            "training": asdict(study.training),
            "network": {
                "spec": str(study.network.spec),
                "module": name_of(study.network.module),
                "width": None if study.network.module else study.network.width,
                "versus": self.versus and _name(self.versus.study.network),
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
        """Time that all cells took, summed over processes, settings and sweeps included."""
        contents = [content for tables in self._both for content in tables.contents()]
        return float(round(sum(content["seconds"] for content in contents), 1))

    @property
    def _both(self) -> list[Tables]:
        """Of the network, and of the one it is compared with."""
        return [self.tables] if self.versus is None else [self.tables, self.versus]

    # --- inside

    def _pictures(self) -> dict[str, bytes]:
        from matplotlib.figure import Figure

        found = {}
        for number, claim in enumerate(self.study.claims):
            figure = Figure(figsize=(13, 4), layout="constrained")
            figures.of_claim(self._both, claim, self.verdicts[number], figure)
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
        yield "text", f"Network: {_name(study.network)}{_width(study)}."
        if self.versus is not None:
            other = _name(self.versus.study.network)
            yield "text", f"Effects are differences to those of the other network, {other}."
        yield "text", f"Training: {study.training}."
        yield "text", tuning(study)
        yield "text", "Chosen on the validation set of the first split:"
        chosen = [
            (
                ARMS[arm].label + of,
                at,
                ", ".join(
                    f"{key} {_line(found[key])}"
                    for key in ("config", "alpha", "net")
                    if key in found
                ),
            )
            for of, numbers in (("", record), (" of the other", record["versus"] or {}))
            for arm, settings in numbers.get("settings", {}).items()
            for at, found in settings.items()
            if found is not None
        ]
        yield "table", [("arm", "at", "setting"), *chosen]
        yield "text", "Data, SHA-256:"
        yield "table", [("split", "hash"), *record["data"].items()]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        yield "text", f"{versions}; {record['seconds']:.0f} s."

    def _effects(self, claim: Claim, verdict: Verdict) -> list[tuple[str, ...]]:
        """Rows: arm, effect, paired difference, and the mean metric at every point, of both
        networks where there are two; the floor.
        """
        name, of = claim.metric_name, "" if self.versus is None else ": network / other"
        rows: list[tuple[str, ...]] = [
            (
                "arm",
                f"effect: {effect_name(claim)}",
                "network - arm",
                *(f"{name}, {label(point)}{of}" for point in claim.points),
            )
        ]
        for arm, effect in verdict.effects.items():
            rows.append(
                (
                    ARMS[arm].label,
                    str(effect),
                    str(verdict.differences.get(arm, "")),
                    *self._means(arm, claim, "metrics", name),
                )
            )
        if verdict.after is not None:
            metric = self._means("features", claim, "after", "metrics", name)
            rows.append(("network's kernel then, fresh samples", str(verdict.after), "", *metric))
        if (floor := figures.floor_of(self._both, claim)) is None:
            return rows
        chance = self._means("features", claim, "chance", claim.chance_name)
        return [*rows, (floor_name(claim), f"{floor:.3g}", "", *chance)]

    def _means(self, arm: str, claim: Claim, *path: str) -> list[str]:
        """Of a number of the cells at every point, "network / other" where there are two."""
        means = [tables.values(arm, claim.points, *path).mean(axis=1) for tables in self._both]
        return [" / ".join(f"{each:.3g}" for each in found) for found in zip(*means, strict=True)]


def _numbers(tables: Tables) -> dict[str, Any]:
    """Metrics and settings of a network as JSON's types."""
    study = tables.study

    def metrics(arm: str, name: str) -> dict[str, list[float | None]]:
        points = points_of(study, arm)
        found = tables.values(arm, points, "metrics", name)
        return {label(p): _plain(row.tolist()) for p, row in zip(points, found, strict=True)}

    return {
        "metrics": {
            name: {arm: metrics(arm, name) for arm in arms_of(study)}
            for name in dict.fromkeys(claim.metric_name for claim in study.claims)
        },
        "settings": {
            arm: {label(point): tables.setting(arm, point) for point in study.points()}
            for arm in arms_of(study)
            if ARMS[arm].settle is not None
        },
    }


def _name(network: Network) -> str:
    """A spec in one line, or what makes the modules."""
    return _line(network.spec or name_of(network.module))


def _line(value: object) -> str:
    return ", ".join(map(str.strip, str(value).splitlines()))


def _width(study: Study) -> str:
    """Of finite networks, where they are made from a spec and no axis says another."""
    axes = {claim.axis for claim in study.claims}
    if study.network.module is not None or axes <= {"width", COMPUTE}:
        return ""
    return f"; width {study.network.width}"


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
