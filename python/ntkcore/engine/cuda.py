"""Kernels on NVIDIA GPUs through CuPy: tiles of pairs on two streams, so that products and recursion overlap.

Data on a device give results there, on CuPy's current stream and without waiting for them. NumPy data with
``backend="cuda"`` give NumPy results, tile by tile through pinned memory. What depends on one sample only (variances
and the features made of them) comes from the CPU engine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.engine.backends import cpu_backends
from ntkcore.engine.device_arrays import address, cupy_module, on_device, product, unit_rows, whole
from ntkcore.engine.device_images import MAKERS, BlockMaker, DeviceBlocks
from ntkcore.engine.images import LANES, Diagonals, flipped
from ntkcore.engine.inputs import KERNELS, Array
from ntkcore.engine.lanes import Lane, make_lanes, pools_kept
from ntkcore.engine.tiles import Tile, banded, progress_bar, tiles, workers
from ntkcore.engine.vectors import BLOCK, Parts, check_variances

VECTOR_TILE = 8192  # columns and rows: 0.25 GB of covariances in float32
HOST_TILE = 2048  # of vectors, where results go to the host: pinning memory takes longer than copying it
IMAGE_TILE = 256
SLAB = 256  # rows that a thread copies at a time
BAND = 8  # tiles of images side by side, whose columns are read again by the rows below
AHEAD = 8  # tiles of images whose blocks are made in advance


def _engine() -> Any:
    return importlib.import_module("ntkcore._cuda")


class _Vectors:
    """Tiles of pairs of vectors."""

    step = BLOCK

    def __init__(self, program: _core.Program, a: Any, b: Any, lanes: list[Lane], threads: int) -> None:
        self.program = program
        self.points: list[_core.Points] = []  # of either side, from the first device's norms
        self.sides: dict[int, list[tuple[Any, list[int]]]] = {}
        for lane in lanes:
            if lane.device not in self.sides:
                with lane.cupy.cuda.Device(lane.device):
                    data = [a] if b is None else [a, b]
                    self.sides[lane.device] = [self._upload(lane.cupy, x, k, threads) for k, x in enumerate(data)]

    def _upload(self, cupy: Any, x: Any, side: int, threads: int) -> tuple[Any, list[int]]:
        """(arrays, numbers for the engine) of one side, on the current device and stream; unit vectors come first."""
        unit, norm2 = unit_rows(cupy.asarray(x))
        if side == len(self.points):
            self.points.append(points_of_norms(self.program, norm2, x, threads))
        points = self.points[side]
        arrays = [unit, *map(cupy.asarray, (*points.arrays, points.nngp, points.ntk))]
        return arrays, [*x.shape, len(points.arrays[0]), *map(address, arrays)]

    def evaluate(self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool) -> None:
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


def points_of_norms(program: _core.Program, norm2: Any, x: Any, threads: int) -> _core.Points:
    """What depends on one row of x only; ValueError where a variance is not finite. Waits for the norms."""
    norms = cupy_module().asnumpy(norm2)
    points = _core.Points.of_norms(program, norms, x.shape[1], x.dtype == np.float64, threads)
    check_variances({"nngp": points.nngp, "ntk": points.ntk}, x.dtype)
    return points


def vector_diagonal(program: Any, x: Any, threads: int) -> dict[str, Any]:
    """Kernels of every row, on a device, with itself: NumPy's float64, shape (outputs, n)."""
    points = points_of_norms(program, unit_rows(x)[1], x, threads)
    return {"nngp": points.nngp, "ntk": points.ntk}


class _Images:
    """Tiles of pairs of images."""

    step = LANES

    def __init__(
        self,
        program: _core.ImageProgram,
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

    def evaluate(self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool) -> None:
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


def _addresses(parts: Parts, wanted: bool = True) -> list[list[int]]:
    levels = len(next(iter(parts.values())))
    return [[address(p) for p in parts[name]] if wanted and name in parts else [0] * levels for name in KERNELS]


def _split(task: Tile, step: int, diagonal: bool) -> Iterator[tuple[Tile, bool]]:
    """A tile in four (of one on the diagonal, three); MemoryError where it is as small as can be."""
    i0, i1, j0, j1 = task
    if max(i1 - i0, j1 - j0) <= step:
        raise MemoryError(
            "the GPU has not the memory for one small tile of pairs: free arrays on it (cupy's "
            "get_default_memory_pool().free_all_blocks()), or use backend=None for the CPU"
        )
    cut = [lo + -(-(hi - lo) // (2 * step)) * step for lo, hi in ((i0, i1), (j0, j1))]
    rows = [(i0, min(cut[0], i1)), (min(cut[0], i1), i1)]
    cols = [(j0, min(cut[1], j1)), (min(cut[1], j1), j1)]
    for i, (r0, r1) in enumerate(rows):
        for j, (c0, c1) in enumerate(cols):
            if r0 < r1 and c0 < c1 and not (diagonal and j < i):
                yield (r0, r1, c0, c1), diagonal and i == j


class _Sink:
    """Where tiles go: slices of arrays on the device, or a NumPy array by way of pinned memory."""

    def __init__(self, parts: Parts, symmetric: bool, copiers: Executor | None) -> None:
        self.parts, self.symmetric, self.copiers = parts, symmetric, copiers

    def run(self, kernels: Any, lane: Lane, task: Tile, diagonal: bool, again: bool = True) -> None:
        lane.wait()
        lane.task = task
        try:
            self._evaluate(kernels, lane, task, diagonal)
        except RuntimeError as error:
            raise lane.fault(error) from error
        except MemoryError:
            lane.free()
            smaller = [(task, diagonal)] if again else _split(task, kernels.step, diagonal)
            for part, on_diagonal in smaller:
                self.run(kernels, lane, part, on_diagonal, not again)

    def _evaluate(self, kernels: Any, lane: Lane, task: Tile, diagonal: bool) -> None:
        here = slice(*task[:2]), slice(*task[2:])
        places = [here, here[::-1]] if self.symmetric and not diagonal else [here]
        staging = _Staging(lane, self.parts, places) if self.copiers else None
        views = staging.views() if staging else [_at(self.parts, place) for place in places]
        stride = staging.side if staging else next(iter(self.parts.values()))[0].shape[1]
        mirrored = self.symmetric and (not diagonal or isinstance(kernels, _Images))
        kernels.evaluate(lane, task, _addresses(views[0]) + _addresses(views[-1], mirrored), stride, diagonal)
        if staging and self.copiers:
            lane.finish = staging.fetch(self.copiers)


def _at(parts: Parts, place: tuple[slice, slice]) -> Parts:
    return {name: [part[place] for part in arrays] for name, arrays in parts.items()}


class _Staging:
    """A tile, and its mirror image, on the device and in pinned memory, on the way to their places in the result."""

    def __init__(self, lane: Lane, parts: Parts, places: list[tuple[slice, slice]]) -> None:
        self.lane, self.parts, self.places = lane, parts, places
        self.arrays = [part for arrays in parts.values() for part in arrays]
        self.side = whole(max(s.stop - s.start for s in places[0]))
        shape, dtype = (len(places), len(self.arrays), self.side, self.side), self.arrays[0].dtype
        count = int(np.prod(shape))
        self.device = lane.room("tile", count, dtype).reshape(shape)
        self.host = lane.room("pinned tile", count, dtype, on_host=True).reshape(shape)

    def views(self) -> list[Parts]:
        """Where the engine writes, for every place."""
        sizes = [len(arrays) for arrays in self.parts.values()]
        starts = np.cumsum([0, *sizes]).tolist()
        return [
            {name: list(tile[at : at + size]) for name, at, size in zip(self.parts, starts, sizes, strict=False)}
            for tile in self.device
        ]

    def fetch(self, copiers: Executor) -> Callable[[], None]:
        """Starts the way to the host; the function goes on to the result, by rows shared among threads."""
        copies = []
        for place, tile, pinned_tile in zip(self.places, self.device, self.host, strict=True):
            rows, cols = (s.stop - s.start for s in place)
            for part, source, staged in zip(self.arrays, tile, pinned_tile, strict=True):
                source[:rows].get(stream=self.lane.stream, out=staged[:rows], blocking=False)
                slabs = [slice(i, min(i + SLAB, rows)) for i in range(0, rows, SLAB)]
                copies += [(part[place][slab], staged[slab, :cols]) for slab in slabs]

        def finish() -> None:
            list(copiers.map(np.copyto, *zip(*copies, strict=True)))

        return finish


def fill(
    program: Any,
    a: Array,
    b: Array | None,
    parts: Parts,
    threads: int,
    tile: int | None,
    progress: bool | None,
    flip: bool,
    devices: Sequence[int] | None,
) -> None:
    """Write the kernels between samples of `a` and `b` (None: `a`) into `parts`, on the host or the device."""
    cupy = cupy_module()
    host = not on_device(next(iter(parts.values()))[0])
    lanes = make_lanes(cupy, devices)
    here = cupy.cuda.Device().id
    if not host and any(lane.device != here for lane in lanes):
        raise ValueError(
            f"the data, and so the result, lie on device {here}, not on devices={devices!r}: pass NumPy data to share "
            "the work among several"
        )
    is_images = a.ndim == 4
    size = tile or (IMAGE_TILE if is_images else HOST_TILE if host else VECTOR_TILE)
    step = LANES if is_images else BLOCK
    if not isinstance(size, (int, np.integer)) or size < step or size % step:
        raise ValueError(f"tile must be a positive multiple of {step}, not {tile!r}")
    if is_images:
        _fill_images(program, a, b, parts, threads, int(size), lanes, host, progress, flip)
    else:
        kernels = _Vectors(program, a, b, lanes, threads)
        _run(kernels, len(a), b, parts, int(size), lanes, host, progress, threads)


def _fill_images(
    program: _core.ImageProgram,
    a: Array,
    b: Array | None,
    parts: Parts,
    threads: int,
    size: int,
    lanes: list[Lane],
    host: bool,
    progress: bool | None,
    flip: bool,
) -> None:
    xp = np if host else cupy_module()
    with workers(MAKERS) as makers, workers(threads) as strips, workers(threads) as beside:
        mine = Diagonals(program, a, cpu_backends()[0], beside) if b is None or program.head_needs_variance else None
        heads = _heads(program, mine, b, beside)
        first, second = [(a, heads[0])], [(a if b is None else b, heads[1])]
        kernels = _Images(program, first if b is None else first + second, size, lanes, (makers, strips))
        check = mine.check if mine else None
        _run(kernels, len(a), b, parts, size, lanes, host, progress, threads, check)
        if b is None and mine:
            _write_diagonal(parts, mine.result(), a.dtype, xp)
        if not flip:
            return
        others = {name: [xp.empty_like(part) for part in arrays] for name, arrays in parts.items()}
        turned = [(flipped(program, a), heads[0])]
        kernels = _Images(program, turned + second, size, lanes, (makers, strips))
        _run(kernels, len(a), second[0][0], others, size, lanes, host, progress, threads)
        for name, arrays in parts.items():
            for part, other in zip(arrays, others[name], strict=True):
                if b is None:
                    other[...] = xp.triu(other) + xp.triu(other, 1).T
                part[...] = (part + other) / 2


def _heads(program: _core.ImageProgram, mine: Diagonals | None, b: Array | None, pool: ThreadPoolExecutor) -> list[Any]:
    """Features of the head's ops for both sides, where it needs them."""
    if mine is None or not program.head_needs_variance:
        return [None, None]
    first = mine.result()["head"]
    return [first, first if b is None else Diagonals(program, b, cpu_backends()[0], pool).result()["head"]]


def _write_diagonal(parts: Parts, values: dict[str, Any], dtype: np.dtype[Any], xp: Any) -> None:
    for name, arrays in parts.items():
        for array, diagonal in zip(arrays, values[name], strict=True):
            at = xp.arange(len(array))
            array[at, at] = xp.asarray(diagonal.astype(dtype))


def _run(
    kernels: Any,
    rows: int,
    b: Array | None,
    parts: Parts,
    size: int,
    lanes: list[Lane],
    host: bool,
    progress: bool | None,
    threads: int,
    check: Callable[[], None] | None = None,
) -> None:
    symmetric = b is None
    work = tiles(rows, rows if b is None else len(b), size, size, symmetric)
    if isinstance(kernels, _Images):
        work = kernels.order(work)
    pairs = [(t[1] - t[0]) * (t[3] - t[2]) for t in work]
    for lane in lanes:
        lane.start()
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="ntkcore") as copiers,
        progress_bar(sum(pairs), progress) as count,
        pools_kept(lanes),
    ):
        sink = _Sink(parts, symmetric, copiers if host else None)
        try:
            for number, task in enumerate(work):
                lane = lanes[number % len(lanes)]
                if check:
                    check()
                with lane.cupy.cuda.Device(lane.device), lane.stream:
                    if isinstance(kernels, _Images):
                        kernels.prepare(lane, work[number : number + AHEAD])
                    sink.run(kernels, lane, task, symmetric and task[0] == task[2])
                count(pairs[number])
            for lane in lanes:
                lane.join()
        except BaseException:
            for lane in lanes:
                lane.abandon()
            raise
