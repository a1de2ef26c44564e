"""`ntkcore demo | info`."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import ntkcore
from ntkcore.cli.app import AsJson, app, lasting, local
from ntkcore.engine.backends import cuda_description, resolve
from ntkcore.engine.backends import info as backend_info
from ntkcore.engine.inputs import free_bytes, thread_count
from ntkcore.store.files import check_place


@app.command()
def demo(
    output: Annotated[Path, typer.Option(callback=local, help="Where the figure goes.")] = Path(
        "ntkcore-demo.png"
    ),
    samples: Annotated[
        int | None, typer.Option(min=200, help="Use only so many of the 1797 digits.")
    ] = None,
) -> None:
    """Kernels, accuracies and one figure on scikit-learn's digits, in under a minute.

    Example:  ntkcore demo --output digits.png
    """
    from ntkcore.cli import demo as demonstration

    results = demonstration.run(check_place(output), samples)
    typer.echo(demonstration.table(results))
    typer.echo(f"figure: {output.resolve()}")


def machine_info() -> dict[str, Any]:
    """What `ntkcore info` says, as plain values."""
    from threadpoolctl import threadpool_info

    blas = [
        f"{p['internal_api']} {p['version']}" for p in threadpool_info() if p["user_api"] == "blas"
    ]
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


def store_info(store: str) -> dict[str, Any]:
    """What a kernel on disk says of itself, its network as it prints and bounds of its error."""
    from ntkcore.specs.text import from_json
    from ntkcore.store.format import attributes, open_store

    group = open_store(store, mode="r", unfinished=True)
    said = attributes(group, unfinished=True)
    shown = ("kernels", "n", "dtype", "tile", "backend", "version", "precision", "errors")
    return {"net": str(from_json(said["net"]))} | {key: said[key] for key in shown if key in said}


@app.command()
def info(
    store: Annotated[
        str | None, typer.Argument(callback=lasting, help="The folder or URL of a Zarr store.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Versions, threads, memory, and the backends there are, with the reason where one cannot run;
    or what a kernel on disk is, with bounds on the error of activations that work by tables.

    Example:  ntkcore info kernel.zarr
    """
    found = machine_info() if store is None else store_info(store)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, one in value.items():
                typer.echo(f"  {key:16}{one if isinstance(one, str) else f' at most {one:.1e}'}")
        else:
            typer.echo(f"{name + ':':18}{value}")
