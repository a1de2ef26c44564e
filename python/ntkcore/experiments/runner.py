"""Running experiments: pictures, numbers, and the index of a folder."""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from ntkcore.experiments import figures
from ntkcore.experiments.criteria import Criterion
from ntkcore.store import files

MARK = "Written by `ntkcore run`"


def names() -> list[str]:
    """All experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(figures.__path__))


def load(name: str) -> Any:
    """The module of an experiment; ValueError with the list for an unknown name."""
    if name not in names():
        raise ValueError(f"no experiment {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{figures.__name__}.{name}")


def run(name: str, folder: str | Path, *, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Run an experiment; write its picture, its numbers and the folder's index.

    Parameters
    ----------
    name : str
        One of `names()`.
    folder : path
    quick : bool, default=False
        Smaller, in seconds.
    seed : int, default=0
        Of everything random.

    Returns
    -------
    dict
        What the JSON says.

    Raises
    ------
    ValueError
        For an unknown name.
    FileNotFoundError
        Where real data are needed and absent.
    ImportError
        Without Matplotlib or SciPy.
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
        "numbers": {
            key: np.asarray(value).tolist()
            for key, value in arrays.items()
            if np.size(value) <= 400
        },
        "seconds": round(seconds, 2),
        "versions": {
            "ntkcore": ntkcore.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
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
        parts.append(
            f"\n![{record['name']}]({record['name']}.png)\n\n{kind}, {record['seconds']:.0f} s\n"
        )
    files.write(folder / "index.md", "\n".join(parts))
