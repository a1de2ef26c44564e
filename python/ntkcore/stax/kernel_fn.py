"""`kernel_fn` of a network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine import fields
from ntkcore.engine.fields import Field
from ntkcore.engine.inputs import KERNELS, as_array, check_data
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.specs import layers
from ntkcore.specs.beside import GraphInput, MaskedInput
from ntkcore.specs.lowering import end_of, on_planes_or_not
from ntkcore.specs.own import MaskError
from ntkcore.specs.program import Law, Value
from ntkcore.specs.windows import Shape
from ntkcore.stax.axes import Axes, axes_of
from ntkcore.stax.composition import Given, field_of, inputs_of, values_of
from ntkcore.stax.kernel import Kernel, names_of, packed
from ntkcore.stax.masks import masked, with_mask
from ntkcore.stax.parts import Part
from ntkcore.stax.patterns import (
    both_patterns,
    matrices_of,
    refuse_graphs,
    sums_of,
    with_pattern,
    without_sums,
)
from ntkcore.stax.support import check_diagonals, refuse_masks


@dataclass(frozen=True)
class KernelFn:
    """``kernel_fn`` of a network."""

    part: Part

    @property
    def net(self) -> layers.Layer:
        """The network's ntkcore spec, of samples first and channels last."""
        return self.part.net

    def __call__(
        self,
        x1: npt.ArrayLike | Kernel,
        x2: npt.ArrayLike | None = None,
        get: str | Sequence[str] | None = None,
        *,
        pattern: Any = None,
        mask_constant: float | None = None,
        diagonal_batch: bool | None = None,
        diagonal_spatial: bool | None = None,
        threads: int | None = None,
        dtype: npt.DTypeLike | None = None,
        backend: str | None = None,
        progress: bool | None = None,
    ) -> Any:
        """The kernel between ``x1`` and ``x2`` (None: ``x1``), vectors or images.

        A network that ends with an image has a kernel for every pair of pixels, (n1, n2, height,
        height, width, width), which is computed in NumPy: for few samples and small images. So is
        one of a `Kernel` and one of masked data.

        Parameters
        ----------
        x1, x2
            Data, samples and channels lying on the axes of the network's first layer: by default
            (n, d) and (n, height, width, channels). Or, as ``x1`` alone, the `Kernel` of the
            network before.
        get
            The name of a `Kernel` attribute ("ntk", "nngp", "cov1", …; any case) for its value, a
            tuple of names for a namedtuple in that order, None for a `Kernel`. Only what is asked
            for is computed.
        pattern
            (pattern1, pattern2) of `stax.Aggregate`, for data of networks that end with a vector;
            None: it is the identity.
        mask_constant
            Entries of the data that equal it (NaN too) are masked: they count as 0, and so do
            covariances of pixels, or samples, of which all channels are masked.
        diagonal_batch
            False: cov1 and cov2 are the covariances of all samples.
        diagonal_spatial
            True: covariances between pixels are left out, (n1, n2, height, width), for networks
            without pools, which need them.
        threads, dtype, backend, progress
            As for `ntkcore.kernel`.

        Raises
        ------
        KeyError
            For an unknown name.
        ValueError, TypeError
            For an empty or repeated name, samples or channels on an axis where a layer does not
            look for them, a `Kernel` that is none; and as of `ntkcore.kernel`.
        NotImplementedError
            For ``pattern`` without `stax.Aggregate`, or of a network that ends with an image; for
            masks before layers that mix pixels (but convolutions and pools), for
            ``diagonal_spatial=True`` of a network with pools.
        """
        sums = list(sums_of(self.part))
        if not sums:
            refuse_masks("kernel_fn of a network without stax.Aggregate", pattern=pattern)
        patterns = both_patterns(pattern, x2 is None)
        if sums and patterns is None:
            return replace(self, part=without_sums(self.part))(
                x1,
                x2,
                get,
                mask_constant=mask_constant,
                diagonal_batch=diagonal_batch,
                diagonal_spatial=diagonal_spatial,
                threads=threads,
                dtype=dtype,
                backend=backend,
                progress=progress,
            )
        names = names_of(get)
        check_diagonals(self.net, diagonal_batch, diagonal_spatial)
        options = {"threads": threads, "backend": backend, "progress": progress}
        if sums and patterns is not None:
            if isinstance(x1, Kernel) or isinstance(x2, Kernel) or diagonal_spatial:
                raise NotImplementedError(
                    "kernel_fn: a pattern is not supported with a Kernel or diagonal_spatial=True:"
                    " give the data to the whole network"
                )
            given = [(x1, patterns[0])] if x2 is None else [(x1, patterns[0]), (x2, patterns[1])]
            values = self._of_graphs(
                names, given, dtype, mask_constant, diagonal_batch is not False, options
            )
        elif isinstance(x1, Kernel):
            extra = (x2, mask_constant, dtype)
            if diagonal_batch is False or any(one is not None for one in extra):
                raise TypeError(
                    "kernel_fn of a Kernel takes no x2, mask_constant, dtype or"
                    " diagonal_batch=False: the Kernel says which samples there are, in float64"
                )
            values = self._behind(x1, names, bool(diagonal_spatial), options)
        elif isinstance(x2, Kernel):
            raise TypeError("kernel_fn takes a Kernel as x1, alone")
        else:
            diagonals = diagonal_batch is not False, bool(diagonal_spatial)
            values = self._of_data(names, x1, x2, dtype, mask_constant, diagonals, options)
        return packed(get, values)

    def _of_data(
        self,
        names: Sequence[str],
        x1: Any,
        x2: Any,
        dtype: Any,
        mask_constant: float | None,
        diagonals: tuple[bool, bool],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        first, axes = self._ordered(x1, "x1")
        second = first if x2 is x1 else None if x2 is None else self._ordered(x2, "x2")[0]
        first = self._picked(first)
        second = first if x2 is x1 else self._picked(second)
        first, mask1 = masked(first, mask_constant)
        second, mask2 = (first, mask1) if x2 is x1 else masked(second, mask_constant)
        a, b = check_data(first, second, dtype)
        same = b is None or (a.shape == b.shape and bool((np.abs(a - b) < 1e-12).all()))
        alike = same and (mask1 is None or mask2 is None or np.array_equal(mask1, mask2))
        other = None if alike else b
        after, end = self.part.after(axes), _end(self.net, a.shape[1:])
        found = None
        if mask1 is None and not end.is_image:
            found = self._whole(self.net, names, (a, b), alike, diagonals[0], options)
        elif not end.is_image:
            found = self._masked(names, [(a, mask1), (b, mask2)], alike, diagonals[0], options)
        if found is None:
            sides = [(a, mask1), (other, None if alike else mask2)]
            found = self._by_pixels(names, sides, after, diagonals, options)
            if alike and b is not None:
                found |= {"cov2": found["cov1"], "mask2": found["mask1"]}
            found = {name: _in_dtype(value, a.dtype) for name, value in found.items()}
        sizes = len(a), len(a if b is None else b)
        pixels = end.is_image or a.ndim == 2
        kept = {
            "x1_is_x2": same,
            "diagonal_batch": diagonals[0],
            "diagonal_spatial": diagonals[1] and pixels,
        }
        return {"mask1": None, "mask2": None, **found, **kept, **_facts(end, after, sizes)}

    def _of_graphs(
        self,
        names: Sequence[str],
        given: Sequence[tuple[Any, Any]],
        dtype: Any,
        mask_constant: float | None,
        diagonal_batch: bool,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Kernels of data and their patterns."""
        sides, axes = [], Axes()
        for number, (x, pattern) in enumerate(given, 1):
            ordered, axes = self._ordered(x, f"x{number}")
            features, mask = masked(self._picked(ordered), mask_constant)
            check_data(features, None, dtype)
            matrices = matrices_of(self.part, pattern, axes, ordered.shape, f"pattern{number}")
            sides.append((features, mask, self._picked(matrices)))
        a, b = check_data(sides[0][0], sides[1][0] if len(sides) > 1 else None, dtype)
        packed_sides = [
            with_pattern(x, mask, matrices)
            for x, (_, mask, matrices) in zip((a, b), sides, strict=False)
            if x is not None
        ]
        net = layers.Serial(GraphInput(), self.net)
        after, end = self.part.after(axes), _end(net, packed_sides[0].shape[1:])
        refuse_graphs(names, end.is_image, [mask for _, mask, _ in sides])
        one, two = (*packed_sides, None)[:2]
        same = b is None or (a.shape == b.shape and bool((np.abs(a - b) < 1e-12).all()))
        alike = two is None or np.array_equal(one, two)
        found = self._whole(net, names, (one, two), alike, diagonal_batch, options)
        sizes = len(a), len(a if b is None else b)
        kept = {"x1_is_x2": same, "diagonal_batch": diagonal_batch, "diagonal_spatial": False}
        return {"mask1": None, "mask2": None, **found, **kept, **_facts(end, after, sizes)}

    def _masked(
        self,
        names: Sequence[str],
        sides: Sequence[tuple[Any, Any]],
        alike: bool,
        diagonal_batch: bool,
        options: dict[str, Any],
    ) -> dict[str, Any] | None:
        """The same of data with masks; None where the engine does not do them."""
        given = [(x, mask) for x, mask in sides if x is not None]
        if not set(names) <= {*KERNELS, "cov1", "cov2"} or any(
            x.ndim < 3 or mask is None or mask.all(axis=1).any() for x, mask in given
        ):
            return None
        packed_sides = [with_mask(x, mask) for x, mask in given]
        both = packed_sides[0], packed_sides[1] if len(packed_sides) > 1 else None
        net = layers.Serial(MaskedInput(), self.net)
        try:
            return self._whole(net, names, both, alike, diagonal_batch, options)
        except MaskError:
            return None

    def _whole(
        self,
        net: layers.Layer,
        names: Sequence[str],
        data: tuple[Any, Any],
        alike: bool,
        diagonal_batch: bool,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Kernels of vectors, by the engine."""
        a, b = data
        found: dict[str, Any] = {}
        matrices = tuple(name for name in names if name in KERNELS)
        if matrices:
            other = None if alike else b
            found.update(kernel(net, a, other, matrices, **options)._asdict())
        given = {name: value for name, value in options.items() if name != "progress"}
        for name, x in (("cov1", a), ("cov2", b)):
            if name in names and x is not None and diagonal_batch:
                found[name] = kernel_diag(net, x, "nngp", **given)
            elif name in names:
                found[name] = None if x is None else kernel(net, x, None, "nngp", **options)
        return found

    def _by_pixels(
        self,
        names: Sequence[str],
        sides: Sequence[tuple[Any, Any]],
        after: Axes,
        diagonals: tuple[bool, bool],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Kernels of two data sets with their masks, over pixels where the network ends so."""

        def values(one: tuple[Any, Any], two: tuple[Any, Any], wants_ntk: bool) -> dict[str, Any]:
            start = fields.of_data(one[0], two[0], wants_ntk)
            start = replace(start, mask1=one[1], mask2=two[1])
            shape = one[0].shape[1:]
            return _values(self.net, shape, start, after, diagonals[1], options)

        found = values(sides[0], sides[1], "ntk" in names)
        if not diagonals[0]:
            for name, side in zip(("cov1", "cov2"), sides, strict=True):
                if side[0] is not None:
                    found[name] = values(side, (None, None), False)["nngp"]
        return found

    def _behind(
        self, before: Kernel, names: Sequence[str], diagonal: bool, options: dict[str, Any]
    ) -> dict[str, Any]:
        """What follows a Kernel."""
        axes, shape = inputs_of(before)
        start = field_of(before, "ntk" in names)
        start = start.of_samples(*(self.part.picked(np.arange(n)) for n in start.nngp.shape[:2]))
        net = layers.Serial(Given(before.is_gaussian), self.net)
        after, end = self.part.after(axes), _end(net, shape)
        sizes = start.nngp.shape[0], start.nngp.shape[1]
        alone = before.diagonal_spatial and len(shape) > 1
        if alone:
            check_diagonals(self.net, None, True, ValueError)
        diagonal = diagonal or alone
        found = _values(net, shape, start, after, diagonal, options)
        kept = {
            "x1_is_x2": before.x1_is_x2,
            "diagonal_batch": True,
            "diagonal_spatial": diagonal and (end.is_image or len(shape) == 1),
        }
        return {**found, **kept, **_facts(end, after, sizes)}

    def _picked(self, x: Any) -> Any:
        """The samples that the network keeps, of which all others know nothing."""
        if x is None or np.ndim(x) < 2:
            return x
        rows = np.arange(len(x))
        kept = self.part.picked(rows)
        return x if kept is rows else as_array(x, "x")[kept]

    def _ordered(self, x: Any, name: str) -> tuple[Any, Axes]:
        """The data with samples first and channels last, and where they were."""
        x = x if hasattr(x, "__dlpack__") else as_array(x, name)
        if x.ndim < 2:
            return x, Axes()  # `check_data` says what to do
        axes = axes_of(self.part.takes, x.ndim, self.part.name)
        if (axes.batch, axes.channel) == (0, x.ndim - 1):
            return x, axes
        return np.moveaxis(as_array(x, name), (axes.batch, axes.channel), (0, -1)), axes


def _values(
    net: layers.Layer,
    shape: Shape,
    start: Field,
    after: Axes,
    diagonal: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """A Kernel's arrays after a network, by all pairs of pixels."""
    field, end = fields.after(net, shape, start, **options)
    return values_of(field, after, end.shape[:-1] if end.is_image else (), diagonal)


@functools.lru_cache(maxsize=64)
def _end(net: layers.Layer, input_shape: Shape) -> Value:
    """What is known of a network's outputs."""
    return on_planes_or_not(functools.partial(end_of, net), input_shape, wants_ntk=False)


def _in_dtype(value: Any, dtype: Any) -> Any:
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype != bool else value


def _facts(end: Value, after: Axes, sizes: tuple[int, int]) -> dict[str, Any]:
    """What a Kernel says of the outputs."""
    width = (end.width or end.shape[-1]) * after.scale
    shape1, shape2 = (after.outside((n, *end.shape[:-1], width)) for n in sizes)
    return {
        "is_gaussian": end.law is Law.GAUSSIAN,
        "is_reversed": False,
        "is_input": False,
        "shape1": shape1,
        "shape2": shape2,
        "batch_axis": after.batch,
        "channel_axis": after.channel,
    }
