"""The leading eigenpairs of a symmetric operator by few products with many vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ntkcore.engine.device_arrays import to_host
from ntkcore.linalg.checkpoints import Checkpoint, System

Array = npt.NDArray[np.float64]
OVERSAMPLING = 10  # vectors of a product beyond the k that are wanted
BLOCKS = 8  # of vectors that are held
LONGEST = 200  # products
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Krylov:
    """Eigenpairs, largest first: ``values`` (k,), ``vectors`` (n, k) where the operator's lie.

    ``residuals`` (k,): |K v - value v|, rounding included: within it of each value there is an
    eigenvalue. ``rest``: no other eigenvalue exceeds it, unless the start, which is random, hardly
    holds its vector: below about n^-1/2 a tolerance lets none go unnoticed.
    """

    values: Array
    vectors: Any
    residuals: Array
    rest: float


class Symmetric(System, Protocol):
    """A symmetric matrix by its products, and the dtype of its entries."""

    storage_dtype: np.dtype[Any]


def power_of_two(numbers: Any) -> float:
    """About the size of the largest, to divide by without rounding: squares of what is left do not
    overflow.
    """
    return float(2.0 ** np.clip(np.frexp(float(abs(numbers).max()))[1], -1000, 1000))


def block_krylov(
    operator: Symmetric,
    k: int,
    *,
    tolerance: float = 1e-10,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> Krylov:
    """Randomised block Krylov: Rayleigh-Ritz on K^j Omega, j = 0, 1, …, for k + 10 normal vectors
    Omega; restarted from its Ritz vectors when 8 blocks are held.

    It ends when all k residuals are below ``tolerance`` times the largest eigenvalue; RuntimeError
    after 200 products. Musco & Musco 2015, algorithm 2; the restart is Wu & Simon's (2000).
    """
    keeper = Checkpoint(checkpoint, ("V", "T", "size", "unit"), operator, repr((k, seed)).encode())
    state = keeper.load()
    run = _Run(operator, min(k + OVERSAMPLING, operator.shape[0]), seed, state)
    while True:
        run.step()
        values, residuals = run.values, run.residuals
        if run.complete or residuals[:k].max() <= tolerance * np.abs(values).max():
            break
        if run.done >= LONGEST:
            raise RuntimeError(
                f"{k} eigenpairs have not converged in {run.done} products: their residuals are"
                f" {residuals[:k].max() / np.abs(values).max():.1e} of the largest eigenvalue; ask"
                " for another number of them, or a larger tolerance"
            )
        run.make_room()
        keeper.save(*run.state())
    values, residuals, unit = values[:k], residuals[:k], run.unit
    rest = 0.0 if k == operator.shape[0] else float(values[-1] + np.linalg.norm(residuals))
    vectors = run.basis @ run.xp.asarray(run.small[:, :k])
    if state is not None:
        residuals = run.looked_at(values, vectors, residuals, checkpoint)
    return Krylov(values * unit, vectors, residuals * unit, rest * unit)


class _Run:
    """An orthonormal basis V, the newest vectors not yet multiplied; T = V^T K V of the others."""

    def __init__(
        self, operator: Symmetric, block: int, seed: int, state: tuple[Any, ...] | None
    ) -> None:
        self.operator, self.xp, self.block, self.seed = operator, operator.xp, block, seed
        self.unit, n = 0.0, operator.shape[0]  # a power of 2, known after the first product
        self.V = self.xp.empty((n, min(n, BLOCKS * block)), np.float64, order="F")
        self.T: Array = np.zeros((self.V.shape[1],) * 2)
        self.size = self.known = self.done = 0  # vectors held, multiplied; products
        if state is None:
            self._append(self._normal(block))
        else:
            held, T, size, unit, self.done = state
            self.size, self.known, self.unit = held.shape[1], int(size), float(unit)
            self.V[:, : self.size] = self.xp.asarray(held)
            self.T[: len(T), : len(T)] = T

    def state(self) -> tuple[Any, ...]:
        """What a checkpoint holds."""
        T = self.T[: self.known, : self.known]
        return self.basis, T, self.known, self.unit, self.done

    @property
    def basis(self) -> Any:
        """The vectors that are held."""
        return self.V[:, : self.size]

    def step(self) -> None:
        """Multiplies the newest vectors; Ritz values, largest first, their coordinates, and the
        norms of their residuals: K V = V T + beyond tail E^T, E the newest vectors' columns.
        """
        fresh = slice(self.known, self.size)
        W = self.operator.product(self.V[:, fresh])
        self.unit = self.unit or power_of_two(W)
        W = W / self.unit
        self.done += 1
        products = to_host(self._orthogonalise(W))
        self.T[: self.size, fresh], self.T[fresh, : self.size] = products, products.T
        self.T[fresh, fresh] = (products[fresh] + products[fresh].T) / 2
        self.known = self.size
        self.beyond, sizes, right = self.xp.linalg.svd(W, full_matrices=False)
        sizes = to_host(sizes)
        values, small = np.linalg.eigh(self.T[: self.size, : self.size])
        self.values, self.small = values[::-1], small[:, ::-1]
        noise = math.sqrt(self.V.size) * EPS * float(np.abs(values).max())
        keep = int((sizes > noise).sum())
        self.beyond = self.beyond[:, :keep]
        tail = sizes[:keep, None] * to_host(right)[:keep]
        self.residuals = np.linalg.norm(tail @ self.small[fresh], axis=0) + noise

    @property
    def complete(self) -> bool:
        """No direction is left."""
        return self.size == len(self.V)

    def looked_at(self, values: Array, vectors: Any, residuals: Array, file: Path | None) -> Array:
        """The residuals themselves, by one more product, for a basis that another run began;
        ValueError where they say that its kernel was another one, by more than rounding.
        """
        apart = self.operator.product(vectors) / self.unit - vectors * self.xp.asarray(values)
        found: Array = to_host(self.xp.linalg.norm(apart, axis=0))
        rounding = len(self.V) ** 0.5 * float(np.finfo(self.operator.storage_dtype).eps)
        allowed = rounding * float(np.abs(self.values).max())
        if found.max() > residuals.max() + allowed:
            raise ValueError(
                f"{file} is the checkpoint of another kernel: its eigenvectors' residuals are"
                f" {found.max() * self.unit:.1e} here; delete it to begin anew"
            )
        return np.maximum(found, residuals)

    def make_room(self) -> None:
        """The next vectors: those beyond, in a basis of the leading Ritz vectors when it is full.

        An invariant subspace goes on with random ones.
        """
        more = self.beyond
        if not more.shape[1]:
            more = self._normal(min(self.block, len(self.V) - self.size))
        if self.size + more.shape[1] > self.V.shape[1]:
            leading = self.small[:, : self.block]
            T = leading.T @ self.T[: self.size, : self.size] @ leading
            kept = self.basis @ self.xp.asarray(leading)
            self.size = self.known = self.block
            self.V[:, : self.size], self.T[: self.size, : self.size] = kept, T
        self._append(more)

    def _normal(self, count: int) -> Any:
        rng = np.random.default_rng([self.seed, self.done])
        return self.xp.asarray(rng.standard_normal((len(self.V), count)))

    def _append(self, W: Any) -> None:
        """Vectors made orthonormal to those that are held."""
        self._orthogonalise(W)
        end = self.size + W.shape[1]
        self.V[:, self.size : end] = self.xp.linalg.qr(W)[0]
        self.size = end

    def _orthogonalise(self, W: Any) -> Any:
        """W - V V^T W, in place and twice; V^T W."""
        total = self.xp.zeros((self.size, W.shape[1]), np.float64)
        for _ in range(2):
            part = self.basis.T @ W
            W -= self.basis @ part
            total += part
        return total
