from collections.abc import Sequence
from typing import Any

from ntkcore import _core

ARCHITECTURES: str

def machine() -> dict[str, Any]: ...
def evaluate(
    program: _core.Program,
    rows: Sequence[int],
    cols: Sequence[int],
    place: Sequence[int],
    dot: int,
    dot_stride: int,
    out: Sequence[Sequence[int]],
    stride: int,
    diagonal: bool,
    in_double: bool,
    device: int,
    stream: int,
) -> None: ...
def evaluate_images(
    program: _core.ImageProgram | _core.FullProgram,
    rows: Sequence[int],
    cols: Sequence[int],
    place: Sequence[int],
    out: Sequence[Sequence[int]],
    stride: int,
    diagonal: bool,
    in_double: bool,
    device: int,
    stream: int,
) -> None: ...
