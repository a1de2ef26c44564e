"""Early learning turns the kernel: linearised after that, a network reaches its final error;
from the start, never.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.nets import mlp

CLAIM = (
    "On a sparse parity, which no frozen kernel of these sizes learns, the network linearised after"
    " its kernel's early rotation reaches the network's final error, while linearised at the start"
    " it stays at chance (Fort et al. 2020)."
)


@dataclass(frozen=True)
class Config:
    """Parity of k of d bits, samples, width, steps, and where to linearise."""

    d: int = 30
    k: int = 3
    n: int = 1500
    tests: int = 1000
    width: int = 512
    steps: int = 2000
    looks: tuple[int, ...] = (0, 25, 50, 100, 200, 400, 800)
    seed: int = 0


QUICK: dict[str, Any] = {"steps": 600, "looks": (0, 50, 150, 300), "width": 256}


def run(config: Config) -> dict[str, Any]:
    """Test errors over the targets' variance, of the network and linearised from each look on;
    its kernel's path.
    """
    from ntkcore.finite import Linearized, empirical_ntk, kernel_distance, nmse, to_torch, train

    rng = np.random.default_rng(config.seed)
    x = rng.choice([-1.0, 1.0], (config.n + config.tests, config.d))
    y = x[:, : config.k].prod(1)
    x, z, y, target = x[: config.n], x[config.n :], y[: config.n], y[config.n :]
    module = to_torch(
        mlp(1, b_std=0.1),
        config.width,
        input_shape=(config.d,),
        parameterization="mup",
        seed=config.seed,
    )
    K_0, networks, linearised, distance, done = empirical_ntk(module, x[:300]), [], [], [], 0
    for step in steps((*config.looks, config.steps)):
        if step > done:
            _train(train, module, x, y, step - done, config.seed + step)
            done = step
        networks.append(nmse(_outputs(module, z), target))
        distance.append(kernel_distance(empirical_ntk(module, x[:300]), K_0))
        if step < config.steps:
            frozen = Linearized(copy.deepcopy(module), x, y, ridge=1e-3)
            linearised.append(nmse(np.asarray(frozen.predict(np.inf, z)).ravel(), target))
    return {
        "steps": np.array([*config.looks, config.steps]),
        "network": np.array(networks),
        "linearised": np.array(linearised),
        "distance": np.array(distance),
    }


def _train(train: Any, module: Any, x: Any, y: Any, steps: int, seed: int) -> None:
    train(
        module,
        x,
        y,
        optimizer="adamw",
        lr=1e-2,
        weight_decay=1e-2,
        batch_size=128,
        steps=steps,
        base_width=64,
        seed=seed,
    )


def _outputs(module: Any, z: Any) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.as_tensor(z, dtype=torch.float32)).numpy()[:, 0].astype(float)


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Frozen at the start: chance. The network: learned. Linearised early:
    ahead of the network by far.
    """
    ahead = arrays["network"][:-1] - arrays["linearised"]
    best = int(ahead.argmax())
    return [
        Criterion("error linearised at the start", arrays["linearised"][0], 0.9),
        Criterion("the network's final error", arrays["network"][-1], high=0.1),
        Criterion(
            "least error when linearised from a look on", arrays["linearised"].min(), high=0.1
        ),
        Criterion("how far a linearised network is ahead of the network then", ahead[best], 0.1),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Errors and the kernel's distance over steps."""
    ax = figure.add_subplot()
    ax.plot(arrays["steps"], arrays["network"], "o-", label="network")
    ax.plot(
        arrays["steps"][:-1],
        arrays["linearised"],
        "s-",
        label="linearised from here, trained to the end",
    )
    ax.plot(
        arrays["steps"], arrays["distance"], "k:", label="distance of the kernel from its start"
    )
    ax.set(xscale="symlog", xlabel="steps", ylabel="test error / variance", ylim=(-0.05, None))
    ax.legend(frameon=False)
