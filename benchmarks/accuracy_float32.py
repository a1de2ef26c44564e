"""How far float32 kernels are from float64's: distinct rows,
and pairs at relative distances from 0.5 to 1e-7.

    python benchmarks/accuracy_float32.py [part of a network's name]

Both precisions see the same data; an entry of the table is the largest |float32 - float64| of nngp
and ntk over the largest entry of the kernel, its diagonal included. Distinct rows: of normal
numbers, the same plus 1 ("offset"), uniform ones ("pixels"), zeros and ones ("flat": images of
black and white blocks). Pairs: at a distance relative to their length; "opposite" are x and -x' at
1e-4, "scaled" x and 2 x' at 1e-5.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import ntkcore as nk
from ntkcore.specs.nets import HE

DISTANCES = (0.5, 0.3, 0.2, *(10.0**-k for k in range(1, 8)))
KINDS = ("distinct", "offset", "pixels", "flat")
MOVED = {"opposite": (-1, 1e-4), "scaled": (2, 1e-5)}


def activations() -> dict[str, Any]:
    return {
        "relu": nk.Relu(),
        "leaky": nk.LeakyRelu(0.1),
        "abs": nk.Abs(),
        "erf": nk.Erf(),
        "erf+1": nk.Erf(1.0, 1.0, 1.0),
        "erf(3z)": nk.Erf(1.0, 3.0),
        "gelu": nk.Gelu(),
        "sin": nk.Sin(),
        "sin+pi/4": nk.Sin(1.0, 1.0, float(np.pi / 4)),
        "cos": nk.Cos(),
        "rbf": nk.Rbf(),
        "exp": nk.Exp(0.5, 0.5),
        "gaussian": nk.Gaussian(1.0, -1.0),
        "arccos2": nk.ArcCosine(2),
    }


def vectors() -> dict[str, nk.Serial]:
    block = nk.Residual(nk.Relu(), nk.Dense(1.0))
    nets = {}
    for name, phi in activations().items():
        std = 1.0 if name in ("exp", "arccos2") else HE
        for b_std in (None, 0.5):
            depth = 1 if name == "arccos2" else 3
            nets[f"mlp({depth}) {name}" + (" bias" if b_std else "")] = nk.mlp(
                depth, std, b_std, phi
            )
    nets["arccos0"] = nk.Serial(nk.Dense(), nk.ArcCosine(0), nk.Dense())
    nets["relu, erf"] = nk.Serial(nk.Dense(), nk.Relu(), nk.Dense(1.0, 0.1), nk.Erf(), nk.Dense())
    nets["sin, relu"] = nk.Serial(
        nk.Dense(), nk.Sin(1.0, 1.0, 0.8), nk.Dense(), nk.Relu(), nk.Dense()
    )
    for offset in (3, 10):
        first = nk.Erf(1.0, 1.0, float(offset))
        nets[f"erf+{offset}, relu"] = nk.Serial(
            nk.Dense(), first, nk.Dense(), nk.Relu(), nk.Dense()
        )
    nets["erf+1, relu"] = nk.Serial(
        nk.Dense(), nk.Erf(1.0, 1.0, 1.0), nk.Dense(), nk.Relu(), nk.Dense()
    )
    nets["mlp(10) relu bias"] = nk.mlp(10, HE, 0.5)
    nets["residual relu x 4"] = nk.Serial(nk.Dense(), *[block] * 4, nk.Relu(), nk.Dense())
    nets["layer norm, relu x 3"] = nk.Serial(
        *[nk.Dense(), nk.LayerNorm(), nk.Relu()] * 3, nk.Dense()
    )
    return nets


def images() -> dict[str, nk.Serial]:
    conv = nk.Conv((3, 3), (1, 1), "SAME", HE)
    strided = nk.Conv((3, 3), (2, 2), "SAME", HE, 0.1)
    five = nk.Conv((5, 5), (1, 1), "SAME", HE)
    circular = nk.Conv((3, 3), (1, 1), "CIRCULAR", HE)
    nets = {}
    for depth in (5, 20):
        for head in ("gap", "flatten"):
            for b_std in (None, 0.5):
                nets[f"cntk({depth}) {head}" + (" bias" if b_std else "")] = nk.cntk(
                    depth, head, b_std=b_std
                )
    nets["myrtle(5) at 32"] = nk.myrtle(5)
    nets["resnet(1)"] = nk.resnet(1)
    nets["resnet(1) bias"] = nk.resnet(1, b_std=0.1)
    nets["conv, pool, conv, gap"] = nk.Serial(
        conv, nk.Relu(), nk.AvgPool((2, 2), (2, 2)), conv, nk.Relu(), nk.GlobalAvgPool(), nk.Dense()
    )
    nets["strided, gap"] = nk.Serial(
        strided, nk.Relu(), strided, nk.Relu(), nk.GlobalAvgPool(), nk.Dense()
    )
    nets["5x5, flatten"] = nk.Serial(*[five, nk.Relu()] * 3, nk.Flatten(), nk.Dense())
    nets["circular, gap"] = nk.Serial(*[circular, nk.Relu()] * 3, nk.GlobalAvgPool(), nk.Dense())
    nets["conv, dense head"] = nk.Serial(
        *[conv, nk.Relu()] * 3,
        nk.Flatten(),
        *[nk.Dense(HE, 0.1), nk.Relu()] * 2,
        nk.Dense(),
    )
    nets["conv leaky, gap"] = nk.Serial(
        *[conv, nk.LeakyRelu(0.1)] * 4, nk.GlobalAvgPool(), nk.Dense()
    )
    nets["conv erf, gap"] = nk.Serial(*[conv, nk.Erf()] * 4, nk.GlobalAvgPool(), nk.Dense())
    nets["conv erf+1, gap"] = nk.Serial(
        *[conv, nk.Erf(1.0, 1.0, 1.0)] * 4, nk.GlobalAvgPool(), nk.Dense()
    )
    nets["conv gelu, flatten"] = nk.Serial(*[conv, nk.Gelu()] * 4, nk.Flatten(), nk.Dense())
    nets["conv norm relu, gap"] = nk.Serial(
        *[conv, nk.LayerNorm(), nk.Relu()] * 3, nk.GlobalAvgPool(), nk.Dense()
    )
    return nets


def rows(shape: tuple[int, ...], kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = (
        rng.random(shape)
        if kind in ("pixels", "flat")
        else rng.standard_normal(shape) + (kind == "offset")
    )
    if kind == "flat":
        x = np.where(x > 0.7, 1.0, 0.0)
        if len(shape) == 4:  # white blocks of 4 x 4 on black, in all channels
            x = np.kron(x[:, ::4, ::4, :1], np.ones((1, 4, 4, shape[3])))
    return x.astype(np.float32)


def near(x: np.ndarray, distance: float, seed: int = 1) -> np.ndarray:
    """Rows of x moved by `distance` times their length."""
    step = np.random.default_rng(seed).standard_normal(x.shape)
    axes = tuple(range(1, x.ndim))
    step *= distance * np.sqrt(
        (x.astype(float) ** 2).sum(axes, keepdims=True) / (step**2).sum(axes, keepdims=True)
    )
    return (x + step).astype(np.float32)


def error(net: nk.Serial, a: np.ndarray, b: np.ndarray | None = None, **options: Any) -> float:
    """The largest |float32 - float64| of nngp and ntk over the largest entry of either."""
    names = ("nngp",) if nk.ArcCosine(0) in net.layers else ("nngp", "ntk")
    single = nk.kernel(net, a, b, names, dtype="float32", **options)
    double = nk.kernel(net, a, b, names, dtype="float64", **options)
    diagonal = nk.kernel_diag(net, a, names, dtype="float64", **options)
    largest = (max(np.abs(d).max(), own.max()) for d, own in zip(double, diagonal, strict=True))
    return max(
        float(np.abs(s - d).max() / most)
        for s, d, most in zip(single, double, largest, strict=True)
    )


def errors(net: nk.Serial, shape: tuple[int, ...], n: int = 32) -> Iterator[float]:
    for kind in KINDS:
        yield error(net, rows((n, *shape), kind))
    for distance in DISTANCES:
        x = rows((n, *shape), "distinct")
        yield error(net, x, near(x, distance))
    for factor, distance in MOVED.values():
        yield error(net, x, factor * near(x, distance))


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    columns = (*KINDS, *(f"{d:.0e}" for d in DISTANCES), *MOVED)
    print(f"{'network':24}" + "".join(f"{kind:>10}" for kind in columns))
    for shape, nets in (((64,), vectors()), ((8, 8, 3), images())):
        for name, net in nets.items():
            if wanted in name:
                size = (32, 32, 3) if "at 32" in name else shape
                n = 64 if len(size) == 1 else 16 if size[0] == 8 else 2
                print(
                    f"{name:24}" + "".join(f"{e:10.1e}" for e in errors(net, size, n)), flush=True
                )


if __name__ == "__main__":
    main()
