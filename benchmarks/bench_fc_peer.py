"""Fully connected ReLU networks against neural-tangents: how many times less core time,
on the same data, in one run?

    python benchmarks/bench_fc_peer.py [--repeats 7] [--quick]

neural-tangents gets its best: every spelling of the call is tried once (serial and `repeat`, x2
left out or given, any `get`, compiled or not, in batches), and the fastest ones run against
ntkcore, call by call in turn. `stax.repeat` keeps each layer in memory, where XLA otherwise fuses
layers and computes some of them again; it needs Dense of the data's width, which changes nothing in
the infinite limit. Both run on one core, then with their default threading. Before that: float64 of
both must agree, and ntkcore's float32 must be within 1e-6 of it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness import (
    Measure,
    Timing,
    alternate,
    errors,
    last_core,
    measured,
    pinned,
    require,
    syrk,
    write,
)
from nt_worker import Peer, Spelling, environment
from threadpoolctl import threadpool_limits

import ntkcore
from ntkcore import kernel, mlp

FINALISTS = 3
GETS: tuple[Any, ...] = ("ntk", ("nngp", "ntk"), None)
SPELLINGS = [
    *(
        Spelling(net, get, x2)
        for net in ("serial", "repeat")
        for get in GETS
        for x2 in (False, True)
    ),
    *(Spelling(net, jit=False) for net in ("serial", "repeat")),
    *(Spelling("repeat", batch=batch) for batch in (250, 500, 1000, 2000)),
]


@dataclass(frozen=True)
class Job:
    """`depth` hidden ReLU layers on N standard normal points of d features;
    the goal is a ratio of core times.
    """

    N: int
    d: int
    depth: int
    goal: float

    def __str__(self) -> str:
        return f"N={self.N} d={self.d} L={self.depth}"

    def data(self, dtype: type = np.float32) -> np.ndarray:
        return (
            np.random.default_rng(0)
            .standard_normal((self.N, self.d))
            .astype(np.float32)
            .astype(dtype)
        )

    def peer_nets(self) -> dict[str, str]:
        """The network of `mlp(depth)` in neural-tangents' spelling,
        unrolled and as a compiled loop.
        """
        hidden = f"stax.serial(stax.Dense({self.d}, 2**.5), stax.Relu())"
        readout = "stax.Dense(1, 2**.5)"
        return {
            "serial": f"stax.serial(*[{hidden}] * {self.depth}, {readout})",
            "repeat": f"stax.serial(stax.repeat({hidden}, {self.depth}), {readout})",
        }


JOBS = [Job(4000, 784, 3, goal=6), Job(4000, 10, 10, goal=50)]

# Other networks, for correctness alone, in ntkcore's and in neural-tangents' spelling; data of 10
# features.
OTHERS = {
    "relu with biases": (
        mlp(3, 1.3, 0.2),
        (
            "stax.serial(*[stax.serial(stax.Dense(8, 1.3, .2), stax.Relu())] * 3, stax.Dense(1,"
            " 1.3, .2))"
        ),
    ),
    "erf": (
        mlp(3, 1.3, 0.2, ntkcore.Erf()),
        (
            "stax.serial(*[stax.serial(stax.Dense(8, 1.3, .2), stax.Erf())] * 3, stax.Dense(1, 1.3,"
            " .2))"
        ),
    ),
    "gelu": (
        mlp(3, 1.3, 0.2, ntkcore.Gelu()),
        (
            "stax.serial(*[stax.serial(stax.Dense(8, 1.3, .2), stax.Gelu())] * 3, stax.Dense(1,"
            " 1.3, .2))"
        ),
    ),
}


# --- correctness


def check_small(python: str) -> dict[str, Any]:
    """float64 against neural-tangents' own on 300 points: 1e-12 off the diagonal,
    where its error is its own 1e-8.
    """
    found: dict[str, Any] = {}
    networks = {str(job): (mlp(job.depth), job.peer_nets()["serial"], job.d) for job in JOBS}
    networks |= {name: (net, peer_net, 10) for name, (net, peer_net) in OTHERS.items()}
    for name, (net, peer_net, d) in networks.items():
        x = Job(300, d, 0, 0).data(np.float64)
        mine = kernel(net, x, get=("nngp", "ntk"))
        with Peer(python, {"serial": peer_net}, x) as peer:
            theirs = peer.kernels()
        for get in ("nngp", "ntk"):
            found[f"{name}, {get}"] = error = errors(getattr(mine, get), theirs[get])
            require(
                f"{name}, float64 {get} off the diagonal against neural-tangents",
                error["off_diagonal"],
                1e-12,
            )
            require(
                f"{name}, float64 {get} on the diagonal against neural-tangents",
                error["diagonal"],
                1e-6,
            )
    return found


def check_float32(job: Job, peer: Peer) -> dict[str, Any]:
    """float32 of both on the data that are timed,
    against ntkcore's float64 (which check_small has checked).
    """
    net, x = mlp(job.depth), job.data()
    exact = kernel(net, x, get=("nngp", "ntk"), dtype=np.float64)
    mine = kernel(net, x, get=("nngp", "ntk"))
    found: dict[str, Any] = {
        "ntkcore": {get: errors(getattr(mine, get), getattr(exact, get)) for get in exact._fields}
    }
    for get, error in found["ntkcore"].items():
        require(f"{job}, ntkcore's float32 {get}", max(error.values()), 1e-6)
    for spelling in ("serial", "repeat"):
        theirs = {
            get: errors(array, getattr(exact, get)) for get, array in peer.kernels(spelling).items()
        }
        # Guards against the wrong network, no more: its own float32 error is large on the diagonal.
        require(f"{job}, neural-tangents' float32 ntk", theirs["ntk"]["off_diagonal"], 1e-3)
        found[f"neural-tangents {spelling}"] = theirs
    return found


# --- time


def best_spellings(peer: Peer) -> dict[str, Timing]:
    """All spellings, each timed once after its compilation and a first call, the fastest first."""
    timings = alternate({str(how): peer.measured(how) for how in SPELLINGS}, repeats=1, warmups=0)
    return dict(sorted(timings.items(), key=lambda item: min(item[1].core)))


def contest(
    job: Job, peer: Peer, finalists: list[str], threads: int | None, repeats: int
) -> dict[str, Any]:
    """ntkcore, BLAS and the peer's fastest spellings in turn; ratios are of medians,
    to ntkcore's 'ntk'.
    """
    net, x = mlp(job.depth), job.data()
    contestants: dict[str, Measure] = {
        "ntkcore 'ntk'": measured(lambda: kernel(net, x, threads=threads)),
        "ntkcore ('nngp', 'ntk')": measured(
            lambda: kernel(net, x, get=("nngp", "ntk"), threads=threads)
        ),
        "BLAS X @ X.T": syrk(x),
    }
    contestants |= {str(how): peer.measured(how) for how in SPELLINGS if str(how) in finalists}
    with threadpool_limits(threads, "blas"):
        timings = alternate(contestants, repeats, warmups=0, settle=1)
    seconds = {name: timing.summary() for name, timing in timings.items()}
    mine = seconds["ntkcore 'ntk'"]
    best = {clock: min(seconds[name][clock] for name in finalists) for clock in ("core", "wall")}
    return {
        "seconds": seconds,
        "ratio_core": best["core"] / mine["core"],
        "ratio_wall": best["wall"] / mine["wall"],
        "ntkcore_over_blas": mine["core"] / seconds["BLAS X @ X.T"]["core"],
    }


def run(job: Job, python: str, repeats: int) -> dict[str, Any]:
    core = last_core()
    with pinned(core), Peer(python, job.peer_nets(), job.data()) as peer:
        found: dict[str, Any] = {
            "versions": peer.versions,
            "errors_float32": check_float32(job, peer),
        }
        spellings = best_spellings(peer)
        finalists = list(spellings)[:FINALISTS]
        found |= {
            "goal": job.goal,
            "one core": contest(job, peer, finalists, 1, repeats),
            "spellings": spellings,
        }
    with Peer(python, job.peer_nets(), job.data(), one_thread=False) as peer:
        found["default threading"] = contest(job, peer, finalists, None, max(3, repeats // 2))
    return found


def show(job: Job, found: dict[str, Any]) -> None:
    print(f"\n{job}, float32; goal on one core: {job.goal:g} x less core time")
    for who, error in found["errors_float32"].items():
        ntk = error["ntk"]
        print(
            f"  error of ntk: off-diagonal {ntk['off_diagonal']:.1e}, diagonal"
            f" {ntk['diagonal']:.1e}  {who}"
        )
    for how in ("one core", "default threading"):
        result = found[how]
        ratios = (
            f"{result['ratio_core']:.1f} x less core time, {result['ratio_wall']:.1f} x less wall"
            " time"
        )
        print(f"  {how}: {ratios}; {result['ntkcore_over_blas']:.2f} x BLAS X @ X.T in core time")
        for name, seconds in result["seconds"].items():
            print(
                f"    core {seconds['core'] * 1e3:8.1f} ms  wall {seconds['wall'] * 1e3:8.1f} ms "
                f" {name}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="N=1000, 3 repeats; writes no results")
    options = parser.parse_args()
    python = environment()
    results: dict[str, Any] = {"errors_float64": check_small(python)}
    print("float64 agrees with neural-tangents on", len(results["errors_float64"]), "kernels")
    for job in JOBS:
        if options.quick:
            job = Job(1000, job.d, job.depth, job.goal)
        results[str(job)] = run(job, python, 3 if options.quick else options.repeats)
        show(job, results[str(job)])
    if not options.quick:
        print("\nwritten:", write("fc_peer", results))


if __name__ == "__main__":
    main()
