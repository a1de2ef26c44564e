"""Runs the benchmarks one after another; each writes benchmarks/results/<name>.json.

python benchmarks/run.py [fc conv ...]      those whose file name contains a word given, or all
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import NO_GPU

HERE = Path(__file__).parent


def main() -> int:
    scripts = sorted(HERE.glob("bench_*.py")) + sorted(HERE.glob("real_*.py"))
    chosen = [s for s in scripts if any(word in s.stem for word in sys.argv[1:] or [""])]
    if not chosen:
        print(
            f"no benchmark of that name; there are: {', '.join(s.stem for s in scripts)}",
            file=sys.stderr,
        )
        return 2
    failed = []
    for script in chosen:
        print(f"\n=== {script.name}", flush=True)
        status = subprocess.run([sys.executable, script.name], cwd=HERE).returncode
        if status not in (0, NO_GPU):
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
