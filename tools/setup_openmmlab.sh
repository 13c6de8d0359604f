#!/usr/bin/env bash
# Make an environment of the original stack (requirements/openmmlab.txt), with what tests and demo need and this
# project, linked; what is there already is left alone. Ends with the command that runs the tests there.
#
#     bash tools/setup_openmmlab.sh [FOLDER]      (.venv-openmmlab in the repository root, unless a folder is given)
#
# mmcv compiles its operators, once for a pip cache: some 15 minutes, a C++ compiler and Python's headers.
# PYTHON=... chooses the interpreter that makes the folder: Python 3.10 or 3.11, since torch 2.1.2 has no newer ones.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${1:-$root/.venv-openmmlab}"
versions='3.10 or 3.11'
# shellcheck source=tools/setup_common.sh
source "$root/tools/setup_common.sh"
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' >/dev/null 2>&1; }

case "$#${1:-}" in 0 | 1[!-]*) ;; *) fail "one folder at most; usage: tools/setup_openmmlab.sh [FOLDER]" ;; esac
[ -f "$venv/pyvenv.cfg" ] || [ -z "$(ls -A "$venv" 2>/dev/null)" ] \
    || fail "$venv holds other files than an environment's; give a folder that is new or empty."
! compgen -G "$venv/lib/python*/site-packages/onedl_*" >/dev/null \
    || fail "$venv holds the default stack, whose import names are the same; give another folder."

# 1. the environment
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv python3.11 python3.10 python3
venv="$(cd "$venv" && pwd)"
check_venv

# 2. the stack, torch first: mmcv is compiled against it; the file limits what tests and demo may ask for
cd "$root"
stack=requirements/openmmlab.txt
if changed openmmlab; then
    say "installing $stack (torch and the OpenMMLab packages: some 3 GB, and the compiler runs for some 15 minutes)"
    # shellcheck disable=SC2046  # one requirement a line
    install $(grep -E '^(torch|torchvision|numpy|setuptools)[=<]' "$stack") wheel
    install --no-build-isolation -r "$stack"
    stamp openmmlab
fi
for name in tests demo; do
    if changed "$name"; then
        say "installing requirements/$name.txt"
        install -c "$stack" -r "requirements/$name.txt"
        stamp "$name"
    fi
done

# 3. this project, linked
link_project --no-build-isolation
say "ready; the tests there: cd '$root' && '$venv/bin/python' -m pytest tests"
