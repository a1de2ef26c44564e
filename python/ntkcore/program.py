"""A program of plain ops under construction: what a layer calls to say what it does to K and T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ntkcore import _core

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A slot of the program and what is known of the signal in it.

    ``gaussian``: jointly Gaussian over parameters, so that a dual activation may follow. ``independent``: produced by
    weights of its own since the last fan-out, so that a sum with other branches has no cross terms. ``width``: number
    of units, where declared (needed by the standard parameterization only).
    """

    slot: int
    shape: Shape
    gaussian: bool = False
    independent: bool = False
    width: int | None = None


Op = tuple[str, str, int, int, Sequence[float]]


class Builder:
    """Collects ops; see ``csrc/program.h`` for their meaning."""

    def __init__(self, input_shape: Shape, wants_ntk: bool) -> None:
        self.ops: list[Op] = []
        self.wants_ntk = wants_ntk
        self.input = Value(0, input_shape, width=input_shape[-1])
        self._slots = 1
        self._free: list[int] = []
        self.path: list[str] = []

    def error(self, layer: object, problem: str) -> ValueError:
        """The error of one layer, named by its place and its spelling."""
        return ValueError(f"layer {'.'.join(self.path) or '0'}, {layer!r}: {problem}")

    def affine(self, value: Value, a: float, b: float, e: float, f: float, width: int | None) -> Value:
        """K <- a K + b, T <- a T + e K + f."""
        self._append("affine", value.slot, params=(a, b, e, f))
        return replace(value, gaussian=True, independent=True, width=width)

    def dual(self, value: Value, name: str, params: Sequence[float]) -> Value:
        """K, T <- E[phi phi'], E[dphi dphi'] T."""
        self._append("dual", value.slot, dual=name, params=params)
        return replace(value, gaussian=False, independent=False)

    def normalize(self, value: Value, eps: float) -> Value:
        """K, T <- K, T / sqrt((q + eps)(q' + eps))."""
        self._append("normalize", value.slot, params=(eps,))
        return value

    def copy(self, value: Value) -> Value:
        """A second slot with the same content."""
        slot = self._free.pop() if self._free else self._slots
        self._slots = max(self._slots, slot + 1)
        self._append("copy", slot, value.slot)
        return replace(value, slot=slot)

    def add(self, value: Value, other: Value) -> Value:
        """K, T of `value` <- sum with those of `other`, whose slot is given back."""
        self._append("add", value.slot, other.slot)
        self.release(other)
        both = value.gaussian and other.gaussian
        return replace(value, gaussian=both, independent=value.independent and other.independent)

    def release(self, value: Value) -> None:
        """Give a slot back."""
        self._free.append(value.slot)

    def emit(self, value: Value, output: int, affine: Sequence[float] = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Output number `output` <- the slot, after an affine layer that leaves the slot as it is."""
        self._append("emit", value.slot, output, params=affine)

    def build(self, outputs: int) -> _core.Program:
        """The finished program."""
        return _core.Program(self.ops, self._slots, outputs)

    def _append(self, kind: str, slot: int, other: int = 0, dual: str = "", params: Sequence[float] = ()) -> None:
        padded = (*map(float, params), 0.0, 0.0, 0.0, 0.0)[:4]
        self.ops.append((kind, dual, slot, other, padded))
