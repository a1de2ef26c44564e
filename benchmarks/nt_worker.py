"""neural-tangents in a process of its own environment, asked for one timed call at a time.

`Peer` is the asking side and runs in ntkcore's environment; `serve` is the answering side (this
file as a script, run by the Python that peer_nt.sh prints). They exchange one JSON object a line;
arrays go through .npy files. Times are taken in the child, around the compiled call and
`block_until_ready` alone: no start-up, no tracing, no transfer.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import Measure, measure

HERE = Path(__file__).parent
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclass(frozen=True)
class Spelling:
    """One way to ask neural-tangents for the kernel of x with itself."""

    net: str = "serial"  # which of the Peer's networks
    get: str | tuple[str, ...] | None = "ntk"
    x2: bool = False  # kernel_fn(x, x, ...) rather than kernel_fn(x, None, ...)
    jit: bool = True  # op by op otherwise
    batch: int = 0  # nt.batch(kernel_fn, batch); 0: the whole matrix at once

    def __str__(self) -> str:
        how = f"nt.batch {self.batch}" if self.batch else "jit" if self.jit else "no jit"
        return f"{self.net}, {how}: kernel_fn(x, {'x' if self.x2 else 'None'}, {self.get!r})"


def environment() -> str:
    """The Python of the peer's environment, which peer_nt.sh makes if need be."""
    done = subprocess.run([HERE / "peer_nt.sh"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(
            "benchmarks: neural-tangents cannot be installed here (see above), so there is no"
            " comparison."
        )
    return done.stdout.strip()


class Peer:
    """neural-tangents with its networks and one data matrix.
    It inherits the affinity of the thread that starts it.

    nets: expressions in neural-tangents' spelling, e.g. {"serial": "stax.serial(stax.Dense(1),
    stax.Relu())"}. x: (N, d) or images; its dtype, float32 or float64, is the precision of the
    computation.
    """

    def __init__(
        self,
        python: str,
        nets: dict[str, str],
        x: np.ndarray,
        one_thread: bool = True,
        platform: str = "cpu",
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = open(Path(self._folder.name, "stderr"), "w+")  # noqa: SIM115
        np.save(Path(self._folder.name, "x.npy"), x)
        settings = {
            "JAX_PLATFORMS": platform,
            "JAX_ENABLE_X64": str(int(x.dtype == np.float64)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": ONE_THREAD if one_thread else "",
        }
        command = [python, "-W", "ignore", __file__, json.dumps(nets), self._folder.name]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": self._log,
        }
        self._child = subprocess.Popen(command, text=True, env=os.environ | settings, **pipes)
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()
        self._log.close()
        self._folder.cleanup()

    def seconds(self, spelling: Spelling) -> tuple[float, float]:
        """(core, wall) of one call; the very first of a spelling compiles it beforehand."""
        answer = self._ask(spelling=asdict(spelling), save=False)
        return answer["core"], answer["wall"]

    def measured(self, spelling: Spelling) -> Measure:
        return lambda: self.seconds(spelling)

    def kernels(
        self, net: str = "serial", get: Sequence[str] = ("nngp", "ntk")
    ) -> dict[str, np.ndarray]:
        self._ask(spelling=asdict(Spelling(net, tuple(get))), save=True)
        return {name: np.load(Path(self._folder.name, f"{name}.npy")) for name in get}

    def _ask(self, **request: Any) -> Any:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # _answer tells why
            print(json.dumps(request), file=self._child.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(
                "neural-tangents' process ended:\n" + "".join(self._log.readlines()[-20:])
            )
        return json.loads(line)


# --- the child's side


def serve(nets: str, folder: str) -> None:
    """Answers requests {spelling, save} from stdin until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print must not mix with the answers

    import jax
    import nt_newer_jax

    if nt_newer_jax.needed():
        nt_newer_jax.install()
    import neural_tangents
    from neural_tangents import stax

    kernel_fns = {name: eval(net, {"stax": stax})[2] for name, net in json.loads(nets).items()}
    x = jax.device_put(np.load(Path(folder, "x.npy")))
    calls: dict[Spelling, Callable[[], Any]] = {}

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    reply(
        {
            "neural-tangents": neural_tangents.__version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
        }
    )
    for line in sys.stdin:
        request = json.loads(line)
        spelling = Spelling(**request["spelling"])
        if isinstance(spelling.get, list):  # JSON's tuple
            spelling = replace(spelling, get=tuple(spelling.get))
        if spelling not in calls:
            calls[spelling] = _compile(kernel_fns[spelling.net], x, spelling)
            calls[spelling]()
        if request["save"]:
            for name, value in calls[spelling]()._asdict().items():
                np.save(Path(folder, f"{name}.npy"), value)
        core, wall = measure(calls[spelling])
        reply({"core": core, "wall": wall})


def _compile(kernel_fn: Any, x: Any, how: Spelling) -> Callable[[], Any]:
    import jax
    import neural_tangents

    if how.batch:
        batched = neural_tangents.batch(kernel_fn, how.batch, device_count=0)
        return lambda: jax.block_until_ready(batched(x, x if how.x2 else None, how.get))
    inputs = (x, x) if how.x2 else (x,)

    def function(x1: Any, x2: Any = None) -> Any:
        return kernel_fn(x1, x2, how.get)

    compiled = jax.jit(function) if how.jit else function
    return lambda: jax.block_until_ready(compiled(*inputs))


if __name__ == "__main__":
    serve(*sys.argv[1:])
