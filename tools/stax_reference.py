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

from stax_nets import nets  # noqa: E402


def fields(kernel) -> tuple[dict, dict]:
    """(arrays, everything else) of a Kernel."""
    values = kernel.asdict()
    values["x1_is_x2"] = bool(values["x1_is_x2"])
    arrays = {name: value for name, value in values.items() if hasattr(value, "shape")}
    return arrays, {name: value for name, value in values.items() if name not in arrays}


def main() -> None:
    out, facts = {}, {}
    for name, ((init_fn, apply_fn, kernel_fn), shape) in nets(stax).items():
        x = np.random.default_rng(3).standard_normal(shape)
        output_shape, params = init_fn(jax.random.PRNGKey(0), shape)
        arrays, others = fields(kernel_fn(x, None))
        facts[name] = {"output_shape": output_shape, "kernel": others}
        arrays |= {f"params{i}": p for i, p in enumerate(jax.tree_util.tree_leaves(params))}
        arrays |= {"x": x, "outputs": apply_fn(params, x)}
        out |= {f"{name}/{key}": np.asarray(value) for key, value in arrays.items()}
    np.savez_compressed(TESTS / "data" / "stax_reference.npz", **out)
    text = json.dumps(facts, indent=1, default=int)
    (TESTS / "data" / "stax_reference.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
