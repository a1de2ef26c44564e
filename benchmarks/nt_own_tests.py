"""neural-tangents' own tests of its layers behind a thin hybrid: its init_fn and apply_fn, our
kernel_fn.

    <a Python with ntkcore, neural-tangents 0.6.5, pytest, absl-py, more-itertools> \
        benchmarks/nt_own_tests.py <checkout of github.com/google/neural-tangents> [options] [files]

Options: `--itself`, neural-tangents alone, the rate to compare with; `--exact`, also the tests that
it skips on CPUs, its own exact kernels standing in for Monte Carlo. Its tests take a few cases of
each: $NT_NUM_GENERATED_CASES, 4. Prints how many pass, and why others do not.
"""

from __future__ import annotations

import argparse
import collections
import functools
import re
import sys
from typing import Any

import jax
import jax.interpreters.ad
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import config, source_info_util

FILES = ["elementwise", "linear", "branching", "combinators"]
COMBINATORS = ("serial", "parallel", "repeat")
OPTIONS = ("mask_constant", "diagonal_batch", "diagonal_spatial", "pattern")
# What neural-tangents 0.6.5 and its tests look for in JAX, and 0.5 calls otherwise.
jax.tree_map = jax.tree_util.tree_map
jax.interpreters.ad.source_info_util = source_info_util
jax.interpreters.ad.config = config.config

import neural_tangents as nt  # noqa: E402
from neural_tangents import stax as theirs  # noqa: E402

from ntkcore import stax as ours  # noqa: E402

LAYERS: dict[int, Any] = {}  # neural-tangents' layers by their init_fn


class AbsentError(NotImplementedError):
    """A layer that is not in ntkcore.stax."""


def to_ours(x: Any) -> Any:
    """Its Kernel as ours, arrays as NumPy's."""
    if isinstance(x, nt.Kernel):
        return ours.Kernel(**{name: to_ours(value) for name, value in x.asdict().items()})
    if isinstance(x, (list, tuple)):
        return type(x)(map(to_ours, x))
    return np.asarray(x) if hasattr(x, "shape") else x


def to_theirs(x: Any) -> Any:
    """And back, in the dtype that JAX works in."""
    if isinstance(x, ours.Kernel):
        values = {name: to_theirs(value) for name, value in x.asdict().items()}
        return nt.Kernel(**values | {"x1_is_x2": jnp.array(x.x1_is_x2)})
    if isinstance(x, np.ndarray):
        return jnp.asarray(x, bool if x.dtype == bool else None)
    return type(x)(*map(to_theirs, x)) if hasattr(x, "_fields") else x


def hybrid(layer: Any, made: Any) -> Any:
    """Its layer with our kernel_fn; ``made``: our layer, or why there is none."""
    LAYERS[id(layer[0])] = layer

    @functools.wraps(layer[2])
    def kernel_fn(x1: Any, x2: Any = None, get: Any = None, **options: Any) -> Any:
        if isinstance(made, str):
            raise AbsentError(f"absent: {made}")
        kept = {name: value for name, value in options.items() if name in OPTIONS}
        if not isinstance(x1, nt.Kernel):
            kept["dtype"] = "float64"
        return to_theirs(made[2](to_ours(x1), to_ours(x2), get, **kept))

    kernel_fn.made = made  # type: ignore[attr-defined]
    return layer[0], layer[1], kernel_fn


def wrapped(name: str) -> Any:
    """A function of its stax that makes hybrids."""
    make = getattr(theirs, name)

    def plain(part: Any) -> Any:
        return LAYERS[id(part[0])] if isinstance(part, tuple) and id(part[0]) in LAYERS else part

    def our(part: Any) -> Any:
        if name not in COMBINATORS or not isinstance(part, tuple):
            return part.item() if getattr(part, "ndim", 1) == 0 else part
        made = getattr(part[2], "made", "a layer of the test's own")
        if isinstance(made, str):
            raise AbsentError(made)
        return made

    @functools.wraps(make)
    def function(*args: Any, **options: Any) -> Any:
        combines = name in COMBINATORS
        layer = make(*(plain(arg) if combines else arg for arg in args), **options)
        try:
            if not hasattr(ours, name):
                raise AbsentError(name)
            kept = {key: our(value) for key, value in options.items()}
            return hybrid(layer, getattr(ours, name)(*map(our, args), **kept))
        except NotImplementedError as error:
            return hybrid(layer, str(error))

    return function


def install(exact: bool) -> None:
    """Hybrids in the place of its layers."""
    names = [name for name, value in vars(theirs).items() if callable(value)]
    layers = [
        name for name in names if name[0].isupper() and not isinstance(getattr(theirs, name), type)
    ]
    for name in (*layers, *COMBINATORS):
        setattr(theirs, name, wrapped(name))
    jit = jax.jit
    jax.jit = lambda f, *args, **options: f if hasattr(f, "made") else jit(f, *args, **options)
    if exact:
        from tests import test_utils

        test_utils.skip_test = lambda *args, **options: None
        nt.monte_carlo_kernel_fn = exact_kernel_fn


def exact_kernel_fn(init_fn: Any, *args: Any, **options: Any) -> Any:
    """Its own kernel_fn for Monte Carlo's."""
    exact = LAYERS[id(init_fn)][2]

    def kernel_fn(x1: Any, x2: Any = None, get: Any = None, **more: Any) -> Any:
        get = "cov1" if options.get("diagonal_axes") else get
        return exact(x1, x2, get, **{key: more[key] for key in OPTIONS if key in more})

    return kernel_fn


class Counts:
    """pytest's plugin: outcomes by file, a test with a failing part being one that fails, and
    reasons of failures.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, set[str]] = collections.defaultdict(set)
        self.reasons: dict[str, set[str]] = collections.defaultdict(set)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.skipped:
            self.outcomes[report.nodeid].add(report.outcome)
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else str(report.longrepr)).split("\n")[0]
            self.reasons[re.sub("0x[0-9a-f]+", "", reason)[:150]].add(report.nodeid)

    def __str__(self) -> str:
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        for test, found in self.outcomes.items():
            outcome = next(one for one in ("failed", "skipped", "passed") if one in found)
            counts[re.sub(r".*/(\w+)_test\.py.*", r"\1", test), outcome] += 1
        lines = ["| tests | pass | fail | skipped |", "|---|---|---|---|"]
        for file in sorted({file for file, _ in counts}):
            numbers = [counts[file, what] for what in ("passed", "failed", "skipped")]
            lines.append(f"| {file} | {' | '.join(map(str, numbers))} |")
        reasons = sorted(self.reasons.items(), key=lambda item: -len(item[1]))
        return "\n".join([*lines, *(f"{len(tests)} x {why}" for why, tests in reasons)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "checkout", help="folder of neural-tangents' sources, of which tests/ is read"
    )
    parser.add_argument("--itself", action="store_true", help="neural-tangents alone")
    parser.add_argument("--exact", action="store_true", help="its exact kernels for Monte Carlo")
    parser.add_argument("files", nargs="*", default=FILES)
    args = parser.parse_intermixed_args()
    sys.argv = sys.argv[:1]  # absl reads it
    sys.path.insert(0, args.checkout)
    if not args.itself:
        install(args.exact)
    counts = Counts()
    paths = [f"{args.checkout}/tests/stax/{file}_test.py" for file in args.files]
    pytest.main(
        ["-q", "--no-header", "--tb=no", "-rN", "-p", "no:cacheprovider", *paths], plugins=[counts]
    )
    print(counts)


if __name__ == "__main__":
    main()
