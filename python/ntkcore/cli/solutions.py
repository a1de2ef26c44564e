"""`ntkcore solve | predict | spectrum`: what is made of a kernel in a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ntkcore.cli.app import AsJson, Data, Store, Threads, app, local
from ntkcore.cli.sources import load
from ntkcore.specs.text import from_json
from ntkcore.store.files import check_place, writing


def _check_kernel(group: Any, kernel: str) -> None:
    """ValueError for a kernel that a store lacks."""
    from ntkcore.store.format import attributes

    if kernel not in (names := attributes(group)["kernels"]):
        raise ValueError(
            f"the store has no kernel {kernel!r}: --kernel must be {' or '.join(names)}"
        )


@app.command("solve")
def solve_command(
    store: Store,
    targets: Annotated[str, typer.Argument(help="Targets, as data.")],
    output: Annotated[
        Path, typer.Argument(callback=local, help="Where the coefficients go (.npy).")
    ],
    ridge: Annotated[float, typer.Option(help="Times the mean diagonal.")] = 1e-3,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    checkpoint: Annotated[
        Path | None, typer.Option(callback=local, help="A file (.npz) that keeps the state.")
    ] = None,
) -> None:
    """Coefficients of kernel ridge regression by conjugate gradients on a store, read tile by tile.

    Example:  ntkcore solve kernel.zarr y.npy coefficients.npy --ridge 1e-3
    """
    from ntkcore.linalg.cg import cg
    from ntkcore.linalg.operators import Stored
    from ntkcore.store.format import open_store

    output = check_place(output, ".npy", [targets])
    group = open_store(store, mode="r")
    _check_kernel(group, kernel)
    operator = Stored(group[kernel], progress=False)
    result = cg(operator, load(targets), ridge, relative=True, checkpoint=checkpoint)
    if not result.converged:
        raise ValueError(
            f"no convergence: residual {result.residuals.max():.1e} after {result.iterations}"
            " iterations"
        )
    with writing(output) as file:
        np.save(file, result.x)
    typer.echo(f"{result.iterations} iterations, {result.passes:.1f} passes: {output}")


@app.command("predict")
def predict_command(
    store: Store,
    coefficients: Annotated[
        Path, typer.Argument(callback=local, help="What `ntkcore solve` wrote (.npy).")
    ],
    data: Data,
    output: Annotated[
        Path, typer.Argument(callback=local, help="Where the predictions go (.npy).")
    ],
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    threads: Threads = None,
) -> None:
    """Predictions for new samples; their kernel with the store's samples is never held.

    Example:  ntkcore predict kernel.zarr coefficients.npy x_test.npy predictions.npy
    """
    from ntkcore.linalg.checks import targets_of
    from ntkcore.linalg.operators import MatrixFree
    from ntkcore.store.format import attributes, open_store

    output = check_place(output, ".npy", [coefficients, data])
    group = open_store(store, mode="r")
    found = attributes(group)
    _check_kernel(group, kernel)
    solution = np.asarray(load(str(coefficients)))
    x, z = group["x"][...], np.asarray(load(data), found["dtype"])
    if solution.shape[:1] != (len(x),):
        raise ValueError(
            f"{coefficients} has shape {solution.shape}, the store {len(x)} samples:"
            " solve with this store"
        )
    targets_of(solution, len(x), str(coefficients))
    operator = MatrixFree(from_json(found["net"]), z, x, kernel, threads=threads)
    with writing(output) as file:
        np.save(file, operator @ solution)
    typer.echo(f"{len(z)} predictions: {output}")


@app.command("spectrum")
def spectrum_command(
    store: Store,
    largest: Annotated[int, typer.Option(min=1, help="So many of the largest eigenvalues.")] = 20,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    targets: Annotated[
        str | None, typer.Option(help="Targets, as data: their share in each mode.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The largest eigenvalues by Lanczos on a store, their share of the trace and of the targets.

    Example:  ntkcore spectrum kernel.zarr --largest 50 --targets y.npy
    """
    from ntkcore.linalg.leading import eigs
    from ntkcore.linalg.operators import Stored
    from ntkcore.store.format import open_store

    group = open_store(store, mode="r")
    _check_kernel(group, kernel)
    operator = Stored(group[kernel], progress=False)
    values, modes = eigs(operator, min(largest, operator.shape[0]))
    found = {"eigenvalue": values, "trace": values.cumsum() / operator.diagonal().sum()}
    if targets is not None:
        y = np.asarray(load(targets), float)
        if not y.ndim or len(y) != operator.shape[0]:
            raise ValueError(
                f"{targets} has shape {y.shape}, the store {operator.shape[0]} samples:"
                " one row a sample"
            )
        if not np.isfinite(y).all() or not y.any():
            raise ValueError(
                f"{targets} holds NaN, infinity or zeros only: its share in the modes is undefined"
            )
        y = y.reshape(len(y), -1)
        found["targets"] = ((modes.T @ y) ** 2).sum(1).cumsum() / (y**2).sum()
    if as_json:
        typer.echo(json.dumps({name: column.tolist() for name, column in found.items()}))
        return
    heads = {"eigenvalue": "eigenvalue", "trace": "of the trace", "targets": "of the targets"}
    typer.echo("mode " + " ".join(f"{heads[name]:>14}" for name in found))
    for k in range(len(values)):
        typer.echo(f"{k + 1:4} " + " ".join(f"{column[k]:14.6g}" for column in found.values()))
