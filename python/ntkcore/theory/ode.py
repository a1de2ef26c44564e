"""Ordinary differential equations of training, to finite times and to rest, by SciPy."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ntkcore.theory.losses import Array, Field

# Relative change of the outputs while time grows e-fold: there the training has ended.
STATIONARY = 1e-8
EVALUATIONS = 200_000  # of the gradient, before an infinite time is given up


def integrate(
    field: Field,
    start: Array,
    times: Array,
    *,
    tolerance: float,
    scale: float,
    method: str,
    outputs: Field,
) -> Array:
    """State at finite, ``times`` of any order under state' = field(state): shape (times, state),
    by scipy's solve_ivp.

    ``outputs``: the linear map from states, or their velocities, to what is wanted; ``scale``: its
    norm. For infinite times the equation is followed until the outputs are `STATIONARY`.
    ImportError without SciPy; ValueError where the solver gives up, or a limit is not reached in
    `EVALUATIONS` evaluations.
    """
    try:
        from scipy.integrate import solve_ivp
    except ImportError as error:
        raise ImportError(
            'a loss other than the squared one needs SciPy: pip install "ntkcore[sklearn]"'
        ) from error
    options: dict[str, Any] = {
        "method": method,
        "rtol": tolerance,
        "atol": tolerance / max(scale, 1e-300),
    }
    out = np.empty((len(times), start.size))
    finite = np.isfinite(times)
    moments, places = np.unique(times[finite], return_inverse=True)
    if len(moments) and moments[-1] > 0:
        found = solve_ivp(
            lambda t, z: field(z), (0.0, moments[-1]), start, t_eval=moments, **options
        )
        if not found.success:
            raise ValueError(
                f"the ODE solver ({method}) gave up: {found.message} Try method='LSODA' or 'Radau'"
            )
        out[finite] = found.y.T[places]
    else:
        out[finite] = start
    if not finite.all():
        # Finer than at finite times, or noise keeps it moving.
        finer = {"method": method, "rtol": 1e-3 * tolerance, "atol": 1e-3 * options["atol"]}
        out[~finite] = _limit(solve_ivp, field, start, outputs, finer)
    return out


def _limit(
    solve_ivp: Any, field: Field, start: Array, outputs: Field, options: dict[str, Any]
) -> Array:
    count = 0
    if not outputs(field(start)).any():
        return start

    def counted(t: float, state: Array) -> Array:
        nonlocal count
        count += 1
        if count > EVALUATIONS:
            raise ValueError(
                f"t = infinity: still moving at t = {t:.3g} after {EVALUATIONS} evaluations. The"
                " loss may have no minimum (cross-entropy of separable data has none):"
                " give a finite time"
            )
        return field(state)

    def ended(t: float, state: Array) -> float:
        return float(
            t * np.abs(outputs(field(state))).max() - STATIONARY * np.abs(outputs(state)).max()
        )

    ended.terminal, ended.direction = True, -1  # type: ignore[attr-defined]
    found = solve_ivp(counted, (0.0, 1e300), start, events=ended, **options)
    if not len(found.t_events[0]):
        raise ValueError(f"t = infinity: the ODE solver gave up: {found.message}")
    return cast(Array, found.y_events[0][0])
