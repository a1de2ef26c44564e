"""The state of an iteration in a file: of this problem and whole, or refused."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import to_host
from ntkcore.store.files import writing

Array = npt.NDArray[np.float64]


class System(Protocol):
    """A symmetric matrix by its products with matrices, which lie where ``xp`` says."""

    xp: Any
    shape: tuple[int, int]

    def product(self, X: Any, /) -> Any:
        """Times a matrix."""


class Checkpoint:
    """An .npz file of named arrays and the number of iterations done, ``done``.

    Parameters
    ----------
    file : path or None
        None keeps nothing.
    names : tuple of str
        Of the arrays.
    operator : System
        Told apart from others by a product, at the price of a pass.
    about : bytes
        What else must agree.
    """

    def __init__(
        self,
        file: Path | None,
        names: tuple[str, ...],
        operator: System,
        *about: bytes,
    ) -> None:
        self.file = file
        self.names = (*names, "done")
        if self.file is not None:
            self.fingerprint = hashlib.sha256(b"".join(about)).hexdigest()
            self.probe = _probe(operator)

    def save(self, *state: Any) -> None:
        """To a file beside it, then renamed: all or nothing."""
        if self.file is None:
            return
        arrays = map(np.asarray, map(to_host, state))
        parts: dict[str, Any] = dict(zip(self.names, arrays, strict=True))
        with writing(self.file) as file:
            np.savez(
                file,
                fingerprint=self.fingerprint,
                probe=self.probe,
                digest=self._digest(parts),
                **parts,
            )

    def load(self) -> tuple[Any, ...] | None:
        """The state in the file, if there is one; ValueError for that of another problem,
        or none.
        """
        if self.file is None or not self.file.exists():
            return None
        wanted = ("fingerprint", "probe", "digest", *self.names)
        try:
            with open(self.file, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                found = {name: file[name] for name in wanted}
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.file} is no whole checkpoint of this solver ({error}):"
                " delete it to begin anew, or choose another file"
            ) from None
        same = (
            str(found["fingerprint"]) == self.fingerprint
            and found["probe"].shape == self.probe.shape
        )
        if not same or np.abs(found["probe"] - self.probe).max() > 1e-5 * np.abs(self.probe).max():
            raise ValueError(
                f"{self.file} is the checkpoint of another problem (kernel, Y, ridge or options):"
                " choose another file"
            )
        if str(found["digest"]) != self._digest(found):
            raise ValueError(
                f"{self.file} is a damaged checkpoint:"
                " delete it to begin anew, or choose another file"
            )
        return (*(found[name] for name in self.names[:-1]), int(found["done"]))

    def _digest(self, parts: dict[str, Any]) -> str:
        """SHA-256 of a state, dtypes and shapes included."""
        about = [repr((parts[name].dtype, parts[name].shape)).encode() for name in self.names]
        whole = [*about, *(parts[name].tobytes() for name in self.names)]
        return hashlib.sha256(b"".join(whole)).hexdigest()


def _probe(operator: System) -> Array:
    """K times a vector that is always the same: tells kernels apart whose diagonals agree."""
    vector = np.random.default_rng(0).standard_normal((operator.shape[0], 1))
    out: Array = to_host(operator.product(operator.xp.asarray(vector)))
    return out
