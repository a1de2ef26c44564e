"""A convolutional network that stays lazy fits its samples and learns no filters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Relu
from ntkcore.specs.convolutions import Conv, GlobalAvgPool
from ntkcore.specs.layers import Dense, Serial
from ntkcore.specs.nets import HE

CLAIM = (
    "A convolutional network trained lazily fits its training set without learning what makes it"
    " useful, its filters (Chizat et al. 2019, section 3.2, on a task of our own): does a noisy"
    " image hold, anywhere, a pattern or the same pattern turned by 180 degrees? Both have the"
    " same spectrum, so that translation invariance alone does not tell them apart. Trained on"
    " alpha (f - f_0), the same 64 channels find the patterns for small alpha; for a large one"
    " their filters stay as drawn, and the test error many times as large."
)


@dataclass(frozen=True)
class Config:
    """Training and test samples, sides of images and pattern, the pattern's norm in units of the
    noise, channels, values of sqrt(h) alpha, draws of pattern, samples and weights.
    """

    n: int = 250
    tests: int = 2000
    side: int = 12
    pattern: int = 5
    strength: float = 7.0
    channels: int = 64
    scales: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    draws: int = 3
    fitted: float = 0.05
    seed: int = 0


QUICK: dict[str, Any] = {"scales": (0.1, 100.0), "draws": 1, "tests": 1000}
CHUNK, LONGEST = 100, 2000  # steps with one learning rate, and at most


def run(config: Config) -> dict[str, Any]:
    """Errors in training and test, movement of the kernel, cosine of the filters to the patterns
    before and after, (draws, scales); patterns, and strongest filters at both ends,
    (draws, 3, 2, side, side).
    """
    shape = config.draws, len(config.scales)
    keys = "train", "test", "moved", "before", "after"
    found = {key: np.empty(shape) for key in keys}
    p = config.pattern
    shown = np.empty((config.draws, 3, 2, p, p))
    for i, j in steps(list(np.ndindex(shape))):
        patterns, x, y = _problem(config, [config.seed, i])
        values, filters = _trained(config, config.scales[j], x, y, patterns, i + 100 * config.seed)
        for key, value in zip(keys, values, strict=True):
            found[key][i, j] = value
        shown[i, 0] = patterns
        if j in (0, shape[1] - 1):
            shown[i, 1 if j == 0 else 2] = filters
    return {"scales": np.array(config.scales), **found, "shown": shown}


def _problem(config: Config, seed: list[int]) -> tuple[Any, Any, Any]:
    """Both patterns (2, side, side), orthogonal and of norm 1; images and labels, training first.

    Even and odd part of a random pattern get the same norm: it is orthogonal to itself turned.
    """
    rng = np.random.default_rng(seed)
    p, n = config.pattern, config.n + config.tests
    drawn = rng.standard_normal((p, p))
    drawn -= drawn.mean()
    even, odd = drawn + drawn[::-1, ::-1], drawn - drawn[::-1, ::-1]
    pattern = (even / np.linalg.norm(even) + odd / np.linalg.norm(odd)) / np.sqrt(2)
    patterns = np.stack([pattern, pattern[::-1, ::-1]])
    x, label = rng.standard_normal((n, config.side, config.side, 1)), rng.integers(0, 2, n)
    corners = rng.integers(0, config.side - p + 1, (n, 2))
    for image, which, (r, c) in zip(x[..., 0], label, corners, strict=True):
        image[r : r + p, c : c + p] += config.strength * patterns[which]
    return patterns, x, 2.0 * label - 1


def _trained(
    config: Config, scale: float, x: Any, y: Any, patterns: Any, seed: int
) -> tuple[tuple[float, ...], Any]:
    """The numbers of one network; its strongest filters."""
    import torch

    from ntkcore.finite import empirical_ntk, kernel_movement, to_torch, train

    conv = Conv((config.pattern, config.pattern), (1, 1), "VALID", HE, 0.5)
    start = to_torch(
        Serial(conv, Relu(), GlobalAvgPool(), Dense(HE)),
        config.channels,
        input_shape=x.shape[1:],
        alpha=scale / np.sqrt(config.channels),
        centred=True,
        seed=seed,
        dtype="float32",
    )
    z, target, module = x[: config.n], y[: config.n, None], copy.deepcopy(start)
    first = K = empirical_ntk(start, z).astype(np.float64)
    for _ in range(0, LONGEST, CHUNK):
        # In units of 1/curvature; where the kernel grows before the next look, gently.
        rate = (
            (1.5 if scale >= 10 else 0.3)
            * config.n
            / float(np.linalg.eigvalsh(K)[-1])
            * start.alpha**2
        )
        history = train(module, z, target, lr=rate, steps=CHUNK, loss=_hinge, momentum=0.9)
        K = empirical_ntk(module, z).astype(np.float64)
        if history.loss[-1] < config.fitted:
            break
    with torch.no_grad():
        outputs = module(torch.as_tensor(x, dtype=torch.float32)).numpy()[:, 0]
    wrong = outputs * y <= 0
    filters, before = _filters(start, patterns)
    filters, after = _filters(module, patterns)
    moved = kernel_movement(K, first)
    return (wrong[: config.n].mean(), wrong[config.n :].mean(), moved, before, after), filters


def _hinge(f: Any, y: Any) -> Any:
    """Mean of max(0, 1 - y f)^2/2."""
    return ((1 - y * f).clamp(min=0) ** 2).mean() / 2


def _filters(module: Any, patterns: Any) -> tuple[Any, float]:
    """The strongest filter for either label, of norm 1; and the cosine of a filter to its label's
    pattern, in the mean over channels weighted by |a| |w|.

    Under the mean over all places a pattern moved by a pixel serves as well: the best of those.
    """
    (_, conv), (_, out) = module.affine()
    w, a = conv.weight.detach().numpy()[:, 0], out.weight.detach().numpy().ravel()
    size = np.linalg.norm(w, axis=(1, 2))
    w, strength = w / size[:, None, None], a * size
    moved = np.array([_nearby(pattern) for pattern in patterns])
    best = np.einsum("khw,pshw->pks", w, moved).max(2)
    cosine = np.average(np.where(a > 0, best[1], best[0]), weights=np.abs(strength))
    return w[[strength.argmin(), strength.argmax()]], float(cosine)


def _nearby(pattern: Any) -> Any:
    """The pattern moved by up to a pixel, cut by the window, of norm 1: (9, side, side)."""
    p, padded = len(pattern), np.pad(pattern, 1)
    cut = np.array([padded[i : i + p, j : j + p] for i in range(3) for j in range(3)])
    return cut / np.linalg.norm(cut, axis=(1, 2), keepdims=True)


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Both ends fit; only one finds the patterns."""
    test, gain = arrays["test"], arrays["after"] - arrays["before"]
    return [
        Criterion("largest training error, lazy", arrays["train"][:, -1].max(), high=0.02),
        Criterion("largest movement of the kernel, lazy", arrays["moved"][:, -1].max(), high=0.1),
        Criterion("largest change of the filters' cosine, lazy", abs(gain[:, -1]).max(), high=0.05),
        Criterion("least gain of the filters' cosine, features", gain[:, 0].min(), 0.1),
        Criterion("largest training error, features", arrays["train"][:, 0].max(), high=0.02),
        Criterion("largest test error, features", test[:, 0].max(), high=0.1),
        Criterion("test error, lazy over features", test[:, -1].mean() / test[:, 0].mean(), 3),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Errors and filters over the scale; patterns and the strongest filters,
    of the draw in the middle.
    """
    left, right = figure.subfigures(1, 2, width_ratios=(2.2, 1))
    (errors, cosines), scales = left.subplots(1, 2), arrays["scales"]
    errors.plot(scales, arrays["train"].mean(0), "o--", color="0.5", label="training")
    errors.plot(scales, arrays["test"].mean(0), "o-", label="test")
    errors.set(xscale="log", xlabel=r"$\sqrt{h}\,\alpha$", ylabel="error", ylim=(-0.01, None))
    errors.legend(frameon=False)
    cosines.plot(scales, arrays["before"].mean(0), "--", color="0.5", label="as drawn")
    cosines.plot(scales, arrays["after"].mean(0), "o-", label="trained")
    cosines.set(xscale="log", xlabel=r"$\sqrt{h}\,\alpha$", ylabel="filters, cosine to a pattern")
    cosines.set(ylim=(0, 1))
    cosines.legend(frameon=False)
    axes = right.subplots(3, 2)
    middle = np.argsort(arrays["after"][:, 0])[len(arrays["after"]) // 2]
    names = "patterns", f"at {scales[0]:g}", f"at {scales[-1]:g}"
    for row, images, name in zip(axes, arrays["shown"][middle], names, strict=True):
        row[0].set_ylabel(name)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, cmap="RdBu", vmin=-0.5, vmax=0.5)
            ax.set(xticks=(), yticks=())
