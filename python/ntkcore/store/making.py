"""Making a store and enlarging it: whatever interrupts it, however many do it at once.

A store is made in three steps: a marker (its attributes with "making") where nothing lies, put
there in one exclusive step; the arrays, diagonals and data; the attributes without "making". Who
meets a marker of the same kernel takes the later steps again: every write is the same bytes, so any
number may do so at once, and a dead one is in nobody's way. Nothing is ever deleted.

An extension likewise: the attributes with "pending" (the new n, the new rows' digest); the rows;
the rest; the attributes of the larger kernel, which remember the digest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ntkcore.engine.inputs import Array
from ntkcore.engine.kernels import error_bounds, kernel_diag
from ntkcore.specs.layers import Layer
from ntkcore.specs.text import from_json
from ntkcore.store.format import (
    Tiles,
    attributes,
    digest,
    local_folder,
    open_store,
    place_of,
    sealed,
    zarr_module,
)

# What a process leaves that is killed while it writes a marker.
LEFT = re.compile(r"zarr\.[0-9a-f]{32}\.partial")


# --- where


def refuse_place(store: Any) -> None:
    """ValueError for a path that names no folder of its own."""
    place_of(store)
    folder = local_folder(store)
    if folder is not None and (not str(store) or folder.resolve() == Path.cwd()):
        raise ValueError(
            f"the store's path {str(store)!r} is the working directory itself (an unset variable?):"
            " name a folder of its own, e.g. kernel.zarr"
        )
    if folder is not None:
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            raise ValueError(
                f"{there} is a file, or a link to nothing: the store must be a folder of its own"
            )


def _place(store: Any, options: Mapping[str, Any] | None) -> Any:
    """Zarr's own name of a place; makes its folder."""
    from zarr.core.sync import sync
    from zarr.storage._common import make_store_path

    return sync(
        make_store_path(
            place_of(store), mode="a", storage_options=None if options is None else dict(options)
        )
    )


def _empty(store: Any, options: Mapping[str, Any] | None) -> bool:
    from zarr.core.sync import sync

    if (folder := local_folder(store)) is None:
        return bool(sync(_place(store, options).is_empty()))
    return not folder.exists() or all(LEFT.fullmatch(path.name) for path in folder.iterdir())


def found_at(store: Any, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a store says of itself, finished or not; None where nothing lies; ValueError:
    not ours.
    """
    for _ in range(2):  # again: another starter may have put its marker there just after we looked
        with contextlib.suppress(FileNotFoundError):
            return attributes(open_store(store, options, unfinished=True), unfinished=True)
        if _empty(store, options):
            return None
    raise ValueError(
        f"{store} holds something that ntkcore did not write:"
        " nothing is touched, choose another store"
    )


@contextlib.contextmanager
def going_on() -> Iterator[None]:
    """What fails to be written is said with the way on."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{error}; nothing is lost:"
            " make room (or make the store writable) and run the same call again"
        ) from error


# --- making


def claim(store: Any, wanted: dict[str, Any], options: Mapping[str, Any] | None) -> None:
    """Put the marker of a store where nothing lies: then it stands there,
    or that of who was first.
    """
    from zarr.core.sync import sync

    marker = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ntkcore": sealed({**wanted, "making": True})},
    }
    problem: OSError | None = None
    try:
        sync(_put_new(_place(store, options) / "zarr.json", json.dumps(marker, indent=2).encode()))
    except OSError as error:  # somebody was first, or it may not be written
        problem = error
    if found_at(store, options) is None:
        raise problem or OSError(f"{store} does not keep what is written: choose another store")


async def _put_new(place: Any, value: bytes) -> None:
    """Write, unless there is something: in one step in local folders, on S3 and GCS.

    File systems of other URLs may look first, then write.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import FsspecStore

    if isinstance(place.store, FsspecStore):
        await place.store.fs._pipe_file(f"{place.store.path}/{place.path}", value, mode="create")
    else:
        await place.set_if_not_exists(default_buffer_prototype().buffer.from_bytes(value))


def _array(
    group: Any, name: str, axes: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any
) -> Any:
    """The array of this name: there, or made."""
    zarr = zarr_module()
    if name in group:
        return group[name]
    try:
        return group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
            compressors=[zarr.codecs.Crc32cCodec()],
            dimension_names=axes.split(),
        )
    except zarr.errors.ContainsArrayError:  # another starter's, since we looked
        return group[name]


def diagonals(net: Layer, x: Array, names: Iterable[str], backend: str) -> dict[str, Array]:
    """The exact diagonals; ValueError where they are not finite."""
    return {name: kernel_diag(net, x, name, backend=backend) for name in names}


def furnish(group: Any, a: Array, b: Array | None, exact: dict[str, Array]) -> None:
    """All of a marked store but its tiles; then it is no longer marked."""
    wanted = attributes(group, unfinished=True)
    tile, n, m = wanted["tile"], len(a), len(a if b is None else b)
    for name in wanted["kernels"]:
        _array(group, name, "sample sample2", (n, m), (tile, tile), a.dtype)
    for name, values in exact.items():
        _array(group, f"diagonal_{name}", "sample", (n,), (n,), a.dtype)[:] = values
    _array(group, "done", "tile tile2", (-(-n // tile), -(-m // tile)), (1, 1), np.uint8)
    axes = ["depth", "height", "width"] if a.ndim < 6 else [f"axis{i}" for i in range(a.ndim - 2)]
    inner = "feature" if a.ndim == 2 else " ".join([*axes[2 - a.ndim :], "channel"])
    for name, axis, data in (("x", "sample", a), ("x2", "sample2", b)):
        if data is not None:
            _array(group, name, f"{axis} {inner}", data.shape, (tile, *data.shape[1:]), data.dtype)[
                ...
            ] = data
    now = open_store(group, unfinished=True)
    if attributes(now, unfinished=True).pop("making", False):  # no other starter came first
        now.attrs["ntkcore"] = sealed(
            {key: value for key, value in wanted.items() if key != "making"}
        )


# --- enlarging


def rows_of_pending(group: Any) -> Array:
    """The new rows of a pending extension; ValueError if they are not (all) in the store."""
    found = attributes(group, unfinished=True)
    rows: Array = group["x"][found["n"] : found["pending"]["n"]]
    if digest(rows) != found["pending"]["x"]:
        raise ValueError(
            f"the extension to {found['pending']['n']} samples was interrupted before its rows were"
            " written: run the same extend again, with the same rows"
        )
    return rows


def enlarge(group: Any, new: Array, backend: str) -> None:
    """Rows and columns for new samples, once, from any point where an earlier call was killed."""
    found = attributes(group, unfinished=True)
    if digest(new) in extensions(found) and "pending" not in found:
        return
    pending = found.get("pending", {"n": found["n"] + len(new), "x": digest(new)})
    old, n, tile = found["n"], pending["n"], found["tile"]
    if pending["x"] != digest(new):
        raise ValueError(
            f"an extension by {n - old} other samples is not finished:"
            " finish it first, by `resume` or the same extend"
        )
    if "pending" not in found:
        Tiles(group)  # says so where an array is lost or has another shape
    before = group["x"][:old]
    if digest(before) != found["x"]:
        raise ValueError(
            "the store's x is not what it was built from: it was damaged, build the kernel anew"
        )
    exact = diagonals(from_json(found["net"]), new, found["kernels"], backend)
    group.attrs["ntkcore"] = sealed({**found, "pending": pending})
    group["x"].resize((n, *new.shape[1:]))
    group["x"][old:n] = new
    for name, values in exact.items():
        group[name].resize((n, n))
        group[f"diagonal_{name}"].resize((n,))
        group[f"diagonal_{name}"][old:n] = values
    tiles = -(-n // tile)
    group["done"].resize((tiles, tiles))
    if old % tile:  # the last tiles were cut short: they are computed again
        group["done"][old // tile, :] = 0
        group["done"][:, old // tile] = 0
    x = np.concatenate([before, new])
    whole = {
        "n": n,
        "x": digest(x),
        "errors": error_bounds(from_json(found["net"]), x),
        "extensions": [*extensions(found), pending["x"]],
    }
    group.attrs["ntkcore"] = sealed(
        {key: value for key, value in found.items() if key != "pending"} | whole
    )


def extensions(found: dict[str, Any]) -> list[str]:
    """The digests of the rows by which a store was extended."""
    return list(found.get("extensions", []))
