"""How training decreases the error of one eigenmode: gradient flow, gradient descent, heavy ball.

On the squared loss every eigenmode of the kernel learns by itself: its error after time t is rho(t)
times that at the start. A rule gives rho and (1 - rho)/rate for rates r = lambda/N, lambda the
kernel's eigenvalue and N the loss's divisor, in closed form. Infinite times are allowed: rho is
then 0, and 1 where r = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import as_array

Array = npt.NDArray[np.float64]


class Rule(Protocol):
    """A way of training: `GradientFlow` or `GradientDescent`."""

    @property
    def learning_rate(self) -> float:
        """Step size eta."""

    def check(self, times: Array) -> None:
        """ValueError for times at which there is no state."""

    def decay(self, rates: Array, times: Array) -> Array:
        """rho, the part of the initial error that is left: shape (times, rates)."""

    def gain(self, rates: Array, times: Array) -> Array:
        """(1 - rho)/rate, shape (times, rates): its limit at rate 0 for finite times,
        0 there for infinite ones.
        """

    def bound(self, times: Array) -> Array:
        """An upper bound of `gain` over all stable rates, its value at rate 0: shape (times,)."""

    def max_learning_rate(self, rate: float) -> float:
        """The step size at which a mode of this rate stops converging under steps."""


def flat_times(times: Any, name: str = "times") -> tuple[Array, tuple[int, ...]]:
    """Times as a flat float64 array, and their shape; ValueError for NaN and negative ones."""
    t = as_array(times, name)
    if t.dtype.kind not in "fiub" or not (t >= 0).all():
        raise ValueError(f"{name} must be numbers >= 0 (infinity included)")
    return t.astype(np.float64).reshape(-1), t.shape


def positive(name: str, value: Any) -> float:
    """A positive finite number; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive finite number, not {value!r}")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """A finite number of at least 0; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r:.60}")
    return float(value)


def check_momentum(value: Any, *, undamped: bool = False) -> float:
    """A number in [0, 1), or ``undamped`` 1; ValueError for anything else."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0 <= float(value) < 1 or (undamped and value == 1)):
        raise ValueError(f"momentum must lie in [0, 1{']' if undamped else ')'}, not {value!r:.60}")
    return float(value)


def _split(rates: Array, times: Array) -> tuple[Array, Array, Array]:
    """Rates as a row, finite times as a column (0 in place of infinity),
    and where times are infinite.
    """
    infinite = np.isinf(times)
    return rates[None, :], np.where(infinite, 0.0, times)[:, None], infinite


def _with_limits(values: Array, infinite: Array, limit: Array) -> Array:
    values[infinite] = limit
    return values


def _inverse(rates: Array) -> Array:
    """1/r, and 0 for r = 0: the pseudo-inverse."""
    return np.divide(1.0, rates, out=np.zeros_like(rates), where=rates > 0)


@dataclass(frozen=True)
class GradientFlow:
    """Gradient descent of infinitely small steps: rho = exp(-eta r t).

    Parameters
    ----------
    learning_rate : float, default=1
        eta > 0; t counts in units of steps of this size.

    References
    ----------
    Jacot et al. 2018, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import GradientFlow
    >>> GradientFlow(1.0).decay(np.array([0.0, np.log(2)]), np.array([1.0]))
    array([[1. , 0.5]])
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", positive("learning_rate", self.learning_rate))

    def check(self, times: Array) -> None:
        """Every time is a state of the flow."""

    def decay(self, rates: Array, times: Array) -> Array:
        """exp(-eta r t)."""
        r, t, infinite = _split(rates, times)
        return _with_limits(
            np.exp(-self.learning_rate * t * r), infinite, (rates == 0).astype(float)
        )

    def gain(self, rates: Array, times: Array) -> Array:
        """(1 - exp(-eta r t))/r, at r = 0 eta t."""
        r, t, infinite = _split(rates, times)
        still = self.learning_rate * np.broadcast_to(t, (len(times), len(rates)))
        gain = np.divide(-np.expm1(-self.learning_rate * t * r), r, out=still.copy(), where=r > 0)
        return _with_limits(gain, infinite, _inverse(rates))

    def bound(self, times: Array) -> Array:
        """Eta t."""
        return self.learning_rate * times

    def max_learning_rate(self, rate: float) -> float:
        """2/r, that of gradient descent: the flow itself is stable at any."""
        return math.inf if rate == 0 else 2 / rate


@dataclass(frozen=True)
class GradientDescent:
    """Gradient descent by steps, with heavy-ball momentum: times are numbers of steps.

    f_{t+1} = f_t - eta gradient + beta (f_t - f_{t-1}). Without momentum rho = (1 - eta r)^t. With
    it, for a = 1 + beta - eta r and mu± the roots of mu^2 - a mu + beta, rho = U_{t+1} - beta U_t
    with U_t = (mu+^t - mu-^t)/(mu+ - mu-).

    Parameters
    ----------
    learning_rate : float
        eta > 0.
    momentum : float, default=0
        0 <= beta < 1.

    References
    ----------
    Polyak 1964; Goh 2017, "Why momentum really works".

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import GradientDescent
    >>> GradientDescent(0.5).decay(np.array([0.0, 1.0]), np.array([2.0]))
    array([[1.  , 0.25]])
    """

    learning_rate: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", positive("learning_rate", self.learning_rate))
        object.__setattr__(self, "momentum", check_momentum(self.momentum))

    def check(self, times: Array) -> None:
        """ValueError unless all times are whole."""
        finite = times[np.isfinite(times)]
        if (finite != np.floor(finite)).any():
            raise ValueError(
                "GradientDescent: times are numbers of steps and must be whole;"
                " between steps use GradientFlow"
            )

    def decay(self, rates: Array, times: Array) -> Array:
        """rho; ValueError where an infinite time has no limit, or the value overflows."""
        self._check_limit(rates, times)
        r, t, infinite = _split(rates, times)
        x = self.learning_rate * r
        with np.errstate(over="ignore", invalid="ignore"):
            rho = self._powers(x, t) if self.momentum == 0 else self._heavy_ball(x, t)
        if not np.isfinite(rho).all():
            raise ValueError(f"{self} diverges on these eigenvalues: {self._advice(rates)}")
        return _with_limits(rho, infinite, (rates == 0).astype(float))

    def gain(self, rates: Array, times: Array) -> Array:
        """(1 - rho)/r without cancellation at small r."""
        rho = self.decay(rates, times)
        r, t, infinite = _split(rates, times)
        x, beta = self.learning_rate * r, self.momentum
        small = x[0] <= (1 - math.sqrt(beta)) ** 2 / 2
        gain = np.empty_like(rho)
        gain[:, ~small] = (1 - rho[:, ~small]) / r[:, ~small]
        gain[:, small] = self.learning_rate * self._slow(x[:, small], t)
        return _with_limits(gain, infinite, _inverse(rates))

    def bound(self, times: Array) -> Array:
        """Eta t/(1 - beta): 1 - rho <= x t/(1 - beta),
        the sum of the steps that a constant gradient would take.
        """
        return self.learning_rate * times / (1 - self.momentum)

    def max_learning_rate(self, rate: float) -> float:
        """2 (1 + beta)/r."""
        return math.inf if rate == 0 else 2 * (1 + self.momentum) / rate

    def _check_limit(self, rates: Array, times: Array) -> None:
        if np.isinf(times).any() and self.learning_rate >= self.max_learning_rate(
            rates.max(initial=0.0)
        ):
            raise ValueError(f"{self} has no limit at t = infinity: {self._advice(rates)}")

    def _advice(self, rates: Array) -> str:
        return (
            f"the learning rate must lie below {self.max_learning_rate(rates.max(initial=0.0)):.4g}"
        )

    @staticmethod
    def _powers(x: Array, t: Array) -> Array:
        slow = np.where(x < 0.5, x, 0.0)
        return np.where(x < 0.5, np.exp(t * np.log1p(-slow)), (1 - x) ** t)

    def _heavy_ball(self, x: Array, t: Array) -> Array:
        return self._chebyshev(x, t + 1) - self.momentum * self._chebyshev(x, t)

    def _chebyshev(self, x: Array, t: Array) -> Array:
        """U_t, even at double roots: by |a|, as U_t(-a) = (-1)^(t-1) U_t(a)."""
        beta, a = self.momentum, 1 + self.momentum - x
        sign = np.where((a < 0) & (t % 2 == 0), -1.0, 1.0)
        a = np.abs(a)
        d = a * a - 4 * beta
        s = np.sqrt(np.abs(d))
        # d > 0: mu+^(t-1) (1 - q^t)/(1 - q), q = (a - s)/(a + s);
        # d < 0: beta^((t-1)/2) sin(t theta)/sin(theta).
        angle = np.arctan2(s, a)
        with np.errstate(divide="ignore", invalid="ignore"):
            real = -np.expm1(-2 * t * np.arctanh(np.where(d > 0, s / a, 0.0))) * (a + s) / (2 * s)
            real *= ((a + s) / 2) ** (t - 1)
            swing = np.sin(t * angle) / np.sin(angle) * beta ** ((t - 1) / 2)
        double = t * (a / 2) ** (t - 1)
        return sign * np.where(d > 0, real, np.where(d < 0, swing, double))

    def _slow(self, x: Array, t: Array) -> Array:
        """(1 - rho)/x for x at most half of (1 - sqrt beta)^2, where both roots are real,
        positive and apart.

        With delta = 1 - mu+ = x/(1 - mu-):
        mu+/(mu+ - mu-) (1 - mu+^t)/delta - mu- (1 - mu-^t)/((1 - mu-)(mu+ - mu-)).
        """
        beta = self.momentum
        a = 1 + beta - x
        upper = (a + np.sqrt(a * a - 4 * beta)) / 2
        lower = beta / upper
        delta = x / (1 - lower)
        steps = np.broadcast_to(t, np.broadcast_shapes(t.shape, x.shape)).copy()
        first = np.divide(-np.expm1(t * np.log1p(-delta)), delta, out=steps, where=delta > 0)
        gap = upper - lower
        return upper / gap * first - lower * (1 - lower**t) / ((1 - lower) * gap)
