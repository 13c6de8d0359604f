#!/usr/bin/env bash
# Make .venv in the repository root and install this project into it; what is there already is left alone.
#
#     bash tools/setup_env.sh [demo] [tests]      (names of further files of requirements/)
#
# PYTHON=... chooses the interpreter that makes .venv; it must be Python 3.10 or newer.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
versions='3.10 or newer'
# shellcheck source=tools/setup_common.sh
source "$root/tools/setup_common.sh"
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

for extra in "$@"; do
    [ -f "$root/requirements/$extra.txt" ] || fail "there is no requirements/$extra.txt; usage: tools/setup_env.sh [demo] [tests]"
done

# 1. the environment: made where there is no interpreter that runs; one without pip (its making was cut short) gets pip
"$venv/bin/python" -c '' >/dev/null 2>&1 || make_venv python3 python3.12 python3.11 python3.10
check_venv
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip

# 2. packages
for name in run "$@"; do
    if changed "$name"; then
        [ "$name" = run ] && note=' (torch and the OpenMMLab packages: some 3 GB, minutes)' || note=''
        say "installing requirements/$name.txt$note"
        install -r "$root/requirements/$name.txt"
        stamp "$name"
    fi
done

# 3. this project, linked
link_project
say "ready: $venv"
