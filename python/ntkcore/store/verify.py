"""Is a store complete and right? All that it holds is looked at; and its repair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntkcore.engine.backends import resolve
from ntkcore.engine.inputs import Array, thread_count
from ntkcore.store.format import TileIndex, Tiles, damaged_data, local_folder, open_store, using
from ntkcore.store.making import diagonals
from ntkcore.store.workers import compute_tiles, workers_for

PARTIAL = re.compile(r"[^.]+\.[0-9a-f]{32}\.partial")  # Zarr's name of a file that is being written
TOLERANCE = {4: 1e-5, 8: 1e-10}  # of diagonals, by itemsize: instruction sets differ in last bits


@dataclass(frozen=True)
class Verification:
    """Tiles that are not there; bad ones, with the reason; other damaged parts, with the way on;
    how many tiles were recomputed; partial files that were swept; whether all that was found has
    been repaired.
    """

    missing: list[TileIndex]
    bad: dict[TileIndex, str]
    parts: dict[str, str] = field(default_factory=dict)
    recomputed: int = 0
    swept: int = 0
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Was the store complete and right, before any repair?"""
        return not (self.missing or self.bad or self.parts)


def verify(
    store: Any,
    *,
    sample: int = 8,
    seed: int = 0,
    repair: bool = False,
    threads: int | None = None,
    backend: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Look at all that a store holds; recompute a sample.

    Attributes, shapes, data, diagonals, markers and every tile. Data are compared with the digests
    of what the kernel was built from before anything is computed: while they are damaged, no tile
    is judged by them or computed again. Partial files that a killed writer left beside the store's
    chunks are removed.

    Parameters
    ----------
    store : path, URL, zarr.Group or Zarr store
        Where the kernel lies.
    sample : int, default=8
        So many random tiles are recomputed bit for bit.
    seed : int, default=0
        Of their choice.
    repair : bool, default=False
        Compute bad and missing tiles again, and diagonals; the report is of the state before.
    threads : int, optional
        By default all cores.
    backend : str, optional
        By default the one that built the store: another one differs in last bits.
    storage_options : mapping, optional
        Of fsspec, for URLs.

    Returns
    -------
    Verification
        ``ok``, and what is missing, bad, recomputed.

    Raises
    ------
    ValueError
        For a store whose attributes or shapes were changed,
        or that is half made or half extended: the message names the way on.
    BlockingIOError
        While another process builds or extends the store (seen in local folders).

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from ntkcore import build, mlp, verify
    >>> store = zarr.storage.MemoryStore()
    >>> _ = build(mlp(1), np.eye(4), store)
    >>> verify(store).ok
    True
    """
    group = open_store(store, storage_options)
    with using(store, alone=True):
        tiles = Tiles(group)
        name = resolve(tiles.attributes["backend"] if backend is None else backend)
        count, swept = thread_count(threads), _sweep(store, tiles)
        data, (done, marks) = damaged_data(tiles), _markers(tiles)
        missing = [index for index in tiles.all() if done[index] == 0]
        present = [index for index in tiles.all() if index not in set(missing)]
        exact = (
            {}
            if data or not tiles.symmetric
            else diagonals(tiles.net, tiles.arrays["x"][...], tiles.names, name)
        )
        wrong = _wrong_diagonals(tiles, exact)
        bad = {index: reason for index in present if (reason := _problem(tiles, index, exact))}
        whole = [index for index in present if index not in bad]
        chosen = np.random.default_rng(seed).permutation(len(whole))[: 0 if data else sample]
        bad |= dict.fromkeys(
            _differing(tiles, whole, chosen, name), "differs from what this machine computes"
        )
        parts = (
            data
            | wrong
            | (
                {"done": f"{len(marks)} markers are damaged or lost: --repair computes their tiles"}
                if marks
                else {}
            )
        )
        if repair and not data:
            _repair(tiles, bad, marks, {name: exact[name[len("diagonal_") :]] for name in wrong})
            compute_tiles(
                tiles, tiles.missing(), workers_for(None, tiles, name, count, None), False
            )
    return Verification(missing, bad, parts, len(chosen), swept, repair and not data)


def _markers(tiles: Tiles) -> tuple[Array, list[TileIndex]]:
    """All markers, and which are damaged: unreadable (0 here),
    or lost where that of the mirror image is there.
    """
    array = tiles.arrays["done"]
    lost: list[TileIndex] = []
    try:
        done = array[...]
    except Exception:  # whatever the codecs say: find out which
        done = np.zeros(array.shape, array.dtype)
        for index in np.ndindex(array.shape):
            if _readable(array, index):
                done[index] = array[index]
            else:
                lost.append(index)
    if tiles.symmetric:  # the mirror image is marked first
        lost += [
            (j, i) for i, j in tiles.all() if done[i, j] and not done[j, i] and (j, i) not in lost
        ]
    return done, lost


def _readable(array: Any, at: TileIndex) -> bool:
    try:
        array[at]
    except Exception:
        return False
    return True


def _wrong_diagonals(tiles: Tiles, exact: Mapping[str, Array]) -> dict[str, str]:
    """Which stored diagonals are not those of the data."""
    found = {}
    for name, values in exact.items():
        try:
            reason = "" if _close(tiles.diagonals[name][...], values) else "is not that of the data"
        except Exception as error:  # whatever the codecs say
            reason = f"cannot be read ({error})"
        if reason:
            found[f"diagonal_{name}"] = f"{reason}: --repair computes it"
    return found


def _close(stored: Array, exact: Array) -> bool:
    return bool(np.allclose(stored, exact, rtol=TOLERANCE[exact.itemsize], atol=0))


def _differing(tiles: Tiles, whole: list[TileIndex], chosen: Any, backend: str) -> list[TileIndex]:
    out = []
    for at in chosen:
        blocks, place = tiles.compute(whole[at], backend), tiles.slices(whole[at])
        if not all(
            np.array_equal(tiles.arrays[name][place], getattr(blocks, name)) for name in tiles.names
        ):
            out.append(whole[at])
    return out


def _problem(tiles: Tiles, index: TileIndex, exact: Mapping[str, Array]) -> str | None:
    rows, cols = tiles.slices(index)
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
        if name in exact and rows == cols and not _close(np.diagonal(block), exact[name][rows]):
            return f"{name} has the diagonal of other samples"
    return None


def _repair(
    tiles: Tiles, bad: Mapping[TileIndex, str], marks: list[TileIndex], exact: Mapping[str, Array]
) -> None:
    """Clear the markers of bad tiles, and write diagonals."""
    for i, j in [*bad, *marks]:
        tiles.arrays["done"][i, j] = 0
        if tiles.symmetric:
            tiles.arrays["done"][j, i] = 0
    for name, values in exact.items():
        tiles.group[name][:] = values


def _sweep(store: Any, tiles: Tiles) -> int:
    """Files that a killed writer left beside its chunk;
    removed where the store is a local folder.
    """
    if (folder := local_folder(store)) is None:
        return 0
    arrays = [*tiles.arrays, *(f"diagonal_{name}" for name in tiles.diagonals)]
    places = [
        *folder.glob("*.partial"),
        *(p for name in arrays for p in (folder / name).rglob("*.partial")),
    ]
    left = [path for path in places if path.is_file() and PARTIAL.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
