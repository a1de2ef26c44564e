"""What `kernel_fn` gives: neural-tangents' Kernel."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy.typing as npt

from ntkcore.specs.windows import Shape

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Kernel:
    """What ``kernel_fn(x1, x2)`` gives without ``get``, and takes in the place of data.

    Attributes
    ----------
    nngp, ntk : ndarray
        Shape (n1, n2); of outputs that are images (n1, n2, height, height, width, width), of every
        pair of pixels, or with ``diagonal_spatial`` (n1, n2, height, width), of p = p'.
    cov1, cov2 : ndarray
        Every sample's NNGP variance, shape (n1,) and (n2,), and axes of pixels likewise; ``cov2``
        is None for ``x2=None``. With ``diagonal_batch=False`` the covariances of all samples,
        (n1, n1) and (n2, n2).
    x1_is_x2 : bool
        Are both data sets equal.
    is_gaussian : bool
        Are the outputs jointly Gaussian, i.e. does the network end with an affine layer.
    is_reversed, is_input : bool
        False: the order of spatial axes does not change here, and no layer asks for the other.
    diagonal_batch, diagonal_spatial : bool
        As asked for: are cov1 and cov2 diagonals; False for outputs that were images.
    shape1, shape2 : tuple of int
        Shapes of the network's outputs.
    batch_axis, channel_axis : int
        Their axes of samples and of channels.
    mask1, mask2 : ndarray of bool, optional
        Which samples, or pixels of which, are masked, where ``mask_constant`` was given: of the
        outputs' shape, with one channel, (n1, 1) or (n1, height, width, 1).
    """

    nngp: Array
    ntk: Array | None
    cov1: Array
    cov2: Array | None
    x1_is_x2: bool
    is_gaussian: bool
    is_reversed: bool
    is_input: bool
    diagonal_batch: bool
    diagonal_spatial: bool
    shape1: Shape
    shape2: Shape
    batch_axis: int
    channel_axis: int
    mask1: Array | None = None
    mask2: Array | None = None

    def replace(self, **changes: Any) -> Kernel:
        """A Kernel with other values of these attributes; TypeError for an unknown one."""
        return replace(self, **changes)

    def asdict(self) -> dict[str, Any]:
        """The attributes by name."""
        return {name: getattr(self, name) for name in FIELDS}

    def astuple(self) -> tuple[Any, ...]:
        """The attributes in their order."""
        return tuple(self.asdict().values())


FIELDS = tuple(field.name for field in fields(Kernel))


def names_of(get: str | Sequence[str] | None) -> tuple[str, ...]:
    """The attributes asked for; KeyError for an unknown one, ValueError for none and for twice."""
    if get is None:
        return FIELDS
    if not isinstance(get, (str, Sequence)):
        raise TypeError(f'"get" must be a name, a tuple of names, or None, not {get!r}')
    names = tuple(str(name).lower() for name in ((get,) if isinstance(get, str) else get))
    if not names or names == ("",):
        raise ValueError(f'"get" must be non-empty: one of {", ".join(FIELDS)}, or a tuple of them')
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: kernel_fn gives {', '.join(FIELDS)}")
    return names


def packed(get: str | Sequence[str] | None, values: dict[str, Any]) -> Any:
    """A Kernel, one value, or a namedtuple of values: as asked for."""
    names = names_of(get)
    if get is None:
        return Kernel(**{name: values[name] for name in names})
    if isinstance(get, str):
        return values[names[0]]
    return _tuple_type(names)(*(values[name] for name in names))


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("AnalyticKernel", names))
