"""Under which least effects a folder's claims have been judged: an effect's threshold that is
chosen after it was seen proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ntkcore.falsifier.cells import label, write
from ntkcore.falsifier.claims import Claim, name_of

FILE = "minima.json"


def recorded(folder: Path | None, claims: Sequence[Claim]) -> list[tuple[float, ...]]:
    """Of every claim the other least effects that it was judged under before; its own is recorded.

    ValueError, naming what to do, if the record is damaged.
    """
    if folder is None:
        return [() for _ in claims]
    path = folder / FILE
    found = _read(path) if path.exists() else {}
    now: dict[str, list[float]] = {}
    for claim in claims:
        now.setdefault(_key(claim), []).append(claim.minimum)
    before = [
        tuple(each for each in found.get(_key(claim), []) if each not in now[_key(claim)])
        for claim in claims
    ]
    write(path, found | {key: sorted({*found.get(key, []), *now[key]}) for key in now})
    return before


def _key(claim: Claim) -> str:
    """What is judged, whatever name the claim gives it."""
    points = ", ".join(map(label, claim.points))
    contrast = "".join(f", {arm}" for arm in claim.contrast)
    return f"{name_of(claim.predicate)} of {claim.chance_name} at {points}{contrast}"


def _read(path: Path) -> dict[str, list[float]]:
    try:
        found = json.loads(path.read_text())
        return {str(key): [float(each) for each in found[key]] for key in found}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): it records under which least effects the claims were"
            " judged; put it back, or choose another folder"
        ) from None
