"""Branches: a signal handed to several layers, and what joins what they make of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from ntkcore.specs.layers import Container, Identity, Layer, Serial, Signal, is_whole, single
from ntkcore.specs.program import Builder, Value
from ntkcore.specs.windows import Shape

MOST_BRANCHES = 1000  # each holds a slot of every thread's memory


@dataclass(frozen=True, repr=False)
class FanOut(Layer):
    """Hands its input to ``num`` branches; `Parallel` takes them, `FanInSum`, `FanInProd`
    or `FanInConcat` joins them.
    """

    num: int

    def __post_init__(self) -> None:
        if not is_whole(self.num) or not 1 <= self.num <= MOST_BRANCHES:
            raise ValueError(
                f"FanOut: num must be a number of branches from 1 to {MOST_BRANCHES}, not"
                f" {self.num!r}"
            )
        object.__setattr__(self, "num", int(self.num))

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return builder.fan_out(single(self, builder, value), self.num)


@dataclass(frozen=True, repr=False, init=False)
class Parallel(Container):
    """One layer for every branch that `FanOut` made."""

    branches: tuple[Layer, ...]

    def __init__(self, *branches: Layer) -> None:
        if not branches:
            raise ValueError("Parallel: takes a layer for every branch of FanOut, at least one")
        self._set("branches", branches)

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Parallel:
        return cls(*arguments["branches"])

    def lower(self, builder: Builder, value: Signal) -> Signal:
        given = len(value) if isinstance(value, tuple) else 1
        if not isinstance(value, tuple) or given != len(self.branches):
            raise builder.error(
                self,
                f"has {len(self.branches)} branches, got {given}:"
                f" put FanOut({len(self.branches)}) before it",
            )
        out = []
        for number, (branch, part) in enumerate(zip(self.branches, value, strict=True)):
            builder.path.append(f"branch {number}")
            out.append(single(branch, builder, branch.lower(builder, part)))
            builder.path.pop()
        return tuple(out)


class FanIn(Layer, abstract=True):
    """Base of the layers that join branches."""

    def lower(self, builder: Builder, value: Signal) -> Value:
        if not isinstance(value, tuple):
            raise builder.error(
                self, "got one signal, takes branches: put FanOut and Parallel before it"
            )
        if len({self.fixed(part.shape) for part in value}) > 1:
            raise builder.error(
                self,
                f"the branches differ in shape: {', '.join(str(part.shape) for part in value)}",
            )
        return self.join(builder, value)

    def join(self, builder: Builder, value: tuple[Value, ...]) -> Value:
        """What becomes of branches that fit each other."""
        raise NotImplementedError

    def fixed(self, shape: Shape) -> Shape:
        """What the branches' shapes have in common."""
        return shape

    def _check_widths(self, builder: Builder, value: tuple[Value, ...]) -> None:
        declared = [part.width for part in value if part.width is not None]
        if len(set(declared)) > 1:
            raise builder.error(
                self,
                f"the branches differ in width: {', '.join(map(str, declared))}; declare the same"
                " (Dense(width=…), Conv(channels=…); the data have their own), or none",
            )

    def _check_independent(self, builder: Builder, value: tuple[Value, ...], so: str) -> None:
        seen: set[int] = set()
        for part in value:
            if not seen.isdisjoint(part.sources):
                raise builder.error(
                    self,
                    "two branches share a signal without an affine layer (Dense, Conv) of their"
                    f" own, so they are correlated and {so}: end all branches but one with an"
                    " affine layer",
                )
            seen |= part.sources

    def _check_uncorrelated(self, builder: Builder, value: tuple[Value, ...]) -> None:
        self._check_widths(builder, value)
        self._check_independent(builder, value, "their kernels do not add")
        if sum(not part.centred for part in value) > 1:
            raise builder.error(
                self,
                "two branches end with a nonlinearity: their means do not vanish, so they are"
                " correlated and their kernels do not add. End all branches but one with an affine"
                " layer (Dense, Conv)",
            )


@dataclass(frozen=True, repr=False)
class FanInSum(FanIn):
    """Sums the branches: K and T add, the branches being uncorrelated.

    They are where none shares a signal with another but through weights of its own, and at most one
    ends with a nonlinearity (or is the data), whose mean is not 0.
    """

    def join(self, builder: Builder, value: tuple[Value, ...]) -> Value:
        self._check_uncorrelated(builder, value)
        return reduce(builder.add, value)


@dataclass(frozen=True, repr=False)
class FanInProd(FanIn):
    """Multiplies the branches feature by feature: K <- K K', T <- T K' + K T', the branches being
    independent.

    They are where none shares a signal with another but through weights of its own. A product is
    not Gaussian: an affine layer comes before the next nonlinearity.

    Examples
    --------
    A gated layer:

    >>> from ntkcore import Dense, Erf, FanInProd, FanOut, Parallel, Serial
    >>> Serial(FanOut(2), Parallel(Dense(), Serial(Dense(), Erf())), FanInProd(), Dense())
    Serial(FanOut(num=2), Parallel(Dense(), Serial(Dense(), Erf())), FanInProd(), Dense())
    """

    def join(self, builder: Builder, value: tuple[Value, ...]) -> Value:
        self._check_widths(builder, value)
        self._check_independent(builder, value, "their kernels do not multiply")
        return reduce(lambda a, b: builder.multiply(self, a, b), value)


@dataclass(frozen=True, repr=False)
class FanInConcat(FanIn):
    """Puts the branches side by side.

    Features or channels: K and T are the branches' means, weighted by their widths. Either all
    branches declare theirs (the data have one), or none does: they are equal then. The branches may
    share signals. Features of different branches differ in variance: an affine layer comes before
    the next nonlinearity.

    Positions: images become larger. K and T are the branches' own between positions of one branch,
    and 0 between others: the branches must be uncorrelated, as for `FanInSum`.

    Parameters
    ----------
    axis : int, default=-1
        Of data with channels last: by default features or channels.
    """

    axis: int = -1

    def __post_init__(self) -> None:
        if not is_whole(self.axis):
            raise TypeError(
                f"FanInConcat: axis must be a number, that of an axis, not {self.axis!r}"
            )
        object.__setattr__(self, "axis", int(self.axis))

    def of(self, rank: int) -> int | None:
        """The axis of a sample of this rank, channels last; None where there is none."""
        axis = self.axis - 1 if self.axis >= 0 else self.axis + rank
        return axis if 0 <= axis < rank else None

    def fixed(self, shape: Shape) -> Shape:
        axis = self.of(len(shape))
        if axis is None or axis == len(shape) - 1:
            return shape
        return (*shape[:axis], *shape[axis + 1 :])

    def join(self, builder: Builder, value: tuple[Value, ...]) -> Value:
        rank = len(value[0].shape)
        axis = self.of(rank)
        if axis is None:
            raise builder.error(
                self,
                f"axis={self.axis} of data with {rank + 1} axes: only features or channels, and"
                " positions, are put side by side; samples (axis 0) stay apart",
            )
        if axis < rank - 1:
            return self._positions(builder, value, axis)
        declared = [part.width for part in value]
        if None not in declared:
            sizes = [part.width or 0 for part in value]
        elif not any(declared):
            sizes = [part.pixels for part in value]
        else:
            raise builder.error(
                self,
                f"the branches' widths, {', '.join(str(n) for n in declared)}, are their weights in"
                " the kernel, and some are unknown: declare all of them (Dense(width=…),"
                " Conv(channels=…); the data have one)",
            )
        return builder.concat(value, sizes)

    def _positions(self, builder: Builder, value: tuple[Value, ...], axis: int) -> Value:
        """The sum of the branches on places of their own in the larger image."""
        self._check_uncorrelated(builder, value)
        sizes = [part.image[axis] for part in value]
        places = np.split(np.eye(sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
        image = value[0].image
        larger = (*image[:axis], sum(sizes), *image[axis + 1 :])
        return reduce(
            builder.add,
            [
                builder.mix(part, place, larger, axis)
                for part, place in zip(value, places, strict=True)
            ],
        )


@dataclass(frozen=True, repr=False, init=False)
class Residual(Container):
    """shortcut(x) + branch(x).

    Parameters
    ----------
    *branch : Layer
        The layers of the branch, one after another.
    shortcut : Layer, optional
        By default `Identity`.

    Examples
    --------
    ``Residual(Relu(), Dense())`` is ``FanOut(2), Parallel(Identity(), Serial(Relu(), Dense())),
    FanInSum()``.

    >>> from ntkcore import Dense, Relu, Residual, Serial
    >>> Serial(Dense(), Residual(Relu(), Dense()), Relu(), Dense())
    Serial(Dense(), Residual(Relu(), Dense()), Relu(), Dense())
    """

    branch: tuple[Layer, ...]
    shortcut: Layer

    def __init__(self, *branch: Layer, shortcut: Layer | None = None) -> None:
        self._set("branch", branch)
        self._set("shortcut", (shortcut or Identity(),))
        object.__setattr__(self, "shortcut", shortcut or Identity())

    @classmethod
    def _from_fields(cls, arguments: dict[str, Any]) -> Residual:
        return cls(*arguments["branch"], shortcut=arguments.get("shortcut"))

    def __repr__(self) -> str:
        shortcut = [] if self.shortcut == Identity() else [f"shortcut={self.shortcut!r}"]
        return f"Residual({', '.join([*map(repr, self.branch), *shortcut])})"

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return Serial(FanOut(2), Parallel(self.shortcut, Serial(*self.branch)), FanInSum()).lower(
            builder, value
        )
