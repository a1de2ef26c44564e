"""What a build would take: a few pairs are computed to find out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntkcore.engine.backends import resolve
from ntkcore.engine.inputs import Array, Get, check_data, kernel_names, size_text, thread_count
from ntkcore.engine.kernels import kernel
from ntkcore.engine.packing import check_packed
from ntkcore.specs.layers import Layer

TILES = (2048, 1024, 512, 256, 128, 64, 32, 16)
SECONDS_PER_TILE = 60.0  # that an interruption may cost
CALIBRATION = 0.1  # seconds after which a kernel's speed is known


@dataclass(frozen=True)
class Plan:
    """What a build takes: pairs to compute, tiles, bytes on disk, bytes in memory,
    seconds by a short calibration.
    """

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
            f"{' and '.join(self.kernels)} of shape {self.shape}, {self.dtype}: {self.pairs:.3g}"
            f" pairs in {self.tiles} tiles of {self.tile}, {size_text(self.disk)} on disk,"
            f" {size_text(self.memory)} of memory, about {time_}"
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
    """What `build` with these arguments would take; computes a few pairs to find out.

    Parameters
    ----------
    net, x, x2, get, tile, dtype, threads, backend
        As for `build`.

    Returns
    -------
    Plan
        Shape, tiles, pairs, disk and memory in bytes, seconds; it prints readably.

    Raises
    ------
    TypeError, ValueError
        For data, specs or options that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import mlp, plan
    >>> plan(mlp(3), np.eye(100)).pairs
    5050
    """
    a, b = check_data(x, x2, dtype)
    return estimate(net, a, b, kernel_names(get), tile, thread_count(threads), resolve(backend))


def estimate(
    net: Layer,
    a: Array,
    b: Array | None,
    names: tuple[str, ...],
    tile: int | None,
    threads: int,
    backend: str,
) -> Plan:
    """`plan`, of arguments that were looked at."""
    check_packed(net, a, b)
    n, m = len(a), len(a if b is None else b)
    per_pair = seconds_per_pair(net, a, names, backend)
    size = (
        next((t for t in TILES if t * t * per_pair <= SECONDS_PER_TILE), TILES[-1])
        if tile is None
        else tile
    )
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"tile must be a positive number of rows, not {tile!r}")
    rows, cols = -(-n // size), -(-m // size)
    pairs = n * (n + 1) // 2 if b is None else n * m
    disk = n * m * a.itemsize * len(names) + a.nbytes + (0 if b is None else b.nbytes)
    memory = a.nbytes + 4 * threads * size**2 * a.itemsize * len(names)
    count = rows * (rows + 1) // 2 if b is None else rows * cols
    return Plan(
        (n, m),
        names,
        str(a.dtype),
        int(size),
        count,
        pairs,
        disk,
        memory,
        pairs * per_pair / threads,
    )


def seconds_per_pair(net: Layer, a: Array, names: tuple[str, ...], backend: str) -> float:
    """Of a few pairs, then more and more, until they take long enough to be measured."""
    columns, most = a[: 512 if a.ndim == 2 else 16], min(len(a), 512)
    kernel(net, a[:1], a[:1], names, threads=1, backend=backend, progress=False)  # warms up
    rows = 1
    while True:
        start = time.perf_counter()
        kernel(net, a[:rows], columns, names, threads=1, backend=backend, progress=False)
        seconds = time.perf_counter() - start
        if seconds > CALIBRATION or rows == most:
            return seconds / (rows * len(columns))
        rows = min(4 * rows, most)
