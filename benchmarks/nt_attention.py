"""Kernels of attention by neural-tangents 0.6.5, for tests/test_stax_attention.py to compare with.

Run by the Python that peer_nt.sh prints: ``$(benchmarks/peer_nt.sh) benchmarks/nt_attention.py``
writes tests/data/nt_attention.json: {options: {network: {data: [nngp, ntk]}}}.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "tests" / "data" / "nt_attention.json"
MASK = -9.0


def options() -> Iterator[dict[str, Any]]:
    """Every combination of the layer's options that neural-tangents has a kernel of."""
    ways = [(True, m) for m in ("SOFTMAX", "IDENTITY", "ABS", "RELU")] + [(False, "IDENTITY")]
    embeddings = [{"pos_emb_type": "NONE"}]
    for kind, value, decays in itertools.product(("SUM", "CONCAT"), (False, True), (False, True)):
        one = {"pos_emb_type": kind, "val_pos_emb": value, "decays": decays, "W_pos_emb_std": 1.3}
        embeddings += [one] if kind == "SUM" else [one, {**one, "n_chan_pos_emb": 5}]
    for (linear, mechanism), embedding in itertools.product(ways, embeddings):
        yield {"linear_scaling": linear, "attention_mechanism": mechanism, **embedding}


def networks(stax: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """Attention before a global pool, twice behind other layers, and at the end."""
    arguments = {name: value for name, value in chosen.items() if name != "decays"}
    if chosen.get("decays"):
        arguments["pos_emb_decay_fn"] = lambda d: 1 / (1 + d)
    layer = stax.GlobalSelfAttention(
        *(7, 3, 4, 2),
        **{"W_key_std": 1.2, "W_value_std": 0.9, "W_query_std": 0.8, "W_out_std": 1.1},
        b_std=0.3,
        **arguments,
    )
    dense = stax.Dense(8, 1.3, 0.1)
    conv = stax.Conv(4, (3,), padding="SAME", b_std=0.2)
    return {
        "pooled": stax.serial(dense, stax.Relu(), layer, stax.GlobalAvgPool(), stax.Dense(1)),
        "deep": stax.serial(layer, stax.Erf(), conv, layer, stax.Flatten(), stax.Dense(1)),
        "open": stax.serial(dense, layer),
    }


def data() -> dict[str, tuple[Any, Any, dict[str, float]]]:
    """x1, x2 and keywords of kernel_fn; the test makes the same."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((3, 4, 3)), rng.standard_normal((2, 4, 3))
    masked = x.copy(), z.copy()
    masked[0][0, 3:], masked[0][1, 1], masked[1][1, 2:] = MASK, MASK, MASK
    return {"same": (x, None, {}), "masked": (*masked, {"mask_constant": MASK})}


def main() -> None:
    """All of it."""
    os.environ["JAX_ENABLE_X64"] = "1"
    warnings.filterwarnings("ignore")
    import nt_newer_jax

    if nt_newer_jax.needed():
        nt_newer_jax.install()
    from neural_tangents import stax

    found: dict[str, dict[str, Any]] = {}
    for chosen in options():
        for name, (_, _, kernel_fn) in networks(stax, chosen).items():
            for which, (x1, x2, keywords) in data().items():
                if (name, which) in (("deep", "masked"), ("open", "same")):
                    continue  # refused there; many numbers
                kernels = kernel_fn(x1, x2, ("nngp", "ntk"), **keywords)
                numbers = [np.asarray(k).round(14).ravel().tolist() for k in kernels]
                found.setdefault(json.dumps(chosen), {})[f"{name}, {which}"] = numbers
    OUT.write_text(json.dumps(found).replace("}, ", "},\n") + "\n")


if __name__ == "__main__":
    main()
