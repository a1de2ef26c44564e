"""The package as it is installed: metadata, typing marker, imports,
and the symbols of every instruction set.
"""

import doctest
import importlib
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

import ntkcore

ROOT = Path(__file__).parents[1]
BACKEND = ROOT / "csrc" / "cpu" / "backend.cpp"
CXX = os.environ.get("CXX", "g++")
OPTIONAL = ("cupy", "matplotlib", "scipy", "sklearn", "torch", "tqdm", "typer")


def project_field(name: str) -> str:
    """A one-line string of pyproject.toml's [project] (Python 3.10 has no tomllib)."""
    found = re.search(
        rf'^{name} = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found, name
    return found[1]


def test_one_version_everywhere():
    assert project_field("version") == metadata.version("ntkcore") == ntkcore.__version__


def test_metadata():
    meta = metadata.metadata("ntkcore")
    assert meta["Name"] == project_field("name")
    assert meta["License-Expression"] == project_field("license")
    assert meta["Requires-Python"] == project_field("requires-python")
    files = [file.name for file in metadata.files("ntkcore") or ()]
    assert "LICENSE" in files


def test_every_extra_is_there_and_all_stays_light():
    meta = metadata.metadata("ntkcore")
    assert set(meta.get_all("Provides-Extra")) == {
        "all",
        "cli",
        "dask",
        "dev",
        "gpu",
        "parquet",
        "plot",
        "sklearn",
        "store",
        "test",
        "torch",
    }
    always = [line for line in metadata.requires("ntkcore") or () if "extra ==" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in always} == {
        "lazy-loader",
        "numpy",
        "threadpoolctl",
    }


def test_console_script():
    (script,) = metadata.entry_points(group="console_scripts", name="ntkcore")
    assert script.value == "ntkcore.cli:main"


@pytest.mark.parametrize("name", ["py.typed", "__init__.pyi", "_core.pyi"])
def test_types_are_shipped(name):
    assert resources.files("ntkcore").joinpath(name).is_file()


def test_import_is_silent_and_needs_no_extra():
    code = f"import sys, ntkcore; print(*sorted(set({OPTIONAL!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    assert done.stderr == ""


ADDRESSES = {
    "build": "build extend plan resume",
    "control": "Claim Report Training falsify",
    "dynamics": "Dynamics GradientDescent GradientFlow Modes eigenmodes leading_modes",
    "estimators": "NNGPFeatures NTKClassifier NTKFeatures NTKKernel NTKRegressor StreamedRidge",
    "finite": "to_torch train empirical_ntk linearize",
    "gradients": "kernel_gradient input_gradient input_vjp parameters with_parameters",
    "learning_curves": "LearningCurve sphere_experiment",
    "losses": "CrossEntropy LossDynamics SquaredError",
    "operators": "InMemory MatrixFree Stored cupy_operator",
    "predict": "gp_inference gradient_descent gradient_descent_mse gradient_descent_mse_ensemble",
    "solve": "Cholesky Eigh KernelModel LandmarkRegression askotch cg eigs fit rpcholesky solve",
    "spectrum": "spectrum power_law conditioning certified_decay",
    "sphere": "sphere_spectrum legendre order_power",
    "stax": "Conv Dense Relu serial",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_users_import_from(address):
    module = importlib.import_module(f"ntkcore.{address}")
    assert set(ADDRESSES[address].split()) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_face():
    names = set(dir(ntkcore))
    assert {"Dynamics", "build", "falsify", "kernel", "mlp", "solve"} <= names
    assert all(getattr(ntkcore, name) is not None for name in names)
    with pytest.raises(AttributeError, match="nothing"):
        _ = ntkcore.nothing


def test_all_names_but_those_of_extras_come_without_them():
    code = """
import sys
sys.modules.update(dict.fromkeys(("scipy", "sklearn", "torch", "zarr", "matplotlib")))
from ntkcore import *
import ntkcore
for name in set(dir(ntkcore)) - set(ntkcore.__all__):
    try:
        getattr(ntkcore, name)
    except ImportError:
        continue
    print(name)
print(kernel(mlp(1), [[1.0]]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["(1, 1)"]


def test_build_and_solve_are_calls_and_addresses():
    """A module of that name takes the function's place once it was imported: both can be called."""
    code = """
import numpy as np, ntkcore
before = ntkcore.solve(np.eye(2), np.ones(2))
from ntkcore.solve import cg, solve
from ntkcore.build import build
assert ntkcore.solve.cg is cg and ntkcore.build.build is build and callable(ntkcore.build)
assert (ntkcore.solve(np.eye(2), np.ones(2)) == before).all()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_the_face_is_light():
    code = "import sys, ntkcore; print(*{'numpy', 'ntkcore._core', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def modules_with_examples():
    names = [module.name for module in pkgutil.walk_packages(ntkcore.__path__, "ntkcore.")]
    return [name for name in names if "._" not in name and ".experiments.figures" not in name]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_sections_of_docstrings_are_underlined_alone():
    for file in (ROOT / "python" / "ntkcore").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"^ +-{3,} \S.*$", text, re.MULTILINE) == [], file


def build_flags() -> dict[str, list[str]]:
    """The set(flags_NAME ...) lines of CMakeLists.txt."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(r"^set\(flags_(\w+) (.*)\)$", text, re.MULTILINE)
    return {name: flags.replace('"', "").split() for name, flags in found}


def built_object(isa: str) -> Path | None:
    """The object of `make`'s own build, if none of its sources changed since."""
    sources = [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*.h"), BACKEND]
    newest = max(source.stat().st_mtime for source in sources)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}-*"
    found = (ROOT / "build").glob(f"{tag}/CMakeFiles/cpu_{isa}.dir/csrc/cpu/backend.cpp.o")
    return next((file for file in found if file.stat().st_mtime > newest), None)


def compile_backend(isa: str, target: Path) -> Path:
    """The same by the compiler here."""
    flags = build_flags()
    visibility = ["-fvisibility=hidden", "-fvisibility-inlines-hidden"]
    command = [CXX, "-std=c++17", "-fPIC", *visibility, "-DNDEBUG", "-w", f"-DNTK_ISA={isa}"]
    command += [*flags["cpu"], *flags[isa], "-c", str(BACKEND), "-o", str(target)]
    subprocess.run(command, check=True, timeout=300)
    return target


@pytest.mark.parametrize("isa", ["generic", "v2", "v3", "v4"])
def test_no_symbol_of_one_instruction_set_serves_another(isa, tmp_path):
    """The linker keeps one copy of a weak symbol: were it the wide one,
    a processor without AVX-512 would crash.
    """
    if not (shutil.which(CXX) and shutil.which("nm")):
        pytest.skip("needs a C++ compiler and nm")
    if isa != "generic" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86-64 only")
    compiled = built_object(isa) or compile_backend(isa, tmp_path / "backend.o")
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", compiled], capture_output=True, text=True, check=True
    )
    symbols = [line.split(maxsplit=2)[1:] for line in listing.stdout.splitlines()]
    weak = [name for kind, name in symbols if kind in "WwVvui"]
    assert weak == []
    exported = [name for kind, name in symbols if kind.isupper()]
    assert exported
    assert [name for name in exported if f"ntk::{isa}::" not in name] == []


def test_a_subinterpreter_is_refused_instead_of_waited_for():
    code = f"""
import sys
try:
    import _interpreters as interpreters
    number = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated=False)
try:
    code = "import sys; sys.path[:0] = {sys.path!r}; from ntkcore import _core"
    interpreters.run_string(number, code)
except Exception as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "import it in the main one" in run.stdout, run.stdout + run.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_the_target_decides_on_instruction_sets(tmp_path):
    import pybind11

    def instruction_sets(flags):
        folder = tmp_path / f"build{flags}"
        options = ["-DNTKCORE_CUDA=OFF", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
        options += [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_CXX_FLAGS={flags}",
            "-G",
            "Unix Makefiles",
        ]
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", folder, *options], check=True, capture_output=True
        )
        return {p.stem for p in (folder / "CMakeFiles").glob("cpu_*.dir")}

    # As a compiler for another target sees it.
    assert instruction_sets("-U__x86_64__") == {"cpu_generic"}
    if platform.machine() in ("x86_64", "AMD64"):
        assert instruction_sets("") == {f"cpu_{isa}" for isa in ("generic", "v2", "v3", "v4")}
