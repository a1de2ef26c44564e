"""Exact infinite-width kernels (NNGP and NTK) of neural networks, close to the hardware's limit."""

from importlib.metadata import version as _version

import lazy_loader as _lazy

# The names stand in __init__.pyi; each is loaded when it is first asked for.
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = _version("ntkcore")
