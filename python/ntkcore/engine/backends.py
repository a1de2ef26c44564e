"""Which backend runs: listed, chosen automatically,
or forced by ``backend=`` or the variable NTKCORE_BACKEND.
"""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

from ntkcore import _core

ENVIRONMENT_VARIABLE = "NTKCORE_BACKEND"


class BackendInfo(NamedTuple):
    """One backend of this build: its name, and why it cannot run here (None: it can)."""

    name: str
    missing: str | None


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here, and what would help; None where it can."""
    if importlib.util.find_spec("ntkcore._cuda") is None:
        return (
            "this build has no CUDA module:"
            " install where nvcc is on PATH (NTKCORE_CUDA=ON says what is missing)"
        )
    from ntkcore import _cuda

    machine = _cuda.machine()
    driver, runtime = _version(machine["driver"]), _version(machine["runtime"])
    if machine["driver"] == 0:
        return "no NVIDIA driver is installed"
    if machine["driver"] // 1000 < machine["runtime"] // 1000:
        return (
            f"the NVIDIA driver supports CUDA {driver}, this build needs {runtime}:"
            " update the driver"
        )
    if machine["error"] or not machine["devices"]:
        return f"no CUDA device can be used: {machine['error'] or 'the driver finds none'}"
    return _architecture_problem(_cuda.ARCHITECTURES, machine["devices"]) or _cupy_problem()


def _architecture_problem(built: str, devices: list[tuple[str, int, int]]) -> str | None:
    """Code for x.y runs on x.z, z >= y; PTX (an entry without "-real") on everything later."""
    for entry in built.split():
        number, _, kind = entry.partition("-")
        exact = any(
            device // 10 == int(number) // 10 and device >= int(number) for _, device, _ in devices
        )
        later = kind != "real" and any(device >= int(number) for _, device, _ in devices)
        if exact or later:
            return None
    names = ", ".join(f"{name} (sm_{capability})" for name, capability, _ in devices)
    return (
        f"this build has code for {built}, but the machine has {names}: rebuild with"
        " -DCMAKE_CUDA_ARCHITECTURES"
    )


def _cupy_problem() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return 'CuPy is not installed: pip install "ntkcore[gpu]"'
    return None


def cuda_description() -> str:
    """This build's CUDA version and architectures, the driver and the devices;
    or why there is none of it.
    """
    if importlib.util.find_spec("ntkcore._cuda") is None:
        return str(cuda_problem())
    from ntkcore import _cuda

    machine = _cuda.machine()
    driver = _version(machine["driver"]) if machine["driver"] else "none"
    devices = [
        f"{name} (sm_{capability}, {size / 2**30:.0f} GiB)"
        for name, capability, size in machine["devices"]
    ]
    built = f"built with {_version(machine['runtime'])} for {_cuda.ARCHITECTURES}"
    return f"{built}; driver {driver}; {', '.join(devices) or 'no device'}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def cpu_backends() -> list[str]:
    """Names of the backends of the CPU that can run on this machine, the fastest first."""
    return [name for name, missing in _core.backends() if missing is None]


def info() -> list[BackendInfo]:
    """All backends, the CPU's fastest first: a GPU is used for data that lie on it,
    or when asked for.
    """
    return [
        *(BackendInfo(*entry) for entry in _core.backends()),
        BackendInfo("cuda", cuda_problem()),
    ]


def backends() -> list[str]:
    """Names of the backends that can run on this machine, the fastest first."""
    return [entry.name for entry in info() if entry.missing is None]


def resolve(name: str | None = None) -> str:
    """The backend to run: ``name``, else $NTKCORE_BACKEND, else the fastest.
    ValueError for one that cannot run.
    """
    wanted = name if name is not None else os.environ.get(ENVIRONMENT_VARIABLE) or backends()[0]
    known = {entry.name: entry.missing for entry in info()}
    if not isinstance(wanted, str) or wanted not in known:
        where = "" if name else f" in ${ENVIRONMENT_VARIABLE}"
        raise ValueError(f"unknown backend {wanted!r}{where}; this build has: {', '.join(known)}")
    if known[wanted] is not None:
        raise ValueError(
            f"backend {wanted!r} cannot run here: {known[wanted]}; available:"
            f" {', '.join(backends())}"
        )
    return wanted
