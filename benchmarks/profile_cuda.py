"""Nsight Compute on the hot kernels: what binds them, a line of a dozen numbers a kernel.

    python benchmarks/profile_cuda.py [--only chain-32,...] [--seconds 60] [--out FOLDER]

ncu runs this file again (--job), which warms up, then profiles one call. The card's clocks are left
alone. All that ncu says of each kernel goes into section "profile" of cuda.json. Columns:
microseconds; registers a thread; warps resident, instructions issued, the load/store/shuffle pipe
and the pipes of multiply-adds, integers and roots in % of what is possible; hits of L1 and L2 and
use of the memory in %; warp instructions in millions; and the stalls, in warps waiting for each
instruction issued.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cuda_machine import Record, require_gpu

import ntkcore as nk

PEAK = ".avg.pct_of_peak_sustained_active"
COLUMNS = {  # heading: (metric, factor, digits)
    "us": ("gpu__time_duration.sum", 1e-3, 1),
    "regs": ("launch__registers_per_thread", 1, 0),
    "warps": (f"sm__warps_active{PEAK}", 1, 0),
    "issue": (f"smsp__issue_active{PEAK}", 1, 0),
    "lsu": ("l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed", 1, 0),
    "fma": (f"sm__inst_executed_pipe_fma{PEAK}", 1, 0),
    "alu": (f"sm__inst_executed_pipe_alu{PEAK}", 1, 0),
    "xu": (f"sm__inst_executed_pipe_xu{PEAK}", 1, 0),
    "L1": ("l1tex__t_sector_hit_rate.pct", 1, 0),
    "L2": ("lts__t_sector_hit_rate.pct", 1, 0),
    "dram": ("dram__throughput.avg.pct_of_peak_sustained_elapsed", 1, 0),
    "Minst": ("smsp__inst_executed.sum", 1e-6, 2),
}
COUNTS = [f"smsp__inst_executed_pipe_{pipe}.sum" for pipe in ("lsu", "fma", "alu", "xu")] + [
    "l1tex__data_pipe_lsu_wavefronts.sum",
    "smsp__cycles_elapsed.avg.per_second",
]
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
SECTIONS = ["WarpStateStats", "LaunchStats"]
MORE_SECTIONS = [
    "SpeedOfLight",
    "SchedulerStats",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "Occupancy",
]


@dataclass(frozen=True)
class Job:
    """One call of `kernel`: of vectors with themselves, of images with as many others.

    Of its launches at most `launches` are profiled, those whose name matches `kernels`; `points`
    are those of the chain: of all pairs, displacements and layers.
    """

    net: Any
    shape: tuple[int, ...]
    kernels: str = "."
    launches: int = 1
    points: int = 0


JOBS = {
    "chain-32": Job(nk.cntk(20), (12, 32, 32, 3), "each_warp", 1, 12**2 * 20 * 32**4),
    "pools": Job(nk.myrtle(10), (8, 32, 32, 3), ".", 14),
    "vectors": Job(nk.mlp(3), (8192, 784), ".", 5),
    "flatten": Job(nk.cntk(20, "flatten"), (256, 32, 32, 3), ".", 6),
    "chain-16": Job(nk.cntk(10), (40, 16, 16, 3), "each_warp", 1, 40**2 * 10 * 16**4),
}


def run(job: Job) -> None:
    """The child's side: a call that warms up, then one between profilerStart and profilerStop."""
    cupy = require_gpu()
    x, z = (
        cupy.asarray(np.random.default_rng(i).standard_normal(job.shape).astype(np.float32))
        for i in (0, 1)
    )
    for profiled in (False, True):
        if profiled:
            cupy.cuda.runtime.profilerStart()
        nk.kernel(job.net, x, z if x.ndim == 4 else None)
        cupy.cuda.Device().synchronize()
    cupy.cuda.runtime.profilerStop()


def profiled(
    ncu: str, name: str, seconds: float, by_metrics: bool
) -> tuple[list[dict[str, str]], str]:
    """(values of each kernel by name, what ncu said) of a job,
    asked for by names of metrics or by sections alone.
    """
    metrics = [metric for metric, _, _ in COLUMNS.values()] + COUNTS
    asked = ["--metrics", ",".join(metrics)] if by_metrics else []
    for section in SECTIONS if by_metrics else SECTIONS + MORE_SECTIONS:
        asked += ["--section", section]
    job = JOBS[name]
    command = [
        ncu,
        "--clock-control",
        "none",
        "--cache-control",
        "none",
        "--profile-from-start",
        "off",
    ]
    command += [
        "--kernel-name",
        f"regex:{job.kernels}",
        "--launch-count",
        str(job.launches),
        *asked,
    ]
    command += [
        "--page",
        "raw",
        "--csv",
        "--print-units",
        "base",
        sys.executable,
        __file__,
        "--job",
        name,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [], f"{name}: ncu took more than {seconds:.0f} s"
    lines = done.stdout.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    rows = list(csv.DictReader(line for line in lines[start:] if line.startswith('"')))
    # The first row holds units.
    return rows[1:], "\n".join(lines[:start][-8:] + done.stderr.splitlines()[-8:])


def number(row: dict[str, str], metric: str) -> float:
    try:
        return float(row.get(metric, "").replace(",", ""))
    except ValueError:
        return float("nan")


def short(kernel: str) -> str:
    """each_element<PoolOp<float>> of ntk::each_element<ntk::PoolOp<float>>(long,
    ntk::PoolOp<float>).
    """
    return re.sub(r"\w+::|^void |\(.*$", "", kernel.replace("(anonymous namespace)::", ""))[:38]


def table_line(row: dict[str, str], points: int) -> str:
    cells = []
    for metric, factor, digits in COLUMNS.values():
        cells.append(f"{factor * number(row, metric):.{digits}f}".rjust(9 if digits else 6))
    stalls = {match[1]: number(row, key) for key in row if (match := STALL.fullmatch(key))}
    waits = sorted(stalls.items(), key=lambda item: -item[1])[:4]
    price = 32 * number(row, "smsp__inst_executed.sum") / points if points else float("nan")
    tail = f"; {price:.1f} instructions a point and layer" if points else ""
    return (
        f"{short(row.get('Kernel Name', '?')):38s}{''.join(cells)} "
        f" {', '.join(f'{n} {v:.2f}' for n, v in waits)}{tail}"
    )


def headings() -> str:
    cells = (name.rjust(9 if digits else 6) for name, (_, _, digits) in COLUMNS.items())
    return f"{'':38s}{''.join(cells)}  stalls"


def plain(row: dict[str, str]) -> dict[str, float | str]:
    """A kernel's row with its numbers as numbers, for the record."""
    numbers: dict[str, float | str] = {
        key: value for key in row if not np.isnan(value := number(row, key))
    }
    return {"kernel": row.get("Kernel Name", "?"), **numbers}


def profile(
    ncu: str, names: list[str], seconds: float, add: Callable[[str, Any], None]
) -> list[str]:
    """Prints the table; names of jobs that gave nothing."""
    failed, end, by_metrics = [], time.perf_counter() + seconds, True
    print(headings(), flush=True)
    for name in names:
        left = end - time.perf_counter()
        rows, said = profiled(ncu, name, left, by_metrics) if left > 5 else ([], "no time left")
        if not rows and by_metrics and re.search("metric", said, re.IGNORECASE):
            by_metrics = False
            rows, said = profiled(ncu, name, max(end - time.perf_counter(), 5), by_metrics)
        print(f"--- {name}" + ("" if rows else f": nothing from ncu: {said}"))
        for row in rows:
            print(table_line(row, JOBS[name].points), flush=True)
        failed += [] if rows else [name]
        add(name, [plain(row) for row in rows])
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(JOBS), help="jobs, by default all: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="for all jobs together")
    parser.add_argument(
        "--out", type=Path, help="where cuda.json is written; by default benchmarks/results"
    )
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run(JOBS[options.job])
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        print("ncu is not on PATH: it comes with the CUDA toolkit", file=sys.stderr)
        return 1
    record = Record(require_gpu(), "profile", options.out)
    failed = profile(ncu, options.only.split(","), options.seconds, record.add)
    print(f"profiled {len(options.only.split(','))} jobs; failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
