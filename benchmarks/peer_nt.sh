#!/usr/bin/env bash
# Makes the environment of the peer, neural-tangents 0.6.5, apart from ntkcore's own, and prints where its Python is.
#   benchmarks/peer_nt.sh [folder]      folder: the argument, else $NTKCORE_NT_ENV, else ~/.cache/ntkcore/nt-env
# Running it again is free. neural-tangents is archived and imports names that later versions of JAX removed: hence the pins.
set -euo pipefail

env_dir="${1:-${NTKCORE_NT_ENV:-$HOME/.cache/ntkcore/nt-env}}"
pins=(neural-tangents==0.6.5 jax==0.5.3 jaxlib==0.5.3 tf2jax==0.3.7 threadpoolctl)
check='import neural_tangents, jax; assert (neural_tangents.__version__, jax.__version__) == ("0.6.5", "0.5.3")'
python="$env_dir/bin/python"

works() { [ -x "$python" ] && TF_CPP_MIN_LOG_LEVEL=3 "$python" -W ignore -c "$check" 2>/dev/null; }

if ! works; then
    "${PYTHON:-python3}" -m venv "$env_dir" >&2
    if ! "$python" -m pip install --quiet --disable-pip-version-check "${pins[@]}" >&2; then
        echo "peer_nt.sh: pip could not install ${pins[*]} into $env_dir." >&2
        echo "Likely the package registry does not answer, or this Python ($("$python" -V)) has no wheel of jaxlib 0.5.3 (3.10-3.13 have)." >&2
        echo "Next: check 'pip download --no-deps jaxlib==0.5.3', set PYTHON=python3.11, or name a ready environment in NTKCORE_NT_ENV." >&2
        exit 1
    fi
    works || { echo "peer_nt.sh: installed, but '$python -c \"import neural_tangents\"' fails; delete $env_dir and run this again." >&2; exit 1; }
fi
echo "$python"
