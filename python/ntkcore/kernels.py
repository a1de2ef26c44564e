"""The main call: a network spec and data in, exact NNGP and NTK matrices out."""

from __future__ import annotations

import functools
import os
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from ntkcore import _core
from ntkcore.backends import resolve
from ntkcore.layers import Layer, lower

Array = npt.NDArray[np.floating[Any]]
Get = str | Sequence[str]

KERNELS = ("nngp", "ntk")
# One BLAS call covers one block of this many rows and columns, anchored at (0, 0): its shape, and with it every bit of
# the result, does not depend on the number of threads or on the tiling.
BLOCK = _core.STRIP


def kernel(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    get: Get = "ntk",
    *,
    depths: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    tile: int = 4 * BLOCK,
    backend: str | None = None,
    out: Any = None,
) -> Any:
    """Exact NNGP covariance and NTK of an infinitely wide network between the rows of ``x1`` and ``x2``.

    Parameters
    ----------
    net
        The network, e.g. ``Serial(Dense(2**0.5), Relu(), Dense())``.
    x1, x2
        Data, shapes (n1, d) and (n2, d), any real dtype and memory order. ``x2=None`` means ``x1``: one triangle is
        computed and mirrored, and the diagonal is exact.
    get
        "ntk" or "nngp" for one matrix; a tuple such as ("nngp", "ntk") for a namedtuple of both from one pass.
    depths
        Numbers of nonlinear stages: results get a leading axis, entry i being the kernel of the network cut after
        ``depths[i]`` stages (its read-out kept), all in one pass.
    dtype
        float32 or float64: of the arithmetic and the result. By default float64 data give float64, float32 and float16
        give float32, integers and booleans float64. Variances are always followed in float64.
    threads
        Number of worker threads; by default $NTKCORE_NUM_THREADS or the cores this process may use. The result does not
        depend on it, bit for bit.
    tile
        Columns per task, a multiple of 256: memory above the result is 1 KiB x ``tile`` x itemsize/4 a thread, plus a copy of
        the data and 2 values per op and point. The result does not depend on it.
    backend
        Name of an executor (`ntkcore.backends()`); by default $NTKCORE_BACKEND or the fastest.
    out
        Where to write: an array of the result's shape and dtype with contiguous rows (a tuple of arrays, if ``get`` is one).

    Returns
    -------
    ndarray of shape (n1, n2), or (len(depths), n1, n2); or a namedtuple of them.

    Raises
    ------
    TypeError, ValueError
        For data, specs or options that do not fit: the message names them.
    MemoryError
        If the result would not fit into the memory that is free, before any work.

    References
    ----------
    Jacot et al. 2018 (NTK); Lee et al. 2018 (NNGP); Cho & Saul 2009 (arc-cosine kernels).
    """
    names = _names(get)
    a = _data(x1, "x1", dtype)
    b = None if x2 is None else _data(x2, "x2", a.dtype if dtype is None else dtype)
    if b is not None and b.shape[1:] != a.shape[1:]:
        raise ValueError(f"x1 and x2 differ in features: {a.shape[1]} and {b.shape[1]}; both are rows of the same kind of data")
    if b is not None and dtype is None and np.result_type(_result_dtype(x1), _result_dtype(x2)) != a.dtype:
        a, b = a.astype(np.float64), _data(x2, "x2", np.float64)
    program = lower(net, a.shape[1:], wants_ntk="ntk" in names, depths=depths)
    executor = resolve(backend)
    workers = _thread_count(threads)
    if not isinstance(tile, (int, np.integer)) or tile < BLOCK or tile % BLOCK:
        raise ValueError(f"tile must be a positive multiple of {BLOCK}, not {tile!r}")
    levels = 1 if depths is None else len(depths)
    shape = (levels, len(a), len(a if b is None else b))
    results = _results(out, names, get, shape if depths is not None else shape[1:], a.dtype)
    rows = _points(program, a)
    cols = rows if b is None else _points(program, b)
    parts = {name: list(array.reshape(shape)) for name, array in results.items()}
    work = functools.partial(_evaluate, executor, rows, cols, parts, cols is rows)
    _run(_tasks(shape[1], shape[2], int(tile), cols is rows), work, workers, int(tile), a.dtype)
    return results[names[0]] if isinstance(get, str) else _tuple_type(names)(*(results[name] for name in names))


def kernel_diag(
    net: Layer,
    x: npt.ArrayLike,
    get: Get = "ntk",
    *,
    depths: Sequence[int] | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Any:
    """The diagonal of ``kernel(net, x, None, get)`` without the matrix: shape (n,) or (len(depths), n).

    Computed in float64 with a correlation of exactly 1; arguments and errors as for `kernel`.
    """
    names = _names(get)
    a = _data(x, "x", dtype)
    program = lower(net, a.shape[1:], wants_ntk="ntk" in names, depths=depths)
    points = _points(program, a)
    values = {name: np.asarray(getattr(points, name), dtype=a.dtype) for name in names}
    if depths is None:
        values = {name: value[0] for name, value in values.items()}
    return values[names[0]] if isinstance(get, str) else _tuple_type(names)(*(values[name] for name in names))


def _names(get: Get) -> tuple[str, ...]:
    names = (get,) if isinstance(get, str) else tuple(get)
    if not names or len(set(names)) < len(names) or not set(names) <= set(KERNELS):
        raise ValueError(f"get must be 'nngp', 'ntk' or a tuple of them, not {get!r}")
    return names


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("Kernel", names))  # type: ignore[misc]


def _result_dtype(x: Any) -> np.dtype[Any]:
    dtype = np.asarray(x).dtype
    if dtype.kind not in "fiub":
        raise TypeError(f"data must be real numbers, not dtype {dtype}; ragged or complex data and strings have no kernel")
    if dtype.kind != "f":
        return np.dtype(np.float64)
    return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)


def _data(x: npt.ArrayLike, name: str, dtype: npt.DTypeLike | None) -> Array:
    """The data as a C-contiguous float32 or float64 matrix; every unfit input raises here, before any work."""
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from None
    natural = _result_dtype(array)
    wanted = natural if dtype is None else np.dtype(dtype)
    if wanted not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, not {wanted}")
    if array.ndim != 2:
        hint = {1: "; use x.reshape(-1, 1) for one feature or x.reshape(1, -1) for one sample", 0: ""}.get(
            array.ndim, "; flatten samples first: x.reshape(len(x), -1)"
        )
        raise ValueError(f"{name} must be a matrix (samples, features), got {array.ndim} dimension(s){hint}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}")
    matrix = np.ascontiguousarray(array, dtype=wanted)
    if not np.isfinite(matrix).all():
        bad = "NaN or infinity" if array.dtype.kind == "f" and not np.isfinite(array).all() else f"values beyond {wanted}'s range"
        raise ValueError(f"{name} holds {bad}: impute or drop such samples, or rescale the features")
    return cast(Array, matrix)


def _thread_count(threads: int | None) -> int:
    if threads is None:
        given = os.environ.get("NTKCORE_NUM_THREADS")
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = int(given) if given and given.isdigit() else available
    if not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ValueError(f"threads must be a positive number, not {threads!r}")
    return int(threads)


def _available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def _results(out: Any, names: tuple[str, ...], get: Get, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Array]:
    if out is None:
        need, free = len(names) * int(np.prod(shape, dtype=object)) * dtype.itemsize, _available_bytes()
        if free is not None and need > free:
            raise MemoryError(
                f"the result needs {need / 2**30:.1f} GiB ({len(names)} of shape {shape}, {dtype}), but {free / 2**30:.1f} GiB are "
                "free: use fewer points, dtype=float32, one kernel at a time, or pass out= a memory-mapped array"
            )
        return {name: np.empty(shape, dtype) for name in names}
    given = (out,) if isinstance(get, str) else tuple(out)
    if len(given) != len(names):
        raise ValueError(f"out must hold {len(names)} arrays, one for each of get={get!r}, not {len(given)}")
    for array in given:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out must be a NumPy array, not {type(array).__name__}")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"out must have shape {shape} and dtype {dtype}, not {array.shape} and {array.dtype}")
        if not array.flags.writeable or not array.flags.c_contiguous:
            raise ValueError("out must be writeable and C-contiguous")
    return dict(zip(names, given, strict=True))


def _points(program: _core.Program, x: Array) -> _core.Points:
    points = _core.Points(program, x)
    largest = np.finfo(x.dtype).max
    for values in (points.nngp, points.ntk):
        bad = ~(np.abs(values) <= largest)
        if bad.any():
            raise ValueError(
                f"sample {int(np.argwhere(bad)[0][1])} has a variance that is not finite in {x.dtype}: rescale the data "
                "(or reduce W_std), or use dtype=float64"
            )
    return points


Task = tuple[int, int, int, int]  # rows [i0, i1), columns [j0, j1)


def _tasks(rows: int, cols: int, tile: int, symmetric: bool) -> Iterator[Task]:
    for i in range(0, rows, BLOCK):
        below = min(i + BLOCK, rows)
        if symmetric:
            yield i, below, i, below
        for j in range(below if symmetric else 0, cols, tile):
            yield i, below, j, min(j + tile, cols)


def _evaluate(
    backend: str, rows: _core.Points, cols: _core.Points, parts: dict[str, list[Array]], symmetric: bool, task: Task, dot: Array
) -> None:
    """Covariances of one tile by BLAS, block by block, then the recursion in place of them."""
    i0, i1, j0, j1 = task
    a, b = rows.unit[i0:i1], cols.unit
    for j in range(j0, j1, BLOCK):
        end = min(j + BLOCK, j1)
        np.matmul(a, b[j:end].T, out=dot[: i1 - i0, j - j0 : end - j0])
    diagonal = symmetric and i0 == j0
    nothing = [None] * len(next(iter(parts.values())))
    tiles = [[p[i0:i1, j0:j1] for p in parts[name]] if name in parts else nothing for name in KERNELS]
    mirror = symmetric and not diagonal
    mirrors = [[p[j0:j1, i0:i1] for p in parts[name]] if mirror and name in parts else nothing for name in KERNELS]
    _core.evaluate(backend, rows, i0, cols, j0, dot, *tiles, *mirrors, diagonal)


_blas = functools.cache(ThreadpoolController)


def _run(tasks: Iterator[Task], work: Callable[[Task, Array], None], threads: int, tile: int, dtype: np.dtype[Any]) -> None:
    """All tasks by `threads` workers, each with a buffer of its own and with BLAS on its own core."""
    lock, stop = threading.Lock(), threading.Event()

    def worker() -> None:
        dot = np.empty((BLOCK, tile + 16), dtype)  # rows a power of two apart would fight for the same cache sets
        while not stop.is_set():
            with lock:
                task = next(tasks, None)
            if task is None:
                return
            work(task, dot)

    with _blas().limit(limits=1, user_api="blas"):
        if threads == 1:
            worker()
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="ntkcore") as pool:
            try:
                for future in [pool.submit(worker) for _ in range(threads)]:
                    future.result()
            except BaseException:
                stop.set()
                raise
