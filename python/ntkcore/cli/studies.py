"""`ntkcore run | falsify`: figures of the literature, and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ntkcore.cli.app import AsJson, app, complete_net, local, numbers, without_effect
from ntkcore.cli.sources import DATA, NET, load, parse_net


def _complete_experiment(incomplete: str) -> list[str]:
    from ntkcore.experiments import names

    return [name for name in [*names(), "all"] if name.startswith(incomplete)]


@app.command("run")
def run_command(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="An experiment, or all.", autocompletion=_complete_experiment),
    ] = None,
    output: Annotated[
        Path, typer.Option(callback=local, help="Folder of pictures and numbers.")
    ] = Path("ntkcore-experiments"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller, in seconds.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """A figure of the literature, run again; without a name, the list.
    Exit code 1 where a criterion is not met.

    Example:  ntkcore run spectral_bias --quick
    """
    from ntkcore import experiments

    if name is None:
        without_effect(context, "output quick seed as_json", "without an experiment")
        for each in experiments.names():
            typer.echo(f"{each:18}{experiments.load(each).CLAIM}")
        return
    records = []
    for each in experiments.names() if name == "all" else [name]:
        records.append(experiments.run(each, output, quick=quick, seed=seed))
        if not as_json:
            typer.echo(f"{each} ({records[-1]['seconds']:.0f} s): {output / each}.png")
            typer.echo(
                "".join(f"  {criterion}\n" for criterion in experiments.criteria_of(records[-1])),
                nl=False,
            )
    if as_json:
        typer.echo(json.dumps(records))
    if not all(record["met"] for record in records):
        raise typer.Exit(1)


Falsified = Annotated[str | None, typer.Argument(help=NET, autocompletion=complete_net)]
FalsifiedData = Annotated[str | None, typer.Argument(help=f"{DATA} Or a task: sparse_parity, …")]
Targets = Annotated[
    str | None,
    typer.Argument(help="Targets, as data: numbers, or classes as whole numbers. Of a task: none."),
]
Controls = Annotated[
    bool, typer.Option("--controls", help="Run ten claims whose verdicts are known.")
]
Reported = Annotated[
    Path, typer.Option(callback=local, help="Folder of finished cells and of the report.")
]
Metric = Annotated[str, typer.Option(help="nmse, error, train_nmse or train_error.")]
Predicate = Annotated[
    str, typer.Option(help="below, everywhere, orders, power_law, increases or peak.")
]
Minimum = Annotated[float, typer.Option(help="Least effect that counts; below: 1 - metric/chance.")]
Axis = Annotated[str | None, typer.Option(help="n, noise, width, or another keyword of the task.")]
Values = Annotated[str | None, typer.Option(help="Of the axis, rising: 100,400,1600.")]
Baseline = Annotated[str | None, typer.Option(help="A network that must not show the effect.")]
Width = Annotated[int, typer.Option(min=1, help="Of the finite networks.")]
Steps = Annotated[int, typer.Option(min=1, help="Of training.")]
Repeats = Annotated[
    int, typer.Option(min=1, help="Initialisations, each on its own split; a verdict needs 15.")
]
Seconds = Annotated[
    float | None,
    typer.Option(help="Begin nothing new (of each control) after that; a rerun goes on."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Device = Annotated[str, typer.Option(help="Of the networks: cpu or cuda.")]


@app.command("falsify")
def falsify_command(
    context: typer.Context,
    net: Falsified = None,
    data: FalsifiedData = None,
    targets: Targets = None,
    controls: Controls = False,
    output: Reported = Path("ntkcore-falsify"),
    metric: Metric = "nmse",
    predicate: Predicate = "below",
    minimum: Minimum = 0.5,
    axis: Axis = None,
    values: Values = None,
    baseline: Baseline = None,
    width: Width = 512,
    steps: Steps = 2000,
    repeats: Repeats = 15,
    seconds: Seconds = None,
    workers: Workers = 1,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Would it still be learned with frozen features? Kernels beside networks, and a verdict.

    With --controls exit code 1 where a verdict is not the known one.

    Example:  ntkcore falsify fc:depth=1 x.npy y.npy --metric error --workers 2
    """
    try:
        from ntkcore import falsifier
    except ImportError as error:
        raise ImportError(f"{error} (networks are trained with it)") from None

    budget = falsifier.Budget(repeats, seconds=seconds)
    if controls:
        ignored = "net data targets metric predicate minimum axis values baseline width steps"
        without_effect(context, ignored, "with --controls")
        _run_controls(output, as_json, budget=budget, workers=workers, device=device)
        return
    if net is None or data is None:
        raise ValueError("give a network, samples and targets; or --controls")
    points = [] if values is None else numbers(values, ",", float)
    claim = falsifier.Claim("learns the targets", metric, predicate, minimum, axis, tuple(points))
    report = falsifier.falsify(
        _falsified(data, targets),
        parse_net(net),
        claim,
        baseline=None if baseline is None else parse_net(baseline),
        width=width,
        training=falsifier.Training(steps=steps),
        budget=budget,
        folder=output,
        workers=workers,
        device=device,
    )
    page = report.write(output)
    typer.echo(json.dumps(report.record()) if as_json else f"{report}\nreport: {page}")


def _falsified(data: str, targets: str | None) -> Any:
    """A task by its name, or arrays."""
    from ntkcore.falsifier import TASKS

    if targets is not None:
        return np.asarray(load(data)), np.asarray(load(targets))
    if data not in TASKS:
        raise ValueError(
            f"{data} is no task ({', '.join(TASKS)}): give targets too if it names samples"
        )
    return TASKS[data]


def _run_controls(output: Path, as_json: bool, **options: Any) -> None:
    from ntkcore.falsifier.controls import CONTROLS, refuse_folder, run_control, write_overview

    refuse_folder(output)
    found = []
    for control in CONTROLS:
        report = run_control(control, output, **options)
        found.append((control, report))
        if not as_json:
            mark = "right" if control.right(report) else f"WRONG, expected {control.expected}"
            typer.echo(f"{mark}: {report}")
    page = write_overview(found, output)
    right = sum(control.right(report) for control, report in found)
    summary = {
        "right": right,
        "controls": {control.name: report.record() for control, report in found},
    }
    typer.echo(json.dumps(summary) if as_json else f"{right} of {len(found)} right: {page}")
    if right < len(found):
        raise typer.Exit(1)
