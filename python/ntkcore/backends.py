"""Which executor runs: listed, chosen automatically, or forced by ``backend=`` or the variable NTKCORE_BACKEND."""

from __future__ import annotations

import os
from typing import NamedTuple

from ntkcore import _core

ENVIRONMENT_VARIABLE = "NTKCORE_BACKEND"


class BackendInfo(NamedTuple):
    """One backend of this build: its name, and why it cannot run here (None: it can)."""

    name: str
    missing: str | None


def info() -> list[BackendInfo]:
    """All backends of this build, the fastest first."""
    return [BackendInfo(*entry) for entry in _core.backends()]


def backends() -> list[str]:
    """Names of the backends that can run on this machine, the fastest first."""
    return [entry.name for entry in info() if entry.missing is None]


def resolve(name: str | None = None) -> str:
    """The backend to run: ``name``, else $NTKCORE_BACKEND, else the fastest. ValueError for one that cannot run."""
    wanted = name or os.environ.get(ENVIRONMENT_VARIABLE) or backends()[0]
    known = {entry.name: entry.missing for entry in info()}
    if not isinstance(wanted, str) or wanted not in known:
        raise ValueError(f"unknown backend {wanted!r}; this build has: {', '.join(known)}")
    if known[wanted] is not None:
        raise ValueError(f"backend {wanted!r} cannot run here: {known[wanted]}; available: {', '.join(backends())}")
    return wanted
