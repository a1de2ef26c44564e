"""How the error of kernel regression falls with the number of samples: theory in closed form,
and the experiment.

    curve = LearningCurve(modes.eigenvalues, modes.degeneracies, tail=modes.tail, ridge=1e-3)
    curve.mode_errors([10, 100, 1000])            # E_k(P)/E_k(0), (P, modes)
    curve.error([10, 100], power, noise=0.1)      # generalisation error
    curve = LearningCurve.from_gram(K, y)[0]      # from an empirical Gram matrix
    sphere_experiment(net, d, 100, ridge, ...)    # the same, measured

The predictor is f = K(x, X)(K(X, X) + ridge)^-1 y. Bordelon, Canatar & Pehlevan 2020, equations 4
and 9, and Canatar et al. 2021, with eigenvalues eta_k of multiplicity N_k, P samples and kappa the
effective ridge:

    kappa = ridge + kappa sum N_k eta_k/(kappa + P eta_k),
    gamma = P sum N_k eta_k^2/(kappa + P eta_k)^2,
    E_k(P)/E_k(0) = kappa^2/[(1 - gamma)(kappa + P eta_k)^2],
    noise adds sigma^2 gamma/(1 - gamma).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntkcore.engine.inputs import real_array
from ntkcore.engine.kernels import kernel
from ntkcore.linalg.checks import check_matrix
from ntkcore.specs.layers import Layer
from ntkcore.theory.rules import not_negative
from ntkcore.theory.spectrum import spectrum
from ntkcore.theory.sphere import SphereSpectrum, legendre, random_points

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Theory for one spectrum.

    ``eigenvalues`` (k,) >= 0 and their ``multiplicities`` (k,); ``tail``: the trace that lies
    beyond them, which acts like a ridge as none of it is learned; ``ridge`` >= 0, absolute.
    ValueError for values that do not fit.
    """

    eigenvalues: npt.ArrayLike
    multiplicities: npt.ArrayLike | None = None
    tail: float = 0.0
    ridge: float = 0.0

    def __post_init__(self) -> None:
        eta = check_matrix(self.eigenvalues, "eigenvalues", (None,))
        counts = (
            np.ones(len(eta))
            if self.multiplicities is None
            else check_matrix(self.multiplicities, "multiplicities", (len(eta),))
        )
        object.__setattr__(self, "eigenvalues", eta)
        object.__setattr__(self, "multiplicities", counts)
        if eta.min() < 0 or counts.min() <= 0 or not eta.any():
            raise ValueError("eigenvalues must be >= 0 and not all 0, multiplicities positive")
        for name in ("tail", "ridge"):
            not_negative(name, getattr(self, name))

    @classmethod
    def from_gram(
        cls, K: npt.ArrayLike, y: npt.ArrayLike, ridge: float = 0.0
    ) -> tuple[LearningCurve, Array]:
        """(curve, power of the targets in each mode)
        of n samples that stand for the whole population.

        Eigenvalues are those of K/n, and power_i = (v_i . y)^2/n, summed over outputs.
        """
        found = spectrum(K, y)
        n = len(found.eigenvalues)
        targets = real_array(y, "y")
        assert found.power is not None
        return cls(found.eigenvalues / n, ridge=ridge), found.power * float((targets**2).sum()) / n

    def effective_ridge(self, samples: npt.ArrayLike) -> Array:
        """kappa at P ``samples``, of their shape;
        0 where there are enough samples to learn every mode exactly.
        """
        P = _samples(samples)
        return np.array([self._kappa(float(p)) for p in P.ravel()]).reshape(P.shape)

    def _kappa(self, P: float) -> float:
        """The root of 1 - ridge/kappa - sum N eta/(kappa + P eta), which rises with kappa."""
        from scipy.optimize import brentq

        eta, counts = np.asarray(self.eigenvalues), np.asarray(self.multiplicities)
        ridge = self.ridge + self.tail
        top = ridge + float(counts @ eta)
        if ridge == 0 and counts[eta > 0].sum() <= P:
            return 0.0

        def rising(log: float) -> float:
            kappa = math.exp(log)
            return 1 - ridge / kappa - float((counts * (eta / (kappa + P * eta))).sum())

        low = math.log(ridge) if ridge > 0 else math.log(top) - 1
        while rising(low) > 0:  # with no ridge kappa may be as small as one likes
            low -= max(1.0, abs(low) / 4)
            if low < -700:
                return 0.0
        return math.exp(brentq(rising, low, math.log(top) + 1e-9, xtol=1e-13, rtol=1e-14))

    def gamma(self, samples: npt.ArrayLike) -> Array:
        """gamma at P ``samples``, below 1,
        and 1 where P just meets the number of modes without a ridge.
        """
        P = _samples(samples)
        kappas = self.effective_ridge(P).ravel()
        return np.array(
            [self._gamma(p, kappa) for p, kappa in zip(P.ravel(), kappas, strict=True)]
        ).reshape(P.shape)

    def _gamma(self, P: float, kappa: float) -> float:
        eta, counts = np.asarray(self.eigenvalues), np.asarray(self.multiplicities)
        if kappa == 0:
            return float(counts[eta > 0].sum() / P)
        return float(P * (counts * (eta / (kappa + P * eta)) ** 2).sum())

    def mode_errors(self, samples: npt.ArrayLike) -> Array:
        """E_k(P)/E_k(0), shape samples.shape + (modes,);
        infinite at the peak that an absent ridge leaves.
        """
        P = _samples(samples)
        eta = np.asarray(self.eigenvalues)
        out = np.empty((P.size, len(eta)))
        for row, p in zip(out, P.ravel(), strict=True):
            kappa = self._kappa(float(p))
            left = 1 - self._gamma(float(p), kappa)
            share = np.where(eta > 0, 0.0, 1.0) if kappa == 0 else (kappa / (kappa + p * eta)) ** 2
            row[:] = np.divide(share, left, out=np.full(len(eta), math.inf), where=left > 1e-14)
        return out.reshape(*P.shape, len(eta))

    def error(
        self,
        samples: npt.ArrayLike,
        power: npt.ArrayLike,
        *,
        noise: float = 0.0,
        beyond: float = 0.0,
    ) -> Array:
        """Mean squared error of new, clean targets, of the shape of ``samples``.

        ``power``: the target's squared norm in each mode (all N_k together), (modes,). ``noise``:
        standard deviation of the training targets' noise. ``beyond``: the target's power outside
        all modes, which is never learned.
        """
        P = _samples(samples)
        weights = check_matrix(power, "power", (len(np.asarray(self.eigenvalues)),))
        not_negative("noise", noise)
        not_negative("beyond", beyond)
        if weights.min() < 0:
            raise ValueError("power must be >= 0")
        gamma = self.gamma(P)
        inflated = np.divide(
            1.0, 1 - gamma, out=np.full(P.shape, math.inf), where=gamma < 1 - 1e-14
        )
        from_noise = (
            noise**2 * np.where(np.isfinite(inflated), gamma * inflated, math.inf) if noise else 0.0
        )
        unlearned = beyond * inflated if beyond else 0.0
        learned = self.mode_errors(P)[..., weights > 0] @ weights[weights > 0]
        out: Array = learned + unlearned + from_noise
        return out


def _samples(samples: npt.ArrayLike) -> Array:
    P = real_array(samples, "samples")
    if not np.isfinite(P).all() or (P < 0).any():
        raise ValueError("numbers of samples must be finite and >= 0")
    return P


def sphere_experiment(
    net: Layer,
    modes: SphereSpectrum,
    samples: int,
    orders: Sequence[int],
    *,
    ridge: float = 0.0,
    get: str = "ntk",
    centres: int = 200,
    repeats: int = 10,
    seed: int = 0,
) -> Array:
    """E_k(P)/E_k(0) measured on S^(d-1), with unit vectors as inputs.

    Targets are random functions of the kernel's space, sum_j a_j K(., z_j) with random z_j and a_j
    = +-1. The error's part of order k has the squared norm eta_k^2 N_k c^T P_k(U U^T) c, with U the
    samples and centres and c the predictor's and minus the target's coefficients: exact, without
    test points.

    Parameters
    ----------
    net : Layer
    modes : SphereSpectrum
        Of the net's kernel.
    samples : int
        P.
    orders : sequence of int
        The k that are measured.
    ridge : float, default=0
    get : {"ntk", "nngp"}, default="ntk"
    centres : int, default=200
        The number of z_j.
    repeats : int, default=10
    seed : int, default=0

    Returns
    -------
    ndarray of shape (repeats, orders)
    """
    rng, d = np.random.default_rng(seed), modes.d
    out = np.empty((repeats, len(orders)))
    for row in out:
        x, z = random_points(samples, d, rng), random_points(centres, d, rng)
        a = rng.choice([-1.0, 1.0], centres)
        K = kernel(net, x, None, get, dtype=np.float64, progress=False)
        cross = kernel(net, x, z, get, dtype=np.float64, progress=False)
        fitted = np.linalg.solve(K + ridge * np.eye(samples), cross @ a)
        U, c = np.concatenate([x, z]), np.concatenate([fitted, -a])
        P = legendre(max(orders) + 1, U @ U.T, d)
        row[:] = [(c @ P[k] @ c) / (a @ P[k][samples:, samples:] @ a) for k in orders]
    return out
