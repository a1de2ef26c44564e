"""Data and networks as the command line names them: "x.npy",
"mnist.npz:X_train"; "cntk:depth=20,head=gap".
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from ntkcore.specs import nets
from ntkcore.specs.layers import Layer
from ntkcore.specs.text import from_json

READY: dict[str, Callable[..., Layer]] = {
    "fc": nets.mlp,
    "cntk": nets.cntk,
    "myrtle": nets.myrtle,
    "resnet": nets.resnet,
}
DATA = "Samples: .npy, .csv, .parquet, or file.npz:name, store.zarr:name."
DEEPEST = 10_000  # layers of a ready network
NET = "fc:depth=3, cntk:depth=20,head=gap, myrtle:10, resnet:2, or a JSON file (Layer.to_json)."


def load(source: str, labels: bool = False, whole: bool = True) -> np.ndarray[Any, Any]:
    """Data named on the command line, e.g. "x.npy", "mnist.npz:X_train"; nothing is unpickled.

    With ``labels`` text too. Not ``whole``: a store's array, for those that stream it.
    """
    if "://" in source:
        raise ValueError(f"data are read from local files, not from {source}: download it first")
    left, colon, right = source.rpartition(":")
    path, name = (left, right) if colon and not Path(source).exists() else (source, "")
    kind = Path(path).suffix
    if not path or not Path(path).exists():
        raise FileNotFoundError(f"no data at {path!r}: give the path of an existing file")
    if kind not in (".npy", ".csv", ".parquet", ".npz", ".zarr"):
        raise ValueError(f"data must be .npy, .npz, .csv, .parquet or .zarr, not {kind or path!r}")
    if (kind == ".zarr") != Path(path).is_dir():
        raise ValueError(
            f"{path} is {'a folder' if Path(path).is_dir() else 'a file'}, which {kind} data"
            " are not"
        )
    if len(path) < len(source) and kind not in (".npz", ".zarr"):
        raise ValueError(f"{path} holds one array, so {':' + name!r} has no meaning: leave it out")
    try:
        found = _read(path, kind, name, labels, whole)
    except (EOFError, zipfile.BadZipFile, zlib.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be read: empty, truncated or damaged ({error}); write it again"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if found.dtype.kind not in ("fiubU" if labels else "fiub"):
        raise TypeError(
            f"{source} must hold real numbers, not dtype {found.dtype}: convert it first"
        )
    return found


def _read(path: str, kind: str, name: str, labels: bool, whole: bool) -> np.ndarray[Any, Any]:
    if kind == ".npy":
        _check_header(path)
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if kind == ".csv":
        return _csv(path, labels)
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".npz":
        return _npz(path, name)
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    _check_name(path, name, list(group.array_keys()))
    return np.asarray(group[name][...]) if whole else cast(Any, group[name])


def _npz(path: str, name: str) -> np.ndarray[Any, Any]:
    with open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(
                "it is no .npz archive, whatever its name says;"
                " rename it to .npy if it is one array"
            )
        _check_name(path, name, archive.files)
        return np.asarray(archive[name])


def _check_name(path: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise ValueError(f"say which array of {path}: {path}:NAME, NAME one of {', '.join(names)}")


def _check_header(path: str) -> None:
    """ValueError unless an .npy file's header says what an array can be."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says shape {shape}, so the file is damaged: write it again")
    if dtype.hasobject:
        raise ValueError(
            "it holds pickled objects, which are never loaded: save numbers, x.astype(float)"
        )


def _csv(path: str, labels: bool) -> np.ndarray[Any, Any]:
    """Numbers separated by commas, semicolons or tabs; a first line without any number holds names.

    As ``labels`` one column of text too, without a line of names.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            start = file.readline()
            separator = max(";\t,", key=start.count) if any(map(start.count, ";\t,")) else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=separator)
            lines = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it is no text in UTF-8 ({error}): save it as CSV in UTF-8") from None
    while lines and not lines[-1][1]:  # empty lines at the end
        lines.pop()
    if labels and lines and all(len(row) == 1 and not _is_number(row[0]) for _, row in lines):
        return np.array([row[0] for _, row in lines])
    if lines and any(lines[0][1]) and not any(map(_is_number, lines[0][1])):
        lines = lines[1:]
    if not lines:
        raise ValueError("it holds no samples: it is empty, or has a line of names only")
    return np.array([_numbers(line, row, len(lines[0][1])) for line, row in lines])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def _numbers(line: int, row: list[str], width: int) -> list[float]:
    """The fields of a line; ValueError names the line and the column of what is no number."""
    if not row:
        raise ValueError(f"line {line} is empty: drop it")
    if len(row) != width:
        raise ValueError(f"line {line} has {len(row)} fields, where the first samples have {width}")
    for column, field in enumerate(row, 1):
        if not _is_number(field):
            found = (
                "is empty: impute it or drop the sample"
                if not field.strip()
                else f"is {field!r}, not a number"
            )
            raise ValueError(f"line {line}, column {column} {found}")
    return [float(field) for field in row]


def _parquet(path: str) -> np.ndarray[Any, Any]:
    """One column a feature."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError('data in Parquet need PyArrow: pip install "ntkcore[parquet]"') from None
    table = pyarrow.parquet.read_table(path)
    return np.column_stack([column.to_numpy() for column in table.columns])


def _net_of(path: Path) -> Layer:
    """The spec in a JSON file; ValueError names the file."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is no text, where the JSON of a network is wanted: the network comes before"
            " the data"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def parse_net(text: str) -> Layer:
    """A ready network by name, as NET says, or the JSON of a spec."""
    if os.path.isfile(text):
        return _net_of(Path(text))
    name, _, arguments = text.partition(":")
    if name not in READY:
        raise ValueError(f"no network {text!r}: it must be {NET}")
    known, options = list(inspect.signature(READY[name]).parameters), dict[str, Any]()
    for at, part in enumerate(filter(None, arguments.split(","))):
        key, equals, value = part.partition("=")
        if not equals and at == 0:
            key, value = known[0], part
        if key in options:
            raise ValueError(f"network {text!r}: {key} is given twice")
        with contextlib.suppress(ValueError):
            options[key] = int(value) if value.lstrip("-").isdigit() else float(value)
        options.setdefault(key, value)
    if unknown := [key for key in options if key not in known]:
        raise ValueError(
            f"network {text!r}: no parameter {unknown[0]!r}; {name} takes {', '.join(known)}"
        )
    if any(
        abs(options.get(key, 0)) > DEEPEST
        for key in ("depth", "blocks")
        if not isinstance(options.get(key), str)
    ):
        raise ValueError(
            f"network {text!r}: more than {DEEPEST} layers take hours a pair:"
            " choose a smaller depth"
        )
    first = next(iter(inspect.signature(READY[name]).parameters.values()))
    if first.default is first.empty and first.name not in options:
        raise ValueError(
            f"network {text!r}: {name} needs {first.name}, as in {name}:{first.name}=5"
        )
    try:
        return READY[name](**options)
    except TypeError as error:
        raise ValueError(f"network {text!r}: {error}") from None
