"""CIFAR-10, animals against vehicles: a network whose kernel moves by more than its norm,
beside its frozen kernels.

    python benchmarks/real_falsify.py [--folder real_falsify] [--workers 2]

1600 images of 16x16, 1280 of them for training, fully connected, one hidden layer of 512. An
interrupted run goes on from its folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from harness import write
from real_uci import data

from ntkcore import mlp
from ntkcore.falsifier import Claim, Training, falsify

ANIMALS = (2, 3, 4, 5, 6, 7)
IMAGES = 1600


def samples(file: Any) -> tuple[np.ndarray, ...]:
    """x, y, x_test, y_test: rows of 768 standardised numbers, and 1 for animals."""
    small = [
        file[name].reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).reshape(-1, 768)
        for name in ("X_train", "X_test")
    ]
    x, z = ((rows - small[0].mean(0)) / small[0].std(0) for rows in small)
    y, target = (np.isin(file[name], ANIMALS).astype(int) for name in ("y_train", "y_test"))
    return x[:IMAGES], y[:IMAGES], z, target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("real_falsify"),
        help="of finished cells and of the report",
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if (file := data("cifar10_lossless_5170_1017.npz")) is None:
        return
    claim = Claim("tells animals from vehicles", "error", minimum=0.25)
    training, net = Training(steps=1000), mlp(1, b_std=0.1)
    report = falsify(
        samples(file), net, claim, training=training, folder=options.folder, workers=options.workers
    )
    report.write(options.folder)
    print(report)
    arms = list(report.verdicts[0].effects)
    tables = report.tables
    error = {
        arm: float(tables.values(arm, claim.points, "metrics", "error").mean()) for arm in arms
    }
    movement = {
        arm: float(tables.values(arm, claim.points, "movement").mean())
        for arm in ("lazy", "features")
    }
    for arm in arms:
        print(
            f"  {arm:12} test error {error[arm]:.4f}   kernel movement {movement.get(arm, 0):.3f}"
        )
    kind, seconds = report.kind, report.seconds()
    found = {"kind": kind, "error": error, "movement": movement, "seconds": seconds}
    print(f"wrote {write('real_falsify', found)}")


if __name__ == "__main__":
    main()
