"""Kernels over all pairs of positions, op by op in NumPy: of networks that end with an image, that
begin behind a kernel, or whose data are masked. As slow as it is general.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore import _core
from ntkcore.engine import fields_own
from ntkcore.engine.covariances import of_covariances
from ntkcore.engine.inputs import free_bytes, size_text
from ntkcore.specs.full import Csr, FullBuilder, sides_of, together
from ntkcore.specs.layers import Layer
from ntkcore.specs.lowering import end_of
from ntkcore.specs.own import FullOp
from ntkcore.specs.program import Matrix, Op, Range, Side, Value
from ntkcore.specs.windows import Shape, Window

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
COPIES = 8  # matrices of all pairs that live at once


@dataclass(frozen=True)
class Field:
    """Covariances of two data sets over positions p of one sample and p' of another.

    ``nngp``, ``ntk``: (n1, n2, P, P), ``ntk`` where it is wanted; ``own1``, ``own2``: K of every
    sample with itself, (n, P, P), ``own2`` None for one data set. ``mask1``, ``mask2``: which
    positions are masked, (n, P).
    """

    nngp: Array
    ntk: Array | None
    own1: Array
    own2: Array | None = None
    mask1: Mask | None = None
    mask2: Mask | None = None

    def each(self, function: Callable[[Array], Array]) -> Field:
        """A linear map of matrices over positions, of all that there are."""
        ntk = None if self.ntk is None else function(self.ntk)
        own2 = None if self.own2 is None else function(self.own2)
        nngp, own1 = function(self.nngp), function(self.own1)
        return replace(self, nngp=nngp, ntk=ntk, own1=own1, own2=own2)

    def masks(self, function: Callable[[Mask], Mask]) -> Field:
        """A map of masks."""
        one, two = (None if m is None else function(m) for m in (self.mask1, self.mask2))
        return replace(self, mask1=one, mask2=two)

    def of_samples(self, rows: Any, columns: Any) -> Field:
        """The covariances of some samples."""
        both = np.ix_(rows, columns)
        return Field(
            self.nngp[both],
            None if self.ntk is None else self.ntk[both],
            self.own1[rows],
            None if self.own2 is None else self.own2[columns],
            None if self.mask1 is None else self.mask1[rows],
            None if self.mask2 is None else self.mask2[columns],
        )

    def masked(self) -> Field:
        """Covariances of masked positions are 0."""
        if self.mask1 is None:
            return self
        see1 = ~self.mask1
        see2 = see1 if self.mask2 is None else ~self.mask2
        own = [see[:, :, None] & see[:, None, :] for see in (see1, see2)]
        return self.times(see1[:, None, :, None] & see2[None, :, None, :], *own)

    def times(self, pairs: Any, one: Any, two: Any) -> Field:
        """All times factors: of pairs of samples, and of those of each data set with themselves."""
        ntk = None if self.ntk is None else self.ntk * pairs
        own2 = None if self.own2 is None else self.own2 * two
        return replace(self, nngp=self.nngp * pairs, ntk=ntk, own1=self.own1 * one, own2=own2)


def of_data(x1: Array, x2: Array | None, wants_ntk: bool) -> Field:
    """Where networks begin: K = <x(p), x'(p')>/channels, T = 0, of data (n, …, channels)."""
    a, b = (
        x.astype(np.float64).reshape(len(x), -1, x.shape[-1])
        for x in (x1, x1 if x2 is None else x2)
    )
    _check_memory(len(a) * len(b) * a.shape[1] ** 2)
    nngp = np.einsum("ipc,jqc->ijpq", a, b, optimize=True) / a.shape[-1]
    own = [np.einsum("ipc,iqc->ipq", x, x) / a.shape[-1] for x in (a, b)]
    return Field(
        nngp, np.zeros_like(nngp) if wants_ntk else None, own[0], None if x2 is None else own[1]
    )


def _check_memory(pairs: int) -> None:
    need, free = 8 * COPIES * pairs, free_bytes()
    if free is not None and need > free:
        raise MemoryError(
            f"covariances of all pairs of positions need {size_text(need)}, and {size_text(free)}"
            " are free: take fewer samples, or end the network with Flatten() or GlobalAvgPool(),"
            " which need no matrix of all pairs of pixels at once"
        )


class _Recorder(FullBuilder):
    """Its ops, with what becomes of masks between them: where each position's mask comes from."""

    def _start(self, input_shape: Shape, variance: float) -> None:
        super()._start(input_shape, variance)
        self.sources: list[Any] = []
        self._pooling = False
        self._waiting: Any = None
        self.recorded, self.windows, self.matrices = self._full_ops, self._windows, self._matrices
        self.grids = self._grids

    @property
    def head(self) -> list[Op]:
        """Ops on vectors."""
        return self._ops

    @property
    def tables(self) -> list[Array]:
        """Of series."""
        return self._tables

    def take_beside(self, layer: object, value: Value, pattern: bool) -> Value:
        raise NotImplementedError(
            "MaskedInput and GraphInput need the data themselves, and a network that ends with a"
            " vector: put GlobalAvgPool() or Flatten() behind"
        )

    def _ends_with_mix(self, value: Value) -> bool:
        return False  # no short cuts

    def _by_taps(self, value: Value, sides: Sequence[Side], params: Sequence[float]) -> Value:
        self._waiting = self._middles(value, sides)
        return super()._by_taps(value, sides, params)

    def _shaped(self, value: Value, image: Shape) -> Value:
        if self._waiting is not None:  # all axes are done, and no read-out has begun
            self._record(value, self._waiting)
        return super()._shaped(value, image)

    def pool(
        self,
        value: Value,
        window: Window,
        scale: float,
        normalize_edges: bool,
        circular: bool = False,
    ) -> Value:
        self._pooling = True
        out = super().pool(value, window, scale, normalize_edges, circular)
        self._pooling = False
        self._record(out, self._middles(value, sides_of(window, value.image, circular)))
        return out

    def mix(self, value: Value, matrix: Matrix, shape: Shape, axis: int | None = None) -> Value:
        self._waiting = None if self._pooling else len(self._matrices)
        return super().mix(value, matrix, shape, axis)

    @staticmethod
    def _middles(value: Value, sides: Sequence[Side]) -> Side:
        """An output is masked where the middle of its window is."""
        middle = [side[(len(side) - 1) // 2][None] for side in sides]
        source: Side = together(middle, value.image)[0]
        return source

    def _record(self, value: Value, source: Any) -> None:
        self._waiting = None
        self.sources.append(source)
        number = len(self.sources) - 1
        self._full_ops.append(
            FullOp("masks", "", value.slot, 0, (), math.prod(value.image), number)
        )


def after(net: Layer, input_shape: Shape, field: Field, **options: Any) -> tuple[Field, Value]:
    """The covariances after a network, and what is known of its outputs.

    ``options``: threads, backend, progress as of `ntkcore.kernel`. ValueError names a layer that
    does not fit; NotImplementedError where masks have no meaning.
    """
    own = (field.own1, *(() if field.own2 is None else (field.own2,)))
    variance = max(float(_variances(m).max()) for m in own)
    builder = _Recorder(input_shape, field.ntk is not None, Range(max(variance, 1e-30)))
    end = end_of(net, builder)
    run = _Run(builder, options)
    places, heads = ({0: field}, {}) if builder.input.is_image else ({}, {0: field})
    for op in builder.recorded:
        if op.kind in ("readout", "trace"):
            heads[op.other] = _read_out(places[op.slot], op)
        else:
            places[op.slot] = run.step(op, places)
    for kind, dual, slot, other, params in builder.head:
        heads[slot] = run.step(FullOp(kind, dual, slot, other, params, 1), heads)
    return (places if end.is_image else heads)[end.slot], end


@dataclass(frozen=True)
class _Run:
    """Ops on the slots, by the builder's tables."""

    builder: _Recorder
    options: dict[str, Any]

    def step(self, op: FullOp, slots: dict[int, Field]) -> Field:
        """What an op leaves in its slot."""
        field = slots.get(op.slot)
        if op.kind == "copy":
            return slots[op.other]
        assert field is not None
        if op.kind == "add":
            return _joined(field, slots[op.other], product=False)
        if op.kind == "multiply":
            return _joined(field, slots[op.other], product=True)
        if op.kind == "masks":  # once all axes of a layer are done
            return self.move_masks(field, self.builder.sources[op.table]).masked()
        if op.kind in ("mix", "embed", "relate"):
            return self.coupled(op, field, slots).masked()
        if op.kind == "spread":
            return field.each(lambda m: m * np.eye(m.shape[-1]))
        if op.kind == "affine":
            return _affine(field, op.params).masked()
        if op.kind == "window":
            return _affine(_window(field, self.builder.windows[op.table]), op.params)
        if op.kind == "linear":
            matrix = _dense(self.builder.matrices[op.table], field.own1.shape[-1])
            return field.each(lambda m: matrix @ m @ matrix.T)
        return self.pointwise(field, op).masked()

    def coupled(self, op: FullOp, field: Field, slots: dict[int, Field]) -> Field:
        """Attention."""
        if op.kind == "relate":
            return fields_own.related(field.masked(), slots[op.other].masked())
        grid = self.builder.grids[op.table] if op.table >= 0 else None
        if op.kind == "mix":
            return fields_own.mixed(field, op.matrix, op.params, grid)
        assert grid is not None
        return field.each(lambda m: m + op.params[0] * grid)

    def move_masks(self, field: Field, source: Any) -> Field:
        """Each from a position, or from all that a matrix, by its number, gives weight to: masked
        where all of them are. NotImplementedError where there is no position.
        """
        if field.mask1 is None:
            return field
        if isinstance(source, int):
            weights = _dense(self.builder.matrices[source], field.mask1.shape[-1]) != 0
            return field.masks(lambda mask: ~((~mask).astype(float) @ weights.T > 0))
        if (source < 0).any():
            raise NotImplementedError(
                "kernel_fn: mask_constant is not supported for layers whose windows have no pixel"
                " in their middle"
            )
        return field.masks(lambda mask: mask[:, source])

    def pointwise(self, field: Field, op: FullOp) -> Field:
        """K, T <- E, D T, with the variances at both positions; T = 1 before it gives D."""
        ops: list[Op] = [
            ("affine", "", 0, 0, (1.0, 0.0, 0.0, 1.0)),
            (op.kind, op.dual, 0, op.other, (*op.params, 0.0, 0.0, 0.0, 0.0)[:4]),
            ("emit", "", 0, 0, (1.0, 0.0, 0.0, 0.0)),
        ]
        program = _core.Program(ops, 1, 1, self.builder.tables)
        n1, n2, rows, cols = field.nngp.shape
        pairs = field.nngp.transpose(0, 2, 1, 3).reshape(n1 * rows, n2 * cols)
        q1 = _variances(field.own1).ravel()
        q2 = None if field.own2 is None else _variances(field.own2).ravel()
        names = ("nngp",) if field.ntk is None else ("nngp", "ntk")
        found: dict[str, Array] = {
            name: values.reshape(n1, rows, n2, cols).transpose(0, 2, 1, 3)
            for name, values in of_covariances(
                program, pairs, q1, q2, names, **self.options
            ).items()
            if name in names
        }
        nngp = found["nngp"]
        ntk = None if field.ntk is None else found["ntk"] * field.ntk
        if field.own2 is None:
            each = np.arange(n1)
            return replace(field, nngp=nngp, ntk=ntk, own1=nngp[each, each])
        own1, own2 = self.own(program, field.own1), self.own(program, field.own2)
        return replace(field, nngp=nngp, ntk=ntk, own1=own1, own2=own2)

    def own(self, program: Any, own: Array) -> Array:
        """E of every sample with itself."""
        each = (
            of_covariances(program, m, _variances(m), None, ("nngp",), **self.options) for m in own
        )
        return np.stack([found["nngp"] for found in each])


def _variances(own: Array) -> Array:
    variances: Array = np.maximum(np.diagonal(own, axis1=-2, axis2=-1), 0)
    return variances


def _dense(matrix: Csr, columns: int) -> Array:
    start, column, value = matrix
    out = np.zeros((len(start) - 1, columns))
    out[np.repeat(np.arange(len(out)), np.diff(start)), column] = value
    return out


def _affine(field: Field, params: Sequence[float]) -> Field:
    """K, T <- a K + b, a T + e K + f."""
    a, b, e, f = (*params, 0.0, 0.0, 0.0)[:4]
    out = field.each(lambda m: a * m + b)
    ntk = None if field.ntk is None else a * field.ntk + e * field.nngp + f
    return replace(out, ntk=ntk)


def _joined(field: Field, other: Field, product: bool) -> Field:
    """Sums or products of K, and what becomes of T; what is masked in both is masked."""

    def join(a: Array | None, b: Array | None) -> Array | None:
        return None if a is None or b is None else a * b if product else a + b

    ntk = None
    if field.ntk is not None and other.ntk is not None:
        ntk = field.ntk + other.ntk
        if product:
            ntk = field.ntk * other.nngp + field.nngp * other.ntk
    masks = {
        name: getattr(field, name) & getattr(other, name)
        for name in ("mask1", "mask2")
        if getattr(field, name) is not None
    }
    nngp, own1 = join(field.nngp, other.nngp), join(field.own1, other.own1)
    assert nngp is not None
    assert own1 is not None
    return replace(field, nngp=nngp, ntk=ntk, own1=own1, own2=join(field.own2, other.own2), **masks)


def _window(field: Field, source: Side) -> Field:
    """Sums over taps; -1 reads nothing."""

    def taken(matrix: Array, tap: Any) -> Array:
        inside = tap >= 0
        read: Array = matrix[..., tap, :][..., tap] * (inside[:, None] & inside)
        return read

    return field.each(lambda m: sum((taken(m, tap) for tap in source[1:]), taken(m, source[0])))


def _read_out(field: Field, op: FullOp) -> Field:
    """Sums over all pairs, or over p = p'; means are those of positions that are not masked."""
    scale, positions = op.params[0], op.positions
    if op.kind == "trace":
        out = field.each(lambda m: scale * np.trace(m, axis1=-2, axis2=-1)[..., None, None])
    else:
        out = field.each(lambda m: scale * m.sum((-2, -1))[..., None, None])
        if field.mask1 is not None and math.isclose(scale, positions**-2):
            out = _means_of_seen(out, field, positions)
    return out.masks(lambda mask: np.asarray(mask.all(1, keepdims=True))).masked()


def _means_of_seen(out: Field, field: Field, positions: int) -> Field:
    assert field.mask1 is not None
    share = [
        positions / np.maximum((~mask).sum(1), 1)
        for mask in (field.mask1, field.mask1 if field.mask2 is None else field.mask2)
    ]
    own = [s[:, None, None] ** 2 for s in share]
    return out.times(np.outer(*share)[..., None, None], *own)
