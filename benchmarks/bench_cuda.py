"""On a GPU: time per pair beside the limits of its instruction issue (images) and of CuPy's own product (vectors).

    python benchmarks/bench_cuda.py [--quick] [--neural-tangents PYTHON] [--arora CNTK.py]

float32, nngp and ntk together, data and results on the device, medians between events. Correctness first, against the
CPU engine. The limit of an image network of 3x3 convolutions and ReLUs: INSTRUCTIONS per point and layer
(tools/sass_report.py), 32 points an instruction, 4 instructions a clock and multiprocessor.

Peers, where given: a Python that has neural-tangents and JAX for CUDA, and the file CNTK.py of Arora et al. 2019
(github.com/ruosongwang/CNTK), whose kernels of CuPy are run on some pairs of images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from harness import require, write

import ntkcore as nk
from ntkcore.backends import cuda_problem
from ntkcore.layers import Serial

INSTRUCTIONS = 39.5
GET = ("nngp", "ntk")


@dataclass(frozen=True)
class Job:
    """A network on 32x32x3 images; `points` of all tori and layers of a pair, `goal` in microseconds per pair."""

    name: str
    net: Serial
    images: int
    points: int
    goal: float


MYRTLE_10 = 3 * 32**4 + 3 * 16**4 + 3 * 8**4
JOBS = [
    Job("CNTK-20 GAP", nk.cntk(20), 96, 20 * 32**4, 50),
    Job("Myrtle-10", nk.myrtle(10), 192, MYRTLE_10, 10),
    Job("CNTK-20 Flatten", nk.cntk(20, "flatten"), 1536, 20 * 32**2, 0.1),
]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 32, 32, 3)).astype(np.float32)


def seconds(cupy: object, call: Callable[[], object], repeats: int) -> float:
    """Median time of a call on the device."""
    found = []
    for _ in range(repeats + 1):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()  # type: ignore[attr-defined]
        start.record()
        result = call()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)  # type: ignore[attr-defined]
        del result
    return statistics.median(found[1:])


def issue_limit(cupy: object, points: int) -> float:
    """Seconds per pair if every multiprocessor issued 4 instructions every clock."""
    device = cupy.cuda.Device()  # type: ignore[attr-defined]
    rate = 4 * device.attributes["MultiProcessorCount"] * device.attributes["ClockRate"] * 1e3
    return INSTRUCTIONS * points / 32 / rate


def image_job(cupy: object, job: Job, repeats: int) -> dict[str, float]:
    x = images(4)
    single = cupy.asnumpy(nk.kernel(job.net, cupy.asarray(x)))  # type: ignore[attr-defined]
    double = nk.kernel(job.net, x, dtype=np.float64)
    error = float(np.abs(single - double).max() / np.abs(double).max())
    require(job.name, error, 1e-5)
    x, z = (cupy.asarray(a) for a in np.split(images(2 * job.images), 2))  # type: ignore[attr-defined]
    pairs = job.images**2
    micro = 1e6 * seconds(cupy, lambda: nk.kernel(job.net, x, z, GET, tile=-(-job.images // 16) * 16), repeats) / pairs
    limit = 1e6 * issue_limit(cupy, job.points)
    hours = micro * 1e-6 * 50_000**2 / 2 / 3600
    met = "met" if micro <= job.goal else "MISSED"
    print(
        f"{job.name:16s} {micro:8.3f} us a pair, goal {job.goal:g} {met}; issue limit {limit:.3f} us; "
        f"{1e6 / micro:.0f} pairs a second; 50 000 images {hours:.2f} h; error {error:.1e}",
        flush=True,
    )
    return {"us": micro, "goal": job.goal, "limit_us": limit, "hours_50k": hours, "error": error}


def neural_tangents(python: str, own: float) -> dict[str, float]:
    """CNTK-20 GAP of 2 images by neural-tangents as it comes: microseconds of wall time per pair."""
    from nt_worker import Peer, Spelling

    layers = ["stax.Conv(3, (3, 3), None, 'SAME', 2**.5)", "stax.Relu()"] * 20 + ["stax.GlobalAvgPool()"]
    net = f"stax.serial({', '.join(layers)}, stax.Dense(1, 2**.5))"
    with Peer(python, {"serial": net}, images(2), one_thread=False, platform="cuda") as peer:
        wall = statistics.median(peer.seconds(Spelling("serial", GET))[1] for _ in range(5))
    micro = 1e6 * wall / 4
    print(f"neural-tangents, CNTK-20 GAP: {micro:.0f} us a pair, {micro / own:.0f} x ntkcore's")
    return {"us": micro, "ratio": micro / own}


def arora(cupy: object, path: str, own: float) -> dict[str, float]:
    """CNTK-20 GAP by the kernels of Arora et al.'s script, cut off where it loads CIFAR."""
    code = Path(path).read_text().split("#Load CIFAR-10.")[0]
    stub = types.ModuleType("utils")
    stub.load_cifar = None  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, utils=stub), mock.patch.object(sys, "argv", ["CNTK.py", "--fix", "no"]):
        theirs: dict[str, Any] = {}
        exec(compile(code, path, "exec"), theirs)  # the user named the file
    x = images(8)
    data = cupy.asarray(x.transpose(0, 3, 1, 2).reshape(8, 3, 1024))  # type: ignore[attr-defined]
    tables = [theirs["xx"](a) for a in data]

    def pair(i: int, j: int) -> Any:
        return theirs["xz"](data[i], data[j], tables[i][0], tables[j][0], tables[i][1], tables[j][1])

    found = np.array([[float(pair(i, j)) for j in range(8)] for i in range(8)])
    ours = nk.kernel(nk.cntk(20), x)
    require("Arora et al., up to a factor", float(1 - np.corrcoef(found.ravel(), ours.ravel())[0, 1]), 1e-4)
    micro = 1e6 * seconds(cupy, lambda: [pair(0, j) for j in range(8)], 3) / 8
    print(f"Arora et al., CNTK-20 GAP, ntk alone: {micro:.0f} us a pair, {micro / own:.0f} x ntkcore's")
    return {"us": micro, "ratio": micro / own}


def vector_job(cupy: object, N: int, repeats: int) -> dict[str, float]:
    """The whole call over CuPy's bare product of the same size, which computes both triangles."""
    rng, net = np.random.default_rng(0), nk.mlp(3)
    x = rng.standard_normal((600, 784)).astype(np.float32)
    single = cupy.asnumpy(nk.kernel(net, cupy.asarray(x)))  # type: ignore[attr-defined]
    double = nk.kernel(net, x, dtype=np.float64)
    error = float(np.abs(single - double).max() / np.abs(double).max())
    require("FC", error, 2e-6)
    x = cupy.asarray(rng.standard_normal((N, 784)).astype(np.float32))  # type: ignore[attr-defined]
    product = seconds(cupy, lambda: x @ x.T, repeats)
    whole = seconds(cupy, lambda: nk.kernel(net, x), repeats)
    ratio = whole / product
    met = "met" if ratio <= 1.1 else "MISSED"
    times = f"{1e3 * whole:.1f} ms, CuPy's product {1e3 * product:.1f} ms"
    print(f"FC d=784 L=3 N={N}: {times}: {ratio:.2f} x, goal 1.1 {met}")
    return {"seconds": whole, "product": product, "ratio": ratio, "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small jobs; nothing is written")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="Python of an environment with JAX for CUDA")
    parser.add_argument("--arora", metavar="CNTK.py", help="their script")
    options = parser.parse_args()
    quick = options.quick
    if problem := cuda_problem():
        print(f"no CUDA benchmark: {problem}")
        return
    import cupy

    repeats = 2 if quick else 5
    results = {job.name: image_job(cupy, job, repeats) for job in JOBS}
    results["FC"] = vector_job(cupy, 4000 if quick else 20_000, repeats)
    if options.neural_tangents:
        results["neural-tangents"] = neural_tangents(options.neural_tangents, results["CNTK-20 GAP"]["us"])
    if options.arora:
        results["Arora et al."] = arora(cupy, options.arora, results["CNTK-20 GAP"]["us"])
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(device)
    if not quick:
        print(f"written: {write('cuda', {'device': device, 'jobs': results})}")


if __name__ == "__main__":
    main()
