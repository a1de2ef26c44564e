"""Kernels on NVIDIA GPUs through CuPy: tiles of pairs on two streams, so that products and recursion overlap.

Data on a device give results there, on CuPy's current stream and without waiting for them. NumPy data with
``backend="cuda"`` give NumPy results, tile by tile through pinned memory. What depends on one sample only (variances
and the features made of them) comes from the CPU engine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ntkcore import _core
from ntkcore.backends import cpu_backends, cuda_problem
from ntkcore.device_images import MAKERS, BlockMaker, DeviceBlocks
from ntkcore.image_kernels import LANES, Diagonals, flipped
from ntkcore.inputs import KERNELS, Array, Get, kernel_names
from ntkcore.tiles import Tile, banded, progress_bar, tiles, workers
from ntkcore.vector_kernels import BLOCK, Parts, points_of

VECTOR_TILE = 8192  # columns and rows: 0.25 GB of covariances in float32
IMAGE_TILE = 256
STREAMS = 2
BAND = 8  # tiles of images side by side, whose columns are read again by the rows below
AHEAD = 8  # tiles of images whose blocks are made in advance


def on_device(x: object) -> bool:
    """Does the array lie on a CUDA device (CuPy, PyTorch, anything with DLPack or __cuda_array_interface__)?"""
    if type(x) is np.ndarray:
        return False
    if hasattr(type(x), "__cuda_array_interface__") and getattr(x, "is_cuda", True):
        return True
    if not hasattr(x, "__dlpack_device__"):
        return False
    return bool(int(x.__dlpack_device__()[0]) == 2)  # kDLCUDA


def to_host(x: Any) -> Any:
    """A device array as NumPy's; anything else as it is."""
    if x is None or not on_device(x):
        return x
    cupy = _cupy()
    return cupy.asnumpy(cupy.asarray(x) if hasattr(type(x), "__cuda_array_interface__") else cupy.from_dlpack(x))


def array_module(x: object) -> Any:
    """CuPy for an array on a device, NumPy for anything else."""
    return _cupy() if on_device(x) else np


def _cupy() -> Any:
    problem = cuda_problem()
    if problem:
        raise ValueError(f"the backend 'cuda' cannot run here: {problem}")
    return importlib.import_module("cupy")


def _engine() -> Any:
    return importlib.import_module("ntkcore._cuda")


def _address(array: Any) -> int:
    return int(array.__cuda_array_interface__["data"][0])


class _Lane:
    """One stream of one device and what it owns: data there, tile buffers, a result under way to the host."""

    def __init__(self, cupy: Any, device: int, shared: dict[str, Any]) -> None:
        self.cupy, self.device = cupy, device
        with cupy.cuda.Device(device):
            self.stream = cupy.cuda.Stream(non_blocking=True)
        self.shared = shared  # arrays that all streams of the device read, until the end
        self.finish: Callable[[], None] | None = None

    def wait(self) -> None:
        """Until the tile under way has arrived."""
        if self.finish is not None:
            self.stream.synchronize()
            finish, self.finish = self.finish, None
            finish()


class _Vectors:
    """Tiles of pairs of vectors."""

    step = BLOCK

    def __init__(self, program: _core.Program, a: Array, b: Array | None) -> None:
        self.program = program
        self.points = [points_of(program, x) for x in ([a] if b is None else [a, b])]

    def _on(self, lane: _Lane, side: int) -> tuple[Any, list[int]]:
        """(unit vectors, addresses) of one side's points on the lane's device, uploaded once."""
        key = f"points {side}"
        if key not in lane.shared:
            points = self.points[side]
            root, table = points.arrays
            arrays = [lane.cupy.asarray(array) for array in (points.unit, root, table, points.nngp, points.ntk)]
            sizes = [*points.unit.shape, len(root)]
            lane.shared[key] = arrays, [*sizes, *map(_address, arrays)]
            lane.stream.synchronize()  # the other streams read them too
        arrays, numbers = lane.shared[key]
        return arrays[0], numbers

    def evaluate(self, lane: _Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool) -> None:
        i0, i1, j0, j1 = task
        (rows, row_numbers), (cols, col_numbers) = self._on(lane, 0), self._on(lane, len(self.points) - 1)
        dot = lane.cupy.matmul(rows[i0:i1], cols[j0:j1].T)
        double = dot.dtype == np.float64
        place = (i0, i1 - i0, j0, j1 - j0)
        _engine().evaluate(
            self.program,
            row_numbers,
            col_numbers,
            place,
            _address(dot),
            j1 - j0,
            out,
            stride,
            diagonal,
            double,
            lane.device,
            lane.stream.ptr,
        )


class _Images:
    """Tiles of pairs of images."""

    step = LANES

    def __init__(
        self,
        program: _core.ImageProgram,
        sides: Sequence[tuple[Array, Any]],
        size: int,
        lanes: Sequence[_Lane],
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

    def prepare(self, lane: _Lane, coming: Iterable[Tile]) -> None:
        """Begin to make what the coming tiles read."""
        self.blocks[lane.device].prepare(key for task in coming for key in self._keys(task))

    def evaluate(self, lane: _Lane, task: Tile, out: list[list[int]], stride: int, diagonal: bool) -> None:
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


def _lanes(cupy: Any, devices: Sequence[int] | None) -> list[_Lane]:
    """Streams, the devices in turn. ValueError for a device that is not there."""
    count = cupy.cuda.runtime.getDeviceCount()
    chosen = [cupy.cuda.Device().id] if devices is None else list(devices)
    if not chosen or any(not isinstance(d, int) or not 0 <= d < count for d in chosen):
        raise ValueError(f"devices must be numbers of the {count} CUDA device(s) of this machine, not {devices!r}")
    shared: dict[int, dict[str, Any]] = {device: {} for device in chosen}
    return [_Lane(cupy, device, shared[device]) for _ in range(STREAMS) for device in chosen]


def _addresses(parts: Parts, levels: int, rows: slice, cols: slice) -> list[list[int]]:
    return [[_address(p[rows, cols]) for p in parts[name]] if name in parts else [0] * levels for name in KERNELS]


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


def allocate(out: Any, get: Get, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The result's arrays on the current device, new or the caller's ``out``."""
    names = kernel_names(get)
    cupy = _cupy()
    if out is None:
        return {name: cupy.empty(shape, dtype) for name in names}
    arrays = (out,) if isinstance(get, str) else tuple(out)
    if len(arrays) != len(names) or any(not isinstance(array, cupy.ndarray) for array in arrays):
        raise TypeError(f"out must be a CuPy array for each of get={get!r}, as the data lie on a GPU")
    for array in arrays:
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous, of shape {shape} and dtype {dtype}")
    return dict(zip(names, arrays, strict=True))


def to_device(array: Array) -> Any:
    """A NumPy array as CuPy's, on the current device."""
    return _cupy().asarray(array)


class _Sink:
    """Where tiles go: slices of arrays on the device, or a NumPy array by way of pinned memory."""

    def __init__(self, parts: Parts, symmetric: bool, host: bool) -> None:
        self.parts, self.symmetric, self.host = parts, symmetric, host
        self.levels = len(next(iter(parts.values())))

    def run(self, kernels: Any, lane: _Lane, task: Tile, diagonal: bool) -> None:
        try:
            (self._through_host if self.host else self._on_device)(kernels, lane, task, diagonal)
        except RuntimeError as error:
            rows, cols = task[:2], task[2:]
            raise RuntimeError(f"{error} (device {lane.device}, rows {rows}, columns {cols} of the kernel)") from error
        except MemoryError:
            lane.stream.synchronize()
            lane.cupy.get_default_memory_pool().free_all_blocks()
            for part, on_diagonal in _split(task, kernels.step, diagonal):
                self.run(kernels, lane, part, on_diagonal)

    def _on_device(self, kernels: Any, lane: _Lane, task: Tile, diagonal: bool) -> None:
        i0, i1, j0, j1 = task
        here, there = (slice(i0, i1), slice(j0, j1)), (slice(j0, j1), slice(i0, i1))
        mirrored = self.symmetric and (not diagonal or isinstance(kernels, _Images))
        out = _addresses(self.parts, self.levels, *here)
        out += _addresses(self.parts if mirrored else {}, self.levels, *there)
        stride = next(iter(self.parts.values()))[0].shape[1]
        kernels.evaluate(lane, task, out, stride, diagonal)

    def _through_host(self, kernels: Any, lane: _Lane, task: Tile, diagonal: bool) -> None:
        lane.wait()
        i0, i1, j0, j1 = task
        shape, cupy = (i1 - i0, j1 - j0), lane.cupy
        own = {name: [cupy.zeros(shape, part.dtype) for part in arrays] for name, arrays in self.parts.items()}
        whole = slice(None), slice(None)
        mirrored = diagonal and isinstance(kernels, _Images)
        out = _addresses(own, self.levels, *whole) + _addresses(own if mirrored else {}, self.levels, *whole)
        kernels.evaluate(lane, task, out, shape[1], diagonal)
        pinned = {name: [_pinned(cupy, array) for array in arrays] for name, arrays in own.items()}
        for name, arrays in own.items():
            for array, staging in zip(arrays, pinned[name], strict=True):
                array.get(stream=lane.stream, out=staging, blocking=False)

        def finish() -> None:
            for name, arrays in self.parts.items():
                for part, staging in zip(arrays, pinned[name], strict=True):
                    part[i0:i1, j0:j1] = staging
                    if self.symmetric and not diagonal:
                        part[j0:j1, i0:i1] = staging.T
            own.clear()

        lane.finish = finish


def _pinned(cupy: Any, array: Any) -> Array:
    memory = cupy.cuda.alloc_pinned_memory(array.nbytes)
    staging: Array = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    return staging


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
    cupy = _cupy()
    host = not on_device(next(iter(parts.values()))[0])
    lanes = _lanes(cupy, devices)
    if not host and len({lane.device for lane in lanes}) > 1:
        raise ValueError("results on a device lie on one device: pass NumPy data to share the work among several")
    is_images = a.ndim == 4
    size = tile or (IMAGE_TILE if is_images else VECTOR_TILE)
    step = LANES if is_images else BLOCK
    if not isinstance(size, (int, np.integer)) or size < step or size % step:
        raise ValueError(f"tile must be a positive multiple of {step}, not {tile!r}")
    if is_images:
        _fill_images(program, a, b, parts, threads, int(size), lanes, host, progress, flip, cupy)
    else:
        _run(_Vectors(program, a, b), len(a), b, parts, int(size), lanes, host, progress, cupy)


def _fill_images(
    program: _core.ImageProgram,
    a: Array,
    b: Array | None,
    parts: Parts,
    threads: int,
    size: int,
    lanes: list[_Lane],
    host: bool,
    progress: bool | None,
    flip: bool,
    cupy: Any,
) -> None:
    xp = np if host else cupy
    with workers(MAKERS) as makers, workers(threads) as strips, workers(threads) as beside:
        mine = Diagonals(program, a, cpu_backends()[0], beside) if b is None or program.head_needs_variance else None
        heads = _heads(program, mine, b, beside)
        first, second = [(a, heads[0])], [(a if b is None else b, heads[1])]
        kernels = _Images(program, first if b is None else first + second, size, lanes, (makers, strips))
        check = mine.check if mine else None
        _run(kernels, len(a), b, parts, size, lanes, host, progress, cupy, check)
        if b is None and mine:
            _write_diagonal(parts, mine.result(), a.dtype, xp)
        if not flip:
            return
        others = {name: [xp.empty_like(part) for part in arrays] for name, arrays in parts.items()}
        turned = [(flipped(program, a), heads[0])]
        kernels = _Images(program, turned + second, size, lanes, (makers, strips))
        _run(kernels, len(a), second[0][0], others, size, lanes, host, progress, cupy)
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
    lanes: list[_Lane],
    host: bool,
    progress: bool | None,
    cupy: Any,
    check: Callable[[], None] | None = None,
) -> None:
    symmetric = b is None
    work = tiles(rows, rows if b is None else len(b), size, size, symmetric)
    if isinstance(kernels, _Images):
        work = kernels.order(work)
    pairs = [(t[1] - t[0]) * (t[3] - t[2]) for t in work]
    sink = _Sink(parts, symmetric, host)
    current = cupy.cuda.get_current_stream()
    start = current.record()
    for lane in lanes:
        lane.stream.wait_event(start)
    with progress_bar(sum(pairs), progress) as count:
        for number, task in enumerate(work):
            lane = lanes[number % len(lanes)]
            if check:
                check()
            with cupy.cuda.Device(lane.device), lane.stream:
                if isinstance(kernels, _Images):
                    kernels.prepare(lane, work[number : number + AHEAD])
                sink.run(kernels, lane, task, symmetric and task[0] == task[2])
            count(pairs[number])
        for lane in lanes:
            with cupy.cuda.Device(lane.device):
                lane.wait()
                current.wait_event(lane.stream.record())
