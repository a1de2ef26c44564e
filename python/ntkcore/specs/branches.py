"""Branches: a signal handed to several layers, and the sum of what they make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ntkcore.specs.layers import Container, Identity, Layer, Serial, Signal, single
from ntkcore.specs.program import Builder, Value

MOST_BRANCHES = 1000  # each holds a slot of every thread's memory


@dataclass(frozen=True, repr=False)
class FanOut(Layer):
    """Hands its input to ``num`` branches; `Parallel` takes them, `FanInSum` joins them."""

    num: int

    def __post_init__(self) -> None:
        if type(self.num) is not int or not 1 <= self.num <= MOST_BRANCHES:
            raise ValueError(
                f"FanOut: num must be a number of branches from 1 to {MOST_BRANCHES}, not"
                f" {self.num!r}"
            )

    def lower(self, builder: Builder, value: Signal) -> Signal:
        return builder.fan_out(self, single(self, builder, value), self.num)


@dataclass(frozen=True, repr=False, init=False)
class Parallel(Container):
    """One layer for every branch that `FanOut` made."""

    branches: tuple[Layer, ...]

    def __init__(self, *branches: Layer) -> None:
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


@dataclass(frozen=True, repr=False)
class FanInSum(Layer):
    """Sums the branches: K and T add, the branches being uncorrelated.

    They are where none shares a signal with another but through weights of its own, and at most one
    ends with a nonlinearity (or is the data), whose mean is not 0.
    """

    def lower(self, builder: Builder, value: Signal) -> Value:
        if not isinstance(value, tuple):
            raise builder.error(
                self, "got one signal, takes branches: put FanOut and Parallel before it"
            )
        if len({part.shape for part in value}) > 1:
            raise builder.error(
                self,
                f"the branches differ in shape: {', '.join(str(part.shape) for part in value)}",
            )
        seen: set[int] = set()
        for part in value:
            if not seen.isdisjoint(part.sources):
                raise builder.error(
                    self,
                    "two branches share a signal without an affine layer (Dense, Conv) of their"
                    " own, so they are correlated and their kernels do not add: end all branches"
                    " but one with an affine layer",
                )
            seen |= part.sources
        if sum(not part.centred for part in value) > 1:
            raise builder.error(
                self,
                "two branches end with a nonlinearity: their means do not vanish, so they are"
                " correlated and their kernels do not add. End all branches but one with an affine"
                " layer (Dense, Conv)",
            )
        total = value[0]
        for part in value[1:]:
            total = builder.add(total, part)
        return total


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
