"""The arms: models that see the same data,
from the frozen infinite limit to the network that learns its features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntkcore.falsifier import kernel_arms, network_arms
from ntkcore.falsifier.claims import Point
from ntkcore.falsifier.study import Content, Place, Setting, Study


@dataclass(frozen=True)
class Arm:
    """``measure`` a cell; ``settle`` what is tuned once per point; ``seeded``:
    does it draw weights at all?
    """

    label: str
    measure: Callable[[Study, Place, Setting], Content]
    settle: Callable[[Study, Point], Content] | None = None
    seeded: bool = True


ARMS: dict[str, Arm] = {
    "ntk": Arm("infinite NTK", kernel_arms.infinite("ntk", "network"), seeded=False),
    "nngp": Arm("NNGP", kernel_arms.infinite("nngp", "network"), seeded=False),
    "baseline": Arm(
        "baseline's infinite NTK", kernel_arms.infinite("ntk", "baseline"), seeded=False
    ),
    "linearised": Arm("linearised network", network_arms.linearised),
    "lazy": Arm("lazy network", network_arms.lazy, network_arms.settle_lazy),
    "features": Arm("network", network_arms.features, network_arms.settle_features),
}
FROZEN = ("ntk", "nngp")  # the infinite limit of the network itself


def arms_of(study: Study) -> list[str]:
    """Those that this study has: no infinite ones without a spec,
    no NTK where only the read-out is trained.
    """
    absent = set()
    if study.network.spec is None:
        absent |= {"ntk", "nngp"}
    if study.training.readout:
        absent |= {"ntk"}
    if study.baseline is None:
        absent |= {"baseline"}
    return [name for name in ARMS if name not in absent]
