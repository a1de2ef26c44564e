"""The interpreter of PTX (tests/ptx): what instructions compute, which faults it finds;
the CUDA kernels on it.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptx import build

HERE = Path(__file__).parent
REGISTERS = """
    .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<20>; .reg .f64 %fd<9>;
    mov.u32 %r0, %tid.x;
    ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
    mul.wide.u32 %rd3, %r0, 8;
    add.s64 %rd1, %rd1, %rd3; add.s64 %rd2, %rd2, %rd3;
"""


@pytest.fixture(scope="module")
def engine():
    if not shutil.which("g++"):
        pytest.skip("no g++ here")
    return build.loaded(build.library())


class Runner:
    """Runs kernels `(in, out)` of 8 bytes a thread; %rd1, %rd2 are the thread's places,
    %r0 its number.
    """

    def __init__(self, engine):
        self.engine, self.number = engine, 0

    def __call__(self, body, x=(), threads=None, blocks=1, room=None, dtype=np.uint64):
        """What the kernel left in `out`; raises RuntimeError with the interpreter's message."""
        x = np.asarray(x)
        cells = np.zeros(max(len(x), threads or 0, 1), np.uint64)
        cells[: len(x)] = (
            x.astype({4: np.uint32, 8: np.uint64}[x.itemsize], copy=False)
            if x.dtype.kind in "iu"
            else bits(x)
        )
        threads = threads or len(x)
        self.number += 1
        name = f"kernel{self.number}"
        text = (
            f".visible .entry {name}(.param .u64 in, .param .u64"
            f" out)\n{{\n{REGISTERS}\n{body}\nret;\n}}\n"
        )
        self.expect("", self.engine.ptx_load(text.encode()))
        room = 8 * threads * blocks if room is None else room
        source, target = self.engine.ptx_allocate(cells.nbytes), self.engine.ptx_allocate(room)
        try:
            self.expect("", self.engine.ptx_copy(source, cells.ctypes.data, cells.nbytes))
            values = [ctypes.c_uint64(source), ctypes.c_uint64(target)]
            arguments = (ctypes.c_void_p * 2)(*(ctypes.addressof(v) for v in values))
            self.expect("", self.engine.ptx_launch(name.encode(), blocks, threads, arguments))
            raw = np.frombuffer(ctypes.string_at(target, room), np.uint8).copy()
            if dtype in (np.float32, np.uint32, np.int32):
                return raw.view(np.uint32)[::2].view(dtype)
            return raw.view(dtype)
        finally:
            self.engine.ptx_release(source)
            self.engine.ptx_release(target)

    @staticmethod
    def expect(expected, message):
        if message.decode() != expected:
            raise RuntimeError(message.decode())


def bits(x):
    return x.view(np.uint32 if x.itemsize == 4 else np.uint64)


@pytest.fixture
def run(engine, request):
    runner = Runner(engine)
    runner.number = abs(hash(request.node.name)) % 10**9 * 100
    return runner


# --- arithmetic

TINY = np.float32(1e-39)  # below the normal numbers


@pytest.mark.parametrize(
    ("code", "x", "expected"),
    [
        ("add.f32 %f2, %f1, %f1;", TINY, TINY + TINY),
        ("add.ftz.f32 %f2, %f1, 0f3F800000;", TINY, 1),
        ("mul.ftz.f32 %f2, %f1, 0f3F000000;", np.float32(1.5e-38), 0),
        ("mul.f32 %f2, %f1, 0f3F000000;", np.float32(1.5e-38), np.float32(0.75e-38)),
        ("mul.ftz.f32 %f2, %f1, 0fBF800000;", TINY, -0.0),
        ("fma.rn.ftz.f32 %f2, %f1, %f1, %f1;", np.float32(1 + 2**-12), None),
        ("fma.rn.ftz.sat.f32 %f2, %f1, %f1, 0fBF800000;", np.float32(3), 1),
        ("fma.rn.ftz.sat.f32 %f2, %f1, %f1, 0fBF800000;", np.float32(0.5), 0),
        ("fma.rn.ftz.sat.f32 %f2, %f1, %f1, 0fBF000000;", np.float32(1), 0.5),
        ("fma.rn.ftz.sat.f32 %f2, %f1, %f1, 0f00000000;", np.float32(np.nan), 0),
        ("fma.rm.f32 %f2, %f1, 0f3F800000, 0f33000000;", np.float32(1), 1),
        ("fma.rp.f32 %f2, %f1, 0f3F800000, 0f33000000;", np.float32(1), np.float32(1 + 2**-23)),
        ("rcp.approx.ftz.f32 %f2, %f1;", TINY, np.inf),
        ("rcp.approx.ftz.f32 %f2, %f1;", np.float32(4), 0.25),
        ("rsqrt.approx.ftz.f32 %f2, %f1;", TINY, np.inf),
        ("sqrt.approx.ftz.f32 %f2, %f1;", TINY, 0),
        ("sqrt.approx.ftz.f32 %f2, %f1;", np.float32(2.25), 1.5),
        ("sqrt.approx.ftz.f32 %f2, %f1;", np.float32(-1), np.nan),
        ("div.approx.ftz.f32 %f2, %f1, 0f7F000000;", np.float32(2), 0),  # by 2^127
        ("div.full.ftz.f32 %f2, %f1, 0f40000000;", np.float32(3), 1.5),
        ("max.ftz.f32 %f2, %f1, 0f40000000;", np.float32(np.nan), 2),
        ("min.f32 %f2, %f1, 0f40000000;", np.float32(3), 2),
        ("neg.ftz.f32 %f2, %f1;", np.float32(3), -3),
        ("abs.ftz.f32 %f2, %f1;", np.float32(-3), 3),
        ("ex2.approx.ftz.f32 %f2, %f1;", np.float32(-1), 0.5),
        ("lg2.approx.ftz.f32 %f2, %f1;", np.float32(8), 3),
        ("cvt.ftz.sat.f32.f32 %f2, %f1;", np.float32(1.5), 1),
        ("cvt.rni.f32.f32 %f2, %f1;", np.float32(2.5), 2),
        ("cvt.rpi.f32.f32 %f2, %f1;", np.float32(2.1), 3),
        ("cvt.rzi.s32.f32 %r1, %f1; cvt.rn.f32.s32 %f2, %r1;", np.float32(-2.7), -2),
        ("cvt.rmi.s32.f32 %r1, %f1; cvt.rn.f32.s32 %f2, %r1;", np.float32(-2.1), -3),
        ("cvt.rzi.u32.f32 %r1, %f1; cvt.rn.f32.u32 %f2, %r1;", np.float32(-2.1), 0),
        ("cvt.rzi.s32.f32 %r1, %f1; cvt.rn.f32.s32 %f2, %r1;", np.float32(1e20), np.float32(2**31 - 1)),
        ("cvt.rzi.s32.f32 %r1, %f1; cvt.rn.f32.s32 %f2, %r1;", np.float32(np.nan), 0),
        ("cvt.ftz.f64.f32 %fd1, %f1; cvt.rn.f32.f64 %f2, %fd1;", TINY, 0),
        ("cvt.f64.f32 %fd1, %f1; add.f64 %fd1, %fd1, 0d3E00000000000000; cvt.rz.f32.f64 %f2, %fd1;", np.float32(1), 1),
        ("setp.gtu.f32 %p1, %f1, 0f3F800000; selp.f32 %f2, 0f40000000, 0f3F800000, %p1;", np.float32(np.nan), 2),
        ("setp.gt.f32 %p1, %f1, 0f3F800000; selp.f32 %f2, 0f40000000, 0f3F800000, %p1;", np.float32(np.nan), 1),
        ("setp.gt.ftz.f32 %p1, %f1, 0f00000000; selp.f32 %f2, 0f40000000, 0f3F800000, %p1;", TINY, 1),
        ("mov.f32 %f2, 0f3F800000; setp.lt.f32 %p1, %f1, 0f00000000; @!%p1 mov.f32 %f2, %f1;", np.float32(7), 7),
        ("mov.b32 %r1, %f1; mov.b32 %f2, %r1;", np.float32(7), 7),
    ],
)  # fmt: skip
def test_floats(run, code, x, expected):
    (ours,) = run(
        f"ld.global.f32 %f1, [%rd1]; {code} st.global.f32 [%rd2], %f2;",
        np.array([x]),
        dtype=np.float32,
    )
    if expected is None:  # one rounding: the square's last bits count
        expected = np.float32(np.float64(x) * np.float64(x) + np.float64(x))
    assert (
        np.array_equal(bits(np.array([ours])), bits(np.array([expected], np.float32)))
        or np.isnan([ours, expected]).all()
    )


@pytest.mark.parametrize(
    ("code", "x", "expected"),
    [
        ("add.s32 %r2, %r1, 1;", -1, 0),
        ("sub.s32 %r2, %r1, 5;", 3, -2),
        ("mul.lo.s32 %r2, %r1, %r1;", 65537, 131073),
        ("mul.hi.u32 %r2, %r1, %r1;", -1, -2),
        ("mul.hi.s32 %r2, %r1, %r1;", -1, 0),
        ("mad.lo.s32 %r2, %r1, 3, 4;", 5, 19),
        ("div.s32 %r2, %r1, 4;", -7, -1),
        ("rem.s32 %r2, %r1, 4;", -7, -3),
        ("div.u32 %r2, %r1, 2;", -1, 2**31 - 1),
        ("rem.u32 %r2, %r1, 10;", -1, 5),
        ("shl.b32 %r2, %r1, 4;", 3, 48),
        ("shl.b32 %r2, %r1, 32;", 3, 0),
        ("shr.s32 %r2, %r1, 1;", -4, -2),
        ("shr.s32 %r2, %r1, 99;", -4, -1),
        ("shr.u32 %r2, %r1, 31;", -4, 1),
        ("and.b32 %r2, %r1, 6;", 12, 4),
        ("or.b32 %r2, %r1, 6;", 8, 14),
        ("xor.b32 %r2, %r1, 6;", 12, 10),
        ("not.b32 %r2, %r1;", 0, -1),
        ("neg.s32 %r2, %r1;", 7, -7),
        ("abs.s32 %r2, %r1;", -7, 7),
        ("min.s32 %r2, %r1, 1;", -7, -7),
        ("min.u32 %r2, %r1, 1;", -7, 1),
        ("max.s32 %r2, %r1, 1;", -7, 1),
        ("clz.b32 %r2, %r1;", 1, 31),
        ("popc.b32 %r2, %r1;", 255, 8),
        ("bfi.b32 %r2, %r1, 0, 4, 3;", 255, 112),
        ("setp.lo.u32 %p1, %r1, 5; selp.b32 %r2, 1, 0, %p1;", -1, 0),
        ("setp.lt.s32 %p1, %r1, 5; selp.b32 %r2, 1, 0, %p1;", -1, 1),
        ("setp.lt.s32 %p1, %r1, 5; not.pred %p2, %p1; and.pred %p3, %p1, %p2; or.pred %p4, %p3, %p1;"
         "xor.pred %p4, %p4, %p3; selp.b32 %r2, 1, 0, %p4;", -1, 1),
        ("cvt.u16.u32 %h1, %r1; cvt.s32.s16 %r2, %h1;", 0xFFFE, -2),
        ("cvt.s64.s32 %rd4, %r1; shr.s64 %rd4, %rd4, 40; cvt.u32.u64 %r2, %rd4;", -1, -1),
        ("cvt.u64.u32 %rd4, %r1; shr.u64 %rd4, %rd4, 32; cvt.u32.u64 %r2, %rd4;", -1, 0),
        ("mul.wide.s32 %rd4, %r1, %r1; cvt.u32.u64 %r2, %rd4;", -3, 9),
        ("mul.wide.u32 %rd4, %r1, %r1; shr.u64 %rd4, %rd4, 32; cvt.u32.u64 %r2, %rd4;", -1, -2),
        ("mov.u64 %rd5, 4294967296; mad.wide.s32 %rd4, %r1, 2, %rd5; shr.s64 %rd4, %rd4, 32; "
         "cvt.u32.u64 %r2, %rd4;", -1, 0),
        ("mov.b64 %rd4, {%r1, %r0}; mov.b64 {%r3, %r4}, %rd4; add.s32 %r2, %r3, %r4;", 41, 41),
        ("mov.u32 %r2, %ntid.x;", 0, 1),
    ],
)  # fmt: skip
def test_integers(run, code, x, expected):
    code = f"ld.global.u32 %r1, [%rd1]; {code} st.global.u32 [%rd2], %r2;"
    (ours,) = run(code, np.array([x & 0xFFFFFFFF], np.uint32), dtype=np.int32)
    assert ours == expected


@pytest.mark.parametrize(
    ("code", "x", "expected"),
    [
        ("sqrt.rn.f64 %fd2, %fd1;", 2.0, np.sqrt(2.0)),
        ("rcp.rn.f64 %fd2, %fd1;", 3.0, 1 / 3),
        ("fma.rn.f64 %fd2, %fd1, %fd1, 0dBFF0000000000000;", 1 + 2.0**-30, 2.0**-29 + 2.0**-60),
        ("div.rn.f64 %fd2, %fd1, 0d4008000000000000;", 1.0, 1 / 3),
        ("cvt.rni.s32.f64 %r1, %fd1; cvt.rn.f64.s32 %fd2, %r1;", -2.5, -2.0),
        ("add.f64 %fd2, %fd1, %fd1;", 5e-324, 1e-323),
    ],
)
def test_doubles(run, code, x, expected):
    (ours,) = run(
        f"ld.global.f64 %fd1, [%rd1]; {code} st.global.f64 [%rd2], %fd2;",
        np.array([x]),
        dtype=np.float64,
    )
    assert ours == expected


# --- threads

LANES = np.arange(32, dtype=np.uint32)
SHUFFLES = {
    "up": ("up", 1, 0, np.maximum(LANES - np.minimum(LANES, 1), 0)),
    "down": ("down", 2, 31, np.where(LANES + 2 < 32, LANES + 2, LANES)),
    "butterfly": ("bfly", 5, 31, LANES ^ 5),
    "index": ("idx", 3, 31, np.full(32, 3)),
    "segments of 8": ("down", 1, 31 | (24 << 8), np.where(LANES % 8 < 7, LANES + 1, LANES)),
}


@pytest.mark.parametrize("name", SHUFFLES)
def test_shuffles(run, name):
    mode, by, bounds, source = SHUFFLES[name]
    code = f"""ld.global.u32 %r1, [%rd1]; shfl.sync.{mode}.b32 %r2|%p1, %r1, {by}, {bounds}, -1;
               selp.b32 %r3, 1000, 0, %p1; add.s32 %r2, %r2, %r3; st.global.u32 [%rd2], %r2;"""
    ours = run(code, LANES * 10, dtype=np.uint32)
    assert np.array_equal(ours, source * 10 + 1000 * ((source != LANES) | (name == "index")))


def test_lanes_diverge_and_meet(run):
    code = """and.b32 %r1, %r0, 1; setp.eq.s32 %p1, %r1, 0; mov.u32 %r2, %r0; @%p1 bra EVEN;
              LOOP: sub.s32 %r2, %r2, 2; setp.gt.s32 %p2, %r2, 0; @%p2 bra LOOP; bra.uni MEET;
              EVEN: add.s32 %r2, %r2, 100;
              MEET: shfl.sync.down.b32 %r3, %r2, 1, 31, -1; st.global.u32 [%rd2], %r3;"""
    own = np.where(LANES % 2 == 0, LANES + 100, -1)
    expected = np.append(own[1:], own[-1]).astype(np.int32)
    assert np.array_equal(run(code, threads=32, dtype=np.int32), expected)


def test_predicated_exit(run):
    code = (
        "mov.u32 %r1, 7; st.global.u32 [%rd2], %r1; setp.gt.u32 %p1, %r0, 3; @%p1 ret;"
        " st.global.u32 [%rd2], %r0;"
    )
    assert np.array_equal(
        run(code, threads=40, dtype=np.uint32), np.where(np.arange(40) < 4, np.arange(40), 7)
    )


def test_vectors_and_local_arrays(run):
    code = """.local .align 16 .b8 array[16]; .reg .b64 %SP;
              mov.u64 %SP, array; cvta.local.u64 %rd5, %SP;
              ld.global.nc.v2.u32 {%r1, %r2}, [%rd1];
              st.local.v4.u32 [%SP], {%r2, %r1, %r0, %r2}; ld.u32 %r3, [%rd5+4]; ld.local.v2.u32 {%r4, _}, [%SP];
              st.global.v2.u32 [%rd2], {%r3, %r4};"""
    x = np.arange(70, dtype=np.uint64) << np.uint64(32) | np.uint64(5)
    assert np.array_equal(run(code, x), x)


def test_parameters_indexed_at_run_time(run):
    code = """mov.b64 %rd4, in; cvta.param.u64 %rd6, %rd4; mul.wide.u32 %rd5, %r0, 8; add.s64 %rd4, %rd4, %rd5;
              ld.param.u64 %rd7, [%rd4]; ld.u64 %rd8, [%rd6+8]; sub.s64 %rd9, %rd8, %rd7; st.global.u64 [%rd2], %rd9;"""
    assert run(code, threads=2)[1] == 0


REVERSE = """.shared .align 16 .b8 tile[256]; mov.u64 %rd4, tile; mul.wide.u32 %rd5, %r0, 4; add.s64 %rd6, %rd4, %rd5;
             st.shared.u32 [%rd6], %r0; {sync} mov.u32 %r2, %ntid.x; sub.s32 %r2, %r2, %r0; sub.s32 %r2, %r2, 1;
             mul.wide.u32 %rd5, %r2, 4; add.s64 %rd6, %rd4, %rd5; ld.shared.u32 %r3, [%rd6];
             st.global.u32 [%rd2], %r3;"""


def test_shared_memory_with_a_barrier(run):
    ours = run(REVERSE.replace("{sync}", "bar.sync 0;"), threads=64, dtype=np.uint32)
    assert np.array_equal(ours, np.arange(64)[::-1])


# --- the CUDA kernels

SUBSET = (
    "(sides and (8-float32 or 13-float64)) or pixels or options"
    " or networks_of_images and (cntk or pools) or networks_of_vectors and chain"
    " or networks_of_signals and (local or mixed or branch)"
)
STAND_IN = "arrays_of_cupy or keep_their_precision"  # of these the tests' CuPy knows too little


def gpu_tests(*arguments):
    """Runs test_gpu.py on the interpreter; what pytest printed."""
    if not shutil.which("nvcc"):
        pytest.skip("no nvcc here")
    pytest.importorskip("pybind11")
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "ptx.plugin",
        "-p",
        "no:cacheprovider",
        "-q",
        "-m",
        "gpu",
        *arguments,
    ]
    done = subprocess.run(
        [*command, "test_gpu.py"],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kernels_on_the_interpreter():
    assert re.search(r"\d\d passed", gpu_tests("-k", SUBSET))


@pytest.mark.slow
def test_all_kernels_on_the_interpreter():
    assert re.search(r"\d\d passed", gpu_tests("-k", f"not ({STAND_IN})"))
