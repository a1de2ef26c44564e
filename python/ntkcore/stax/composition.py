"""Kernels over pixels: to and from the arrays of a `Kernel`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.fields import Field
from ntkcore.specs import layers
from ntkcore.specs.program import Builder, Law, Value
from ntkcore.specs.windows import Shape
from ntkcore.stax.axes import Axes
from ntkcore.stax.kernel import Kernel

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class Given(layers.Layer, abstract=True):
    """Stands for the network before a Kernel: features that are jointly Gaussian, or not."""

    gaussian: bool

    def lower(self, builder: Builder, value: layers.Signal) -> Value:
        """Weights that change nothing."""
        value = layers.single(self, builder, value)
        value = builder.affine(value, 1.0, 0.0, 0.0, 0.0, value.width)
        return value if self.gaussian else replace(value, law=Law.OTHER, centred=False)


def inputs_of(kernel: Kernel) -> tuple[Axes, Shape]:
    """The axes of a Kernel, and the shape of one sample, channels last."""
    shape = list(kernel.shape1)
    axes = Axes(kernel.batch_axis, kernel.channel_axis, len(shape))
    places = [n for axis, n in enumerate(shape) if axis not in (axes.batch, axes.channel)]
    return axes, (*places, shape[axes.channel])


def field_of(kernel: Kernel, wants_ntk: bool) -> Field:
    """A Kernel's covariances over all pairs of positions.

    With ``diagonal_spatial`` those of p = p', and 0 elsewhere.
    ValueError for arrays that do not fit each other.
    """
    axes, (*places, _) = inputs_of(kernel)
    n1 = len(kernel.cov1)
    n2 = n1 if kernel.cov2 is None else len(kernel.cov2)
    if wants_ntk and kernel.ntk is None:
        raise ValueError("the Kernel holds no ntk: ask for 'nngp', or compute it with its ntk")

    def matrix(name: str, samples: Shape) -> Matrix | None:
        given = getattr(kernel, name)
        if given is None:
            return None
        if name in ("cov1", "cov2") and not kernel.diagonal_batch:
            _numbers(name, given, (*samples, *samples))
            given = np.moveaxis(np.diagonal(given, axis1=0, axis2=1), -1, 0)
        array = _numbers(name, given, samples)
        if kernel.diagonal_spatial:
            return _from_diagonal(array, places, name)
        return _from_pairs(array, places, kernel.is_reversed, name)

    nngp, own1, own2 = matrix("nngp", (n1, n2)), matrix("cov1", (n1,)), matrix("cov2", (n2,))
    assert nngp is not None
    assert own1 is not None
    for name, own in (("cov1", own1), ("cov2", own2)):
        if own is not None and (np.diagonal(own, axis1=-2, axis2=-1) < 0).any():
            raise ValueError(f"the Kernel's {name} holds variances, which must not be negative")
    masks = (
        _mask(f"mask{i}", m, axes, (n, *places))
        for i, m, n in ((1, kernel.mask1, n1), (2, kernel.mask2, n2))
    )
    return Field(nngp, matrix("ntk", (n1, n2)) if wants_ntk else None, own1, own2, *masks)


def _mask(name: str, given: Any, axes: Axes, shape: Shape) -> Mask | None:
    """Which positions are masked, of (samples, …, 1); ValueError for another shape or dtype."""
    if given is None:
        return None
    mask = np.asarray(given)
    outside = axes.outside((*shape, 1))
    if mask.dtype != bool or mask.shape != outside:
        raise ValueError(
            f"the Kernel's {name} must be of bool and of shape {outside}, not {mask.dtype} of shape"
            f" {mask.shape}"
        )
    return np.moveaxis(mask, (axes.batch, axes.channel), (0, -1)).reshape(shape[0], -1)


def values_of(field: Field, axes: Axes, places: Shape, diagonal: bool) -> dict[str, Any]:
    """A Kernel's arrays."""
    arrays = {"nngp": field.nngp, "ntk": field.ntk, "cov1": field.own1, "cov2": field.own2}
    masks = {"mask1": field.mask1, "mask2": field.mask2}
    return {
        name: None if m is None else _to_pairs(m, places, diagonal) for name, m in arrays.items()
    } | {
        name: None
        if m is None
        else np.moveaxis(m.reshape(len(m), *places, 1), (0, -1), (axes.batch, axes.channel))
        for name, m in masks.items()
    }


def _to_pairs(matrix: Matrix, places: Shape, diagonal: bool) -> Matrix:
    """(…, P, P) to (…, h, h, w, w), or to (…, h, w) of p = p'."""
    leading, rank = matrix.shape[:-2], len(places)
    if diagonal:
        own: Matrix = np.diagonal(matrix, axis1=-2, axis2=-1)
        return own.reshape(*leading, *places).copy()
    whole = matrix.reshape(*leading, *places, *places)
    first = len(leading)
    pairs = [axis for i in range(rank) for axis in (first + i, first + rank + i)]
    return np.ascontiguousarray(whole.transpose(*range(first), *pairs))


def _from_pairs(array: Matrix, places: list[int], is_reversed: bool, name: str) -> Matrix:
    """And back."""
    rank = len(places)
    sizes = places[::-1] if is_reversed else places
    first = array.ndim - 2 * rank
    if array.shape[first:] != tuple(n for n in sizes for _ in range(2)):
        raise ValueError(
            f"the Kernel's {name} has shape {array.shape}, which does not end with that of pairs of"
            f" pixels of an image of {tuple(places)}"
        )
    order = range(rank - 1, -1, -1) if is_reversed else range(rank)
    axes = [first + 2 * i + side for side in (0, 1) for i in order]
    total = int(np.prod(places, dtype=int))
    return array.transpose(*range(first), *axes).reshape(*array.shape[:first], total, total)


def _from_diagonal(array: Matrix, places: list[int], name: str) -> Matrix:
    first = array.ndim - len(places)
    if array.shape[first:] != tuple(places):
        raise ValueError(
            f"the Kernel's {name} has shape {array.shape}, which does not end with that of an image"
            f" of {tuple(places)}"
        )
    flat = array.reshape(*array.shape[:first], -1)
    return flat[..., None] * np.eye(flat.shape[-1])


def _numbers(name: str, given: Any, samples: Shape) -> Matrix:
    array = np.ascontiguousarray(given, np.float64)
    if array.shape[: len(samples)] != samples:
        raise ValueError(f"the Kernel's {name} has shape {array.shape}, not {samples} first")
    if not np.isfinite(array).all():
        raise ValueError(f"the Kernel's {name} holds NaN or infinity")
    return array
