"""What a function, class or object *is*, as a hash: its code and all that it captures.

Two functions are the same if they do the same with the same numbers: bytecode, defaults, closures,
and the globals and imports they use; wherever they were imported from. What comes with Python,
ntkcore or an installed package counts by its name and version.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntkcore.specs.layers import Layer

PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
# Of a class: what Python writes into it by itself.
AUTOMATIC = {"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__annotations__"}
AUTOMATIC |= {"__firstlineno__", "__static_attributes__", "__annotate_func__", "__slotnames__"}
# Of code, beside its bytecode and its constants.
OF_CODE = (
    *("co_varnames", "co_names", "co_freevars", "co_cellvars", "co_flags", "co_exceptiontable"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)
INSTALLED = {"site-packages", "dist-packages"}


def identity(thing: Any) -> str:
    """A hash that is another one whenever ``thing`` computes something else."""
    return _Walk(thing).hash(thing)


class _Walk:
    """Everything that can be reached from a thing, each once: cycles end where they began."""

    def __init__(self, top: Any) -> None:
        self.top = top  # seen into, even if a package brings it
        self.known: dict[int, tuple[Any, str]] = {}  # the things too, so that no id comes twice

    def hash(self, thing: Any) -> str:
        if isinstance(thing, PLAIN):
            return _digest([type(thing).__name__, repr(thing)])
        if id(thing) not in self.known:
            self.known[id(thing)] = thing, f"cycle {len(self.known)}"
            self.known[id(thing)] = thing, _digest(self._parts(thing))
        return self.known[id(thing)][1]

    def _parts(self, thing: Any) -> Iterator[str | bytes]:
        """What its hash is made of."""
        yield type(thing).__name__
        if isinstance(thing, Layer):
            yield thing.to_json()
        elif isinstance(thing, torch.Tensor):
            yield repr((thing.shape, thing.dtype))
            dense = thing.detach().cpu().to_dense() if thing.is_sparse else thing.detach().cpu()
            yield dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        elif type(thing) is np.ndarray and thing.dtype != object:
            yield repr((thing.shape, thing.dtype))
            yield np.ascontiguousarray(thing).tobytes()
        elif isinstance(thing, Mapping):
            yield from sorted(self.hash(key) + self.hash(value) for key, value in thing.items())
        elif isinstance(thing, (set, frozenset)):
            yield from sorted(map(self.hash, thing))
        elif isinstance(thing, (list, tuple)):
            yield from map(self.hash, thing)
        elif isinstance(thing, types.ModuleType):
            yield _installed(thing) or self.hash(_without_dunders(vars(thing)))
        elif isinstance(thing, types.CodeType):
            yield thing.co_code
            yield repr([getattr(thing, name) for name in OF_CODE if hasattr(thing, name)])
            yield from map(self.hash, thing.co_consts)
        elif isinstance(thing, functools.partial):
            yield from map(self.hash, (thing.func, thing.args, thing.keywords))
        elif not isinstance(getattr(thing, "__self__", None), (type(None), types.ModuleType)):
            yield thing.__name__  # a method of an object
            yield from map(self.hash, (thing.__self__, getattr(thing, "__func__", None)))
        elif thing is not self.top and (name := _installed(thing)):
            yield name
        elif isinstance(thing, types.FunctionType):
            yield from self._function(thing)
        elif hasattr(thing, "__wrapped__"):  # a cache, or another decorator's object
            yield self.hash(thing.__wrapped__)
            yield from self._object(thing)
        elif isinstance(thing, type):
            yield thing.__name__
            yield from map(self.hash, thing.__bases__)
            own = {key: value for key, value in vars(thing).items() if key not in AUTOMATIC}
            yield self.hash(own)
        elif isinstance(thing, (staticmethod, classmethod)):
            yield self.hash(thing.__func__)
        elif isinstance(thing, property):
            yield from map(self.hash, (thing.fget, thing.fset))
        else:
            yield from self._object(thing)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        yield function.__name__
        yield self.hash(function.__code__)
        yield self.hash(function.__defaults__)
        yield self.hash(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                yield self.hash(cell.cell_contents)
            except ValueError:  # a function that is not defined yet
                yield "empty"
        for path, value in _used(function.__code__, function.__globals__):
            yield path + self.hash(value)

    def _object(self, thing: Any) -> Iterator[str]:
        """Its class and its state, as pickle would take it; else its class and attributes."""
        yield self.hash(type(thing))
        try:
            reduced = thing.__reduce_ex__(2)
        except Exception:  # what cannot be pickled: locks, generators, …
            reduced = getattr(thing, "__dict__", "")
        yield from map(self.hash, reduced[1:] if isinstance(reduced, tuple) else (reduced,))


def _digest(parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(b"%d:" % len(data) + data)
    return found.hexdigest()


def _used(code: types.CodeType, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that code looks up and the modules that it imports, functions inside it included;
    of a module what is taken from it, where that is said at once: (name, value).
    """
    path, value, constants = "", None, [0, 0]
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, types.ModuleType):
            path, value = f"{path}.{step.argval}", getattr(value, str(step.argval), None)
            continue
        if path:
            yield path, value
        path, value = "", None
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in names:
            path, value = str(step.argval), names[step.argval]
        elif step.opname == "IMPORT_NAME":  # after its level and its list of names
            yield str(step.argval), _imported(str(step.argval), constants[-2], names)
        constants.append(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _used(constant, names)


def _imported(name: str, level: int, names: Mapping[str, Any]) -> types.ModuleType | None:
    """The module that an import finds; None if there is none."""
    try:
        return importlib.import_module("." * level + name, names.get("__package__"))
    except ImportError:
        return None


def _without_dunders(names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if not name.startswith("__")}


def _installed(thing: Any) -> str:
    """Name and version of what Python, ntkcore or an installed package brings; else nothing."""
    whole = isinstance(thing, types.ModuleType)
    if not (whole or (callable(thing) and hasattr(thing, "__name__"))):
        return ""
    module = thing.__name__ if whole else getattr(thing, "__module__", None)
    root = str(module or "builtins").partition(".")[0]
    home = sys.modules.get(root)
    place = Path(getattr(home, "__file__", None) or "")
    if root == "__main__" or not (
        root in ("ntkcore", *sys.stdlib_module_names) or INSTALLED & set(place.parts)
    ):
        return ""
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", ""))
    return f"{module}.{name} {getattr(home, '__version__', '')}"
