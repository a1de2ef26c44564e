"""Results on disk: the place is looked at before any work, and a file is whole or as it was."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PART = ".ntkcore-part"


def check_place(path: str | Path, suffix: str | None = None) -> Path:
    """The path that a result is written to, with the suffix if it lacks it; OSError where it cannot be."""
    place = Path(path)
    if suffix is not None and place.suffix != suffix:
        place = place.with_name(place.name + suffix)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder: name a file for the result")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"no folder {place.parent} for {place.name}: make it first, or choose another path")
    if not os.access(place.parent, os.W_OK) or (place.exists() and not os.access(place, os.W_OK)):
        raise PermissionError(f"{place} may not be written: choose another path")
    return place


def refuse_foreign(page: Path, mark: str) -> None:
    """FileExistsError for a page that does not begin as ours do: it would be overwritten."""
    if page.exists() and mark not in page.read_text(errors="replace")[:200]:
        raise FileExistsError(f"{page} was not written by ntkcore and is not overwritten: choose another folder")


@contextmanager
def writing(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that takes its name when the block ends well. A kill leaves a part, which the next call sweeps."""
    place = Path(path)
    mine = f".{place.name}.{platform.node()}."
    for left in place.parent.glob(f"{glob.escape(mine)}*{PART}"):
        if not _alive(left.name[len(mine) : -len(PART)]):
            left.unlink(missing_ok=True)
    part = place.with_name(f"{mine}{os.getpid()}{PART}")
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: str | Path, content: str | bytes) -> None:
    """The content as a whole file."""
    with writing(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


def _alive(pid: str) -> bool:
    """Is there such a process of this machine."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True
