"""Slow and obvious: kernels from first principles in float64, sharing no code with the engine.

Networks are interpreted layer by layer on full tensors K[i, j, h, w, h', w'] (vectors are 1x1
images), in plain loops; dual activations stand in reference_duals.py.
"""

import functools
import itertools
import math

import numpy as np

from reference_duals import CLOSED, PHI, dual


def _name(layer):
    return type(layer).__name__


class Signal:
    """Covariance K and tangent kernel T over all pixel pairs,
    and both sides' own covariances over pixel pairs.

    ``flat``: a vector whose features are pixels,
    so that entries p = p' are their kernels and a vector's is their mean.
    """

    def __init__(self, k, t, left, right, width, flat=False):
        self.k, self.t, self.left, self.right, self.width, self.flat = (
            k,
            t,
            left,
            right,
            width,
            flat,
        )

    def map(self, linear, slope=1.0, offset=0.0, extra=None, t_offset=None):
        """K <- slope L[K] + offset, T <- slope L[T] + (extra L[K] + t_offset, or the new K)."""
        k = slope * linear(self.k) + offset
        t = slope * linear(self.t) + (k if extra is None else extra * linear(self.k) + t_offset)
        sides = [slope * linear(side) + offset for side in (self.left, self.right)]
        return Signal(k, t, *sides, self.width)

    def plain(self, linear):
        return Signal(*(linear(m) for m in (self.k, self.t, self.left, self.right)), self.width)

    def vector(self):
        """A flattened image's means over its features."""
        return self.plain(_mean_of_pixels) if self.flat else self


def _mean_of_pixels(m):
    return (np.einsum("ijhwhw->ij", m) / math.prod(m.shape[2:4]))[:, :, None, None, None, None]


def _variances(side):
    """q[i, h, w] of side[i, i', h, w, h', w']."""
    return np.einsum("iihwhw->ihw", side)


def _pointwise(signal, function, whole=False):
    """function(q, k, q') -> (new K, factor of T) on all entries of K and of both sides,
    one by one or as arrays.
    """

    def apply(k, left, right):
        q, r = (
            _variances(left)[:, None, :, :, None, None],
            _variances(right)[None, :, None, None, :, :],
        )
        pairs = np.broadcast_arrays(q, k, r)
        if whole:
            return function(*pairs)
        flat = [
            function(*map(float, entry)) for entry in zip(*(p.ravel() for p in pairs), strict=True)
        ]
        return (np.array([f[i] for f in flat]).reshape(k.shape) for i in (0, 1))

    new, factor = apply(signal.k, signal.left, signal.right)
    left, _ = apply(signal.left, signal.left, signal.left)
    right, _ = apply(signal.right, signal.right, signal.right)
    return Signal(new, factor * signal.t, left, right, signal.width, signal.flat)


MANY = 500  # entries of K, from which on quadrature would take too long


def _activation(layer, signal):
    if signal.k.size >= MANY or _name(layer) not in PHI:
        return _pointwise(signal, CLOSED[_name(layer)](layer), whole=True)
    phi, derivative = PHI[_name(layer)](layer)
    cache = {}

    def function(q, k, r):
        q, r = min(q, r), max(q, r)
        key = (round(q, 15), round(k, 15), round(r, 15))
        if key not in cache:
            cache[key] = dual(phi, q, k, r), dual(derivative, q, k, r)
        return cache[key]

    return _pointwise(signal, function)


def _layer_norm(layer, signal):
    """Over the features of a flattened image, or of every pixel, or over several axes."""
    rank = 2 if signal.flat or signal.k.shape[2:4] == (1, 1) else 4
    axes = {a % rank for a in np.atleast_1d(layer.axis)}
    over = (1, 2) if signal.flat else tuple(axes - {rank - 1})

    def scale(side):
        q = _variances(side)
        return 1 / np.sqrt(np.broadcast_to(q.mean(over, keepdims=True), q.shape) + layer.eps)

    a, b = scale(signal.left), scale(signal.right)
    parts = [
        m * np.einsum("ihw,jgv->ijhwgv", *scales)
        for m, scales in (
            (signal.k, (a, b)),
            (signal.t, (a, b)),
            (signal.left, (a, a)),
            (signal.right, (b, b)),
        )
    ]
    return Signal(*parts, signal.width, signal.flat)


def _dropout(layer, signal):
    """A sample and a pixel with itself; of one data set K and both sides are the same."""
    alone = signal.k.shape == signal.left.shape and (signal.k == signal.left).all()

    def drop(m):
        n, _, h, w = m.shape[:4]
        itself = np.einsum("ij,hg,wv->ijhwgv", *map(np.eye, (n, h, w)))
        return m * np.where(itself > 0, 1 / layer.rate, 1.0)

    k, t = (drop(signal.k), drop(signal.t)) if alone else (signal.k, signal.t)
    return Signal(k, t, drop(signal.left), drop(signal.right), signal.width, signal.flat)


def windows(n, window, stride, padding, step=1):
    """For every output the positions of its window, None where there is none (XLA's padding)."""
    reach = (window - 1) * step + 1
    out = (n - reach) // stride + 1 if padding == "VALID" else -(-n // stride)
    low = 0 if padding == "VALID" else max((out - 1) * stride + reach - n, 0) // 2
    inside = (lambda p: p % n) if padding == "CIRCULAR" else (lambda p: p if 0 <= p < n else None)
    return [[inside(o * stride + k * step - low) for k in range(window)] for o in range(out)]


def _reads(side, k):
    """The outputs whose windows have a position number k, and those positions."""
    found = [(o, at[k]) for o, at in enumerate(side) if at[k] is not None]
    return [o for o, _ in found], [p for _, p in found]


def _box(shape, window, strides, padding, paired):
    """The sum over windows as a function of M[i, j, h, w, h', w'].

    paired: the same offset on both sides (convolution); else all pairs of offsets (pooling).
    """
    rows, cols = (windows(n, k, s, padding) for n, k, s in zip(shape, window, strides, strict=True))
    offsets = list(itertools.product(range(window[0]), range(window[1])))
    pairs = [(o, o) for o in offsets] if paired else itertools.product(offsets, repeat=2)
    taps = [
        [_reads(side, k) for side, k in ((rows, a), (cols, b), (rows, c), (cols, d))]
        for (a, b), (c, d) in pairs
    ]

    def linear(m):
        out = np.zeros((*m.shape[:2], len(rows), len(cols), len(rows), len(cols)))
        samples = [range(n) for n in m.shape[:2]]
        for tap in taps:
            to, at = zip(*tap, strict=True)
            out[np.ix_(*samples, *to)] += m[np.ix_(*samples, *at)]
        return out

    return linear


def _conv(layer, signal):
    shape, size = signal.k.shape[2:4], layer.filter_shape
    box = _box(shape, size, layer.strides, layer.padding, paired=True)
    return _affine(
        layer, signal, lambda m: box(m) / (size[0] * size[1]), size[0] * size[1], layer.channels
    )


def _affine(layer, signal, linear, area, width):
    slope, offset = layer.W_std**2, (layer.b_std or 0.0) ** 2
    if layer.parameterization == "ntk":
        out = signal.map(linear, slope, offset)
    else:
        bias = 0.0 if layer.b_std is None else 1.0
        out = signal.map(linear, slope, offset, extra=signal.width * area, t_offset=bias)
    out.width = width
    return out


def _pool(layer, signal):
    shape, size = signal.k.shape[2:4], layer.window_shape
    box = _box(shape, size, layer.strides, layer.padding, paired=False)
    if _name(layer) == "SumPool":
        return signal.plain(box)
    if not layer.normalize_edges:
        return signal.plain(lambda m: box(m) / (size[0] * size[1]) ** 2)
    ones = box(np.ones((1, 1, *shape, *shape)))
    return signal.plain(lambda m: box(m) / ones)


def _readout(layer, signal):
    h, w = signal.k.shape[2:4]
    if _name(layer) == "Flatten":
        width = None if signal.width is None else signal.width * h * w
        return Signal(signal.k, signal.t, signal.left, signal.right, width, flat=True)
    pixels = h * w if _name(layer) == "GlobalAvgPool" else 1
    return signal.plain(
        lambda m: m.sum(axis=(2, 3, 4, 5))[:, :, None, None, None, None] / pixels**2
    )


def apply(layer, signal):
    """One layer on a signal, or on a list of them between FanOut and FanInSum."""
    name = _name(layer)
    if name == "Serial":
        for inner in layer.layers:
            signal = apply(inner, signal)
        return signal
    if name == "Residual":
        branches = [apply(layer.shortcut, signal)]
        for inner in layer.branch:
            signal = apply(inner, signal)
        return _sum([*branches, signal])
    if name == "FanOut":
        return [signal] * layer.num
    if name == "Parallel":
        return [apply(branch, part) for branch, part in zip(layer.branches, signal, strict=True)]
    if name == "FanInSum":
        return _sum(signal)
    if name == "Identity":
        return signal
    if name == "Dense":
        return _affine(layer, signal.vector(), lambda m: m, 1, layer.width)
    if name == "Conv":
        return _conv(layer, signal)
    if name in ("AvgPool", "SumPool"):
        return _pool(layer, signal)
    if name in ("Flatten", "GlobalAvgPool", "GlobalSumPool"):
        return _readout(layer, signal)
    if name == "LayerNorm":
        return _layer_norm(layer, signal)
    if name == "Dropout":
        return _dropout(layer, signal) if layer.mode == "train" else signal
    if name == "FanInProd":
        return functools.reduce(_product, signal)
    if name == "FanInConcat":
        return _concat(signal)
    return _activation(layer, signal)


def _sum(signals):
    parts = [[s.k, s.t, s.left, s.right] for s in signals]
    flat = any(s.flat for s in signals)  # a vector's kernel is that of each of its features
    return Signal(*(sum(part) for part in zip(*parts, strict=True)), signals[0].width, flat)


def _product(one, other):
    """Independent branches: covariances multiply, tangents by the product rule."""
    if one.flat != other.flat:
        one, other = one.vector(), other.vector()
    t = one.t * other.k + one.k * other.t
    sides = one.left * other.left, one.right * other.right
    return Signal(one.k * other.k, t, *sides, one.width, one.flat)


def _concat(signals):
    """The mean over the features of all, as many as each declares; equally many where none does."""
    sizes = [1 if s.width is None else s.width for s in signals]
    signals = [s.vector() for s in signals]
    parts = [
        sum(size * m for size, m in zip(sizes, each, strict=True)) / sum(sizes)
        for each in zip(*((s.k, s.t, s.left, s.right) for s in signals), strict=True)
    ]
    width = None if signals[0].width is None else sum(sizes)
    return Signal(*parts, width)


def reference(net, x1, x2=None):
    """(nngp, ntk) of shape (n1, n2) for vectors (n, d) or images (n, h, w, channels)."""
    a = np.asarray(x1, float)
    b = a if x2 is None else np.asarray(x2, float)
    a, b = (x[:, None, None, :] if x.ndim == 2 else x for x in (a, b))
    products = [
        np.einsum("ihwc,jgvc->ijhwgv", p, q) / p.shape[-1] for p, q in ((a, b), (a, a), (b, b))
    ]
    out = apply(
        net, Signal(products[0], np.zeros_like(products[0]), *products[1:], a.shape[-1])
    ).vector()
    return out.k[:, :, 0, 0, 0, 0], out.t[:, :, 0, 0, 0, 0]
