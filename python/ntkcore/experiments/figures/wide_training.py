"""Ensembles of wide networks are trained as the kernel says: mean and variance over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Erf
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics, GradientDescent

CLAIM = (
    "The outputs of an ensemble of wide networks during gradient descent have the mean and the"
    " variance of the infinite network in closed form, and so have its losses, in training and on"
    " new points (Lee et al. 2019, figure 2): one hidden layer of erf, 16 samples."
)


@dataclass(frozen=True)
class Config:
    """Width, networks, samples, steps at which to look."""

    width: int = 1024
    networks: int = 150
    samples: int = 16
    tests: int = 24
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    seed: int = 0


QUICK: dict[str, Any] = {"width": 512, "networks": 120, "steps": (0, 3, 30, 100)}


def run(config: Config) -> dict[str, Any]:
    """Mean and variance, measured and in closed form, (times, training and test points);
    mean losses of both.
    """
    from ntkcore.finite import to_torch, train

    rng = np.random.default_rng(config.seed)
    z, n = rng.standard_normal((config.samples + config.tests, 5)), config.samples
    target, net = np.sin(z[:, 0]) + 0.5 * z[:, 1], mlp(1, 1.4, 0.2, Erf())
    x, y = z[:n], target[:n]
    K, S = (kernel(net, x, get=get, dtype=np.float64) for get in ("ntk", "nngp"))
    lr = n / float(np.linalg.eigvalsh(K)[-1])
    dynamics = Dynamics(K, y, GradientDescent(lr), nngp=S)
    points = dynamics.points(
        kernel(net, z, x), kernel(net, z, x, "nngp"), kernel(net, z, get="nngp")
    )
    times = np.array(config.steps)
    seen = np.empty((config.networks, len(times), len(z)))
    for i, outputs in enumerate(steps(seen)):
        module = to_torch(
            net, config.width, input_shape=(5,), seed=i + 1000 * config.seed, dtype="float64"
        )
        done = 0
        for row, step in zip(outputs, config.steps, strict=True):
            if step > done:
                train(module, x, y, lr=lr, steps=step - done)
                done = step
            row[:] = _outputs(module, z)
    mean, variance = (
        points.mean(times).reshape(len(times), -1),
        points.covariance(times, diagonal=True),
    )
    squares, theory = ((seen - target) ** 2).mean(0) / 2, ((mean - target) ** 2 + variance) / 2
    return {
        "steps": times,
        "mean": seen.mean(0)[:, n:],
        "variance": seen.var(0, ddof=1)[:, n:],
        "theory_mean": mean[:, n:],
        "theory_variance": variance[:, n:],
        "loss": np.array([squares[:, :n].mean(1), squares[:, n:].mean(1)]),
        "theory_loss": np.array([theory[:, :n].mean(1), theory[:, n:].mean(1)]),
        "networks": config.networks,
    }


def _outputs(module: Any, z: Any) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.as_tensor(z)).numpy()[:, 0]


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Errors of the mean in standard errors (1 would be chance alone), the variances' ratio,
    the losses.
    """
    error = (arrays["mean"] - arrays["theory_mean"]) / np.sqrt(
        arrays["theory_variance"] / config.networks
    )
    ratio = arrays["variance"].sum(1) / arrays["theory_variance"].sum(1)
    losses = abs(arrays["loss"] - arrays["theory_loss"]).max(1) / arrays["theory_loss"][:, 0]
    loose = 0.1 if config.networks >= 150 else 0.2
    return [
        Criterion(
            "error of the mean, root mean square in standard errors",
            np.sqrt((error**2).mean()),
            high=1.3,
        ),
        Criterion("least ratio of variances over time", ratio.min(), 1 - loose),
        Criterion("largest ratio of variances over time", ratio.max(), high=1 + loose),
        Criterion(
            "largest difference of training losses, of that at the start", losses[0], high=loose
        ),
        Criterion("largest difference of test losses, of that at the start", losses[1], high=loose),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Losses over time; test points: mean at the last step with its band;
    total variance over time.
    """
    losses, left, right = figure.subplots(1, 3)
    for name, colour, row, theory in zip(
        ("training", "test"), ("C0", "C1"), arrays["loss"], arrays["theory_loss"], strict=True
    ):
        losses.plot(arrays["steps"], theory, color="0.4")
        losses.plot(arrays["steps"], row, "o", color=colour, label=name)
    losses.set(xscale="symlog", yscale="log", xlabel="steps", ylabel="loss, mean over networks")
    losses.legend(frameon=False)
    order = np.argsort(arrays["theory_mean"][-1])
    mean, spread = arrays["theory_mean"][-1][order], np.sqrt(arrays["theory_variance"][-1][order])
    place = np.arange(len(order))
    left.fill_between(
        place, mean - spread, mean + spread, color="0.85", label="theory ± 1 deviation"
    )
    left.plot(place, mean, color="0.4")
    left.errorbar(
        place,
        arrays["mean"][-1][order],
        np.sqrt(arrays["variance"][-1][order]),
        fmt=".",
        color="C0",
        label="networks",
    )
    left.set(xlabel="test point", ylabel=f"output after {arrays['steps'][-1]} steps")
    left.legend(frameon=False)
    right.plot(arrays["steps"], arrays["theory_variance"].mean(1), color="0.4", label="theory")
    right.plot(arrays["steps"], arrays["variance"].mean(1), "o", label="networks")
    right.set(
        xscale="symlog", xlabel="steps", ylabel="variance, mean over test points", ylim=(0, None)
    )
    right.legend(frameon=False)
