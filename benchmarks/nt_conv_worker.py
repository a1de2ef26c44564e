"""neural-tangents' convolutional networks in its strongest form. Imported by nt_worker.py's child, in its environment.

Three hand-made improvements, none of which changes the kernel, each to be had alone for the comparison:
- `shift_add`: a convolution of the covariance at stride 1 is a sum of shifted copies; lax.conv_general_dilated on one
  channel, which neural-tangents calls, costs an XLA processor several times as much.
- `stax.repeat`, or `by_layers` where layers differ: each layer's result is kept in memory. XLA otherwise fuses layers
  and computes the arctangents of one again for every use in the next.
- `first`: as many images at once as suits it best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from neural_tangents import stax
from neural_tangents._src.stax import linear

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


def _shift_add(axes_per_dimension: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """A replacement for neural-tangents' convolution of a covariance, with one or two axes for each of the image's."""

    def convolved(a: Any, filter_shape: Any, strides: Any, padding: Any, batch_ndim: int) -> Any:
        if a is None or a.ndim == 0:
            return a
        if padding.name != "SAME" or set(strides) != {1} or not all(size % 2 for size in filter_shape):
            return original(a, filter_shape, strides, padding, batch_ndim)
        # The original turns (h, h', w, w') into (w, w', h, h'); square images and filters look alike in both orders.
        for i, size in enumerate(filter_shape):
            start = batch_ndim + axes_per_dimension * i
            a = _summed(a, tuple(range(start, start + axes_per_dimension)), size) / size
        return a

    return convolved


def shift_add(layer: Layer) -> Layer:
    """The layer with all its convolutions of covariances (square images only) replaced by shifts and sums."""

    def kernel_fn(*args: Any, **kwargs: Any) -> Any:  # patched while it is traced
        with (
            mock.patch.object(linear, _FULL, _shift_add(2, getattr(linear, _FULL))),
            mock.patch.object(linear, _DIAGONAL, _shift_add(1, getattr(linear, _DIAGONAL))),
        ):
            return layer[2](*args, **kwargs)

    return (*layer[:2], kernel_fn)


def by_layers(*layers: Layer) -> Layer:
    """stax.serial for full covariances, each layer compiled on its own. To be called without jit."""
    compiled = [jax.jit(lambda k, fn=layer[2]: fn(k, get=None)) for layer in layers[1:]]
    start = jax.jit(lambda x: layers[0][2](x, None, get=None, diagonal_spatial=False))

    def kernel_fn(x1: Any, x2: Any, get: Any) -> Any:
        del x2
        kernel = start(x1)
        for layer in compiled:
            kernel = layer(kernel)
        return jax.tree_util.tree_map(jnp.asarray, _answer(kernel, get))

    return (*stax.serial(*layers)[:2], kernel_fn)


def _answer(kernel: Any, get: Any) -> Any:
    from neural_tangents._src.utils import utils

    names = (get,) if isinstance(get, str) else get
    found = utils.get_namedtuple("AnalyticKernel")(lambda get: {name: getattr(kernel, name) for name in get})(get=names)
    return found


def first(images: int, layer: Layer) -> Layer:
    """The kernel of the first `images` samples alone."""
    return (*layer[:2], lambda x1, x2, get: layer[2](x1[:images], x2 if x2 is None else x2[:images], get))
