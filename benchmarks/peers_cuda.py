"""On a GPU, convolutional kernels of neural-tangents and of Arora et
al.'s script beside ntkcore's, on the same card.

    python benchmarks/peers_cuda.py [--folder FOLDER] [--python PYTHON] [--out FOLDER]
        [--seconds 100]

FOLDER/site: neural-tangents 0.6.5 for a Python that has JAX for CUDA, this one or PYTHON (made by
peers_folder.sh). FOLDER/CNTK.py: the script of Arora et al. 2019 (github.com/ruosongwang/CNTK),
whose CuPy kernels are run on some pairs. What is not there is left out, with a word. float32, nngp
and ntk together (Arora et al.: ntk alone). neural-tangents: wall time per computed pair of compiled
calls, stock and in its strongest forms (nt_conv_worker.py), in the precision that JAX chooses, the
error beside it. Section "peers" of cuda.json, written after every form.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench_conv_peer import FLAT, GAP, GET, cntk, images_of, myrtle5, spelling
from cuda_machine import Clock, Record, free, require_gpu, timed
from nt_worker import Peer

import ntkcore as nk

# (name, network, side, neural-tangents' forms, images of one call of each, ntkcore's images)
JOBS = [
    (
        "CNTK-20 GAP 32x32",
        nk.cntk(20),
        32,
        cntk(20, GAP),
        {"shift-add, repeat": (4, 8), "stock": (2,)},
        64,
    ),
    (
        "CNTK-20 Flatten 32x32",
        nk.cntk(20, "flatten"),
        32,
        cntk(20, FLAT),
        {"repeat": (256,), "stock": (256,)},
        1024,
    ),
    ("CNTK-10 GAP 16x16", nk.cntk(10), 16, cntk(10, GAP), {"shift-add, repeat": (32,)}, 256),
    ("Myrtle-5", nk.myrtle(5), 32, myrtle5(), {"shift-add": (8,)}, 128),
]
# Beyond it the peer computes something else; acos near 1 and tensor cores' products give some 1e-3.
ERROR = 2e-2


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, side, side, 3)).astype(np.float32)


def own(cupy: Any, clock: Clock, net: Any, side: int, count: int) -> float:
    """ntkcore's microseconds a pair, whole calls."""
    x, z = (cupy.asarray(a) for a in np.split(images(2 * count, side), 2))
    return (
        1e6 * timed(cupy, clock, lambda: nk.kernel(net, x, z, GET)).summary()["seconds"] / count**2
    )


def neural_tangents(
    python: str, net: Any, x: np.ndarray, form: str, spelled: str, platform: str
) -> dict[str, Any]:
    """One form on one number of images, in a process of its own: its memory is given back."""
    name = f"{form}, {len(x)} images"
    start = time.perf_counter()
    with Peer(python, {name: spelled}, x, one_thread=False, platform=platform) as peer:
        theirs = peer.kernels(name, GET)
        ready = time.perf_counter() - start
        wall = statistics.median(peer.seconds(spelling(name))[1] for _ in range(5))
        versions = peer.versions
    mine = nk.kernel(net, x[:4], get=GET, dtype="float64")
    errors = [
        float(np.abs(theirs[g][:4, :4] - getattr(mine, g)).max() / getattr(mine, g).max())
        for g in GET
    ]
    if not max(errors) <= ERROR:
        raise ValueError(f"its kernel is off by {max(errors):.1e}: not timed")
    return {
        "us": 1e6 * wall / images_of(name) ** 2,
        "error": max(errors),
        "compile": ready,
        "versions": versions,
    }


def arora(cupy: Any, clock: Clock, path: Path) -> dict[str, Any]:
    """CNTK-20 GAP by the script's kernels, cut off where it loads CIFAR."""
    code = path.read_text().split("#Load CIFAR-10.")[0]
    stub = types.ModuleType("utils")
    stub.load_cifar = None  # type: ignore[attr-defined]
    with (
        mock.patch.dict(sys.modules, utils=stub),
        mock.patch.object(sys, "argv", ["CNTK.py", "--fix", "no"]),
    ):
        theirs: dict[str, Any] = {}
        exec(compile(code, str(path), "exec"), theirs)  # the user named the file
    x = images(8, 32)
    data = cupy.asarray(x.transpose(0, 3, 1, 2).reshape(8, 3, 1024))
    tables = [theirs["xx"](a) for a in data]

    def pair(i: int, j: int) -> Any:
        return theirs["xz"](
            data[i], data[j], tables[i][0], tables[j][0], tables[i][1], tables[j][1]
        )

    found = np.array([[float(pair(i, j)) for j in range(8)] for i in range(8)])
    ours = nk.kernel(nk.cntk(20), x, dtype="float64")
    factor = float((found * ours).sum() / (ours * ours).sum())  # theirs has another scale
    error = float(np.abs(found / factor - ours).max() / ours.max())
    if not error <= ERROR:
        raise ValueError(f"its kernel is off by {error:.1e}, up to a factor: not timed")
    seconds = timed(cupy, clock, lambda: [pair(0, j) for j in range(8)]).summary()["seconds"]
    return {"us": 1e6 * seconds / 8, "error": error}


def compare(name: str, mine: float, call: Callable[[], dict[str, Any]], record: Record) -> None:
    """Prints and writes down one peer, or why there is no time of it."""
    try:
        entry = call()
        entry |= {"ntkcore_us": mine, "ratio": entry["us"] / mine}
        print(
            f"{name:46s} {entry['us']:10.2f} us a pair, {entry['ratio']:.1f} x ntkcore's"
            f" {mine:.4f}; error {entry['error']:.1e}; ready after {entry.get('compile', 0):.0f} s",
            flush=True,
        )
    except Exception as error:  # the next peer may go
        entry = {"failed": str(error)[-1000:]}
        print(f"{name}: {type(error).__name__}: {str(error)[-300:]}", flush=True)
    record.add(name, entry)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="holds site/ and CNTK.py")
    parser.add_argument("--python", default=sys.executable, help="with JAX; by default this one")
    parser.add_argument("--platform", default="cuda", help="JAX's; by default %(default)s")
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    parser.add_argument("--seconds", type=float, default=100, help="no form is begun after that")
    parser.add_argument(
        "--out", type=Path, help="where cuda.json is written; by default benchmarks/results"
    )
    options = parser.parse_args()
    cupy = require_gpu()
    if options.folder is None or not options.folder.is_dir():
        print("no peers: --folder names the folder that peers_folder.sh made")
        return 0
    record, end = Record(cupy, "peers", options.out), time.perf_counter() + options.seconds
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the card is shared with CuPy
    site = options.folder.resolve() / "site"
    with Clock(cupy) as clock:
        for name, net, side, forms, chosen, count in JOBS:
            if options.only not in name:
                continue
            mine = own(cupy, clock, net, side, count)
            free(cupy)
            if name == "CNTK-20 GAP 32x32" and (script := options.folder / "CNTK.py").is_file():
                compare(
                    f"{name}, Arora et al.", mine, lambda s=script: arora(cupy, clock, s), record
                )
            for form, n in ((form, n) for form, numbers in chosen.items() for n in numbers):
                if not site.is_dir() or time.perf_counter() > end:
                    break
                with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(site), *paths()])):
                    given = (
                        options.python,
                        net,
                        images(n, side),
                        form,
                        forms[form],
                        options.platform,
                    )
                    compare(
                        f"{name}, neural-tangents {form}, {n}",
                        mine,
                        lambda g=given: neural_tangents(*g),
                        record,
                    )
    return 0


def paths() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


if __name__ == "__main__":
    sys.exit(main())
