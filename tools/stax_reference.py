"""Makes tests/data/stax_reference.json and .npz: networks of neural-tangents 0.6.5 in float64, for
tests/test_stax_networks.py and tests/test_stax_kernel.py.

    <a Python with neural-tangents 0.6.5> tools/stax_reference.py

Of every network of tests/stax_nets.py: data, parameters drawn by its init_fn, what apply_fn makes
of them, and every field of the Kernel that kernel_fn gives.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from neural_tangents import stax  # noqa: E402

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from stax_nets import behind, masked, nets  # noqa: E402

MASK = 100.0


def fields(kernel) -> tuple[dict, dict]:
    """(arrays, everything else) of a Kernel, its spatial axes in their order."""
    values = (kernel.reverse() if kernel.is_reversed else kernel).asdict()
    values["x1_is_x2"] = bool(values["x1_is_x2"])
    arrays = {name: value for name, value in values.items() if hasattr(value, "shape")}
    return arrays, {name: value for name, value in values.items() if name not in arrays}


def data(shape: tuple[int, ...], mask: bool = False) -> np.ndarray:
    """Some; masked: a sample, a pixel of another, channels of others."""
    x = np.random.default_rng(3).standard_normal(shape)
    if mask:
        x[0] = MASK
        x[1, 1:3] = MASK
        x[2, ..., 1] = MASK
    return x


def main() -> None:
    out, facts = {}, {}

    def keep(name: str, kernel, **more) -> None:
        arrays, others = fields(kernel)
        facts.setdefault(name, {})["kernel"] = others
        out.update({f"{name}/{key}": np.asarray(value) for key, value in (arrays | more).items()})

    for name, ((init_fn, apply_fn, kernel_fn), shape) in nets(stax).items():
        x = data(shape)
        output_shape, params = init_fn(jax.random.PRNGKey(0), shape)
        facts[name] = {"output_shape": output_shape}
        leaves = {f"params{i}": p for i, p in enumerate(jax.tree_util.tree_leaves(params))}
        keep(name, kernel_fn(x, None), x=x, outputs=apply_fn(params, x), **leaves)
    for name, ((_, _, kernel_fn), shape) in masked(stax).items():
        x = data(shape, mask=True)
        keep(name, kernel_fn(x, x[1:] + (x[1:] != MASK), mask_constant=MASK), x=x)
    for name, (first, second, shape) in behind(stax).items():
        x = data(shape)
        keep(f"behind {name}", second[2](first[2](x, x[1:] + 1)), x=x)
    np.savez_compressed(TESTS / "data" / "stax_reference.npz", **out)
    text = json.dumps(facts, indent=1, default=int)
    (TESTS / "data" / "stax_reference.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
