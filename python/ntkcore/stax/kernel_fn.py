"""`kernel_fn` of a network, and what it gives."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import KERNELS, as_array, check_data
from ntkcore.engine.kernels import kernel, kernel_diag
from ntkcore.specs import layers
from ntkcore.specs.program import Builder, Law, Shape
from ntkcore.stax.axes import Axes, axes_of
from ntkcore.stax.parts import Part
from ntkcore.stax.support import check, refuse_masks

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Kernel:
    """What ``kernel_fn(x1, x2)`` gives without ``get``.

    ``nngp``, ``ntk``: shape (n1, n2). ``cov1``, ``cov2``: every sample's NNGP variance, shape (n1,)
    and (n2,); ``cov2`` is None for ``x2=None``. ``x1_is_x2``: are both data sets equal.
    ``is_gaussian``: are the outputs jointly Gaussian, i.e. does the network end with an affine
    layer. ``shape1``, ``shape2``: shapes of the network's outputs.
    """

    nngp: Array
    ntk: Array
    cov1: Array
    cov2: Array | None
    x1_is_x2: bool
    is_gaussian: bool
    shape1: Shape
    shape2: Shape


FIELDS = tuple(field.name for field in fields(Kernel))


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
        x1: npt.ArrayLike,
        x2: npt.ArrayLike | None = None,
        get: str | Sequence[str] | None = None,
        *,
        pattern: None = None,
        mask_constant: None = None,
        diagonal_batch: bool | None = None,
        diagonal_spatial: bool | None = None,
        threads: int | None = None,
        dtype: npt.DTypeLike | None = None,
        backend: str | None = None,
        progress: bool | None = None,
    ) -> Any:
        """The kernel between ``x1`` and ``x2`` (None: ``x1``), vectors (n, d) or images (n,
        height, width, channels).

        ``get``: the name of a `Kernel` field ("ntk", "nngp", "cov1", …; any case) for its value, a
        tuple of names for a namedtuple in that order, None for a `Kernel`. Only what is asked for
        is computed. ``diagonal_batch``: None or True, ``cov1`` and ``cov2`` being diagonals;
        ``diagonal_spatial``: None or False, covariances between pixels being followed wherever the
        network needs them. ``threads``, ``dtype``, ``backend``, ``progress``: as for
        `ntkcore.kernel`, whose errors are raised.

        KeyError for an unknown name; ValueError for an empty or repeated one; TypeError for a
        `Kernel` as ``x1``; NotImplementedError for ``pattern`` and ``mask_constant``, and for other
        diagonals.
        """
        refuse_masks("kernel_fn", pattern=pattern, mask_constant=mask_constant)
        check("kernel_fn", diagonal_batch=diagonal_batch, diagonal_spatial=diagonal_spatial)
        if isinstance(x1, Kernel) or isinstance(x2, Kernel):
            raise TypeError(
                "kernel_fn takes data, not a Kernel:"
                " join the layers with stax.serial and call its kernel_fn once"
            )
        names = FIELDS if get is None else _names(get)
        values = self._values(
            names, x1, x2, dtype, progress, {"threads": threads, "backend": backend}
        )
        if get is None:
            return Kernel(**values)
        return (
            values[names[0]]
            if isinstance(get, str)
            else _tuple_type(names)(*(values[name] for name in names))
        )

    def _values(
        self,
        names: Sequence[str],
        x1: Any,
        x2: Any,
        dtype: Any,
        progress: bool | None,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        first, axes = self._ordered(x1, "x1")
        second = first if x2 is x1 else None if x2 is None else self._ordered(x2, "x2")[0]
        a, b = check_data(first, second, dtype)
        after = self.part.after(axes)
        found: dict[str, Any] = {}
        matrices = tuple(name for name in names if name in KERNELS)
        if matrices:
            other = None if x2 is x1 else b
            found.update(
                kernel(self.net, a, other, matrices, progress=progress, **options)._asdict()
            )
        for name, x in (("cov1", a), ("cov2", b)):
            if name in names:
                found[name] = None if x is None else kernel_diag(self.net, x, "nngp", **options)
        if "x1_is_x2" in names:
            found["x1_is_x2"] = b is None or (
                a.shape == b.shape and bool((np.abs(a - b) < 1e-12).all())
            )
        if not found.keys() >= set(names):
            gaussian, shape = self._output(a.shape[1:])
            shape = (*shape[:-1], shape[-1] * after.scale)
            found.update(
                is_gaussian=gaussian,
                shape1=after.outside((len(a), *shape)),
                shape2=after.outside((len(a if b is None else b), *shape)),
            )
        return found

    def _ordered(self, x: Any, name: str) -> tuple[Any, Axes]:
        """The data with samples first and channels last, and where they were."""
        x = x if hasattr(x, "ndim") else as_array(x, name)
        if x.ndim < 2:
            return x, Axes()  # `check_data` says what to do
        axes = axes_of(self.part.takes, x.ndim, self.part.name)
        if (axes.batch, axes.channel) == (0, x.ndim - 1):
            return x, axes
        return np.moveaxis(as_array(x, name), (axes.batch, axes.channel), (0, -1)), axes

    def _output(self, input_shape: Shape) -> tuple[bool, Shape]:
        """Is the output Gaussian, and its shape for one sample."""
        builder = Builder(input_shape, wants_ntk=False)
        end = builder.read(layers.single(self.net, builder, self.net.lower(builder, builder.input)))
        return end.law is Law.GAUSSIAN, (*end.shape[:-1], end.width or end.shape[-1])


def _names(get: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(name).lower() for name in ((get,) if isinstance(get, str) else get))
    if not names or names == ("",):
        raise ValueError(f'"get" must be non-empty: one of {", ".join(FIELDS)}, or a tuple of them')
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: kernel_fn gives {', '.join(FIELDS)}")
    return names


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("AnalyticKernel", names))
