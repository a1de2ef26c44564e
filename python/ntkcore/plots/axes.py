"""Axes of the caller, or of a new figure of its own."""

from __future__ import annotations

from typing import Any


def own_axes(ax: Any) -> Any:
    """The caller's axes, or those of a new figure outside pyplot;
    ImportError without Matplotlib.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need Matplotlib: pip install "ntkcore[plot]"') from error
    return Figure(figsize=(6.4, 4.2), layout="constrained").add_subplot()
