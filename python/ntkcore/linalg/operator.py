"""What all kernel operators share: products tile by tile, each tile serving twice where it can."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import array_module, to_host
from ntkcore.engine.executors import check_executor
from ntkcore.engine.inputs import check_count
from ntkcore.engine.tiles import Tile, progress_bar
from ntkcore.linalg.products import (
    Group,
    RemoteGroups,
    Sum,
    both_sides,
    gram,
    in_double,
    row_groups,
    square_groups,
)

try:
    from scipy.sparse.linalg import LinearOperator
except ImportError:
    raise ImportError('operators need SciPy: pip install "ntkcore[sklearn]"') from None

Array = npt.NDArray[np.float64]
CALIBRATION = 0.05  # seconds after which a product's speed is known


class KernelOperator(LinearOperator):  # type: ignore[misc]
    """Base: a kernel of shape (n, m), dtype float64, read tile by tile;
    of a ``symmetric`` one the upper half of the tiles.
    """

    chunked = False  # a row is read with all others of its chunks

    def __init__(
        self, shape: tuple[int, int], tile: int, symmetric: bool, progress: bool | None
    ) -> None:
        check_count("tile", tile, 1)
        super().__init__(np.dtype(np.float64), shape)
        if symmetric and shape[0] != shape[1]:
            raise ValueError(f"a kernel of shape {shape} is not symmetric: pass symmetric=False")
        self.tile, self.symmetric, self.progress = tile, symmetric, progress
        self.passes = 0.0
        self._workers: RemoteGroups | None = None

    def _work_on(self, executor: Any) -> None:
        """From now on products are done by the workers of an executor."""
        check_executor(executor)
        if executor is None:
            return
        if self.xp is not np:
            raise ValueError(
                "data on a GPU stay there: for an executor pass NumPy's, with backend='cuda' where"
                " its workers have GPUs"
            )
        self._workers = RemoteGroups(executor, self._twin())

    def _twin(self) -> Any:
        """This operator as a worker has it."""
        twin = copy.copy(self)
        twin.__dict__.pop("xp", None)  # a module, and NumPy
        twin.progress = False
        return twin

    def at_work(self) -> KernelOperator:
        """A worker's operator where it computes."""
        return self

    def read(self, rows: slice, cols: slice) -> npt.NDArray[Any]:
        """The block of the kernel in these rows and columns."""
        raise NotImplementedError

    def diagonal(self) -> Array:
        """The diagonal, (n,), float64."""
        return np.concatenate([np.diagonal(self.read(s, s)) for s in self._row_slices()]).astype(
            np.float64
        )

    def rows(self, indices: npt.ArrayLike) -> Any:
        """K[indices, :], in its own precision, an array of ``xp``; counted in ``passes``."""
        raise NotImplementedError

    def submatrix(self, indices: npt.ArrayLike) -> Any:
        """K[indices, indices], an array of ``xp``."""
        return self.rows(indices)[:, self.xp.asarray(indices)]

    def columns(self, indices: npt.ArrayLike) -> KernelOperator:
        """K[:, indices] as an operator."""
        raise NotImplementedError

    def principal(self, indices: npt.ArrayLike) -> KernelOperator:
        """K[indices, indices] as an operator."""
        raise NotImplementedError

    def between(self, indices: npt.ArrayLike) -> Any:
        """K[indices, indices] on the host, as exact as it can be had."""
        return to_host(self.submatrix(indices))

    def seconds_per_pair(self, columns: int) -> float:
        """Of a product with so many columns: of a block in the corner, larger and larger, until it
        takes long enough to be measured.
        """
        size = self.tile if self.chunked else 16
        while True:
            n, m = (min(size, length) for length in self.shape)
            V = self.xp.ones((m, columns))
            start = time.perf_counter()
            block = self.read(slice(n), slice(self.shape[1] - m, self.shape[1]))
            for _, part in in_double(block):
                to_host((part @ V).sum())  # waits for a GPU
            seconds = time.perf_counter() - start
            if seconds > CALIBRATION or size == self.tile or size > max(self.shape):
                return float(seconds / (n * m))
            size = min(4 * size, self.tile)

    def row_product(self, indices: Any, X: Any) -> Any:
        """K[indices, :] X, float64, where X lies; counted in ``passes``."""
        step = max(1, 2**25 // self.shape[1])  # rows that are held at a time: 256 MB at most
        out = self.xp.empty((len(indices), X.shape[1]), np.float64)
        for i in range(0, len(indices), step):
            for at, block in in_double(self.rows(indices[i : i + step]), i):
                out[at] = block @ X
        return out

    def blocks(self, work: Sequence[Tile]) -> Iterator[npt.NDArray[Any]]:
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
        n, m = self.shape[::-1] if transposed and not self.symmetric else self.shape
        if X.ndim != 2 or len(X) != m:
            raise ValueError(f"a matrix of {m} rows is needed, not of shape {X.shape}")
        right, left = self.symmetric or not transposed, self.symmetric or transposed
        V = X if self._workers is None else to_host(X)
        out = array_module(V).zeros((n, X.shape[1]), np.float64)

        def vectors(group: Group) -> tuple[Any, Any]:
            return V[group.cols] if right else None, V[group.rows] if left else None

        def add(group: Group, sums: tuple[Any, ...]) -> None:
            for side, part in zip((group.rows, group.cols), sums, strict=True):
                if part is not None:
                    out[side] += part

        work = square_groups(self.shape, self.tile, self.symmetric)
        self._sums(work, both_sides, vectors, add, self.progress)
        return array_module(X).asarray(out)

    def gram_product(self, V: Any, progress: bool | None = False) -> Any:
        """K^T (K V) for a matrix V, float64, where V lies; K is read once."""
        there = V if self._workers is None else to_host(V)
        out = array_module(there).zeros(V.shape, np.float64)

        def add(group: Group, sums: tuple[Any, ...]) -> None:
            out[:] += sums[0]

        work = row_groups(self.shape, self.tile)
        self._sums(work, gram, lambda group: (there,), add, progress)
        return array_module(V).asarray(out)

    def _sums(
        self,
        work: Sequence[Group],
        function: Sum,
        vectors: Callable[[Group], tuple[Any, ...]],
        add: Callable[[Group, tuple[Any, ...]], None],
        progress: bool | None,
    ) -> None:
        """Adds the groups' sums in the order of the groups."""
        with progress_bar(sum(group.pairs for group in work), progress) as count:

            def done(group: Group, sums: tuple[Any, ...]) -> None:
                add(group, sums)
                count(group.pairs)

            if self._workers is not None:
                self._workers.sums(work, function, vectors, done)
            else:
                blocks = self.blocks([tile for group in work for tile in group.tiles])
                for group in work:
                    own = itertools.islice(blocks, len(group.tiles))
                    done(group, function(group, own, *vectors(group)))
        self.passes += 1

    def _matmat(self, X: npt.ArrayLike) -> Array:
        return self._product_of(X, transposed=False)

    def _rmatmat(self, X: npt.ArrayLike) -> Array:
        return self._product_of(X, transposed=True)

    def _product_of(self, X: npt.ArrayLike, transposed: bool) -> Array:
        if np.iscomplexobj(X):
            raise TypeError(
                "a kernel's products are with real numbers: multiply .real and .imag apart"
            )
        out: Array = to_host(self.product(self.xp.asarray(X, np.float64), transposed))
        return out

    def _matvec(self, x: npt.ArrayLike) -> Array:
        return self._matmat(np.asarray(x).reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: npt.ArrayLike) -> Array:
        return self._rmatmat(np.asarray(x).reshape(-1, 1))[:, 0]
