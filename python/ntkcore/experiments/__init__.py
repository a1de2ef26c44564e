"""Figures of the literature, run again: one file each, with its claim, its numbers and whether they came out.

    ntkcore run                      # what there is
    ntkcore run spectral_bias        # spectral_bias.png, spectral_bias.json, and the folder's index.md

A file holds ``CLAIM``, a frozen dataclass ``Config`` (its defaults are the full run; ``QUICK`` overrides some),
``run(config)`` -> arrays, ``expected(config, arrays)`` -> `Criterion`s, ``plot(arrays, figure)``. Being there is being
enrolled: the command line, the gallery and the tests find it by themselves.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ntkcore import files

MARK = "Written by `ntkcore run`"
T = TypeVar("T")


@dataclass(frozen=True)
class Criterion:
    """A number and the range it must lie in."""

    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))

    @property
    def met(self) -> bool:
        """Does it? NaN does not."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        above = "" if self.low == -math.inf else f"{self.low:g} ≤ "
        below = "" if self.high == math.inf else f" ≤ {self.high:g}"
        return f"{'met' if self.met else 'NOT MET'}: {self.name}: {above}{self.value:.4g}{below}"


def names() -> list[str]:
    """All experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The module of an experiment; ValueError with the list for an unknown name."""
    if name not in names():
        raise ValueError(f"no experiment {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def data(name: str) -> Mapping[str, Any] | None:
    """A file of real data from $NTKCORE_DATA, shared/data or ../shared/data; None where there is none."""
    for folder in filter(None, (os.environ.get("NTKCORE_DATA"), "shared/data", "../shared/data")):
        if (path := Path(folder) / name).is_file():
            found: Mapping[str, Any] = np.load(path, allow_pickle=False)
            return found
    return None


def digits() -> tuple[Any, Any, str]:
    """Handwritten digits, one a row, pixels as they are; their classes; and where they are from.

    MNIST where its file is found, else scikit-learn's 1797 (ImportError without it).
    """
    if (file := data("mnist.npz")) is not None:
        x, label, name = file["X_train"].reshape(60_000, -1), file["y_train"], "MNIST"
    else:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ImportError('digits need scikit-learn: pip install "ntkcore[sklearn]"') from None
        (x, label), name = load_digits(return_X_y=True), "scikit-learn's digits"
    return x, label.astype(np.int64), name


def steps(values: Iterable[T]) -> Iterable[T]:
    """The values of an experiment's outer loop, with a bar on a terminal where tqdm is installed."""
    if not sys.stderr.isatty():
        return values
    try:
        from tqdm import tqdm
    except ImportError:
        return values
    bar: Iterable[T] = tqdm(list(values), leave=False)
    return bar


def run(name: str, folder: str | Path, *, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run an experiment and write its picture, its numbers and the folder's index; returns what the JSON says.

    ValueError for an unknown name; FileNotFoundError where real data are needed and absent; ImportError without
    Matplotlib or SciPy.
    """
    from matplotlib.figure import Figure

    import ntkcore

    module, target = load(name), files.make_folder(folder)
    files.refuse_foreign(target / "index.md", MARK, [f"{name}.png", f"{name}.json"])
    _index(target)  # before the others: it tells whose they are
    config = module.Config(**{**(module.QUICK if quick else {}), "seed": seed})
    start = time.perf_counter()
    arrays = module.run(config)
    seconds = time.perf_counter() - start
    criteria = module.expected(config, arrays)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    module.plot(arrays, figure)
    with files.writing(target / f"{name}.png") as file:
        figure.savefig(file, dpi=100)
    record = {
        "name": name,
        "claim": module.CLAIM,
        "quick": quick,
        "config": asdict(config),
        "met": all(criterion.met for criterion in criteria),
        "criteria": [{**asdict(c), "met": c.met} for c in criteria],
        "numbers": {key: np.asarray(value).tolist() for key, value in arrays.items() if np.size(value) <= 400},
        "seconds": round(seconds, 2),
        "versions": {"ntkcore": ntkcore.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    files.write(target / f"{name}.json", json.dumps(record, indent=1, default=str) + "\n")
    _index(target)
    return record


def criteria_of(record: Mapping[str, Any]) -> list[Criterion]:
    """The criteria of a record."""
    keys = [field.name for field in fields(Criterion)]
    return [Criterion(**{key: entry[key] for key in keys}) for entry in record["criteria"]]


def _index(folder: Path) -> None:
    """index.md: every picture in the folder with its claim and its numbers."""
    parts = [f"# Experiments\n\n{MARK}. Each claim, whether it came out, and its picture.\n"]
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        if not (isinstance(record, dict) and {"name", "claim", "criteria"} <= record.keys()):
            continue  # somebody else's
        kind = "quick run" if record["quick"] else "full run"
        parts.append(f"## {record['name']}\n\n{record['claim']}\n")
        parts += [f"- {criterion}" for criterion in criteria_of(record)]
        parts.append(f"\n![{record['name']}]({record['name']}.png)\n\n{kind}, {record['seconds']:.0f} s\n")
    files.write(folder / "index.md", "\n".join(parts))
