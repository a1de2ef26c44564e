"""Kernels on disk, tile by tile: built once, resumed after any interruption,
opened by every tool that reads Zarr.

    build(net, x, "kernel.zarr")          # the same call again computes what is missing
    Stored(zarr.open("kernel.zarr")["ntk"])  # or dask.array.from_zarr, xarray.open_zarr, …

What a store holds: `ntkcore.store.format`. Who computes: `ntkcore.store.workers`.
Is it right: `ntkcore.store.verify`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.backends import resolve
from ntkcore.engine.inputs import Array, Get, check_data, kernel_names, size_text, thread_count
from ntkcore.specs.layers import Layer
from ntkcore.store.format import (
    Tiles,
    attributes,
    damaged_data,
    description,
    digest,
    local_folder,
    open_store,
    refuse_other,
    stored_array,
    using,
)
from ntkcore.store.making import (
    claim,
    diagonals,
    enlarge,
    extensions,
    found_at,
    furnish,
    going_on,
    refuse_place,
    rows_of_pending,
)
from ntkcore.store.planning import estimate
from ntkcore.store.workers import check_workers, compute_tiles, workers_for


def _check_room(store: Any, needed: int) -> None:
    if (path := local_folder(store)) is None:
        return
    folder = next(p for p in path.absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the store needs {size_text(needed)}, but {size_text(free)} are free on {folder}: free"
            " some, choose another disk, dtype='float32' or one kernel at a time"
        )


def _check_part(part: tuple[int, int] | None) -> None:
    if part is None:
        return
    whole = (
        isinstance(part, Sequence)
        and len(part) == 2
        and all(isinstance(k, (int, np.integer)) for k in part)
    )
    if not (whole and 0 <= part[0] < part[1]):
        raise ValueError(f"part must be (i, n) with 0 <= i < n: share i of n, not {part!r}")


def _part(tiles: Tiles, part: tuple[int, int] | None) -> list[tuple[int, int]]:
    """What is missing of a share of the tiles: every n-th one from number i on."""
    if part is None:
        return tiles.missing()
    mine = set(tiles.all()[part[0] :: part[1]])
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
    """The kernel of ``net`` between ``x`` and ``x2`` (None: ``x``) in a store;
    the same call again goes on.

    Parameters
    ----------
    store
        A path, a URL that fsspec knows ("s3://…", with ``storage_options``), or a Zarr store: where
        nothing lies, or a store that an earlier call made. Any number of calls may start at once on
        a local folder, S3 or GCS; elsewhere two different ones that start in the same instant may
        both believe to be first.
    tile
        Rows and columns of a chunk; by default 2048, or fewer where that takes over a minute.
        A resumed build keeps its own.
    executor
        None: ``threads`` threads of this process, or with ``backend="cuda"`` its ``devices``. A
        concurrent.futures.Executor or a dask.distributed.Client: its workers, who must reach the
        store; those that die are replaced by those that remain.
    part
        (i, n): only share i of n, for n processes on one store (a job array). Whoever comes first
        makes the store; made before, by ``prepare``, it is made once.
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
        If the disk cannot hold it (before any work), fills up or may not be written:
        what is written stays valid.
    RuntimeError
        If no worker is left: what is written stays valid.
    ImportError
        Without Zarr.
    """
    names = kernel_names(get)
    a, b = check_data(x, x2, dtype)
    count = thread_count(threads)
    refuse_place(store)
    _check_part(part)
    found = None if dry_run else found_at(store, storage_options)
    name = resolve(found["backend"] if backend is None and found is not None else backend)
    check_workers(executor, name, devices)
    exact = None
    if found is None:
        needed = estimate(net, a, b, names, tile, count, name)
        if dry_run:
            return needed
        _check_room(store, needed.disk)
        exact = _diagonals(net, a, b, names, name)
        with going_on():
            claim(store, description(net, a, b, names, needed.tile, name), storage_options)
    with using(store):
        group = open_store(store, storage_options, unfinished=True)
        found = attributes(group, unfinished=True)
        if not found.get("making"):
            attributes(group)  # says so if an extension is not finished
        own, name = name, resolve(found["backend"] if backend is None else backend)
        refuse_other(found, description(net, a, b, names, tile or found["tile"], name))
        if found.get("making"):
            if exact is None or name != own:
                exact = _diagonals(net, a, b, names, name)
            with going_on():
                furnish(group, a, b, exact)
        group = open_store(store, storage_options)
        _write_damaged(group, {"x": a, "x2": b})
        if not prepare:
            _fill(group, count, name, devices, executor, part, progress)
    return group


def _write_damaged(group: Any, given: dict[str, Array | None]) -> None:
    """Data of the store that are no longer what they were: again, from the same data."""
    for name in damaged_data(Tiles(group)):
        data = given[name]
        if data is None or group[name].shape != data.shape:
            raise ValueError(
                f"the store's {name} has another shape, it was damaged:"
                " build the kernel anew elsewhere"
            )
        group[name][...] = data


def _diagonals(
    net: Layer, a: Array, b: Array | None, names: tuple[str, ...], backend: str
) -> dict[str, Array]:
    return diagonals(net, a, names, backend) if b is None else {}


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
    if work := _part(tiles, part):
        tiles.check_data()
    compute_tiles(tiles, work, workers_for(executor, tiles, backend, threads, devices), progress)


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
    """Compute what is missing in a store, from what the store says of itself.

    An interrupted `extend` is finished if its rows are in the store; else the same `extend` must be
    called again.

    Parameters
    ----------
    store : path, URL, zarr.Group or Zarr store
        Where the kernel lies.
    threads : int, optional
        Of this process; by default all cores.
    backend : str, optional
        By default the store's own: another one gives tiles that differ in their last bits.
    devices : sequence of int, optional
        GPUs, with ``backend="cuda"``.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Whose workers compute the tiles, instead of threads.
    part : tuple of int, optional
        (i, n): share i, from 0, of n processes on one store.
    progress : bool, optional
        A bar; by default on a terminal for long calls.
    storage_options : mapping, optional
        Of fsspec, for URLs.

    Returns
    -------
    zarr.Group

    Raises
    ------
    FileNotFoundError, ValueError
        Where there is no store, or none that can go on: the message says what to do.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from ntkcore import build, mlp, resume
    >>> store = zarr.storage.MemoryStore()
    >>> _ = build(mlp(1), np.eye(4), store, prepare=True)
    >>> resume(store)["ntk"][0, 0] > 0
    np.True_
    """
    group = open_store(store, storage_options, unfinished=True)
    found = attributes(group, unfinished=True)
    name, count = resolve(found["backend"] if backend is None else backend), thread_count(threads)
    _check_part(part)
    check_workers(executor, name, devices)
    if "pending" in found:
        with using(store, alone=True), going_on():
            group = open_store(store, storage_options, unfinished=True)
            if "pending" in attributes(group, unfinished=True):  # nobody finished it since
                enlarge(group, rows_of_pending(group), name)
    with using(store):
        group = open_store(store, storage_options)
        _fill(group, count, name, devices, executor, part, progress)
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
    """More samples for a symmetric store: rows and columns are added, old tiles stay.

    (But the ragged last ones.) Interrupted at any point, the same call goes on, and so does
    `resume` once the new rows are in the store. Rows by which the store was already extended are
    not added again.

    Parameters
    ----------
    store : path, URL, zarr.Group or Zarr store
        Where the kernel lies.
    x_new : array_like of shape (m, d) or (m, height, width, channels)
        The new samples.
    threads : int, optional
        Of this process; by default all cores.
    backend : str, optional
        By default the store's own: another one gives tiles that differ in their last bits.
    devices : sequence of int, optional
        GPUs, with ``backend="cuda"``.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Whose workers compute the tiles, instead of threads.
    progress : bool, optional
        A bar; by default on a terminal for long calls.
    storage_options : mapping, optional
        Of fsspec, for URLs.

    Returns
    -------
    zarr.Group

    Raises
    ------
    ValueError
        For samples that do not fit, and for a store of two data sets.
    BlockingIOError
        While another process builds or extends the store (seen in local folders;
        elsewhere take care).

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from ntkcore import build, extend, mlp
    >>> x, store = np.random.default_rng(0).standard_normal((8, 3)), zarr.storage.MemoryStore()
    >>> _ = build(mlp(1), x[:5], store)
    >>> extend(store, x[5:])["ntk"].shape
    (8, 8)
    """
    group = open_store(store, storage_options, unfinished=True)
    found = attributes(group, unfinished=True)
    if found["x2"] is not None:
        raise ValueError("only a symmetric store (x2=None) can be extended")
    new, _ = check_data(x_new, None, found["dtype"])
    if found.get("making"):
        raise ValueError("the store is only half made: run the same build again, then extend it")
    if new.shape[1:] != (inner := stored_array(group, "x").shape[1:]):
        raise ValueError(f"the store's samples have shape {inner}, the new ones {new.shape[1:]}")
    name, count = resolve(found["backend"] if backend is None else backend), thread_count(threads)
    check_workers(executor, name, devices)
    if digest(new) not in extensions(found) or "pending" in found:
        added = (2 * found["n"] + len(new)) * len(new) * new.itemsize * len(
            found["kernels"]
        ) + new.nbytes
        _check_room(store, added)
        with using(store, alone=True), going_on():
            enlarge(open_store(store, storage_options, unfinished=True), new, name)
    with using(store):
        group = open_store(store, storage_options)
        _fill(group, count, name, devices, executor, None, progress)
    return group
