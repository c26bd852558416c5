#!/bin/sh
# Everything that is measured on a GPU, in at most eight minutes, without network:
#
#     benchmarks/gpu/run.sh OUT              writes OUT/gpu.json and OUT/demo.json
#     benchmarks/gpu/run.sh OUT --dry-run    the same on a CPU with tiny models, in a minute
#
# PYTHON names the interpreter; it needs torch and marslora's dependencies, and bitsandbytes for the rows with nf4.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
test $# -ge 1 || { sed -n '2,7p' "$0"; exit 2; }
export PYTHONPATH="$root/src:$root${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m benchmarks.gpu.measure "$@"
