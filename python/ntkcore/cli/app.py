"""The command line's frame: the application, and the arguments and refusals its commands share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, TypeVar

import typer

import ntkcore
from ntkcore.cli.sources import DATA, NET, READY

Number = TypeVar("Number", int, float)

app = typer.Typer(
    name="ntkcore",
    help="Exact infinite-width kernels (NNGP and NTK) of neural networks.",
    epilog=(
        "Examples:  ntkcore demo  |  ntkcore plan fc:depth=3 x.npy  |  ntkcore build myrtle:5 x.npy"
        " kernel.zarr"
    ),
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
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    pass


def local(path: Path | None) -> Path | None:
    """A path on this machine's disks; a usage error for a URL, whose slashes a Path has merged."""
    scheme, colon, rest = str(path).partition(":/")
    if colon and len(scheme) > 1 and scheme.isalnum():
        raise typer.BadParameter(f"results go to local files, not to {scheme}://{rest.lstrip('/')}")
    return path


def lasting(store: str | None) -> str | None:
    """A usage error for a store that ends with this process."""
    if store is not None and store.startswith("memory://"):
        raise typer.BadParameter(
            f"{store} would be lost when this command ends: name a folder or another URL"
        )
    return store


def complete_net(incomplete: str) -> list[str]:
    """Ready networks by the letters typed so far."""
    names = [
        f"{name}:{next(iter(inspect.signature(make).parameters))}=" for name, make in READY.items()
    ]
    return [name for name in names if name.startswith(incomplete)]


Net = Annotated[str, typer.Argument(help=NET, autocompletion=complete_net)]
Data = Annotated[str, typer.Argument(help=DATA)]
Store = Annotated[
    str, typer.Argument(callback=lasting, help="The folder or URL of the Zarr store.")
]
Get = Annotated[str, typer.Option(help="ntk, nngp or nngp,ntk.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores to use; all by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


def without_effect(context: typer.Context, names: str, where: str) -> None:
    """ValueError if one of these options is given on the command line."""
    for name in names.split():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given = {"as_json": "--json", "net": "NET", "data": "DATA", "targets": "TARGETS"}.get(
                name, f"--{name}"
            )
            raise ValueError(f"{given} has no effect {where}: leave it out")


def numbers(text: str, separator: str, kind: type[Number]) -> list[Number]:
    """Numbers from a list in text; ValueError for anything else."""
    try:
        return [kind(number) for number in text.split(separator)]
    except ValueError:
        names = {int: "whole numbers", float: "numbers"}
        raise ValueError(f"{text!r} must be {names[kind]} separated by {separator!r}") from None
