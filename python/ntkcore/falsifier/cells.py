"""What is finished, kept on disk: one JSON file a cell, whole or not there;
a rerun goes on with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntkcore.falsifier.claims import Point
from ntkcore.falsifier.study import Content, Place
from ntkcore.store import files


def label(point: Point) -> str:
    """A point as file names and reports write it: "n=1500", "width=64",
    "all" where there is no axis; no two alike.
    """
    if not point:
        return "all"
    short = f"{point[1]:g}"
    return f"{point[0]}={short if float(short) == point[1] else repr(float(point[1]))}"


@dataclass(frozen=True)
class Key:
    """A cell: arm and place, with ``n`` where the training set's size is swept;
    "setting" cells have neither.
    """

    arm: str
    place: Place
    n: int | None = None
    setting: bool = False

    @property
    def file(self) -> str:
        """Its name on disk."""
        parts = [self.arm, label(self.place.point)]
        if self.n is not None:
            parts.append(f"sweep-n={self.n}")
        parts.append(
            "setting" if self.setting else f"split={self.place.split},seed={self.place.seed}"
        )
        return "/".join(parts) + ".json"


class Cells:
    """Finished cells of one study, in ``folder`` or in memory.

    ValueError if the folder holds another study's; OSError, naming what to do,
    if a cell cannot be written.
    """

    def __init__(self, folder: str | Path | None, fingerprint: str) -> None:
        self.found: dict[str, Content] = {}
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        files.make_folder(self.folder)
        mark = self.folder / "study.json"
        if not mark.exists():
            write(mark, {"fingerprint": fingerprint})
        elif _read(mark).get("fingerprint") != fingerprint:
            raise ValueError(
                f"{self.folder} holds another study (other data, network, claim or training):"
                " choose another folder, or remove this one"
            )

    def get(self, key: Key) -> Content | None:
        """A cell's content if it is finished."""
        if key.file not in self.found and self.folder is not None:
            path = self.folder / "cells" / key.file
            if path.exists():
                self.found[key.file] = _read(path)
        return self.found.get(key.file)

    def put(self, key: Key, content: Mapping[str, Any]) -> None:
        """Keep a cell."""
        self.found[key.file] = dict(content)
        if self.folder is not None:
            write(self.folder / "cells" / key.file, content)


def _read(path: Path) -> Content:
    """A JSON object from a file; ValueError, naming what to do, if it is damaged."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}):"
            " remove it (a cell is computed again), or choose another folder"
        ) from None
    return found


def write(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, all or nothing."""
    files.make_folder(path.parent)
    files.write(path, json.dumps(content, indent=1))
