"""Faults that the interpreter of PTX finds."""

import re

import numpy as np
import pytest

from test_ptx import REVERSE, engine, run  # noqa: F401

SPREAD = "mul.wide.u32 %rd4, %r0, 4; ld.param.u64 %rd5, [out]; add.s64 %rd6, %rd5, %rd4;"
FAULTS = {
    "a register never written": ("add.s32 %r2, %r3, 1;", "register never written, %r3.*thread 0"),
    "written in some lanes only": (
        "setp.lt.u32 %p1, %r0, 9; @%p1 mov.u32 %r1, 1; st.global.u32 [%rd2], %r1;",
        "register never written, %r1.*thread 9",
    ),
    "a predicate never written": ("@%p3 mov.u32 %r1, 1;", "register never written, %p3"),
    "a write out of bounds": ("st.global.u32 [%rd2+8], %r0;", "out of bounds .*st.global.*thread 31"),
    "a read out of bounds": ("ld.global.u32 %r1, [%rd1-8];", "out of bounds .*ld.global.*thread 0"),
    "half a vector out of bounds": (
        "add.s64 %rd1, %rd1, %rd3; ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1];",
        "out of bounds.*thread 16",
    ),
    "a null pointer": ("mov.u64 %rd4, 0; ld.global.u32 %r1, [%rd4];", "out of bounds"),
    "behind a local array": (
        ".local .align 4 .b8 a[8]; mov.u64 %rd4, a; st.local.u32 [%rd4+8], %r0;", "out of bounds.*st.local"
    ),
    "behind shared memory": (
        ".shared .align 4 .b8 a[8]; mov.u64 %rd4, a; st.shared.u32 [%rd4+8], %r0;", "out of bounds.*st.shared"
    ),
    "behind the parameters": ("mov.u64 %rd4, in; ld.param.u64 %rd5, [%rd4+16];", "out of bounds.*ld.param"),
    "a misaligned load": ("ld.global.u32 %r1, [%rd1+2];", "misaligned"),
    "a misaligned vector": ("st.global.v2.u32 [%rd2+4], {%r0, %r0};", "misaligned|out of bounds"),
    "memory never written": ("ld.global.u32 %r1, [%rd2];", "memory never written"),
    "shared memory never written": (
        ".shared .align 4 .b8 a[8]; mov.u64 %rd4, a; ld.shared.u32 %r1, [%rd4];", "memory never written"
    ),
    "two threads write one word": ("ld.param.u64 %rd4, [out]; st.global.u32 [%rd4], %r0;", "race: a write.*thread 1"),
    "one reads what another writes": (
        f"{SPREAD} st.global.u32 [%rd6], %r0; xor.b32 %r2, %r0, 1; mul.wide.u32 %rd4, %r2, 4;"
        "add.s64 %rd6, %rd5, %rd4; ld.global.u32 %r3, [%rd6];",
        "race: a read beside another thread's write",
    ),
    "one writes what another read": (
        "ld.param.u64 %rd4, [in]; ld.global.u32 %r1, [%rd4]; setp.eq.u32 %p1, %r0, 9; @%p1 st.global.u32 [%rd4], %r0;",
        "race: a write beside another thread's read.*thread 9",
    ),
    "a shuffle with lanes that ended": (
        "setp.gt.u32 %p1, %r0, 20; @%p1 ret; shfl.sync.up.b32 %r1|%p2, %r0, 1, 0, -1;", "lanes that have ended"
    ),
    "a shuffle without the lane itself": ("shfl.sync.up.b32 %r1|%p2, %r0, 1, 0, 1;", "lacks the lane itself"),
    "a shuffle that reads outside its mask": (
        "setp.lt.u32 %p1, %r0, 4; @%p1 shfl.sync.down.b32 %r1|%p2, %r0, 1, 31, 15;", "a lane that takes no part"
    ),
    "lanes at two shuffles": (
        "setp.lt.u32 %p1, %r0, 4; @%p1 bra A; shfl.sync.up.b32 %r1, %r0, 1, 0, -1; ret;"
        "A: shfl.sync.up.b32 %r1, %r0, 1, 0, -1;",
        "deadlock: a shuffle",
    ),
    "a barrier after an exit": ("setp.gt.u32 %p1, %r0, 20; @%p1 ret; bar.sync 0;", "deadlock: a barrier"),
    "a warp at two barriers": (
        "setp.lt.u32 %p1, %r0, 4; @%p1 bra A; bar.sync 0; ret; A: bar.sync 0;", "at different barriers"
    ),
    "division by zero": ("sub.s32 %r1, %r0, %r0; div.s32 %r2, %r0, %r1;", "division by zero"),
    "an unknown instruction": ("vote.sync.any.pred %p1, %p2, -1;", "does not know the instruction: `vote.sync"),
    "an unknown modifier": ("add.sat.cc.s32 %r1, %r0, 1;", "does not know the instruction: `add.sat.cc.s32"),
    "an unknown variable": ("mov.u64 %rd4, nowhere;", "does not know the instruction: `mov.u64 %rd4, nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(run, name):
    code, message = FAULTS[name]
    with pytest.raises(RuntimeError, match=f"^PTX: .*({message})") as error:
        run(code, np.arange(32, dtype=np.uint64))
    assert "\n" not in str(error.value)
    if "division" not in name:
        assert re.search(r"block 0, thread \d+, kernel kernel\d+", str(error.value))


def test_a_missing_barrier_is_a_race(run):
    with pytest.raises(RuntimeError, match=r"race|never written"):
        run(REVERSE.replace("{sync}", ""), threads=64)


def test_blocks_race_whatever_the_barriers(run):
    code = (
        "ld.param.u64 %rd4, [out]; bar.sync 0; setp.eq.u32 %p1, %r0, 0; @%p1 st.global.u32 [%rd4],"
        " %r0;"
    )
    run(code, threads=32)  # alone: no race
    with pytest.raises(
        RuntimeError, match=r"race: a write beside another thread's write.*block 1, thread 0"
    ):
        run(code, threads=32, blocks=2)


def test_a_missing_label(engine):
    message = engine.ptx_load(b".entry k()\n{\nbra NOWHERE;\n}\n").decode()
    assert message == "PTX: no label NOWHERE in k"
