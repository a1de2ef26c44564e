"""`kernel_fn` of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, as_array, check_data
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.specs import layers
from ntkcore.specs.program import Builder, Law, Shape
from ntkcore.stax.axes import Axes, axes_of
from ntkcore.stax.composition import Given, values_after
from ntkcore.stax.kernel import Kernel, names_of, packed
from ntkcore.stax.masks import masked, without_masked
from ntkcore.stax.parts import Part
from ntkcore.stax.support import check_diagonals, refuse_masks

Sizes = tuple[int, int]


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
        pattern: None = None,
        mask_constant: float | None = None,
        diagonal_batch: bool | None = None,
        diagonal_spatial: bool | None = None,
        threads: int | None = None,
        dtype: npt.DTypeLike | None = None,
        backend: str | None = None,
        progress: bool | None = None,
    ) -> Any:
        """The kernel between ``x1`` and ``x2`` (None: ``x1``), vectors or images.

        Parameters
        ----------
        x1, x2
            Data, samples and channels lying on the axes of the network's first layer: by default
            (n, d) and (n, height, width, channels). Or, as ``x1`` alone, the `Kernel` of a network
            of vectors that goes before, in float64.
        get
            The name of a `Kernel` attribute ("ntk", "nngp", "cov1", …; any case) for its value, a
            tuple of names for a namedtuple in that order, None for a `Kernel`. Only what is asked
            for is computed.
        mask_constant
            Entries of the data that equal it (NaN too) are masked: they count as 0, and kernels of
            a sample of which all entries are masked are 0.
        diagonal_batch
            False: cov1 and cov2 are the covariances of all samples.
        diagonal_spatial
            True: covariances between pixels are not followed, for networks without pools, of which
            they are no part. Otherwise they are wherever the network needs them.
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
            For ``pattern``, for single masked pixels, for ``diagonal_spatial=True`` of a network
            with pools.
        """
        refuse_masks("kernel_fn", pattern=pattern)
        names = names_of(get)
        check_diagonals(self.net, diagonal_batch, diagonal_spatial)
        options = {"threads": threads, "backend": backend, "progress": progress}
        if isinstance(x1, Kernel):
            extra = (x2, mask_constant, dtype)
            if diagonal_batch is False or any(one is not None for one in extra):
                raise TypeError(
                    "kernel_fn of a Kernel takes no x2, mask_constant, dtype or"
                    " diagonal_batch=False: the Kernel says which samples there are, in float64"
                )
            return packed(get, self._behind(x1, names, options))
        if isinstance(x2, Kernel):
            raise TypeError("kernel_fn takes a Kernel as x1, alone")
        values = self._of_data(names, x1, x2, dtype, mask_constant, diagonal_batch, options)
        values["diagonal_spatial"] = bool(diagonal_spatial) and values.pop("vectors")
        return packed(get, values)

    def _of_data(
        self,
        names: Sequence[str],
        x1: Any,
        x2: Any,
        dtype: Any,
        mask_constant: float | None,
        diagonal_batch: bool | None,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        first, axes = self._ordered(x1, "x1")
        second = first if x2 is x1 else None if x2 is None else self._ordered(x2, "x2")[0]
        first, mask1 = masked(first, mask_constant)
        second, mask2 = (first, mask1) if x2 is x1 else masked(second, mask_constant)
        a, b = check_data(first, second, dtype)
        after = self.part.after(axes)
        found: dict[str, Any] = {"diagonal_batch": diagonal_batch is not False}
        matrices = tuple(name for name in names if name in KERNELS)
        if matrices:
            other = None if x2 is x1 else b
            found.update(kernel(self.net, a, other, matrices, **options)._asdict())
        for name, x in (("cov1", a), ("cov2", b)):
            if name in names:
                found[name] = self._own(x, found["diagonal_batch"], options)
        found = without_masked(found, mask1, mask2)
        if "x1_is_x2" in names:
            found["x1_is_x2"] = b is None or (
                a.shape == b.shape and bool((np.abs(a - b) < 1e-12).all())
            )
        if not found.keys() >= set(names):
            sizes = len(a), len(a if b is None else b)
            found.update(self._facts(self.net, a.shape[1:], after, sizes))
        return {**found, "mask1": mask1, "mask2": mask2, "vectors": a.ndim == 2}

    def _own(self, x: Any, diagonal: bool, options: dict[str, Any]) -> Any:
        """Variances of samples, or all their covariances."""
        if x is None:
            return None
        if not diagonal:
            return kernel(self.net, x, None, "nngp", **options)
        return kernel_diag(
            self.net, x, "nngp", threads=options["threads"], backend=options["backend"]
        )

    def _behind(
        self, before: Kernel, names: Sequence[str], options: dict[str, Any]
    ) -> dict[str, Any]:
        found = values_after(self.net, before, names, options)
        after = self.part.after(Axes(before.batch_axis, before.channel_axis))
        net = layers.Serial(Given(before.is_gaussian), self.net)
        features = (before.shape1[before.channel_axis],)
        sizes = before.shape1[before.batch_axis], before.shape2[before.batch_axis]
        found = without_masked(found, before.mask1, before.mask2)
        return {**before.asdict(), **found, **self._facts(net, features, after, sizes)}

    def _facts(
        self, net: layers.Layer, input_shape: Shape, after: Axes, sizes: Sizes
    ) -> dict[str, Any]:
        """What a Kernel says of the outputs."""
        builder = Builder(input_shape, wants_ntk=False)
        end = builder.read(layers.single(net, builder, net.lower(builder, builder.input)))
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

    def _ordered(self, x: Any, name: str) -> tuple[Any, Axes]:
        """The data with samples first and channels last, and where they were."""
        x = x if hasattr(x, "ndim") else as_array(x, name)
        if x.ndim < 2:
            return x, Axes()  # `check_data` says what to do
        axes = axes_of(self.part.takes, x.ndim, self.part.name)
        if (axes.batch, axes.channel) == (0, x.ndim - 1):
            return x, axes
        return np.moveaxis(as_array(x, name), (axes.batch, axes.channel), (0, -1)), axes
