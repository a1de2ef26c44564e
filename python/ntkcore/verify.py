"""Is a store complete and right? Checksums, NaN, symmetry, markers, a sample computed again; and its repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.backends import resolve
from ntkcore.executors import fill, workers_for
from ntkcore.inputs import thread_count
from ntkcore.store import Task, Tiles, local_folder, open_store


@dataclass(frozen=True)
class Report:
    """Tiles that are not there; bad ones, with the reason; how many were recomputed; partial files that were swept."""

    missing: list[Task]
    bad: dict[Task, str]
    recomputed: int
    swept: int

    @property
    def ok(self) -> bool:
        """Is the store complete and right?"""
        return not self.missing and not self.bad


def verify(
    store: Any,
    *,
    sample: int = 8,
    seed: int = 0,
    repair: bool = False,
    threads: int | None = None,
    backend: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Report:
    """Read every tile (checksums, NaN, symmetry), recompute a random sample bit for bit, sweep partial files.

    Not while a build is running on the store: its partial files would be swept. ``repair`` clears the markers of bad
    and missing tiles and computes them again; the report is of the state before. ``backend``: by default the one that
    built the store (another one differs in last bits).
    """
    tiles = Tiles(open_store(store, storage_options))
    executor = resolve(backend or tiles.attributes["backend"])
    missing = tiles.missing()
    present = [task for task in tiles.all() if task not in set(missing)]
    bad = {task: reason for task in present if (reason := _problem(tiles, task))}
    whole = [task for task in present if task not in bad]
    chosen = np.random.default_rng(seed).permutation(len(whole))[:sample]
    bad |= dict.fromkeys(_differing(tiles, whole, chosen, executor), "differs from what this machine computes")
    report = Report(missing, bad, len(chosen), _sweep(store))
    if repair and not report.ok:
        for i, j in bad:
            tiles.arrays["done"][i, j] = 0
            if tiles.symmetric:
                tiles.arrays["done"][j, i] = 0
        fill(tiles, tiles.missing(), workers_for(None, tiles, executor, thread_count(threads), None), False)
    return report


def _differing(tiles: Tiles, whole: list[Task], chosen: Any, backend: str) -> list[Task]:
    out = []
    for at in chosen:
        blocks, place = tiles.compute(whole[at], backend), tiles.slices(whole[at])
        if not all(np.array_equal(tiles.arrays[name][place], getattr(blocks, name)) for name in tiles.names):
            out.append(whole[at])
    return out


def _problem(tiles: Tiles, task: Task) -> str | None:
    rows, cols = tiles.slices(task)
    for name in tiles.names:
        try:
            block = tiles.arrays[name][rows, cols]
            mirror = tiles.arrays[name][cols, rows] if tiles.symmetric else None
        except Exception as error:  # whatever the codecs say of a damaged chunk
            return f"{name} cannot be read: {error}"
        if not np.isfinite(block).all():
            return f"{name} holds NaN: its chunk is lost"
        if mirror is not None and not np.array_equal(block, mirror.T):
            return f"{name} is not symmetric"
    return None


def _sweep(store: Any) -> int:
    """Files that a killed writer left beside its chunk; deleted where the store is a local folder."""
    if (folder := local_folder(store)) is None:
        return 0
    left = [p for p in folder.rglob("*.partial") if p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
