"""The main call: a network spec and data in, exact NNGP and NTK matrices out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine import cuda, device_arrays, images, inputs, vectors
from ntkcore.engine.backends import cpu_backends, resolve
from ntkcore.engine.inputs import (
    Array,
    Get,
    check_data,
    check_sequence,
    kernel_names,
    packed,
    thread_count,
)
from ntkcore.engine.jobs import Job
from ntkcore.engine.packing import check_packed
from ntkcore.engine.scales import check_finite, near_one, range_of, scale_back
from ntkcore.engine.tiles import one_blas_thread
from ntkcore.engine.vectors import check_variances
from ntkcore.specs import lowering
from ntkcore.specs.layers import Layer
from ntkcore.specs.lowering import PoolWindow, lower
from ntkcore.specs.program import Range


def kernel(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    get: Get = "ntk",
    *,
    depths: Sequence[int] | None = None,
    pool_windows: Sequence[PoolWindow] | None = None,
    augment: str | None = None,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    tile: int | None = None,
    backend: str | None = None,
    progress: bool | None = None,
    out: Any = None,
    devices: Sequence[int] | None = None,
) -> Any:
    """Exact NNGP covariance and NTK of an infinitely wide network
    between the samples of ``x1`` and ``x2``.

    Parameters
    ----------
    net
        The network, e.g. ``Serial(Dense(2**0.5), Relu(), Dense())`` or `ntkcore.cntk`.
    x1, x2
        Vectors (n, d), sequences (n, length, channels), images (n, height, width, channels), or
        samples with more axes before the channels; any real dtype and memory order.
        ``x2=None`` means ``x1``: one triangle is computed and mirrored, and the diagonal is exact.
    get
        "ntk" or "nngp" for one matrix; a tuple such as ("nngp", "ntk")
        for a namedtuple of both from one pass.
    depths
        Numbers of nonlinear stages: results get a leading axis, entry i being the kernel of the
        network cut after ``depths[i]`` stages (its read-out kept), all in one pass.
    pool_windows
        Windows of local average pooling in place of the network's Flatten or GlobalAvgPool: odd
        numbers (1 is Flatten) or "global", all in one pass, on a leading axis (after that of
        ``depths``). Borders: see `LocalAvgPool` (Li et al. 2019).
    augment
        "hflip": K averaged over horizontal flips of both images, (K(x, x') + K(flip x, x'))/2,
        at the cost of two.
    dtype
        float32 or float64: of the arithmetic and the result. By default float64 data give float64,
        float32 and float16 give float32, integers and booleans float64. Variances are always
        followed in float64, on the CPU also pairs of nearly equal or opposite directions: float32
        is then within 5e-6 of the largest entry, 2e-6 for images, but for distinct images that
        share whole patches (drawings on white ground: up to 4e-4).
    threads
        Number of worker threads; by default $NTKCORE_NUM_THREADS, $OMP_NUM_THREADS or the cores
        this process may use. The result does not depend on it, bit for bit.
    tile
        Size of a task; the result does not depend on it. Vectors: its columns, a multiple of 256
        (default 1024); memory above the result is 256 x ``tile`` values a thread, a copy of the
        data and 2 values per op and point. Images: its rows and columns, a multiple of 16 (by
        default chosen by its cost); memory above the result is the tables of ``threads + 2`` tiles
        on either side and, per thread, a few planes. On a GPU: rows and columns of either, by
        default 8192 vectors (2048 of NumPy data) or 256 images, and less where memory is short.
    backend
        Its name (`ntkcore.backends()`); by default $NTKCORE_BACKEND or the CPU's fastest; "cuda"
        for data on a GPU (CuPy, PyTorch, DLPack), whose results are CuPy arrays there, on CuPy's
        current stream. "cuda" with NumPy data gives NumPy results, tile by tile.
    progress
        Bar with pairs per second and time left: None on a terminal for long calls, True, or False.
    out
        Where to write: an array of the result's shape and dtype (a tuple of arrays,
        if ``get`` is one), C-contiguous.
    devices
        Numbers of the CUDA devices that share the work of NumPy data; by default the current one.

    Returns
    -------
    ndarray of shape (n1, n2), after the axes of ``depths`` and ``pool_windows`` if given; or a
    namedtuple of them.

    Raises
    ------
    TypeError, ValueError
        For data, specs or options that do not fit: the message names them.
    FloatingPointError
        Where a value is not finite, by overflow: the message names the pair.
        Not of results on a GPU.
    MemoryError
        If the result would not fit into the memory that is free, before any work.

    References
    ----------
    Jacot et al. 2018 (NTK); Lee et al. 2018 (NNGP); Cho & Saul 2009 (arc-cosine kernels); Arora et
    al. 2019 (CNTK).
    """
    names = kernel_names(get)
    with device_arrays.on_device_of(x1, x2):
        xp, data = device_arrays.gathered(x1, x2)
        a, b = check_data(data[0], data[1], dtype, xp)
        name, on_device = _backend(backend, devices, x1, x2)
        _check_augment(a, augment)
        leading = _leading(depths, pool_windows)
        program = program_for(net, (a, b), "ntk" in names, depths, pool_windows)
        workers = thread_count(threads)
        shape = (len(a), len(a if b is None else b))
        results = (device_arrays if on_device else inputs).allocate(
            out, get, leading + shape, a.dtype
        )
        parts = {name: list(array.reshape(-1, *shape)) for name, array in results.items()}
        a, rows = near_one(program, a)
        b, cols = (None, rows) if b is None else near_one(program, b)
        _write(
            Job(program, a, b, parts, workers, tile, progress, augment is not None), name, devices
        )
        scaled = rows is not None or cols is not None
        for part in (part for arrays in parts.values() for part in arrays):
            scale_back(part, rows, cols, device_arrays.array_module(part))
            # In all other cases the engine has looked at every tile.
            if scaled or (name == "cuda" and not on_device):
                check_finite(part)
    return packed(get, results)


def kernel_diag(
    net: Layer,
    x: npt.ArrayLike,
    get: Get = "ntk",
    *,
    depths: Sequence[int] | None = None,
    pool_windows: Sequence[PoolWindow] | None = None,
    augment: str | None = None,
    dtype: npt.DTypeLike | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Any:
    """The diagonal of ``kernel(net, x, None, get)``, without the matrix.

    Computed in float64 with a correlation of exactly 1.

    Parameters
    ----------
    net, x, get, depths, pool_windows, augment, dtype, threads, backend
        As for `kernel`.

    Returns
    -------
    ndarray of shape (n,), after the axes of ``depths`` and ``pool_windows`` if given; or a
    namedtuple of them.

    Raises
    ------
    TypeError, ValueError
        As for `kernel`.

    Examples
    --------
    >>> import ntkcore as nk
    >>> nk.kernel_diag(nk.mlp(1), [[1.0, 0.0], [3.0, 4.0]])
    array([ 2., 50.])
    """
    names = kernel_names(get)
    with device_arrays.on_device_of(x):
        xp, data = device_arrays.gathered(x)
        a, _ = check_data(data[0], None, dtype, xp)
        name, on_device = _backend(backend, None, x)
        _check_augment(a, augment)
        shape = (*_leading(depths, pool_windows), len(a))
        program = program_for(net, (a, None), "ntk" in names, depths, pool_windows)
        workers = thread_count(threads)
        if xp is np:
            on_cpu = cpu_backends()[0] if name == "cuda" else name
            a, exponents = near_one(program, a)
            diagonals = _module(a).diagonal(program, a, on_cpu, workers, augment is not None)
            if exponents is not None:
                diagonals = {name: np.ldexp(diagonals[name], 2 * exponents) for name in names}
                check_variances(diagonals, a.dtype)
        else:
            diagonals = cuda.vector_diagonal(program, a, workers)
        results = {name: diagonals[name].astype(a.dtype).reshape(shape) for name in names}
        if on_device:
            results = {name: device_arrays.to_device(array) for name, array in results.items()}
    return packed(get, results)


def error_bounds(
    net: Layer,
    x1: npt.ArrayLike,
    x2: npt.ArrayLike | None = None,
    *,
    dtype: npt.DTypeLike | None = None,
) -> dict[str, float]:
    """Bounds on the error of the layers of a network that work by tables, for these data.

    Parameters
    ----------
    net, x1, x2, dtype
        As for `kernel`.

    Returns
    -------
    dict of str to float
        By layer, what the Hermite coefficients of an `Elementwise` leave out at most, relative to
        sqrt(D(q, q) D(q', q')), D = E[phi' phi']; empty for networks of closed forms alone.

    Raises
    ------
    TypeError, ValueError
        As for `kernel`.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Dense, Elementwise, Serial, error_bounds
    >>> net = Serial(Dense(), Elementwise("silu"), Dense())
    >>> [(layer, bound < 1e-12) for layer, bound in error_bounds(net, np.eye(2)).items()]
    [("layer 1, Elementwise(phi='silu')", True)]
    """
    lowering.check_net(net)
    data = check_data(x1, x2, dtype)
    return lowering.error_bounds(net, data[0].shape[1:], range_of(*data)) if net.tabulated else {}


def program_for(
    net: Layer,
    data: tuple[Array, Array | None],
    wants_ntk: bool,
    depths: Sequence[int] | None = None,
    pool_windows: Sequence[PoolWindow] | None = None,
) -> Any:
    """`lower`, of what was lowered lately not again; for these data, where a table needs them.
    ValueError where the network reads a mask that they do not hold.
    """
    cached = _lowered if isinstance(net, Layer) else _lowered.__wrapped__
    asked = (None if given is None else tuple(given) for given in (depths, pool_windows))
    if not (isinstance(net, Layer) and net.tabulated):
        program = cached(net, data[0].shape[1:], wants_ntk, *asked, None)
    else:
        with one_blas_thread:  # products for tables are slim
            program = cached(net, data[0].shape[1:], wants_ntk, *asked, range_of(*data))
    check_packed(net, *data)
    return program


@functools.lru_cache(maxsize=32)
def _lowered(
    net: Layer,
    shape: tuple[int, ...],
    wants_ntk: bool,
    depths: Any,
    pool_windows: Any,
    data: Range | None,
) -> Any:
    return lower(
        net, shape, wants_ntk=wants_ntk, depths=depths, pool_windows=pool_windows, data=data
    )


def _backend(backend: str | None, devices: Sequence[int] | None, *data: Any) -> tuple[str, bool]:
    """The backend's name, and whether the data, and so the results, lie on a GPU."""
    on_device = any(map(device_arrays.on_device, data))
    name = resolve(backend or ("cuda" if on_device or devices is not None else None))
    if on_device and name != "cuda":
        raise ValueError(
            f"the data lie on a GPU, but backend {name!r} is the CPU's: pass cupy.asnumpy(x)"
        )
    if devices is not None and name != "cuda":
        raise ValueError(f"devices={devices!r} needs backend='cuda', not {name!r}")
    return name, on_device


def _check_augment(x: Array, augment: str | None) -> None:
    if augment not in (None, "hflip"):
        raise ValueError(f"augment must be None or 'hflip', not {augment!r}")
    if augment is not None and x.ndim != 4:
        raise ValueError(
            "augment='hflip' needs images (samples, height, width, channels), not vectors"
        )


def _module(x: Array) -> Any:
    """The CPU's part for this kind of data: both offer write() and diagonal()."""
    return vectors if x.ndim == 2 else images


def _write(job: Job, backend: str, devices: Sequence[int] | None) -> None:
    """Every kind of data on every kind of device."""
    if backend == "cuda":
        cuda.write(job, devices)
    else:
        _module(job.a).write(job, backend)


def _leading(
    depths: Sequence[int] | None, pool_windows: Sequence[PoolWindow] | None
) -> tuple[int, ...]:
    """The result's leading axes; TypeError where depths or windows are no sequences of numbers."""
    check_sequence(depths, "depths", (int, np.integer))
    check_sequence(pool_windows, "pool_windows", (int, np.integer, str))
    return tuple(len(given) for given in (depths, pool_windows) if given is not None)
