"""Pictures of spectra and learning curves. Matplotlib;
every function takes ``ax`` and returns it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.plots.axes import own_axes
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.learning_curves import LearningCurve
from ntkcore.theory.spectrum import PowerLaw, Spectrum, certified_decay
from ntkcore.theory.sphere import SphereSpectrum


def eigenvalues(found: Spectrum, fit: PowerLaw | None = None, *, ax: Any = None) -> Any:
    """Eigenvalues by their number on logarithmic axes, rounding as a grey band,
    a power law over its range.
    """
    ax = own_axes(ax)
    values = found.eigenvalues
    positive = values > 0
    number = np.arange(1, len(values) + 1)
    ax.plot(number[positive], values[positive], ".", ms=3, color="C0")
    if found.modes.noise > 0 and not positive.all():
        ax.axhspan(ax.get_ylim()[0], found.modes.noise, color="0.9", label="rounding")
    if fit is not None:
        i = np.arange(fit.first, fit.last + 1)
        ax.plot(
            i,
            fit(i),
            "k--",
            lw=1,
            label=f"$i^{{-{fit.exponent:.2f} \\pm {fit.error:.2f}}}$, {fit.first} to {fit.last}",
        )
    ax.set(xscale="log", yscale="log", xlabel="mode", ylabel="eigenvalue")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)
    return ax


def cumulative_power(found: Spectrum, label: str | None = None, *, ax: Any = None) -> Any:
    """The targets' share in the leading modes over their number."""
    ax = own_axes(ax)
    power = found.cumulative_power
    ax.plot(np.arange(1, len(power) + 1), power, label=label)
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="modes", ylabel="share of the targets")
    if label is not None:
        ax.legend(frameon=False)
    return ax


def by_order(modes: SphereSpectrum, label: str | None = None, *, ax: Any = None) -> Any:
    """Eigenvalues on the sphere by order of the harmonics; those that are 0 are left out."""
    ax = own_axes(ax)
    order = np.arange(len(modes.eigenvalues))
    there = modes.eigenvalues > 0
    ax.plot(order[there], modes.eigenvalues[there], "o", ms=4, label=label)
    ax.set(yscale="log", xlabel="order k", ylabel="eigenvalue")
    if label is not None:
        ax.legend(frameon=False)
    return ax


def mode_errors(
    curve: LearningCurve,
    samples: npt.ArrayLike,
    orders: npt.ArrayLike,
    measured: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Theory's E_k(P)/E_k(0) over ``samples`` for some ``orders``; ``measured``: (P, mean,
    error), both (P, orders).
    """
    ax = own_axes(ax)
    P, chosen = np.asarray(samples, np.float64), np.asarray(orders)
    theory = curve.mode_errors(P)
    for place, k in enumerate(chosen):
        ax.plot(P, theory[:, k], color=f"C{place}", label=f"k = {k}")
        if measured is not None:
            at, mean, error = (np.asarray(part) for part in measured)
            ax.errorbar(at, mean[:, place], error[:, place], fmt="o", ms=4, color=f"C{place}")
    ax.set(xscale="log", yscale="log", xlabel="samples P", ylabel="$E_k(P)/E_k(0)$")
    ax.legend(frameon=False, title="theory; dots: measured" if measured is not None else None)
    return ax


def certified(dynamics: Dynamics, times: npt.ArrayLike, *, ax: Any = None) -> Any:
    """The squared training error over ``times`` under the bound
    that the smallest eigenvalue certifies.
    """
    ax = own_axes(ax)
    t = np.asarray(times, np.float64)
    bound, actual = certified_decay(dynamics, t)
    ax.plot(t, bound, "k--", lw=1, label=r"bound $(1 - \eta\lambda_0/2)^t\,|r_0|^2$")
    ax.plot(t, actual, color="C0", label="$|f_t - y|^2$")
    ax.set(yscale="log", xlabel="training time", ylabel="squared error")
    ax.legend(frameon=False)
    return ax
