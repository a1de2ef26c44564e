"""Kernels as SciPy's linear operators: in memory, in a store,
or recomputed tile by tile and never held.

All count ``passes``, how often the whole kernel was read or computed; a product with many columns
is one pass. Tiles may be float32; sums are float64. Of a symmetric kernel one half of the tiles is
read, each serving twice.

Kernels that are CuPy arrays, or come from CuPy data, are multiplied on their GPU: with NumPy
vectors, which travel, or through `cupy_operator` with CuPy's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ntkcore.engine.inputs import refuse_no_array
from ntkcore.linalg.in_memory import InMemory
from ntkcore.linalg.matrix_free import MatrixFree
from ntkcore.linalg.operator import KernelOperator
from ntkcore.linalg.stored import Stored

__all__ = [
    "InMemory",
    "KernelOperator",
    "MatrixFree",
    "Stored",
    "as_operator",
    "cupy_operator",
    "symmetric_operator",
]


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
