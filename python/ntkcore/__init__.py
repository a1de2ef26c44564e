"""Exact infinite-width kernels (NNGP and NTK) of neural networks, close to the hardware's limit."""

from importlib.metadata import version as _version

import lazy_loader as _lazy

# The names stand in __init__.pyi; each is loaded when it is first asked for.
__getattr__, __dir__, _names = _lazy.attach_stub(__name__, __file__)
# `from ntkcore import *` asks for no extra: these need one, and are asked for by name.
_OF_EXTRAS = {
    *("Claim", "control", "estimators", "falsifier", "falsify", "finite"),
    *("Cholesky", "KernelModel", "LandmarkRegression", "cg", "eigs", "fit", "rpcholesky", "solve"),
    *("InMemory", "MatrixFree", "Stored", "operators"),
}
__all__ = [name for name in _names if name not in _OF_EXTRAS]
__version__ = _version("ntkcore")
