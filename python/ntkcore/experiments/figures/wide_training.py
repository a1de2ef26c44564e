"""Ensembles of wide networks are trained as the kernel says: mean and variance over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.engine.kernels import kernel
from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.specs.activations import Erf
from ntkcore.specs.layers import Layer
from ntkcore.specs.nets import mlp
from ntkcore.theory.dynamics import Dynamics, GradientDescent

CLAIM = (
    "The outputs of an ensemble of wide networks during gradient descent have the mean and the"
    " variance of the infinite network in closed form, and so have its losses, in training and on"
    " new points (Lee et al. 2019, figure 2): one, two and three hidden layers of erf, 16 samples."
)
DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Config:
    """Width of each depth, networks, samples, steps at which to look."""

    widths: tuple[int, ...] = (1024, 512, 512)
    networks: int = 150
    samples: int = 16
    tests: int = 24
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    seed: int = 0


QUICK: dict[str, Any] = {"widths": (512, 256, 256), "networks": 120, "steps": (0, 3, 30)}


def run(config: Config) -> dict[str, Any]:
    """Mean and variance on test points, measured and in closed form, (depths, times, points);
    mean losses on training and test points, (depths, 2, times).
    """
    rng = np.random.default_rng(config.seed)
    z = rng.standard_normal((config.samples + config.tests, 5))
    target = np.sin(z[:, 0]) + 0.5 * z[:, 1]
    found = [
        _ensemble(config, mlp(depth, 1.4, 0.2, Erf()), width, z, target)
        for depth, width in zip(DEPTHS, config.widths, strict=True)
    ]
    return {
        "steps": np.array(config.steps),
        **{key: np.array([one[key] for one in found]) for key in found[0]},
        "networks": config.networks,
    }


def _ensemble(config: Config, net: Layer, width: int, z: Any, target: Any) -> dict[str, Any]:
    n, times = config.samples, np.array(config.steps)
    x, y = z[:n], target[:n]
    K, S = (kernel(net, x, get=get, dtype=np.float64) for get in ("ntk", "nngp"))
    lr = n / float(np.linalg.eigvalsh(K)[-1])
    points = Dynamics(K, y, GradientDescent(lr), nngp=S).points(
        kernel(net, z, x), kernel(net, z, x, "nngp"), kernel(net, z, get="nngp")
    )
    mean = points.mean(times).reshape(len(times), -1)
    variance = points.covariance(times, diagonal=True)
    seen = np.array(
        [
            _trained(config, net, width, i + 1000 * config.seed, lr, z, y)
            for i in steps(range(config.networks))
        ]
    )
    squares, theory = ((seen - target) ** 2).mean(0) / 2, ((mean - target) ** 2 + variance) / 2
    return {
        "mean": seen.mean(0)[:, n:],
        "variance": seen.var(0, ddof=1)[:, n:],
        "theory_mean": mean[:, n:],
        "theory_variance": variance[:, n:],
        "loss": np.array([squares[:, :n].mean(1), squares[:, n:].mean(1)]),
        "theory_loss": np.array([theory[:, :n].mean(1), theory[:, n:].mean(1)]),
    }


def _trained(config: Config, net: Layer, width: int, seed: int, lr: float, z: Any, y: Any) -> Any:
    """Outputs of one network at the steps looked at, (times, points)."""
    from ntkcore.finite import to_torch, train

    module = to_torch(net, width, input_shape=(z.shape[1],), seed=seed, dtype="float32")
    outputs, done = [], 0
    for step in config.steps:
        if step > done:
            train(module, z[: len(y)], y, lr=lr, steps=step - done)
            done = step
        outputs.append(_outputs(module, z))
    return np.array(outputs)


def _outputs(module: Any, z: Any) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.as_tensor(z, dtype=torch.float32)).numpy()[:, 0]


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Of each depth: errors of the mean in standard errors (1 would be chance alone),
    the variances' ratio, the losses.
    """
    error = (arrays["mean"] - arrays["theory_mean"]) / np.sqrt(
        arrays["theory_variance"] / config.networks
    )
    ratio = arrays["variance"].sum(2) / arrays["theory_variance"].sum(2)
    off = abs(arrays["loss"] - arrays["theory_loss"]).max(2) / arrays["theory_loss"][:, :, 0]
    loose = 0.1 if config.networks >= 150 else 0.2
    return [
        criterion
        for i, depth in enumerate(DEPTHS)
        for criterion in (
            Criterion(
                f"{depth} hidden: error of the mean, root mean square in standard errors",
                np.sqrt((error[i] ** 2).mean()),
                high=1.3,
            ),
            Criterion(f"{depth} hidden: least ratio of variances", ratio[i].min(), 1 - loose),
            Criterion(f"{depth} hidden: largest ratio", ratio[i].max(), high=1 + loose),
            Criterion(
                f"{depth} hidden: largest difference of losses, of those at the start",
                off[i].max(),
                high=loose,
            ),
        )
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Losses over time, test points' means at the last step, mean variance over time;
    a colour a depth, theory as lines.
    """
    losses, means, variances = figure.subplots(1, 3)
    times = arrays["steps"]
    for i, depth in enumerate(DEPTHS):
        colour = {"color": f"C{i}"}
        for part, style, line in ((0, "x", ":"), (1, "o", "-")):
            losses.plot(times, arrays["theory_loss"][i, part], line, lw=1, **colour)
            losses.plot(times, arrays["loss"][i, part], style, ms=4, **colour)
        error = np.sqrt(arrays["theory_variance"][i, -1] / arrays["networks"])
        at = arrays["theory_mean"][i, -1], arrays["mean"][i, -1]
        means.errorbar(*at, error, fmt="o", ms=3, **colour)
        variances.plot(times, arrays["theory_variance"][i].mean(1), lw=1, **colour)
        measured = arrays["variance"][i].mean(1)
        variances.plot(times, measured, "o", ms=4, label=f"{depth} hidden", **colour)
    losses.set(xlim=(-0.2, 2 * times[-1]), ylim=(1e-9, 3))  # below, float32 ends
    means.axline((0, 0), slope=1, color="0.6", lw=1)
    losses.set(xscale="symlog", yscale="log", xlabel="steps", ylabel="loss; x training, o test")
    means.set(xlabel="mean of theory", ylabel=f"mean of networks, {times[-1]} steps")
    variances.set(xscale="symlog", xlabel="steps", ylabel="variance, test points", ylim=(0, None))
    variances.legend(frameon=False)
