"""The command line: one function a command."""

from __future__ import annotations

import contextlib
import inspect
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import ntkcore
from ntkcore import nets
from ntkcore.backends import cuda_description, resolve
from ntkcore.backends import info as backend_info
from ntkcore.inputs import free_bytes, thread_count
from ntkcore.layers import Layer, from_json

try:
    import typer
except ImportError:
    sys.exit('the command line needs typer: pip install "ntkcore[cli]" (or "ntkcore[all]" for everything)')

USER_ERRORS = (ValueError, TypeError, ImportError, MemoryError, OSError)

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


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the figure goes.")] = Path("ntkcore-demo.png"),
    samples: Annotated[int | None, typer.Option(min=100, help="Use only so many of the 1797 digits.")] = None,
) -> None:
    """Kernels, accuracies and one figure on scikit-learn's digits, in under a minute.

    Example:  ntkcore demo --output digits.png
    """
    from ntkcore import demo as demonstration

    if not output.parent.is_dir():
        raise FileNotFoundError(f"no folder {output.parent} for the figure: make it first, or choose another --output")
    results = demonstration.run(output, samples)
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


DATA = "Samples: .npy, .csv, or file.npz:name, store.zarr:name."
NET = "fc:depth=3, cntk:depth=20,head=gap, myrtle:10, resnet:2, or a JSON file (Layer.to_json)."
Net = Annotated[str, typer.Argument(help=NET)]
Data = Annotated[str, typer.Argument(help=DATA)]
Store = Annotated[Path, typer.Argument(help="The folder of the Zarr store.")]
Get = Annotated[str, typer.Option(help="ntk, nngp or nngp,ntk.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores to use; all by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


def load(source: str) -> np.ndarray[Any, Any]:
    """Data named on the command line, e.g. "x.npy", "mnist.npz:X_train"; nothing is unpickled."""
    path, _, name = source.partition(":") if not Path(source).exists() else (source, "", "")
    kind = Path(path).suffix
    if not Path(path).exists():
        raise FileNotFoundError(f"no data at {path}")
    if kind == ".npy":
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if kind == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    if kind not in (".npz", ".zarr"):
        raise ValueError(f"data must be .npy, .npz, .csv or .zarr, not {kind or path!r}")
    if kind == ".npz":
        file: Any = np.load(path, allow_pickle=False)
        names = list(file.files)
    else:
        import zarr

        file = zarr.open_group(path, mode="r")
        names = list(file.array_keys())
    if name not in names:
        raise ValueError(f"say which array of {path}: {path}:NAME, NAME one of {', '.join(names)}")
    return np.asarray(file[name][...] if kind == ".zarr" else file[name])


def parse_net(text: str) -> Layer:
    """A ready network by name, as NET says, or the JSON of a spec."""
    if Path(text).is_file():
        return from_json(Path(text).read_text())
    name, _, arguments = text.partition(":")
    ready: dict[str, Callable[..., Layer]] = {
        "fc": nets.mlp,
        "cntk": nets.cntk,
        "myrtle": nets.myrtle,
        "resnet": nets.resnet,
    }
    if name not in ready:
        raise ValueError(f"no network {text!r}: it must be {NET}")
    options: dict[str, Any] = {}
    for at, part in enumerate(filter(None, arguments.split(","))):
        key, equals, value = part.partition("=")
        if not equals and at == 0:
            key, value = next(iter(inspect.signature(ready[name]).parameters)), part
        with contextlib.suppress(ValueError):
            options[key] = int(value) if value.lstrip("-").isdigit() else float(value)
        options.setdefault(key, value)
    try:
        return ready[name](**options)
    except TypeError as error:
        raise ValueError(f"network {text!r}: {error}") from None


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
    net: Net,
    data: Data,
    store: Store,
    get: Get = "ntk",
    threads: Threads = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Rows and columns of a tile.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; that of the data by default.")] = None,
) -> None:
    """A kernel into a store; after any interruption the same command goes on.

    Example:  ntkcore build cntk:depth=5 cifar.npz:x kernel.zarr --get nngp,ntk
    """
    from ntkcore.build import build

    build(parse_net(net), load(data), store, get=_kernels(get), tile=tile, dtype=dtype, threads=threads)
    typer.echo(f"complete: {store}")


@app.command("extend")
def extend_command(store: Store, data: Data, threads: Threads = None) -> None:
    """More samples for a store: old tiles stay.

    Example:  ntkcore extend kernel.zarr more.npy
    """
    from ntkcore.build import extend

    group = extend(store, load(data), threads=threads)
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
        "recomputed": report.recomputed,
        "swept": report.swept,
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for name, value in found.items():
            typer.echo(f"{name + ':':12}{value}")
    if not report.ok and not repair:
        raise typer.Exit(1)


@app.command("solve")
def solve_command(
    store: Store,
    targets: Annotated[str, typer.Argument(help="Targets, as data.")],
    output: Annotated[Path, typer.Argument(help="Where the coefficients go (.npy).")],
    ridge: Annotated[float, typer.Option(help="Times the mean diagonal.")] = 1e-3,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    checkpoint: Annotated[Path | None, typer.Option(help="A file (.npz) that keeps the state.")] = None,
) -> None:
    """Coefficients of kernel ridge regression by conjugate gradients on a store, read tile by tile.

    Example:  ntkcore solve kernel.zarr y.npy coefficients.npy --ridge 1e-3
    """
    import zarr

    from ntkcore.operators import Stored
    from ntkcore.solve import cg

    operator = Stored(zarr.open_group(store, mode="r")[kernel], progress=False)
    result = cg(operator, load(targets), ridge, relative=True, checkpoint=checkpoint)
    if not result.converged:
        raise ValueError(f"no convergence: residual {result.residuals.max():.1e} after {result.iterations} iterations")
    np.save(output, result.x)
    typer.echo(f"{result.iterations} iterations, {result.passes:.1f} passes: {output}")


def main() -> None:
    """Entry point: a user's error is one line on stderr and exit code 1, an interruption 130."""
    try:
        app()
    except USER_ERRORS as error:
        sys.exit(f"ntkcore: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
