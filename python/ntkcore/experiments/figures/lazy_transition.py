"""Between learning features and staying lazy:
networks of different widths meet on the axis sqrt(h) alpha.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.datasets import digits
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Relu
from ntkcore.specs.convolutions import Conv, Flatten
from ntkcore.specs.layers import Dense, Layer, Serial
from ntkcore.specs.nets import HE, mlp

CLAIM = (
    "Trained on alpha (f - f_0), networks of width h go from feature learning to lazy training at"
    " the same sqrt(h) alpha (Geiger et al. 2020): parity of digits, 200 samples; two hidden layers"
    " on ten principal components, and two convolutions on images. The movement of the kernel falls"
    " on one curve while it is above 1. The collapse fails at the lazy end: there the kernel of a"
    " narrow network moves more, and above all its test error is larger, as its frozen kernel is a"
    " noisy one; so the narrow networks gain from features, and the widest do not. That"
    " convolutional networks of any width gain, as on 10,000 images of CIFAR-10, is not seen on"
    " this small task."
)


@dataclass(frozen=True)
class Config:
    """Training and test samples, principal components, widths, values of sqrt(h) alpha, draws;
    training ends where the loss has fallen to ``fitted``.
    """

    n: int = 200
    tests: int = 5000
    components: int = 10
    fc_widths: tuple[int, ...] = (32, 96, 256)
    cnn_widths: tuple[int, ...] = (16, 32, 64)
    scales: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0, 64.0)
    draws: int = 3
    fitted: float = 0.01
    seed: int = 0


QUICK: dict[str, Any] = {
    "scales": (0.25, 64.0),
    "fc_widths": (16, 32, 64),
    "cnn_widths": (8, 16, 32),
    "n": 100,
    "tests": 500,
    "draws": 2,
    "fitted": 0.02,
}
NAMES = {"fc": "fully connected", "cnn": "convolutional"}
LAZY = 0.1  # a kernel that moves less, as the falsifier has it
AXIS = r"$\sqrt{h}\,\alpha$"
CHUNK, LONGEST = 20, 3000  # steps with one learning rate, and at most


def run(config: Config) -> dict[str, Any]:
    """By network: relative movement of the kernel, test error, laziness kappa of the start,
    (widths, scales, draws).
    """
    images, y = _images(config)
    conv = Conv((3, 3), (2, 2), "VALID", HE)
    cnn = Serial(conv, Relu(), conv, Relu(), Flatten(), Dense(HE))
    return {
        "scales": np.array(config.scales),
        **_sweep(config, "fc", mlp(2), config.fc_widths, _components(images, config), y),
        **_sweep(config, "cnn", cnn, config.cnn_widths, images, y),
    }


def _images(config: Config) -> tuple[Any, Any]:
    """Small images less the mean of the training ones, and the parity of their digits."""
    x, label, _ = digits()
    rows = np.random.default_rng(config.seed).permutation(len(x))[: config.n + config.tests]
    side = int(np.sqrt(x.shape[1]))
    pool = max(side // 14, 1)
    x = x[rows].reshape(-1, side // pool, pool, side // pool, pool, 1).mean((2, 4))
    return _normed(x - x[: config.n].mean(0), config.n), np.where(label[rows] % 2, 1.0, -1.0)


def _components(images: Any, config: Config) -> Any:
    """The leading principal components."""
    x = images.reshape(len(images), -1)
    axes = np.linalg.svd(x[: config.n], full_matrices=False)[2][: config.components]
    return _normed(x @ axes.T, config.n)


def _normed(x: Any, n: int) -> Any:
    return x / np.sqrt((x[:n] ** 2).mean())


def _sweep(
    config: Config, name: str, net: Layer, widths: tuple[int, ...], x: Any, y: Any
) -> dict[str, Any]:
    from ntkcore.finite import laziness

    shape = len(widths), len(config.scales), config.draws
    moved, error, kappa = np.empty((3, *shape))
    for i, draw in steps(list(np.ndindex(shape[0], shape[2]))):
        for j, scale in enumerate(config.scales):
            start = _start(net, widths[i], scale, draw + 100 * config.seed, x)
            if j == 0:  # laziness goes like 1/alpha
                z, target = x[: config.n], y[: config.n]
                first = scale * laziness(start, z, target, restarts=1)
            kappa[i, j, draw] = first / scale
            moved[i, j, draw], error[i, j, draw] = _trained(config, start, x, y)
    found = {"widths": np.array(widths), "moved": moved, "error": error, "kappa": kappa}
    return {f"{name}_{key}": value for key, value in found.items()}


def _start(net: Layer, h: int, scale: float, seed: int, x: Any) -> Any:
    from ntkcore.finite import to_torch

    return to_torch(
        net,
        h,
        input_shape=x.shape[1:],
        alpha=scale / np.sqrt(h),
        centred=True,
        seed=seed,
        dtype="float32",
    )


def _trained(config: Config, start: Any, x: Any, y: Any) -> tuple[float, float]:
    """(movement of the kernel, test error)."""
    import torch

    from ntkcore.finite import empirical_ntk, kernel_movement, train

    z, target, module = x[: config.n], y[: config.n, None], copy.deepcopy(start)
    first = K = empirical_ntk(start, z).astype(np.float64)
    for _ in range(0, LONGEST, CHUNK):
        # Half of 1/curvature under the kernel there is: near gradient flow.
        rate = 0.5 * config.n / float(np.linalg.eigvalsh(K)[-1]) * start.alpha**2
        loss = train(module, z, target, lr=rate, steps=CHUNK, loss=_hinge).loss[-1]
        K = empirical_ntk(module, z).astype(np.float64)
        if loss < config.fitted:
            break
    with torch.no_grad():
        outputs = module(torch.as_tensor(x[config.n :], dtype=torch.float32)).numpy()[:, 0]
    return kernel_movement(K, first), float((outputs * y[config.n :] <= 0).mean())


def _hinge(f: Any, y: Any) -> Any:
    """Mean of max(0, 1 - y f)^2/2: it reaches 0, and training ends."""
    return ((1 - y * f).clamp(min=0) ** 2).mean() / 2


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """One curve while features move; lazy at the other end, and there the width counts."""
    return [c for name in NAMES for c in _expected(config, name, arrays)]


def _expected(config: Config, name: str, arrays: dict[str, Any]) -> list[Criterion]:
    moved, error, kappa = (arrays[f"{name}_{key}"].mean(2) for key in ("moved", "error", "kappa"))
    spread = moved.max(0) / moved.min(0)
    narrow, wide = error[0], error[-1]
    label, few = NAMES[name], config.draws < 3
    found = [
        Criterion(
            f"{label}: movement of widths, largest over least, wherever it is above 1",
            spread[moved.min(0) > 1].max(),
            high=1.5 if few else 1.25,
        ),
        Criterion(f"{label}: least movement at the least scale", moved[:, 0].min(), 1),
        Criterion(f"{label}: largest movement at the largest scale", moved[:, -1].max(), high=LAZY),
        Criterion(f"{label}: largest kappa there", kappa[:, -1].max(), high=LAZY),
    ]
    if few:  # a quick run sees too few networks to tell widths apart
        return found
    gap = narrow - wide
    return [
        *found,
        Criterion(
            f"{label}: movement at the largest scale, narrowest over widest",
            moved[0, -1] / moved[-1, -1],
            1.3,
        ),
        Criterion(
            f"{label}: test error, narrowest less widest, at the largest scale less at the least",
            gap[-1] - gap[0],
            0.01,
        ),
        Criterion(
            f"{label}: what the narrowest gains from features, in test error",
            narrow[-1] - narrow[0],
            0.005,
        ),
        Criterion(f"{label}: what the widest gains", wide[-1] - wide[0], -0.02, 0.005),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Movement of both networks, and their test errors, over sqrt(h) alpha."""
    axes, scales = figure.subplots(1, 3), arrays["scales"]
    for name, ax, line in zip(NAMES, axes[1:], ("o-", "s--"), strict=True):
        for place, h in enumerate(arrays[f"{name}_widths"]):
            style = {"color": f"C{place}", "label": f"h = {h}", "ms": 4}
            axes[0].plot(scales, arrays[f"{name}_moved"][place].mean(1), line, **style)
            error = arrays[f"{name}_error"][place]
            deviation = error.std(1, ddof=1) / np.sqrt(error.shape[1])
            ax.errorbar(scales, error.mean(1), deviation, fmt=line, **style)
        ax.set(xscale="log", title=NAMES[name], xlabel=AXIS, ylabel="test error")
        ax.legend(frameon=False)
    axes[0].axhline(LAZY, color="0.6", lw=1)
    axes[0].set(xscale="log", yscale="log", xlabel=AXIS, ylabel="movement of the kernel")
    axes[0].set_title("both; below the line: lazy")
