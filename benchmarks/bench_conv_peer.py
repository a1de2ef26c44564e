"""Convolutional kernels against neural-tangents: how many times less core time per pair,
and less memory, in one run?

    python benchmarks/bench_conv_peer.py [--repeats 5] [--quick]

neural-tangents stock, as everybody writes it, and in its strongest form: nt_conv_worker.py's
improvements and `stax.repeat`, alone and together, on 2, 4, ... images. Each is tried once; the
fastest run against ntkcore, call by call in turn, on one core, float32, nngp and ntk together.
Times are per computed pair: neural-tangents computes n^2 pairs of n images, on the n that suits it;
ntkcore those of `own` images with as many others, so that the half it skips where x2 is None counts
for nothing. Before that float64 of both must agree. Memory is the peak of a process that does one
and the same job: in all, and above what its imports took.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Measure, alternate, errors, last_core, measured, pinned, require, write
from nt_worker import Peer, Spelling, environment

import ntkcore as nk

GET = ("nngp", "ntk")


def _conv(size: str = "(3, 3)") -> tuple[str, str]:
    """The convolution, stock and by shifts and sums."""
    stock = f"stax.Conv(3, {size}, None, 'SAME', 2**.5)"
    return stock, f"__import__('nt_conv_worker').shift_add({stock})"


_CONV, _SHIFT_ADD = _conv()
_POOL = "stax.AvgPool((2, 2), (2, 2))"
_DENSE = "stax.Dense(1, 2**.5)"
_MEMORY = """
import json, numpy as np, re, sys
import ntkcore as nk
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
start = peak()
x = np.random.default_rng(0).standard_normal(json.loads(sys.argv[2])).astype(np.float32)
nk.kernel(nk.from_json(sys.argv[1]), x, get=("nngp", "ntk"), threads=1)
print(json.dumps([peak(), peak() - start]))
"""


@dataclass(frozen=True)
class Job:
    """A network on images, or sequences, of this shape; `goal`:
    times less core time per pair than the strongest form.
    """

    name: str
    net: nk.Serial
    shape: tuple[int, ...]
    forms: dict[str, str]  # neural-tangents' spellings, "stock" first
    images: tuple[int, ...]  # of a call of neural-tangents, to choose from
    own: int  # images on either side of a call of ntkcore
    memory: int  # images of the job whose memory is compared
    goal: float

    def data(self, images: int, dtype: type = np.float32) -> np.ndarray:
        shape = (images, *self.shape)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32).astype(dtype)

    def peer_nets(self) -> dict[str, str]:
        """Every form on every number of images; stock on the two smallest alone, for it is slow."""
        choices = itertools.product(self.forms.items(), self.images)
        kept = [
            (form, net, n) for (form, net), n in choices if form != "stock" or n in self.images[:2]
        ]
        return {
            f"{form}, {n} images": f"__import__('nt_conv_worker').first({n}, {net})"
            for form, net, n in kept
        }


def cntk(depth: int, head: str, size: str = "(3, 3)") -> dict[str, str]:
    """Unrolled, or a compiled loop; stax.repeat with the stock
    convolution needs Flatten (no axes to turn).
    """

    def unrolled(conv: str) -> str:
        return (
            f"stax.serial(*[stax.serial({conv}, stax.Relu())] * {depth}, stax.{head}(), {_DENSE})"
        )

    def loop(conv: str) -> str:
        hidden = f"stax.repeat(stax.serial({conv}, stax.Relu()), {depth})"
        return f"stax.serial({hidden}, stax.{head}(), {_DENSE})"

    stock, shift_add = _conv(size)
    forms = {
        "stock": unrolled(stock),
        "shift-add": unrolled(shift_add),
        "shift-add, repeat": loop(shift_add),
    }
    return forms | ({"repeat": loop(stock)} if head == "Flatten" else {})


def sequences(depth: int, readout: nk.Layer) -> nk.Serial:
    """`ntkcore.cntk` with filters of 3 steps."""
    block = nk.Conv((3,), padding="SAME", W_std=2**0.5), nk.Relu()
    return nk.Serial(*block * depth, readout, nk.Dense(2**0.5))


def myrtle5() -> dict[str, str]:
    """Unrolled, or each layer compiled on its own."""

    def layers(conv: str) -> str:
        block = f"{conv}, stax.Relu(), {_POOL}"
        return f"{block}, {block}, {block}, {_POOL}, {_POOL}, stax.Flatten(), {_DENSE}"

    forms = {
        "stock": f"stax.serial({layers(_CONV)})",
        "shift-add": f"stax.serial({layers(_SHIFT_ADD)})",
    }
    return forms | {
        "shift-add, by layers": f"__import__('nt_conv_worker').by_layers({layers(_SHIFT_ADD)})"
    }


GAP, FLAT = "GlobalAvgPool", "Flatten"
IMAGE, STEPS = (32, 32, 3), (1000, 3)
JOBS = [
    Job("CNTK-5 GAP 32x32", nk.cntk(5), IMAGE, cntk(5, GAP), (2, 4, 8), 32, 8, goal=50),
    Job("CNTK-10 GAP 16x16", nk.cntk(10), (16, 16, 3), cntk(10, GAP), (4, 8, 16), 32, 32, goal=35),
    Job("Myrtle-5 32x32", nk.myrtle(5), IMAGE, myrtle5(), (2, 4, 8), 64, 8, goal=35),
    Job(
        "CNTK-20 Flatten 32x32",
        nk.cntk(20, "flatten"),
        IMAGE,
        cntk(20, FLAT),
        (16, 32, 64),
        256,
        256,
        goal=15,
    ),
    Job(
        "CNN-10 GAP, 1000 steps",
        sequences(10, nk.GlobalAvgPool()),
        STEPS,
        cntk(10, GAP, "(3,)"),
        (2, 4),
        32,
        4,
        goal=10,
    ),
    Job(
        "CNN-10 Flatten, 1000 steps",
        sequences(10, nk.Flatten()),
        STEPS,
        cntk(10, FLAT, "(3,)"),
        (16, 32, 64),
        256,
        256,
        goal=10,
    ),
]


# --- correctness


def check(job: Job, python: str) -> dict[str, Any]:
    """float64 of 2 images in every form against ntkcore's, whose float32 must be near it on 16."""
    x, found = job.data(2, np.float64), {}
    mine = nk.kernel(job.net, x, get=GET)
    with Peer(python, job.forms, x) as peer:
        for form in job.forms:
            theirs = peer.kernels(form)
            for get in GET:
                found[f"{form}, {get}"] = error = errors(getattr(mine, get), theirs[get])
                require(
                    f"{job.name}, float64 {get}, neural-tangents {form}",
                    error["off_diagonal"],
                    1e-8,
                )
                require(
                    f"{job.name}, float64 {get} diagonal, neural-tangents {form}",
                    error["diagonal"],
                    1e-6,
                )
    x = job.data(16)
    found["ntkcore's float32"] = error = errors(
        nk.kernel(job.net, x), nk.kernel(job.net, x, dtype=np.float64)
    )
    require(f"{job.name}, float32", max(error.values()), 1e-5)
    return found


# --- time


def scout(job: Job, peer: Peer) -> dict[str, float]:
    """Core seconds per pair of every form, once each after its compilation and a first call;
    the fastest first.
    """
    found = {net: peer.seconds(spelling(net))[0] / images_of(net) ** 2 for net in job.peer_nets()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def spelling(net: str) -> Spelling:
    return Spelling(net, GET, jit="by layers" not in net)


def images_of(net: str) -> int:
    return int(net.split()[-2])


def is_stock(net: str) -> bool:
    return net.startswith("stock,")


def contest(job: Job, peer: Peer, scouted: dict[str, float], repeats: int) -> dict[str, Any]:
    """The best stock form and the two strongest ones beside ntkcore, in turn;
    core seconds per pair.
    """
    stock = next(net for net in scouted if is_stock(net))
    strong = [net for net in scouted if net != stock][:2]
    pairs = {net: images_of(net) ** 2 for net in (stock, *strong)} | {"ntkcore": job.own**2}
    x, z = np.split(job.data(2 * job.own), 2)
    contestants: dict[str, Measure] = {
        net: peer.measured(spelling(net)) for net in (stock, *strong)
    }
    contestants["ntkcore"] = measured(lambda: nk.kernel(job.net, x, z, get=GET, threads=1))
    timings = alternate(contestants, repeats, warmups=0, settle=0)
    found: dict[str, Any] = {"stock": stock, "seconds": {}}
    for name, timing in timings.items():
        summary = timing.summary()
        found["seconds"][name] = {key: summary[key] / pairs[name] for key in ("core", "core_min")}
    found["strongest"] = min((stock, *strong), key=lambda net: found["seconds"][net]["core"])
    mine = found["seconds"]["ntkcore"]
    for key in ("core", "core_min"):
        best = min(found["seconds"][net][key] for net in (stock, *strong))
        found[f"ratio_{key}"] = best / mine[key]
        found[f"stock_ratio_{key}"] = found["seconds"][stock][key] / mine[key]
    return found


# --- memory


def peak_bytes(pid: int) -> int:
    """Most memory a process ever held (not ru_maxrss: a child inherits its parent's)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def memory(job: Job, python: str, strongest: str) -> dict[str, Any]:
    """Peak bytes of both, in all and above the imports, on job.memory images at once."""
    form = strongest.rsplit(",", 1)[0]
    x = job.data(job.memory)
    with Peer(python, {form: job.forms[form]}, x) as peer:
        pid = peer._child.pid
        start = peak_bytes(pid)
        peer.seconds(spelling(form))
        theirs = [peak_bytes(pid), peak_bytes(pid) - start]
    command = [sys.executable, "-c", _MEMORY, job.net.to_json(), json.dumps(x.shape)]
    mine = json.loads(subprocess.check_output(command, text=True))
    ratios = {"ratio": theirs[0] / mine[0], "ratio_above_imports": theirs[1] / max(mine[1], 4096)}
    return {"images": job.memory, "form": form, "theirs": theirs, "mine": mine, **ratios}


# --- report


def verdict(value: float, goal: float) -> str:
    return f"goal {goal:g} " + (
        "met" if value >= goal else f"MISSED by {100 * (1 - value / goal):.0f} %"
    )


def show(job: Job, found: dict[str, Any]) -> None:
    times = found["times"]
    print(f"\n{job.name}, core time per computed pair, medians (minima)")
    for name, seconds in times["seconds"].items():
        mark = {times["strongest"]: "  <- strongest"}.get(name, "")
        print(f"  {1e3 * seconds['core']:10.4f} ms ({1e3 * seconds['core_min']:.4f})  {name}{mark}")
    minimum = f"{times['ratio_core_min']:.1f} of minima"
    print(
        f"  {times['ratio_core']:.1f} x less than the strongest ({minimum});"
        f" {verdict(times['ratio_core'], job.goal)}"
    )
    print(f"  {times['stock_ratio_core']:.1f} x less than stock")
    m = found["memory"]
    sizes = [
        f"{total / 2**20:.0f} MiB ({above / 2**20:.0f} above imports)"
        for total, above in (m["theirs"], m["mine"])
    ]
    ratios = f"{m['ratio']:.1f} x less ({m['ratio_above_imports']:.0f} x above imports)"
    print(
        f"  memory of {m['images']} images: {' against '.join(sizes)}: {ratios};"
        f" {verdict(m['ratio'], 20)}",
        flush=True,
    )


def run(job: Job, python: str, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {"goal": job.goal, "errors": check(job, python)}
    with Peer(python, job.peer_nets(), job.data(max(job.images))) as peer:
        found["versions"], found["scouted"] = peer.versions, scout(job, peer)
        found["times"] = contest(job, peer, found["scouted"], repeats)
    found["memory"] = memory(job, python, found["times"]["strongest"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 repeats; writes no results")
    parser.add_argument("--only", help="jobs whose name contains this; writes no results")
    options = parser.parse_args()
    python, results = environment(), {}
    with pinned(last_core()):
        for job in JOBS:
            if (options.only or "") in job.name:
                results[job.name] = run(job, python, 2 if options.quick else options.repeats)
                show(job, results[job.name])
    if not (options.quick or options.only):
        print("\nwritten:", write("conv_peer", {"jobs": results}))


if __name__ == "__main__":
    main()
