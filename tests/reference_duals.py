"""Dual activations from first principles, sharing no code with the engine.

Integrals of scalar functions over a bivariate Gaussian, by quadrature in polar coordinates; for
many pairs textbook closed forms, which test_dual.py checks against the quadrature. To add an
activation: its scalar function and derivative in PHI, its closed form in CLOSED.
"""

import math

import numpy as np
from numpy.polynomial import HermiteE, Polynomial
from scipy.special import erf, ndtr

SQRT2PI = math.sqrt(2 * math.pi)


def _normal_density(z):
    return np.exp(-(z**2) / 2) / SQRT2PI


def _step(z, low=0.0, high=1.0):
    """low, high on either side of 0, and their mean at 0: that is where the variance is 0."""
    return low + (high - low) * np.heaviside(z, 0.5)


def _rectified(degree, scale, frozen):
    """The derivative of a step is no function: NaN, or 0 where `frozen` says so."""

    def derivative(z):
        if degree == 0:
            return np.full_like(z, 0.0 if frozen else np.nan)
        return scale * _step(z) * degree * z ** (degree - 1)

    return lambda z: scale * _step(z) * z**degree, derivative


def _with_derivative(polynomial):
    return polynomial, polynomial.deriv()


def _hermite(degree):
    return HermiteE.basis(degree) / math.sqrt(math.factorial(degree))


def _logistic(z):
    return 1 / (1 + np.exp(-z))


# phi and its derivative by the names of Elementwise.
NAMED = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (_logistic, lambda z: _logistic(z) * _logistic(-z)),
    "softplus": (lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), _logistic),
    "silu": (
        lambda z: z * _logistic(z),
        lambda z: _logistic(z) + z * _logistic(z) * _logistic(-z),
    ),
    "mish": (
        lambda z: z * (1 - 2 / (1 + (1 + np.exp(z)) ** 2)),
        lambda z: (
            1
            - 2 / (1 + (1 + np.exp(z)) ** 2)
            + 4 * z * np.exp(z) * (1 + np.exp(z)) / (1 + (1 + np.exp(z)) ** 2) ** 2
        ),
    ),
    "logsigmoid": (
        lambda z: np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z))),
        lambda z: _logistic(-z),
    ),
    "tanhshrink": (lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2),
    "arctan": (np.arctan, lambda z: 1 / (1 + z**2)),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1, np.exp(np.minimum(z, 0))),
    ),
    "celu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1, np.exp(np.minimum(z, 0))),
    ),
    "selu": (
        lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z)),
        lambda z: 1.0507009873554805 * np.where(z > 0, 1, 1.6732632423543772 * np.exp(z)),
    ),
}

# name -> (phi, its derivative), for an instance `a` of the activation; ExpNormalized has none.
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
    "Elementwise": lambda a: NAMED[a.phi],
    "ArcCosine": lambda a: _rectified(a.order, math.sqrt(2), a.frozen),
    "RectifiedMonomial": lambda a: _rectified(a.degree, 1.0, a.frozen),
    "Sign": lambda a: (np.sign, lambda z: np.full_like(z, 0.0 if a.frozen else np.nan)),
    "Monomial": lambda a: _with_derivative(Polynomial([0.0] * a.degree + [1.0])),
    "Hermite": lambda a: _with_derivative(_hermite(a.degree)),
    "Polynomial": lambda a: _with_derivative(Polynomial(a.coef)),
    "Gabor": lambda a: (
        lambda z: np.exp(-(z**2)) * np.sin(z),
        lambda z: np.exp(-(z**2)) * (np.cos(z) - 2 * z * np.sin(z)),
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


def _arccosine(order, half, frozen=False):
    """half (qq')^(order/2) J_order/pi and its slope in k, half = scale^2/2 (Cho & Saul 2009)."""

    def closed(q, k, r):
        theta, root = _angle(q, k, r), np.sqrt(q * r)
        c, s = np.cos(theta), np.sin(theta)
        j0 = math.pi - theta
        j = [j0, s + j0 * c, 3 * s * c + j0 * (1 + 2 * c**2)]
        j.append(4 * s + 11 * s * c**2 + j0 * (9 * c + 6 * c**3))
        e = half * root**order * j[order] / math.pi
        if order == 0:
            return e, np.full_like(theta, 0.0 if frozen else np.nan)
        return e, half * order**2 * root ** (order - 1) * j[order - 1] / math.pi

    return closed


def _quadrature(*functions):
    """No closed form is known: the integrals themselves, symmetric pairs once."""

    def closed(q, k, r):
        q, k, r = np.broadcast_arrays(q, k, r)
        known = {}

        def integral(number, q, k, r):
            key = number, *sorted((q, r)), k
            if key not in known:
                known[key] = dual(functions[number], q, k, r, COARSE)
            return known[key]

        return tuple(np.vectorize(integral, otypes=[float])(n, q, k, r) for n in (0, 1))

    return closed


def _sign(frozen):
    def closed(q, k, r):
        theta = _angle(q, k, r)
        return 1 - 2 * theta / math.pi, np.full_like(theta, 0.0 if frozen else np.nan)

    return closed


def _moment(a, b, q, k, r):
    """E[z^a z'^b], pairing l factors z with as many z', the others among themselves
    (Isserlis 1918).
    """
    total = 0 * k
    for crossed in range(min(a, b) + 1):
        if (a - crossed) % 2 == 0 and (b - crossed) % 2 == 0:
            i, j = (a - crossed) // 2, (b - crossed) // 2
            ways = math.factorial(a) * math.factorial(b)
            ways /= 2 ** (i + j) * math.prod(map(math.factorial, (i, j, crossed)))
            total = total + ways * q**i * r**j * k**crossed
    return total


def _polynomial(polynomial):
    def expectation(coef, pair):
        return sum(
            (x * y * _moment(a, b, *pair) for a, x in enumerate(coef) for b, y in enumerate(coef)),
            0 * pair[1],
        )

    return lambda *pair: (
        expectation(polynomial.coef, pair),
        expectation(polynomial.deriv().coef, pair),
    )


def _exp_normalized(gamma, shift):
    def closed(q, k, r):
        root = np.sqrt(q * r)
        e = np.exp(gamma * (np.cos(_angle(q, k, r)) + shift))
        return root * e, gamma * e

    return closed


def _gabor(q, k, r):
    """Two Gaussian integrals, of e^{-z^2} e^{+-iz}."""
    det = (1 + 2 * q) * (1 + 2 * r) - 4 * k**2
    both = [np.exp((1 + q + r + 2 * sign * k) / (2 * det) - 0.5) for sign in (1, -1)]
    slopes = [
        e * (4 * k + sign + 4 * k * (1 + q + r + 2 * sign * k) / det)
        for e, sign in zip(both, (1, -1), strict=True)
    ]
    return (both[0] - both[1]) / (2 * np.sqrt(det)), (slopes[0] - slopes[1]) / (2 * det**1.5)


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
    "Elementwise": lambda a: _quadrature(*NAMED[a.phi]),
    "ArcCosine": lambda a: _arccosine(a.order, 1.0, a.frozen),
    "RectifiedMonomial": lambda a: _arccosine(a.degree, 0.5, a.frozen),
    "Sign": lambda a: _sign(a.frozen),
    "Monomial": lambda a: _polynomial(Polynomial([0.0] * a.degree + [1.0])),
    "Hermite": lambda a: _polynomial(_hermite(a.degree).convert(kind=Polynomial)),
    "Polynomial": lambda a: _polynomial(Polynomial(a.coef)),
    "ExpNormalized": lambda a: _exp_normalized(a.gamma, a.shift),
    "Gabor": lambda a: _gabor,
}

FINE, COARSE = (
    tuple(np.polynomial.legendre.leggauss(n) for n in nodes) for nodes in ((80, 160), (32, 80))
)
_RADIUS_MAX = 11.0  # of standard deviations; the rest weighs e^-60


def dual(phi, q, k, r, rules=FINE):
    """E[phi(z) phi(z')] for (z, z') ~ N(0, [[q, k], [k, r]]), every kink of phi lying at 0.

    z = sqrt(q) rho cos a, z' = sqrt(r) rho cos(a - theta):
    smooth in each of the sectors where both keep their sign.
    """
    (nodes, node_weight), (radii, radius_weight) = rules
    theta = float(_angle(*map(np.asarray, (float(q), float(k), float(r)))))
    edges = sorted(
        {(math.pi / 2 + t) % (2 * math.pi) for t in (0, math.pi, theta, theta + math.pi)}
    )
    radius = (radii + 1) / 2 * _RADIUS_MAX
    weight = radius_weight / 2 * _RADIUS_MAX * radius * np.exp(-(radius**2) / 2) / (2 * math.pi)
    total = 0.0
    for low, high in zip(edges, [*edges[1:], edges[0] + 2 * math.pi], strict=True):
        angle = (low + high) / 2 + (high - low) / 2 * nodes
        z = math.sqrt(q) * np.outer(radius, np.cos(angle))
        other = math.sqrt(r) * np.outer(radius, np.cos(angle - theta))
        total += (high - low) / 2 * np.einsum("r,a,ra->", weight, node_weight, phi(z) * phi(other))
    return total


# Functions with kinks beside 0: a + b z + sum of alpha (z - t)_+ + beta (z - t)_+^2, by name:
# phi itself, a, b, then (t, alpha, beta).
KINKED = {
    "relu6": (lambda z: np.clip(z, 0, 6), 0, 0, ((0, 1, 0), (6, -1, 0))),
    "hardtanh": (lambda z: np.clip(z, -1, 1), -1, 0, ((-1, 1, 0), (1, -1, 0))),
    "hardsigmoid": (
        lambda z: np.clip(z / 6 + 0.5, 0, 1),
        0,
        0,
        ((-3, 1 / 6, 0), (3, -1 / 6, 0)),
    ),
    "hardswish": (
        lambda z: z * np.clip(z / 6 + 0.5, 0, 1),
        0,
        0,
        ((-3, -1 / 2, 1 / 6), (3, -1 / 2, -1 / 6)),
    ),
    "softshrink": (
        lambda z: np.sign(z) * np.maximum(np.abs(z) - 0.5, 0),
        0.5,
        1,
        ((-0.5, -1, 0), (0.5, 1, 0)),
    ),
}


def _mean_of_kinked(name, mean, deviation):
    """E[phi], E[phi'] of a Gaussian, by its density and distribution function."""
    _, a, b, kinks = KINKED[name]
    value, slope = a + b * mean, b + 0 * mean
    for t, alpha, beta in kinks:
        x = (mean - t) / deviation
        inside, edge = ndtr(x), deviation * _normal_density(x)
        first = edge + (mean - t) * inside
        value = value + alpha * first + beta * ((mean - t) * first + deviation**2 * inside)
        slope = slope + alpha * inside + 2 * beta * first
    return value, slope


def kinked_dual(name, q, k, r):
    """E[phi phi'], E[dphi dphi'] by one integral over z, the mean over z' given z being known."""
    phi, _, b, kinks = KINKED[name]
    if min(q, r) == 0:  # independent
        # Slopes on a kink: the mean of its sides, as of a small deviation.
        deviations = [max(math.sqrt(v), 1e-150) for v in (q, r)]
        values = [
            _mean_of_kinked(name, np.zeros(1), d)[0][0] if d > 1e-150 else phi(np.zeros(1))[0]
            for d in deviations
        ]
        slopes = [_mean_of_kinked(name, np.zeros(1), d)[1][0] for d in deviations]
        return float(values[0] * values[1]), float(slopes[0] * slopes[1])
    c = k / math.sqrt(q * r)
    deviation = math.sqrt(max(r - k**2 / q, 1e-24 * r))
    # Panels that end at z's kinks, and crowd where z' crosses one.
    edges = [*np.linspace(-12, 12, 97), *(t / math.sqrt(q) for t, *_ in kinks)]
    if abs(c) > 0.01:
        steps = np.outer([-1, 1], np.geomspace(0.05, 50, 40)).ravel() * deviation / math.sqrt(r)
        edges += [(t / math.sqrt(r) + step) / c for t, *_ in kinks for step in (0, *steps)]
    edges = np.unique([edge for edge in edges if abs(edge) <= 12])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + nodes)).ravel()
    weight = (half * weights).ravel() * _normal_density(z)
    x = math.sqrt(q) * z
    slope = b + sum(alpha * (x > t) + 2 * beta * np.maximum(x - t, 0) for t, alpha, beta in kinks)
    value, other = _mean_of_kinked(name, c * math.sqrt(r) * z, deviation)
    return float(weight @ (phi(x) * value)), float(weight @ (slope * other))
