"""Builds the interpreter of PTX, and with it the CUDA module whose kernels it runs (where nvcc is).

    python tests/ptx/build.py

Products stay in build/ptx, named by a hash of what they are made of,
so only what changed is built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
OUT = ROOT / "build" / "ptx"
sys.path.insert(0, str(ROOT / "tools"))
from sass_report import FLAGS as NVCC_FLAGS  # noqa: E402

ARCHITECTURE = "90"
CXX_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]


def run(command: list[object]) -> str:
    """The output of a command; its own messages where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def made(name: str, parts: list[Path], command: list[object]) -> Path:
    """build/ptx/HASH/name, made by `command` + [-o, it] unless it is there;
    the hash is of parts and command.
    """
    digest = hashlib.sha256(repr([str(c) for c in command]).encode())
    for part in sorted(set(parts)):
        digest.update(part.read_bytes())
    folder = OUT / digest.hexdigest()[:16]
    if not (folder / name).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        keep = ["--keep", "--keep-dir", folder] if command[0] == "nvcc" else []
        run([*command, *keep, "-o", folder / ("unfinished-" + name)])
        for old in [p for p in OUT.glob(f"*/{name}") if p.parent != folder]:
            shutil.rmtree(old.parent)
        (folder / ("unfinished-" + name)).rename(folder / name)
    return folder / name


def headers(folder: Path) -> list[Path]:
    return [*folder.rglob("*.h"), *folder.rglob("*.cuh")]


def objects(sources: list[Path], beside: list[Path], options: list[object]) -> list[Path]:
    return [
        made(s.stem + ".o", [s, *beside], ["g++", *CXX_FLAGS, *options, "-c", s]) for s in sources
    ]


def interpreter() -> list[Path]:
    """The objects of the interpreter, without the names of the CUDA runtime."""
    own = [s for s in sorted(HERE.glob("*.cpp")) if s.name != "runtime.cpp"]
    return objects(own, headers(HERE), ["-frounding-math"])


def library() -> Path:
    """The interpreter alone, for tests that bring their own PTX."""
    parts = interpreter()
    return made("libptx.so", parts, ["g++", "-shared", *parts])


def cuda_include() -> str:
    found = re.search(
        r'INCLUDES="-I([^"]*)"', run(["nvcc", "--dryrun", "-c", "-x", "cu", "/dev/null"])
    )
    if not found:
        sys.exit("nvcc --dryrun names no folder of headers: is this nvcc of CUDA 12 or later?")
    return found[1].strip()


def sources(suffix: str) -> list[Path]:
    """The CUDA module's sources, as CMakeLists.txt lists them."""
    found = re.search(
        r"pybind11_add_module\(_cuda MODULE NO_EXTRAS ([^)]*)\)",
        (ROOT / "CMakeLists.txt").read_text(),
    )
    if not found:
        sys.exit("CMakeLists.txt has no line pybind11_add_module(_cuda MODULE NO_EXTRAS ...)")
    return [ROOT / name for name in found[1].split() if name.endswith(suffix)]


def kernels() -> list[tuple[Path, Path]]:
    """(object, PTX) of every file of kernels: one run of nvcc each, and no machine code."""
    code = f"arch=compute_{ARCHITECTURE},code=compute_{ARCHITECTURE}"
    command = [
        "nvcc",
        *NVCC_FLAGS,
        "-gencode",
        code,
        "-Xcompiler",
        "-fPIC,-fvisibility=hidden",
        "-c",
    ]
    found = [
        (made(s.stem + ".o", [s, *headers(CSRC)], [*command, s]), s.stem + ".ptx")
        for s in sources(".cu")
    ]
    return [(o, o.parent / ptx) for o, ptx in found]


def module() -> tuple[Path, list[Path]]:
    """The CUDA module on the interpreter, and the PTX it runs."""
    import pybind11

    include, compiled = cuda_include(), kernels()
    own = [
        f"-I{sysconfig.get_path('include')}",
        f"-I{pybind11.get_include()}",
        f"-I{CSRC}",
        f"-isystem{include}",
    ]
    host = objects(
        sources(".cpp"), headers(CSRC), [*own, f'-DNTK_CUDA_ARCHITECTURES="{ARCHITECTURE}"']
    )
    runtime = objects([HERE / "runtime.cpp"], headers(HERE), [f"-isystem{include}"])
    parts = [*host, *runtime, *interpreter(), *(o for o, _ in compiled)]
    return made("_cuda.so", parts, ["g++", "-shared", *parts]), [ptx for _, ptx in compiled]


def loaded(path: Path) -> ctypes.CDLL:
    """A library of the interpreter with its functions typed."""
    found = ctypes.CDLL(str(path))
    for name in ("ptx_load", "ptx_launch", "ptx_copy", "ptx_release", "ptx_counts"):
        getattr(found, name).restype = ctypes.c_char_p
    found.ptx_allocate.restype = ctypes.c_void_p
    found.ptx_allocate.argtypes = [ctypes.c_size_t]
    found.ptx_release.argtypes = [ctypes.c_void_p]
    found.ptx_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    found.ptx_lend.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    found.ptx_launch.argtypes = [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]
    return found


def main() -> None:
    if not shutil.which("nvcc"):
        print(f"no nvcc here, so no kernels to run; the interpreter alone: {library()}")
        return
    print(module()[0])


if __name__ == "__main__":
    main()
