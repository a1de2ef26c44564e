#!/usr/bin/env bash
# One command for a bare machine with a GPU and no network: builds, tests and measures on it, in under 8 minutes.
#   tools/gpu_check.sh [folder for the results]     default: benchmarks/results
# Needs there: Python >= 3.10 with CuPy, pybind11, scikit-build-core, SciPy, pytest, hypothesis; CMake, ninja, nvcc;
# PyTorch and threadpoolctl where finite networks are to be tested too.
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:-${OUT:-benchmarks/results}}"
mkdir -p "$out"
python="${PYTHON:-python3}"
failed=()

step() {  # step name seconds command...
    local name="$1" limit="$2"
    shift 2
    echo "=== $name"
    local start=$SECONDS
    timeout "$limit" "$@" || failed+=("$name")
    echo "--- $name: $((SECONDS - start)) s"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv || echo "no nvidia-smi"
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
target="$(mktemp -d)"
arch="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)"
step build 200 "$python" -m pip install --quiet --no-build-isolation --no-deps --no-index --target "$target" . \
    -C cmake.define.NTKCORE_CUDA=ON ${arch:+-C cmake.define.CMAKE_CUDA_ARCHITECTURES=$arch}
export PYTHONPATH="$target${PYTHONPATH:+:$PYTHONPATH}"
cd tests
step tests 150 "$python" -m pytest -q -p no:cacheprovider -m gpu test_gpu.py
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
        step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -m pytest -q -p no:cacheprovider \
            -m gpu test_gpu.py -k "networks and float32 and (gap or pools or chain)"
    done
else
    echo "no compute-sanitizer here"
fi
cd ../benchmarks
step benchmarks 150 "$python" bench_cuda.py
cp results/cuda.json "$out/" 2> /dev/null
echo "=== ${#failed[@]} failed: ${failed[*]:-none} ($SECONDS s)"
[ "${#failed[@]}" -eq 0 ]
