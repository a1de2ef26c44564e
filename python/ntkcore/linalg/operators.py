"""Kernels as SciPy's linear operators: in memory, in a store,
or recomputed tile by tile and never held.

All count ``passes``, how often the whole kernel was read or computed; a product with many columns
is one pass. Tiles may be float32; sums are float64. Of a symmetric kernel one half of the tiles is
read, each serving twice.

Kernels that are CuPy arrays, or come from CuPy data, are multiplied on their GPU: with NumPy
vectors, which travel, or through `cupy_operator` with CuPy's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, on_device_of, to_host
from ntkcore.engine.inputs import check_data, refuse_no_array
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.engine.tiles import Tile, progress_bar, tiles
from ntkcore.linalg.checks import ASYMMETRY, check_real, is_symmetric, refuse_asymmetric, single
from ntkcore.specs.layers import Layer

try:
    from scipy.sparse.linalg import LinearOperator
except ImportError:
    raise ImportError('operators need SciPy: pip install "ntkcore[sklearn]"') from None

Array = npt.NDArray[np.float64]


class KernelOperator(LinearOperator):  # type: ignore[misc]
    """Base: a kernel of shape (n, m), dtype float64, read tile by tile; ``symmetric``:
    the upper half of the tiles.
    """

    rows_at_a_time = 64  # that `rows` gives at no more cost a row

    def __init__(
        self, shape: tuple[int, int], tile: int, symmetric: bool, progress: bool | None
    ) -> None:
        super().__init__(np.dtype(np.float64), shape)
        if symmetric and shape[0] != shape[1]:
            raise ValueError(f"a kernel of shape {shape} is not symmetric: pass symmetric=False")
        self.tile, self.symmetric, self.progress = tile, symmetric, progress
        self.passes = 0.0

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        """The block of the kernel in these rows and columns."""
        raise NotImplementedError

    def diagonal(self) -> Array:
        """The diagonal, (n,), float64."""
        return np.concatenate([np.diagonal(self.read(s, s)) for s in self._row_slices()]).astype(
            np.float64
        )

    def rows(self, indices: npt.ArrayLike) -> Any:
        """K[indices, :], float64, an array of ``xp``; counted in ``passes``."""
        raise NotImplementedError

    def _blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:
        """The blocks of these tiles, in order."""
        for i0, i1, j0, j1 in work:
            yield self.read(slice(i0, i1), slice(j0, j1))

    def _row_slices(self) -> Iterator[slice]:
        for i in range(0, self.shape[0], self.tile):
            yield slice(i, min(i + self.tile, self.shape[0]))

    xp: Any = np  # NumPy, or CuPy where the tiles lie on a GPU

    def product(self, X: Any, transposed: bool = False) -> Any:
        """K X (or K^T X) for a matrix X, a NumPy or CuPy array of float64;
        the result is of the same kind.
        """
        xp = array_module(X)
        n, m = self.shape[::-1] if transposed and not self.symmetric else self.shape
        if X.ndim != 2 or len(X) != m:
            raise ValueError(f"a matrix of {m} rows is needed, not of shape {X.shape}")
        out = xp.zeros((n, X.shape[1]), np.float64)
        work: list[Tile] = tiles(self.shape[0], self.shape[1], self.tile, self.tile, self.symmetric)
        with progress_bar(sum((t[1] - t[0]) * (t[3] - t[2]) for t in work), self.progress) as count:
            for (i0, i1, j0, j1), tile in zip(work, self._blocks(work), strict=True):
                block = xp.asarray(tile, np.float64)
                if not transposed or self.symmetric:
                    out[i0:i1] += block @ X[j0:j1]
                if (transposed and not self.symmetric) or (self.symmetric and i0 != j0):
                    out[j0:j1] += block.T @ X[i0:i1]
                count((i1 - i0) * (j1 - j0))
        self.passes += 1
        return out

    def _matmat(self, X: npt.ArrayLike) -> Array:
        out: Array = to_host(self.product(self.xp.asarray(X, np.float64)))
        return out

    def _rmatmat(self, X: npt.ArrayLike) -> Array:
        out: Array = to_host(self.product(self.xp.asarray(X, np.float64), transposed=True))
        return out

    def _matvec(self, x: npt.ArrayLike) -> Array:
        return self._matmat(np.asarray(x, np.float64).reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: npt.ArrayLike) -> Array:
        return self._rmatmat(np.asarray(x, np.float64).reshape(-1, 1))[:, 0]


class InMemory(KernelOperator):
    """A kernel held as an array; it is converted to float64 block by block.

    Parameters
    ----------
    K : array_like of shape (n, m)
        Of NumPy or CuPy, float32 or float64.
    symmetric : bool, optional
        By default, whether it is, up to rounding.
    tile : int, default=1024
        Rows and columns of a block. On a GPU blocks are panels of whole rows, large enough to fill
        it, and a float64 kernel is multiplied as it is.

    Raises
    ------
    ValueError
        Where K is said to be symmetric and is not.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import InMemory
    >>> InMemory(np.eye(3, dtype="f4")) @ np.ones(3)
    array([1., 1., 1.])
    """

    panel = 2**26  # entries converted at once on a GPU: 0.5 GB

    def __init__(
        self, K: npt.ArrayLike, *, symmetric: bool | None = None, tile: int = 1024
    ) -> None:
        self.xp = array_module(K)
        matrix = self.xp.asarray(K)
        if matrix.ndim != 2 or matrix.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"K must be a float32 or float64 matrix, not {matrix.ndim}-D {matrix.dtype}"
            )
        check_real(matrix, "K")
        super().__init__(
            matrix.shape, tile, is_symmetric(matrix) if symmetric is None else symmetric, False
        )
        if symmetric:
            refuse_asymmetric(matrix, "K")
        self.storage_dtype = matrix.dtype
        self._K = matrix

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:  # noqa: D102
        block: npt.NDArray[Any] = self._K[rows, cols]
        return block

    def product(self, X: Any, transposed: bool = False) -> Any:  # noqa: D102
        if self.xp is np or X.ndim != 2 or len(X) != self.shape[0 if transposed else 1]:
            return super().product(X, transposed)  # for a wrong shape: the error
        self.passes += 1
        # A panel then adds to all rows: no short products with long sums.
        transposed = transposed or self.symmetric
        if self.storage_dtype == np.float64:
            return (self._K.T if transposed else self._K) @ X
        n, m = self.shape
        out = self.xp.zeros((m if transposed else n, X.shape[1]), np.float64)
        step = max(1, self.panel // m)
        for rows in (slice(i, min(i + step, n)) for i in range(0, n, step)):
            block = self._K[rows].astype(np.float64)
            if transposed:
                out += block.T @ X[rows]
            else:
                out[rows] = block @ X
        return out

    def diagonal(self) -> Array:  # noqa: D102
        return np.asarray(to_host(self._K.diagonal()), np.float64)

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        out = self._K[self.xp.asarray(indices)].astype(np.float64, copy=False)
        self.passes += len(out) / self.shape[0]
        return out


class Stored(KernelOperator):
    """A kernel in a chunked store.

    A product reads whole chunks, each once, the next ones while one is used;
    memory is a few chunks and the vectors.

    Parameters
    ----------
    array : array of shape (n, m)
        Anything with ``shape``, ``dtype``, ``chunks`` and NumPy's slicing (Zarr, HDF5).
    symmetric : bool, optional
        Read only the chunks on and above the diagonal, which must be square then. By default a
        store of `ntkcore.build` says if it is; of any other square array some chunks are compared.
    progress : bool, optional
        A bar; by default on a terminal for long products.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from ntkcore import Stored
    >>> Stored(zarr.array(np.eye(4), chunks=(2, 2))) @ np.ones(4)
    array([1., 1., 1., 1.])
    """

    rows_at_a_time = 1024  # every chunk that holds one of them is read
    ahead = 2  # chunks

    def __init__(
        self, array: Any, *, symmetric: bool | None = None, progress: bool | None = None
    ) -> None:
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise TypeError(
                'a stored kernel is an array, such as zarr.open("kernel.zarr")["ntk"], not'
                f" {array!r:.80}"
            )
        if len(array.shape) != 2 or np.dtype(array.dtype).kind != "f":
            raise ValueError(
                f"a stored kernel is a matrix of floats, not of shape {array.shape} and"
                f" {array.dtype}"
            )
        super().__init__(tuple(array.shape), _chunk(array), False, progress)
        self.storage_dtype = np.dtype(array.dtype)
        self._array = array
        self.symmetric = self._looks_symmetric() if symmetric is None else symmetric
        if self.symmetric and self.shape[0] != self.shape[1]:
            raise ValueError(
                f"a kernel of shape {self.shape} is not symmetric: pass symmetric=False"
            )

    def _looks_symmetric(self) -> bool:
        if self.shape[0] != self.shape[1]:
            return False
        said = _says_symmetric(self._array)
        if said is not None:
            return said
        starts = np.random.default_rng(0).choice(np.arange(0, self.shape[0], self.tile), (3, 2))
        for i, j in starts:
            rows, cols = (slice(int(k), min(int(k) + self.tile, self.shape[0])) for k in (i, j))
            upper, lower = self.read(rows, cols), self.read(cols, rows).T
            if float(abs(upper - lower).max()) > ASYMMETRY[single(upper.dtype)] * float(
                abs(upper).max()
            ):
                return False
        return True

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:  # noqa: D102
        block = np.asarray(self._array[rows, cols])
        if not np.isfinite(block).all():
            raise ValueError(
                f"rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop} of the"
                " stored kernel hold NaN: the build is not finished, or a chunk is lost; run it"
                " again"
            )
        return block

    def _blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:
        with ThreadPoolExecutor(self.ahead) as pool:
            reading: deque[Any] = deque()
            try:
                for i0, i1, j0, j1 in work:
                    reading.append(pool.submit(self.read, slice(i0, i1), slice(j0, j1)))
                    if len(reading) > self.ahead:
                        yield reading.popleft().result()
                while reading:
                    yield reading.popleft().result()
            finally:
                for future in reading:
                    future.cancel()

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        chosen = np.asarray(indices)
        out = np.empty((len(chosen), self.shape[1]))
        starts = np.unique(chosen // self.tile) * self.tile
        self.passes += len(starts) * self.tile / self.shape[0]
        for start in starts:
            inside = (chosen >= start) & (chosen < start + self.tile)
            for j in range(0, self.shape[1], self.tile):
                cols = slice(j, min(j + self.tile, self.shape[1]))
                block = self.read(
                    slice(int(start), min(int(start) + self.tile, self.shape[0])), cols
                )
                out[inside, cols] = block[chosen[inside] - start]
        return out


def _chunk(array: Any) -> int:
    """Rows of a chunk, of Zarr's, HDF5's or Dask's arrays."""
    rows: Any = array.chunks[0] if array.chunks else 1024
    return int(rows[0] if isinstance(rows, tuple) else rows)


def _says_symmetric(array: Any) -> bool | None:
    """What the store of an array of Zarr says, if it is one of `ntkcore.build`."""
    place = getattr(array, "store_path", None)
    if place is None or not array.path:  # the array is its store
        return None
    import zarr

    try:
        group = zarr.open_group(
            place.store, path=str(array.path).rpartition("/")[0], mode="r", zarr_format=3
        )
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        return None
    found = dict(group.attrs).get("ntkcore")
    return found.get("x2") is None if isinstance(found, dict) and "x2" in found else None


class MatrixFree(KernelOperator):
    """The kernel of a network, computed anew for every product and never stored.

    For 10^5 to 10^6 points: a product costs one evaluation of (half of) the kernel,
    memory is one tile and the vectors.

    Parameters
    ----------
    net : Layer
        The network.
    x : array_like of shape (n, d) or (n, height, width, channels)
        Samples of the rows.
    x2 : array_like, optional
        Samples of the columns; by default those of the rows.
    get : {"ntk", "nngp"}, default="ntk"
        Which kernel.
    tile : int, default=2048
        Rows and columns that are computed together.
    progress : bool, optional
        A bar; by default on a terminal for long products.
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
        **options: Any,
    ) -> None:
        if not isinstance(net, Layer):
            raise TypeError(
                f"net must be a network spec, and comes before the data, not {type(net).__name__}"
            )
        a, b = check_data(to_host(x), to_host(x2), options.get("dtype"))
        self.xp = array_module(x)
        with on_device_of(x):
            self._a: Any = self.xp.asarray(a)
            self._b: Any = self._a if b is None else self.xp.asarray(b)
        self._net, self._get, self._options = net, get, {"progress": False, **options}
        super().__init__((len(self._a), len(self._b)), tile, x2 is None, progress)
        self.storage_dtype = np.dtype(self._a.dtype)

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:  # noqa: D102
        same = self.symmetric and rows == cols
        block: npt.NDArray[Any] = kernel(
            self._net, self._a[rows], None if same else self._b[cols], self._get, **self._options
        )
        return block

    def diagonal(self) -> Array:  # noqa: D102
        if not self.symmetric:
            return super().diagonal()
        options = {k: v for k, v in self._options.items() if k in ("dtype", "threads", "backend")}
        return np.asarray(
            to_host(kernel_diag(self._net, self._a, self._get, **options)), np.float64
        )

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        chosen = np.asarray(indices)
        at = self.xp.asarray(chosen)
        computed: Any = kernel(self._net, self._a[at], self._b, self._get, **self._options)
        block = computed.astype(np.float64, copy=False)
        self.passes += len(chosen) / self.shape[0]
        if self.symmetric:  # a point with itself: exact on the diagonal alone
            block[self.xp.arange(len(chosen)), at] = self.xp.asarray(self.diagonal_of(at))
        return block

    def diagonal_of(self, indices: Any) -> Array:
        """Diagonal entries at ``indices``."""
        options = {k: v for k, v in self._options.items() if k in ("dtype", "threads", "backend")}
        return np.asarray(
            to_host(kernel_diag(self._net, self._a[indices], self._get, **options)), np.float64
        )


def as_operator(K: Any) -> KernelOperator:
    """A `KernelOperator` as it is; a matrix or a chunked array wrapped;
    TypeError for anything else.
    """
    if isinstance(K, KernelOperator):
        return K
    refuse_no_array(K, "K")
    return Stored(K) if hasattr(K, "chunks") and not isinstance(K, np.ndarray) else InMemory(K)


def symmetric_operator(K: Any) -> KernelOperator:
    """`as_operator` of a kernel of one data set with itself; ValueError for any other."""
    operator = as_operator(K)
    if not operator.symmetric:
        raise ValueError(
            f"K, of shape {operator.shape}, is not symmetric: it must be the kernel of one data set"
            " with itself, in one order; of two data sets take K_test_train @ coefficients"
        )
    return operator


def cupy_operator(operator: KernelOperator) -> Any:
    """The twin of an operator for CuPy's solvers:
    a cupyx.scipy.sparse.linalg.LinearOperator, float64, on the GPU.
    """
    from cupyx.scipy.sparse.linalg import LinearOperator as OnDevice

    def vector(transposed: bool) -> Any:
        return lambda x: operator.product(x.reshape(-1, 1), transposed)[:, 0]

    def matrix(transposed: bool) -> Any:
        return lambda X: operator.product(X, transposed)

    return OnDevice(
        operator.shape,
        vector(False),
        vector(True),
        matrix(False),
        np.dtype(np.float64),
        matrix(True),
    )
