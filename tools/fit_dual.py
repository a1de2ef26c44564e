"""Fit the polynomials A, B and C of csrc/math/dual.h and print them with their largest error.

    pip install mpmath && python tools/fit_dual.py

acos(1 - y) = pi sqrt(y) A(y); acos(c) = pi sqrt(1 - c^2) B(c); kappa1(1 - y) = 1 - y + y sqrt(y)
C(y); 0 <= y, c <= 1 (Chebyshev interpolation).
"""

from mpmath import acos, chebyfit, mp, mpf, nstr, pi, sqrt

mp.dps = 60
FLOAT, DOUBLE = 8, 17  # digits printed


def a(y: mpf) -> mpf:
    y = max(y, mpf(10) ** -20)
    return acos(1 - y) / (pi * sqrt(y))


def b(c: mpf) -> mpf:
    c = min(c, 1 - mpf(10) ** -20)
    return acos(c) / (pi * sqrt(1 - c * c))


def c(y: mpf) -> mpf:
    y = max(y, mpf(10) ** -20)
    return (sqrt(y * (2 - y)) - (1 - y) * acos(1 - y)) / (pi * y * sqrt(y))


def initializer(coefficients: list[mpf], digits: int) -> str:
    """A C++ initializer, lowest power first."""
    suffix = "f" if digits == FLOAT else ""
    return ", ".join(nstr(x, digits) + suffix for x in coefficients[::-1])


FITS = (
    (a, "float a", 6, FLOAT),
    (b, "float b", 8, FLOAT),
    (c, "float c", 5, FLOAT),
    (a, "double a", 16, DOUBLE),
    (b, "double b", 19, DOUBLE),
    (c, "double c", 15, DOUBLE),
)

if __name__ == "__main__":
    for function, name, degree, digits in FITS:
        coefficients, error = chebyfit(function, [0, 1], degree + 1, error=True)
        print(f"// degree {degree}: largest error {nstr(error, 3)}")
        print(f"static constexpr {name}[] = {{{initializer(coefficients, digits)}}};")
