"""Pictures of training: losses, modes, predictions with their uncertainty. Matplotlib;
every function takes ``ax``.

    losses(dynamics, times, {"validation": (points, y)}, ax=ax)

Nothing global is touched: without ``ax`` a figure of its own is made,
outside pyplot; ``ax.figure.savefig(path)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.plots.axes import own_axes
from ntkcore.theory.dynamics import Dynamics
from ntkcore.theory.points import KernelTraining, Points

SURE = 2.0  # standard deviations of the bands


def losses(
    training: KernelTraining,
    times: npt.ArrayLike,
    sets: Mapping[str, tuple[Points, npt.ArrayLike]] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Training loss, and that of other ``sets`` {name: (points, y)}, over ``times`` (t,),
    on logarithmic axes.

    A dot marks each other set's least loss. Times of 0 and infinity have no place on the axis and
    are left out. Returns the axes; ImportError without Matplotlib.
    """
    ax = own_axes(ax)
    t = _positive(times)
    ax.plot(t, training.train.loss(t), color="0.3", label="training")
    for number, (name, (points, y)) in enumerate((sets or {}).items()):
        loss = points.loss(t, y)
        best = int(loss.argmin())
        ax.plot(t, loss, color=f"C{number}", label=name)
        ax.plot(
            t[best],
            loss[best],
            "o",
            color=f"C{number}",
            label=f"least: {loss[best]:.3g} at t = {t[best]:.3g}",
        )
    ax.set(xscale="log", yscale="log", xlabel="training time", ylabel="loss")
    ax.legend(frameon=False)
    return ax


def modes(
    dynamics: Dynamics,
    times: npt.ArrayLike,
    which: Sequence[int] = (0, 1, 3, 10, 30, 100),
    *,
    ax: Any = None,
) -> Any:
    """The training error's coefficients |v_i . (f_t - y)| over ``times`` (t,),
    relative to their start, by mode.

    ``which``: modes, 0 having the largest eigenvalue; those beyond the last are left out. Several
    outputs are joined by their root of squares. Returns the axes.
    """
    ax = own_axes(ax)
    t = _positive(times)
    error = np.abs(dynamics.residuals(np.concatenate([[0.0], t])))
    size = np.linalg.norm(error.reshape(*error.shape[:2], -1), axis=2)
    chosen = [i for i in which if i < size.shape[1]]
    for place, i in enumerate(chosen):
        shade = _colour(place / max(len(chosen) - 1, 1))
        label = f"mode {i + 1}: λ = {dynamics.modes.values[i]:.2g}"
        ax.plot(t, size[1:, i] / (size[0, i] or 1.0), color=shade, label=label)
    ax.set(xscale="log", xlabel="training time", ylabel="error left in the mode / at the start")
    ax.legend(frameon=False)
    return ax


def predictions(
    points: Points,
    x: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ax: Any = None,
) -> Any:
    """Means at ``points`` over their 1-D inputs ``x`` (m,),
    one curve for each of ``times`` (t,), one output.

    With NNGP blocks, bands of two standard deviations. ``data``: (x, y) of the training set, as
    dots. Returns the axes; ValueError for more than one output.
    """
    ax = own_axes(ax)
    t = np.atleast_1d(np.asarray(times, dtype=float))
    where = np.asarray(x, dtype=float).reshape(-1)
    mean = points.mean(t).reshape(len(t), len(where), -1)
    if mean.shape[2] != 1:
        raise ValueError(
            f"a picture holds one output, and there are {mean.shape[2]}:"
            " make the object with one column of y"
        )
    order = np.argsort(where)
    spread = None
    if points.nngp_own is not None:
        spread = SURE * np.sqrt(np.maximum(points.covariance(t, diagonal=True), 0.0))
    for place, moment in enumerate(t):
        shade, curve = _colour(place / max(len(t) - 1, 1)), mean[place, order, 0]
        ax.plot(where[order], curve, color=shade, label=f"t = {moment:g}".replace("inf", "∞"))
        if spread is not None:
            band = spread[place, order]
            ax.fill_between(
                where[order], curve - band, curve + band, color=shade, alpha=0.15, linewidth=0
            )
    if data is not None:
        ax.plot(
            np.ravel(data[0]),
            np.ravel(data[1]),
            "o",
            color="black",
            markersize=4,
            label="data",
            zorder=3,
        )
    ax.set(xlabel="x", ylabel="f(x)" + (" ± 2σ" if spread is not None else ""))
    ax.legend(frameon=False)
    return ax


def _positive(times: npt.ArrayLike) -> Any:
    t = np.asarray(times, dtype=float).reshape(-1)
    t = np.unique(t[(t > 0) & np.isfinite(t)])
    if not len(t):
        raise ValueError("a logarithmic axis needs at least one positive finite time")
    return t


def _colour(place: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * place)
