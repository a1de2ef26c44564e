"""Any activation: core time per pair and layer beside ReLU's, and that of its tables.

    python benchmarks/bench_elementwise.py [--repeats 7]

One core, nngp and ntk together, medians of core time; a layer's time is the difference of a deep
and a shallow network over the layers between. Correctness first: GELU by a table against its closed
form, and float32 against float64.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import alternate, last_core, measure, measured, pinned, require, write

import ntkcore as nk
from ntkcore.engine import kernels
from ntkcore.specs import elementwise

GET = ("nngp", "ntk")
NAMES = ("silu", "softplus", "sigmoid", "tanh", "mish", "hardswish", "elu")
ACTIVATIONS: dict[str, nk.Layer] = {
    "relu": nk.Relu(),
    "gelu, closed form": nk.Gelu(),
    **{name: nk.Elementwise(name) for name in NAMES},
}
NOT_SINGLE = ("elu",)  # refused in float32 at the variances of these images
SHALLOW, DEEP, GOAL = 2, 6, 3.0
VECTORS, IMAGES = (2000, 64), (8, 16, 16, 3)


def network(activation: nk.Layer, depth: int, images: bool) -> nk.Serial:
    affine = nk.Conv((3, 3), padding="SAME") if images else nk.Dense()
    head = (nk.GlobalAvgPool(), nk.Dense()) if images else (nk.Dense(),)
    return nk.Serial(*(affine, activation) * depth, *head)


def data(images: bool) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal(IMAGES if images else VECTORS)
    return x if images else x / np.sqrt((x**2).mean(axis=1, keepdims=True))


def pairs(images: bool) -> int:
    """Of points: every pixel with every other."""
    n = (IMAGES if images else VECTORS)[0]
    return n * (n + 1) // 2 * ((IMAGES[1] * IMAGES[2]) ** 2 if images else 1)


def check() -> dict[str, float]:
    found = {}
    for images in (False, True):
        x = data(images)[:8]
        kind = "images" if images else "vectors"
        exact = nk.kernel(network(nk.Gelu(), 3, images), x)
        tabulated = nk.kernel(network(nk.Elementwise(gelu, gelu_slope), 3, images), x)
        found[f"gelu, {kind}"] = error = np.abs(tabulated - exact).max() / exact.max()
        require(f"gelu by a table against its closed form, {kind}", error, 1e-12)
        for name, activation in shown("float32", images).items():
            net = network(activation, 3, images)
            K = nk.kernel(net, x)
            error = np.abs(nk.kernel(net, x, dtype="float32") - K).max() / K.max()
            found[f"{name}, {kind}, float32"] = error
            require(f"{name}, {kind}, float32", error, 2e-6)
    return found


def gelu(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return z * ndtr(z)


def gelu_slope(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(z) + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def shown(dtype: str, images: bool) -> dict[str, nk.Layer]:
    skipped = NOT_SINGLE if images and dtype == "float32" else ()
    return {name: layer for name, layer in ACTIVATIONS.items() if name not in skipped}


def layer_times(dtype: str, images: bool, repeats: int) -> dict[str, float]:
    """Nanoseconds per pair and layer."""
    x = data(images).astype(dtype)
    calls = {}
    for name, activation in shown(dtype, images).items():
        for depth in (SHALLOW, DEEP):
            net = network(activation, depth, images)
            calls[f"{name} {depth}"] = measured(
                lambda net=net: nk.kernel(net, x, get=GET, threads=1)
            )
    timings = {name: t.summary()["core"] for name, t in alternate(calls, repeats).items()}
    per = 1e9 / (DEEP - SHALLOW) / pairs(images)
    return {
        name: (timings[f"{name} {DEEP}"] - timings[f"{name} {SHALLOW}"]) * per
        for name in shown(dtype, images)
    }


def table_seconds() -> dict[str, float]:
    """The core seconds that the tables of a deep network on vectors take, made anew."""
    found, x = {}, data(False)[:2]
    for name in NAMES:
        elementwise._tabulated.cache_clear()
        kernels._lowered.cache_clear()
        net = network(nk.Elementwise(name), DEEP, False)
        found[name] = measure(lambda net=net: nk.kernel(net, x))[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    results: dict[str, Any] = {"errors": check()}
    with pinned(last_core()):
        results["table_seconds"] = table_seconds()
        for images in (False, True):
            for dtype in ("float32", "float64"):
                kind = f"{'conv' if images else 'fc'}, {dtype}"
                results[kind] = times = layer_times(dtype, images, repeats)
                print(f"\n{kind}: ns per pair and layer, over ReLU")
                for name, time in times.items():
                    over = time / times["relu"]
                    print(f"  {name:20s} {time:7.3f}  {over:5.2f} x {'' if over <= GOAL else '*'}")
    print("\ntables of", DEEP, "layers, s:", results["table_seconds"])
    print("\nwritten:", write("elementwise", results))


if __name__ == "__main__":
    main()
