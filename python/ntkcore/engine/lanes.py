"""Lanes: streams of devices, each with its buffers and its tile under way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ntkcore.engine.device_arrays import cupy_module, pinned
from ntkcore.engine.tiles import Tile

STREAMS = 2  # of a device
KEPT_BYTES = 2**30  # of CUDA's own pool, between calls
RELEASE_THRESHOLD = 4  # cudaMemPoolAttrReleaseThreshold


@functools.cache
def _stream(device: int, number: int) -> Any:
    """One of a device's streams, kept: what it frees of CuPy's pool is its own again in the next
    call.
    """
    cupy = cupy_module()
    with cupy.cuda.Device(device):
        return cupy.cuda.Stream(non_blocking=True)


class Lane:
    """One stream of one device and what it owns: data there, tile buffers,
    a result under way to the host.
    """

    def __init__(self, cupy: Any, device: int, number: int) -> None:
        self.cupy, self.device, self.stream = cupy, device, _stream(device, number)
        with cupy.cuda.Device(device):
            self.home = cupy.cuda.get_current_stream()
        self.rooms: dict[str, Any] = {}
        self.task: Tile = (0, 0, 0, 0)
        self.finish: Callable[[], None] | None = None

    def room(self, name: str, count: int, dtype: np.dtype[Any], on_host: bool = False) -> Any:
        """A flat buffer of at least so many values, the same in every tile that it suffices for."""
        if name not in self.rooms or self.rooms[name].size < count:
            self.rooms.pop(name, None)
            self.rooms[name] = (
                pinned(self.cupy, (count,), dtype) if on_host else self.cupy.zeros(count, dtype)
            )
        return self.rooms[name][:count]

    def start(self) -> None:
        """After all that the current stream has been given."""
        with self.cupy.cuda.Device(self.device):
            self.stream.wait_event(self.home.record())

    def wait(self) -> None:
        """Until the tile under way has arrived."""
        finish, self.finish = self.finish, None
        if finish is not None:
            try:
                self.stream.synchronize()
            except RuntimeError as error:
                raise self.fault(error) from error
            finish()

    def join(self) -> None:
        """The current stream's next work, and its reuse of memory, come after this lane's."""
        with self.cupy.cuda.Device(self.device):
            self.wait()
            self.home.wait_event(self.stream.record())

    def abandon(self) -> None:
        """After an error: until nothing reads or writes what is about to be freed."""
        with self.cupy.cuda.Device(self.device), suppress(RuntimeError):
            self.stream.synchronize()

    def free(self) -> None:
        """Gives all memory back that is not in use, CuPy's and CUDA's."""
        self.wait()
        self.stream.synchronize()
        self.rooms.clear()
        self.cupy.get_default_memory_pool().free_all_blocks()
        self.cupy.get_default_pinned_memory_pool().free_all_blocks()
        runtime = self.cupy.cuda.runtime
        runtime.memPoolTrimTo(runtime.deviceGetDefaultMemPool(self.device), 0)

    def fault(self, error: RuntimeError) -> RuntimeError:
        """The error with its tile; one that a kernel left on the
        device may stem from any tile before.
        """
        rows, cols = self.task[:2], self.task[2:]
        where = f"device {self.device}, rows {rows}, columns {cols} of the kernel"
        try:
            self.stream.synchronize()
        except RuntimeError:
            where += " or a tile before: the environment's CUDA_LAUNCH_BLOCKING=1 shows which"
        return RuntimeError(f"{error} ({where})")


def make_lanes(cupy: Any, devices: Sequence[int] | None) -> list[Lane]:
    """Streams, the devices in turn. ValueError for a device that is not there."""
    count = cupy.cuda.runtime.getDeviceCount()
    chosen = [cupy.cuda.Device().id] if devices is None else list(devices)
    if not chosen or any(not isinstance(d, int) or not 0 <= d < count for d in chosen):
        raise ValueError(
            f"devices must be numbers of the {count} CUDA device(s) of this machine, not"
            f" {devices!r}"
        )
    return [
        Lane(cupy, device, number) for number in range(STREAMS) for device in dict.fromkeys(chosen)
    ]


@contextmanager
def pools_kept(lanes: list[Lane]) -> Iterator[None]:
    """CUDA's pools, of which the engine takes its memory, map it once a call,
    not anew after every wait.
    """
    runtime = lanes[0].cupy.cuda.runtime
    pools = [runtime.deviceGetDefaultMemPool(device) for device in {lane.device for lane in lanes}]
    for pool in pools:
        runtime.memPoolSetAttribute(pool, RELEASE_THRESHOLD, 2**63)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # of a device that has failed: its own error is on the way
            for pool in pools:
                runtime.memPoolSetAttribute(pool, RELEASE_THRESHOLD, KEPT_BYTES)
                runtime.memPoolTrimTo(pool, KEPT_BYTES)
