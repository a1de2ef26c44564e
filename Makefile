# `make help` lists the targets. Everything lives in .venv; remove it with `make clean`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc python -type f -not -name '*.pyc' -not -name '*.so')
CXX_FILES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || echo 2)
export CMAKE_BUILD_PARALLEL_LEVEL

.PHONY: help demo test slow chaos fuzz docs ptx dev lint format cuda-report bench clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed-all  ## build, then run the demonstration on scikit-learn's digits
	$(BIN)/ntkcore demo

test: $(VENV)/installed-test  ## build, then run the tests (those marked slow excepted)
	$(BIN)/python -m pytest

slow: $(VENV)/installed-test  ## the tests marked slow
	$(BIN)/python -m pytest -m slow

chaos: $(VENV)/installed-test  ## kills, damage, full disks, many writers; writes the table of docs/promises.md
	NTKCORE_CHAOS=1 $(BIN)/python -m pytest -m chaos

# Python itself is not built for ASan, so its runtime comes first.
SANITIZED := PYTHONPATH=build/sanitized ASAN_OPTIONS=detect_leaks=0 NTKCORE_FUZZ=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)"
fuzz: $(VENV)/installed-test  ## random programs and kernels on a build under ASan and UBSan, others each time (GCC)
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/sanitized . -C build-dir=build/sanitize \
	  -C cmake.define.NTKCORE_SANITIZE=ON -C cmake.define.NTKCORE_CUDA=OFF
	$(SANITIZED) $(BIN)/python -m pytest tests/test_binding_fuzz.py tests/test_image_binding_fuzz.py \
	  tests/test_gradient_binding_fuzz.py \
	  tests/test_images.py tests/test_kernels.py tests/test_gradients.py

docs: $(VENV)/installed-test  ## every code block of the README and the docs, those of minutes too
	$(BIN)/python -m pytest tests/test_docs.py -m slow

ptx: $(VENV)/installed-test  ## the CUDA kernels' own PTX on an interpreter, all tests of the GPU (needs nvcc, 20 minutes)
	$(BIN)/python tests/ptx/build.py
	$(BIN)/python -m pytest tests/test_ptx.py -m "slow or not slow"

bench: $(VENV)/installed-test  ## the benchmarks: correctness first, then time
	$(BIN)/python benchmarks/run.py

dev: $(VENV)/installed-dev  ## build, and install the developers' tools

lint: $(VENV)/tools  ## ruff, mypy, import order, clang-format
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=python $(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

cuda-report: $(VENV)/bin/python  ## registers, spills and instructions of the hot CUDA kernels, where nvcc is
	if command -v nvcc > /dev/null; then $(BIN)/pip install --quiet nvidia-cuda-nvdisasm || true; fi
	$(BIN)/python tools/sass_report.py --hot --check --arch sm_80
	$(BIN)/python tools/sass_report.py --hot --check --arch sm_90

format: $(VENV)/tools  ## reformat Python and C++
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

clean:  ## remove the environment, builds and caches
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The installed package is a copy, rebuilt when a source changes; CMake's build folder stays, so that is quick.
# The demonstration runs on the CPU: it does not wait for nvcc. What developers install holds what tests need.
FLAGS_all := -C cmake.define.NTKCORE_CUDA=OFF
$(VENV)/installed-%: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install --quiet ".[$*]" $(FLAGS_$*)
	@touch $@ $(if $(filter dev,$*),$(VENV)/installed-test)

# The linters read the sources, so they need the environment but no rebuild.
$(VENV)/tools: $(VENV)/bin/python pyproject.toml
	$(MAKE) $(VENV)/installed-dev
	@touch $@

define CHECK_PYTHON
import importlib.util as u, os, sys, sysconfig
have = lambda name: u.find_spec(name) is not None
problems = [message for ok, message in (
  (sys.version_info >= (3, 10), "it is older than Python 3.10: install a newer one and say `make PYTHON=python3.12 ...`"),
  (have("venv") and have("ensurepip"), "it has no venv/ensurepip: on Debian or Ubuntu, `apt install python3-venv`"),
  (os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
   "its header Python.h is missing: on Debian or Ubuntu, `apt install python3-dev`"),
) if not ok]
sys.exit("\n".join(f"ntkcore cannot be built with {sys.executable}: {p}" for p in problems) or 0)
endef
export CHECK_PYTHON

$(VENV)/bin/python:
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv $(VENV)
