"""The format of a kernel on disk, and one tile of it: what is where, what it says of itself, computing and writing.

A store is a Zarr v3 group (chunk = tile, crc32c, no compression): "ntk" and/or "nngp", NaN where not yet computed;
"done", one marker a tile, written after it; "x" (and "x2"), the data; "diagonal_ntk" and "diagonal_nngp", exact; its
attributes say what it holds. A chunk is written whole or not at all, and a tile is the same bytes however often it is
computed, so neither SIGKILL nor a full disk leaves a torn or false tile, and only tiles in flight are lost. Nothing
read is ever executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.inputs import Array
from ntkcore.kernels import kernel, kernel_diag
from ntkcore.layers import Layer, from_json

FORMAT = 1
PRECISION = "float32 entries carry rounding of about 1e-6; the diagonal is exact to its dtype"
Task = tuple[int, int]  # number of a tile's row and column


def zarr_module() -> Any:
    """Zarr, or an ImportError that names the extra."""
    try:
        import zarr
    except ImportError:
        raise ImportError('kernels on disk need Zarr: pip install "ntkcore[store]"') from None
    return zarr


def local_folder(store: Any) -> Path | None:
    """The folder of a store on this machine's disks, None for any other store."""
    return Path(store) if isinstance(store, (str, Path)) and "://" not in str(store) else None


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
    }


def attributes(group: Any) -> dict[str, Any]:
    """The `description` of a store; ValueError for a group that is not ours."""
    found = dict(group.attrs).get("ntkcore")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(
            "this Zarr group is not a kernel built by ntkcore (or by a later version): choose another store"
        )
    return found


def _array(group: Any, name: str, axes: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> Any:
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
        compressors=[zarr_module().codecs.Crc32cCodec()],
        dimension_names=axes.split(),
    )


def create(
    store: Any, net: Layer, a: Array, b: Array | None, wanted: dict[str, Any], options: Mapping[str, Any] | None
) -> Any:
    """A new group; its attributes come last, so that a half-made one is made again."""
    group = zarr_module().open_group(store, mode="w", zarr_format=3, storage_options=options)
    tile, n, m = wanted["tile"], len(a), len(a if b is None else b)
    for name in wanted["kernels"]:
        _array(group, name, "sample sample2", (n, m), (tile, tile), a.dtype)
        if b is None:
            diagonal = kernel_diag(net, a, name, backend=wanted["backend"])
            _array(group, f"diagonal_{name}", "sample", (n,), (n,), a.dtype)[:] = diagonal
    _array(group, "done", "tile tile2", (-(-n // tile), -(-m // tile)), (1, 1), np.uint8)
    inner = "feature" if a.ndim == 2 else "height width channel"
    for name, axis, data in (("x", "sample", a), ("x2", "sample2", b)):
        if data is not None:
            _array(group, name, f"{axis} {inner}", data.shape, (tile, *data.shape[1:]), data.dtype)[...] = data
    group.attrs["ntkcore"] = wanted
    return group


def open_store(store: Any, options: Mapping[str, Any] | None = None, mode: str = "r+") -> Any:
    """The zarr.Group of a store, by default for reading and writing; FileNotFoundError where there is none."""
    zarr = zarr_module()
    try:
        return zarr.open_group(store, mode=mode, zarr_format=3, storage_options=options)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        raise FileNotFoundError(f"there is no store at {store}: build it first") from None


def exists(store: Any, options: Mapping[str, Any] | None) -> bool:
    """Is there a store, its attributes written?"""
    try:
        group = open_store(store, options)
    except FileNotFoundError:
        return False
    if "ntkcore" not in group.attrs and not dict(group.attrs) and {"ntk", "nngp"} & set(group.array_keys()):
        return False  # a build that was killed before its attributes were written
    attributes(group)
    return True


def refuse_other(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError that names what differs between a store and what is asked for."""
    names = {"net": "network", "kernels": "get", "dtype": "dtype", "tile": "tile", "x": "x", "x2": "x2"}
    names["backend"] = "backend"  # whose last bits differ
    other = [name for key, name in names.items() if found[key] != wanted[key]]
    if other:
        raise ValueError(
            f"the store holds a kernel with another {', '.join(other)}: choose another store, or call with what it was "
            "built from"
        )


# --- tiles


def slices(shape: Sequence[int], tile: int, task: Task) -> tuple[slice, slice]:
    """Rows and columns of a tile."""
    i, j = ((t * tile, min((t + 1) * tile, n)) for t, n in zip(task, shape, strict=True))
    return slice(*i), slice(*j)


class Tiles:
    """The tiles of a store: which are missing, computing one, writing one. A tile reads the data from the store."""

    def __init__(self, group: Any) -> None:
        self.group, self.attributes = group, attributes(group)
        self.net = from_json(self.attributes["net"])
        self.names = tuple(self.attributes["kernels"])
        self.symmetric = self.attributes["x2"] is None
        self.arrays = {name: group[name] for name in (*self.names, "done", "x")}
        self.arrays["x2"] = self.arrays["x"] if self.symmetric else group["x2"]
        n = int(self.attributes["n"])
        self.shape: tuple[int, int] = (n, n if self.symmetric else int(self.arrays["x2"].shape[0]))

    def slices(self, task: Task) -> tuple[slice, slice]:
        """Rows and columns of a tile."""
        return slices(self.shape, self.attributes["tile"], task)

    def pairs(self, task: Task) -> int:
        """Its size."""
        rows, cols = self.slices(task)
        return int((rows.stop - rows.start) * (cols.stop - cols.start))

    def all(self) -> list[Task]:
        """All tiles to compute: of a symmetric kernel one triangle."""
        tile = int(self.attributes["tile"])
        rows, cols = (-(-n // tile) for n in self.shape)
        return [(i, j) for i in range(rows) for j in range(i if self.symmetric else 0, cols)]

    def missing(self) -> list[Task]:
        """Those without a marker."""
        done = self.arrays["done"][...]
        return [task for task in self.all() if done[task] == 0]

    def compute(self, task: Task, backend: str, devices: Sequence[int] | None = None) -> Any:
        """The kernels of a tile, as `ntkcore.kernel` gives them."""
        rows, cols = self.slices(task)
        a = self.arrays["x"][rows]
        b = None if self.symmetric and task[0] == task[1] else self.arrays["x2"][cols]
        return kernel(self.net, a, b, self.names, threads=1, backend=backend, devices=devices, progress=False)

    def write(self, task: Task, blocks: Any) -> None:
        """A tile, its mirror image, then their markers."""
        rows, cols = self.slices(task)
        mirrored = self.symmetric and task[0] != task[1]
        for name in self.names:
            block: npt.NDArray[Any] = getattr(blocks, name)
            self.arrays[name][rows, cols] = block
            if mirrored:
                self.arrays[name][cols, rows] = np.ascontiguousarray(block.T)
        if mirrored:
            self.arrays["done"][task[1], task[0]] = 1
        self.arrays["done"][task] = 1  # last: the one that a resumed build looks at
