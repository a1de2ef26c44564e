"""Kernels by their names, as tuples, objects or arrays hold them; what is asked for,
and how it is packed.
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Gaussian(NamedTuple):
    """Mean, shaped as the outputs, and covariance, shaped as the kernel; time axes lead both."""

    mean: Array
    covariance: Array


Kernels = namedtuple("Kernels", ("nngp", "ntk"), defaults=(None, None))


def by_name(kernels: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """What kernel_fn gave for a tuple ``get``, by its fields:
    in which order they stand is its own affair.
    """
    if not all(hasattr(kernels, name) for name in names):
        raise TypeError(
            f"kernel_fn, asked for get={names}, must give a namedtuple or Kernel with these fields,"
            f" not a {type(kernels).__name__} without"
            f" {', '.join(name for name in names if not hasattr(kernels, name))}"
        )
    return {name: getattr(kernels, name) for name in names}


def attribute(kernel: Any, name: str) -> Any:
    """An array itself, or the kernel's nngp or ntk."""
    if hasattr(kernel, "__array__") or isinstance(kernel, list):
        return kernel
    value = getattr(kernel, name, None)
    if value is None:
        raise ValueError(
            f"a {type(kernel).__name__} holds no kernel named {name}: pass an array, or a"
            f" namedtuple or Kernel with the field {name}"
        )
    return value


@functools.cache
def _tuple_type(names: tuple[str, ...]) -> Callable[..., Any]:
    return cast(Callable[..., Any], namedtuple("Gaussians", names))


def canonical(
    get: Any, known: tuple[str, ...]
) -> tuple[tuple[str, ...], Callable[[list[Any]], Any]]:
    """Names asked for, and what packs their results: one value for a string, else a namedtuple."""
    if get is not None and isinstance(get, Sequence) and not get:
        raise ValueError('"get" must be non-empty.')
    asked = ("nngp", "ntk") if get is None else (get,) if isinstance(get, str) else get
    if not isinstance(asked, Sequence) or not all(isinstance(name, str) for name in asked):
        raise TypeError(
            f"get must be a name or a tuple of names, of {', '.join(known)}, not {get!r:.60}"
        )
    names = tuple(name.lower() for name in asked)
    if len(set(names)) < len(names):
        raise ValueError(f'All entries in "get" must be unique. Got {get!r}')
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotImplementedError(f"get takes {', '.join(known)}, not {', '.join(unknown)}")
    return names, (
        (lambda values: values[0])
        if isinstance(get, str)
        else lambda values: _tuple_type(names)(*values)
    )
