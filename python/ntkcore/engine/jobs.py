"""What is to be computed: a program's kernels between samples, and the places where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ntkcore.engine.inputs import KERNELS, Array

Parts = dict[str, list[Any]]  # by kernel, of every output its matrix
Views = Sequence[Array | None]  # of every output its part, None where not wanted
Place = tuple[Views, Views]  # nngp, ntk


@dataclass(frozen=True)
class Job:
    """Kernels of a program between the samples of `a` and `b` (None: `a`),
    to be written into `parts`.

    `tile`: rows and columns of a tile, None for the engine's choice. `flip`: on average with the
    images of `a` turned left to right.
    """

    program: Any
    a: Any
    b: Any
    parts: Parts
    threads: int
    tile: int | None = None
    progress: bool | None = None
    flip: bool = False

    @property
    def symmetric(self) -> bool:
        """Are both sides the same samples."""
        return self.b is None

    @property
    def columns(self) -> Any:
        """The samples of the columns."""
        return self.a if self.b is None else self.b

    @property
    def of_images(self) -> bool:
        """Are the samples images, or have they other positions."""
        return bool(self.a.ndim > 2)

    def views(self, rows: slice, cols: slice) -> Place:
        """The part of the results in these rows and columns."""
        return views(self.parts, rows, cols)

    def tile_of(self, step: int) -> int | None:
        """`tile`; ValueError where it is no multiple of `step`."""
        if self.tile is None:
            return None
        if (
            isinstance(self.tile, bool)
            or not hasattr(self.tile, "__index__")
            or self.tile < step
            or self.tile % step
        ):
            kind = "images" if self.of_images else "vectors"
            raise ValueError(
                f"tile must be a positive multiple of {step} for {kind}, not {self.tile!r}"
            )
        return int(self.tile)


def views(parts: Parts, rows: slice, cols: slice) -> Place:
    """Per kernel (nngp, ntk) and output: the part in these rows and columns,
    None where not wanted.
    """
    nothing = [None] * levels(parts)
    nngp, ntk = (
        [part[rows, cols] for part in parts[name]] if name in parts else nothing for name in KERNELS
    )
    return nngp, ntk


def nowhere(parts: Parts) -> Place:
    """No places, of as many outputs."""
    nothing = [None] * levels(parts)
    return nothing, nothing


def levels(parts: Parts) -> int:
    """The number of outputs."""
    return len(next(iter(parts.values())))
