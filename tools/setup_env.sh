#!/usr/bin/env bash
# Make .venv in the repository root and install this project into it; what is there already is left alone.
#
#     bash tools/setup_env.sh [demo] [tests]      (names of further files of requirements/)
#
# PYTHON=... chooses the interpreter that makes .venv; it must be Python 3.10 or newer.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamps="$venv/.mimhd_mm"  # a copy of each requirements file as it was when its installation ended well

say() { echo "[setup] $*"; }
fail() { echo "error: $*" >&2; exit 1; }
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

for extra in "$@"; do
    [ -f "$root/requirements/$extra.txt" ] || fail "there is no requirements/$extra.txt; usage: tools/setup_env.sh [demo] [tests]"
done

# 1. the environment: made where there is no interpreter that runs; one without pip (its making was cut short) gets pip
if ! "$venv/bin/python" -c '' >/dev/null 2>&1; then
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10 or newer with the modules venv and ensurepip."
        python="$PYTHON"
    else
        for python in python3 python3.12 python3.11 python3.10 ''; do
            if [ -n "$python" ] && fits "$python"; then break; fi
        done
        [ -n "$python" ] || fail "no Python 3.10 or newer with the modules venv and ensurepip was found; install one and pass it as PYTHON=/path/to/python3."
    fi
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
fi
fits "$venv/bin/python" || fail "$venv holds $("$venv/bin/python" --version), and 3.10 is the oldest that works; remove that folder and call this again."
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip
mkdir -p "$stamps"

# 2. packages: a file is installed when it differs from its stamp; the stamp is written last
for name in run "$@"; do
    file="$root/requirements/$name.txt"
    if ! cmp -s "$file" "$stamps/$name.txt"; then
        [ "$name" = run ] && note=' (torch and the OpenMMLab packages: some 3 GB, minutes)' || note=''
        say "installing requirements/$name.txt$note"
        rm -f "$stamps/$name.txt"
        "$venv/bin/python" -m pip install --disable-pip-version-check -r "$file"
        cp "$file" "$stamps/$name.txt"
    fi
done

# 3. this project, linked: done again when the repository moved or its packaging changed
here="$(echo "$root"; cat "$root/setup.py" "$root/mimhd_mm/version.py" "$root/requirements/"*.txt)"
if [ "$here" != "$(cat "$stamps/project" 2>/dev/null)" ] || [ ! -e "$root/mimhd_mm/.mim/configs" ]; then
    say "installing $root in development mode"
    rm -f "$stamps/project"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -e "$root"
    printf '%s\n' "$here" > "$stamps/project"
fi
say "ready: $venv"
