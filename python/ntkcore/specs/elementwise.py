"""Any activation, by its scalar function: named ones, and those a caller gives."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from ntkcore.specs import interpolation, series
from ntkcore.specs.activations import Activation
from ntkcore.specs.layers import Signal
from ntkcore.specs.program import Builder, Value

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]

LEAST_VARIANCE, LARGEST_VARIANCE = 1e-30, 1e6  # of a table
LARGEST_OF_KINKED = 1e9  # parts as large as it cancel in their closed form, to 1e-7


@dataclass(frozen=True)
class Named:
    """phi, phi', and the part of phi' that is not smooth at 0 (`series.kink_part`)."""

    phi: Function
    derivative: Function
    kinks: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


# a, b, e, then twice s, t, alpha, beta of
# a + b z + e z^2 + sum of alpha y + beta y^2, y = (s (z - t))_+, s t >= 0: csrc/math/kinks.h.
KINKED: dict[str, tuple[float, ...]] = {
    "relu6": (0, 0, 0, 1, 0, 1, 0, 1, 6, -1, 0),
    "hardtanh": (0, 1, 0, -1, -1, 1, 0, 1, 1, -1, 0),
    "hardsigmoid": (1 / 2, 1 / 6, 0, -1, -3, 1 / 6, 0, 1, 3, -1 / 6, 0),
    "hardswish": (0, 1 / 2, 1 / 6, -1, -3, -1 / 2, -1 / 6, 1, 3, -1 / 2, -1 / 6),
    "softshrink": (0, 0, 0, -1, -0.5, -1, 0, 1, 0.5, 1, 0),
}


def expit(z: Array) -> Array:
    """The logistic function, to all digits on either side."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _softplus(z: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, z))


def _sech2(z: Array) -> Array:
    """1/cosh(z)^2, which does not overflow."""
    e = np.exp(-2 * np.abs(z))
    return np.asarray(4 * e / (1 + e) ** 2)


def _tanhshrink(z: Array) -> Array:
    """z - tanh z, near 0 by its power series, for they cancel there."""
    near = np.minimum(np.abs(z), 0.1) ** 2
    powers = np.polynomial.polynomial.polyval(near, _TANHSHRINK)
    return np.asarray(np.where(np.abs(z) < 0.1, z**3 * powers, z - np.tanh(z)))


_TANHSHRINK = (
    *(1 / 3, -2 / 15, 17 / 315, -62 / 2835, 1382 / 155925, -21844 / 6081075),
    *(929569 / 638512875, -6404582 / 10854718875),
)


def _mish_derivative(z: Array) -> Array:
    s = _softplus(z)
    return np.asarray(np.tanh(s) + z * _sech2(s) * expit(z))


def _elu(scale: float, alpha: float) -> Named:
    # Below 0 phi' = scale alpha e^z: jumps of phi', phi'', phi''', phi'''' at 0.
    jumps = scale * np.array([1 - alpha, -alpha, -alpha, -alpha])
    return Named(
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
        kinks_of_jumps(jumps),
    )


def kinks_of_jumps(jumps: Any) -> tuple[float, float, float, float]:
    """k0 … k3 from the jumps at 0 of phi' and its first three derivatives."""
    k0, k1, k2, k3 = (float(j) / (2 * math.factorial(n)) for n, j in enumerate(jumps))
    return k0, k1, k2, k3


NAMED: dict[str, Named] = {
    "tanh": Named(np.tanh, _sech2),
    "sigmoid": Named(expit, lambda z: expit(z) * expit(-z)),
    "softplus": Named(_softplus, expit),
    "silu": Named(lambda z: z * expit(z), lambda z: expit(z) * (1 + z * expit(-z))),
    "mish": Named(lambda z: z * np.tanh(_softplus(z)), _mish_derivative),
    "logsigmoid": Named(lambda z: -_softplus(-z), lambda z: expit(-z)),
    "tanhshrink": Named(_tanhshrink, lambda z: np.tanh(z) ** 2),
    "arctan": Named(np.arctan, lambda z: 1 / (1 + z**2)),
    "softsign": Named(
        lambda z: z / (1 + np.abs(z)),
        lambda z: 1 / (1 + np.abs(z)) ** 2,
        kinks_of_jumps([0, -4, 0, -48]),
    ),
    "elu": _elu(1.0, 1.0),
    "celu": _elu(1.0, 1.0),
    "selu": _elu(1.0507009873554804934193349852946, 1.6732632423543772848170429916717),
}


NAMES = (*NAMED, *KINKED)


@dataclass(frozen=True, repr=False)
class Elementwise(Activation):
    """Any activation, given as a scalar function of a NumPy array or by name.

    Its dual is summed from Hermite coefficients (Mehler's formula), tabulated over the variances
    that the data bring; kinks at 0 are taken out of the sum in closed form. The names
    with kinks beside 0 ({kinked}) are exact.

    Parameters
    ----------
    phi : str or callable
        One of {names}; or a function of a float64 array that returns one of its shape, element by
        element. Smooth but for a kink at 0, and of finite second moment.
    dphi : callable, optional
        Its derivative, likewise. By default found from ``phi`` by piecewise interpolation, to 11
        digits. With a name it must be left out.

    Notes
    -----
    What the sum leaves out is bounded (`error`): at most 1e-12 of sqrt(D(q, q) D(q', q')),
    D = E[phi' phi'], for smooth activations and variances of a few units, 1e-7 in float32 and where
    phi'' or a higher derivative jumps at 0. More terms are needed as variances grow; where
    {most} do not hold 1e-6 the kernel is refused, in float32 also where kinks cancel too much.

    Raises
    ------
    ValueError
        For an unknown name, and, when a kernel is asked for, a function that is no activation: of
        another shape, NaN, without second moment, with a jump or a kink beside 0.

    References
    ----------
    Daniely, Frostig & Singer 2016, section 4 (dual activations by Hermite coefficients).

    Examples
    --------
    >>> import numpy as np
    >>> from ntkcore import Dense, Elementwise, Serial, kernel
    >>> x = np.eye(2)
    >>> named = kernel(Serial(Dense(), Elementwise("tanh"), Dense()), x)
    >>> own = kernel(Serial(Dense(), Elementwise(np.tanh), Dense()), x)
    >>> bool(np.allclose(named, own, atol=1e-11))
    True
    """

    phi: str | Function
    dphi: Function | None = None

    dual = "series"
    tabulated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.phi, str):
            if self.phi not in NAMES:
                raise ValueError(
                    f"Elementwise: unknown phi {self.phi!r}; named ones: {', '.join(NAMES)};"
                    " or give a function of a NumPy array"
                )
            if self.dphi is not None:
                raise ValueError(f"Elementwise: {self.phi!r} has its derivative: leave dphi out")
        elif not callable(self.phi) or not (self.dphi is None or callable(self.dphi)):
            raise TypeError(
                "Elementwise: phi must be a name or a function of a NumPy array, and dphi a"
                f" function or None, not {self.phi!r} and {self.dphi!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As for every layer; TypeError for a function, which has no name to write down."""
        if not isinstance(self.phi, str):
            raise TypeError(
                f"{self!r} holds a function, which JSON cannot: use one of the names"
                f" {', '.join(NAMES)}"
            )
        return {"layer": "Elementwise", "phi": self.phi}

    def error(self, variance: float, dtype: npt.DTypeLike = np.float64) -> float:
        """Bound on what the sum leaves out for variances up to `variance`, relative to
        sqrt(D(q, q) D(q', q')), D = E[phi' phi'].
        """
        if isinstance(self.phi, str) and self.phi in KINKED:
            return float(np.finfo(dtype).eps)  # a closed form
        return _tabulated(self, _end_of_table(variance), np.dtype(dtype) == np.float32).error

    def lower(self, builder: Builder, value: Signal) -> Value:
        value = self.gaussian(builder, value)
        if isinstance(self.phi, str) and self.phi in KINKED:
            if not value.variance < LARGEST_OF_KINKED:
                raise builder.error(
                    self,
                    f"at variances up to {value.variance:.3g} too few digits are left of its"
                    " kernel: rescale the data or reduce W_std",
                )
            builder.bound(self, self.error(value.variance, "f4" if builder.single else "f8"))
            return builder.kinks(value, KINKED[self.phi])
        try:
            made = _tabulated(self, _end_of_table(value.variance), builder.single)
        except ValueError as problem:
            raise builder.error(self, str(problem)) from problem.__cause__
        builder.bound(self, made.error)
        return builder.series(value, made)


Elementwise.__doc__ = (Elementwise.__doc__ or "").replace("{names}", ", ".join(NAMES))
Elementwise.__doc__ = Elementwise.__doc__.replace("{kinked}", ", ".join(KINKED))
Elementwise.__doc__ = Elementwise.__doc__.replace("{most}", f"{series.MOST_TERMS} terms")


def _end_of_table(variance: float) -> float:
    """Above a variance, which rounding must not pass, and the same for many: tables are kept."""
    if not variance < LARGEST_VARIANCE:
        return variance
    return float(2 ** (math.ceil(4 * math.log2(1.01 * max(variance, LEAST_VARIANCE))) / 4))


@functools.lru_cache(maxsize=32)  # one may be 20 MB
def _tabulated(layer: Elementwise, variance: float, single: bool) -> series.Series:
    """The layer's series; ValueError says why there is none."""
    if not variance < LARGEST_VARIANCE:
        raise ValueError(
            f"its variances reach {variance:.3g}, which no table holds: the kernel is not finite or"
            " too steep; rescale the data or reduce W_std"
        )
    named = _functions(layer, math.sqrt(variance))
    wanted = 1e-7 if single else 1e-8 if any(named.kinks) else 1e-13
    kinks = _mild(named, variance) if single else named.kinks
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # it looks itself
            return series.tabulate(named.phi, named.derivative, kinks, variance, wanted)
    except ValueError as error:
        hint = ", or use dtype='float64'" if kinks != named.kinks else ""
        raise ValueError(f"{error}{hint}") from None


def _mild(named: Named, variance: float) -> tuple[float, ...]:
    """As many of the kinks, those of the lowest derivatives first, as single precision bears to
    take out of the sum: what cancels then is rounded.
    """
    rounding = np.finfo(np.float32).eps / 2
    for count in range(len(named.kinks), 0, -1):
        kinks = (*named.kinks[:count], *(0.0,) * (len(named.kinks) - count))
        lost = rounding * series.cancellation(named.derivative, kinks, variance)
        if lost < 2 * series.WORST:
            break
    return kinks


def _functions(layer: Elementwise, root: float) -> Named:
    """phi, phi' and its kinks, for arguments of some multiples of `root`."""
    if isinstance(layer.phi, str):
        return NAMED[layer.phi]
    phi = _checked(layer.phi, "phi", root)
    if layer.dphi is not None:
        derivative = _checked(layer.dphi, "dphi", root)
        _check_derivative(phi, derivative, root)
    else:
        derivative = interpolation.derivative(phi, 64 * root)
    return Named(phi, derivative, kinks_of_jumps(interpolation.jumps_at_zero(derivative)))


def _checked(function: Function, name: str, root: float) -> Function:
    """The function, element by element as float64; ValueError where it is none."""

    def checked(z: Array) -> Array:
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(_values(function, z))
        except Exception as problem:
            raise ValueError(
                f"{name} of an array raised {type(problem).__name__}: {problem}; it must take"
                " arrays of float64 (np.vectorize makes one of a function of numbers)"
            ) from problem
        if value.shape != z.shape:
            raise ValueError(
                f"{name} made an array of shape {value.shape} from one of shape {z.shape}: it must"
                " act element by element"
            )
        if value.dtype.kind not in "fiub":
            raise ValueError(f"{name} made an array of {value.dtype}: it must give real numbers")
        if value.dtype.kind == "f" and value.dtype.itemsize < 8:
            raise ValueError(
                f"{name} made {value.dtype} of float64, which is too coarse for its coefficients:"
                " let it compute in float64"
            )
        if not np.isfinite(value).all():
            at = z.flat[int(np.argmax(~np.isfinite(value)))]
            raise ValueError(
                f"{name}({at:.6g}) is not a finite number: phi must be defined everywhere and"
                " have a finite second moment"
            )
        return value.astype(np.float64)

    z = np.linspace(-8 * root, 8 * root, 33)
    whole, part = checked(z), checked(z[20:3:-1])
    if (np.abs(whole[20:3:-1] - part) > 1e-9 * np.abs(whole).max()).any():
        raise ValueError(
            f"{name} has other values of the same numbers in another array: it must act element by"
            " element, and draw nothing"
        )
    return checked


def _values(function: Any, z: Array) -> Any:
    """Of a function of NumPy or JAX arrays, or of torch tensors, which may change its argument."""
    try:
        with _double_precision():
            return np.asarray(function(z.copy()))
    except (TypeError, AttributeError) as problem:
        torch = sys.modules.get("torch")
        try:
            return function(torch.tensor(z.copy())).detach().numpy()  # type: ignore[union-attr]
        except Exception:
            raise problem from None


def _double_precision() -> contextlib.AbstractContextManager[Any]:
    """In it JAX, where a caller has imported it, computes in float64."""
    jax: Any = sys.modules.get("jax")
    if jax is None:
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return cast(contextlib.AbstractContextManager[Any], jax.enable_x64(True))
    enable = importlib.import_module("jax.experimental").enable_x64  # before JAX 0.8
    return cast(contextlib.AbstractContextManager[Any], enable())


def _check_derivative(phi: Function, derivative: Function, root: float) -> None:
    """ValueError where differences of phi are not those of phi'."""
    step = 1e-6 * root
    z = root * np.linspace(-7.9, 7.8, 33)
    slope, given = (phi(z + step) - phi(z - step)) / (2 * step), derivative(z)
    scale = np.abs(given).max() + np.abs(phi(z)).max() / root
    if (wrong := np.abs(slope - given) > 1e-3 * scale).any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"dphi({z[at]:.6g}) is {given[at]:.6g}, but phi rises by {slope[at]:.6g} there: dphi"
            " must be the derivative of phi; or leave it out"
        )
