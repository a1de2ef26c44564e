"""Kernels of images: tiles of pairs through the plane executor, tables of images tile by tile."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine import near_pairs
from ntkcore.engine.inputs import Array
from ntkcore.engine.scales import check_tile
from ntkcore.engine.tiles import Tile, run, tiles, workers
from ntkcore.engine.vectors import Parts, check_variances, views

LANES = 16  # strips of images start at multiples of this, whatever the dtype
STRIP = 8  # images whose pairs with themselves the engine takes side by side
_SECONDS_PER_TILE = 1.0  # so that progress moves, Ctrl-C is heard and threads end together
_NANOSECONDS = {4: 0.4, 8: 1.4}  # per point and op, by itemsize: a rough guess, for the size of tiles only
_TABLE_BYTES = 8 * 2**20  # of one block of images


Float64 = npt.NDArray[np.float64]


class _Blocks:
    """Tables of the images of a block, made when first asked for; the few last used are kept."""

    def __init__(
        self, program: _core.ImageProgram, backend: str, x: Array, size: int, head: Float64 | None, keep: int
    ) -> None:
        self._program, self._backend, self._x, self._size, self._head, self._keep = (
            program,
            backend,
            x,
            size,
            head,
            keep,
        )
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, _core.Images] = OrderedDict()

    def __getitem__(self, first: int) -> _core.Images:
        with self._lock:
            if first in self._blocks:
                self._blocks.move_to_end(first)
                return self._blocks[first]
        last = first + self._size
        head = None if self._head is None else np.ascontiguousarray(self._head[:, first:last])
        images = _core.Images(self._program, self._backend, self._x[first:last], head)
        with self._lock:
            self._blocks[first] = images
            while len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        return images


def _tile_size(program: _core.ImageProgram, itemsize: int, rows: int, cols: int, threads: int, tile: int | None) -> int:
    if tile is not None:
        if not isinstance(tile, (int, np.integer)) or tile < LANES or tile % LANES:
            raise ValueError(f"tile must be a positive multiple of {LANES} for images, not {tile!r}")
        return int(tile)
    seconds = program.work * _NANOSECONDS[itemsize] * 1e-9
    by_time = (_SECONDS_PER_TILE / seconds) ** 0.5
    by_memory = _TABLE_BYTES / (program.table_size * itemsize + 1)
    by_threads = (rows * cols / (4 * threads)) ** 0.5
    return max(LANES, int(min(by_time, by_memory, by_threads, 1024)) // LANES * LANES)


def flipped(program: _core.ImageProgram, x: Array) -> Array:
    """The images turned left to right; ValueError for a network that tells left from right."""
    if not program.flip_symmetric:
        raise ValueError(
            "augment='hflip' needs a network that treats left and right alike, but one of its windows pads or strides "
            "unevenly (an even filter under SAME, or a stride that does not fit the width): use odd filters and widths "
            "that fit"
        )
    return np.ascontiguousarray(x[:, :, ::-1])


def fill(
    program: _core.ImageProgram,
    a: Array,
    b: Array | None,
    parts: Parts,
    backend: str,
    threads: int,
    tile: int | None,
    progress: bool | None,
    flip: bool,
) -> None:
    """Write the kernels between images of `a` and `b` (None: `a`) into `parts`."""
    symmetric = b is None
    columns = a if b is None else b
    size = _tile_size(program, a.itemsize, len(a), len(columns), threads, tile)
    full = symmetric or program.head_needs_variance
    mine = diagonals_of(program, a, backend, threads) if full else None
    heads = [mine["head"] if mine else None] * 2
    if b is not None and program.head_needs_variance:
        heads[1] = diagonals_of(program, b, backend, threads)["head"]
    keep = threads + 2
    cols = _Blocks(program, backend, columns, size, heads[1], keep)
    rows = cols if b is None else _Blocks(program, backend, a, size, heads[0], keep)
    turned = flipped(program, a) if flip else None
    flips = None if turned is None else _Blocks(program, backend, turned, size, heads[0], keep)
    single = a.dtype == np.float32
    there_too = near_pairs.ImageSketches(columns) if single else None
    sketches = there_too if b is None or not single else near_pairs.ImageSketches(a)
    turned_sketches = None if turned is None or not single else near_pairs.ImageSketches(turned)
    levels = len(next(iter(parts.values())))
    all_parts = [part for name in parts for part in parts[name]]

    def near_again(
        x: near_pairs.ImageSketches | None, task: Tile, first: int | None, *places: near_pairs.Place
    ) -> None:
        if x is None or there_too is None:
            return
        i, j = slice(*task[:2]), slice(*task[2:])
        near = near_pairs.of_images(x, i, there_too, j, first)
        if near is not None:
            tables = None if heads[0] is None else heads[0][:, i], None if heads[1] is None else heads[1][:, j]
            images = x.x[i].reshape(-1, *a.shape[1:]), columns[j]
            near_pairs.evaluate_images(program, backend, images, tables, near, *places)

    def evaluate(task: Tile) -> None:
        i0, i1, j0, j1 = task
        here, there = (slice(i0, i1), slice(j0, j1)), (slice(j0, j1), slice(i0, i1))
        diagonal = symmetric and i0 == j0
        out, mirror = views(parts, levels, *here), views(parts if symmetric else {}, levels, *there)
        found = _core.evaluate_images(backend, rows[i0], 0, cols[j0], 0, *out, *mirror, diagonal)
        check_tile(found, i0, j0, a.dtype)
        near_again(sketches, task, 1 if diagonal else None, out, near_pairs.transposed(mirror))
        if diagonal and mine:
            _write_diagonal(parts, mine, i0, i1)
        if flips is None:
            return
        flipped = {name: [np.empty((i1 - i0, j1 - j0), a.dtype) for _ in parts[name]] for name in parts}
        nowhere = views({}, levels, *here)
        turned_out = views(flipped, levels, slice(None), slice(None))
        found = _core.evaluate_images(backend, flips[i0], 0, cols[j0], 0, *turned_out, *nowhere, False)
        check_tile(found, i0, j0, a.dtype)
        near_again(turned_sketches, task, 0 if diagonal else None, turned_out)
        for part, other in zip(all_parts, (f for name in parts for f in flipped[name]), strict=True):
            if diagonal:
                other = np.triu(other) + np.triu(other, 1).T
            part[here] = (part[here] + other) / 2
            if symmetric and not diagonal:
                part[there] = part[here].T

    work = tiles(len(a), len(columns), size, size, symmetric)
    run(work, lambda: evaluate, threads, progress, lambda t: (t[1] - t[0]) * (t[3] - t[2]), long=True)


def _write_diagonal(parts: Parts, diagonals: dict[str, Any], first: int, last: int) -> None:
    at = np.arange(first, last)
    for name, arrays in parts.items():
        for array, values in zip(arrays, diagonals[name], strict=True):
            array[at, at] = values[first:last]


class Diagonals:
    """The pairs (x, x), under way in the threads of `pool`."""

    def __init__(self, program: _core.ImageProgram, x: Array, backend: str, pool: ThreadPoolExecutor) -> None:
        self._failed: list[Future[Any]] = []

        def strip(first: int) -> tuple[Any, Any, Any]:
            nngp, ntk, head = _core.image_diagonal(program, backend, x[first : first + STRIP])
            check_variances({"nngp": nngp, "ntk": ntk}, x.dtype, first)
            return nngp, ntk, head

        self._strips = [pool.submit(strip, i) for i in range(0, len(x), STRIP)]
        for future in self._strips:
            future.add_done_callback(self._look_at)

    def _look_at(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception():
            self._failed.append(future)

    def check(self) -> None:
        """Raises what has gone wrong so far."""
        for future in self._failed[:1]:
            future.result()

    def result(self) -> dict[str, Any]:
        """Kernels (outputs, n) and the features of the head's ops (2 ops, n), in float64."""
        strips = zip(*(future.result() for future in self._strips), strict=True)
        return {name: np.concatenate(part, axis=1) for name, part in zip(("nngp", "ntk", "head"), strips, strict=True)}


def diagonals_of(program: _core.ImageProgram, x: Array, backend: str, threads: int) -> dict[str, Any]:
    """Kernels of every image with itself (outputs, n), and the features of the head's ops (2 ops, n), in float64."""
    with workers(threads) as pool:
        return Diagonals(program, x, backend, pool).result()


def diagonal(program: _core.ImageProgram, x: Array, backend: str, threads: int, flip: bool) -> dict[str, Any]:
    """Kernels of every image with itself, float64, shape (outputs, n)."""
    values = diagonals_of(program, x, backend, threads)
    if flip:
        levels = len(values["nngp"])
        double = x.astype(np.float64)
        head = values["head"] if program.head_needs_variance else None
        blocks = [_Blocks(program, backend, data, LANES, head, 1) for data in (flipped(program, double), double)]
        for i in range(0, len(x), LANES):
            n = min(LANES, len(x) - i)
            pairs: Parts = {name: [np.empty((n, n)) for _ in range(levels)] for name in ("nngp", "ntk")}
            here = views(pairs, levels, slice(None), slice(None))
            nowhere = views({}, levels, slice(None), slice(None))
            _core.evaluate_images(backend, blocks[0][i], 0, blocks[1][i], 0, *here, *nowhere, False)
            for name in pairs:
                for level, pair in enumerate(pairs[name]):
                    values[name][level, i : i + n] = (values[name][level, i : i + n] + np.diag(pair)) / 2
    return values
