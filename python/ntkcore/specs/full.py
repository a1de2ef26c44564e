"""The builder of programs by full covariances: what displacement planes cannot do,
over all pairs of positions. See ``csrc/program/full_program.h``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.specs.own import NOTHING, FullOp, OwnBuilder, Places
from ntkcore.specs.program import Matrix, Op, Side, Unread, Value
from ntkcore.specs.windows import Shape, Window

Csr = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]


class FullBuilder(OwnBuilder):
    """Collects ops for an input of shape ``(…, channels)``, with any axes of positions."""

    most_axes = math.inf

    def _start(self, input_shape: Shape, variance: float) -> None:
        super()._start(input_shape, variance)
        self._windows: list[Side] = []
        self._matrices: list[Csr] = []
        self._flips = len(input_shape) == 3  # are left and right alike, so far

    def conv(
        self,
        value: Value,
        window: Window,
        circular: bool,
        params: Sequence[float],
        width: int | None,
    ) -> Value:
        return self.conv_by_taps(value, sides_of(window, value.image, circular), params, width)

    def conv_by_taps(
        self, value: Value, sides: Sequence[Side], params: Sequence[float], width: int | None
    ) -> Value:
        return self._with_weights(self._by_taps(value, sides, params), width)

    def conv_local(
        self,
        value: Value,
        window: Window,
        circular: bool,
        params: Sequence[float],
        width: int | None,
    ) -> Value:
        value = self._by_taps(value, sides_of(window, value.image, circular), params)
        self._append("spread", value)
        return self._with_weights(value, width)

    def pick(self, value: Value, sides: Sequence[Side], shape: Shape) -> Value:
        return self._shaped(self._by_taps(value, sides, NOTHING), shape)

    def take_beside(self, layer: object, value: Value, pattern: bool) -> Value:
        self._flips = False
        return super().take_beside(layer, value, pattern)

    def mix(self, value: Value, matrix: Matrix, shape: Shape, axis: int | None = None) -> Value:
        self._refuse_masks(value, "layers that mix positions by constants")
        return self._mix(value, matrix, shape, axis)

    def _mix(self, value: Value, matrix: Matrix, shape: Shape, axis: int | None) -> Value:
        image = value.image
        self._flips &= _flip_matrix(matrix, image, shape, axis)
        before, after = (1, 1) if axis is None else _around(image, axis)
        self._matrices.append(_csr(matrix, before, after))
        table, positions = len(self._matrices) - 1, before * len(matrix) * after
        self._full_ops.append(
            FullOp("linear", "", value.slot, 0, NOTHING, positions, table, value.mask)
        )
        most = float(np.abs(matrix).sum(axis=1).max()) ** 2
        return self._shaped(replace(value, variance=most * value.variance), shape)

    def pool(
        self,
        value: Value,
        window: Window,
        scale: float,
        normalize_edges: bool,
        circular: bool = False,
    ) -> Value:
        value = self._seen(value)
        sides = sides_of(window, value.image, circular)
        matrices = pool_matrices(sides, value.image, normalize_edges)
        if not normalize_edges:
            matrices[0] *= math.sqrt(scale)
        if value.mask >= 0:  # all axes at once: what is masked between them is not nothing
            value = self._mask_moved(value, middles(sides, value.image))
            both: Matrix = np.eye(1)
            for matrix in matrices:
                both = np.asarray(np.kron(both, matrix), np.float64)
            return self._mix(value, both, window.out, None)
        for axis, matrix in enumerate(matrices):
            if not np.array_equal(matrix, np.eye(matrix.shape[1])):
                shape = *value.image[:axis], len(matrix), *value.image[axis + 1 :]
                value = self._mix(value, matrix, shape, axis)
        return value

    def _may_pool(self, image: Value) -> bool:
        return True

    def _append_normalize(self, value: Value, eps: float, over: Sequence[bool]) -> None:
        self._append("normalize", value, params=(eps, float(any(over))))
        if any(over):
            self._refuse_masks(value, "LayerNorm over positions")
            means = np.eye(1)
            for n, mean in zip(value.image, over, strict=True):
                means = np.kron(means, np.full((n, n), 1 / n) if mean else np.eye(n))
            self._full_ops[-1].table = len(self._matrices)
            self._matrices.append(_csr(means, 1, 1))

    def read(self, value: Value, last: bool = True) -> Value:
        if value.unread and value.unread.half > 0:
            unread = value.unread
            value, last = value if last else self.copy(value), True
            value = self._pool_unread(value, unread)
        if value.unread and not last and (value.mask >= 0 or self._ends_with_mix(value)):
            value, last = self.copy(value), True  # its read-out changes the slot
        return super().read(value, last)

    def _append_readout(self, value: Value, unread: Unread, slot: int) -> None:
        scale = self._weighed(value, unread, slot)
        kind = "readout" if unread.half < 0 else "trace"
        self._put(kind, value, other=slot, params=(scale, 0, 0, 0))

    def _window_mean(
        self, value: Value, window: Window, circular: bool, params: Sequence[float]
    ) -> Value:
        return self._by_taps(value, sides_of(window, value.image, circular), params)

    def _by_taps(self, value: Value, sides: Sequence[Side], params: Sequence[float]) -> Value:
        """Axis by axis, for sums over windows are sums over their sides; all at once where data are
        masked, for what is masked between two axes is not nothing.
        """
        image = value.image
        taps = math.prod(len(side) for side in sides)
        a, b, e, f = (*params, 0.0, 0.0, 0.0)[:4]
        mean = (a / taps, b, e / taps, f)
        axes = [
            axis
            for axis, side in enumerate(sides)
            if len(side) > 1 or not np.array_equal(side[0], np.arange(image[axis]))
        ]
        self._flips &= _flip_side(sides[-1], image[-1])
        if taps > 1:
            value = self._seen(value)
        steps = []
        if value.mask >= 0 and axes:
            value = self._mask_moved(value, middles(sides, image))
            steps, image = [together(sides, image)], tuple(side.shape[1] for side in sides)
        else:
            for axis in axes:
                steps.append(_everywhere(sides[axis], image, axis))
                image = *image[:axis], sides[axis].shape[1], *image[axis + 1 :]
        for reads in steps:
            self._windows.append(reads)
            constants = mean if reads is steps[-1] else NOTHING
            table, positions = len(self._windows) - 1, reads.shape[1]
            self._full_ops.append(
                FullOp("window", "", value.slot, 0, constants, positions, table, value.mask)
            )
        if not axes and mean != NOTHING:
            self._append("affine", value, params=mean)
        return self._shaped(replace(value, variance=a * value.variance + b), image)

    def _shaped(self, value: Value, image: Shape) -> Value:
        """With these axes of positions; a vector without any."""
        one = image or (1,)
        value = replace(value, shape=(*one, value.shape[-1]), stride=(1,) * len(one))
        return value if image else self.readout(value, 0, 1.0, True)

    def _append_plane_op(
        self, op: Op, value: Value, window: Window | None, circular: bool, normalize_edges: bool
    ) -> None:
        self._full_ops.append(FullOp(*op, math.prod(value.image), mask=value.mask))

    def build(self, outputs: int) -> _core.FullProgram:
        """The finished program, which keeps p = p' alone wherever no more is wanted."""
        ops, diagonal = _with_forms(self._full_ops, self._matrices)
        return _core.FullProgram(
            [
                (
                    *(op.kind, op.dual, op.slot, op.other, op.params),
                    *(op.positions, op.table, op.mask, op.matrix),
                )
                for op in ops
            ],
            self._planes.count,
            self._windows,
            self._matrices,
            self._grids,
            self._masks,
            self._ops,
            self._vectors.count,
            outputs,
            (
                *(math.prod(self.input.image), self.input.shape[-1], diagonal, self._flips),
                *(self._mask, self._pattern),
            ),
            self._tables,
        )


def _with_forms(ops: Sequence[FullOp], matrices: Sequence[Csr]) -> tuple[list[FullOp], bool]:
    """The ops with those that change what their slot holds, and whether p = p' of the data is all
    that is wanted: found from the end, where read-outs say what they need.
    """
    out: list[FullOp] = []  # last first
    every: dict[int, bool] = {}  # does what follows need all pairs of the slot

    def diagonal(op: FullOp, slot: int) -> FullOp:
        return replace(op, kind="diagonal", dual="", slot=slot, other=0, table=0, matrix="")

    for op in reversed(ops):
        after = every.get(op.slot, False)
        before = after
        if op.kind in ("readout", "trace"):
            before = after or op.kind == "readout"
            if before != after and op.slot in every:  # ops that follow need p = p' alone
                out.append(diagonal(op, op.slot))
            out.append(op)
        elif op.kind == "spread":
            before = False
            out.extend([op] if after else [])
        elif op.matrix or op.kind == "relate":
            before = True
            out.extend([op] if after else [diagonal(op, op.slot), op])
            if op.kind == "relate":
                every[op.other] = True
        elif op.kind == "linear":
            single = bool((np.diff(matrices[op.table][0]) <= 1).all())
            before = after or not single
            out.extend([op] if after == before else [diagonal(op, op.slot), op])
        elif op.kind == "copy":
            source = every.get(op.other, False)
            both = source or after
            for slot, wanted in ((op.slot, after), (op.other, source)):
                if wanted != both:
                    out.append(diagonal(op, slot))
            out.append(op)
            every[op.other] = both
            every.pop(op.slot, None)  # what it held before is gone
            continue
        else:
            if op.kind in ("add", "multiply"):
                every[op.other] = after
            out.append(op)
        every[op.slot] = before
    return out[::-1], not every.get(0, False)


def sides_of(window: Window, image: Shape, circular: bool) -> list[Side]:
    """Where a window reads along every axis; outside the image nothing, or around it."""
    sides = []
    fields = window.size, window.strides, window.low, window.out, window.dilation
    for size, stride, low, out, step, n in zip(*fields, image, strict=True):
        at = np.arange(size)[:, None] * step + np.arange(out) * stride - low
        side = at % n if circular else np.where((at >= 0) & (at < n), at, -1)
        sides.append(side.astype(np.int32))
    return sides


def pool_matrices(sides: Sequence[Side], image: Shape, normalize_edges: bool) -> list[Matrix]:
    """Sums over windows along every axis, or means over what of them is inside the image."""
    matrices = []
    for side, n in zip(sides, image, strict=True):
        matrix = np.zeros((side.shape[1], n))
        for tap in side:
            inside = np.flatnonzero(tap >= 0)
            matrix[inside, tap[inside]] += 1
        matrices.append(matrix / matrix.sum(axis=1, keepdims=True) if normalize_edges else matrix)
    return matrices


def _around(image: Shape, axis: int) -> tuple[int, int]:
    """Positions along the axes before one, and after it."""
    return math.prod(image[:axis]), math.prod(image[axis + 1 :])


def _everywhere(side: Side, image: Shape, axis: int) -> Side:
    """What one axis does, at every place along the others: (taps, outputs)."""
    before, after = _around(image, axis)
    rows = np.arange(before)[:, None, None] * image[axis] + side[:, None, :, None]
    at = rows * after + np.arange(after)
    everywhere = np.where(side[:, None, :, None] < 0, -1, at)
    return np.ascontiguousarray(everywhere.reshape(len(side), -1), dtype=np.int32)


def together(sides: Sequence[Side], image: Shape) -> Side:
    """What all axes do: (taps, outputs)."""
    at = np.zeros((1, 1), np.int32)
    for side, n in zip(sides, image, strict=True):
        both = at[:, None, :, None] * n + side[None, :, None, :]
        outside = (at[:, None, :, None] < 0) | (side[None, :, None, :] < 0)
        at = np.where(outside, -1, both).reshape(len(at) * len(side), -1)
    return np.ascontiguousarray(at, dtype=np.int32)


def middles(sides: Sequence[Side], image: Shape) -> Places:
    """The position in the middle of every window, -1 for none."""
    found: Places = together([side[(len(side) - 1) // 2][None] for side in sides], image)[0]
    return found


def _csr(matrix: Matrix, before: int, after: int) -> Csr:
    """I x matrix x I, sparse: where rows start, columns, values."""
    row, column = np.nonzero(matrix)
    outer, inner = np.arange(before)[:, None, None], np.arange(after)
    rows = ((outer * len(matrix) + row[:, None]) * after + inner).ravel()
    columns = ((outer * matrix.shape[1] + column[:, None]) * after + inner).ravel()
    values = np.broadcast_to(matrix[row, column][:, None], (before, len(row), after)).ravel()
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=before * len(matrix) * after)
    start = np.concatenate([[0], np.cumsum(counts)])
    return start.astype(np.int32), columns[order].astype(np.int32), values[order]


def _flip_side(side: Side, n: int) -> bool:
    """Does an axis treat left and right alike?"""
    turned = np.where(side < 0, -1, n - 1 - side)[::-1, ::-1]
    return np.array_equal(side, turned)


def _flip_matrix(matrix: Matrix, image: Shape, shape: Shape, axis: int | None) -> bool:
    """The same of the last axis of positions that a matrix acts on."""
    if axis is not None:
        return axis < len(image) - 1 or np.allclose(matrix, matrix[::-1, ::-1], 1e-14, 1e-14)
    if not shape or len(shape) != len(image):
        return False
    whole = matrix.reshape(*shape, *image)
    return np.allclose(whole, np.flip(whole, (len(shape) - 1, whole.ndim - 1)), 1e-14, 1e-14)
