"""Kernels of single layers by neural-tangents 0.6.5, for tests/test_stax.py to compare with.

Run by the Python that peer_nt.sh prints: ``$(benchmarks/peer_nt.sh) benchmarks/nt_layers.py``
writes tests/data/nt_layers.json: {expression: {"x1 x1": [nngp, ntk], "x1 x2": [nngp, ntk]}}.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "tests" / "data" / "nt_layers.json"
DENSE, CONV = "stax.Dense(4, 1.2, 0.3)", "stax.Conv(4, (3, 3), padding='SAME', b_std=0.1)"
ACTIVATIONS = [
    "Sign()",
    *(f"Monomial({degree})" for degree in range(6)),
    *(f"RectifiedMonomial({degree})" for degree in range(6)),
    "Polynomial((0.3, -0.5, 0.2, 0.1, -0.02, 0.03, 0.01, 0.002))",
    "Polynomial(())",
    "ExpNormalized(0.6, -0.3)",
    "ExpNormalized(do_clip=True)",
    "Gabor()",
    "Sigmoid_like()",
]


def _two(join: str, affine: str) -> str:
    """Branches of different widths, if a join of them depends on those."""
    other = affine.replace("4", "7", 1) if "Concat" in join else affine
    gate = f"stax.serial({other}, stax.Erf())"
    return f"{affine}, stax.FanOut(2), stax.parallel({affine}, {gate}), stax.{join}"


VECTORS = [
    *(f"{DENSE}, stax.{phi}, {DENSE}" for phi in ACTIVATIONS),
    *(f"{DENSE}, stax.LayerNorm(), stax.Hermite({n}), {DENSE}" for n in (0, 1, 2, 5, 9)),
    *(f"{_two(join, DENSE)}, {DENSE}" for join in ("FanInProd()", "FanInConcat(1)")),
    f"{DENSE}, stax.Erf(), stax.Dropout(0.7), {DENSE}, stax.Erf(), stax.Dropout(0.5), {DENSE}",
    f"{DENSE}, stax.Erf(), stax.Dropout(0.7, mode='test'), {DENSE}",
]
IMAGES = [
    f"{_two('FanInProd()', CONV)}, {CONV}, stax.Erf(), stax.GlobalAvgPool(), {DENSE}",
    f"{_two('FanInConcat(-1)', CONV)}, {CONV}, stax.Erf(), stax.Flatten(), {DENSE}",
    f"{CONV}, stax.Erf(), stax.Dropout(0.7), stax.AvgPool((2, 2)), {CONV}, stax.Erf(),"
    f" stax.Dropout(0.6), stax.GlobalAvgPool(), stax.Dropout(0.8), {DENSE}",
    f"{CONV}, stax.Erf(), stax.Dropout(0.7), stax.Flatten(), {DENSE}",
    *(
        f"{CONV}, stax.LayerNorm({axis}, eps=0.1), stax.Erf(), stax.GlobalAvgPool(), {DENSE}"
        for axis in ("(1, 2, 3)", "(1, 3)", "(-2, -1)", "-1")
    ),
]


def data(images: bool) -> tuple[np.ndarray, np.ndarray]:
    """x1, x2; the test makes the same."""
    rng = np.random.default_rng(0)
    shape = (4, 3, 2) if images else (3,)
    return rng.standard_normal((3, *shape)), rng.standard_normal((2, *shape))


def main() -> None:
    """All of it."""
    os.environ["JAX_ENABLE_X64"] = "1"
    warnings.filterwarnings("ignore")
    import nt_newer_jax

    if nt_newer_jax.needed():
        nt_newer_jax.install()
    from neural_tangents import stax

    found = {}
    for nets, images in ((VECTORS, False), (IMAGES, True)):
        x1, x2 = data(images)
        for layers in nets:
            kernel_fn = eval(f"stax.serial({layers})", {"stax": stax})[2]
            found[layers] = {
                name: [np.asarray(k).tolist() for k in kernel_fn(x1, other, ("nngp", "ntk"))]
                for name, other in (("x1 x1", None), ("x1 x2", x2))
            }
    lines = [f"{json.dumps(layers)}: {json.dumps(kernels)}" for layers, kernels in found.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
