"""Kernels on disk, tile by tile: built once, resumed after any interruption, opened by every tool that reads Zarr.

    build(net, x, "kernel.zarr")          # the same call again computes what is missing
    Stored(zarr.open("kernel.zarr")["ntk"])  # or dask.array.from_zarr, xarray.open_zarr, …

What a store holds: `ntkcore.store`. Who computes: `ntkcore.executors`. Is it right: `ntkcore.verify`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.backends import resolve
from ntkcore.executors import fill, workers_for
from ntkcore.inputs import Array, Get, check_data, kernel_names, size_text, thread_count
from ntkcore.kernels import kernel, kernel_diag
from ntkcore.layers import Layer, from_json
from ntkcore.store import (
    Tiles,
    attributes,
    create,
    description,
    digest,
    exists,
    local_folder,
    open_store,
    refuse_other,
)

TILES = (2048, 1024, 512, 256, 128, 64, 32, 16)
SECONDS_PER_TILE = 60.0  # that an interruption may cost


@dataclass(frozen=True)
class Plan:
    """What a build takes: pairs to compute, tiles, bytes on disk, bytes in memory, seconds by a short calibration."""

    shape: tuple[int, int]
    kernels: tuple[str, ...]
    dtype: str
    tile: int
    tiles: int
    pairs: int
    disk: int
    memory: int
    seconds: float

    def __str__(self) -> str:
        time_ = f"{self.seconds / 3600:.1f} h" if self.seconds > 5400 else f"{self.seconds:.0f} s"
        return (
            f"{' and '.join(self.kernels)} of shape {self.shape}, {self.dtype}: {self.pairs:.3g} pairs in {self.tiles} "
            f"tiles of {self.tile}, {self.disk / 2**30:.2f} GiB on disk, {self.memory / 2**30:.2f} GiB of memory, "
            f"about {time_}"
        )


def plan(
    net: Layer,
    x: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    get: Get = "ntk",
    *,
    tile: int | None = None,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Plan:
    """Time, disk and memory that `build` with these arguments would take; computes a few pairs to find out."""
    a, b = check_data(x, x2, dtype)
    return _plan(net, a, b, kernel_names(get), tile, thread_count(threads), resolve(backend))


def _plan(
    net: Layer, a: Array, b: Array | None, names: tuple[str, ...], tile: int | None, threads: int, backend: str
) -> Plan:
    n, m = len(a), len(a if b is None else b)
    few = min(n, 16 if a.ndim == 4 else 512)
    seconds: list[float] = []
    while len(seconds) < 2:  # the first call warms up
        start = time.perf_counter()
        kernel(net, a[:few], a[:few], names, threads=1, backend=backend, progress=False)
        seconds.append(time.perf_counter() - start)
    per_pair = min(seconds) / few**2
    size = next((t for t in TILES if t * t * per_pair <= SECONDS_PER_TILE), TILES[-1]) if tile is None else tile
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"tile must be a positive number of rows, not {tile!r}")
    rows, cols = -(-n // size), -(-m // size)
    pairs = n * (n + 1) // 2 if b is None else n * m
    disk = n * m * a.itemsize * len(names) + a.nbytes + (0 if b is None else b.nbytes)
    memory = a.nbytes + 4 * threads * size**2 * a.itemsize * len(names)
    count = rows * (rows + 1) // 2 if b is None else rows * cols
    return Plan((n, m), names, str(a.dtype), int(size), count, pairs, disk, memory, pairs * per_pair / threads)


def _check_room(store: Any, needed: int) -> None:
    if (path := local_folder(store)) is None:
        return
    folder = next(p for p in path.absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the store needs {size_text(needed)}, but {size_text(free)} are free on {folder}: free some, "
            "choose another disk, dtype='float32' or one kernel at a time"
        )


def _part(tiles: Tiles, part: tuple[int, int] | None) -> list[tuple[int, int]]:
    """What is missing of a share of the tiles: every n-th one from number i on."""
    if part is None:
        return tiles.missing()
    i, n = part
    if not 0 <= i < n:
        raise ValueError(f"part must be (i, n) with 0 <= i < n: share i of n, not {part!r}")
    mine = set(tiles.all()[i::n])
    return [task for task in tiles.missing() if task in mine]


def build(
    net: Layer,
    x: npt.ArrayLike,
    store: Any,
    x2: npt.ArrayLike | None = None,
    get: Get = "ntk",
    *,
    tile: int | None = None,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    backend: str | None = None,
    devices: Sequence[int] | None = None,
    executor: Any = None,
    part: tuple[int, int] | None = None,
    prepare: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """The kernel of ``net`` between ``x`` and ``x2`` (None: ``x``) in a store; the same call again goes on.

    Parameters
    ----------
    store
        A path, a URL that fsspec knows ("s3://…", with ``storage_options``), or a Zarr store.
    tile
        Rows and columns of a chunk; by default 2048, or fewer where that takes over a minute. A resumed build keeps
        its own.
    executor
        None: ``threads`` threads of this process, or with ``backend="cuda"`` its ``devices``. A
        concurrent.futures.Executor or a dask.distributed.Client: its workers, who must reach the store; those that die
        are replaced by those that remain.
    part
        (i, n): only share i of n, for n processes on one store (a job array); make the store before, by ``prepare``.
    prepare, dry_run
        Make the store and compute no tile; only return the `Plan`.
    x, x2, get, dtype, threads, backend, devices, progress
        As for `ntkcore.kernel`; one thread a tile.

    Returns
    -------
    The zarr.Group, complete (but for ``part`` and ``prepare``); or the `Plan`.

    Raises
    ------
    ValueError
        If the store holds another kernel, or is not one of ours.
    OSError
        If the disk cannot hold it (before any work), fills up or may not be written: what is written stays valid.
    RuntimeError
        If no worker is left: what is written stays valid.
    ImportError
        Without Zarr.
    """
    names = kernel_names(get)
    a, b = check_data(x, x2, dtype)
    workers = thread_count(threads)
    if not dry_run and exists(store, storage_options):
        group = open_store(store, storage_options)
        found = attributes(group)
        wanted = description(net, a, b, names, tile or found["tile"], resolve(backend or found["backend"]))
        refuse_other(found, wanted)
    else:
        name = resolve(backend)
        estimate = _plan(net, a, b, names, tile, workers, name)
        if dry_run:
            return estimate
        _check_room(store, estimate.disk)
        group = create(store, net, a, b, description(net, a, b, names, estimate.tile, name), storage_options)
    if not prepare:
        _fill(group, workers, attributes(group)["backend"], devices, executor, part, progress)
    return group


def _fill(
    group: Any,
    threads: int,
    backend: str,
    devices: Sequence[int] | None,
    executor: Any,
    part: tuple[int, int] | None,
    progress: bool | None,
) -> None:
    tiles = Tiles(group)
    fill(tiles, _part(tiles, part), workers_for(executor, tiles, backend, threads, devices), progress)


def resume(
    store: Any,
    *,
    threads: int | None = None,
    backend: str | None = None,
    devices: Sequence[int] | None = None,
    executor: Any = None,
    part: tuple[int, int] | None = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Compute what is missing in a store, from what the store says of itself; returns the zarr.Group.

    ``backend``: another than the store's own gives tiles that differ from the others in their last bits.
    """
    group = open_store(store, storage_options)
    name = resolve(backend or attributes(group)["backend"])
    _fill(group, thread_count(threads), name, devices, executor, part, progress)
    return group


def extend(
    store: Any,
    x_new: npt.ArrayLike,
    *,
    threads: int | None = None,
    backend: str | None = None,
    devices: Sequence[int] | None = None,
    executor: Any = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """More samples for a symmetric store: rows and columns are added, old tiles stay (but the ragged last ones).

    If it is interrupted, `resume` goes on. Returns the zarr.Group.
    """
    group = open_store(store, storage_options)
    found = attributes(group)
    if found["x2"] is not None:
        raise ValueError("only a symmetric store (x2=None) can be extended")
    new, _ = check_data(x_new, None, found["dtype"])
    old, tile, net = found["n"], found["tile"], from_json(found["net"])
    if new.shape[1:] != group["x"].shape[1:]:
        raise ValueError(f"the store's samples have shape {group['x'].shape[1:]}, the new ones {new.shape[1:]}")
    n = old + len(new)
    if old % tile:
        ragged = old // tile
        group["done"][ragged, :] = 0
        group["done"][:, ragged] = 0
    group["x"].resize((n, *new.shape[1:]))
    group["x"][old:] = new
    for name in found["kernels"]:
        group[name].resize((n, n))
        group[f"diagonal_{name}"].resize((n,))
        group[f"diagonal_{name}"][old:] = kernel_diag(net, new, name)
    group["done"].resize((-(-n // tile), -(-n // tile)))
    group.attrs["ntkcore"] = {**found, "n": n, "x": digest(group["x"][...])}  # from here on it is the larger kernel
    name = resolve(backend or found["backend"])
    _fill(group, thread_count(threads), name, devices, executor, None, progress)
    return group
