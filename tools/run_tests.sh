#!/usr/bin/env bash
# The tests, from nothing: makes .venv if need be, then runs pytest with the same arguments. All of tests/ is shared
# between two processes, file by file; some of it runs in one.
#
#     bash tools/run_tests.sh                              all of tests/: 10 to 12 minutes on two cores
#     bash tools/run_tests.sh --fast                       without those marked as slow: under 3 minutes
#     bash tools/run_tests.sh --coverage                   all of tests/; fails if less than 95 % of mimhd_mm is run
#     bash tools/run_tests.sh -x -k relation               all of tests/, with options of pytest
#     bash tools/run_tests.sh tests/test_packaging.py      some of it
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
bash tools/setup_env.sh tests demo

# a thread a process: the networks are tiny, and there are as many processes as the tests need
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
runner=(.venv/bin/python -m pytest)
share=(-n 2 --dist loadfile tests)
coverage=''
arguments=()
for argument in "$@"; do
    case "$argument" in
        --fast) arguments+=(-m 'not slow') ;;
        --coverage) coverage=yes ;;
        tests | tests/* | ./tests*) share=(); arguments+=("$argument") ;;
        *) arguments+=("$argument") ;;
    esac
done
if [ -z "$coverage" ]; then
    exec "${runner[@]}" "${share[@]}" "${arguments[@]}"
fi
.venv/bin/python -m coverage erase
.venv/bin/python -m coverage run -m pytest "${share[@]}" "${arguments[@]}"
.venv/bin/python -m coverage combine --quiet
.venv/bin/python -m coverage report
