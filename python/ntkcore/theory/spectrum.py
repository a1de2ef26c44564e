"""What a kernel's eigenvalues say: what is learned, how fast,
and how well conditioned the problem is.

s = spectrum(K, y)                 # from a matrix, leading modes, or an eigendecomposition
s.cumulative_power, s.alignment, s.effective_dimension(1e-3), s.power_law("eigenvalues")
conditioning(K)                    # lambda_min, and whether rounding lets one see it
bound, actual = certified_decay(dynamics, steps)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array, real_array
from ntkcore.linalg.checks import check_matrix
from ntkcore.linalg.eigen import Modes, eigenmodes, leading_modes
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.rules import GradientFlow

Array = npt.NDArray[np.float64]
FEWEST = 10  # points of a power-law fit
ABOVE_NOISE = 10.0  # eigenvalues of a fit exceed rounding so many times


@dataclass(frozen=True)
class PowerLaw:
    """c i^-exponent fitted to values number ``first`` to ``last`` (from 1),
    by least squares on logarithms.

    ``error``: standard error of the exponent, if the residuals were independent (neighbouring
    eigenvalues are not). ``halves``: the exponents of the range's two halves in log i: where they
    differ by much there is no power law.
    """

    exponent: float
    error: float
    constant: float
    r_squared: float
    first: int
    last: int
    halves: tuple[float, float]

    def __call__(self, i: npt.ArrayLike) -> Array:
        """The fitted values at i (from 1)."""
        out: Array = self.constant * np.asarray(i, np.float64) ** -self.exponent
        return out


def power_law(values: npt.ArrayLike, first: int, last: int) -> PowerLaw:
    """Fit c i^-exponent to values[first - 1 : last], by least squares on logarithms.

    Parameters
    ----------
    values : array_like of shape (n,)
        Positive in the range.
    first, last : int
        The range, counted from 1.

    Returns
    -------
    PowerLaw

    Raises
    ------
    ValueError
        For fewer than 10 points or less than a factor 4 in i.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore.spectrum import power_law
    >>> round(power_law(np.arange(1.0, 101) ** -2, 1, 100).exponent, 6)
    2.0
    """
    data = check_matrix(values, "values", (None,))
    whole = all(isinstance(number, (int, np.integer)) for number in (first, last))
    if not whole or not 1 <= first <= last <= len(data):
        raise ValueError(
            f"a fit from {first!r} to {last!r} needs whole numbers, 1 <= first <= last <="
            f" {len(data)}"
        )
    if last - first + 1 < FEWEST or last < 4 * first:
        raise ValueError(
            f"values {first} to {last} are too few for a power law:"
            f" it takes {FEWEST} and a factor of 4 in the index"
        )
    x, y = np.log(np.arange(first, last + 1)), data[first - 1 : last]
    if y.min() <= 0:
        raise ValueError(
            f"values {first} to {last} are not all positive: end the range before rounding or zero"
        )
    slope, intercept, error, r_squared = _line(x, np.log(y))
    middle = x < x.mean()
    halves = (-_line(x[middle], np.log(y[middle]))[0], -_line(x[~middle], np.log(y[~middle]))[0])
    return PowerLaw(-slope, error, math.exp(intercept), r_squared, first, last, halves)


def _line(x: Array, y: Array) -> tuple[float, float, float, float]:
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    left = float(((dy - slope * dx) ** 2).sum())
    error = math.sqrt(left / max(len(x) - 2, 1) / float(dx @ dx))
    total = float(dy @ dy)
    return slope, float(y.mean() - slope * x.mean()), error, 1 - left / total if total > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A kernel's modes and what the targets have in them.

    ``modes``: eigenvalues (k,), largest first, and eigenvectors. ``power``: the targets' share (k,)
    in each mode, (v_i . y)^2/|y|^2, summed over outputs; None without targets. ``alignment``: y^T K
    y/(|K|_F |y|^2) (Cristianini et al. 2001), for several outputs of y y^T; None without targets or
    all modes.
    """

    modes: Modes
    power: Array | None
    alignment: float | None

    @property
    def eigenvalues(self) -> Array:
        """Largest first, (k,); those within rounding are exactly 0."""
        return self.modes.values

    @property
    def cumulative_power(self) -> Array:
        """C(k), the targets' share in the k leading modes (Canatar et al. 2021)."""
        if self.power is None:
            raise ValueError("the power is that of targets: give y to spectrum()")
        return np.cumsum(self.power)

    def _all(self, what: str) -> Array:
        if not self.modes.complete:
            n, k = self.modes.vectors.shape
            raise ValueError(
                f"{what} needs all {n} eigenvalues, and {k} are known: pass the matrix"
            )
        return self.modes.values

    def effective_dimension(self, ridge: float, *, absolute: bool = False) -> float:
        """tr K (K + ridge)^-1 (Caponnetto & De Vito 2007),
        the ridge in units of the mean diagonal or ``absolute``.
        """
        values = self._all("the effective dimension")
        shift = self.modes.ridge(ridge, absolute)
        return float((values[values > 0] / (values[values > 0] + shift)).sum())

    @property
    def participation(self) -> float:
        """(tr K)^2/tr K^2: how many eigenvalues carry the kernel, between 1 and n."""
        values = self._all("the participation ratio")
        largest = float(values[0]) or 1.0
        return float((values / largest).sum() ** 2 / max(((values / largest) ** 2).sum(), 1.0))

    @property
    def condition(self) -> float:
        """lambda_max/lambda_min, infinite where lambda_min is within rounding."""
        values = self._all("the condition number")
        return float(values[0] / values[-1]) if values[-1] > 0 else math.inf

    def power_law(
        self, of: str = "eigenvalues", first: int | None = None, last: int | None = None
    ) -> PowerLaw:
        """The decay of the "eigenvalues", or of the "targets": their share beyond mode i, 1 - C(i).

        By default from mode 10 (or n/40 for few points) to n/10: beyond, eigenvalues of a Gram
        matrix of n samples are no longer those of the kernel; and only those 10 times above
        rounding. ValueError where too few are left.
        """
        if of not in ("eigenvalues", "targets"):
            raise ValueError(f"of must be 'eigenvalues' or 'targets', not {of!r}")
        n = len(self.modes.vectors)
        values = self.eigenvalues if of == "eigenvalues" else 1 - self.cumulative_power
        floor = ABOVE_NOISE * self.modes.noise if of == "eigenvalues" else 1e-12
        begin = max(1, min(10, n // 40)) if first is None else first
        end = min(max(n // 10, 1), int((values > floor).sum())) if last is None else last
        return power_law(values, begin, end)


def spectrum(K: Any, y: npt.ArrayLike | None = None, *, leading: int | None = None) -> Spectrum:
    """Eigenvalues and modes of a kernel, and what targets have in them.

    Parameters
    ----------
    K
        A kernel matrix (n, n); `Modes`; or with ``leading`` any SciPy operator (n, n), such as a
        store's or a matrix-free one, whose leading modes are found by `leading_modes`.
    y
        Targets (n,) or (n, outputs), finite, not all zero.
    leading
        So many modes only.

    Raises
    ------
    ValueError, TypeError
        For a matrix that is not symmetric and, up to rounding, positive semidefinite;
        targets that do not fit.
    """
    if isinstance(K, Modes):
        modes = K
    elif leading is None:
        modes = eigenmodes(K)
    else:
        trace = (
            float(K.diagonal().sum()) if hasattr(K, "diagonal") and not np.iscomplexobj(K) else None
        )
        modes = leading_modes(K, leading, trace=trace)
    if y is None:
        return Spectrum(modes, None, None)
    array = as_array(y, "y")
    targets = check_matrix(
        array.reshape(len(array), -1) if array.ndim and array.size else array,
        "y",
        (len(modes.vectors), None),
    )
    if not modes.values.any():
        raise ValueError("K is zero, as far as its digits tell: it has no modes to find y in")
    if not targets.any():
        raise ValueError("y is zero, or has no columns: there is nothing to find in the modes")
    targets, values = targets / np.abs(targets).max(), modes.values / modes.values[0]
    norm = float((targets**2).sum())
    power: Array = ((modes.vectors.T @ targets) ** 2).sum(1) / norm
    frobenius = math.sqrt(float((values**2).sum()))
    gram = math.sqrt(float(((targets.T @ targets) ** 2).sum()))  # |y y^T|_F
    alignment = float(values @ power) * norm / (frobenius * gram) if modes.complete else None
    return Spectrum(modes, power, alignment)


@dataclass(frozen=True)
class Conditioning:
    """Is the kernel positive definite, as far as its digits tell? Prints as a sentence."""

    n: int
    largest: float
    smallest: float
    noise: float
    condition: float

    @property
    def resolved(self) -> bool:
        """Does the smallest eigenvalue exceed rounding?"""
        return self.smallest > self.noise

    def __str__(self) -> str:
        head = f"{self.n} points: eigenvalues from {self.smallest:.3g} to {self.largest:.3g}, "
        if self.resolved:
            return (
                head + f"condition {self.condition:.3g}; the smallest exceeds rounding"
                f" ({self.noise:.2g})"
            )
        return (
            head
            + f"the smallest is lost in rounding ({self.noise:.2g}): duplicates, float32, or too"
            " many points"
        )


def conditioning(K: Any) -> Conditioning:
    """lambda_min, lambda_max, their ratio, and rounding, of a kernel matrix or its `Modes`."""
    modes = K if isinstance(K, Modes) else eigenmodes(K)
    top, bottom = float(modes.values[0]), float(modes.values[-1])
    return Conditioning(
        len(modes.vectors), top, bottom, modes.noise, top / bottom if bottom > 0 else math.inf
    )


def certified_decay(dynamics: Dynamics, times: npt.ArrayLike) -> tuple[Array, Array]:
    """The bound (1 - eta lambda_0/2)^t |f_0 - y|^2 beside the actual |f_t - y|^2.

    lambda_0 is the smallest eigenvalue over N; of gradient flow the bound is exp(-eta lambda_0 t).
    The linear model keeps it for every eta lambda_max/N <= 1; the theorem for networks wants eta
    smaller and the width large.

    Parameters
    ----------
    dynamics : Dynamics
    times : array_like of shape (t,)

    Returns
    -------
    bound, actual : ndarray of shape (t,)

    Raises
    ------
    ValueError
        With a ridge, which keeps the error from vanishing, and with momentum,
        which the theorem leaves out.

    References
    ----------
    Du et al. 2019, theorem 3.1.
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be a Dynamics, not {type(dynamics).__name__}")
    at = np.atleast_1d(real_array(times, "times"))
    rule, lowest = dynamics.rule, float(dynamics.rates.min())
    if getattr(rule, "momentum", 0.0):
        raise ValueError("the bound is that of gradient descent without momentum")
    if dynamics.ridge:
        raise ValueError(
            "with a ridge the training error does not vanish: the bound is for ridge=0"
        )
    error = dynamics.residuals(np.concatenate([[0.0], at]))
    squared = (np.asarray(error).reshape(len(at) + 1, -1) ** 2).sum(1)
    if isinstance(rule, GradientFlow):
        shrink = np.exp(-rule.learning_rate * lowest * at)
    else:
        shrink = (1 - rule.learning_rate * lowest / 2) ** at
    return squared[0] * shrink, squared[1:]
