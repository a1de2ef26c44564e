"""Kernels computed anew for every product, as operators."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.backends import resolve
from ntkcore.engine.device_arrays import array_module, cupy_module, on_device_of, to_host
from ntkcore.engine.inputs import KERNELS, thread_count
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.engine.streamed import Streamed, check_samples
from ntkcore.linalg.operator import KernelOperator
from ntkcore.specs.layers import Layer
from ntkcore.store.planning import seconds_per_pair

Array = npt.NDArray[np.float64]
_on_gpu = weakref.WeakKeyDictionary[Any, Any]()  # workers' operators, there


class MatrixFree(KernelOperator):
    """The kernel of a network, computed anew for every product and never stored.

    For 10^5 to 10^6 points: a product costs one evaluation of (half of) the kernel,
    memory is one tile and the vectors.

    Parameters
    ----------
    net : Layer
        The network.
    x : array_like of shape (n, d) or (n, height, width, channels)
        Samples of the rows. Chunked arrays (Zarr, HDF5, Dask) and memory maps are read when they
        are needed, after one pass that looks at them.
    x2 : array_like, optional
        Samples of the columns; by default those of the rows.
    get : {"ntk", "nngp"}, default="ntk"
        Which kernel.
    tile : int, default=2048
        Rows and columns that are computed together.
    progress : bool, optional
        A bar; by default on a terminal for long products.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Whose workers compute products, one thread a group of tiles. The data stay with them, slices
        of the vectors travel; a worker that dies costs its groups. The bits are those of any other
        number of workers, and of no executor on the same processor.
    **options
        Those of `ntkcore.kernel`: dtype, threads, backend, devices.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import MatrixFree, cg, mlp
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> cg(MatrixFree(mlp(2), x), x[:, 0], ridge=0.1).converged
    True
    """

    def __init__(
        self,
        net: Layer,
        x: npt.ArrayLike,
        x2: npt.ArrayLike | None = None,
        get: str = "ntk",
        *,
        tile: int = 2048,
        progress: bool | None = None,
        executor: Any = None,
        **options: Any,
    ) -> None:
        if not isinstance(net, Layer):
            raise TypeError(
                f"net must be a network spec, and comes before the data, not {type(net).__name__}"
            )
        if get not in KERNELS:
            raise ValueError(f"get must be 'ntk' or 'nngp', not {get!r}: an operator is one kernel")
        a, b = check_samples(to_host(x), to_host(x2), options.get("dtype"))
        self.xp = array_module(x)
        with on_device_of(x):
            self._a: Any = _placed(a, self.xp)
            self._b: Any = self._a if b is None else _placed(b, self.xp)
        self._net, self._get, self._options = net, get, {"progress": False, **options}
        super().__init__((len(self._a), len(self._b)), tile, x2 is None, progress)
        self.storage_dtype = np.dtype(self._a.dtype)
        if executor is not None and options.get("devices") is not None:
            raise ValueError("devices are this machine's: an executor's workers have their own")
        self._work_on(executor)

    def _twin(self) -> Any:
        twin = super()._twin()
        backend = resolve(self._options.get("backend"))
        twin._options = {**self._options, "threads": 1, "backend": backend}
        return twin

    def at_work(self) -> Any:
        """On the worker's GPU for the backend "cuda": there tiles are made and multiplied."""
        if self._options["backend"] != "cuda":
            return self
        if self not in _on_gpu:
            _on_gpu[self] = there = copy.copy(self)
            there.xp = cupy_module()
            there._a = _placed(self._a, there.xp)
            there._b = there._a if self.symmetric else _placed(self._b, there.xp)
        return _on_gpu[self]

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:  # noqa: D102
        same = self.symmetric and rows == cols
        block: npt.NDArray[Any] = kernel(
            self._net, self._a[rows], None if same else self._b[cols], self._get, **self._options
        )
        if self.symmetric and not same:  # a point with itself: exact on the diagonal alone
            one, two = (np.arange(*side.indices(len(self._a))) for side in (rows, cols))
            found = np.intersect1d(one, two, return_indices=True)
            both, i, j = (self.xp.asarray(numbers) for numbers in found)
            if len(both):
                block[i, j] = self.xp.asarray(self.diagonal_of(both))
        return block

    def diagonal(self) -> Array:  # noqa: D102
        if not self.symmetric:
            return super().diagonal()
        step = max(self.tile, 2**16)
        parts = [slice(i, i + step) for i in range(0, len(self._a), step)]
        return np.concatenate([self.diagonal_of(rows) for rows in parts])

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        chosen = np.asarray(indices)
        at = self.xp.asarray(chosen)
        left, right = self._a[at], self._b
        columns = right.panels() if isinstance(right, Streamed) else (right,)
        parts = [kernel(self._net, left, part, self._get, **self._options) for part in columns]
        block: Any = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        self.passes += len(chosen) / self.shape[0]
        if self.symmetric:  # a point with itself: exact on the diagonal alone
            block[self.xp.arange(len(chosen)), at] = self.xp.asarray(self.diagonal_of(at))
        return block

    def submatrix(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        if not self.symmetric:
            return super().submatrix(indices)
        at = self.xp.asarray(indices)
        return kernel(self._net, self._a[at], None, self._get, **self._options)

    def columns(self, indices: npt.ArrayLike) -> MatrixFree:  # noqa: D102
        executor = None if self._workers is None else self._workers.executor
        return self._of(self._a, self._b[self.xp.asarray(indices)], executor)

    def principal(self, indices: npt.ArrayLike) -> MatrixFree:  # noqa: D102
        return self._of(self._a[self.xp.asarray(indices)], None, None)

    def _of(self, x: Any, x2: Any, executor: Any) -> MatrixFree:
        """The kernel of other samples."""
        options = {"tile": self.tile, "executor": executor, **self._options, "progress": False}
        return MatrixFree(self._net, x, x2, self._get, **options)

    def between(self, indices: npt.ArrayLike) -> Any:
        """K[indices, indices] on the host in float64."""
        z = self._a[self.xp.asarray(indices)]
        return to_host(kernel(self._net, z, None, self._get, **{**self._options, "dtype": "f8"}))

    def seconds_per_pair(self, columns: int) -> float:
        """Of the kernel; a product with a few columns takes little more."""
        a, backend = self._a[:512], resolve(self._options.get("backend"))
        threads = thread_count(self._options.get("threads"))
        workers = threads if self._workers is None else max(1, self._workers.threads)
        return seconds_per_pair(self._net, a, (self._get,), backend) / workers

    def diagonal_of(self, indices: Any) -> Array:
        """Diagonal entries at ``indices``."""
        options = {k: v for k, v in self._options.items() if k in ("dtype", "threads", "backend")}
        return np.asarray(
            to_host(kernel_diag(self._net, self._a[indices], self._get, **options)), np.float64
        )


def _placed(samples: Any, xp: Any) -> Any:
    """Samples where tiles are made; those that are streamed stay where they are."""
    return samples if isinstance(samples, Streamed) else xp.asarray(samples)
