"""Kernels on disk, tile by tile: built once, resumed after any interruption, opened by every tool that reads Zarr.

    build(net, x, "kernel.zarr")          # the same call again computes what is missing
    Stored(zarr.open("kernel.zarr")["ntk"])  # or dask.array.from_zarr, xarray.open_zarr, …

A store is a Zarr v3 group (chunk = tile, crc32c, no compression): "ntk" and/or "nngp", NaN where not yet computed;
"done", one marker a tile, written after it; "x" (and "x2"), the data; "diagonal_ntk" and "diagonal_nngp", exact; its
attributes say what it holds. A chunk is written whole or not at all, and a tile is the same bytes however often it is
computed, so neither SIGKILL nor a full disk leaves a torn or false tile, and only tiles in flight are lost. Nothing
read is ever executed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.backends import resolve
from ntkcore.inputs import Array, Get, check_data, kernel_names, thread_count
from ntkcore.kernels import kernel, kernel_diag
from ntkcore.layers import Layer, from_json
from ntkcore.tiles import progress_bar

FORMAT = 1
TILES = (2048, 1024, 512, 256, 128, 64, 32, 16)
SECONDS_PER_TILE = 60.0  # that an interruption may cost
PRECISION = "float32 entries carry rounding of about 1e-6; the diagonal is exact to its dtype"


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise ImportError('kernels on disk need Zarr: pip install "ntkcore[store]"') from None
    return zarr


# --- plan


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
    if not isinstance(store, (str, Path)) or "://" in str(store):
        return
    folder = next(p for p in Path(store).absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"the store needs {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free on {folder}: free some, "
            "choose another disk, dtype='float32' or one kernel at a time"
        )


# --- the store


def _digest(data: Array | None) -> str | None:
    if data is None:
        return None
    digest = hashlib.sha256(repr((data.shape, str(data.dtype))).encode())
    digest.update(np.ascontiguousarray(data).reshape(-1).data)
    return digest.hexdigest()


def _description(
    net: Layer, a: Array, b: Array | None, names: tuple[str, ...], tile: int, backend: str
) -> dict[str, Any]:
    from ntkcore import __version__

    return {
        "format": FORMAT,
        "net": net.to_json(),
        "kernels": list(names),
        "dtype": str(a.dtype),
        "tile": tile,
        "n": len(a),
        "x": _digest(a),
        "x2": _digest(b),
        "backend": backend,
        "version": __version__,
        "precision": PRECISION,
    }


def _attributes(group: Any) -> dict[str, Any]:
    found = dict(group.attrs).get("ntkcore")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(
            "this Zarr group is not a kernel built by ntkcore (or by a later version): choose another store"
        )
    return found


def _array(group: Any, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any, fill: Any) -> Any:
    zarr = _zarr()
    axes = ["sample", "sample2", "row", "column"][: len(shape)] if len(shape) <= 2 else None
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        compressors=[zarr.codecs.Crc32cCodec()],
        dimension_names=axes,
    )


def _create(store: Any, net: Layer, a: Array, b: Array | None, wanted: dict[str, Any]) -> Any:
    """A new group; its attributes come last, so that a half-made one is made again."""
    group = _zarr().open_group(store, mode="w", zarr_format=3)
    tile, n, m = wanted["tile"], len(a), len(a if b is None else b)
    for name in wanted["kernels"]:
        _array(group, name, (n, m), (tile, tile), a.dtype, np.nan)
        if b is None:
            diagonal = kernel_diag(net, a, name, backend=wanted["backend"])
            _array(group, f"diagonal_{name}", (n,), (n,), a.dtype, np.nan)[:] = diagonal
    _array(group, "done", (-(-n // tile), -(-m // tile)), (1, 1), np.uint8, 0)
    for name, data in (("x", a), ("x2", b)):
        if data is not None:
            rows = max(1, min(len(data), 2**26 // max(1, data[0].nbytes)))
            _array(group, name, data.shape, (rows, *data.shape[1:]), data.dtype, np.nan)[...] = data
    group.attrs["ntkcore"] = wanted
    return group


def _open(store: Any) -> Any:
    zarr = _zarr()
    try:
        return zarr.open_group(store, mode="r+", zarr_format=3)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        raise FileNotFoundError(f"there is no store at {store}: build it first") from None


def _exists(store: Any) -> bool:
    try:
        _attributes(_open(store))
    except FileNotFoundError:
        return False
    except ValueError:
        group = _open(store)
        if dict(group.attrs) or not {"ntk", "nngp"} & set(group.array_keys()):
            raise
        return False  # a build that was killed before its attributes were written
    return True


def _refuse_other(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = {"net": "network", "kernels": "get", "dtype": "dtype", "tile": "tile", "x": "x", "x2": "x2"}
    other = [name for key, name in names.items() if found[key] != wanted[key]]
    if other:
        raise ValueError(
            f"the store holds a kernel with another {', '.join(other)}: choose another store, or call with what it was "
            "built from"
        )


# --- tiles


Task = tuple[int, int]  # number of the tile's row and column


def _missing(group: Any, symmetric: bool) -> list[Task]:
    done = group["done"][...]
    return [(int(i), int(j)) for i, j in np.argwhere(done == 0) if not symmetric or i <= j]


def _slices(shape: Sequence[int], tile: int, task: Task) -> tuple[slice, slice]:
    i, j = ((t * tile, min((t + 1) * tile, n)) for t, n in zip(task, shape, strict=True))
    return slice(*i), slice(*j)


@dataclass
class _Job:
    """What all tiles of a build share."""

    group: Any
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = _attributes(self.group)
        self.net = from_json(self.attributes["net"])
        self.names = tuple(self.attributes["kernels"])
        n = self.attributes["n"]
        self.a: Array = self.group["x"][:n]
        self.symmetric = self.attributes["x2"] is None
        self.b: Array | None = None if self.symmetric else self.group["x2"][...]
        self.shape = (n, n if self.b is None else len(self.b))

    def compute(self, task: Task, backend: str) -> Any:
        rows, cols = _slices(self.shape, self.attributes["tile"], task)
        same = self.symmetric and task[0] == task[1]
        z = None if same else (self.a if self.b is None else self.b)[cols]
        return kernel(self.net, self.a[rows], z, self.names, threads=1, backend=backend, progress=False)

    def write(self, task: Task, blocks: Any) -> None:
        rows, cols = _slices(self.shape, self.attributes["tile"], task)
        for name in self.names:
            self.group[name][rows, cols] = getattr(blocks, name)
            if self.symmetric and task[0] != task[1]:
                self.group[name][cols, rows] = getattr(blocks, name).T
        if self.symmetric:
            self.group["done"][task[1], task[0]] = 1
        self.group["done"][task] = 1  # last: the one that a resumed build looks at

    def run(self, task: Task, backend: str) -> int:
        blocks = self.compute(task, backend)
        self.write(task, blocks)
        return int(blocks[0].size)


def _fill(group: Any, threads: int, backend: str, progress: bool | None) -> None:
    """Compute what is missing, at most two tiles a thread in flight."""
    job = _Job(group)
    work = _missing(group, job.symmetric)
    sizes = [s.stop - s.start for task in work for s in _slices(job.shape, job.attributes["tile"], task)]
    total = sum(r * c for r, c in zip(sizes[::2], sizes[1::2], strict=True))
    queue: Iterator[Task] = iter(work)
    with progress_bar(total, progress) as count, ThreadPoolExecutor(threads) as pool:
        flying: set[Future[int]] = set()
        try:
            while True:
                while len(flying) < 2 * threads and (task := next(queue, None)) is not None:
                    flying.add(pool.submit(job.run, task, backend))
                if not flying:
                    return
                finished, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in finished:
                    count(future.result())
        except OSError as error:
            raise OSError(
                f"{error}; the tiles written so far are whole: make room and run the same call again"
            ) from error
        finally:
            for future in flying:
                future.cancel()


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
    progress: bool | None = None,
    dry_run: bool = False,
) -> Any:
    """The kernel of ``net`` between ``x`` and ``x2`` (None: ``x``) in a store; the same call again goes on.

    Parameters
    ----------
    store
        A path, a URL that fsspec knows, or a Zarr store.
    tile
        Rows and columns of a chunk; by default 2048, or fewer where that takes over a minute. A resumed build keeps
        its own.
    dry_run
        Only the `Plan`.
    x, x2, get, dtype, threads, backend, progress
        As for `ntkcore.kernel`; one thread a tile.

    Returns
    -------
    The zarr.Group, complete; or the `Plan`.

    Raises
    ------
    ValueError
        If the store holds another kernel, or is not one of ours.
    OSError
        If the disk cannot hold it (before any work), or fills up: what is written stays valid.
    ImportError
        Without Zarr.
    """
    names = kernel_names(get)
    a, b = check_data(x, x2, dtype)
    workers, executor = thread_count(threads), resolve(backend)
    exists = not dry_run and _exists(store)
    if exists:
        group = _open(store)
        found = _attributes(group)
        _refuse_other(found, _description(net, a, b, names, tile or found["tile"], executor))
    else:
        estimate = _plan(net, a, b, names, tile, workers, executor)
        if dry_run:
            return estimate
        _check_room(store, estimate.disk)
        group = _create(store, net, a, b, _description(net, a, b, names, estimate.tile, executor))
    _fill(group, workers, executor, progress)
    return group


def resume(store: Any, *, threads: int | None = None, backend: str | None = None, progress: bool | None = None) -> Any:
    """Compute what is missing in a store, from what the store says of itself; returns the zarr.Group."""
    group = _open(store)
    _fill(group, thread_count(threads), resolve(backend or _attributes(group)["backend"]), progress)
    return group


def extend(
    store: Any,
    x_new: npt.ArrayLike,
    *,
    threads: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
) -> Any:
    """More samples for a symmetric store: rows and columns are added, old tiles stay (but the ragged last ones).

    The same call again goes on if it was interrupted. Returns the zarr.Group.
    """
    group = _open(store)
    found = _attributes(group)
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
    group.attrs["ntkcore"] = {**found, "n": n, "x": _digest(group["x"][...])}  # from here on it is the larger kernel
    _fill(group, thread_count(threads), resolve(backend or found["backend"]), progress)
    return group


# --- verify


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


def verify(store: Any, *, sample: int = 8, seed: int = 0, repair: bool = False, threads: int | None = None) -> Report:
    """Read every tile (checksums, NaN, symmetry), recompute a random sample bit for bit, sweep partial files.

    ``repair`` clears the markers of bad and missing tiles and computes them again; the report is of the state before.
    """
    group = _open(store)
    job = _Job(group)
    backend = resolve(job.attributes["backend"])
    missing = _missing(group, job.symmetric)
    present = [t for t in map(tuple, np.ndindex(*group["done"].shape)) if (not job.symmetric or t[0] <= t[1])]
    present = [t for t in present if t not in set(missing)]
    bad = {task: reason for task in present if (reason := _problem(job, task))}
    whole = [task for task in present if task not in bad]
    chosen = np.random.default_rng(seed).permutation(len(whole))[:sample]
    for at in chosen:
        task = whole[at]
        rows, cols = _slices(job.shape, job.attributes["tile"], task)
        blocks = job.compute(task, backend)
        if not all(np.array_equal(group[name][rows, cols], getattr(blocks, name)) for name in job.names):
            bad[task] = "differs from what this machine computes"
    report = Report(missing, bad, len(chosen), _sweep(store))
    if repair and not report.ok:
        for i, j in bad:
            group["done"][i, j] = 0
            if job.symmetric:
                group["done"][j, i] = 0
        _fill(group, thread_count(threads), backend, False)
    return report


def _problem(job: _Job, task: Task) -> str | None:
    rows, cols = _slices(job.shape, job.attributes["tile"], task)
    for name in job.names:
        try:
            block = job.group[name][rows, cols]
            mirror = job.group[name][cols, rows] if job.symmetric else None
        except Exception as error:  # whatever the codecs say of a damaged chunk
            return f"{name} cannot be read: {error}"
        if not np.isfinite(block).all():
            return f"{name} holds NaN: its chunk is lost"
        if mirror is not None and not np.array_equal(block, mirror.T):
            return f"{name} is not symmetric"
    return None


def _sweep(store: Any) -> int:
    """Files that a killed writer left beside its chunk; deleted where the store is a local folder."""
    if not isinstance(store, (str, Path)) or "://" in str(store):
        return 0
    left = [p for p in Path(store).rglob("*.partial") if p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
