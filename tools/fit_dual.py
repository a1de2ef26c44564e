"""Fit the polynomials A and C of csrc/dual.h and print them with their largest error.

    pip install mpmath && python tools/fit_dual.py

acos(1 - y) = pi sqrt(y) A(y);  kappa1(1 - y) = 1 - y + y sqrt(y) C(y);  0 <= y <= 1 (Chebyshev interpolation, 60 digits).
"""

from mpmath import acos, chebyfit, mp, mpf, nstr, pi, sqrt

mp.dps = 60
FLOAT, DOUBLE = 8, 17  # digits printed


def a(y: mpf) -> mpf:
    y = max(y, mpf(10) ** -20)
    return acos(1 - y) / (pi * sqrt(y))


def c(y: mpf) -> mpf:
    y = max(y, mpf(10) ** -20)
    return (sqrt(y * (2 - y)) - (1 - y) * acos(1 - y)) / (pi * y * sqrt(y))


def horner(coefficients: list[mpf], digits: int) -> str:
    """The C++ lines of one polynomial, highest power first."""
    suffix = "f" if digits == FLOAT else ""
    terms = [nstr(abs(x), digits) + suffix for x in coefficients]
    signs = ["-" if x < 0 else "+" for x in coefficients]
    first = f"    V p = y * {'-' if signs[0] == '-' else ''}{terms[0]} {signs[1]} {terms[1]};"
    middle = [f"    p = p * y {s} {t};" for s, t in zip(signs[2:-1], terms[2:-1], strict=True)]
    return "\n".join([first, *middle, f"    return p * y {signs[-1]} {terms[-1]};"])


if __name__ == "__main__":
    for function, name, degree, digits in ((a, "A", 6, FLOAT), (c, "C", 5, FLOAT), (a, "A", 16, DOUBLE), (c, "C", 15, DOUBLE)):
        coefficients, error = chebyfit(function, [0, 1], degree + 1, error=True)
        print(f"// {name}, degree {degree}: largest error {nstr(error, 3)}\n{horner(coefficients, digits)}")
