#!/usr/bin/env bash
# Make an environment of the original stack (requirements/openmmlab.txt), with what tests and demo need and this
# project, linked; what is there already is left alone. Ends with the command that runs the tests there.
#
#     bash tools/setup_openmmlab.sh [FOLDER]      (.venv-openmmlab in the repository root, unless a folder is given)
#
# mmcv compiles its operators, once for a pip cache: some 15 minutes, a C++ compiler and Python's headers.
# PYTHON=... chooses the interpreter that makes the folder: Python 3.10 or 3.11, since torch 2.1.2 has no newer ones.
set -euo pipefail

say() { echo "[setup] $*"; }
fail() { echo "error: $*" >&2; exit 1; }
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' >/dev/null 2>&1; }

case "$#${1:-}" in 0 | 1[!-]*) ;; *) fail "one folder at most; usage: tools/setup_openmmlab.sh [FOLDER]" ;; esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${1:-$root/.venv-openmmlab}"
[ -f "$venv/pyvenv.cfg" ] || [ -z "$(ls -A "$venv" 2>/dev/null)" ] \
    || fail "$venv holds other files than an environment's; give a folder that is new or empty."
! compgen -G "$venv/lib/python*/site-packages/onedl_*" >/dev/null \
    || fail "$venv holds the default stack, whose import names are the same; give another folder."

# 1. the environment
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.10 or 3.11 with the modules venv and ensurepip."
        python="$PYTHON"
    else
        for python in python3.11 python3.10 python3 ''; do
            if [ -n "$python" ] && fits "$python"; then break; fi
        done
        [ -n "$python" ] || fail "no Python 3.10 or 3.11 with the modules venv and ensurepip was found; install one and pass it as PYTHON=/path/to/python3."
    fi
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
fi
venv="$(cd "$venv" && pwd)"
fits "$venv/bin/python" || fail "$venv holds $("$venv/bin/python" --version), and only 3.10 and 3.11 work; remove that folder and call this again."
stamps="$venv/.mimhd_mm"  # a copy of each requirements file as it was when its installation ended well
mkdir -p "$stamps"
install() { "$venv/bin/python" -m pip install --disable-pip-version-check "$@"; }

# 2. the stack, torch first: mmcv is compiled against it; the file limits what tests and demo may ask for
cd "$root"
stack=requirements/openmmlab.txt
if ! cmp -s "$stack" "$stamps/openmmlab.txt"; then
    say "installing $stack (torch and the OpenMMLab packages: some 3 GB, and the compiler runs for some 15 minutes)"
    rm -f "$stamps/openmmlab.txt"
    # shellcheck disable=SC2046  # one requirement a line
    install $(grep -E '^(torch|torchvision|numpy|setuptools)[=<]' "$stack") wheel
    install --no-build-isolation -r "$stack"
    cp "$stack" "$stamps/openmmlab.txt"
fi
for name in tests demo; do
    if ! cmp -s "requirements/$name.txt" "$stamps/$name.txt"; then
        say "installing requirements/$name.txt"
        rm -f "$stamps/$name.txt"
        install -c "$stack" -r "requirements/$name.txt"
        cp "requirements/$name.txt" "$stamps/$name.txt"
    fi
done

# 3. this project, linked: done again when the repository moved or its packaging changed
here="$(echo "$root"; cat setup.py mimhd_mm/version.py requirements/*.txt)"
if [ "$here" != "$(cat "$stamps/project" 2>/dev/null)" ] || [ ! -e mimhd_mm/.mim/configs ]; then
    say "installing $root in development mode"
    rm -f "$stamps/project"
    install --no-build-isolation --no-deps -e "$root"
    printf '%s\n' "$here" > "$stamps/project"
fi
say "ready; the tests there: cd '$root' && '$venv/bin/python' -m pytest tests"
