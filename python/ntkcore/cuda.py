"""Kernels on NVIDIA GPUs through CuPy: tiles of pairs on two streams, so that products and recursion overlap.

Data on a device give results there, on CuPy's current stream and without waiting for them. NumPy data with
``backend="cuda"`` give NumPy results, tile by tile through pinned memory. What depends on one sample only (variances
and the features made of them) comes from the CPU engine.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.backends import cpu_backends
from ntkcore.device_arrays import address, cupy_module, on_device, product, unit_rows, whole
from ntkcore.image_kernels import LANES, diagonals_of, flipped
from ntkcore.inputs import KERNELS, Array
from ntkcore.lanes import Lane, make_lanes, pools_kept
from ntkcore.tiles import Tile, progress_bar, tiles
from ntkcore.vector_kernels import BLOCK, Parts, check_variances

VECTOR_TILE = 8192  # columns and rows: 0.25 GB of covariances in float32
HOST_TILE = 2048  # of vectors, where results go to the host: pinning memory takes longer than copying it
IMAGE_TILE = 256
KEPT_BLOCKS = 4  # of images, per stream
SLAB = 256  # rows that a thread copies at a time


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
    """Tiles of pairs of images; tables of blocks of images are made when first asked for, and a few are kept."""

    step = LANES

    def __init__(
        self,
        program: _core.ImageProgram,
        a: Array,
        b: Array | None,
        heads: Sequence[Any],
        tile: int,
        flip: bool = False,
    ) -> None:
        self.program, self.tile = program, tile
        self.data = [flipped(program, a) if flip else a, a if b is None else b]
        self.same = b is None and not flip
        self.heads = heads
        self.backend = cpu_backends()[0]
        self.name = f"images {flip}"

    def _on(self, lane: Lane, side: int, first: int) -> list[int]:
        blocks = lane.blocks.setdefault(self.name, OrderedDict())
        key = (0 if self.same else side, first)
        if key not in blocks:
            last, head = first + self.tile, self.heads[side]
            part = None if head is None else np.ascontiguousarray(head[:, first:last])
            images = _core.Images(self.program, self.backend, self.data[side][first:last], part)
            arrays = [lane.cupy.asarray(array) for array in images.arrays]
            numbers = [min(self.tile, len(self.data[side]) - first)]
            for array in arrays:
                numbers += [address(array), array.shape[1]]
            blocks[key] = arrays, numbers
            while len(blocks) > KEPT_BLOCKS:
                blocks.popitem(last=False)
        blocks.move_to_end(key)
        return list(blocks[key][1])

    def evaluate(self, lane: Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool) -> None:
        i0, i1, j0, j1 = task
        row, col = i0 // self.tile * self.tile, j0 // self.tile * self.tile
        rows, cols = self._on(lane, 0, row), self._on(lane, 1, col)
        place = (i0 - row, i1 - i0, j0 - col, j1 - j0)
        double = self.data[0].dtype == np.float64
        _engine().evaluate_images(
            self.program, rows, cols, place, out, stride, diagonal and self.same, double, lane.device, lane.stream.ptr
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
    tile: int | None,
    progress: bool | None,
    flip: bool,
    devices: Sequence[int] | None,
    threads: int,
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
    if not is_images:
        _run(_Vectors(program, a, b, lanes, threads), len(a), b, parts, int(size), lanes, host, progress, threads)
        return
    heads, mine = _heads(program, a, b)
    _run(_Images(program, a, b, heads, int(size)), len(a), b, parts, int(size), lanes, host, progress, threads)
    if b is None:
        at = (np if host else cupy).arange(len(a))
        for name, arrays in parts.items():
            for array, values in zip(arrays, mine[name], strict=True):
                array[at, at] = values if host else cupy.asarray(values.astype(a.dtype))
    if flip:
        xp = np if host else cupy
        others = {name: [xp.empty_like(part) for part in arrays] for name, arrays in parts.items()}
        columns = a if b is None else b
        kernels = _Images(program, a, columns, heads, int(size), flip=True)
        _run(kernels, len(a), columns, others, int(size), lanes, host, progress, threads)
        for name, arrays in parts.items():
            for part, other in zip(arrays, others[name], strict=True):
                if b is None:
                    other[...] = xp.triu(other) + xp.triu(other, 1).T
                part[...] = (part + other) / 2


def _heads(program: _core.ImageProgram, a: Array, b: Array | None) -> tuple[list[Any], Any]:
    """Features of the head's ops for both sides where it needs them, and the diagonals of a symmetric kernel."""
    backend, needed = cpu_backends()[0], program.head_needs_variance
    mine = diagonals_of(program, a, backend, 1) if needed or b is None else None
    first = mine["head"] if needed and mine else None
    if b is None or not needed:
        return [first, first], mine
    return [first, diagonals_of(program, b, backend, 1)["head"]], mine


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
) -> None:
    symmetric = b is None
    work = tiles(rows, rows if b is None else len(b), size, size, symmetric)
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
                with lane.cupy.cuda.Device(lane.device), lane.stream:
                    sink.run(kernels, lane, task, symmetric and task[0] == task[2])
                count(pairs[number])
            for lane in lanes:
                lane.join()
        except BaseException:
            for lane in lanes:
                lane.abandon()
            raise
