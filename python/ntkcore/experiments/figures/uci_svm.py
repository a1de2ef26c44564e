"""NTK support vector machines on small tables, beside the RBF kernel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.datasets import data
from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp

CLAIM = (
    "On 22 UCI sets an SVM with the NTK of a fully connected network is at least as good as one"
    " with an RBF kernel whose width is chosen as well (Arora et al. 2020): chosen on the tuning"
    " split with C, mean accuracy of four folds. Tested over the sets, in pairs: by ranks the NTK"
    " is the better one; of the mean difference, a point or so, only that it is no loss is sure,"
    " since one set makes half of it."
)
C_GRID = [10.0**i for i in range(-2, 5)]
DEPTHS = (1, 2, 3, 4)
MARGIN = -0.01  # a point of accuracy would be a loss


@dataclass(frozen=True)
class Config:
    """How many sets, the smallest first; the protocol has no randomness, the seed does nothing."""

    sets: int = 22
    widths: int = 5
    seed: int = 0


QUICK: dict[str, Any] = {"sets": 5}


def run(config: Config) -> dict[str, Any]:
    """Accuracies by set. FileNotFoundError without uci.npz."""
    sets = data("uci.npz")
    if sets is None:
        raise FileNotFoundError(
            "this experiment needs uci.npz: set NTKCORE_DATA to the folder that holds it"
        )
    there = sorted({key.split("/")[0] for key in sets}, key=lambda name: len(sets[f"{name}/y"]))[
        : config.sets
    ]
    scores = np.array([_evaluate(sets, name, config.widths) for name in steps(there)])
    return {"sets": np.array(there), "ntk": scores[:, 0], "rbf": scores[:, 1]}


def _evaluate(sets: Any, name: str, widths: int) -> tuple[float, float]:
    x, y = sets[f"{name}/X"].astype(np.float64), sets[f"{name}/y"]
    folds = [(sets[f"{name}/fold{i}_train"], sets[f"{name}/fold{i}_test"]) for i in range(4)]
    tune = sets[f"{name}/tune_train"], sets[f"{name}/tune_valid"]
    tangent = [*kernel(mlp(max(DEPTHS)), x, depths=DEPTHS, dtype=np.float64), x @ x.T / x.shape[1]]
    squares = ((x[:, None] - x[None]) ** 2).sum(2) if len(x) < 500 else _distances(x)
    radial = [np.exp(-g * squares / x.shape[1]) for g in np.logspace(-2, 1, widths)]
    return _best(tangent, y, tune, folds), _best(radial, y, tune, folds)


def _distances(x: Any) -> Any:
    norms = (x**2).sum(1)
    return np.maximum(norms[:, None] + norms[None] - 2 * x @ x.T, 0)


def _best(kernels: list[Any], y: Any, tune: Any, folds: Any) -> float:
    def scaled(K: Any) -> Any:
        return K / K.diagonal().mean()

    choices = itertools.product(map(scaled, kernels), C_GRID)
    K, C = max(choices, key=lambda choice: _accuracy(choice[0], choice[1], y, tune))
    return float(np.mean([_accuracy(K, C, y, fold) for fold in folds]))


def _accuracy(K: Any, C: float, y: Any, split: Any) -> float:
    import warnings

    from sklearn.svm import SVC

    train, test = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no convergence: such a choice scores what it scores
        svm = SVC(kernel="precomputed", C=C, max_iter=1_000_000).fit(
            K[np.ix_(train, train)], y[train]
        )
    return float(np.mean(svm.predict(K[np.ix_(test, train)]) == y[test]))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Sets are the sample: a t interval of the mean difference, Wilcoxon's signed ranks;
    the ranks need all sets.
    """
    from scipy import stats

    difference = (arrays["ntk"] - arrays["rbf"]).round(9)
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    found = [
        Criterion(
            "mean accuracy, NTK less RBF: lower end of the 95 % interval", interval.low, MARGIN
        ),
        Criterion("upper end", interval.high, 0.0),
    ]
    if config.sets < 22:
        return found
    return [
        *found,
        Criterion(
            "signed ranks of the sets: p of no difference, two-sided",
            stats.wilcoxon(difference, zero_method="wilcox").pvalue,
            high=0.05,
        ),
        Criterion(
            "median difference of the sets that differ", np.median(difference[difference != 0]), 0.0
        ),
        Criterion("mean accuracy of the NTK", float(arrays["ntk"].mean()), 0.76),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """A dot a set; the differences in order, their mean and its interval."""
    from scipy import stats

    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.8", lw=1)
    left.plot(arrays["rbf"], arrays["ntk"], "o", ms=4)
    left.set(xlabel="RBF accuracy", ylabel="NTK accuracy", aspect="equal")
    low = min(arrays["rbf"].min(), arrays["ntk"].min()) - 0.03
    left.set(xlim=(low, 1.02), ylim=(low, 1.02), title=f"{len(arrays['ntk'])} UCI sets")
    difference = np.sort(arrays["ntk"] - arrays["rbf"])
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    right.axhspan(*interval, color="0.9", label="95 % interval of the mean")
    right.axhline(difference.mean(), color="0.5", lw=1)
    right.bar(np.arange(len(difference)), difference)
    right.set(xlabel="sets, in order", ylabel="accuracy, NTK less RBF")
    right.legend(frameon=False, loc="upper left")
