"""`ntkcore fit | solve | predict | spectrum`: what is made of data and of kernels in stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from ntkcore.cli.app import AsJson, Data, Net, Store, Threads, app, lasting, local, without_effect
from ntkcore.cli.sources import load, parse_net
from ntkcore.specs.text import from_json
from ntkcore.store.files import check_place, writing


def _check_kernel(group: Any, kernel: str) -> None:
    """ValueError for a kernel that a store lacks."""
    from ntkcore.store.format import attributes

    if kernel not in (names := attributes(group)["kernels"]):
        raise ValueError(
            f"the store has no kernel {kernel!r}: --kernel must be {' or '.join(names)}"
        )


Method = Annotated[str, typer.Option(help="auto, cholesky, cg, askotch or landmarks.")]
Landmarks = Annotated[int | None, typer.Option(min=1, help="Solve for so many landmarks only.")]
Classify = Annotated[
    bool, typer.Option("--classify", help="Whole numbers are labels of classes too.")
]
Memory = Annotated[float | None, typer.Option(help="GiB to use; half of what is free by default.")]
Rtol = Annotated[float, typer.Option(help="Of the residuals.")]
Checkpoint = Annotated[
    Path | None, typer.Option(callback=local, help="A file (.npz) that keeps the state.")
]


@app.command("fit")
def fit_command(
    net: Net,
    data: Data,
    targets: Annotated[str, typer.Argument(help="Targets, as data; text is labels of classes.")],
    output: Annotated[Path, typer.Argument(callback=local, help="Where the model goes (.npz).")],
    ridge: Annotated[float, typer.Option(help="Times the mean diagonal.")] = 1e-3,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    method: Method = "auto",
    landmarks: Landmarks = None,
    classify: Classify = False,
    memory: Memory = None,
    seconds: Annotated[float, typer.Option(help="An exact method may take so long.")] = 3600.0,
    rtol: Rtol = 1e-6,
    threads: Threads = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float64; that of the data by default.")
    ] = None,
    seed: int = 0,
    checkpoint: Checkpoint = None,
) -> None:
    """Kernel ridge regression on data, by the method that fits them; its plan is said first.

    Example:  ntkcore fit fc:depth=3 x.npy y.npy model.npz --ridge 1e-3
    """
    from ntkcore.linalg.fitting import fit

    output = check_place(output, ".npz", [data, targets])
    y = load(targets, labels=True)
    model = fit(
        parse_net(net),
        load(data, whole=False),
        y,
        ridge,
        method=method,
        n_landmarks=landmarks,
        classify=classify or y.dtype.kind == "U",
        memory=None if memory is None else memory * 2**30,
        seconds=seconds,
        get=kernel,
        rtol=rtol,
        dtype=dtype,
        threads=threads,
        seed=seed,
        checkpoint=checkpoint,
        say=typer.echo,
    )
    typer.echo(f"the model: {model.save(output)}")


@app.command("solve")
def solve_command(
    store: Store,
    targets: Annotated[str, typer.Argument(help="Targets, as data; text is labels of classes.")],
    output: Annotated[
        Path,
        typer.Argument(
            callback=local,
            help="Where the coefficients go: .npy, with classes .npz, which holds both.",
        ),
    ],
    ridge: Annotated[float, typer.Option(help="Times the mean diagonal.")] = 1e-3,
    kernel: Annotated[str, typer.Option(help="ntk or nngp.")] = "ntk",
    method: Method = "auto",
    landmarks: Landmarks = None,
    memory: Memory = None,
    seconds: Annotated[
        float | None, typer.Option(help="Where no exact method is so fast, landmarks are taken.")
    ] = None,
    rtol: Annotated[float | None, typer.Option(help="Of the residuals; by default 1e-6.")] = None,
    maxiter: Annotated[int | None, typer.Option(min=1, help="Iterations at most.")] = None,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Of the preconditioner of conjugate gradients.")
    ] = None,
    threads: Threads = None,
    dtype: Annotated[str, typer.Option(help="Of the file: float32 or float64.")] = "float64",
    classify: Classify = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Coefficients of kernel ridge regression on a store, by the method that fits; its plan is said
    first.

    Example:  ntkcore solve kernel.zarr y.npy coefficients.npy --ridge 1e-3
    """
    from threadpoolctl import threadpool_limits

    from ntkcore.linalg.classes import class_targets
    from ntkcore.linalg.fitting import memory_share
    from ntkcore.linalg.operators import Stored
    from ntkcore.linalg.solve import solve
    from ntkcore.store.format import open_store

    if dtype not in ("float32", "float64"):
        raise ValueError(f"--dtype must be float32 or float64, not {dtype}")
    y, classes = load(targets, labels=True), None
    if classify or y.dtype.kind == "U":
        y, classes = class_targets(y)
    output = _place_of(output, classes is not None, targets)
    group = open_store(store, mode="r")
    _check_kernel(group, kernel)
    options = {
        "n_landmarks": landmarks,
        "rtol": rtol,
        "maxiter": maxiter,
        "rank": rank,
        "checkpoint": checkpoint,
    }
    with threadpool_limits(threads):
        found = solve(
            Stored(group[kernel], progress=False),
            y,
            ridge,
            method=method,
            memory=memory_share() if memory is None else memory * 2**30,
            seconds=seconds,
            say=typer.echo,
            relative=True,
            **{name: value for name, value in options.items() if value is not None},
        ).astype(dtype)
    with writing(output) as file:
        if output.suffix == ".npy":
            np.save(file, found)
        else:
            np.savez(file, coefficients=found, classes=[] if classes is None else classes)
    typer.echo(f"the coefficients: {output}")


def _place_of(output: Path, of_classes: bool, targets: str) -> Path:
    """Where coefficients go: an .npz keeps the classes with them."""
    if of_classes and output.suffix == ".npy":
        raise ValueError(
            f"{output} would hold coefficients only, and predictions no labels: name an .npz, which"
            f" holds the classes too, as {output.with_suffix('.npz')}"
        )
    kept = of_classes or output.suffix == ".npz"
    return check_place(output, ".npz" if kept else ".npy", [targets])


@app.command("predict")
def predict_command(
    context: typer.Context,
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL DATA [OUTPUT] | STORE COEFFICIENTS DATA OUTPUT",
            help="A model of `ntkcore fit`, or a store and what `ntkcore solve` wrote; samples;"
            " where the predictions (of classes labels) go (.npy), the screen by default.",
        ),
    ],
    kernel: Annotated[str, typer.Option(help="Of a store: ntk or nngp.")] = "ntk",
    threads: Threads = None,
) -> None:
    """Predictions for new samples; their kernel with the training samples is never held.

    Example:  ntkcore predict model.npz x_test.npy predictions.npy
    """
    if not 2 <= len(places) <= 4:
        raise ValueError(
            "predict takes MODEL DATA [OUTPUT], or STORE COEFFICIENTS DATA OUTPUT,"
            f" not {len(places)} arguments"
        )
    output = None
    if len(places) > 2:
        output = check_place(cast(Path, local(Path(places[-1]))), ".npy", places[:-1])
    if len(places) == 4:
        store, coefficients, data, _ = places
        found = _from_store(store, coefficients, data, kernel, threads)
    else:
        without_effect(context, "kernel", "for a model, which knows its own")
        found = _from_model(places[0], places[1], threads)
    if output is None:
        for row in found:
            typer.echo(" ".join(map(str, np.atleast_1d(row))))
        return
    with writing(output) as file:
        np.save(file, found)
    typer.echo(f"{len(found)} predictions: {output}")


def _from_model(model: str, data: str, threads: int | None) -> Any:
    from ntkcore.linalg.fitting import KernelModel

    known = KernelModel.load(cast(Path, local(Path(model))))
    return known.predict(load(data, whole=False), threads)


def _from_store(store: str, coefficients: str, data: str, kernel: str, threads: int | None) -> Any:
    from ntkcore.linalg.checks import targets_of
    from ntkcore.linalg.classes import labels_of
    from ntkcore.linalg.operators import MatrixFree
    from ntkcore.store.format import attributes, open_store

    group = open_store(cast(str, lasting(store)), mode="r")
    found = attributes(group)
    _check_kernel(group, kernel)
    solution, classes = _solution(coefficients)
    x, z = group["x"][...], np.asarray(load(data), found["dtype"])
    if solution.shape[:1] != (len(x),):
        raise ValueError(
            f"{coefficients} has shape {solution.shape}, the store {len(x)} samples:"
            " solve with this store"
        )
    targets_of(solution, len(x), coefficients)
    outputs = MatrixFree(from_json(found["net"]), z, x, kernel, threads=threads) @ solution
    return labels_of(outputs, classes) if len(classes) else outputs


def _solution(file: str) -> tuple[Any, Any]:
    """What `ntkcore solve` wrote: coefficients, and classes if they are of some."""
    if not (file.endswith(".npz") and Path(file).exists()):
        return np.asarray(load(file)), ()
    return load(f"{file}:coefficients"), load(f"{file}:classes", labels=True)


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
    """The largest eigenvalues of a store, their share of the trace and of the targets.

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
