"""Kernels on disk: the address of `ntkcore.store`. The module is callable, as `build` itself."""

import sys
from types import ModuleType

from ntkcore.store.build import build, extend, resume
from ntkcore.store.planning import Plan, plan

__all__ = ["Plan", "build", "extend", "plan", "resume"]


class _Callable(ModuleType):
    __call__ = staticmethod(build)


sys.modules[__name__].__class__ = _Callable
