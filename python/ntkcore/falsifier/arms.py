"""The arms: models that see the same data,
from the frozen infinite limit to the network that learns its features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntkcore.falsifier import kernel_arms, network_arms
from ntkcore.falsifier.claims import COMPUTE, Claim, Point
from ntkcore.falsifier.compute import best_of_widths, paid
from ntkcore.falsifier.study import ALL, Content, Place, Setting, Study


@dataclass(frozen=True)
class Arm:
    """``measure`` a cell; ``settle`` what is tuned once per point; ``seeded``:
    does it draw weights at all?
    """

    label: str
    measure: Callable[[Study, Place, Setting], Content]
    settle: Callable[[Study, Point], Content] | None = None
    seeded: bool = True


def _infinite(label: str, get: str, of: str) -> Arm:
    measure = best_of_widths(kernel_arms.infinite(get, of), has_width=False)
    settle = kernel_arms.settle_infinite(get, of)
    return Arm(label, measure, lambda study, point: settle(paid(study, point)[0], point), False)


ARMS: dict[str, Arm] = {
    "ntk": _infinite("infinite NTK", "ntk", "network"),
    "nngp": _infinite("NNGP", "nngp", "network"),
    "mean": Arm("mean kernel", best_of_widths(network_arms.mean_kernel), seeded=False),
    "baseline": _infinite("baseline's infinite NTK", "ntk", "baseline"),
    "linearised": Arm("linearised network", best_of_widths(network_arms.linearised)),
    "lazy": Arm("lazy network", best_of_widths(network_arms.lazy), network_arms.settle_lazy),
    "features": Arm("network", best_of_widths(network_arms.features), network_arms.settle_features),
}
FROZEN = ("ntk", "nngp", "mean")  # the limit of the network itself


def tuning(study: Study) -> str:
    """How much every arm was tuned, and what was not tuned alike."""
    training, spec = study.training, study.network.at(study.points()[-1])[0]
    looks = training.looks if training.early_stopping else 1
    ridges, nets = len(training.ridges()), 1
    if {"ntk", "nngp"} & set(arms_of(study)) and study.chooses():
        assert spec is not None
        nets = len(kernel_arms.variants(spec))
    text = (
        f"Networks had {len(training.configurations())} configurations x {looks} times, infinite"
        f" kernels {nets} choices of W_std and b_std x {ridges} ridges x {looks} times, kernels of"
        f" finite networks {ridges} ridges x {looks} times; configurations and choices on the first"
        " split, ridges and times on each. Not tuned alike: the depth of kernels, their filters and"
        " pools are the network's"
    )
    if "mean" in arms_of(study):
        text += ", as are their W_std and b_std"
    if network_arms.of_mean_output(study):
        text += (
            "; the kernel of a finite network is the mean over outputs, the same for each, for"
            f" there are more than {network_arms.FULL} samples x outputs"
        )
    if any(claim.axis == COMPUTE for claim in study.claims):
        text += (
            "; over compute kernels take steps of plain gradient descent, of all samples, for each"
            " step of the network's optimiser"
        )
    return text + "."


def arms_for(study: Study, claim: Claim) -> list[str]:
    """Those that can show a claim's effect: over the width the infinite ones cannot."""
    return [arm for arm in arms_of(study) if claim.axis != "width" or ARMS[arm].seeded]


def arms_of(study: Study) -> list[str]:
    """Those that this study has: the mean kernel over initialisations for the infinite ones without
    a spec, where some parameters do not train, or from a fitted head; no NTK where only the
    read-out is solved for.
    """
    absent = set()
    training = study.training
    finite = study.network.spec is None or training.parameters != ALL or bool(training.head)
    absent |= {"ntk", "nngp"} if finite else {"mean"}
    if study.training.readout:
        absent |= {"ntk"}
    if study.baseline is None:
        absent |= {"baseline"}
    return [name for name in ARMS if name not in absent]
