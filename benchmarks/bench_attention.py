"""Attention over sequences: neural-tangents' IMDb example, beside it and beside the bare products.

    python benchmarks/bench_attention.py [--repeats 3] [--quick]

The network of neural-tangents' examples/imdb.py, on drawn vectors like GloVe's (d = 300, at most
500 words), float32, nngp and ntk together. Core time a pair on one core beside neural-tangents,
call by call, and beside the products G K G' of K and of T alone, by BLAS; then the whole example,
300 training and 300 test sequences, on all cores: of IMDb's lengths, which are drawn from a
lognormal law of mean 234 and median 174 and cut at 500, and masked. Correctness first.
"""

from __future__ import annotations

import argparse
import resource
from typing import Any

import numpy as np
from harness import alternate, last_core, measure, measured, pinned, require, write
from nt_worker import Peer, Spelling, environment

import ntkcore as nk

WORDS, FEATURES, SAMPLES = 500, 300, 300
GET = ("nngp", "ntk")
ATTENTION = nk.GlobalSelfAttention(pos_emb_type="sum", pos_emb_decay=lambda d: 1 / (1 + d**2))
IMDB = nk.Conv((9,)), nk.Relu(), ATTENTION, nk.Relu(), nk.GlobalAvgPool(), nk.Dense()
POOLED = nk.Conv((9,)), nk.Relu(), ATTENTION, nk.GlobalAvgPool(), nk.Dense()
_ATTENTION = (
    "stax.GlobalSelfAttention(1, 1, 1, 1, pos_emb_type='SUM',"
    " pos_emb_decay_fn=lambda d: 1 / (1 + d**2))"
)
_START, _END = (
    "stax.Conv(1, (9,), (1,), 'VALID'), stax.Relu()",
    "stax.GlobalAvgPool(), stax.Dense(1)",
)
FORMS = {
    "IMDb's example": (IMDB, f"stax.serial({_START}, {_ATTENTION}, stax.Relu(), {_END})"),
    "attention, then its mean": (POOLED, f"stax.serial({_START}, {_ATTENTION}, {_END})"),
}
GOALS = {"ratio": 20.0, "wall": 30.0}
PEER, OWN = 2, 12  # sequences of a call


def sequences(count: int, words: int = WORDS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, words, FEATURES)).astype("f4")


def check(python: str) -> dict[str, float]:
    """Both against neural-tangents in float64, on 40 words."""
    x, found = sequences(3, 40).astype(np.float64), {}
    with Peer(python, {name: net for name, (_, net) in FORMS.items()}, x) as peer:
        for name, (layers, _) in FORMS.items():
            theirs, ours = peer.kernels(name, GET), nk.kernel(nk.Serial(*layers), x, None, GET)
            error = max(
                float(np.abs(ours[i] - theirs[get]).max() / np.abs(theirs[get]).max())
                for i, get in enumerate(GET)
            )
            require(name, error, 1e-10)
            found[name] = error
    return found


def products(size: int) -> Any:
    """G K G' and G T G' by BLAS."""
    rng = np.random.default_rng(0)
    g, k, t, h = (rng.standard_normal((size, size)).astype("f4") for _ in range(4))
    return lambda: (g @ k @ h, g @ t @ h)


def a_pair(python: str, repeats: int) -> dict[str, dict[str, float]]:
    """Core seconds of one pair."""
    found: dict[str, dict[str, float]] = {}
    x, z = sequences(OWN), sequences(OWN, seed=1)
    for name, (layers, theirs) in FORMS.items():
        with Peer(python, {"serial": theirs}, sequences(PEER)) as peer:
            net = nk.Serial(*layers)
            calls = {
                "neural-tangents": peer.measured(Spelling("serial", GET)),
                "ntkcore": measured(lambda net=net: nk.kernel(net, x, z, GET, threads=1)),
                "bare products": measured(products(WORDS - 8)),
            }
            pairs = {"neural-tangents": PEER**2, "ntkcore": OWN**2, "bare products": 1}
            timings = alternate(calls, repeats)
        found[name] = {who: t.summary()["core"] / pairs[who] for who, t in timings.items()}
        ratio = found[name]["neural-tangents"] / found[name]["ntkcore"]
        found[name]["ratio"] = ratio
        shown = ", ".join(f"{who} {1e3 * found[name][who]:.2f} ms" for who in pairs)
        print(f"{name}, a pair of {WORDS} words: {shown}; {ratio:.0f} x", flush=True)
    return found


def lengths(count: int) -> np.ndarray:
    """Like those of IMDb's reviews: mean 234, median 174."""
    drawn = np.random.default_rng(2).lognormal(np.log(174), (2 * np.log(234 / 174)) ** 0.5, count)
    return np.clip(drawn, 20, WORDS).astype(int)


def example(count: int) -> dict[str, float]:
    """Kernels of training data, and of test data with them, on all cores."""
    x = sequences(2 * count)
    packed = nk.pack_sequences([row[:n] for row, n in zip(x, lengths(2 * count), strict=True)])
    train, test = packed[:count], packed[count:]
    net = nk.Serial(nk.MaskedInput(), *IMDB)

    def kernels() -> object:
        return nk.kernel(net, train, None, GET), nk.kernel(net, test, train, GET)

    core, wall = measure(kernels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"the example, {count} + {count} masked sequences: {wall:.0f} s ({core:.0f} s of core"
        f" time), goal {GOALS['wall']:.0f} s; peak {peak / 1e9:.2f} GB",
        flush=True,
    )
    return {"core": core, "wall": wall, "peak": peak, "samples": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the example; no results")
    chosen = parser.parse_args()
    python = environment()
    results: dict[str, Any] = {"errors": check(python)}
    with pinned(last_core()):
        results["pair"] = a_pair(python, 1 if chosen.quick else chosen.repeats)
    results["example"] = example(SAMPLES // 10 if chosen.quick else SAMPLES)
    if not chosen.quick:
        print(f"written: {write('attention', results)}")


if __name__ == "__main__":
    main()
