"""Fit the normal tail and the quadrature of csrc/math/kinks.h and print them.

    pip install mpmath && python tools/fit_tail.py

Q(x) = P(z > x) = phi(x)/(x + 1) times a Chebyshev series in y = (4 - x)/(4 + x), x >= 0. Owen's T:
12 Gauss-Legendre nodes on (0, 1), weights over 2 pi.
"""

import numpy as np
from mpmath import cos, erfc, exp, mp, mpf, nstr, pi, sqrt

mp.dps = 40
TERMS, POINTS, NODES = 24, 80, 12


def tail(y: mpf) -> mpf:
    """Q(x)/phi(x) (x + 1); 1 at x = infinity, y = -1."""
    x = 4 * (1 - y) / (1 + y)
    return erfc(x / sqrt(2)) / 2 * sqrt(2 * pi) * exp(x * x / 2) * (x + 1)


def chebyshev() -> list[mpf]:
    angles = [(k + mpf(1) / 2) * pi / POINTS for k in range(POINTS)]
    values = [tail(cos(angle)) for angle in angles]
    sums = [sum(v * cos(n * a) for v, a in zip(values, angles, strict=True)) for n in range(TERMS)]
    return [sums[0] / POINTS, *(2 * total / POINTS for total in sums[1:])]


if __name__ == "__main__":
    print("tail:", ", ".join(nstr(c, 17) for c in chebyshev()))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    print("nodes:", ", ".join(repr(float(x)) for x in (1 + nodes) / 2))
    print("weights:", ", ".join(repr(float(w)) for w in weights / (4 * np.pi)))
