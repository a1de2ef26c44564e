"""Results on disk: the place is looked at before any work, and a file is whole or as it was."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PART = ".ntkcore-part"


def check_place(
    path: str | Path, suffix: str | None = None, inputs: Iterable[str | Path] = ()
) -> Path:
    """The path that a result is written to, with the suffix if it lacks it;
    OSError where it cannot be.

    ValueError where it is one of the inputs, which would be lost.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{path!r:.60} is no path: name a file for the result")
    place = Path(path)
    if not place.name:
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file for the result")
    if suffix is not None and place.suffix != suffix:
        place = place.with_name(place.name + suffix)
    if any(
        place.exists() and os.path.exists(data) and os.path.samefile(place, data) for data in inputs
    ):
        raise ValueError(
            f"{place} is read by this call and would be overwritten:"
            " choose another path for the result"
        )
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder: name a file for the result")
    if place.exists() and not place.is_file():
        raise OSError(f"{place} is a device or a pipe, no file: choose another path")
    if not place.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"no folder {place.parent} for {place.name}: make it first, or choose another path"
        )
    if not os.access(place.resolve().parent, os.W_OK) or (
        place.exists() and not os.access(place, os.W_OK)
    ):
        raise PermissionError(f"{place} may not be written: choose another path")
    return place


def make_folder(path: str | Path) -> Path:
    """A folder for results, made if it is not there; OSError where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"{folder} is, or lies below, a file: choose another folder for the results"
        ) from None
    return folder


def refuse_foreign(page: Path, mark: str, others: Iterable[str] = ()) -> None:
    """FileExistsError for a page that does not begin as ours do,
    or for files beside it where no page tells whose.
    """
    ours = page.exists() and mark in page.read_text(errors="replace")[:200]
    present = [path for name in (page.name, *others) if (path := page.with_name(name)).exists()]
    if present and not ours:
        raise FileExistsError(
            f"{present[0]} was not written by ntkcore and is not overwritten: choose another folder"
        )


@contextmanager
def writing(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file that takes its name when the block ends well. A kill leaves a part,
    which the next call sweeps.

    A link stays one: what it names is written.
    """
    place = Path(path).resolve()
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
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {place}: {error}; what was there before is whole: make room (or make the"
            " folder writable) and run the same call again"
        ) from error
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
