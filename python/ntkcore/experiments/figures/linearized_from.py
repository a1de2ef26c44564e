"""Early learning turns the kernel: linearised after that, a network learns what it could not
from its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp

CLAIM = (
    "On a sparse parity, which no frozen kernel of these sizes learns, a network's kernel turns"
    " fast while the network learns, and by a small share of that speed afterwards. Linearised"
    " before it turns, the network stays at chance; linearised while it turns, and fitted to labels"
    " that it never saw, it is far ahead of what it is itself by then (Fort et al. 2020). Two"
    " hidden layers, maximal-update parameterization, AdamW."
)


@dataclass(frozen=True)
class Config:
    """Parity of k of d bits, samples, width, steps, where to linearise, draws."""

    d: int = 30
    k: int = 3
    n: int = 1500
    tests: int = 1000
    width: int = 256
    steps: int = 1280
    looks: tuple[int, ...] = (0, 10, 20, 30, 40, 80, 160, 320, 640)
    draws: int = 6
    seed: int = 0


QUICK: dict[str, Any] = {
    "n": 1200,
    "tests": 400,
    "steps": 640,
    "looks": (0, 30, 80, 320),
    "draws": 2,
}


def run(config: Config) -> dict[str, Any]:
    """Test errors over the targets' variance, of the network and linearised from each look on,
    and the kernel's distance from its start: (draws, looks).
    """
    paths = [_path(config, draw + 100 * config.seed) for draw in steps(range(config.draws))]
    return {
        "steps": np.array([*config.looks, config.steps]),
        **{key: np.array([path[key] for path in paths]) for key in paths[0]},
    }


def _path(config: Config, seed: int) -> dict[str, list[float]]:
    """One draw of the data and of the network. The linear model's labels are fresh ones:
    it owes nothing to labels that the features have stored.
    """
    from ntkcore.finite import Linearized, empirical_ntk, kernel_distance, nmse, to_torch, train

    n = config.n
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (2 * n + config.tests, config.d))
    y = x[:, : config.k].prod(1)
    fresh, test = slice(n, 2 * n), slice(2 * n, None)
    module = to_torch(
        mlp(2, b_std=0.1),
        config.width,
        input_shape=(config.d,),
        parameterization="mup",
        seed=seed,
    )
    options: dict[str, Any] = {
        "optimizer": "adamw",
        "lr": 1e-2,
        "weight_decay": 1e-2,
        "batch_size": 128,
        "base_width": 64,
    }
    K_0, done = empirical_ntk(module, x[test][:300]), 0
    path: dict[str, list[float]] = {"network": [], "linearised": [], "distance": []}
    for step in (*config.looks, config.steps):
        if step > done:
            train(module, x[:n], y[:n], steps=step - done, seed=seed + step, **options)
            done = step
        frozen = Linearized(module, x[fresh], y[fresh], ridge=1e-3)
        now, end = frozen.predict([0, np.inf], x[test])
        path["network"].append(nmse(now, y[test]))
        path["linearised"].append(nmse(end, y[test]))
        path["distance"].append(kernel_distance(empirical_ntk(module, x[test][:300]), K_0))
    return path


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """The worst draw each. Frozen at the start: chance. The network: learned. Linearised where the
    two differ most: far ahead. S: most of its way while the network learns, then slow.
    """
    network, linearised, S = arrays["network"], arrays["linearised"], arrays["distance"]
    best = int((network - linearised).mean(0).argmax())
    learned = int((network.mean(0) < 0.05).argmax())
    early = S[:, learned] / arrays["steps"][learned]
    late = (S[:, -1] - S[:, -2]) / (arrays["steps"][-1] - arrays["steps"][-2])
    return [
        Criterion("least error linearised at the start", linearised[:, 0].min(), 0.9),
        Criterion("the network's final error, worst", network[:, -1].max(), high=0.05),
        Criterion(
            f"linearised at step {arrays['steps'][best]}: largest share of the network's error",
            (linearised / network)[:, best].max(),
            high=0.5,
        ),
        Criterion(
            "least error once linearised while the network's is above 0.5, worst draw",
            np.where(network > 0.5, linearised, np.inf).min(1).max(),
            high=0.5,
        ),
        Criterion(
            f"share of S's way done at step {arrays['steps'][learned]}, least",
            (S[:, learned] / S[:, -1]).min(),
            0.5,
        ),
        Criterion(
            "speed of S at the end over that until then, largest", (late / early).max(), high=0.1
        ),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Errors, and the kernel's distance, over steps; a thin line a draw, thick their mean."""
    left, right = figure.subplots(1, 2)
    for name, color, label in (
        ("network", "C0", "network"),
        ("linearised", "C1", "linearised from here on"),
    ):
        left.plot(arrays["steps"], arrays[name].T, color=color, lw=0.5)
        left.plot(arrays["steps"], arrays[name].mean(0), "o-", color=color, label=label)
    left.set(xscale="symlog", xlabel="steps", ylabel="test error / variance", ylim=(-0.05, None))
    left.legend(frameon=False, fontsize=8, loc="upper right")
    right.plot(arrays["steps"], arrays["distance"].T, color="k", lw=0.5)
    right.plot(arrays["steps"], arrays["distance"].mean(0), "ko-")
    right.set(xlabel="steps", ylabel="kernel's distance S from its start", ylim=(0, None))
