"""Kernels on NVIDIA GPUs through CuPy: tiles of pairs on two streams,
so that products and recursion overlap.

Data on a device give results there, on CuPy's current stream and without waiting for them. NumPy
data with ``backend="cuda"`` give NumPy results, tile by tile through pinned memory. What depends on
one sample only (variances and the features made of them) comes from the CPU engine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.engine.backends import cpu_backends
from ntkcore.engine.device_arrays import address, cupy_module, on_device, product, unit_rows, whole
from ntkcore.engine.device_images import MAKERS, BlockMaker, DeviceBlocks, check_room
from ntkcore.engine.device_results import OnDevice, ThroughPinnedMemory
from ntkcore.engine.images import LANES, Diagonals, ImageProgram, check_memory, flipped
from ntkcore.engine.inputs import Array
from ntkcore.engine.jobs import Job, Parts
from ntkcore.engine.lanes import Lane, make_lanes, pools_kept
from ntkcore.engine.tiles import Tile, banded, pairs_in, progress_bar, tiles, workers
from ntkcore.engine.vectors import BLOCK, check_variances

VECTOR_TILE = 8192  # columns and rows: 0.25 GB of covariances in float32
# The same where results go to the host: pinning memory takes longer than copying it.
HOST_TILE = 2048
IMAGE_TILE = 256
FULL_TILE = 64  # of pairs by full covariances: they take longer
BAND = 8  # tiles of images side by side, whose columns are read again by the rows below
AHEAD = 8  # tiles of images whose blocks are made in advance


def _engine() -> Any:
    return importlib.import_module("ntkcore._cuda")


class _Vectors:
    """Tiles of pairs of vectors."""

    step, whole_diagonal = BLOCK, False

    def __init__(
        self, program: _core.Program, a: Any, b: Any, lanes: list[Lane], threads: int
    ) -> None:
        self.program = program
        self.points: list[_core.Vectors] = []  # of either side, from the first device's norms
        self.sides: dict[int, list[tuple[Any, list[int]]]] = {}
        for lane in lanes:
            if lane.device not in self.sides:
                with lane.cupy.cuda.Device(lane.device):
                    data = [a] if b is None else [a, b]
                    self.sides[lane.device] = [
                        self._upload(lane.cupy, x, k, threads) for k, x in enumerate(data)
                    ]

    def _upload(self, cupy: Any, x: Any, side: int, threads: int) -> tuple[Any, list[int]]:
        """(arrays, numbers for the engine) of one side, on the current device and stream;
        unit vectors come first.
        """
        unit, norm2 = unit_rows(cupy.asarray(x))
        if side == len(self.points):
            self.points.append(points_of_norms(self.program, norm2, x, threads))
        points = self.points[side]
        arrays = [unit, *map(cupy.asarray, (*points.arrays, points.nngp, points.ntk))]
        return arrays, [*x.shape, len(points.arrays[0]), *map(address, arrays)]

    def prepare(self, lane: Lane, coming: Iterable[Tile]) -> None:
        """Nothing: all samples are on the devices."""

    def evaluate(
        self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool
    ) -> None:
        i0, i1, j0, j1 = task
        sides = self.sides[lane.device]
        ((rows, *_), row_numbers), ((cols, *_), col_numbers) = sides[0], sides[-1]
        width = whole(j1 - j0)
        buffer = lane.room("dot", (i1 - i0) * width, rows.dtype)
        dot = product(rows[i0:i1], cols[j0 : j0 + width], buffer)
        double = dot.dtype == np.float64
        place = (i0, i1 - i0, j0, j1 - j0)
        _engine().evaluate(
            self.program,
            row_numbers,
            col_numbers,
            place,
            address(dot),
            width,
            out,
            stride,
            diagonal,
            double,
            lane.device,
            lane.stream.ptr,
        )


def points_of_norms(program: _core.Program, norm2: Any, x: Any, threads: int) -> _core.Vectors:
    """What depends on one row of x only; ValueError where a variance is not finite.
    Waits for the norms.
    """
    norms = cupy_module().asnumpy(norm2)
    points = _core.Vectors.of_norms(program, norms, x.shape[1], x.dtype == np.float64, threads)
    check_variances({"nngp": points.nngp, "ntk": points.ntk}, x.dtype)
    return points


def vector_diagonal(program: Any, x: Any, threads: int) -> dict[str, Any]:
    """Kernels of every row, on a device, with itself: NumPy's float64, shape (outputs, n)."""
    points = points_of_norms(program, unit_rows(x)[1], x, threads)
    return {"nngp": points.nngp, "ntk": points.ntk}


class _Images:
    """Tiles of pairs of images, or of samples of any positions."""

    step, whole_diagonal = LANES, True

    def __init__(
        self,
        program: ImageProgram,
        sides: Sequence[tuple[Array, Any]],
        size: int,
        lanes: Sequence[Lane],
        pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
    ) -> None:
        self.program, self.size = program, size
        self.same = len(sides) == 1
        self.double = sides[0][0].dtype == np.float64
        maker = BlockMaker(program, cpu_backends()[0], sides, size, *pools)
        self.blocks: dict[int, DeviceBlocks] = {}
        for lane in lanes:
            readers = [other.stream for other in lanes if other.device == lane.device]
            if lane.device not in self.blocks:
                self.blocks[lane.device] = DeviceBlocks(lane.cupy, lane.device, readers, maker)

    def order(self, work: Sequence[Tile]) -> list[Tile]:
        """So that a block is not needed again long after it was."""
        most = min(blocks.most for blocks in self.blocks.values())
        return banded(work, self.size, min(BAND, most // 2))

    def _keys(self, task: Tile) -> list[tuple[int, int]]:
        side = 0 if self.same else 1
        return [(0, task[0] // self.size * self.size), (side, task[2] // self.size * self.size)]

    def prepare(self, lane: Lane, coming: Iterable[Tile]) -> None:
        """Begin to make what the coming tiles read."""
        self.blocks[lane.device].prepare(key for task in coming for key in self._keys(task))

    def evaluate(
        self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool
    ) -> None:
        i0, i1, j0, j1 = task
        row, col = self._keys(task)
        rows, cols = self.blocks[lane.device].get([row, col])
        place = (i0 - row[1], i1 - i0, j0 - col[1], j1 - j0)
        _engine().evaluate_images(
            self.program,
            rows.numbers,
            cols.numbers,
            place,
            out,
            stride,
            diagonal and self.same,
            self.double,
            lane.device,
            lane.stream.ptr,
        )


def write(job: Job, devices: Sequence[int] | None) -> None:
    """Compute the job's kernels on GPUs; the results lie on the host or on the data's device."""
    cupy = cupy_module()
    host = not on_device(next(iter(job.parts.values()))[0])
    lanes = make_lanes(cupy, devices)
    here = cupy.cuda.Device().id
    if not host and any(lane.device != here for lane in lanes):
        raise ValueError(
            f"the data, and so the result, lie on device {here}, not on devices={devices!r}: pass"
            " NumPy data to share the work among several"
        )
    if job.of_images:
        full = isinstance(job.program, _core.FullProgram)
        size = job.tile_of(LANES) or (FULL_TILE if full else IMAGE_TILE)
        _write_images(job, size, lanes, host)
    else:
        size = job.tile_of(BLOCK) or (HOST_TILE if host else VECTOR_TILE)
        kernels = _Vectors(job.program, job.a, job.b, lanes, job.threads)
        work = tiles(len(job.a), len(job.columns), size, size, job.symmetric)
        _run(kernels, work, job, lanes, host)


def _write_images(job: Job, size: int, lanes: list[Lane], host: bool) -> None:
    xp, program, symmetric = np if host else cupy_module(), job.program, job.symmetric
    check_memory(program, job.threads)
    check_room(program, job.a.itemsize, lanes)
    work = tiles(len(job.a), len(job.columns), size, size, symmetric)
    with workers(MAKERS) as makers, workers(job.threads) as strips, workers(job.threads) as beside:
        full = symmetric or program.head_needs_variance
        mine = Diagonals(program, job.a, cpu_backends()[0], beside) if full else None
        heads = _heads(program, mine, job.b, beside)
        first, second = [(job.a, heads[0])], [(job.columns, heads[1])]
        kernels = _Images(
            program, first if symmetric else first + second, size, lanes, (makers, strips)
        )
        _run(kernels, kernels.order(work), job, lanes, host, mine.check if mine else None)
        if symmetric and mine:
            _write_diagonal(job.parts, mine.result(), job.a.dtype, xp)
        if not job.flip:
            return
        others = {
            name: [xp.empty_like(part) for part in arrays] for name, arrays in job.parts.items()
        }
        turned = [(flipped(program, job.a), heads[0])]
        kernels = _Images(program, turned + second, size, lanes, (makers, strips))
        _run(kernels, kernels.order(work), replace(job, b=job.columns, parts=others), lanes, host)
        _average(job, others, xp)


def _average(job: Job, others: Parts, xp: Any) -> None:
    """The mean of the kernels and of those of the turned images."""
    for name, arrays in job.parts.items():
        for part, other in zip(arrays, others[name], strict=True):
            if job.symmetric:
                other[...] = xp.triu(other) + xp.triu(other, 1).T
            part[...] = (part + other) / 2


def _heads(
    program: ImageProgram, mine: Diagonals | None, b: Array | None, pool: ThreadPoolExecutor
) -> list[Any]:
    """Features of the head's ops for both sides, where it needs them."""
    if mine is None or not program.head_needs_variance:
        return [None, None]
    first = mine.result()["head"]
    return [
        first,
        first if b is None else Diagonals(program, b, cpu_backends()[0], pool).result()["head"],
    ]


def _write_diagonal(parts: Parts, values: dict[str, Any], dtype: np.dtype[Any], xp: Any) -> None:
    for name, arrays in parts.items():
        for array, diagonal in zip(arrays, values[name], strict=True):
            at = xp.arange(len(array))
            array[at, at] = xp.asarray(diagonal.astype(dtype))


def _run(
    kernels: _Vectors | _Images,
    work: Sequence[Tile],
    job: Job,
    lanes: list[Lane],
    host: bool,
    check: Callable[[], None] | None = None,
) -> None:
    """All tiles, on the lanes in turn. `check` raises what has gone wrong elsewhere."""
    for lane in lanes:
        lane.start()
    with (
        ThreadPoolExecutor(job.threads, thread_name_prefix="ntkcore") as copiers,
        progress_bar(sum(map(pairs_in, work)), job.progress) as count,
        pools_kept(lanes),
    ):
        parts, symmetric = job.parts, job.symmetric
        results = (
            ThroughPinnedMemory(parts, symmetric, copiers) if host else OnDevice(parts, symmetric)
        )
        try:
            for number, task in enumerate(work):
                lane = lanes[number % len(lanes)]
                if check:
                    check()
                with lane.cupy.cuda.Device(lane.device), lane.stream:
                    kernels.prepare(lane, work[number : number + AHEAD])
                    results.run(kernels, lane, task, symmetric and task[0] == task[2])
                count(pairs_in(task))
            for lane in lanes:
                lane.join()
        except BaseException:
            for lane in lanes:
                lane.abandon()
            raise
