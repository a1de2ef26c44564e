"""What nvcc made of the hot CUDA kernels: registers, spills, instructions per point and layer.

    python tools/sass_report.py [--arch sm_90] [--hot] [--check]

Needs nvcc; nvdisasm from the toolkit or PyPI's package nvidia-cuda-nvdisasm. --check fails on
spills in the 3x3 chain of float32 at 32x32 and 16x16, and above 34 instructions at 32x32. A point's
layer has one square root, so in the straight-line block with the most of them (a whole layer,
unrolled) the ratio of instructions to roots is the price.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = [
    "-std=c++17",
    "-O3",
    "--expt-relaxed-constexpr",
    "-prec-sqrt=false",
    "-prec-div=false",
    "-ftz=true",
]
SOURCE = """#include "cuda/device.cuh"
namespace ntk {{
template __global__ void each_warp(std::int64_t, const __grid_constant__ TorusChain<{real}, {side}, {bias}>);
}}
"""
# Sides of images that have a kernel of their own, and 0 for all others.
JOBS = [
    (real, side, bias)
    for real, sides in (("float", (8, 16, 32, 0)), ("double", (0,)))
    for side in sides
    for bias in ("false", "true")
]
MOST = 34


def is_hot(job: tuple[str, int, str]) -> bool:
    """float32, 16x16 or 32x32, no bias."""
    return job in (("float", 16, "false"), ("float", 32, "false"))


def nvdisasm() -> str | None:
    """The toolkit's, or the one of the PyPI package."""
    if found := shutil.which("nvdisasm"):
        return found
    return next(
        (str(p) for folder in sys.path for p in Path(folder or ".").glob("nvidia/**/bin/nvdisasm")),
        None,
    )


def compile_kernel(job: tuple[str, int, str], arch: str, folder: Path) -> tuple[Path, int, int]:
    """(cubin, registers, spilled bytes) of one kernel."""
    real, side, bias = job
    source, cubin = folder / "kernel.cu", folder / "kernel.cubin"
    source.write_text(SOURCE.format(real=real, side=side, bias=bias))
    command = [
        "nvcc",
        *FLAGS,
        f"-arch={arch}",
        "-cubin",
        "-Xptxas",
        "-v",
        "-I",
        str(ROOT / "csrc"),
        "-o",
        cubin,
        source,
    ]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill stores", log))
    return cubin, max(int(n) for n in re.findall(r"Used (\d+) registers", log)), spills


def blocks(sass: str) -> list[list[str]]:
    """Runs of instructions up to a branch. Labels do not end one: every shuffle has some,
    for warps that diverged.
    """
    found: list[list[str]] = [[]]
    for line in sass.splitlines():
        if m := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            found[-1].append(m[1])
            if re.search(r"\b(BRA|EXIT|RET|BRX)\b", m[1]):
                found.append([])
    return found


def price(cubin: Path, tool: str) -> float:
    """Instructions per square root of the block with the most square roots."""
    sass = subprocess.run([tool, cubin], check=True, capture_output=True, text=True).stdout
    roots = [
        (sum("MUFU.RSQ" in i or "MUFU.SQRT" in i for i in block), block) for block in blocks(sass)
    ]
    most = max(count for count, _ in roots)
    return (
        min(len(block) / count for count, block in roots if count == most) if most else float("nan")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--hot", action="store_true", help="only the kernels that --check looks at")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not shutil.which("nvcc"):
        print("sass_report: no nvcc here, nothing to report")
        return 0
    tool, bad = nvdisasm(), []
    print(f"{options.arch}: kernel, registers, spilled bytes, instructions per point and layer")
    with tempfile.TemporaryDirectory() as folder:
        for job in filter(is_hot, JOBS) if options.hot else JOBS:
            cubin, registers, spills = compile_kernel(job, options.arch, Path(folder))
            # No such root in double.
            count = price(cubin, tool) if tool and job[0] == "float" else float("nan")
            name = f"{job[0]} {job[1] or 'any side'}{', bias' * (job[2] == 'true')}"
            print(f"  {name:32s} {registers:4d} {spills:6d} {count:8.1f}", flush=True)
            if is_hot(job) and (spills or (job[1] == 32 and count > MOST)):
                bad.append(name)
    if not tool:
        print("no nvdisasm: pip install nvidia-cuda-nvdisasm counts the instructions")
    if options.check and bad:
        print(f"spills or more than {MOST} instructions: {'; '.join(bad)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
