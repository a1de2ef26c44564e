"""`ntkcore plan | build | extend | resume | verify`: kernels in stores."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ntkcore.cli.app import AsJson, Data, Get, Net, Store, Threads, app, numbers, without_effect
from ntkcore.cli.sources import load, parse_net

CONNECT = "20s"  # that a Dask scheduler has to answer


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
    from ntkcore.store.planning import plan

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
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; that of the data by default.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="One of `ntkcore info`, e.g. cuda; the CPU by default.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="GPUs, e.g. 0,1, with --backend cuda.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers do it.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="I/N: share I (from 0) of N processes on one store.")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make the store, compute nothing.")
    ] = False,
) -> None:
    """A kernel into a store; after any interruption the same command goes on.

    Example:  ntkcore build cntk:depth=5 cifar.npz:x kernel.zarr --get nngp,ntk
    """
    from ntkcore.store.build import build
    from ntkcore.store.format import Tiles

    if prepare:
        without_effect(context, "part scheduler devices", "with --prepare, which computes nothing")
    if backend != "cuda":
        without_effect(context, "devices", "without --backend cuda")
    if scheduler is not None:
        without_effect(context, "devices", "with --scheduler, whose workers choose theirs")
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
            devices=None if devices is None else numbers(devices, ",", int),
            executor=executor,
            part=None if part is None else _share(part),
            prepare=prepare,
        )
    left = len(Tiles(group).missing())
    typer.echo(f"{left} tiles missing: {store}" if left else f"complete: {store}")


def _share(text: str) -> tuple[int, int]:
    share = numbers(text, "/", int)
    if len(share) != 2:
        raise ValueError(f"--part must be I/N, e.g. 0/4, not {text!r}")
    return share[0], share[1]


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
        raise OSError(
            f"no Dask scheduler answers at {address}: {error}; start it, or check the address"
        ) from None
    with client:
        yield client


@app.command("extend")
def extend_command(store: Store, data: Data, threads: Threads = None) -> None:
    """More samples for a store: old tiles stay.

    Example:  ntkcore extend kernel.zarr more.npy
    """
    from ntkcore.store.build import extend

    group = extend(store, load(data), threads=threads)
    typer.echo(f"complete: {store}, {group['x'].shape[0]} samples")


@app.command("resume")
def resume_command(store: Store, threads: Threads = None) -> None:
    """Finish an interrupted build or extension, from what the store says of itself.

    Example:  ntkcore resume kernel.zarr
    """
    from ntkcore.store.build import resume

    group = resume(store, threads=threads)
    typer.echo(f"complete: {store}, {group['x'].shape[0]} samples")


@app.command("verify")
def verify_command(
    store: Store,
    sample: Annotated[int, typer.Option(min=0, help="Tiles to compute again.")] = 8,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute bad and missing tiles again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checksums, symmetry, NaN, a sample computed again. Exit code 1 where something is wrong.

    Example:  ntkcore verify kernel.zarr --repair
    """
    from ntkcore.store.verify import verify

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
