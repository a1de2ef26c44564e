#!/usr/bin/env bash
# Makes the folder that peers_cuda.py takes to a machine without network: neural-tangents 0.6.5 for any Python whose JAX
# is there already (nt_newer_jax.py lets it run under new ones), and the script of Arora et al. 2019.
#   benchmarks/peers_folder.sh FOLDER [CNTK.py]      CNTK.py: from github.com/ruosongwang/CNTK; fetched with git if not given
set -euo pipefail
folder="${1:?usage: benchmarks/peers_folder.sh FOLDER [CNTK.py]}"
mkdir -p "$folder/site"
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --upgrade \
    --target "$folder/site" neural-tangents==0.6.5 frozendict
if [ -n "${2:-}" ]; then
    cp "$2" "$folder/CNTK.py"
else
    clone="$(mktemp -d)"
    git clone --quiet --depth 1 https://github.com/ruosongwang/CNTK "$clone" && cp "$clone/CNTK.py" "$folder/"
    rm -rf "$clone"
fi
