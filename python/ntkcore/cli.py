"""The command line: one function a command."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import ntkcore
from ntkcore.backends import cuda_description, resolve
from ntkcore.backends import info as backend_info
from ntkcore.inputs import free_bytes, thread_count

try:
    import typer
except ImportError:
    sys.exit('the command line needs typer: pip install "ntkcore[cli]" (or "ntkcore[all]" for everything)')

USER_ERRORS = (ValueError, TypeError, ImportError, MemoryError, OSError)

app = typer.Typer(
    name="ntkcore",
    help="Exact infinite-width kernels (NNGP and NTK) of neural networks.",
    epilog="Examples:  ntkcore demo  |  ntkcore demo --output digits.png  |  ntkcore info --json",
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


def main() -> None:
    """Entry point: a user's error is one line on stderr and exit code 1, an interruption 130."""
    try:
        app()
    except USER_ERRORS as error:
        sys.exit(f"ntkcore: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
