"""Kernels in chunked stores, as operators."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.tiles import Tile
from ntkcore.linalg.checks import ASYMMETRY, single
from ntkcore.linalg.in_memory import InMemory
from ntkcore.linalg.operator import KernelOperator

Array = npt.NDArray[np.float64]


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
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Whose workers, who must reach the store, read it and multiply; see `MatrixFree`.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from ntkcore import Stored
    >>> Stored(zarr.array(np.eye(4), chunks=(2, 2))) @ np.ones(4)
    array([1., 1., 1., 1.])
    """

    chunked = True
    ahead = 2  # chunks

    def __init__(
        self,
        array: Any,
        *,
        symmetric: bool | None = None,
        progress: bool | None = None,
        executor: Any = None,
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
        self._work_on(executor)

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
                " stored kernel hold NaN: the build is not finished, or a chunk is lost;"
                " run it again"
            )
        return block

    def blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:  # noqa: D102
        if not self.ahead:
            yield from super().blocks(work)
            return
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

    def _twin(self) -> Any:
        twin = super()._twin()
        if hasattr(self._array, "__dask_graph__"):
            twin.ahead = 0  # a task of Dask may wait for others in its own thread only
        return twin

    def _chunks(self, indices: Any) -> Iterator[tuple[slice, Any, Any]]:
        """Chunks' rows that hold some of these indices: which of them, and where in the chunk."""
        for start in (np.unique(indices // self.tile) * self.tile).tolist():
            inside = np.flatnonzero((indices >= start) & (indices < start + self.tile))
            yield self._slice(start, 0), inside, indices[inside] - start

    def _slice(self, start: int, axis: int) -> slice:
        return slice(start, min(start + self.tile, self.shape[axis]))

    def _row_blocks(self, indices: Any) -> Iterator[tuple[Any, slice, npt.NDArray[Any]]]:
        """K[indices, :] by its chunks, each read once: which indices, which columns, the block."""
        for rows, inside, at in self._chunks(indices):
            for j in range(0, self.shape[1], self.tile):
                cols = self._slice(j, 1)
                yield inside, cols, self.read(rows, cols)[at]
            self.passes += (rows.stop - rows.start) / self.shape[0]

    def rows(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        chosen = np.asarray(indices)
        out = np.empty((len(chosen), self.shape[1]), self.storage_dtype)
        for inside, cols, block in self._row_blocks(chosen):
            out[inside, cols] = block
        return out

    def row_product(self, indices: Any, X: Any) -> Any:  # noqa: D102
        out = np.zeros((len(indices), X.shape[1]), np.float64)
        for inside, cols, block in self._row_blocks(np.asarray(indices)):
            out[inside] += block.astype(np.float64, copy=False) @ X[cols]
        return out

    def submatrix(self, indices: npt.ArrayLike) -> Any:  # noqa: D102
        chosen = np.asarray(indices)
        out = np.empty((len(chosen),) * 2, self.storage_dtype)
        for rows, top, at in self._chunks(chosen):
            for cols, left, there in self._chunks(chosen):
                out[np.ix_(top, left)] = self.read(rows, cols)[np.ix_(at, there)]
        return out

    def columns(self, indices: npt.ArrayLike) -> InMemory:
        """K[:, indices] of a symmetric kernel, in memory."""
        return InMemory(self.rows(indices).T, symmetric=False)

    def principal(self, indices: npt.ArrayLike) -> InMemory:  # noqa: D102
        return InMemory(self.submatrix(indices), symmetric=True)


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
