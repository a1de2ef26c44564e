"""Kernels as linear operators: the address of `ntkcore.linalg.operators`."""

from ntkcore.linalg.operators import (
    InMemory,
    KernelOperator,
    MatrixFree,
    Stored,
    as_operator,
    cupy_operator,
    symmetric_operator,
)

__all__ = [
    "InMemory",
    "KernelOperator",
    "MatrixFree",
    "Stored",
    "as_operator",
    "cupy_operator",
    "symmetric_operator",
]
