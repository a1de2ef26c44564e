"""Images on a GPU: blocks of them with their tables, made once by all threads of the host, ahead of the tiles that
read them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.inputs import Array

MAKERS = 2  # blocks under way at a time: while one is copied, the next is computed
STRIPS = 32  # images of one task of a thread
SHARE = 8  # blocks may fill one part in so many of the device's free memory
FEWEST = 4  # blocks that are kept in any case: two tiles'

Key = tuple[int, int]  # side, first image
Job = tuple[_core.ImageProgram, str, Array, npt.NDArray[np.float64] | None]  # program, backend, images, head


class Block(NamedTuple):
    """Images on a device: arrays there, and what the engine takes as their ImageArrays."""

    arrays: list[Any]
    numbers: list[int]


class BlockMaker:
    """Makes blocks of `size` images of either side, on a device's own stream for uploads."""

    def __init__(self, sides: Sequence[Job], size: int, makers: ThreadPoolExecutor, strips: ThreadPoolExecutor) -> None:
        self.sides, self.size, self.makers, self._strips = sides, size, makers, strips
        program, _, x, _ = sides[0]
        self._lanes = 64 // x.itemsize  # images of a strip
        self._widths = [self._lanes * int(np.prod(x.shape[1:])), self._lanes * program.table_size]
        self.bytes = -(-size // self._lanes) * sum(self._widths) * x.itemsize

    def __call__(self, cupy: Any, device: int, home: Any, uploads: Any, key: Key) -> Block:
        """The block at `key`, there and ready: allocated on the stream `home`, copied on `uploads`."""
        program, backend, x, head = self.sides[key[0]]
        x, first = x[key[1] : key[1] + self.size], key[1]
        strips = -(-len(x) // self._lanes)
        staging = np.frombuffer(
            cupy.cuda.alloc_pinned_memory(strips * sum(self._widths) * x.itemsize), x.dtype, strips * sum(self._widths)
        )
        pixels, table = (
            part.reshape(strips, width)
            for part, width in zip(np.split(staging, [strips * self._widths[0]]), self._widths, strict=True)
        )
        tasks = []
        for i in range(0, len(x), STRIPS):
            at = slice(i // self._lanes, (i + STRIPS) // self._lanes)
            task = program, backend, x[i : i + STRIPS], pixels[at], table[at]
            tasks.append(self._strips.submit(_core.image_strips, *task))
        for task_done in tasks:
            task_done.result()
        features = np.zeros((0 if head is None else len(head), strips * self._lanes), x.dtype)
        if head is not None:
            features[:, : len(x)] = head[:, first : first + len(x)]
        with cupy.cuda.Device(device):
            with home:
                there = cupy.empty(staging.shape, staging.dtype)
                uploads.wait_event(home.record())
            with uploads:
                there.set(staging, stream=uploads)
                head_there = cupy.asarray(features)
            uploads.synchronize()  # any stream may read it now, and the staging memory may go
        address, size = _address(there), pixels.nbytes
        numbers = [len(x), address, self._widths[0], address + size, self._widths[1]]
        return Block([there, head_there], [*numbers, _address(head_there), features.shape[1]])
