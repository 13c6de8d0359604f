#!/usr/bin/env bash
# Train on several GPUs (or CPU processes) of one machine, or of NNODES machines.
#
#     bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# Several machines: call it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
#
# SIGTERM or SIGUSR1: a checkpoint is saved and the status is 75; --resume continues from there.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

exec "${PYTHON:-python}" "$tools/dist_run.py" \
    --nnodes "${NNODES:-1}" \
    --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" \
    --master_port "${PORT:-29500}" \
    --nproc_per_node "$2" \
    "$tools/train.py" "$1" --launcher pytorch "${@:3}"
