"""Images, or samples of any positions, on a GPU: blocks of them with their tables, made once by
all threads of the host, ahead of the tiles that read them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine.device_arrays import address, pinned
from ntkcore.engine.images import ImageProgram
from ntkcore.engine.inputs import Array, size_text
from ntkcore.engine.lanes import Lane

MAKERS = 2  # blocks under way at a time: while one is copied, the next is computed
TASK = 32  # images of one task of a thread
SHARE = 8  # blocks may fill one part in so many of the device's free memory
FEWEST = 4  # blocks that are kept in any case

Key = tuple[int, int]  # side, first image


def check_room(program: ImageProgram, itemsize: int, lanes: Sequence[Lane]) -> None:
    """MemoryError where a device has no room for the covariances of one pair of samples."""
    if not isinstance(program, _core.FullProgram):
        return
    need = program.thread_bytes * itemsize // 8  # thread_bytes: in float64
    for lane in lanes:
        free = free_on(lane.cupy, lane.device)
        if need > free:
            raise MemoryError(
                "this network needs covariances between all pairs of positions,"
                f" {size_text(need)} for a pair of samples, but {size_text(free)} are free on"
                f" device {lane.device}: free arrays there, use samples with fewer positions, or"
                " backend=None with NumPy arrays for the CPU"
            )


def free_on(cupy: Any, device: int) -> int:
    """Memory of a device that can be had, in bytes."""
    with cupy.cuda.Device(device):
        free: int = cupy.cuda.runtime.memGetInfo()[0]
        return free + int(cupy.get_default_memory_pool().free_bytes())


class Block(NamedTuple):
    """Images on a device: the arrays that hold them there, and the engine's ImageArrays."""

    arrays: list[Any]
    numbers: list[int]


class BlockMaker:
    """Makes blocks of `size` images of either side; the threads of `strips` compute,
    those of `makers` copy.
    """

    def __init__(
        self,
        program: ImageProgram,
        backend: str,
        sides: Sequence[tuple[Array, npt.NDArray[np.float64] | None]],
        size: int,
        makers: ThreadPoolExecutor,
        strips: ThreadPoolExecutor,
    ) -> None:
        self._program, self._backend, self._sides, self._size = program, backend, sides, size
        self.makers, self._strips = makers, strips
        x = sides[0][0]
        double = x.dtype == np.float64
        self._lanes, self._pixels, self._table = _core.strip_sizes(program, double)
        self.nbytes = -(-size // self._lanes) * (self._pixels + self._table) * x.itemsize

    def to_device(self, cupy: Any, device: int, home: Any, uploads: Any, key: Key) -> Block:
        """The block at `key`, ready for all streams: allocated on the stream `home`,
        copied on the stream `uploads`.
        """
        (x, head), first = self._sides[key[0]], key[1]
        x = x[first : first + self._size]
        strips = -(-len(x) // self._lanes)
        count = strips * (self._pixels + self._table)
        staging = pinned(cupy, (count,), x.dtype)
        pixels, table = np.split(staging, [strips * self._pixels])
        self._write(x, pixels.reshape(strips, self._pixels), table.reshape(strips, self._table))
        features = np.zeros((0 if head is None else len(head), strips * self._lanes), x.dtype)
        if head is not None:
            features[:, : len(x)] = head[:, first : first + len(x)]
        with cupy.cuda.Device(device):
            with home:
                images, head_table = cupy.empty(count, x.dtype), cupy.empty(features.shape, x.dtype)
                uploads.wait_event(home.record())
            images.set(staging, stream=uploads)
            head_table.set(features, stream=uploads)
            uploads.synchronize()
        numbers = [
            len(x),
            address(images),
            self._pixels,
            address(images) + pixels.nbytes,
            self._table,
        ]
        return Block([images, head_table], [*numbers, address(head_table), features.shape[1]])

    def _write(self, x: Array, pixels: Array, table: Array) -> None:
        def task(first: int) -> None:
            strips = slice(first // self._lanes, (first + TASK) // self._lanes)
            images = x[first : first + TASK]
            _core.image_strips(self._program, self._backend, images, pixels[strips], table[strips])

        for done in [self._strips.submit(task, first) for first in range(0, len(x), TASK)]:
            done.result()


class DeviceBlocks:
    """Blocks of images on one device, for all its streams;
    where memory is scarce only the last used are kept.
    """

    def __init__(self, cupy: Any, device: int, readers: Sequence[Any], maker: BlockMaker) -> None:
        self._cupy, self._device, self._readers, self._maker = cupy, device, readers, maker
        with cupy.cuda.Device(device):
            self._home, self._uploads = (
                cupy.cuda.get_current_stream(),
                cupy.cuda.Stream(non_blocking=True),
            )
        self.most = max(FEWEST, free_on(cupy, device) // SHARE // maker.nbytes)
        # In the order of use: the block last asked for stands last.
        self._blocks: OrderedDict[Key, Future[Block]] = OrderedDict()

    def prepare(self, keys: Iterable[Key]) -> None:
        """Begin to make those blocks that are not there, as many of them as can be kept."""
        for key in list(dict.fromkeys(keys))[: self.most]:
            if key not in self._blocks:
                self._forget(len(self._blocks) + 1 - self.most)
                where = self._cupy, self._device, self._home, self._uploads
                self._blocks[key] = self._maker.makers.submit(self._maker.to_device, *where, key)
            self._blocks.move_to_end(key)

    def get(self, keys: Sequence[Key]) -> list[Block]:
        """These blocks; where there is no memory for them, once more without all others."""
        for last_time in (False, True):
            self.prepare(keys)
            try:
                return [self._blocks[key].result() for key in keys]
            except MemoryError:
                self._forget(len(self._blocks))
                self._cupy.get_default_memory_pool().free_all_blocks()
                if last_time:
                    raise
        raise AssertionError

    def _forget(self, count: int) -> None:
        """The oldest blocks go; who takes their memory next waits for
        all that the streams were told to do so far.
        """
        if count > 0:
            for reader in self._readers:
                self._home.wait_event(reader.record())
        for _ in range(count):
            self._blocks.popitem(last=False)[1].cancel()
