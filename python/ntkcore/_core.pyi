from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Matrix = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Results = Sequence[npt.NDArray[np.floating] | None]

STRIP: int

class StoppedError(RuntimeError): ...

class Stop:
    def set(self) -> None: ...
    def is_set(self) -> bool: ...

def obey(stop: Stop | None) -> None: ...
def leave_after_interrupt(pipe: int, seconds: float, line: str) -> None: ...
def backends() -> list[tuple[str, str | None]]: ...
def duals() -> list[str]: ...

class Program:
    def __init__(
        self,
        ops: Sequence[tuple[str, str, int, int, Sequence[float]]],
        slots: int,
        outputs: int,
        tables: Sequence[npt.NDArray[np.float64]] = ...,
    ) -> None: ...
    @property
    def is_relu_chain(self) -> bool: ...
    @property
    def dense_ops(self) -> list[int]: ...

class Vectors:
    def __init__(self, program: Program, x: npt.NDArray[np.floating]) -> None: ...
    @staticmethod
    def of_norms(
        program: Program, norm2: npt.NDArray[np.float64], width: int, in_double: bool, threads: int
    ) -> Vectors: ...
    @property
    def unit(self) -> npt.NDArray[np.floating]: ...
    @property
    def arrays(self) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]: ...
    @property
    def nngp(self) -> npt.NDArray[np.float64]: ...
    @property
    def ntk(self) -> npt.NDArray[np.float64]: ...

class VectorSlopes:
    def __init__(self, points: Vectors) -> None: ...

def gradient(
    backend: str,
    rows: VectorSlopes,
    row: int,
    cols: VectorSlopes,
    col: int,
    dot: npt.NDArray[np.float64],
    ntk: bool,
    knobs: Sequence[tuple[int, int, Sequence[float]]],
    results: _Results,
) -> None: ...

class ImageProgram:
    def __init__(
        self,
        ops: Sequence[tuple[str, str, int, int, Sequence[float], Sequence[int]]],
        slots: int,
        head: Sequence[tuple[str, str, int, int, Sequence[float]]],
        head_slots: int,
        outputs: int,
        shape: tuple[int, int, int],
        tables: Sequence[npt.NDArray[np.float64]] = ...,
    ) -> None: ...
    @property
    def head_needs_variance(self) -> bool: ...
    @property
    def homogeneous(self) -> bool: ...
    @property
    def flip_symmetric(self) -> bool: ...
    @property
    def work(self) -> float: ...
    @property
    def table_size(self) -> int: ...

class Images:
    def __init__(
        self,
        program: ImageProgram,
        backend: str,
        x: npt.NDArray[np.floating],
        head: npt.NDArray[np.float64] | None = None,
    ) -> None: ...

class FullProgram:
    def __init__(
        self,
        ops: Sequence[tuple[str, str, int, int, Sequence[float], int, int, int, str]],
        slots: int,
        windows: Sequence[npt.NDArray[np.int32]],
        matrices: Sequence[
            tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]
        ],
        grids: Sequence[npt.NDArray[np.float64]],
        masks: Sequence[npt.NDArray[np.int32]],
        head: Sequence[tuple[str, str, int, int, Sequence[float]]],
        head_slots: int,
        outputs: int,
        shape: tuple[int, int, bool, bool, bool, bool],
        tables: Sequence[npt.NDArray[np.float64]] = ...,
    ) -> None: ...
    @property
    def head_needs_variance(self) -> bool: ...
    @property
    def homogeneous(self) -> bool: ...
    @property
    def flip_symmetric(self) -> bool: ...
    @property
    def work(self) -> float: ...
    @property
    def mixes(self) -> bool: ...
    @property
    def table_size(self) -> int: ...
    @property
    def thread_bytes(self) -> int: ...

class FullSamples:
    def __init__(
        self,
        program: FullProgram,
        backend: str,
        x: npt.NDArray[np.floating],
        head: npt.NDArray[np.float64] | None = None,
    ) -> None: ...

def strip_sizes(program: ImageProgram | FullProgram, in_double: bool) -> tuple[int, int, int]: ...
def image_strips(
    program: ImageProgram | FullProgram,
    backend: str,
    x: npt.NDArray[np.floating],
    pixels: npt.NDArray[np.floating],
    table: npt.NDArray[np.floating],
) -> None: ...
def image_diagonal(
    program: ImageProgram | FullProgram, backend: str, x: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def extremes(backend: str, data: npt.NDArray[np.float32]) -> tuple[float, float]: ...
def evaluate_images(
    backend: str,
    rows: Images | FullSamples,
    row: int,
    cols: Images | FullSamples,
    col: int,
    nngp: _Results,
    ntk: _Results,
    nngp_mirror: _Results,
    ntk_mirror: _Results,
    diagonal: bool,
) -> tuple[int, int] | None: ...
def evaluate(
    backend: str,
    rows: Vectors,
    row: int,
    cols: Vectors,
    col: int,
    dot: npt.NDArray[np.floating],
    nngp: _Results,
    ntk: _Results,
    nngp_mirror: _Results,
    ntk_mirror: _Results,
    diagonal: bool,
) -> tuple[int, int] | None: ...

class emulated_cuda:  # noqa: N801
    """The functions of _cuda on the host, for tests."""
