"""pytest plugin: the tests' GPU is the interpreter, their CuPy is fake_cupy.

    cd tests && PYTHONPATH=. python -m pytest -p ptx.plugin -m gpu test_gpu.py

With PTX_COUNTS=1 the end lists every kernel's launches and
executed instructions of warps and of lanes.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

import numpy as np

import fake_cupy
import ntkcore
from ptx import build


def install():
    """Puts the interpreted module and the stand-in for CuPy in place;
    returns the interpreter's functions.
    """
    path, texts = build.module()
    engine = build.loaded(path)
    for text in texts:
        if error := engine.ptx_load(text.read_bytes()):
            raise RuntimeError(error.decode())
    spec = importlib.util.spec_from_file_location("ntkcore._cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["ntkcore._cuda"] = ntkcore._cuda = module
    fake_cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    sys.modules["cupy"] = fake_cupy
    lend_arrays(engine)
    return engine


def lend_arrays(engine):
    """Kernels may touch an array of the stand-in once its address was asked for;
    the bounds are those of its memory.
    """
    address = fake_cupy.ndarray.__cuda_array_interface__.fget

    def lent(array):
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        engine.ptx_lend(owner.ctypes.data, owner.nbytes)
        return address(array)

    fake_cupy.ndarray.__cuda_array_interface__ = property(lent)


ENGINE = install()


def pytest_terminal_summary(terminalreporter):
    if os.environ.get("PTX_COUNTS"):
        terminalreporter.section("launches, warps' instructions, lanes' instructions, kernel")
        terminalreporter.write(ENGINE.ptx_counts().decode())
