#!/usr/bin/env bash
# One command for a bare machine with a GPU and no network: builds, tests, measures and profiles on it.
#   tools/gpu_check.sh [options] [folder for the results]     default: $OUT, else benchmarks/results
# Options:
#   --wheel FILE.whl     take this build of ntkcore instead of building
#   --base FILE.whl      another build, measured as well after the step bench, in a section of cuda.json named by the
#                        wheel's folder; may be given several times
#   --steps a,b:90,...   of build,tests,bench,ncu,sanitize,peers,large, in this order; b:90 gives step b 90 seconds
#   --peers FOLDER       for the step peers: FOLDER/site with neural-tangents for this Python, FOLDER/CNTK.py of Arora et al.
#   --data FOLDER        for the step large: the folder that holds CIFAR-10 (default: $NTKCORE_DATA)
#   --keep-going         go on after failed tests
# Exit: 0 all right, 1 a step failed, 2 wrong usage, 3 no usable GPU. After a failed build or failed tests nothing else runs.
# Each step has its own time-out; its log is written to folder/step.log as it goes, what is measured to folder/cuda.json
# after every job, the table of steps to folder/summary.txt: at most 8 files. The card's settings are left alone.
# Needs there: Python >= 3.10 with CuPy, pybind11, scikit-build-core, SciPy, pytest, hypothesis; CMake, ninja, nvcc;
# PyTorch and threadpoolctl where finite networks are to be tested too.
set -uo pipefail
cd "$(dirname "$0")/.."
root="$PWD" python="${PYTHON:-python3}"
steps=build,tests,bench,ncu,sanitize,peers,large
out="" wheel="" peers="" keep_going="" bases=()
declare -A seconds=([build]=200 [tests]=170 [bench]=200 [base]=100 [ncu]=75 [sanitize]=130 [peers]=120 [large]=170)

usage() { sed -n '2,/^# Needs/p' "$root/tools/gpu_check.sh" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --wheel | --base | --steps | --peers | --data)
            [ $# -ge 2 ] || usage
            case "$1" in
                --steps) steps="$2" ;;
                --wheel) wheel="$(realpath -e "$2")" || exit 2 ;;
                --base) bases+=("$(realpath -e "$2")") || exit 2 ;;
                --peers) peers="$(realpath -e "$2")" || exit 2 ;;
                --data) NTKCORE_DATA="$(realpath -e "$2")" || exit 2; export NTKCORE_DATA ;;
            esac
            shift 2 ;;
        --keep-going) keep_going=1; shift ;;
        -*) usage ;;
        *) [ -z "$out" ] || usage; out="$1"; shift ;;
    esac
done
wanted=" "
for entry in ${steps//,/ }; do
    name="${entry%%:*}"
    [[ " build tests bench ncu sanitize peers large " == *" $name "* ]] || { echo "no step '$name'" >&2; usage; }
    [ "$name" = "$entry" ] || seconds[$name]="${entry#*:}"
    wanted+="$name "
done
mkdir -p "${out:=${OUT:-benchmarks/results}}"
out="$(realpath "$out")"

# nvcc, compute-sanitizer, ncu: where the toolkit puts them.
for folder in /usr/local/cuda*/bin /opt/nvidia/nsight-compute/*; do
    [ -d "$folder" ] && PATH="$PATH:$folder"
done
export PATH PYTHONUNBUFFERED=1 CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"

table=() failed=0
summary() { printf '%s\n' "$gpu" "${table[@]}" "total $SECONDS s" | tee "$out/summary.txt.new"; mv "$out/summary.txt.new" "$out/summary.txt"; }
note() {  # note step result seconds: a line of the summary, with the last line of the step's log
    local said=""
    [ ! -s "$out/$1.log" ] || said="$(grep -av '^ *$' "$out/$1.log" | tail -1 | cut -c1-100)"
    table+=("$(printf '%-9s %-10s %4d s  %s' "$1" "$2" "$3" "$said")")
    summary > /dev/null
}
has() { [[ "$wanted" == *" $1 "* ]]; }
finish() {
    echo "=== summary"
    summary
    exit "${1:-$((failed > 0))}"
}
step() {  # step name command...: its time-out, its log, its line of the summary; false where it failed
    local name="$1" start=$SECONDS code
    shift
    echo "=== $name (at most ${seconds[$name]} s)"
    timeout -k 5 "${seconds[$name]}" "$@" 2>&1 | tee "$out/$name.log"
    code="${PIPESTATUS[0]}"
    case "$code" in
        0) note "$name" ok $((SECONDS - start)) ;;
        124 | 137) note "$name" "TIMED OUT" $((SECONDS - start)) ;;
        *) note "$name" "FAILED $code" $((SECONDS - start)) ;;
    esac
    [ "$code" = 0 ] || { failed=$((failed + 1)); return 1; }
}

gpu="$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,compute_cap --format=csv,noheader 2>&1)" || {
    gpu="no usable GPU: nvidia-smi says: ${gpu:-nothing}"
    finish 3
}
gpu="$(head -1 <<< "$gpu"); $(date -u +%FT%TZ)"
echo "$gpu"
arch="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)"
target="$(mktemp -d)"
pip_install=("$python" -m pip install --quiet --no-deps --no-index --no-compile --disable-pip-version-check)
if [ -n "$wheel" ]; then
    step build "${pip_install[@]}" --target "$target" "$wheel" || finish
elif has build; then
    step build "${pip_install[@]}" --no-build-isolation --target "$target" . \
        -C cmake.define.NTKCORE_CUDA=ON ${arch:+-C cmake.define.CMAKE_CUDA_ARCHITECTURES=$arch} || finish
fi
path_before="${PYTHONPATH:-}"
export PYTHONPATH="$target${PYTHONPATH:+:$PYTHONPATH}"
cd tests
"$python" - <<'CHECK' > "$out/build.log" 2>&1 || { table+=("no usable GPU: $(tail -1 "$out/build.log")"); finish 3; }
from ntkcore.engine.backends import cuda_description, cuda_problem

problem = cuda_problem()
if problem:
    raise SystemExit(problem)
import cupy

assert int(cupy.arange(4).sum()) == 6, "CuPy's sum is wrong"
print(cuda_description())
CHECK
cat "$out/build.log"
rm "$out/build.log"  # of a failed build it stays

# Warnings of CuPy, NumPy or PyTorch in a version not known yet are shown and fail nothing.
pytest=("$python" -m pytest -q -p no:cacheprovider -W default -m gpu)
if has tests; then
    step tests "${pytest[@]}" --maxfail=10 --tb=short --durations=5 test_gpu.py || [ -n "$keep_going" ] || finish
fi
cd ../benchmarks
! has bench || step bench "$python" bench_cuda.py --out "$out"
for base in $(has bench && printf '%s\n' ${bases[@]+"${bases[@]}"}); do  # their log is appended to bench.log
    section="$(basename "$(dirname "$base")")" seconds[$section]="${seconds[base]}"
    "${pip_install[@]}" --target "$target.$section" "$base"
    step "$section" env PYTHONPATH="$target.$section${path_before:+:$path_before}" "$python" bench_cuda.py \
        --out "$out" --section "$section" --only images,vectors
    cat "$out/$section.log" >> "$out/bench.log"
    rm "$out/$section.log"
done
if has ncu; then step ncu "$python" profile_cuda.py --out "$out"; fi
! has sanitize || step sanitize "$root/tools/gpu_sanitize.sh"
! has peers || step peers "$python" peers_cuda.py --out "$out" --seconds $((seconds[peers] - 40)) ${peers:+--folder "$peers"}
! has large || step large "$python" real_cuda.py --out "$out" --seconds $((seconds[large] - 20))
finish
