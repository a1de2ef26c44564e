"""Random features of a network as blocks of columns: their weights, and how many columns each gets.

A network of dense layers and ReLUs (or others of two slopes) is followed by two sets of features,
phi of its NNGP kernel and psi of its NTK, both of the same blocks B with different weights:
K = sum_B k_B <B, B'>, T = sum_B t_B <B, B'>. The blocks are x/sqrt(d), the constant 1, and of each
nonlinearity phi(z) = odd z + even |z| with z = G phi, G Gaussian,

    N = ||phi||,   R = (|z| - sqrt(2/pi) N)/sqrt(m),   S = sketch(psi) sign(z)

since E|z||z'| = (2/pi) N N' + E<R, R'> and E[phi'(z) phi'(z')] = odd^2 + even^2 E[sign z sign z'].
What is linear in the layer's input, and the mean of |z|, are thus exact; only R and S are random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ntkcore.specs.activations import Activation
from ntkcore.specs.convolutions import Flatten
from ntkcore.specs.layers import Dense, Identity, Layer
from ntkcore.specs.lowering import check_net, flat, lower

Weights = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
INPUTS, ONE = 0, 1  # the first blocks; then N, R, S of each nonlinearity
INNER = {"R": 8, "S": 4}  # hidden blocks have n_components over this many columns at least,
FEWEST = 256  # and so many


@dataclass(frozen=True)
class FeaturePlan:
    """Blocks of columns.

    Attributes
    ----------
    entering : tuple of (k, t)
        Weights of the blocks so far in phi and psi before each nonlinearity.
    weights : ndarray of shape (blocks,)
        In the features asked for.
    widths : ndarray of shape (blocks,)
        Columns that are computed,
    kept : ndarray of shape (blocks,)
        and of them the first that are features.
    """

    entering: tuple[tuple[Weights, Weights], ...]
    weights: Weights
    widths: Counts
    kept: Counts

    @property
    def projected(self) -> bool:
        """Do inputs share columns, being too many to be features themselves?"""
        return self.kept[INPUTS] not in (0, self.widths[INPUTS])

    @property
    def gaussians(self) -> list[tuple[int, int]]:
        """Shapes of the matrices to draw, one for each nonlinearity: widths of phi and of z."""
        shapes = []
        for k, _ in self.entering:
            n = len(k)  # N is the next block
            phi = self.widths[:n][used(k)].sum()
            shapes.append((int(phi), int(self.widths[n + 1 : n + 3].max())))
        return shapes


def used(weights: Weights) -> npt.NDArray[np.bool_]:
    """Blocks that weigh something, and the inputs, so that there is one."""
    found = np.asarray(weights > 0)
    found[INPUTS] = True
    return found


def feature_plan(net: Layer, d: int, n_components: int, get: str, owner: str) -> FeaturePlan:
    """The blocks of a network's features of vectors of length d.

    There are no more columns than ``n_components``, but one for each block.
    ValueError names the layer whose features are not known.
    """
    layers = _known(net, owner)
    lower(net, (d,), wants_ntk=get == "ntk")  # refuses what has no kernel
    k, t, power = np.array([1.0, 0.0]), np.zeros(2), np.ones(2)  # power: E||B||^2 at variance 1
    entering = []
    for layer in layers:
        if isinstance(layer, Dense):
            a, b = layer.W_std**2, (layer.b_std or 0.0) ** 2
            k = a * k
            k[ONE] += b
            t = k + a * t
            continue
        low, high = layer.constants()  # type: ignore[attr-defined]
        odd, even = ((high + low) / 2) ** 2, ((high - low) / 2) ** 2
        q, s = k @ power, (t @ power if get == "ntk" else 0.0)
        entering.append((k, t))
        k, t = np.r_[odd * k, even * 2 / math.pi, even, 0], np.r_[odd * t, 0, 0, even]
        power = np.r_[power, q, (1 - 2 / math.pi) * q, s]
    weights = t if get == "ntk" else k
    size = weights * power
    if not size.any():
        raise ValueError(zero_kernel(owner))
    n_components = max(n_components, len(size))
    kept = _kept(size, d, n_components)
    return FeaturePlan(tuple(entering), weights, _widths(kept, power, d, n_components), kept)


def _known(net: Layer, owner: str) -> list[Layer]:
    """The layers; ValueError naming the first whose features are not known."""
    check_net(net)
    layers = [layer for layer in flat(net) if not isinstance(layer, (Identity, Flatten))]
    for layer in layers:
        two_slopes = isinstance(layer, Activation) and layer.dual == "abrelu"
        if not two_slopes and not (isinstance(layer, Dense) and layer.parameterization == "ntk"):
            raise ValueError(unknown_features(layer, owner))
    return layers


def unknown_features(layer: Layer, owner: str) -> str:
    """Why a layer is refused."""
    return (
        f"{owner}: no random features are known of {layer!r}; they are of Dense layers in the NTK"
        " parameterization, Relu, LeakyRelu, ABRelu and Abs, one after another, and of images also"
        " of Conv, AvgPool, SumPool, Flatten, GlobalAvgPool and GlobalSumPool."
        " Any network: Nystroem(kernel=NTKKernel(net)), ntkcore.fit(…, n_landmarks=…)"
    )


def zero_kernel(owner: str) -> str:
    """Why there are no features."""
    return f"{owner}: the kernel of this network is 0: its weights are, or it has none"


def _kept(size: Weights, d: int, n_components: int) -> Counts:
    """Columns of each block, given its mean square: those of R and S have a variance of
    size^2/columns, whose sum is least where columns are as sizes.
    """
    kept = np.asarray(size > 0, dtype=np.int64)
    drawn = np.arange(len(size)) % 3 != 2  # not N
    drawn[:2] = False
    spare = n_components - kept.sum()
    share = size[INPUTS] / (size[INPUTS] + size[drawn].sum()) if kept[INPUTS] else 0.0
    if kept[INPUTS] and d - 1 <= min(spare, max(n_components // 2, share * n_components)):
        kept[INPUTS], spare = d, spare - (d - 1)
    else:
        drawn[INPUTS] = True
    share_of = np.where(drawn, size, 0.0)
    if share_of.any():
        more = np.floor(spare * share_of / share_of.sum()).astype(np.int64)
        more[share_of.argmax()] += spare - more.sum()
        kept += more
    return kept


def _widths(kept: Counts, power: Weights, d: int, n_components: int) -> Counts:
    """Columns to compute: more of R and S before the last nonlinearity, whose errors grow later."""
    widths = kept.copy()
    widths[[INPUTS, ONE]] = d, 1
    widths[2::3] = 1
    for first, name in ((3, "R"), (4, "S")):
        hidden = slice(first, len(kept) - 3, 3)
        least = max(FEWEST, n_components // INNER[name])
        widths[hidden] = np.where(power[hidden] > 0, np.maximum(kept[hidden], least), 0)
    return widths
