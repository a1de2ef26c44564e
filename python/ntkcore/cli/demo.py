"""The demonstration on scikit-learn's digits: kernels of a few depths,
accuracies beside plain baselines, one figure.

f_t = y + e^{-K t} (f_0 - y): an infinitely wide network learns the
kernel's leading eigenmodes first (Jacot et al. 2018).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
except ImportError as error:
    raise ImportError(
        'the demonstration needs scikit-learn and matplotlib: pip install "ntkcore[all]"'
    ) from error

from ntkcore.engine.kernels import kernel
from ntkcore.linalg.eigen import Eigh, eigenmodes
from ntkcore.specs.nets import cntk, mlp
from ntkcore.store.files import writing

Array = npt.NDArray[Any]
DEPTHS = (1, 2, 3, 4, 5)
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # in units of the kernel's mean diagonal
MODES = ((0, 10), (10, 100), (100, None))


@dataclass(frozen=True)
class Row:
    """One line of the table: a model, its test accuracy, the seconds it took in all."""

    model: str
    accuracy: float
    seconds: float


@dataclass
class Results:
    """What the demonstration found: `accuracy[name]` over `DEPTHS`, the spectra,
    and where the figure was written.
    """

    rows: list[Row] = field(default_factory=list)
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    spectra: dict[int, Array] = field(default_factory=dict)
    residuals: Array | None = None
    times: Array | None = None
    figure: Path | None = None


@dataclass(frozen=True)
class Split:
    """Images (n, 8, 8, 1), labels, and the numbers of training, validation and test samples."""

    x: Array
    y: Array
    train: Array
    valid: Array
    test: Array


def load(samples: int | None = None) -> Split:
    """Digits, scaled to [0, 1] and centred; half for training,
    a quarter each for validation and test.
    """
    x, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    chosen = rng.permutation(len(x))[:samples]
    x, y = x[chosen] / 16, y[chosen]
    train, rest = train_test_split(np.arange(len(x)), train_size=0.5, stratify=y, random_state=0)
    valid, test = train_test_split(rest, train_size=0.5, stratify=y[rest], random_state=0)
    x = (x - x[train].mean()).astype(np.float32).reshape(-1, 8, 8, 1)
    return Split(x, y, train, valid, test)


def _targets(y: Array) -> Array:
    return np.asarray(np.eye(10)[y] - 0.1)


def _ridge_scores(K: Array, split: Split) -> tuple[float, float]:
    """(validation, test) accuracy of kernel ridge regression on one-hot targets, the ridge chosen
    by the former; one eigendecomposition serves every ridge.
    """
    modes = Eigh(K[np.ix_(split.train, split.train)].astype(np.float64))
    paths = modes.path(_targets(split.y[split.train]), RIDGES, relative=True)
    parts = [(K[np.ix_(part, split.train)], split.y[part]) for part in (split.valid, split.test)]
    scores = [
        [float(np.mean((rows @ A).argmax(1) == labels)) for rows, labels in parts] for A in paths
    ]
    valid, test = max(scores, key=lambda pair: pair[0])
    return valid, test


def _kernel_rows(results: Results, split: Split) -> dict[str, Array]:
    """All kernels, every depth of a family in one pass;
    fills the table and returns the fully connected NTKs.
    """
    vectors = split.x.reshape(len(split.x), -1)
    families: dict[str, Callable[[], Any]] = {
        "fully connected": lambda: kernel(
            mlp(5, b_std=0.1), vectors, get=("nngp", "ntk"), depths=DEPTHS
        ),
        "convolutional, Flatten": lambda: kernel(
            cntk(5, "flatten", b_std=0.1), split.x, get=("ntk",), depths=DEPTHS
        ),
        "convolutional, GAP": lambda: kernel(
            cntk(5, b_std=0.1), split.x, get=("ntk",), depths=DEPTHS
        ),
    }
    kept: dict[str, Array] = {}
    for family, compute in families.items():
        start = time.perf_counter()
        kernels = compute()
        seconds = time.perf_counter() - start
        for name, stack in kernels._asdict().items():
            label = f"{name.upper()}, {family}"
            kept[label] = stack
            scores = [_ridge_scores(K, split) for K in stack]
            results.accuracy[label] = [test for _, test in scores]
            best = int(np.argmax([valid for valid, _ in scores]))
            results.rows.append(
                Row(f"{label}, depth {DEPTHS[best]}", results.accuracy[label][best], seconds)
            )
    return kept


def _baseline_rows(results: Results, split: Split) -> None:
    x = split.x.reshape(len(split.x), -1).astype(np.float64)
    grids = {
        "RBF SVM": [SVC(C=c, gamma=g) for c in (1, 10, 100) for g in (0.01, 0.03, 0.1, "scale")],
        "logistic regression": [
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            for c in (0.01, 0.1, 1.0)
        ],
    }
    for name, models in grids.items():
        start = time.perf_counter()
        fitted = [model.fit(x[split.train], split.y[split.train]) for model in models]
        best = max(fitted, key=lambda model: model.score(x[split.valid], split.y[split.valid]))
        accuracy = float(best.score(x[split.test], split.y[split.test]))
        results.accuracy[name] = [accuracy] * len(DEPTHS)
        results.rows.append(Row(name, accuracy, time.perf_counter() - start))


def _dynamics(results: Results, stack: Array, split: Split) -> None:
    """Spectra of a few depths; at depth 3 the part of the target that
    is left in groups of eigenmodes over time.
    """
    inner = np.ix_(split.train, split.train)
    for depth in (1, 3, 5):
        modes = eigenmodes(stack[DEPTHS.index(depth)][inner])
        results.spectra[depth] = modes.values / len(modes.values)
        if depth == 3:
            power = ((modes.vectors.T @ _targets(split.y[split.train])) ** 2).sum(1)
            rates = modes.values / len(modes.values)
    results.times = np.logspace(-1, 5, 200)
    left = np.exp(-2 * np.outer(results.times, rates)) * power
    groups = [left[:, a:b].sum(1) / power[a:b].sum() for a, b in MODES]
    results.residuals = np.stack([*groups, left.sum(1) / power.sum()])


def _draw(results: Results, path: Path) -> None:
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    spectrum, accuracy, residual = figure.subplots(1, 3)
    for depth, values in results.spectra.items():
        spectrum.loglog(np.arange(1, len(values) + 1), values, label=f"depth {depth}")
    spectrum.set(
        xlabel="index i", ylabel=r"eigenvalue $\lambda_i / N$", title="spectrum of the NTK"
    )
    spectrum.legend()
    for name, percent in results.accuracy.items():
        baseline = "SVM" in name or "logistic" in name
        style: dict[str, Any] = (
            {"ls": ":", "color": "k" if "SVM" in name else "gray"} if baseline else {"marker": "o"}
        )
        accuracy.plot(DEPTHS, 100 * np.asarray(percent), label=name, **style)
    accuracy.set(
        xlabel="hidden layers", ylabel="test accuracy, %", title="digits, beside plain baselines"
    )
    accuracy.set_xticks(DEPTHS)
    accuracy.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    assert results.times is not None
    assert results.residuals is not None
    for (a, b), left in zip(MODES, results.residuals, strict=False):
        residual.semilogx(
            results.times, left, label=f"modes {a + 1}–{b}" if b else f"modes {a + 1}–"
        )
    residual.semilogx(results.times, results.residuals[-1], "k--", label="training loss")
    residual.set(
        xlabel="training time t",
        ylabel="part of the target left",
        title="what is learned when (NTK, depth 3)",
    )
    residual.legend()
    for axes in (spectrum, accuracy, residual):
        axes.grid(alpha=0.3)
    with writing(path) as file:
        figure.savefig(file, dpi=110, format=path.suffix.lstrip(".") or "png")
    results.figure = path


def _check_format(path: Path) -> None:
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in kinds:
        raise ValueError(
            f"a figure cannot be written as {path.suffix}:"
            f" name it .png, or one of {', '.join(kinds)}"
        )


def run(output: Path, samples: int | None = None) -> Results:
    """The whole demonstration, of only so many ``samples`` of the 1797 digits where given; writes
    the figure to ``output``.
    """
    _check_format(output)
    results, split = Results(), load(samples)
    kernels = _kernel_rows(results, split)
    _baseline_rows(results, split)
    _dynamics(results, kernels["NTK, fully connected"], split)
    _draw(results, output)
    return results


def table(results: Results) -> str:
    """The accuracies as lines of text."""
    width = max(len(row.model) for row in results.rows)
    lines = [f"{'model':{width}}  test accuracy   seconds"]
    lines += [
        f"{row.model:{width}}  {100 * row.accuracy:11.2f} %   {row.seconds:7.2f}"
        for row in results.rows
    ]
    return "\n".join(lines)
