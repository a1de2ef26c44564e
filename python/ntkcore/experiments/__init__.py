"""Figures of the literature, run again: one file each, with its claim,
its numbers and whether they came out.

    ntkcore run                      # what there is
    ntkcore run spectral_bias        # spectral_bias.png, spectral_bias.json, the folder's index.md

A file of `figures` holds ``CLAIM``, a frozen dataclass ``Config`` (its defaults are the full run;
``QUICK`` overrides some), ``run(config)`` -> arrays, ``expected(config, arrays)`` -> `Criterion`s,
``plot(arrays, figure)``. Being there is being enrolled: the command line, the gallery and the tests
find it by themselves.
"""

from ntkcore.experiments.criteria import Criterion, steps
from ntkcore.experiments.runner import criteria_of, load, names, run

__all__ = ["Criterion", "criteria_of", "load", "names", "run", "steps"]
