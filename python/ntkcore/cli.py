"""The command line: one function a command."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import platform
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np

import ntkcore
from ntkcore import _core
from ntkcore.backends import cuda_description, resolve
from ntkcore.backends import info as backend_info
from ntkcore.files import check_place, writing
from ntkcore.inputs import free_bytes, thread_count
from ntkcore.layers import from_json
from ntkcore.sources import DATA, NET, READY, load, parse_net

try:
    import typer
except ImportError:
    sys.exit('the command line needs typer: pip install "ntkcore[cli]" (or "ntkcore[all]" for everything)')

USER_ERRORS = (ValueError, TypeError, ImportError, MemoryError, OSError, FloatingPointError)

CONNECT = "20s"  # that a Dask scheduler has to answer
Number = TypeVar("Number", int, float)

app = typer.Typer(
    name="ntkcore",
    help="Exact infinite-width kernels (NNGP and NTK) of neural networks.",
    epilog="Examples:  ntkcore demo  |  ntkcore plan fc:depth=3 x.npy  |  ntkcore build myrtle:5 x.npy kernel.zarr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"ntkcore {ntkcore.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def _local(path: Path | None) -> Path | None:
    """A path on this machine's disks; a usage error for a URL, whose slashes a Path has merged."""
    scheme, colon, rest = str(path).partition(":/")
    if colon and len(scheme) > 1 and scheme.isalnum():
        raise typer.BadParameter(f"results go to local files, not to {scheme}://{rest.lstrip('/')}")
    return path


def _lasting(store: str) -> str:
    """A usage error for a store that ends with this process."""
    if store.startswith("memory://"):
        raise typer.BadParameter(f"{store} would be lost when this command ends: name a folder or another URL")
    return store


@app.command()
def demo(
    output: Annotated[Path, typer.Option(callback=_local, help="Where the figure goes.")] = Path("ntkcore-demo.png"),
    samples: Annotated[int | None, typer.Option(min=200, help="Use only so many of the 1797 digits.")] = None,
) -> None:
    """Kernels, accuracies and one figure on scikit-learn's digits, in under a minute.

    Example:  ntkcore demo --output digits.png
    """
    from ntkcore import demo as demonstration

    results = demonstration.run(check_place(output), samples)
    typer.echo(demonstration.table(results))
    typer.echo(f"figure: {output.resolve()}")


def machine_info() -> dict[str, Any]:
    """What `ntkcore info` says, as plain values."""
    from threadpoolctl import threadpool_info

    blas = [f"{p['internal_api']} {p['version']}" for p in threadpool_info() if p["user_api"] == "blas"]
    free = free_bytes()
    return {
        "ntkcore": ntkcore.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": ", ".join(blas) or "unknown",
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": thread_count(None),
        "free memory, GiB": None if free is None else round(free / 2**30, 1),
        "default backend": resolve(),
        "backends": {entry.name: entry.missing or "available" for entry in backend_info()},
        "cuda": cuda_description(),
    }


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Versions, threads, memory, and the backends there are, with the reason where one cannot run.

    Example:  ntkcore info --json
    """
    found = machine_info()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    backends = found.pop("backends")
    for name, value in found.items():
        typer.echo(f"{name + ':':18}{value}")
    typer.echo("backends:")
    for name, state in backends.items():
        typer.echo(f"  {name:16}{state}")


def _complete_net(incomplete: str) -> list[str]:
    names = [f"{name}:{next(iter(inspect.signature(make).parameters))}=" for name, make in READY.items()]
    return [name for name in names if name.startswith(incomplete)]


Net = Annotated[str, typer.Argument(help=NET, autocompletion=_complete_net)]
Data = Annotated[str, typer.Argument(help=DATA)]
Store = Annotated[str, typer.Argument(callback=_lasting, help="The folder or URL of the Zarr store.")]
Get = Annotated[str, typer.Option(help="ntk, nngp or nngp,ntk.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores to use; all by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


def _without_effect(context: typer.Context, names: str, where: str) -> None:
    """ValueError if one of these options is given on the command line."""
    for name in names.split():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given = {"as_json": "--json", "net": "NET", "data": "DATA", "targets": "TARGETS"}.get(name, f"--{name}")
            raise ValueError(f"{given} has no effect {where}: leave it out")


def _check_kernel(group: Any, kernel: str) -> None:
    """ValueError for a kernel that a store lacks."""
    from ntkcore.store import attributes

    if kernel not in (names := attributes(group)["kernels"]):
        raise ValueError(f"the store has no kernel {kernel!r}: --kernel must be {' or '.join(names)}")


def _kernels(get: str) -> str | tuple[str, ...]:
    names = tuple(get.split(","))
    return names[0] if len(names) == 1 else names


@app.command("plan")
def plan_command(
    net: Net,
    data: Data,
    get: Get = "ntk",
    threads: Threads = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Rows and columns of a tile.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a build would take: pairs, tiles, disk, memory, time.

    Example:  ntkcore plan fc:depth=3 x.npy
    """
    from ntkcore.build import plan

    found = plan(parse_net(net), load(data), get=_kernels(get), tile=tile, threads=threads)
    typer.echo(json.dumps(asdict(found)) if as_json else str(found))


@app.command("build")
def build_command(
    context: typer.Context,
    net: Net,
    data: Data,
    store: Store,
    get: Get = "ntk",
    threads: Threads = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Rows and columns of a tile.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; that of the data by default.")] = None,
    backend: Annotated[str | None, typer.Option(help="One of `ntkcore info`, e.g. cuda; the CPU by default.")] = None,
    devices: Annotated[str | None, typer.Option(help="GPUs, e.g. 0,1, with --backend cuda.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler whose workers do it.")] = None,
    part: Annotated[str | None, typer.Option(help="I/N: share I (from 0) of N processes on one store.")] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Make the store, compute nothing.")] = False,
) -> None:
    """A kernel into a store; after any interruption the same command goes on.

    Example:  ntkcore build cntk:depth=5 cifar.npz:x kernel.zarr --get nngp,ntk
    """
    from ntkcore.build import build
    from ntkcore.store import Tiles

    if prepare:
        _without_effect(context, "part scheduler devices", "with --prepare, which computes nothing")
    if backend != "cuda":
        _without_effect(context, "devices", "without --backend cuda")
    if scheduler is not None:
        _without_effect(context, "devices", "with --scheduler, whose workers choose theirs")
    with _client(scheduler) as executor:
        group = build(
            parse_net(net),
            load(data),
            store,
            get=_kernels(get),
            tile=tile,
            dtype=dtype,
            threads=threads,
            backend=backend,
            devices=None if devices is None else _numbers(devices, ",", int),
            executor=executor,
            part=None if part is None else _share(part),
            prepare=prepare,
        )
    left = len(Tiles(group).missing())
    typer.echo(f"{left} tiles missing: {store}" if left else f"complete: {store}")


def _numbers(text: str, separator: str, kind: type[Number]) -> list[Number]:
    try:
        return [kind(number) for number in text.split(separator)]
    except ValueError:
        names = {int: "whole numbers", float: "numbers"}
        raise ValueError(f"{text!r} must be {names[kind]} separated by {separator!r}") from None


def _share(text: str) -> tuple[int, int]:
    numbers = _numbers(text, "/", int)
    if len(numbers) != 2:
        raise ValueError(f"--part must be I/N, e.g. 0/4, not {text!r}")
    return numbers[0], numbers[1]


@contextlib.contextmanager
def _client(address: str | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    try:
        from dask.distributed import Client
    except ImportError:
        raise ImportError('a Dask scheduler needs Dask: pip install "ntkcore[dask]"') from None
    try:
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address}: {error}; start it, or check the address") from None
    with client:
        yield client


@app.command("extend")
def extend_command(store: Store, data: Data, threads: Threads = None) -> None:
    """More samples for a store: old tiles stay.

    Example:  ntkcore extend kernel.zarr more.npy
    """
    from ntkcore.build import extend

    group = extend(store, load(data), threads=threads)
    typer.echo(f"complete: {store}, {group['x'].shape[0]} samples")


@app.command("resume")
def resume_command(store: Store, threads: Threads = None) -> None:
    """Finish an interrupted build or extension, from what the store says of itself.

    Example:  ntkcore resume kernel.zarr
    """
    from ntkcore.build import resume

    group = resume(store, threads=threads)
    typer.echo(f"complete: {store}, {group['x'].shape[0]} samples")


@app.command("verify")
def verify_command(
    store: Store,
    sample: Annotated[int, typer.Option(min=0, help="Tiles to compute again.")] = 8,
    repair: Annotated[bool, typer.Option("--repair", help="Compute bad and missing tiles again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Checksums, symmetry, NaN, a sample computed again. Exit code 1 where something is wrong.

    Example:  ntkcore verify kernel.zarr --repair
    """
    from ntkcore.verify import verify

    report = verify(store, sample=sample, repair=repair)
    found = {
        "ok": report.ok,
        "missing": len(report.missing),
        "bad": {f"{i},{j}": reason for (i, j), reason in report.bad.items()},
        "parts": report.parts,
        "recomputed": report.recomputed,
        "swept": report.swept,
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for name, value in found.items():
            typer.echo(f"{name + ':':12}{value}")
    if not report.ok and not report.repaired:
        raise typer.Exit(1)


@app.command("solve")
def solve_command(
    store: Store,
    targets: Annotated[str, typer.Argument(help="Targets, as data.")],
    output: Annotated[Path, typer.Argument(callback=_local, help="Where the coefficients go (.npy).")],
    ridge: Annotated[float, typer.Option(help="Times the mean diagonal.")] = 1e-3,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    checkpoint: Annotated[
        Path | None, typer.Option(callback=_local, help="A file (.npz) that keeps the state.")
    ] = None,
) -> None:
    """Coefficients of kernel ridge regression by conjugate gradients on a store, read tile by tile.

    Example:  ntkcore solve kernel.zarr y.npy coefficients.npy --ridge 1e-3
    """
    from ntkcore.operators import Stored
    from ntkcore.solve import cg
    from ntkcore.store import open_store

    output = check_place(output, ".npy", [targets])
    group = open_store(store, mode="r")
    _check_kernel(group, kernel)
    operator = Stored(group[kernel], progress=False)
    result = cg(operator, load(targets), ridge, relative=True, checkpoint=checkpoint)
    if not result.converged:
        raise ValueError(f"no convergence: residual {result.residuals.max():.1e} after {result.iterations} iterations")
    with writing(output) as file:
        np.save(file, result.x)
    typer.echo(f"{result.iterations} iterations, {result.passes:.1f} passes: {output}")


@app.command("predict")
def predict_command(
    store: Store,
    coefficients: Annotated[Path, typer.Argument(callback=_local, help="What `ntkcore solve` wrote (.npy).")],
    data: Data,
    output: Annotated[Path, typer.Argument(callback=_local, help="Where the predictions go (.npy).")],
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    threads: Threads = None,
) -> None:
    """Predictions for new samples; their kernel with the store's samples is never held.

    Example:  ntkcore predict kernel.zarr coefficients.npy x_test.npy predictions.npy
    """
    from ntkcore.operators import MatrixFree
    from ntkcore.store import attributes, open_store

    output = check_place(output, ".npy", [coefficients, data])
    group = open_store(store, mode="r")
    found = attributes(group)
    _check_kernel(group, kernel)
    solution = load(str(coefficients))
    x, z = group["x"][...], np.asarray(load(data), found["dtype"])
    if len(solution) != len(x):
        raise ValueError(
            f"{coefficients} holds {len(solution)} rows, the store {len(x)} samples: solve with this store"
        )
    operator = MatrixFree(from_json(found["net"]), z, x, kernel, threads=threads)
    with writing(output) as file:
        np.save(file, operator @ solution)
    typer.echo(f"{len(z)} predictions: {output}")


@app.command("spectrum")
def spectrum_command(
    store: Store,
    largest: Annotated[int, typer.Option(min=1, help="So many of the largest eigenvalues.")] = 20,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    targets: Annotated[str | None, typer.Option(help="Targets, as data: their share in each mode.")] = None,
    as_json: AsJson = False,
) -> None:
    """The largest eigenvalues by Lanczos on a store, their share of the trace and of the targets.

    Example:  ntkcore spectrum kernel.zarr --largest 50 --targets y.npy
    """
    from ntkcore.operators import Stored
    from ntkcore.solve import eigs
    from ntkcore.store import open_store

    group = open_store(store, mode="r")
    _check_kernel(group, kernel)
    operator = Stored(group[kernel], progress=False)
    values, modes = eigs(operator, min(largest, operator.shape[0]))
    found = {"eigenvalue": values, "trace": values.cumsum() / operator.diagonal().sum()}
    if targets is not None:
        y = np.asarray(load(targets), float)
        if not y.ndim or len(y) != operator.shape[0]:
            raise ValueError(f"{targets} has shape {y.shape}, the store {operator.shape[0]} samples: one row a sample")
        if not np.isfinite(y).all() or not y.any():
            raise ValueError(f"{targets} holds NaN, infinity or zeros only: its share in the modes is undefined")
        y = y.reshape(len(y), -1)
        found["targets"] = ((modes.T @ y) ** 2).sum(1).cumsum() / (y**2).sum()
    if as_json:
        typer.echo(json.dumps({name: column.tolist() for name, column in found.items()}))
        return
    heads = {"eigenvalue": "eigenvalue", "trace": "of the trace", "targets": "of the targets"}
    typer.echo("mode " + " ".join(f"{heads[name]:>14}" for name in found))
    for k in range(len(values)):
        typer.echo(f"{k + 1:4} " + " ".join(f"{column[k]:14.6g}" for column in found.values()))


def _complete_experiment(incomplete: str) -> list[str]:
    from ntkcore.experiments import names

    return [name for name in [*names(), "all"] if name.startswith(incomplete)]


@app.command("run")
def run_command(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="An experiment, or all.", autocompletion=_complete_experiment)
    ] = None,
    output: Annotated[Path, typer.Option(callback=_local, help="Folder of pictures and numbers.")] = Path(
        "ntkcore-experiments"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller, in seconds.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """A figure of the literature, run again; without a name, the list. Exit code 1 where a criterion is not met.

    Example:  ntkcore run spectral_bias --quick
    """
    from ntkcore import experiments

    if name is None:
        _without_effect(context, "output quick seed as_json", "without an experiment")
        for each in experiments.names():
            typer.echo(f"{each:18}{experiments.load(each).CLAIM}")
        return
    records = []
    for each in experiments.names() if name == "all" else [name]:
        records.append(experiments.run(each, output, quick=quick, seed=seed))
        if not as_json:
            typer.echo(f"{each} ({records[-1]['seconds']:.0f} s): {output / each}.png")
            typer.echo("".join(f"  {criterion}\n" for criterion in experiments.criteria_of(records[-1])), nl=False)
    if as_json:
        typer.echo(json.dumps(records))
    if not all(record["met"] for record in records):
        raise typer.Exit(1)


@app.command("falsify")
def falsify_command(
    context: typer.Context,
    net: Annotated[str | None, typer.Argument(help=NET, autocompletion=_complete_net)] = None,
    data: Annotated[str | None, typer.Argument(help=f"{DATA} Or a task, e.g. sparse_parity.")] = None,
    targets: Annotated[
        str | None, typer.Argument(help="Targets, as data: numbers, or classes as whole numbers. Of a task: none.")
    ] = None,
    controls: Annotated[bool, typer.Option("--controls", help="Run ten claims whose verdicts are known.")] = False,
    output: Annotated[Path, typer.Option(callback=_local, help="Folder of finished cells and of the report.")] = Path(
        "ntkcore-falsify"
    ),
    metric: Annotated[str, typer.Option(help="nmse, error, train_nmse or train_error.")] = "nmse",
    predicate: Annotated[str, typer.Option(help="below, everywhere, orders, power_law, increases or peak.")] = "below",
    minimum: Annotated[float, typer.Option(help="Least effect that counts; below: 1 - metric/chance.")] = 0.5,
    axis: Annotated[str | None, typer.Option(help="n, noise, width, or another keyword of the task.")] = None,
    values: Annotated[str | None, typer.Option(help="Of the axis, rising: 100,400,1600.")] = None,
    baseline: Annotated[str | None, typer.Option(help="A network that must not show the effect.")] = None,
    width: Annotated[int, typer.Option(min=1, help="Of the finite networks.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Initialisations; a verdict needs 5.")] = 5,
    splits: Annotated[int, typer.Option(min=1, help="Of the data; a verdict needs 3.")] = 3,
    seconds: Annotated[
        float | None, typer.Option(help="Begin nothing new (of each control) after that; a rerun goes on.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: Annotated[str, typer.Option(help="Of the networks: cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Would it still be learned if the features were frozen? Kernels beside networks, a verdict, and a report.

    With --controls exit code 1 where a verdict is not the known one.

    Example:  ntkcore falsify fc:depth=1 x.npy y.npy --metric error --workers 2
    """
    try:
        from ntkcore import control
    except ImportError as error:
        raise ImportError(f"{error} (networks are trained with it)") from None

    budget = control.Budget(seeds, splits, seconds=seconds)
    if controls:
        ignored = "net data targets metric predicate minimum axis values baseline width steps"
        _without_effect(context, ignored, "with --controls")
        _run_controls(output, as_json, budget=budget, workers=workers, device=device)
        return
    if net is None or data is None:
        raise ValueError("give a network, samples and targets; or --controls")
    points = [] if values is None else _numbers(values, ",", float)
    claim = control.Claim("learns the targets", metric, predicate, minimum, axis, tuple(points))
    report = control.falsify(
        _falsified(data, targets),
        parse_net(net),
        claim,
        baseline=None if baseline is None else parse_net(baseline),
        width=width,
        training=control.Training(steps=steps),
        budget=budget,
        folder=output,
        workers=workers,
        device=device,
    )
    page = report.write(output)
    typer.echo(json.dumps(report.record()) if as_json else f"{report}\nreport: {page}")


def _falsified(data: str, targets: str | None) -> Any:
    """A task by its name, or arrays."""
    from ntkcore.control import TASKS

    if targets is not None:
        return np.asarray(load(data)), np.asarray(load(targets))
    if data not in TASKS:
        raise ValueError(f"{data} is no task ({', '.join(TASKS)}): give targets too if it names samples")
    return TASKS[data]


def _run_controls(output: Path, as_json: bool, **options: Any) -> None:
    from ntkcore.control.controls import CONTROLS, refuse_folder, run_control, write_overview

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
    summary = {"right": right, "controls": {control.name: report.record() for control, report in found}}
    typer.echo(json.dumps(summary) if as_json else f"{right} of {len(found)} right: {page}")
    if right < len(found):
        raise typer.Exit(1)


INTERRUPTED = "ntkcore: interrupted; what is written stays, and the same command goes on where it can"


def _leave_after(seconds: float) -> None:
    """Ctrl-C ends even what compiled code of others holds: files are written whole or not at all."""
    heard, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    _core.leave_after_interrupt(heard, seconds, INTERRUPTED + "\n")


def main() -> None:
    """Entry point: a user's error is one line on stderr and exit code 1, an interruption one line and 130."""
    _leave_after(1.5)
    warnings.formatwarning = lambda message, *_, **__: f"ntkcore: {message}\n"
    try:
        app()
    except USER_ERRORS as error:
        sys.exit(f"ntkcore: {error}")
    except SystemExit as leave:  # typer's, after a KeyboardInterrupt
        if leave.code == 130:
            typer.echo(INTERRUPTED, err=True)
            os._exit(130)  # nor wait for what threads still compute
        raise
