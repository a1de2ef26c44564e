"""Do the falsifier's tests and intervals hold their level, and what can they see?

Effects are drawn whose truth is known: initialisation and split add noise in a given ratio of
variances, normal or skewed (an error's, bounded on one side). The tests are the falsifier's own
(`p_value`, `estimate`, `judge`).

    python benchmarks/falsifier_level.py
"""

from __future__ import annotations

import numpy as np
from harness import write

from ntkcore.falsifier.claims import Claim
from ntkcore.falsifier.gates import REPEATS
from ntkcore.falsifier.judging import as_good, judge
from ntkcore.falsifier.statistics import estimate, p_value
from ntkcore.falsifier.verdict import Evidence

RATIOS = (0.0, 0.5, 1.0, 2.0, np.inf)  # variance of initialisations over that of splits
DRAWS, VERDICTS = 4000, 200
MINIMUM = 0.5
LEVEL, COVERAGE = 0.07, 0.92  # what must be reached


def noise(rng: np.random.Generator, ratio: float, skewed: bool) -> np.ndarray:
    """Of one repetition each, mean 0 and variance 1: initialisation i on split i, both fresh."""
    share = 1.0 if np.isinf(ratio) else ratio / (1 + ratio)
    parts = rng.standard_normal((2, REPEATS))
    if skewed:  # minus a gamma variable of shape 4: skewness -1
        parts = (4 - rng.gamma(4.0, size=(2, REPEATS))) / 2
    return np.sqrt(share) * parts[0] + np.sqrt(1 - share) * parts[1]


def of_tests(ratio: float, skewed: bool) -> dict[str, float]:
    """Rates of false rejections on both sides, of intervals that hold the truth, and of true
    rejections one standard deviation of a repetition away.
    """
    rng = np.random.default_rng(0)
    tables = [noise(rng, ratio, skewed) for _ in range(DRAWS)]
    intervals = [estimate(table) for table in tables]

    def rate(threshold: float, side: str) -> float:
        return float(np.mean([p_value(table, threshold, side) <= 0.05 for table in tables]))

    return {
        "false, above": rate(0.0, "above"),
        "false, below": rate(0.0, "below"),
        "coverage": float(np.mean([each.low <= 0 <= each.high for each in intervals])),
        "power": rate(-1.0, "above"),
    }


def of_pool(shared: float) -> dict[str, float]:
    """The same where repetitions are correlated by the test samples that they share."""
    rng = np.random.default_rng(0)
    common = np.sqrt(shared) * rng.standard_normal(DRAWS)
    own = np.sqrt(1 - shared) * rng.standard_normal((DRAWS, REPEATS))
    tables = common[:, None] + own
    intervals = [estimate(table, shared) for table in tables]
    return {
        "false, above": float(np.mean([p_value(t, 0.0, "above", shared) <= 0.05 for t in tables])),
        "coverage": float(np.mean([each.low <= 0 <= each.high for each in intervals])),
        "power": float(np.mean([p_value(t, -1.0, "above", shared) <= 0.05 for t in tables])),
    }


def of_verdicts(network: float, kernel: float, spread: float = 0.05) -> dict[str, float]:
    """Shares of verdicts where network and frozen arms have these mean effects; half of the
    variance belongs to the split and is common to all arms.
    """
    rng = np.random.default_rng(0)
    claim, found = Claim("c", minimum=MINIMUM), []
    for _ in range(VERDICTS):
        split = rng.standard_normal(REPEATS)
        effects = {
            arm: mean + spread * np.sqrt(0.5) * (split + rng.standard_normal(REPEATS))
            for arm, mean in (
                ("features", network),
                *((arm, kernel) for arm in ("ntk", "nngp", "linearised", "lazy")),
            )
        }
        movement = {"lazy": np.zeros((1, REPEATS)), "features": np.ones((1, REPEATS))}
        found += [judge([claim], [Evidence(effects, {}, movement, 100)])[0].kind]
    kinds, counts = np.unique(found, return_counts=True)
    return dict(zip(kinds.tolist(), (counts / VERDICTS).tolist(), strict=True))


def main() -> None:
    """All tables; exit 1 where a level or a coverage is not held."""
    tests = {
        f"{'skewed' if skewed else 'normal'}, ratio {ratio:g}": of_tests(ratio, skewed)
        for skewed in (False, True)
        for ratio in RATIOS
    }
    pools = {
        f"pool, {shared:g} of the test samples shared": of_pool(shared)
        for shared in (0.1, 0.3, 0.5)
    }
    edge = float(as_good(Claim("c"), np.array([0.9]))[0])
    cases = {
        "kernel at the minimum, network .9": (0.9, MINIMUM),
        "kernel just as good as counts, network .9": (0.9, edge),
        "network at the minimum, kernel 0": (MINIMUM, 0.0),
        "network .9, kernel .9": (0.9, 0.9),
        "network .9, kernel .65": (0.9, 0.65),
        "network .9, kernel .4": (0.9, 0.4),
    }
    verdicts = {name: of_verdicts(*case) for name, case in cases.items()}
    for table in (tests, pools, verdicts):
        for name, row in table.items():
            print(f"{name:45}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    rows = [*tests.values(), *pools.values()]
    worst = max(value for row in rows for key, value in row.items() if key.startswith("false"))
    least = min(row["coverage"] for row in rows)
    print(f"type I at most {worst:.3f} (<= {LEVEL}); coverage at least {least:.3f} (>= {COVERAGE})")
    print(
        f"wrote {write('falsifier_level', {'tests': tests, 'pools': pools, 'verdicts': verdicts})}"
    )
    if worst > LEVEL or least < COVERAGE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
