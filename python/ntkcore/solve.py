"""Solvers of kernel systems: the address of `ntkcore.linalg`. The module is callable, as `solve` itself."""

import sys
from types import ModuleType

from ntkcore.linalg.solve import (
    CGResult,
    Cholesky,
    Eigh,
    LandmarkRegression,
    Nystrom,
    RidgeWarning,
    cg,
    eigs,
    noise_floor,
    solve,
)

__all__ = [
    "CGResult",
    "Cholesky",
    "Eigh",
    "LandmarkRegression",
    "Nystrom",
    "RidgeWarning",
    "cg",
    "eigs",
    "noise_floor",
    "solve",
]


class _Callable(ModuleType):
    __call__ = staticmethod(solve)


sys.modules[__name__].__class__ = _Callable
