"""What is compared, on what, and how it is trained: everything that an arm has to know."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import ntkcore
from ntkcore.engine.inputs import check_count
from ntkcore.falsifier.claims import (
    COMPUTE,
    OF_PATHS,
    Claim,
    Point,
    check_classes,
    check_effect,
    check_names,
)
from ntkcore.falsifier.identity import identity
from ntkcore.falsifier.tasks import Split, Task
from ntkcore.specs.layers import Layer

RIDGES = 8  # the least number of ridges between two
OF_FITS = ("train_nmse", "train_error")  # metrics that tuning on other samples spoils
OF_TESTS = ("nmse", "error", "cross_entropy")  # those of other samples
ALL = ("*",)  # parameters
OF_NETWORKS = ("width", "depth")  # axes that change the network and not the data


@dataclass(frozen=True)
class Training:
    """How networks and kernels are trained and tuned, on the squared loss and the same targets.

    Every network is tuned over ``learning_rates`` x ``weight_decays``, every kernel over as many
    ridges (at least eight), an infinite one also over other W_std and b_std, on the validation
    set; with ``early_stopping`` each stops at the best of ``looks`` times, also there.

    Parameters
    ----------
    steps, optimizer, batch_size
        As for `ntkcore.finite.train`; batch_size None: all samples.
    learning_rates
        The largest first: with it the lazy network's alpha is found.
    ridge
        Least and greatest ridge, in units of the kernel's mean diagonal; (0, 0): none,
        where there is nothing to tune.
    parameterization, base_width
        Of networks made from a spec: see `ntkcore.finite.to_torch`,
        `ntkcore.finite.parameter_groups`.
    readout
        After training, solve the last layer exactly on the training set (least squares, with the
        ridge): frozen arms become random features, the learning arm keeps its learned ones. For
        networks made from a spec.
    parameters
        The names of those that train, with wildcards ("body.0.*"). The others stay what the network
        starts with, such as a function (seed) that loads weights makes it. The infinite kernels are
        of all parameters: with fewer, the mean kernel over initialisations stands for them.
    head
        The names of the last layer's parameters, with wildcards: before anything starts they are
        solved for on the training set (ridge regression on the features as they are), and every arm
        goes on from there; for a loaded network with a new head (Kumar et al. 2022). Without, a
        loaded head is kept where its outputs say something about the validation set.
    widths
        Of networks, rising, for claims over "compute": at each compute the best of them is taken.
    after_kernel
        Do the learned features suffice? The trained network's kernel is solved on as many samples
        that it never saw, or on half of the test samples where the task has no more.
    """

    steps: int = 2000
    optimizer: str = "adamw"
    learning_rates: tuple[float, ...] = (1e-2, 3e-3)
    weight_decays: tuple[float, ...] = (0.0, 1e-2)
    batch_size: int | None = 128
    ridge: tuple[float, float] = (1e-6, 1.0)
    early_stopping: bool = True
    looks: int = 16
    parameterization: str = "mup"
    base_width: int = 64
    readout: bool = False
    parameters: tuple[str, ...] = ALL
    head: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    after_kernel: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rates", "weight_decays"):
            given = np.ravel(getattr(self, name)).astype(float)
            if not (len(given) and (given >= 0).all()):
                raise ValueError(f"{name} must be numbers of at least 0, not {given.tolist()}")
            object.__setattr__(self, name, tuple(given.tolist()))
        for name in ("steps", "looks"):
            check_count(name, getattr(self, name), 1)
            object.__setattr__(self, name, int(getattr(self, name)))
        if not isinstance(self.optimizer, str):
            raise TypeError(f"optimizer must be a name, not {self.optimizer!r:.60}")
        ends = np.ravel(self.ridge).astype(float).tolist()
        if not (len(ends) == 2 and 0 <= ends[0] <= ends[1] < math.inf) or (0 in ends) == any(ends):
            raise ValueError(
                f"ridge must be (least, greatest), both positive or both 0, not {self.ridge!r}"
            )
        object.__setattr__(self, "ridge", tuple(ends))
        for name in ("parameters", "head"):
            if isinstance(given := getattr(self, name), str):
                raise TypeError(f"{name} must be a tuple of names, not {given!r}: ({given!r},)")
            object.__setattr__(self, name, tuple(given))
        widths = tuple(self.widths)
        if any(width < 1 or width != int(width) for width in widths) or widths != tuple(
            sorted(set(widths))
        ):
            raise ValueError(f"widths must be whole, positive and rise, not {self.widths!r}")
        object.__setattr__(self, "widths", widths)

    def configurations(self) -> list[dict[str, float]]:
        """Of a network: learning rates and weight decays."""
        return [
            {"lr": lr, "weight_decay": decay}
            for lr in self.learning_rates
            for decay in self.weight_decays
        ]

    def ridges(self) -> list[float]:
        """Of a kernel: as many as a network has configurations, and no less than RIDGES."""
        low, high = self.ridge
        if low == high:
            return [low]
        return [float(r) for r in np.geomspace(low, high, max(RIDGES, len(self.configurations())))]

    def tunes(self) -> bool:
        """Is anything of a kernel tuned?"""
        return self.ridge[0] < self.ridge[1] or self.early_stopping

    def steps_looked_at(self) -> list[int]:
        """Geometric, the last step included."""
        first = max(1, self.steps / 500)
        return sorted({round(step) for step in np.geomspace(self.steps, first, self.looks)})

    def batch(self, samples: int) -> int:
        """Samples of a step: all where there are fewer."""
        return samples if self.batch_size is None else min(self.batch_size, samples)


@dataclass(frozen=True)
class Network:
    """The architecture, as a spec, as a function of ``depth`` that gives one,
    or as a maker of torch modules.

    ``module``: a function (seed) -> torch module, with keywords ``width`` or ``depth`` where they
    are axes. ``spec`` may then be its infinite counterpart, or None: the mean kernel of modules as
    they start is then its limit.
    """

    spec: Layer | Callable[..., Layer] | None
    module: Callable[..., Any] | None
    width: int
    device: str

    def at(self, point: Point) -> tuple[Layer | None, dict[str, Any]]:
        """The spec at a point, and the keywords of a module's maker."""
        keywords = {point[0]: int(point[1])} if point and point[0] in OF_NETWORKS else {}
        if point[:1] == (COMPUTE,):
            keywords = {"width": self.width}
        spec = self.spec
        if spec is not None and not isinstance(spec, Layer):
            spec = spec(**{key: value for key, value in keywords.items() if key == "depth"})
        return spec, keywords


@dataclass(frozen=True)
class Place:
    """A cell of a study: where on the axis, which initialisation, which split."""

    point: Point
    seed: int
    split: int


Setting = Mapping[str, Any]
Content = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Data, network, baseline, claims, training: picklable if they are."""

    task: Task
    network: Network
    claims: tuple[Claim, ...]
    training: Training
    baseline: Layer | None = None

    def points(self) -> list[Point]:
        """All places that any claim looks at."""
        return list(dict.fromkeys(point for claim in self.claims for point in claim.points))

    def split(self, point: Point, number: int) -> Split:
        """The data at a point; the same for every arm and every seed, whatever the threads."""
        with threadpool_limits(1, user_api="blas"):
            return self._task_at(point)(number)

    def fresh(self, point: Point, number: int) -> Split:
        """The split with other training samples, as many: the rest of a training set twice as
        large, beside the same validation set, or a half of the test samples, the other half being
        left as such.
        """
        split = self.split(point, number)
        n, half = len(split.x), len(split.x_test) // 2
        if "n" in self.keywords():
            with contextlib.suppress(ValueError):
                more: Split = self._task_at(point)(number, n=2 * n)  # type: ignore[call-arg]
                same = [(more.x[:n], split.x), (more.x_val, split.x_val)]
                if len(more.x) == 2 * n and all(np.array_equal(a, b) for a, b in same):
                    return replace(more, x=more.x[n:], y=more.y[n:])
        return replace(
            split,
            x=split.x_test[:half],
            y=split.y_test[:half],
            x_test=split.x_test[half:],
            y_test=split.y_test[half:],
        )

    def chooses(self) -> bool:
        """May a kernel be chosen on the validation set? Not for claims about the training set or
        its path alone, where nothing is tuned for other samples.
        """
        return self.training.tunes() or all(claim.metric in OF_TESTS for claim in self.claims)

    def _task_at(self, point: Point) -> Callable[[int], Split]:
        if not point or point[0] in (*OF_NETWORKS, COMPUTE):
            return self.task
        value = int(point[1]) if float(point[1]).is_integer() else point[1]
        return functools.partial(self.task, **{point[0]: value})

    def shared(self, splits: int) -> float:
        """The share of test samples that two splits have in common, at the last point: 0 for fresh
        ones, 1 for a fixed test set. Samples that are alike by chance, as those of few bits are,
        are so within a split as often: their share is left out.
        """
        tests = [self.split(self.points()[-1], i).x_test for i in range(min(splits, 5))]
        counts = [Counter(x.tobytes() for x in np.ascontiguousarray(test)) for test in tests]
        if len(counts) < 2:
            return 0.0
        known = [_share(a, b) for a, b in itertools.combinations(counts, 2)]
        twice = [_share(a, {x for x in a if a[x] > 1}) for a in counts]
        shared, alike = float(np.mean(known)), float(np.mean(twice))
        return shared if alike == 1 else max(0.0, (shared - alike) / (1 - alike))

    def samples(self, point: Point | None = None) -> int:
        """Training samples at a point, by default the last."""
        return len(self.split(self.points()[-1] if point is None else point, 0).x)

    def sizes(self, factors: Sequence[float]) -> list[int]:
        """So many times the training samples; empty where a claim's axis is n itself,
        or the task has no n.
        """
        if "n" not in self.keywords() or any(claim.axis == "n" for claim in self.claims):
            return []
        return sorted({round(factor * self.samples()) for factor in factors})

    def sweep(self, factors: Sequence[float], splits: int) -> list[int]:
        """Those `sizes` of which the task has the samples."""
        return [n for n in self.sizes(factors) if self.sized(n)._given(n, splits)]

    def _given(self, n: int, splits: int) -> bool:
        try:
            return all(len(self.split(self.points()[-1], i).x) == n for i in range(splits))
        except ValueError:
            return False

    def sized(self, n: int) -> Study:
        """The same study with n training samples."""
        return replace(self, task=functools.partial(self.task, n=n))

    def keywords(self) -> set[str]:
        """Axes that the task has."""
        parameters = list(inspect.signature(self.task).parameters)
        return set(parameters[1:])

    def check(self, splits: int) -> None:
        """ValueError for a claim that no arm can measure;
        TypeError for a task that gives no Split.
        """
        check_names(self.claims)
        for claim in self.claims:
            self._check_axis(claim)
        for point, number in itertools.product(self.points(), range(splits)):
            split = self.split(point, number)
            if not isinstance(split, Split):
                raise TypeError(f"the task must give a Split, not {type(split).__name__}")
            for claim in self.claims:
                _check_metric(claim, split, self.training)
                check_effect(claim, split)
            if self.training.after_kernel:
                self.fresh(point, number)
        if any(self.data_hash(point, 0) != self.data_hash(point, 0) for point in self.points()):
            raise ValueError(
                "the task gives other data every time: they must follow from the seed alone"
                " (begin with rng = np.random.default_rng(seed))"
            )
        if splits > 1 and self.data_hash(self.points()[-1], 0) == self.data_hash(
            self.points()[-1], 1
        ):
            raise ValueError(
                "the task gives the same data for every seed, and nothing would say what other data"
                " do: draw them by the seed, as Arrays(x, y) does from a pool"
            )
        if self.training.readout and self.training.head:
            raise ValueError("readout=True solves the last layer afterwards: leave head away")
        if self.training.readout and self.network.module is not None:
            raise ValueError(
                "readout=True needs a spec: which layer of a torch module is the last is not known"
            )

    def _check_axis(self, claim: Claim) -> None:
        axes = (
            self.keywords()
            | {"width", COMPUTE}
            | ({"depth"} if not isinstance(self.network.spec, Layer) else set())
        )
        if self.network.module is not None:
            own = set(inspect.signature(self.network.module).parameters)
            axes -= {"width", "depth"} - own
            axes -= set() if "width" in own else {COMPUTE}
        spec = self.network.spec
        if callable(spec) and claim.axis != "depth":
            raise ValueError(
                f"claim {claim.name!r} is of no depth, and the network is a function of it: claim"
                " over axis='depth', or give a spec"
            )
        if claim.axis is not None and claim.axis not in axes:
            raise ValueError(
                f"no arm can measure claim {claim.name!r} over {claim.axis!r}: there are"
                f" {', '.join(sorted(axes))} (a task's keywords; width and compute, for a maker of"
                " modules with a keyword width; depth where the network is a function of it)"
            )
        if claim.axis in OF_NETWORKS and not all(v >= 1 and v.is_integer() for v in claim.values):
            raise ValueError(f"claim {claim.name!r}: a {claim.axis} is a positive whole number")
        if claim.axis == COMPUTE and not (self.training.widths and self.training.early_stopping):
            raise ValueError(
                f"claim {claim.name!r} is of the best width and step at every compute: give"
                " Training(widths=(…), early_stopping=True)"
            )

    def fingerprint(self, start: object = None) -> str:
        """Of all that a cell depends on: cells of another study are not taken for this one's.

        ``start``: of the network, its parameters as the first seed makes them.
        """
        parts = [
            ntkcore.__version__,
            str(start),
            identity(self.task),
            identity(self.network.spec),
            identity(self.network.module),
            str(self.network.width),
            identity(self.baseline),
            json.dumps(asdict(self.training)),
            *(f"{identity((claim.metric, claim.floor))} {claim.points}" for claim in self.claims),
            *(self.data_hash(point, 0) for point in self.points()),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def data_hash(self, point: Point, number: int) -> str:
        """Of a split's samples and targets."""
        found = hashlib.sha256()
        for array in self.split(point, number).arrays.values():
            found.update(repr((array.shape, array.dtype.str)).encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]


def _share(rows: Counter[bytes], known: Container[bytes]) -> float:
    """Of rows, counted, that are known."""
    return sum(count for row, count in rows.items() if row in known) / rows.total()


def _check_metric(claim: Claim, split: Split, training: Training) -> None:
    check_classes(claim, split)
    if claim.metric in OF_FITS and (
        training.early_stopping or training.ridge[0] != training.ridge[1]
    ):
        raise ValueError(
            f"claim {claim.name!r}: {claim.metric!r} is of the training set, and a ridge or a"
            " stopping time tuned for validation samples keeps from fitting it; set"
            " Training(ridge=(0, 0), early_stopping=False)"
        )
    if claim.metric in OF_PATHS and (
        training.readout or training.ridge[1] > 0 or training.early_stopping
    ):
        raise ValueError(
            f"no arm can measure claim {claim.name!r}: {claim.metric!r} is a time of plain"
            " training; set Training(ridge=(0, 0), early_stopping=False)"
        )
