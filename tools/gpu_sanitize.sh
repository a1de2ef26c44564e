#!/usr/bin/env bash
# compute-sanitizer on a few small tests of test_gpu.py, ntkcore being on PYTHONPATH:  tools/gpu_sanitize.sh [seconds]
# memcheck: out of bounds, stream-ordered use; initcheck: reads of memory nothing wrote; racecheck: shared memory only.
# CuPy's pool is off, so that every array has bounds of its own.
set -uo pipefail
cd "$(dirname "$0")/../tests"
python="${PYTHON:-python3}" limit="${1:-40}"
command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not on PATH: it lies in the toolkit's bin" >&2; exit 1; }
driver='import sys, cupy, pytest
cupy.cuda.set_allocator(None)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-W", "default", "-m", "gpu", "test_gpu.py", "-k", sys.argv[1]]))'
small="float32 and ((networks_of_images and (gap or pools)) or (networks_of_vectors and chain) or (networks_of_signals and (local or mixed)))"
failed=0

check() {  # check tool tests options...
    local tool="$1" tests="$2" start=$SECONDS code
    shift 2
    timeout -k 5 "$limit" compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 --report-api-errors no \
        "$@" "$python" -c "$driver" "$tests" | grep -v "Host Frame" | tail -25
    code="${PIPESTATUS[0]}"
    echo "--- $tool: $([ "$code" = 0 ] && echo ok || echo "FAILED, exit $code"), $((SECONDS - start)) s"
    [ "$code" = 0 ] || failed=1
}

check memcheck "$small" --track-stream-ordered-races all
check initcheck "$small"
check racecheck "$small"
check synccheck "$small"
exit "$failed"
