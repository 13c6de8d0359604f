#!/usr/bin/env bash
# The tests, from nothing: makes .venv if need be, then runs pytest with the same arguments.
#
#     bash tools/run_tests.sh                              all of tests/
#     bash tools/run_tests.sh -x -k relation               all of tests/, with options of pytest
#     bash tools/run_tests.sh tests/test_packaging.py      some of it
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
bash tools/setup_env.sh tests demo

if [ -z "${OMP_NUM_THREADS:-}" ]; then
    OMP_NUM_THREADS="$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
    export OMP_NUM_THREADS
fi
for argument in "$@"; do
    case "$argument" in
        tests | tests/* | ./tests*) exec .venv/bin/python -m pytest "$@" ;;
    esac
done
exec .venv/bin/python -m pytest tests "$@"
