"""neural-tangents' convolutional networks in its strongest form.
Imported by nt_worker.py's child, in its environment.

Improvements made by hand, none of which changes the kernel:
- `shift_add`: a convolution of the covariance at stride 1 is a sum of shifted copies;
  lax.conv_general_dilated on one channel, which neural-tangents calls, costs an XLA processor
  several times as much.
- `stax.repeat` of one such layer, or `by_layers` where layers differ: each layer's result is kept
  in memory. XLA otherwise fuses layers and computes the arctangents of one again for every use in
  the next.
- `first`: as many images at once as suits it best.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from neural_tangents import stax
from neural_tangents._src.stax import linear
from neural_tangents._src.utils import utils

Layer = tuple[Any, Any, Callable[..., Any]]
_FULL, _DIAGONAL = "_conv_kernel_full_spatial_shared", "_conv_kernel_diagonal_spatial"


def _summed(a: jax.Array, axes: tuple[int, ...], size: int) -> jax.Array:
    """Sum over d of `a` shifted by d along all `axes` together, zeros beyond the border."""
    pads = [(size // 2, size // 2) if axis in axes else (0, 0) for axis in range(a.ndim)]
    padded = jnp.pad(a, pads)

    def shifted(d: int) -> jax.Array:
        at = [slice(d, d + n) if axis in axes else slice(None) for axis, n in enumerate(a.shape)]
        return padded[tuple(at)]

    return sum((shifted(d) for d in range(1, size)), shifted(0))


def _convolved(
    doubled: int, a: Any, filter_shape: Any, strides: Any, padding: Any, batch_ndim: int
) -> Any:
    """In place of neural-tangents' own; a covariance has `doubled` axes, 1 or 2,
    for each of the image's.
    """
    if a is None or a.ndim == 0:
        return a
    if padding.name != "SAME" or set(strides) != {1} or not all(size % 2 for size in filter_shape):
        raise NotImplementedError("shift_add: only stride 1, SAME and odd filters")
    for i, size in enumerate(filter_shape):
        start = batch_ndim + doubled * i
        a = _summed(a, tuple(range(start, start + doubled)), size) / size
    return a


def shift_add(conv: Layer) -> Layer:
    """A stax.Conv (3x3 or the like, stride 1, SAME)
    that convolves covariances by shifts and sums.
    """

    @functools.wraps(conv[2])  # with what it requires of its input
    def kernel_fn(k: Any, *args: Any, **kwargs: Any) -> Any:  # patched while it is traced
        with (
            mock.patch.object(linear, _FULL, functools.partial(_convolved, 2)),
            mock.patch.object(linear, _DIAGONAL, functools.partial(_convolved, 1)),
        ):
            # The original turns axes (h, h', w, w') into (w, w', h, h') and says so in is_reversed;
            # this one does not.
            return conv[2](k, *args, **kwargs).replace(is_reversed=getattr(k, "is_reversed", False))

    return (*conv[:2], kernel_fn)


def by_layers(*layers: Layer) -> Layer:
    """stax.serial for full covariances, each layer compiled on its own.
    To be called without jit.
    """
    start = jax.jit(lambda x: layers[0][2](x, None, None, diagonal_spatial=False))
    compiled = [jax.jit(functools.partial(layer[2], get=None)) for layer in layers[1:]]

    def kernel_fn(x1: Any, x2: Any, get: Any) -> Any:
        assert x2 is None
        kernel = start(x1)
        for layer in compiled:
            kernel = layer(kernel)
        return kernel if get is None else _selected(kernel, get)

    return (*stax.serial(*layers)[:2], kernel_fn)


@utils.get_namedtuple("AnalyticKernel")
def _selected(kernel: Any, get: Any) -> Any:
    return {name: getattr(kernel, name) for name in get}


def first(images: int, layer: Layer) -> Layer:
    """The kernel of the first `images` samples alone."""
    return (
        *layer[:2],
        lambda x1, x2, get: layer[2](x1[:images], x2 if x2 is None else x2[:images], get),
    )
