"""Solvers of kernel systems: the address of `ntkcore.linalg`. The module is callable,
as `solve` itself.
"""

import sys
from types import ModuleType

from ntkcore.linalg.askotch import askotch
from ntkcore.linalg.cg import CGResult, cg
from ntkcore.linalg.choice import FitPlan
from ntkcore.linalg.cholesky import Cholesky
from ntkcore.linalg.eigen import Eigh
from ntkcore.linalg.fitting import KernelModel, fit
from ntkcore.linalg.landmarks import LandmarkRegression
from ntkcore.linalg.leading import eigs
from ntkcore.linalg.noise import RidgeWarning, noise_floor
from ntkcore.linalg.nystrom import Nystrom
from ntkcore.linalg.rpcholesky import LowRank, rpcholesky
from ntkcore.linalg.solve import solve

__all__ = [
    "CGResult",
    "Cholesky",
    "Eigh",
    "FitPlan",
    "KernelModel",
    "LandmarkRegression",
    "LowRank",
    "Nystrom",
    "RidgeWarning",
    "askotch",
    "cg",
    "eigs",
    "fit",
    "noise_floor",
    "rpcholesky",
    "solve",
]


class _Callable(ModuleType):
    __call__ = staticmethod(solve)


sys.modules[__name__].__class__ = _Callable
