#!/usr/bin/env bash
# Train as a Slurm job step.
#
#     bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
#
# From the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (further options of srun), REQUEUE (1).
#
# A training that was told to stop (SIGTERM on preemption, SIGUSR1 by Slurm's --signal=USR1@120) saves a checkpoint and
# ends with status 75. Inside a batch job this script then requeues the job, elsewhere it calls srun again; a job that
# Slurm itself started anew resumes too. REQUEUE=0: it ends with status 75 instead.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]" >&2
    exit 2
fi
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
per_node="${GPUS_PER_NODE:-8}"
read -r -a srun_args <<< "${SRUN_ARGS:-}"

again=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    again=(--resume)  # the last one holds: a checkpoint that the first start was given is behind us
fi
while true; do
    status=0
    srun -p "$1" \
        --job-name="$2" \
        --gres="gpu:$per_node" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${srun_args[@]+"${srun_args[@]}"} \
        "${PYTHON:-python}" -u "$tools/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}" \
        ${again[@]+"${again[@]}"} || status=$?
    if [ "$status" -ne 75 ] || [ "${REQUEUE:-1}" = 0 ]; then
        exit "$status"
    fi
    if [ -n "${SLURM_JOB_ID:-}" ] && scontrol requeue "$SLURM_JOB_ID"; then
        exit "$status"
    fi
    again=(--resume)
done
