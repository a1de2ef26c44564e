"""Two builds of ntkcore in turn, in one run: the hot paths' core time, medians and ratios.

    pip install --no-deps --target old .    # in a checkout of before, and so on
    python benchmarks/compare_builds.py old new [rounds] [job ...]

A process of each build is asked for one call, then the other's; who is first changes from round to
round. float32, nngp and ntk, one thread.
"""

import os
import statistics
import subprocess
import sys

JOBS = {
    "FC-1 d=10": "mlp(1), (4000, 10)",
    "FC-10 d=10": "mlp(10), (4000, 10)",
    "FC-3 d=784": "mlp(3), (3000, 784)",
    "Erf d=784": "Serial(Dense(), Erf(), Dense(), Erf(), Dense()), (2500, 784)",
    "CNTK-10 GAP 16²": "cntk(10), (32, 16, 16, 3)",
    "CNTK-20 GAP 32²": "cntk(20), (4, 32, 32, 3)",
    "CNTK-20 Flatten 32²": "cntk(20, 'flatten'), (160, 32, 32, 3)",
    "Myrtle-5 32²": "myrtle(5), (16, 32, 32, 3)",
}
WORKER = """
import sys, time
import numpy as np
from ntkcore import Dense, Erf, Serial, cntk, kernel, mlp, myrtle
for line in sys.stdin:
    net, shape = eval(line)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kernel(net, x[:16], None, ("nngp", "ntk"), threads=1)
    start = time.process_time()
    kernel(net, x, None, ("nngp", "ntk"), threads=1)
    print(time.process_time() - start, flush=True)
"""


class Build:
    """A process that imports one build."""

    def __init__(self, folder):
        environment = {**os.environ, "PYTHONPATH": os.path.abspath(folder)}
        command = [sys.executable, "-c", WORKER]
        self.process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)

    def seconds(self, job):
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main(old, new, rounds=15, *names):
    builds = Build(old), Build(new)
    print("| job | old, ms | new, ms | ratio of medians | of minima |\n|---|---|---|---|---|")
    for name in names or JOBS:
        times = [], []
        for k in range(int(rounds)):
            for i in (0, 1) if k % 2 else (1, 0):
                times[i].append(builds[i].seconds(JOBS[name]))
        (a, b), (c, d) = map(statistics.median, times), map(min, times)
        print(f"| {name} | {a * 1e3:.1f} | {b * 1e3:.1f} | {b / a:.3f} | {d / c:.3f} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
