"""Pictures of a comparison: metric over the axis, movement of the kernel, alpha,
samples, cumulative power.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ntkcore.falsifier.arms import ARMS, arms_of
from ntkcore.falsifier.claims import Claim, Point, name_of
from ntkcore.falsifier.evidence import Tables, points_of
from ntkcore.falsifier.network_arms import LAZY, TURNED
from ntkcore.falsifier.statistics import estimate
from ntkcore.falsifier.study import Place
from ntkcore.falsifier.verdict import Verdict
from ntkcore.plots.axes import own_axes

COLOURS = {arm: f"C{number}" for number, arm in enumerate(ARMS)}


def effect_name(claim: Claim) -> str:
    """Of the quantity that is judged, the same in text, tables and figures."""
    return f"{name_of(claim.predicate)} of {claim.metric_name}"


def floor_name(claim: Claim) -> str:
    """Of what effects are measured from."""
    return "best constant" if claim.floor is None else name_of(claim.floor)


def floor_of(both: Sequence[Tables], claim: Claim) -> float | None:
    """The trivial floor's effect; of two networks the difference."""
    floors = [found for tables in both if (found := tables.floor(claim)) is not None]
    if len(floors) < len(both):
        return None
    return floors[0] if len(floors) == 1 else floors[0] - floors[1]


def effects(both: Sequence[Tables], claim: Claim, verdict: Verdict, *, ax: Any = None) -> Any:
    """Every arm's effect with its 95 % interval, the least that counts, and the trivial floor."""
    ax = own_axes(ax)
    for number, (arm, found) in enumerate(verdict.effects.items()):
        bars = [[found.mean - found.low], [found.high - found.mean]]
        shown = bars if np.isfinite(bars).all() else None
        ax.errorbar([number], [found.mean], shown, fmt="o", capsize=3, color=COLOURS[arm])
    ax.axhline(claim.minimum, color="0.5", ls="--", label="least effect that counts")
    if (floor := floor_of(both, claim)) is not None:
        ax.axhline(floor, color="0.5", ls=":", label=floor_name(claim))
    labels = [ARMS[arm].label for arm in verdict.effects]
    ax.set_xticks(range(len(labels)), labels, rotation=25, ha="right")
    ax.set(ylabel=f"effect: {effect_name(claim)}", title=claim.name)
    ax.legend(frameon=False, fontsize=8)
    return ax


def metric(tables: Tables, claim: Claim, *, ax: Any = None) -> Any:
    """The claim's metric over its axis, for every arm with its 95 % interval,
    and what the trivial floor scores.
    """
    ax = own_axes(ax)
    for arm in arms_of(tables.study):
        means, low, high = _intervals(tables, arm, claim)
        bars = np.array([means - low, high - means])
        errors = bars if np.isfinite(bars).all() else None
        style = {"color": COLOURS[arm], "label": ARMS[arm].label, "capsize": 3}
        if len(means) == 1 < len(claim.values):
            ax.axhline(
                means[0], color=COLOURS[arm], ls=":", label=f"{ARMS[arm].label} (no {claim.axis})"
            )
        else:
            ax.errorbar(claim.values, means, errors, fmt="o-", **style)
    if tables.floor(claim) is not None:
        chance = tables.values("features", claim.points, "chance", claim.chance_name).mean(axis=1)
        ax.plot(claim.values, chance, color="0.5", ls=":", label=floor_name(claim))
    ax.legend(frameon=False, fontsize=8)
    ax.set(xlabel=claim.axis, **_scales(tables, claim))
    _ticks(ax, claim.values)
    ax.set_ylabel(claim.metric_name)
    return ax


def _ticks(ax: Any, values: Iterable[float]) -> None:
    """At these values of x, and nowhere else."""
    ax.set_xticks(list(values), [f"{value:g}" for value in values])
    ax.xaxis.set_ticks([], minor=True)


def _scales(tables: Tables, claim: Claim) -> dict[str, str]:
    """Logarithmic where numbers spread over more than a factor of 8."""
    values = np.concatenate([_intervals(tables, arm, claim)[0] for arm in arms_of(tables.study)])
    wide = {"xscale": np.array(claim.values), "yscale": values[np.isfinite(values)]}
    return {
        key: "log" for key, v in wide.items() if len(v) and v.min() > 0 and v.max() > 8 * v.min()
    }


def _intervals(tables: Tables, arm: str, claim: Claim) -> tuple[Any, Any, Any]:
    points: list[Point] = [point for point in claim.points if point in points_of(tables.study, arm)]
    table = tables.values(arm, points, "metrics", claim.metric_name)
    shared = tables.study.shared(tables.budget.repeats)
    found = [estimate(each, shared) for each in table]
    return tuple(
        np.array([getattr(each, name) for each in found]) for name in ("mean", "low", "high")
    )  # type: ignore[return-value]


def movement(tables: Tables, *, ax: Any = None) -> Any:
    """How far the lazy network's kernel and the network's features moved, a dot a cell, and the
    gates.
    """
    ax = own_axes(ax)
    points, shown = tables.study.points(), False
    for shift, arm, path, gate, of in (
        (-0.15, "lazy", "movement", LAZY, "|K_t - K_0| / |K_0|"),
        (0.15, "features", "turned", TURNED, "1 - CKA of the last hidden layer"),
    ):
        table = tables.values(arm, points, path)
        at = np.repeat(np.arange(len(points)) + shift, table.shape[1])
        ax.plot(at, table.ravel(), ".", color=COLOURS[arm], label=f"{ARMS[arm].label}: {of}")
        ax.axhline(gate, color=COLOURS[arm], ls=":")
        shown = shown or bool((table > 0).any())
    ax.set_xticks(range(len(points)), [f"{point[1]:g}" if point else "" for point in points])
    ax.set(
        yscale="log" if shown else "linear",
        ylabel="movement",
        xlabel=points[-1][0] if points[-1] else "",
    )
    ax.set_xlim(-0.6, len(points) - 0.4)
    ax.set_title("what training moved")
    ax.legend(frameon=False, fontsize=8)
    return ax


def alpha_sweep(tables: Tables, claim: Claim, *, ax: Any = None) -> Any:
    """Metric and movement over the output scale alpha at which the network was tried,
    at the claim's last point.
    """
    ax = own_axes(ax)
    setting = tables.setting("lazy", claim.points[-1]) or {}
    sweep = [entry for entry in setting.get("sweep", []) if "movement" in entry]
    alphas = [entry["alpha"] for entry in sweep]
    ax.plot(
        alphas,
        [entry["metrics"][claim.metric_name] for entry in sweep],
        "o-",
        label=claim.metric_name,
    )
    ax.plot(
        alphas, [entry["movement"] for entry in sweep], "s--", color="0.5", label="kernel movement"
    )
    ax.axhline(LAZY, color="0.5", ls=":")
    ax.set(xlabel="output scale alpha", title="from learned to frozen features")
    if sweep:
        ax.set(xscale="log", yscale="log")
        _ticks(ax, alphas)
    ax.legend(frameon=False, fontsize=8)
    return ax


def sweep(tables: Tables, claim: Claim, *, ax: Any = None) -> Any:
    """The infinite NTK's metric over n, and the network's at its n."""
    ax = own_axes(ax)
    found = tables.sweep(claim)
    if found:
        ax.plot(
            list(found),
            [table.mean() for table in found.values()],
            "o-",
            color=COLOURS["ntk"],
            label=ARMS["ntk"].label,
        )
        network = tables.values("features", claim.points[-1:], "metrics", claim.metric_name).mean()
        ax.plot(
            [tables.study.samples()],
            [network],
            "*",
            ms=12,
            color=COLOURS["features"],
            label=ARMS["features"].label,
        )
        ax.set(xscale="log", ylim=(min(0.0, ax.get_ylim()[0]), None))
        _ticks(ax, found)
        ax.legend(frameon=False, fontsize=8)
    ax.set(
        xlabel="training samples n", ylabel=claim.metric_name, title="more samples for the kernel"
    )
    return ax


def power(tables: Tables, *, ax: Any = None) -> Any:
    """Share of the targets in the first modes of the frozen kernels, at the last point,
    first split.
    """
    ax = own_axes(ax)
    for arm in (arm for arm in arms_of(tables.study) if ARMS[arm].settle is None):
        found = tables.cell(arm, Place(points_of(tables.study, arm)[-1], 0, 0)) or {}
        if "power" in found:
            ax.plot(
                found["power"]["ranks"],
                found["power"]["share"],
                color=COLOURS[arm],
                label=ARMS[arm].label,
            )
    ax.set(ylim=(0, 1.02), xlabel="modes", ylabel="share of the targets", title="cumulative power")
    if ax.lines:
        ax.set_xscale("log")
        ax.legend(frameon=False, fontsize=8)
    return ax


def calibration(rows: Sequence[tuple[Claim, Verdict]], figure: Any) -> None:
    """Every claim's effect in the network and in the frozen arms,
    in units of the least that counts.
    """
    ax = figure.add_subplot()
    for number, arm in enumerate(("features", "linearised", "ntk", "nngp")):
        found = [
            (at, v.effects[arm], c.minimum) for at, (c, v) in enumerate(rows) if arm in v.effects
        ]
        if not found:
            continue
        at = np.array([row for row, _, _ in found]) + 0.15 - 0.1 * number
        mean, low, high = np.array(
            [[e.mean / least, e.low / least, e.high / least] for _, e, least in found]
        ).T
        ax.errorbar(
            mean,
            at,
            xerr=[mean - low, high - mean],
            fmt="o",
            ms=5,
            color=COLOURS[arm],
            label=ARMS[arm].label,
        )
    ax.axvline(1, color="0.5", ls=":")
    ax.set_yticks(
        range(len(rows)), [f"{claim.name}\n{verdict.kind}" for claim, verdict in rows], fontsize=8
    )
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, 0.5, 1, 2, 5, 10], ["0", "0.5", "1", "2", "5", "10"])
    ax.set(xlabel="effect / least effect that counts", ylim=(len(rows) - 0.5, -0.5))
    if ax.containers:
        ax.legend(frameon=False, fontsize=8)


def of_claim(both: Sequence[Tables], claim: Claim, verdict: Verdict, figure: Any) -> None:
    """Effects; the metric over the axis, where there is one, of both networks where there are two;
    of the first: alpha; n where it was swept.
    """
    tables = both[0]
    swept = bool(tables.sweep(claim))
    curves = both if claim.axis is not None else ()
    axes = iter(figure.subplots(1, 2 + len(curves) + swept))
    effects(both, claim, verdict, ax=next(axes))
    for each, title in zip(curves, ("what the effect is of", "the other network"), strict=False):
        metric(each, claim, ax=next(axes)).set_title(title)
    alpha_sweep(tables, claim, ax=next(axes))
    if swept:
        sweep(tables, claim, ax=next(axes))


def of_kernels(tables: Tables, figure: Any) -> None:
    """Movement and cumulative power."""
    axes = figure.subplots(1, 2)
    movement(tables, ax=axes[0])
    power(tables, ax=axes[1])
