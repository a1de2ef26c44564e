"""Kernels of images: tiles of pairs through the planes of displacements,
tables of images tile by tile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine import near_pairs
from ntkcore.engine.inputs import Array, free_bytes, size_text
from ntkcore.engine.jobs import Job, Parts, Place, nowhere, views
from ntkcore.engine.scales import check_tile
from ntkcore.engine.tiles import Tile, run, tiles, workers
from ntkcore.engine.vectors import check_variances

LANES = 16  # strips of images start at multiples of this, whatever the dtype
STRIP = 8  # images whose pairs with themselves the engine takes side by side
_SECONDS_PER_TILE = 1.0  # so that progress moves, Ctrl-C is heard and threads end together
# Of one op on one pair of pixels, by itemsize: a rough guess, for the size of tiles only.
_NANOSECONDS = {4: 0.4, 8: 1.4}
_TABLE_BYTES = 8 * 2**20  # of one block of images
# Where tables of one sample cost as much as a pair, many pairs share them.
_LONG_SECONDS, _MIXING_BYTES = 8.0, 128 * 2**20


Float64 = npt.NDArray[np.float64]
ImageProgram = _core.ImageProgram | _core.FullProgram
Images = _core.Images | _core.FullSamples


def images_of(program: ImageProgram, backend: str, x: Array, head: Float64 | None) -> Images:
    """What depends on one image only, on planes or by full covariances."""
    if isinstance(program, _core.FullProgram):
        return _core.FullSamples(program, backend, x, head)
    return _core.Images(program, backend, x, head)


class _Blocks:
    """Tables of the images of a block, made when first asked for; the few last used are kept."""

    def __init__(
        self,
        program: ImageProgram,
        backend: str,
        x: Array,
        size: int,
        head: Float64 | None,
        keep: int,
    ) -> None:
        self._program, self._backend, self._keep = program, backend, keep
        self._x, self._size, self._head = x, size, head
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Images] = OrderedDict()

    def __getitem__(self, first: int) -> Images:
        with self._lock:
            if first in self._blocks:
                self._blocks.move_to_end(first)
                return self._blocks[first]
        last = first + self._size
        head = None if self._head is None else np.ascontiguousarray(self._head[:, first:last])
        images = images_of(self._program, self._backend, self._x[first:last], head)
        with self._lock:
            self._blocks[first] = images
            while len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        return images


def _tile_size(job: Job) -> int:
    chosen = job.tile_of(LANES)
    if chosen is not None:
        return chosen
    itemsize, program = job.a.itemsize, job.program
    seconds = program.work * _NANOSECONDS[itemsize] * 1e-9
    mixes = isinstance(program, _core.FullProgram) and program.mixes
    by_time = ((_LONG_SECONDS if mixes else _SECONDS_PER_TILE) / seconds) ** 0.5
    table_bytes = _MIXING_BYTES if mixes else _TABLE_BYTES
    by_memory = table_bytes / (program.table_size * itemsize + 1)
    by_threads = (len(job.a) * len(job.columns) / (4 * job.threads)) ** 0.5
    step = 1 if isinstance(program, _core.FullProgram) else LANES
    return max(step, int(min(by_time, by_memory, by_threads, 1024)) // step * step)


def flipped(program: ImageProgram, x: Array) -> Array:
    """The images turned left to right; ValueError for a network that tells left from right."""
    if not program.flip_symmetric:
        raise ValueError(
            "augment='hflip' needs a network that treats left and right alike, but one of its"
            " windows pads or strides unevenly (an even filter under SAME, or a stride that does"
            " not fit the width): use odd filters and widths that fit"
        )
    return np.ascontiguousarray(x[:, :, ::-1])


def write(job: Job, backend: str) -> None:
    """Compute the job's kernels on the CPU."""
    check_memory(job.program, job.threads)
    size = _tile_size(job)
    tasks = tiles(len(job.a), len(job.columns), size, size, job.symmetric)
    kernels = _Images(job, backend, size)
    run(tasks, lambda: kernels.evaluate, job.threads, job.progress, long=True)


class _Side:
    """Images of the rows or columns: their tables,
    and sketches that find near pairs (None in float64).
    """

    def __init__(self, images: Array, blocks: _Blocks) -> None:
        self.blocks = blocks
        self.sketches = near_pairs.ImageSketches(images) if images.dtype == np.float32 else None


class _Images:
    """Tiles of pairs of images."""

    def __init__(self, job: Job, backend: str, size: int) -> None:
        self.job, self.backend, self.size = job, backend, size
        headed = job.program.head_needs_variance
        self.mine = (
            diagonals_of(job.program, job.a, backend, job.threads)
            if job.symmetric or headed
            else None
        )
        first = self.mine["head"] if self.mine else None
        second = first
        if headed and not job.symmetric:
            second = diagonals_of(job.program, job.b, backend, job.threads)["head"]
        self.heads = first, second
        self.cols = self._side(job.columns, second)
        self.rows = self.cols if job.symmetric else self._side(job.a, first)
        self.turned = self._side(flipped(job.program, job.a), first) if job.flip else None

    def _side(self, images: Array, head: Float64 | None) -> _Side:
        keep = self.job.threads + 2
        return _Side(images, _Blocks(self.job.program, self.backend, images, self.size, head, keep))

    def evaluate(self, task: Tile) -> None:
        """A tile, and where the matrix is symmetric its mirror image."""
        job, (i0, i1, j0, j1) = self.job, task
        here, there = (slice(i0, i1), slice(j0, j1)), (slice(j0, j1), slice(i0, i1))
        diagonal = job.symmetric and i0 == j0
        mirror = job.views(*there) if job.symmetric else nowhere(job.parts)
        self._write(self.rows, task, job.views(*here), mirror, 1 if diagonal else None)
        if diagonal and self.mine:
            _write_diagonal(job.parts, self.mine, i0, i1)
        if self.turned is not None:
            self._average(self.turned, task, diagonal)

    def _write(self, rows: _Side, task: Tile, out: Place, mirror: Place, above: int | None) -> None:
        """Kernels of a tile; near pairs once more. ``above``: on the diagonal,
        from which column on these count.
        """
        i0, i1, j0, j1 = task
        tables = rows.blocks[i0], 0, self.cols.blocks[j0], 0
        found = _core.evaluate_images(self.backend, *tables, *out, *mirror, above == 1)
        check_tile(found, i0, j0, self.job.a.dtype)
        if rows.sketches is None or self.cols.sketches is None:
            return
        i, j = slice(i0, i1), slice(j0, j1)
        near = near_pairs.of_images(rows.sketches, i, self.cols.sketches, j, above)
        if near is not None:
            first, second = self.heads
            heads = None if first is None else first[:, i], None if second is None else second[:, j]
            images = rows.sketches.x[i].reshape(-1, *self.job.a.shape[1:]), self.job.columns[j]
            places = out, near_pairs.transposed(mirror)
            near_pairs.evaluate_images(
                self.job.program, self.backend, images_of, images, heads, near, *places
            )

    def _average(self, turned: _Side, task: Tile, diagonal: bool) -> None:
        """The mean of a tile and of that of the turned images."""
        job, (i0, i1, j0, j1) = self.job, task
        here, there = (slice(i0, i1), slice(j0, j1)), (slice(j0, j1), slice(i0, i1))
        other = {
            name: [np.empty((i1 - i0, j1 - j0), job.a.dtype) for _ in arrays]
            for name, arrays in job.parts.items()
        }
        whole = slice(None)
        self._write(
            turned, task, views(other, whole, whole), nowhere(other), 0 if diagonal else None
        )
        for name, arrays in job.parts.items():
            for part, flipped_part in zip(arrays, other[name], strict=True):
                if diagonal:
                    flipped_part = np.triu(flipped_part) + np.triu(flipped_part, 1).T
                part[here] = (part[here] + flipped_part) / 2
                if job.symmetric and not diagonal:
                    part[there] = part[here].T


def _write_diagonal(parts: Parts, diagonals: dict[str, Any], first: int, last: int) -> None:
    at = np.arange(first, last)
    for name, arrays in parts.items():
        for array, values in zip(arrays, diagonals[name], strict=True):
            array[at, at] = values[first:last]


class Diagonals:
    """The pairs (x, x), under way in the threads of `pool`."""

    def __init__(
        self, program: ImageProgram, x: Array, backend: str, pool: ThreadPoolExecutor
    ) -> None:
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
        return {
            name: np.concatenate(part, axis=1)
            for name, part in zip(("nngp", "ntk", "head"), strips, strict=True)
        }


def check_memory(program: ImageProgram, threads: int) -> None:
    """MemoryError where the covariances of all pairs of positions would not fit."""
    if not isinstance(program, _core.FullProgram):
        return
    need, free = program.thread_bytes * threads, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            "this network needs covariances between all pairs of positions,"
            f" {size_text(program.thread_bytes)} for each of {threads} thread(s), but"
            f" {size_text(free)} are free: use fewer threads, or samples with fewer positions"
        )


def diagonals_of(program: ImageProgram, x: Array, backend: str, threads: int) -> dict[str, Any]:
    """Kernels of every image with itself (outputs, n),
    and the features of the head's ops (2 ops, n), in float64.
    """
    check_memory(program, threads)
    with workers(threads) as pool:
        return Diagonals(program, x, backend, pool).result()


def diagonal(
    program: ImageProgram, x: Array, backend: str, threads: int, flip: bool
) -> dict[str, Any]:
    """Kernels of every image with itself, float64, shape (outputs, n)."""
    values = diagonals_of(program, x, backend, threads)
    if flip:
        levels = len(values["nngp"])
        double = x.astype(np.float64)
        head = values["head"] if program.head_needs_variance else None
        blocks = [
            _Blocks(program, backend, data, LANES, head, 1)
            for data in (flipped(program, double), double)
        ]
        for i in range(0, len(x), LANES):
            n = min(LANES, len(x) - i)
            pairs: Parts = {
                name: [np.empty((n, n)) for _ in range(levels)] for name in ("nngp", "ntk")
            }
            here = views(pairs, slice(None), slice(None))
            _core.evaluate_images(
                backend, blocks[0][i], 0, blocks[1][i], 0, *here, *nowhere(pairs), False
            )
            for name in pairs:
                for level, pair in enumerate(pairs[name]):
                    values[name][level, i : i + n] = (
                        values[name][level, i : i + n] + np.diag(pair)
                    ) / 2
    return values
