"""The format of a kernel on disk, and one tile of it: what is where,
what it says of itself, computing and writing.

A store is a Zarr v3 group (chunk = tile, crc32c, no compression): "ntk" and/or "nngp", NaN where
not yet computed; "done", one marker a tile, written after it; "x" (and "x2"), the data;
"diagonal_ntk" and "diagonal_nngp", exact; its attributes say what it holds, and whether it is half
made or half extended (`ntkcore.store.making`). A chunk is written whole or not at all, and a tile
is the same bytes however often it is computed, so neither SIGKILL nor a full disk leaves a torn or
false tile, and only tiles in flight are lost. Nothing read is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import Array
from ntkcore.engine.kernels import error_bounds, kernel
from ntkcore.specs.layers import Layer
from ntkcore.specs.text import from_json

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
PRECISION = "float32 entries carry rounding of about 1e-6; the diagonal is exact to its dtype"
LOCAL = re.compile("^(file|local)://")  # URLs of this machine's disks
SLIP = re.compile("^[a-z][a-z0-9+]+:/(?!/)")  # a URL that lost a slash
TileIndex = tuple[int, int]  # number of a tile's row and column


def zarr_module() -> Any:
    """Zarr, or an ImportError that names the extra."""
    try:
        import zarr
    except ImportError:
        raise ImportError('kernels on disk need Zarr: pip install "ntkcore[store]"') from None
    return zarr


def place_of(store: Any) -> Any:
    """A store as Zarr takes it: a path as one, so that no name of a folder is taken for a URL.

    TypeError for what names no place, ValueError for a URL with one slash.
    """
    if store is None or isinstance(store, (bytes, bytearray, int, float, list, tuple)):
        raise TypeError(f"store must be a path, a URL or a Zarr store, not {store!r:.80}")
    if isinstance(store, str) and SLIP.match(store):
        raise ValueError(
            f"{store} looks like a URL with one slash: a URL has two,"
            f" {store.replace(':/', '://', 1)}"
        )
    return local_folder(store) or store if isinstance(store, (str, Path)) else store


def local_folder(store: Any) -> Path | None:
    """The folder of a store on this machine's disks, None for any other store."""
    if isinstance(store, (str, Path)):
        path = LOCAL.sub("", str(store))
        return None if "://" in path else Path(path)
    place = getattr(store, "store_path", store)  # of a group
    root = getattr(getattr(place, "store", place), "root", None)
    return Path(root, getattr(place, "path", "")) if isinstance(root, Path) else None


@contextlib.contextmanager
def using(store: Any, alone: bool = False) -> Iterator[None]:
    """Hold a store with others who compute its tiles, or ``alone``;
    BlockingIOError if it is held otherwise.

    For local folders whose file system has locks; they end with the process, however that ends.
    """
    folder = local_folder(store)
    if folder is None or fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process is building or extending {folder}:"
                " wait until it has finished, then run this again"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # for forked workers hold the handle too
        os.close(handle)


# --- the group


def digest(data: Array | None) -> str | None:
    """SHA-256 of shape, dtype and values."""
    if data is None:
        return None
    found = hashlib.sha256(repr((data.shape, str(data.dtype))).encode())
    found.update(np.ascontiguousarray(data).reshape(-1).data)
    return found.hexdigest()


def description(
    net: Layer, a: Array, b: Array | None, names: tuple[str, ...], tile: int, backend: str
) -> dict[str, Any]:
    """What a store's attributes say: all that its numbers depend on."""
    from ntkcore import __version__

    return {
        "format": FORMAT,
        "net": net.to_json(),
        "kernels": list(names),
        "dtype": str(a.dtype),
        "tile": tile,
        "n": len(a),
        "x": digest(a),
        "x2": digest(b),
        "backend": backend,
        "version": __version__,
        "precision": PRECISION,
        "errors": error_bounds(net, a, b),
    }


def sealed(said: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with their own digest,
    which tells what was written from what was changed since.
    """
    bare = {key: value for key, value in said.items() if key != "seal"}
    return {**bare, "seal": hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()}


def attributes(group: Any, unfinished: bool = False) -> dict[str, Any]:
    """The `description` of a store; ValueError for a group that is not ours, damaged,
    or (by default) not finished.
    """
    found = dict(group.attrs).get("ntkcore")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(
            "this Zarr group is not a kernel built by ntkcore (or by a later version):"
            " choose another store"
        )
    if found.get("seal", seal := sealed(found)["seal"]) != seal or not _plausible(found):
        raise ValueError(
            "the store's attributes (zarr.json) were changed since they were written: nothing is"
            " computed from them; restore that file from a copy, or build the kernel anew in"
            " another store"
        )
    if not unfinished:
        _refuse_unfinished(found)
    return dict(found)


def _plausible(found: dict[str, Any]) -> bool:
    """Has everything its type? For stores that were written before attributes had a digest."""
    kinds = {
        "net": str,
        "kernels": list,
        "dtype": str,
        "tile": int,
        "n": int,
        "x": str,
        "backend": str,
    }
    return (
        all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        and isinstance(found.get("x2", 0), str | None)
        and found["dtype"] in ("float32", "float64")
        and min(found["tile"], found["n"]) > 0
    )


def _refuse_unfinished(found: dict[str, Any]) -> None:
    if found.get("making"):
        raise ValueError("the store is only half made: run the same build again")
    if pending := found.get("pending"):
        raise ValueError(
            f"the store's extension from {found['n']} to {pending['n']} samples is not finished:"
            " run `ntkcore resume` or the same extend again"
        )


def open_store(
    store: Any, options: Mapping[str, Any] | None = None, mode: str = "r+", unfinished: bool = False
) -> Any:
    """The zarr.Group of a store (or of a group), by default for reading and writing.

    FileNotFoundError where there is none, ValueError where it cannot be read or (by default)
    is not finished.
    """
    zarr = zarr_module()
    place = store.store_path if isinstance(store, zarr.Group) else place_of(store)
    try:
        group = zarr.open_group(
            place, mode=mode, zarr_format=3, storage_options=options, use_consolidated=False
        )
        found = dict(group.attrs).get("ntkcore")
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        raise FileNotFoundError(f"there is no store at {store}: build it first") from None
    except (
        FileExistsError,
        NotADirectoryError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # whatever Zarr says of other things
        if "Protocol not known" in str(error):
            raise ValueError(
                f"{store} is no kind of URL that fsspec knows, such as s3://bucket/kernel.zarr"
            ) from None
        raise ValueError(
            f"{store} is not a kernel built by ntkcore, or its zarr.json was damaged: {error}"
        ) from error
    if isinstance(found, dict) and not unfinished:
        _refuse_unfinished(found)
    return group


def refuse_other(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError that names what differs between a store and what is asked for."""
    names = {
        "net": "network",
        "kernels": "get",
        "dtype": "dtype",
        "tile": "tile",
        "x": "x",
        "x2": "x2",
    }
    names["backend"] = "backend"  # whose last bits differ
    other = [name for key, name in names.items() if found[key] != wanted[key]]
    if other:
        raise ValueError(
            f"the store holds a kernel with another {', '.join(other)}: choose another store, or"
            " call with what it was built from"
        )


# --- tiles


def slices(shape: Sequence[int], tile: int, index: TileIndex) -> tuple[slice, slice]:
    """Rows and columns of a tile."""
    i, j = ((t * tile, min((t + 1) * tile, n)) for t, n in zip(index, shape, strict=True))
    return slice(*i), slice(*j)


def stored_array(group: Any, name: str) -> Any:
    """An array of a store; ValueError if it is lost or damaged."""
    try:
        return group[name]
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        # All that Zarr raises for damaged files.
        raise ValueError(
            f"the store's array {name!r} is lost or damaged: build the kernel anew ({error})"
        ) from error


def _blank(array: Any) -> bool:
    """Is what was never written told from what was: NaN, or no marker?"""
    return (
        bool(np.isnan(array.fill_value))
        if np.dtype(array.dtype).kind == "f"
        else int(array.fill_value) == 0
    )


class Tiles:
    """The tiles of a store: which are missing, computing one, writing one.
    A tile reads the data from the store.
    """

    def __init__(self, group: Any) -> None:
        self.group, self.attributes = group, attributes(group)
        self.net = from_json(self.attributes["net"])
        self.names = tuple(self.attributes["kernels"])
        self.symmetric = self.attributes["x2"] is None
        data = ("x",) if self.symmetric else ("x", "x2")
        self.arrays = {name: stored_array(group, name) for name in (*self.names, "done", *data)}
        self.arrays["x2"] = self.arrays[data[-1]]
        n = int(self.attributes["n"])
        self.shape: tuple[int, int] = (n, n if self.symmetric else int(self.arrays["x2"].shape[0]))
        self.diagonals = {
            name: stored_array(group, f"diagonal_{name}") for name in self.names if self.symmetric
        }
        self._check_shapes()

    def _check_shapes(self) -> None:
        tile, (n, m) = int(self.attributes["tile"]), self.shape
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.names, self.shape)
        shapes |= {"x": (n, *self.arrays["x"].shape[1:]), "x2": (m, *self.arrays["x2"].shape[1:])}
        shapes |= {"done": (-(-n // tile), -(-m // tile))} | {
            f"diagonal_{name}": (n,) for name in self.diagonals
        }
        arrays = self.arrays | {f"diagonal_{name}": array for name, array in self.diagonals.items()}
        chunks = dict.fromkeys(self.names, (tile, tile)) | {"done": (1, 1)}
        chunks |= {name: (tile, *arrays[name].shape[1:]) for name in ("x", "x2")}
        for name, shape in shapes.items():
            array, dtype = arrays[name], "uint8" if name == "done" else self.attributes["dtype"]
            # A diagonal keeps its chunks when the store is extended.
            whole = chunks.get(name, array.chunks)
            if (
                array.shape != shape
                or array.chunks != whole
                or str(array.dtype) != dtype
                or not _blank(array)
            ):
                raise ValueError(
                    f"the store's {name} has shape {array.shape} in chunks of {array.chunks},"
                    f" {array.dtype}, empty {array.fill_value}; its attributes say {shape} in"
                    f" chunks of {whole}, {dtype}: it was damaged;"
                    " build the kernel anew in another store"
                )

    def check_data(self) -> None:
        """ValueError where the stored data are not those that the kernel was built from."""
        for name, problem in damaged_data(self).items():
            raise ValueError(f"the store's {name} {problem}")

    def slices(self, index: TileIndex) -> tuple[slice, slice]:
        """Rows and columns of a tile."""
        return slices(self.shape, self.attributes["tile"], index)

    def pairs(self, index: TileIndex) -> int:
        """Its size."""
        rows, cols = self.slices(index)
        return int((rows.stop - rows.start) * (cols.stop - cols.start))

    def all(self) -> list[TileIndex]:
        """All tiles to compute: of a symmetric kernel one triangle."""
        tile = int(self.attributes["tile"])
        rows, cols = (-(-n // tile) for n in self.shape)
        return [(i, j) for i in range(rows) for j in range(i if self.symmetric else 0, cols)]

    def missing(self) -> list[TileIndex]:
        """Those without a marker."""
        done = self.arrays["done"][...]
        return [index for index in self.all() if done[index] == 0]

    def compute(self, index: TileIndex, backend: str, devices: Sequence[int] | None = None) -> Any:
        """The kernels of a tile, as `ntkcore.kernel` gives them."""
        rows, cols = self.slices(index)
        a = self.arrays["x"][rows]
        b = None if self.symmetric and index[0] == index[1] else self.arrays["x2"][cols]
        return kernel(
            self.net, a, b, self.names, threads=1, backend=backend, devices=devices, progress=False
        )

    def write(self, index: TileIndex, blocks: Any) -> None:
        """A tile, its mirror image, then their markers."""
        rows, cols = self.slices(index)
        mirrored = self.symmetric and index[0] != index[1]
        if bad := [name for name in self.names if not np.isfinite(getattr(blocks, name)).all()]:
            raise ValueError(
                f"the {' and '.join(bad)} between samples {rows.start} to {rows.stop} and"
                f" {cols.start} to {cols.stop} is not finite: rescale the data, or use float64"
            )
        for name in self.names:
            block: npt.NDArray[Any] = getattr(blocks, name)
            self.arrays[name][rows, cols] = block
            if mirrored:
                self.arrays[name][cols, rows] = np.ascontiguousarray(block.T)
        if mirrored:
            self.arrays["done"][index[1], index[0]] = 1
        self.arrays["done"][index] = 1  # last: the one that a resumed build looks at


def damaged_data(tiles: Tiles) -> dict[str, str]:
    """What is wrong with the data of a store, by array, and the way on."""
    found: dict[str, str] = {}
    for name in ("x",) if tiles.symmetric else ("x", "x2"):
        try:
            same = digest(tiles.arrays[name][...]) == tiles.attributes[name]
            reason = "" if same else "is not what the kernel was built from"
        except Exception as error:  # whatever the codecs say of a damaged chunk
            reason = f"cannot be read ({error})"
        if reason:
            found[name] = (
                f"{reason}: run the same build again with the data it was built from, which writes"
                " them anew"
            )
    return found
