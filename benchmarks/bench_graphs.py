"""The graph neural tangent kernel: 1000 generated graphs of about 20 nodes, beside plain NumPy.

    python benchmarks/bench_graphs.py [--graphs 1000] [--repeats 3]

Half cycles with chords, half two stochastic blocks, 15 to 25 nodes with one of four labels each;
three sums over neighbours with two hidden layers each, jumping knowledge. Correctness first, then
times beside two plain versions: one sums by sparse Kronecker products, as the authors' code does,
one multiplies dense matrices.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import alternate, errors, last_core, measured, pinned, require, write
from scipy import sparse

import ntkcore as nk

BLOCKS, LAYERS = 3, 2
NODES, LABELS = (15, 26), 4
PART = 24  # graphs of which all pairs are computed by the plain version
GOAL_SECONDS, GOAL_RATIO = 120, 20
Graph = tuple[np.ndarray, np.ndarray]


def graphs(count: int, seed: int = 0) -> list[Graph]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        n = int(rng.integers(*NODES))
        at = np.arange(n)
        if i % 2:
            same = (at[:, None] < n // 2) == (at < n // 2)
            edges = rng.random((n, n)) < np.where(same, 0.4, 0.05)
        else:
            edges = rng.random((n, n)) < 0.08
            edges[at, (at + 1) % n] = True
        edges = np.triu(edges | edges.T, 1)
        A = (edges | edges.T).astype(float)
        found.append((np.eye(LABELS)[rng.integers(0, LABELS, n)], A))
    return found


# --- plain NumPy


def relu(K: np.ndarray, q: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.sqrt(q)[:, None] * np.sqrt(r)
    c = np.clip(K / scale, -1, 1)
    angle = np.pi - np.arccos(c)
    return scale * (c * angle + np.sqrt(1 - c * c)) / np.pi, angle / np.pi


def variances(graph: Graph) -> tuple[np.ndarray, list[np.ndarray]]:
    """A + I, and the variances of all nodes before every ReLU."""
    H, A = graph
    P = A + np.eye(len(A))
    K, found = P @ (H @ H.T) @ P.T, []
    for block in range(BLOCKS):
        for _ in range(LAYERS):
            q = np.diagonal(K).copy()
            found.append(q)
            K, _ = relu(K, q, q)
            np.fill_diagonal(K, q)
        if block < BLOCKS - 1:
            K = P @ K @ P.T
    return P, found


def plain_pair(one: Graph, two: Graph, side1: Any, side2: Any, kronecker: bool) -> float:
    (P1, q1), (P2, q2) = side1, side2
    both = sparse.kron(P1, P2).tocsr() if kronecker else None

    def summed(M: np.ndarray) -> np.ndarray:
        return P1 @ M @ P2.T if both is None else (both @ M.reshape(-1)).reshape(M.shape)

    K = one[0] @ two[0].T
    total = K.sum()
    K = summed(K)
    T, stage = K, 0
    for block in range(BLOCKS):
        for _ in range(LAYERS):
            K, D = relu(K, q1[stage], q2[stage])
            T = T * D + K
            stage += 1
        total += T.sum()
        if block < BLOCKS - 1:
            K, T = summed(K), summed(T)
    return float(total)


def plain(given: list[Graph], kronecker: bool = False) -> np.ndarray:
    sides = [variances(graph) for graph in given]
    K = np.empty((len(given), len(given)))
    for i, one in enumerate(given):
        for j in range(i, len(given)):
            K[i, j] = K[j, i] = plain_pair(one, given[j], sides[i], sides[j], kronecker)
    return K / given[0][0].shape[1]


# --- what is measured


def check(net: nk.Layer, given: list[Graph]) -> dict[str, Any]:
    """Labelled nodes of different graphs may have equal neighbours, which correlate by exactly 1:
    both versions take the root of its rounding. Real features have none of that off the diagonal.
    """
    rng = np.random.default_rng(1)
    real = [(rng.standard_normal(H.shape), A) for H, A in given]
    found = {}
    for name, some, bounds in (("real", real, (1e-10, 3e-6)), ("labels", given, (1e-8, 1e-3))):
        K, x = plain(some), nk.pack_graphs(some)
        require("the plain versions", errors(plain(some, True), K)["off_diagonal"], 1e-9)
        for dtype, bound in zip(("float64", "float32"), bounds, strict=True):
            found[f"{name}, {dtype}"] = error = errors(nk.kernel(net, x, dtype=dtype), K)
            require(f"{name}, {dtype}", error["off_diagonal"], bound)
            require(f"{name}, {dtype}, diagonal", error["diagonal"], max(bound, 1e-8))
    return found


def per_pair(net: nk.Layer, given: list[Graph], repeats: int) -> dict[str, float]:
    """Microseconds of one core."""
    x = nk.pack_graphs(given)
    with pinned(last_core()):
        times = alternate(
            {
                "NumPy, Kronecker": measured(lambda: plain(given[:PART], True)),
                "NumPy, matrices": measured(lambda: plain(given[:PART])),
                **{
                    dtype: measured(lambda dtype=dtype: nk.kernel(net, x, dtype=dtype, threads=1))
                    for dtype in ("float64", "float32")
                },
            },
            repeats,
        )
    found = {}
    for name, timing in times.items():
        n = PART if name.startswith("NumPy") else len(given)
        found[name] = 1e6 * timing.summary()["core"] / (n * (n + 1) / 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    net, given = nk.gntk(BLOCKS, LAYERS), graphs(arguments.graphs)
    results: dict[str, Any] = {"graphs": len(given), "errors": check(net, given[:PART])}
    results["microseconds a pair"] = pair = per_pair(net, given[:200], arguments.repeats)
    results["NumPy over ntkcore"] = ratios = {
        name: pair[name] / pair["float64"] for name in pair if name.startswith("NumPy")
    }
    for dtype in ("float64", "float32"):
        whole = measured(lambda dtype=dtype: nk.kernel(net, nk.pack_graphs(given), dtype=dtype))
        results[f"all, {dtype}"] = alternate({"all": whole}, arguments.repeats, 0)["all"].summary()
    print(f"errors: {results['errors']}")
    print(f"microseconds a pair, one core: {pair}")
    print(f"over ntkcore's float64: {ratios} (goal {GOAL_RATIO})")
    wall = results["all, float64"]["wall"]
    print(f"{len(given)} graphs, packed and computed: {wall:.1f} s (goal {GOAL_SECONDS})")
    print("written:", write("graphs", results))


if __name__ == "__main__":
    main()
