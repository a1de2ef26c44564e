"""The problem restricted to landmarks, of any kernel operator: the choice, the solution."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import check_count
from ntkcore.linalg.choice import POOL
from ntkcore.linalg.landmarks import LandmarkRegression, repeated
from ntkcore.linalg.noise import ridge_of
from ntkcore.linalg.operators import KernelOperator
from ntkcore.linalg.rpcholesky import rpcholesky

Numbers = npt.NDArray[np.int64]


def asked_landmarks(
    n_landmarks: int | None, landmarks: Any, n: int
) -> tuple[Numbers | None, int | None]:
    """Numbers of samples, None for a way of choosing them, and how many, None for a default; both
    looked at.
    """
    at = _numbers(landmarks, n)
    if at is not None:
        return at, len(at)
    if n_landmarks is not None:
        check_count("n_landmarks", n_landmarks, 1)
        if n_landmarks > n:
            raise ValueError(f"{n_landmarks} landmarks are more than the {n} samples")
    return None, n_landmarks


def _numbers(landmarks: Any, n: int) -> Numbers | None:
    if isinstance(landmarks, str):
        if landmarks not in ("rpcholesky", "uniform"):
            raise ValueError(
                f"landmarks must be 'rpcholesky', 'uniform' or numbers of samples,"
                f" not {landmarks!r}"
            )
        return None
    at = np.asarray(landmarks)
    if at.ndim != 1 or not len(at) or at.dtype.kind not in "iu":
        raise ValueError(f"landmarks must be whole numbers of samples, not {landmarks!r:.60}")
    if at.min() < 0 or at.max() >= n:
        raise ValueError(f"landmarks must be from 0 to {n - 1}, not {at.min()} to {at.max()}")
    numbers, counts = np.unique(at, return_counts=True)
    if len(numbers) < len(at):
        raise ValueError(
            f"landmarks hold sample {numbers[counts.argmax()]} more than once: each may be given"
            " once"
        )
    return at.astype(np.int64)


def choose_landmarks(K: KernelOperator, m: int, how: str, seed: int) -> Numbers:
    """m points at random, or what RPCholesky takes of three times as many, which may be fewer."""
    rng, n = np.random.default_rng(seed), K.shape[0]
    if how == "uniform":
        return np.sort(rng.choice(n, m, replace=False))
    pool = np.sort(rng.choice(n, min(n, POOL * m), replace=False))
    return np.sort(pool[rpcholesky(K.principal(pool), m, seed=seed).landmarks])


def restricted(
    K: KernelOperator, at: Numbers, Y: Any, ridge: float, *, relative: bool = False, **options: Any
) -> tuple[Numbers, LandmarkRegression]:
    """The landmarks, of equal ones the first, and the solution; options of `LandmarkRegression`."""
    inner = K.between(at)
    kept = np.setdiff1d(np.arange(len(at)), [j for _, j in repeated(inner)])
    at, inner = at[kept], inner[np.ix_(kept, kept)] if len(kept) < len(at) else inner
    value = ridge_of(ridge, relative, float(K.diagonal().mean()), K.storage_dtype, len(at))
    return at, LandmarkRegression(K.columns(at), inner, Y, value, **options)
