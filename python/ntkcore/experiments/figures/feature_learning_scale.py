"""A small student of three neurons: from small weights it learns features and wins,
from large ones it stays lazy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.theory.sphere import random_points

CLAIM = (
    "Over the scale tau of its initial weights, a two-layer ReLU student of a three-neuron teacher"
    " goes from feature learning (its neurons turn to the teacher's, small test loss) to lazy"
    " training (they stay, large loss): Chizat et al. 2019, figure 1. Left: 16 neurons |a| w in the"
    " plane, circles before and dots after training, the teacher's directions dotted, at tau = 0.1"
    " and 2. Right: d = 50; the cosine of a student's neuron to the nearest teacher's neuron of its"
    " sign, in the mean over neurons weighted by |a| |w|."
)


@dataclass(frozen=True)
class Config:
    """Dimension, samples, student's neurons, steps, scales, seeds;
    and the same of the student in the plane.
    """

    d: int = 50
    n: int = 500
    tests: int = 2000
    neurons: int = 100
    steps: int = 12_000
    rate: float = 0.02
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    seeds: int = 2
    plane_n: int = 15
    plane_neurons: int = 16
    plane_steps: int = 100_000
    plane_rate: float = 0.005
    plane_scales: tuple[float, float] = (0.1, 2.0)
    seed: int = 0


QUICK: dict[str, Any] = {
    "scales": (0.01, 0.1, 3.0),
    "seeds": 1,
    "steps": 5000,
    "plane_steps": 30_000,
}
LOOKS = 40  # at the student in the plane


def run(config: Config) -> dict[str, Any]:
    """Test loss over the targets' variance, movement of the neurons, their cosine to the
    teacher's before and after, (seeds, scales); paths in the plane.
    """
    loss, moved, before, after = np.empty((4, config.seeds, len(config.scales)))
    for i in range(config.seeds):
        x, y, teacher, start = _problem(
            config.d, config.n + config.tests, config.neurons, [config.seed, i]
        )
        z, target = x[config.n :], y[config.n :]
        for j, tau in enumerate(steps(config.scales)):
            first, (W, a) = _train(
                x[: config.n], y[: config.n], start, tau, config.rate, [0, config.steps]
            )
            loss[i, j] = ((np.maximum(z @ W.T, 0) @ a - target) ** 2).mean() / target.var()
            moved[i, j] = _moved(first, (W, a))
            before[i, j], after[i, j] = _cosine(first, teacher), _cosine((W, a), teacher)
    return {
        "scales": np.array(config.scales),
        "loss": loss,
        "movement": moved,
        "cosine_before": before,
        "cosine": after,
        **_plane(config),
    }


def _plane(config: Config) -> dict[str, Any]:
    """Neurons |a| w over training (scales, looks, neurons, 2), in units of the greatest;
    the teacher's directions.
    """
    x, y, teacher, start = _problem(2, config.plane_n, config.plane_neurons, [config.seed])
    looks = [0, *np.unique(np.geomspace(1, config.plane_steps, LOOKS - 1).astype(int)).tolist()]
    paths, moved, turned = [], [], []
    for tau in config.plane_scales:
        states = _train(x, y, start, tau, config.plane_rate, looks)
        path = np.array([np.abs(a)[:, None] * W for W, a in states])
        paths.append(path / np.linalg.norm(path, axis=2).max())
        moved.append(_moved(states[0], states[-1]))
        turned.append(_cosine(states[-1], teacher))
    return {
        "plane_scales": np.array(config.plane_scales),
        "plane_paths": np.array(paths),
        "plane_movement": np.array(moved),
        "plane_cosine": np.array(turned),
        "teacher": teacher[0],
    }


def _problem(d: int, n: int, neurons: int, seed: list[int]) -> tuple[Any, Any, Any, Any]:
    """x on the sphere of radius sqrt(d), y by three ReLU neurons; the teacher
    and its signs; the student at tau = 1, twin neurons.
    """
    rng = np.random.default_rng(seed)
    teacher, sign = random_points(3, d, rng), rng.choice([-1.0, 1.0], 3)
    x = random_points(n, d, rng) * np.sqrt(d)
    W, a = (
        rng.standard_normal((neurons // 2, d)) * np.sqrt(2 / d),
        rng.standard_normal(neurons // 2),
    )
    return (
        x,
        np.maximum(x @ teacher.T, 0) @ sign,
        (teacher, sign),
        (np.concatenate([W, W]), np.concatenate([a, -a])),
    )


def _train(
    x: Any, y: Any, start: Any, tau: float, rate: float, looks: list[int]
) -> list[tuple[Any, Any]]:
    """(W, a) at the looks of full-batch descent on both layers, from tau times ``start``,
    where the student is 0.
    """
    W, a = (part * tau for part in start)
    rate, seen = rate / max(1.0, tau**2), []
    for step in range(looks[-1] + 1):
        if step in looks:
            seen.append((W, a))
        h = np.maximum(x @ W.T, 0)
        residual = (h @ a - y) / len(y)
        back = np.outer(residual, a) * (h > 0)
        a, W = a - rate * h.T @ residual, W - rate * back.T @ x
    return seen


def _moved(before: Any, after: Any) -> float:
    """||W - W_0||/||W_0||."""
    return float(np.linalg.norm(after[0] - before[0]) / np.linalg.norm(before[0]))


def _cosine(student: Any, teacher: Any) -> float:
    """Of a neuron to the nearest teacher's of its sign; mean weighted by |a| |w|."""
    (W, a), (directions, sign) = student, teacher
    length = np.linalg.norm(W, axis=1)
    cosines = W @ directions.T / length[:, None]
    cosines[np.sign(a)[:, None] != sign] = -1.0  # of no use: -1 where the teacher has no such sign
    return float(np.average(cosines.max(1), weights=np.abs(a) * length))


def expected(config: Config, arrays: dict[str, Any]) -> list[Criterion]:
    """Far apart at both ends, in loss, in movement and in where the neurons point."""
    loss, moved = arrays["loss"].mean(0), arrays["movement"].mean(0)
    cosine, turned = arrays["cosine"], abs(arrays["cosine"] - arrays["cosine_before"])
    feature, lazy = arrays["plane_movement"]
    return [
        Criterion("test loss at the largest scale over that at the least", loss[-1] / loss[0], 20),
        Criterion("movement at the least scale", moved[0], 1),
        Criterion("movement at the largest scale", moved[-1], high=0.1),
        Criterion("least cosine to the teacher at the least scale", cosine[:, 0].min(), 0.9),
        Criterion(
            "largest change of the cosine at the largest scale", turned[:, -1].max(), high=0.05
        ),
        Criterion("movement in the plane, tau = 0.1", feature, 1),
        Criterion("movement in the plane, tau = 2", lazy, high=0.1),
        Criterion("cosine in the plane, tau = 0.1", arrays["plane_cosine"][0], 0.9),
    ]


def plot(arrays: dict[str, Any], figure: Any) -> None:
    """Two students in the plane; cosine, loss and movement over the scale."""
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.2, 1.2))
    for ax, tau, path in zip(axes, arrays["plane_scales"], arrays["plane_paths"], strict=False):
        _plot_plane(ax, path, arrays["teacher"])
        ax.set_title(f"tau = {tau:g}")
    axes[2].plot(
        arrays["scales"], arrays["cosine_before"].mean(0), "--", color="0.5", label="drawn"
    )
    axes[2].plot(arrays["scales"], arrays["cosine"].mean(0), "o-", label="trained")
    axes[2].set(xscale="log", xlabel="tau", ylabel="cosine to the teacher", ylim=(None, 1.02))
    axes[2].legend(frameon=False)
    ax, other = axes[3], axes[3].twinx()
    ax.plot(arrays["scales"], arrays["loss"].mean(0), "o-", color="C0")
    other.plot(arrays["scales"], arrays["movement"].mean(0), "s--", color="0.5")
    ax.set(xscale="log", yscale="log", xlabel="tau")
    ax.set_ylabel("test loss / variance", color="C0")
    other.set(yscale="log")
    other.set_ylabel("|W - W_0| / |W_0|", color="0.4")


def _plot_plane(ax: Any, path: Any, teacher: Any) -> None:
    for direction in teacher:
        ax.plot(*np.outer(direction, [0, 1.1]), ":", color="C3", lw=1.2)
    ax.plot(path[:, :, 0], path[:, :, 1], "-", color="C0", lw=0.8)
    ax.plot(*path[0].T, "o", mfc="none", mec="0.5", ms=6)
    ax.plot(*path[-1].T, ".", color="k", ms=5)
    ax.set(aspect="equal", xticks=(), yticks=(), xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
