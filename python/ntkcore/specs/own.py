"""What programs by full covariances do with masks, and with matrices of positions that samples have
of their own: attention, and patterns that they hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ntkcore.specs.program import (
    Attention,
    Builder,
    Matrix,
    Unread,
    Value,
    largest_variance,
)
from ntkcore.specs.windows import Shape

Places = npt.NDArray[np.int32]
NOTHING = (1.0, 0.0, 0.0, 0.0)  # an affine map that changes nothing


class MaskError(ValueError):
    """A layer in front of which masks have no meaning here."""


@dataclass
class FullOp:
    """An op on a slot that has so many positions, masked like that, after it."""

    kind: str
    dual: str
    slot: int
    other: int
    params: Sequence[float]
    positions: int
    table: int = 0
    mask: int = -1
    matrix: str = ""  # of a sample's own


class OwnBuilder(Builder):
    """The part of `FullBuilder` that deals with them."""

    def _start(self, input_shape: Shape, variance: float) -> None:
        super()._start(input_shape, variance)
        self._full_ops: list[FullOp] = []
        self._grids: list[Matrix] = []
        self._masks: list[Places] = []
        self._mask, self._pattern = False, False  # what the data hold beside their features
        self._most_weight = 0.0

    def take_beside(self, layer: object, value: Value, pattern: bool) -> Value:
        if self._full_ops:
            raise self.error(layer, "must come before all other layers: it is about the data")
        positions = math.prod(value.image)
        width = value.shape[-1]
        channels = width - 1 - (positions if pattern else 0)
        self._mask, self._pattern = True, pattern
        self._most_weight = positions * value.variance * width  # of a row of the pattern, squared
        self._masks.append(np.arange(positions, dtype=np.int32))
        self.input = replace(
            value,
            shape=(*value.image, channels),
            width=channels,
            variance=value.variance * width / channels,
            mask=0,
        )
        return self._seen(self.input)

    def attend(self, value: Value, attention: Attention) -> Value:
        grid, scale = attention.grid, attention.scale
        table = -1 if grid is None else self._grid(grid)
        self._put("mix", value, params=(0, 0, scale, 1), table=table, matrix=attention.mechanism)
        if attention.mechanism == "softmax":  # means
            return value
        most = scale * value.variance + (0.0 if grid is None else float(np.abs(grid).max()))
        reads = math.prod(value.image) * most
        return self._grown(value, reads * reads)

    def embed(self, value: Value, weight: float, grid: Matrix) -> Value:
        self._put("embed", value, params=(weight, weight, 0, 0), table=self._grid(grid))
        return replace(value, variance=value.variance + weight * float(grid.max()))

    def aggregate(self, layer: object, value: Value) -> Value:
        if not self._pattern:
            raise self.error(
                layer, "the data hold no pattern: put GraphInput() before the first layer"
            )
        if not np.array_equal(self._masks[value.mask], self._masks[0]):
            raise self.error(
                layer, "a layer before it moved positions, and the pattern is that of the data's"
            )
        self._put("mix", value, params=(0, 0, 0, 0), table=-1, matrix="given")
        return self._grown(value, self._most_weight)

    def relate(self, value: Value, other: Value) -> Value:
        value, other = self._seen(value), self._seen(other)
        self._put("relate", value, other=other.slot)
        self.release(other)
        pairs = math.prod(value.image) ** 2
        return self._grown(value, pairs * value.variance * other.variance)

    def recur(self, value: Value, dual: str, params: Sequence[float], weight: float) -> Value:
        positions, constants = math.prod(value.image), (*map(float, params), 0.0, 0.0, 0.0)[:3]
        self._put("recur", value, dual=dual, params=(*constants, weight))
        before, state = -1.0, 0.0
        for _ in range(positions):
            if state == before or not math.isfinite(state):
                break
            before, grown = state, largest_variance(dual, tuple(params), state)
            state = value.variance + weight * grown
        return replace(value, variance=state)

    @staticmethod
    def _grown(value: Value, factor: float) -> Value:
        return replace(value, variance=factor * value.variance)

    def _put(
        self,
        kind: str,
        value: Value,
        *,
        dual: str = "",
        other: int = 0,
        params: Sequence[float] = NOTHING,
        table: int = 0,
        matrix: str = "",
    ) -> None:
        positions = math.prod(value.image)
        self._full_ops.append(
            FullOp(kind, dual, value.slot, other, params, positions, table, value.mask, matrix)
        )

    def _grid(self, grid: Matrix) -> int:
        self._grids.append(np.ascontiguousarray(grid, np.float64))
        return len(self._grids) - 1

    def _seen(self, value: Value) -> Value:
        """The same, with 0 where it is masked: before what mixes positions."""
        if value.mask >= 0 and not self._is_seen(value.slot):
            self._put("weigh", value, params=(0, 0, 0, 0))
        return value

    def _is_seen(self, slot: int) -> bool:
        last = next((op for op in reversed(self._full_ops) if op.slot == slot), None)
        return last is not None and (last.kind, last.params[0], last.matrix) == ("weigh", 0, "")

    def add(self, value: Value, other: Value) -> Value:
        return super().add(*self._masked_alike(value, other))

    def multiply(self, layer: object, value: Value, other: Value) -> Value:
        return super().multiply(layer, *self._masked_alike(value, other))

    def _masked_alike(self, value: Value, other: Value) -> tuple[Value, Value]:
        """Both, if the same positions are masked; as vectors, where they are flattened images."""
        nothing = np.empty(0, np.int32)
        first, second = (
            self._masks[part.mask] if part.mask >= 0 else nothing for part in (value, other)
        )
        if not (value.on_planes and other.on_planes) or np.array_equal(first, second):
            return value, other
        if value.is_image:
            raise MaskError(
                f"layer {'.'.join(self.path)}: the branches differ in which positions are masked:"
                " a position behind a window is masked where its middle is, so give their windows"
                " the same middles"
            )
        return self.read(value), self.read(other)

    def _mask_moved(self, value: Value, middle: Places) -> Value:
        """With the mask of outputs whose windows have these positions in their middle: theirs (as
        in neural-tangents).
        """
        if (middle < 0).any():
            raise MaskError(
                f"layer {'.'.join(self.path)}: masked data are not supported where windows have no"
                " position in their middle"
            )
        self._masks.append(np.ascontiguousarray(self._masks[value.mask][middle]))
        return replace(value, mask=len(self._masks) - 1)

    def _refuse_masks(self, value: Value, what: str) -> None:
        if value.mask >= 0:
            raise MaskError(f"layer {'.'.join(self.path)}: masked data are not supported by {what}")

    def _weighed(self, value: Value, unread: Unread, slot: int) -> float:
        """Weights of positions before a read-out, and the scale of what is left: means are those of
        positions in use. What attention makes of a mean over positions is a mean with other
        weights, which spares its products.
        """
        mean = unread.half < 0 and math.isclose(unread.scale, math.prod(unread.image) ** -2)
        mixed = self._take_back_mix(value) if mean else None
        if mixed:
            mix, affine = mixed
            self._put(
                "weigh", value, params=(1, *mix.params[1:]), table=mix.table, matrix=mix.matrix
            )
            self._ops.append(("affine", "", slot, 0, affine.params))
        elif value.mask >= 0:
            self._put("weigh", value, params=(float(mean), 0, 0, 0))
        return 1.0 if mean and (mixed or value.mask >= 0) else unread.scale

    def _take_back_mix(self, value: Value) -> tuple[FullOp, FullOp] | None:
        """The attention that the value is the affine output of, taken back."""
        if not self._ends_with_mix(value):
            return None
        affine, mix = self._full_ops.pop(), self._full_ops.pop()
        return mix, affine

    def _ends_with_mix(self, value: Value) -> bool:
        last = self._full_ops[-2:]
        return [op.kind for op in last] == ["mix", "affine"] and all(
            op.slot == value.slot for op in last
        )
