"""Claims whose verdict is known, five on each side: they calibrate the falsifier.

    for control in CONTROLS: run_control(control, "controls", workers=2)

Adding one: its name, the verdict that is right, and the arguments of `falsify`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ntkcore.falsifier import figures, tasks
from ntkcore.falsifier.arms import ARMS, FROZEN
from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.pages import markdown
from ntkcore.falsifier.report import Report
from ntkcore.falsifier.run import falsify
from ntkcore.falsifier.study import Training
from ntkcore.falsifier.verdict import NEEDS, PRESENT
from ntkcore.specs.nets import HE, mlp
from ntkcore.store import files

NET = mlp(1, b_std=0.1)
DIGITS = functools.partial(tasks.digit_parity, components=50)
# Training to the end, unregularised.
PLAIN: dict[str, Any] = {"ridge": (0.0, 0.0), "early_stopping": False, "weight_decays": (0.0,)}
MARK = "Controls of the falsifier"  # the overview's first words
COLUMNS = ("features", "lazy", "linearised", *FROZEN)  # arms of the overview


@dataclass(frozen=True)
class Control:
    """A phenomenon, the verdict that is right, and the arguments of `falsify`."""

    name: str
    expected: str
    task: Any
    claims: tuple[Claim, ...]
    training: Training
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """Its folder."""
        return self.name.replace(" ", "-")

    def right(self, report: Report) -> bool:
        """Has every claim the verdict that is right?"""
        return all(verdict.kind == self.expected for verdict in report.verdicts)


CONTROLS = [
    Control(
        "spectral bias on the sphere",
        PRESENT,
        functools.partial(tasks.harmonic, n=300),
        (
            Claim(
                "low frequencies first",
                "half_time",
                "increases",
                minimum=0.3,
                axis="k",
                values=(1, 2, 4),
            ),
        ),
        Training(
            steps=4000, optimizer="sgd", learning_rates=(0.5,), batch_size=None, looks=60, **PLAIN
        ),
        {"net": mlp(1), "width": 256},
    ),
    Control(
        "double descent of random features",
        PRESENT,
        functools.partial(DIGITS, n=300, noise=0.1),
        (
            Claim(
                "error peaks over the width",
                "nmse",
                "peak",
                0.3,
                axis="width",
                values=(30, 100, 300, 1000, 3000),
            ),
        ),
        Training(steps=60, learning_rates=(1e-2,), readout=True, **PLAIN),
        {"net": mlp(1)},
    ),
    Control(
        "interpolation of label noise",
        PRESENT,
        functools.partial(DIGITS, n=800),
        (
            Claim(
                "noisy labels are fitted",
                "train_error",
                "everywhere",
                minimum=0.95,
                axis="noise",
                values=(0.1, 0.2),
            ),
            Claim(
                "the test error stays small",
                "error",
                "everywhere",
                minimum=0.3,
                axis="noise",
                values=(0.1, 0.2),
            ),
        ),
        Training(steps=1500, learning_rates=(1e-2,), **PLAIN),
    ),
    Control(
        "random labels are fitted",
        PRESENT,
        functools.partial(tasks.random_labels, n=500, components=50),
        (Claim("random labels are fitted", "train_error", minimum=0.95),),
        Training(steps=1500, learning_rates=(1e-2,), **PLAIN),
    ),
    Control(
        "power law of the learning curve",
        PRESENT,
        DIGITS,
        (
            Claim(
                "error falls as a power of n",
                "nmse",
                "power_law",
                0.2,
                axis="n",
                values=(100, 300, 1000),
            ),
        ),
        Training(steps=600, learning_rates=(1e-1, 3e-2), weight_decays=(1e-2,), ridge=(1e-4, 1e-2)),
    ),
    Control(
        "sparse parity",
        NEEDS,
        tasks.sparse_parity,
        (Claim("learns a parity of three bits", "nmse", minimum=0.5),),
        Training(steps=2000, learning_rates=(1e-2,), weight_decays=(1e-2,)),
    ),
    Control(
        "staircase",
        NEEDS,
        tasks.staircase,
        (Claim("learns all steps", "nmse", minimum=0.75),),
        Training(steps=1000, learning_rates=(1e-2,), weight_decays=(1e-2,)),
    ),
    Control(
        "single index",
        NEEDS,
        tasks.single_index,
        (Claim("finds the direction", "nmse", minimum=0.5),),
        Training(steps=1000, learning_rates=(1e-2,), weight_decays=(1e-2,)),
    ),
    Control(
        "modular addition",
        NEEDS,
        tasks.modular_addition,
        (Claim("learns to add", "error", minimum=0.3),),
        Training(
            steps=5000,
            learning_rates=(1e-2,),
            weight_decays=(1.0,),
            batch_size=None,
            early_stopping=False,
        ),
        {"width": 256},
    ),
    Control(
        "three neurons",
        NEEDS,
        tasks.three_neurons,
        (Claim("finds the neurons", "nmse", "orders", minimum=2.0),),
        Training(steps=5000, learning_rates=(1e-2,), weight_decays=(0.0,), batch_size=64),
        {"net": mlp(1, W_std=0.03 * HE), "width": 128},
    ),
]


def run_control(control: Control, folder: str | Path, **options: Any) -> Report:
    """Run a control, resuming what is finished in ``folder``/name, and write its report there.

    ``options``: workers, budget, progress of `falsify`.
    """
    target = Path(folder) / control.slug
    arguments = {"net": NET, **control.options, **options}
    report = falsify(
        control.task, claims=control.claims, training=control.training, folder=target, **arguments
    )
    report.write(target)
    return report


def refuse_folder(folder: str | Path) -> None:
    """FileExistsError where `write_overview` would overwrite what is somebody else's."""
    files.refuse_foreign(Path(folder) / "controls.md", MARK, ["controls.png"])


def write_overview(found: Sequence[tuple[Control, Report]], folder: str | Path) -> Path:
    """controls.md and controls.png into ``folder``: every claim with its verdict and effects;
    the path of the first.
    """
    from matplotlib.figure import Figure

    refuse_folder(folder)
    rows = [
        (control, *pair)
        for control, report in found
        for pair in zip(control.claims, report.verdicts, strict=True)
    ]
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
    figures.calibration([(claim, verdict) for _, claim, verdict in rows], figure)
    table = [("claim", "verdict", "least effect", *(ARMS[arm].label for arm in COLUMNS))]
    for control, claim, verdict in rows:
        right = "" if verdict.kind == control.expected else f" (expected: {control.expected})"
        effects = (str(verdict.effects.get(arm, "")) for arm in COLUMNS)
        link = f"[{claim.name}]({control.slug}/report.md)"
        table.append((link, verdict.kind + right, f"{claim.minimum:g}", *effects))
    seconds = sum(report.seconds() for _, report in found)
    text = f"Effects with 95 % intervals; {seconds:.0f} s, summed over cells."
    blocks = [("heading", MARK), ("figure", "controls"), ("table", table), ("text", text)]
    page = Path(folder) / "controls.md"
    files.write(page, markdown(blocks))
    with files.writing(Path(folder) / "controls.png") as file:
        figure.savefig(file, dpi=100)
    return page
