"""22 UCI sets by the NTK-SVM protocol of Arora et al. 2020 (arXiv:1910.01663),
beside NNGP and RBF kernels.

Kernels: fully connected ReLU networks of 1 to 5 layers (1: linear) and, as in that paper, their
variants whose first d' layers keep their random weights; if all but the read-out do, that is the
NNGP kernel. Kernel and C are chosen on the tuning split, the first best one winning; accuracy is
the mean over the 4 given folds, classes meet one against one. The RBF kernel has as many widths to
choose from as there are NTK kernels. Expected: about 78.2 % for the NTK.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import measure, require, write
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from ntkcore import Dense, Relu, Serial, kernel, mlp

LAYERS = range(1, 6)
C_GRID = [10.0**i for i in range(-2, 5)]
GAMMAS = np.logspace(-3, 2, 15)  # times 1/d
Split = tuple[np.ndarray, np.ndarray]
Key = tuple[Any, ...]  # ("ntk", layers, fixed layers) or ("rbf", gamma * d)
Choice = tuple[Key, float]  # and C
FAMILIES: dict[str, Callable[[Key], bool]] = {
    "ntk": lambda key: key[0] == "ntk" and key[2] == 0,
    "ntk_fixed": lambda key: key[0] == "ntk",
    "nngp": lambda key: key[0] == "ntk" and key[2] == key[1] - 1,
    "rbf": lambda key: key[0] == "rbf",
}
EXPECTED = 0.782


def data(name: str) -> Mapping[str, np.ndarray] | None:
    """An .npz file of $NTKCORE_DATA or ../shared/data; None, and a word, where there is none."""
    folder = Path(
        os.environ.get("NTKCORE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    if (folder / name).is_file():
        return np.load(folder / name)
    print(f"skipped: no {folder / name}. Set NTKCORE_DATA to the folder that holds {name}.")
    return None


# --- kernels


def ntk(x: np.ndarray, fixed: int) -> dict[Key, np.ndarray]:
    """NTKs of bias-free ReLU networks, the first `fixed` layers not trained,
    in the paper's scale: <x, x'>, W_std=1.

    An NTK is a sum with one term a layer. A layer of d inputs in the standard parameterization
    counts its term d times: the fixed layers counted once and d times leave the sum of the others,
    B = (d (A + B) - (d A + B)) / (d - 1).
    """
    x, d = x * x.shape[1] ** 0.5, x.shape[1]
    full = _by_layers(mlp(LAYERS[-1] - 1, W_std=1.0), x)
    if fixed:
        heavy = Dense(1.0, parameterization="standard", width=d)
        counted = _by_layers(
            Serial(*(heavy, Relu()) * fixed, *mlp(LAYERS[-1] - 1 - fixed, W_std=1.0).layers), x
        )
        full = {layers: (d * full[layers] - counted[layers]) / (d - 1) for layers in full}
    return {("ntk", layers, fixed): K for layers, K in full.items() if layers > fixed}


def _by_layers(net: Serial, x: np.ndarray) -> dict[int, np.ndarray]:
    deep = kernel(net, x, depths=[layers - 1 for layers in LAYERS[1:]], threads=1)
    return {1: kernel(mlp(0, W_std=1.0), x, threads=1), **dict(zip(LAYERS[1:], deep, strict=True))}


def rbf(x: np.ndarray) -> dict[Key, np.ndarray]:
    return {("rbf", gamma): rbf_kernel(x, gamma=gamma / x.shape[1]) for gamma in GAMMAS.tolist()}


def kernels(x: np.ndarray) -> dict[Key, np.ndarray]:
    """All kernels in the order of the search: by layers, then by fixed layers."""
    tangent = {key: K for fixed in range(LAYERS[-1]) for key, K in ntk(x, fixed).items()}
    return {**dict(sorted(tangent.items())), **rbf(x)}


def reference(x: np.ndarray, layers: int, fixed: int) -> np.ndarray:
    """The same NTK from its recursion: S <- E[relu relu'], T <- S + E[step step'] T,
    without S in the fixed layers.
    """
    S = x @ x.T
    T = S if fixed == 0 else np.zeros_like(S)
    for layer in range(1, layers):
        scale = np.sqrt(np.outer(S.diagonal(), S.diagonal()))
        angle = np.arccos(np.clip(S / scale, -1, 1))
        S = scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        T = T * (np.pi - angle) / (2 * np.pi) + (S if layer >= fixed else 0)
    return T


def check() -> float:
    """Largest relative error of all NTKs on random data:
    the programs behind the table are the right ones.
    """
    x = np.random.default_rng(0).standard_normal((40, 7))
    pairs = [(K, reference(x, *key[1:])) for key, K in kernels(x).items() if key[0] == "ntk"]
    error = max(float(np.abs(K - R).max() / np.abs(R).max()) for K, R in pairs)
    # Arccos at correlation 1 costs the reference about 1e-8.
    require("NTK with fixed layers", error, 1e-7)
    return error


# --- protocol


def accuracy(K: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, C: float) -> float:
    # No max_iter: linear kernels with a large C take up to 10^8 iterations, but stopped early they
    # can win the choice.
    svm = SVC(kernel="precomputed", C=C, cache_size=500).fit(K[np.ix_(train, train)], y[train])
    return float(np.mean(svm.predict(K[np.ix_(test, train)]) == y[test]))


def validate(
    found: Mapping[Key, np.ndarray], y: np.ndarray, tune: Split, threads: int
) -> dict[Choice, float]:
    """Accuracy on the tuning split of every kernel and C, in the order of the search."""
    choices = list(itertools.product(found, C_GRID))
    with ThreadPoolExecutor(threads) as pool:  # an SVM lets other threads run
        values = list(
            pool.map(lambda choice: accuracy(found[choice[0]], y, *tune, choice[1]), choices)
        )
    return dict(zip(choices, values, strict=True))


def evaluate(sets: Mapping[str, np.ndarray], name: str, threads: int) -> dict[str, Any]:
    """Choice and mean accuracy of every family of kernels on one set."""
    x, y = sets[f"{name}/X"].astype(np.float64), sets[f"{name}/y"]
    tune = sets[f"{name}/tune_train"], sets[f"{name}/tune_valid"]
    folds = [(sets[f"{name}/fold{i}_train"], sets[f"{name}/fold{i}_test"]) for i in range(4)]
    found = kernels(x)
    valid = validate(found, y, tune, threads)
    result: dict[str, Any] = {
        "samples": len(x),
        "features": x.shape[1],
        "classes": len(np.unique(y)),
    }
    for family, belongs in FAMILIES.items():
        key, C = max(
            (choice for choice in valid if belongs(choice[0])), key=lambda choice: valid[choice]
        )
        test = [accuracy(found[key], y, *fold, C) for fold in folds]
        result[family] = {
            "kernel": key,
            "C": C,
            "valid": valid[key, C],
            "test": float(np.mean(test)),
            "folds": test,
        }
    return result


# --- report


def names(sets: Mapping[str, np.ndarray], wanted: Sequence[str] | None) -> list[str]:
    there = sorted({key.split("/")[0] for key in sets})
    if unknown := set(wanted or ()) - set(there):
        raise SystemExit(
            f"no such set: {', '.join(sorted(unknown))}. There are: {', '.join(there)}."
        )
    return list(wanted or there)


def head() -> str:
    families = "".join(f"{family:>10}" for family in FAMILIES)
    return (
        f"{'set':<30}{'samples':>9}{'features':>9}{'classes':>9}{families}   ntk_fixed:"
        " layers/fixed C"
    )


def row(name: str, result: Mapping[str, Any]) -> str:
    sizes = "".join(f"{result[size]:9}" for size in ("samples", "features", "classes"))
    numbers = "".join(f"{100 * result[family]['test']:10.1f}" for family in FAMILIES)
    _, layers, fixed = result["ntk_fixed"]["kernel"]
    return f"{name:<30}{sizes}{numbers}   {layers}/{fixed} {result['ntk_fixed']['C']:g}"


def table(sets: Mapping[str, np.ndarray], wanted: Sequence[str], threads: int) -> dict[str, Any]:
    """Results by set and, under "mean", their means by family."""
    results = {}
    print(head())
    for name in wanted:
        results[name] = evaluate(sets, name, threads)
        print(row(name, results[name]), flush=True)
    means = {
        family: float(np.mean([result[family]["test"] for result in results.values()]))
        for family in FAMILIES
    }
    print(f"{'mean':<57}" + "".join(f"{100 * mean:10.2f}" for mean in means.values()))
    return {"mean": means, "sets": results}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these; nothing is written")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if (sets := data("uci.npz")) is None:
        return
    record: dict[str, Any] = {"expected": EXPECTED, "kernel_error": check()}
    wanted = names(sets, options.sets)
    with threadpool_limits(1):
        core, wall = measure(lambda: record.update(table(sets, wanted, options.threads)))
    print(
        f"{core:.0f} s of core time, {wall:.0f} s. Expected over all 22 sets: ntk"
        f" {100 * EXPECTED:.1f}."
    )
    if not options.sets:
        print(f"wrote {write('real_uci', {**record, 'core': core, 'wall': wall})}")


if __name__ == "__main__":
    main()
