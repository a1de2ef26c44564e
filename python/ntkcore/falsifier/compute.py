"""Compute, 6 x parameters x batch x steps, and the networks that so much pays for.

A cell at a point of this axis is the best of the widths `Training.widths`, each trained for as many
steps as the compute pays for and stopped at its best time: the minimum over width and steps, chosen
on the validation set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ntkcore.falsifier.claims import COMPUTE, Point
from ntkcore.falsifier.starts import draw_network
from ntkcore.falsifier.study import Content, Place, Setting, Study

Measure = Callable[[Study, Place, Setting], Content]


def paid(study: Study, point: Point) -> list[Study]:
    """The study at every width of which the point's compute pays for a step, with so many steps,
    the narrowest first; the study itself on other axes.
    """
    if point[:1] != (COMPUTE,):
        return [study]
    sized = [
        replace(study, network=replace(study.network, width=width))
        for width in study.training.widths
    ]
    steps = [int(point[1] // cost_of_step(each, point)) for each in sized]  # type: ignore[misc]
    return [
        replace(each, training=replace(each.training, steps=count))
        for each, count in zip(sized, steps, strict=True)
        if count
    ]


def cost_of_step(study: Study, point: Point) -> int:
    """6 x parameters x batch: a product and a sum forwards, twice as many backwards."""
    split, training = study.split(point, 0), study.training
    module = draw_network(study, Place(point, 0, 0), training.parameterization, split.y.shape[1])
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return 6 * int(parameters) * training.batch(len(split.x))


def best_of_widths(measure: Measure, *, has_width: bool = True) -> Measure:
    """The arm at its best width, by the validation set; one that has no width is counted as the
    narrowest network, which takes the most steps.
    """

    def measured(study: Study, place: Place, setting: Setting) -> Content:
        if place.point[:1] != (COMPUTE,):
            return measure(study, place, setting)
        found = []
        for each in paid(study, place.point)[: None if has_width else 1]:
            content = measure(each, place, setting)
            content["setting"] = {**content["setting"], "width": each.network.width}
            found.append(content)
        return min(found, key=lambda content: float(content["validation"]))

    return measured
