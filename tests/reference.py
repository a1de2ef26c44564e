"""Slow and obvious: kernels from first principles in float64, sharing no code with the engine.

Dual activations are integrals of scalar functions over a bivariate Gaussian, by quadrature in polar
coordinates; for many pairs by textbook closed forms, which test_dual.py checks against the
quadrature. Networks are interpreted layer by layer on full tensors K[i, j, h, w, h', w'] (vectors
are 1x1 images), in plain loops. To add an activation: its scalar function and derivative in PHI,
its closed form in CLOSED.
"""

import math

import numpy as np
from scipy.special import erf, ndtr

SQRT2PI = math.sqrt(2 * math.pi)


def _normal_density(z):
    return np.exp(-(z**2) / 2) / SQRT2PI


def _step(z, low=0.0, high=1.0):
    """low, high on either side of 0, and their mean at 0: that is where the variance is 0."""
    return low + (high - low) * np.heaviside(z, 0.5)


# name -> (phi, its derivative), for an instance `a` of the activation.
PHI = {
    "Relu": lambda a: (lambda z: z * (z > 0), _step),
    "LeakyRelu": lambda a: (lambda z: np.where(z > 0, z, a.alpha * z), lambda z: _step(z, a.alpha)),
    "ABRelu": lambda a: (lambda z: np.where(z > 0, a.b * z, a.a * z), lambda z: _step(z, a.a, a.b)),
    "Abs": lambda a: (np.abs, np.sign),
    "Erf": lambda a: (
        lambda z: a.a * erf(a.b * z) + a.c,
        lambda z: a.a * a.b * 2 / math.sqrt(math.pi) * np.exp(-((a.b * z) ** 2)),
    ),
    "Gelu": lambda a: (lambda z: z * ndtr(z), lambda z: ndtr(z) + z * _normal_density(z)),
    "Sin": lambda a: (
        lambda z: a.a * np.sin(a.b * z + a.c),
        lambda z: a.a * a.b * np.cos(a.b * z + a.c),
    ),
    "Cos": lambda a: (
        lambda z: a.a * np.cos(a.b * z + a.c),
        lambda z: -a.a * a.b * np.sin(a.b * z + a.c),
    ),
    "Exp": lambda a: (lambda z: a.a * np.exp(a.b * z), lambda z: a.a * a.b * np.exp(a.b * z)),
    "Gaussian": lambda a: (
        lambda z: a.a * np.exp(a.b * z**2),
        lambda z: 2 * a.a * a.b * z * np.exp(a.b * z**2),
    ),
    "Rbf": lambda a: (
        lambda z: math.sqrt(2) * np.sin(math.sqrt(2 * a.gamma) * z + math.pi / 4),
        lambda z: 2 * math.sqrt(a.gamma) * np.cos(math.sqrt(2 * a.gamma) * z + math.pi / 4),
    ),
    "ArcCosine": lambda a: (
        lambda z: math.sqrt(2) * _step(z) * z**a.order,
        lambda z: (
            math.sqrt(2) * _step(z) * a.order * z ** max(a.order - 1, 0)
            if a.order
            else np.full_like(z, np.nan)
        ),
    ),
}


def _angle(q, k, r):
    """The angle between two points, pi/2 where one of them is 0.

    A correlation within rounding of 1 is 1: it would count as an angle of 1e-8.
    """
    root = np.sqrt(q * r)
    rho = np.divide(k, root, out=np.zeros_like(root), where=root > 0)
    rho = np.where(np.abs(rho) > 1 - 1e-15, np.sign(rho), rho)
    return np.arctan2(np.sqrt((1 - rho) * (1 + rho)), rho)


def _abrelu(a, b):
    """Tsuchida et al. 2018."""

    def closed(q, k, r):
        theta = _angle(q, k, r)
        g = (a - b) ** 2 / (2 * math.pi)
        d = (a**2 + b**2) / 2 - g * theta
        return g * np.sqrt(q * r) * np.sin(theta) + d * k, d

    return closed


def _erf(a, b, c):
    """Williams 1997."""

    def closed(q, k, r):
        root = np.sqrt((1 + 2 * b**2 * q) * (1 + 2 * b**2 * r) - 4 * b**4 * k**2)
        return a**2 * 2 / math.pi * np.arctan2(
            2 * b**2 * k, root
        ) + c**2, a**2 * 4 * b**2 / math.pi / root

    return closed


def _gelu(q, k, r):
    """Tsuchida et al. 2020."""
    one = (1 + q) * (1 + r)
    root = np.sqrt(one - k**2)
    angle = np.arctan2(k, root)
    e = k / 4 + (k * angle + (k**2 * (1 - q * r) / one + q * r) / root) / (2 * math.pi)
    return e, 1 / 4 + (angle + k / root * (1 + 1 / (root**2) + (1 - q * r) / one)) / (2 * math.pi)


def _sin(a, b, c):
    """Pearce et al. 2019."""

    def closed(q, k, r):
        near = np.exp(-(b**2) * (q + r - 2 * k) / 2)
        far = math.cos(2 * c) * np.exp(-(b**2) * (q + r + 2 * k) / 2)
        return a**2 / 2 * (near - far), (a * b) ** 2 / 2 * (near + far)

    return closed


def _exp(a, b):
    def closed(q, k, r):
        e = a**2 * np.exp(b**2 * (q + r + 2 * k) / 2)
        return e, b**2 * e

    return closed


def _gaussian(a, b):
    """A Gaussian integral: det(I - 2 b S) of the covariance S,
    and the covariance under the tilted density.
    """

    def closed(q, k, r):
        det = (1 - 2 * b * q) * (1 - 2 * b * r) - 4 * b**2 * k**2
        return a**2 / np.sqrt(det), 4 * a**2 * b**2 * k / det**1.5

    return closed


def _arccosine(order):
    """Cho & Saul 2009."""

    def closed(q, k, r):
        theta, root = _angle(q, k, r), np.sqrt(q * r)
        c, s = np.cos(theta), np.sin(theta)
        j0 = math.pi - theta
        j1 = s + j0 * c
        if order == 0:
            return j0 / math.pi, np.full_like(theta, np.nan)
        if order == 1:
            return root * j1 / math.pi, j0 / math.pi
        return root**2 * (3 * s * c + j0 * (1 + 2 * c**2)) / math.pi, 4 * root * j1 / math.pi

    return closed


# name -> (q, k, q') -> (E[phi phi'], E[dphi dphi']) on arrays, for an instance `a` of the
# activation.
CLOSED = {
    "Relu": lambda a: _abrelu(0, 1),
    "LeakyRelu": lambda a: _abrelu(a.alpha, 1),
    "ABRelu": lambda a: _abrelu(a.a, a.b),
    "Abs": lambda a: _abrelu(-1, 1),
    "Erf": lambda a: _erf(a.a, a.b, a.c),
    "Gelu": lambda a: _gelu,
    "Sin": lambda a: _sin(a.a, a.b, a.c),
    "Cos": lambda a: _sin(a.a, a.b, a.c + math.pi / 2),
    "Exp": lambda a: _exp(a.a, a.b),
    "Gaussian": lambda a: _gaussian(a.a, a.b),
    "Rbf": lambda a: _sin(math.sqrt(2), math.sqrt(2 * a.gamma), math.pi / 4),
    "ArcCosine": lambda a: _arccosine(a.order),
}

_ANGLE, _ANGLE_WEIGHT = np.polynomial.legendre.leggauss(80)
_RADIUS, _RADIUS_WEIGHT = np.polynomial.legendre.leggauss(160)
_RADIUS_MAX = 11.0  # of standard deviations; the rest weighs e^-60


def dual(phi, q, k, r):
    """E[phi(z) phi(z')] for (z, z') ~ N(0, [[q, k], [k, r]]), every kink of phi lying at 0.

    z = sqrt(q) rho cos a, z' = sqrt(r) rho cos(a - theta):
    smooth in each of the sectors where both keep their sign.
    """
    theta = float(_angle(*map(np.asarray, (float(q), float(k), float(r)))))
    edges = sorted(
        {(math.pi / 2 + t) % (2 * math.pi) for t in (0, math.pi, theta, theta + math.pi)}
    )
    radius = (_RADIUS + 1) / 2 * _RADIUS_MAX
    weight = _RADIUS_WEIGHT / 2 * _RADIUS_MAX * radius * np.exp(-(radius**2) / 2) / (2 * math.pi)
    total = 0.0
    for low, high in zip(edges, [*edges[1:], edges[0] + 2 * math.pi], strict=True):
        angle = (low + high) / 2 + (high - low) / 2 * _ANGLE
        z = math.sqrt(q) * np.outer(radius, np.cos(angle))
        other = math.sqrt(r) * np.outer(radius, np.cos(angle - theta))
        total += (
            (high - low) / 2 * np.einsum("r,a,ra->", weight, _ANGLE_WEIGHT, phi(z) * phi(other))
        )
    return total


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


MANY = 2000  # entries of K, from which on quadrature would take too long


def _activation(layer, signal):
    if signal.k.size >= MANY:
        return _pointwise(signal, CLOSED[_name(layer)](layer), whole=True)
    phi, derivative = PHI[_name(layer)](layer)
    cache = {}

    def function(q, k, r):
        key = (round(q, 15), round(k, 15), round(r, 15))
        if key not in cache:
            cache[key] = dual(phi, q, k, r), dual(derivative, q, k, r)
        return cache[key]

    return _pointwise(signal, function)


def _layer_norm(layer, signal):
    def function(q, k, r):
        scale = 1 / math.sqrt((q + layer.eps) * (r + layer.eps))
        return k * scale, scale

    if not signal.flat:
        return _pointwise(signal, function)
    q, r = (
        _variances(_mean_of_pixels(side))[:, 0, 0] + layer.eps
        for side in (signal.left, signal.right)
    )
    scales = [
        np.sqrt(np.outer(a, b))[:, :, None, None, None, None]
        for a, b in ((q, r), (q, r), (q, q), (r, r))
    ]
    parts = [
        m / scale
        for m, scale in zip((signal.k, signal.t, signal.left, signal.right), scales, strict=True)
    ]
    return Signal(*parts, signal.width, flat=True)


def _geometry(n, window, stride, padding):
    """(output size, padding before the first pixel) as XLA has it."""
    if padding == "VALID":
        return (n - window) // stride + 1, 0
    out = -(-n // stride)
    return out, max((out - 1) * stride + window - n, 0) // 2


def _windows(n, window, stride, padding):
    """For every output: the inputs in its window, by offset (None where outside the image)."""
    out, low = _geometry(n, window, stride, padding)
    inside = (lambda p: p % n) if padding == "CIRCULAR" else (lambda p: p if 0 <= p < n else None)
    return [[inside(o * stride + k - low) for k in range(window)] for o in range(out)]


def _box(shape, window, strides, padding, paired):
    """The sum over windows as a function of M[i, j, h, w, h', w'].

    paired: the same offset on both sides (convolution); else all pairs of offsets (pooling).
    """
    rows, cols = (
        _windows(n, k, s, padding) for n, k, s in zip(shape, window, strides, strict=True)
    )

    def linear(m):
        out = np.zeros((*m.shape[:2], len(rows), len(cols), len(rows), len(cols)))
        offsets = [(a, b) for a in range(window[0]) for b in range(window[1])]
        pairs = [(o, o) for o in offsets] if paired else [(o, p) for o in offsets for p in offsets]
        for (a, b), (c, d) in pairs:
            for h in range(len(rows)):
                for w in range(len(cols)):
                    for g in range(len(rows)):
                        for v in range(len(cols)):
                            at = rows[h][a], cols[w][b], rows[g][c], cols[v][d]
                            if None not in at:
                                out[:, :, h, w, g, v] += m[(slice(None), slice(None), *at)]
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
    return _activation(layer, signal)


def _sum(signals):
    parts = [[s.k, s.t, s.left, s.right] for s in signals]
    flat = any(s.flat for s in signals)  # a vector's kernel is that of each of its features
    return Signal(*(sum(part) for part in zip(*parts, strict=True)), signals[0].width, flat)


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
