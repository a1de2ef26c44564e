"""Real data, where they are: files of this project's data folder, or scikit-learn's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def data(name: str) -> Mapping[str, Any] | None:
    """A file of real data from $NTKCORE_DATA, shared/data or ../shared/data;
    None where there is none.
    """
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
