"""Data and networks as the command line names them: "x.npy", "mnist.npz:X_train"; "cntk:depth=20,head=gap"."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ntkcore import nets
from ntkcore.layers import Layer, from_json

READY: dict[str, Callable[..., Layer]] = {
    "fc": nets.mlp,
    "cntk": nets.cntk,
    "myrtle": nets.myrtle,
    "resnet": nets.resnet,
}
DATA = "Samples: .npy, .csv, .parquet, or file.npz:name, store.zarr:name."
NET = "fc:depth=3, cntk:depth=20,head=gap, myrtle:10, resnet:2, or a JSON file (Layer.to_json)."


def load(source: str) -> np.ndarray[Any, Any]:
    """Data named on the command line, e.g. "x.npy", "mnist.npz:X_train"; nothing is unpickled."""
    path, _, name = source.partition(":") if not Path(source).exists() else (source, "", "")
    kind = Path(path).suffix
    if not Path(path).exists():
        raise FileNotFoundError(f"no data at {path}")
    if kind == ".npy":
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if kind == ".csv":
        return _csv(path)
    if kind == ".parquet":
        return _parquet(path)
    if kind not in (".npz", ".zarr"):
        raise ValueError(f"data must be .npy, .npz, .csv, .parquet or .zarr, not {kind or path!r}")
    if kind == ".npz":
        file: Any = np.load(path, allow_pickle=False)
        names = list(file.files)
    else:
        import zarr

        file = zarr.open_group(path, mode="r")
        names = list(file.array_keys())
    if name not in names:
        raise ValueError(f"say which array of {path}: {path}:NAME, NAME one of {', '.join(names)}")
    return np.asarray(file[name][...] if kind == ".zarr" else file[name])


def _csv(path: str) -> np.ndarray[Any, Any]:
    """Numbers separated by commas; a first line of names is skipped."""
    with open(path) as file:
        first = file.readline()
    try:
        [float(part) for part in first.split(",")]
        names = 0
    except ValueError:
        names = 1
    return np.loadtxt(path, delimiter=",", ndmin=2, skiprows=names)


def _parquet(path: str) -> np.ndarray[Any, Any]:
    """One column a feature."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError('data in Parquet need PyArrow: pip install "ntkcore[parquet]"') from None
    table = pyarrow.parquet.read_table(path)
    return np.column_stack([column.to_numpy() for column in table.columns])


def parse_net(text: str) -> Layer:
    """A ready network by name, as NET says, or the JSON of a spec."""
    if Path(text).is_file():
        return from_json(Path(text).read_text())
    name, _, arguments = text.partition(":")
    if name not in READY:
        raise ValueError(f"no network {text!r}: it must be {NET}")
    options: dict[str, Any] = {}
    for at, part in enumerate(filter(None, arguments.split(","))):
        key, equals, value = part.partition("=")
        if not equals and at == 0:
            key, value = next(iter(inspect.signature(READY[name]).parameters)), part
        with contextlib.suppress(ValueError):
            options[key] = int(value) if value.lstrip("-").isdigit() else float(value)
        options.setdefault(key, value)
    try:
        return READY[name](**options)
    except TypeError as error:
        raise ValueError(f"network {text!r}: {error}") from None
