#!/usr/bin/env bash
# What setup_env.sh and setup_openmmlab.sh share; they source it, it does nothing by itself. Before its functions are
# called, `root` and `venv` are folders, and `versions` says in words what `fits` asks of a Python.
set -euo pipefail

say() { echo "[setup] $*"; }
fail() { echo "error: $*" >&2; exit 1; }
install() { "$venv/bin/python" -m pip install --disable-pip-version-check "$@"; }

# make_venv NAME...: by PYTHON if it is set, otherwise by the first of these interpreters that fits
make_venv() {
    local python="${PYTHON:-}"
    if [ -n "$python" ]; then
        fits "$python" || fail "PYTHON=$python is no Python $versions with the modules venv and ensurepip."
    else
        for python in "$@" ''; do
            if [ -n "$python" ] && fits "$python"; then break; fi
        done
        [ -n "$python" ] || fail "no Python $versions with the modules venv and ensurepip was found; install one and pass it as PYTHON=/path/to/python3."
    fi
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
}

# check_venv: also of one that was there; `stamps` then has a copy of each requirements file as it was when its
# installation ended well
check_venv() {
    fits "$venv/bin/python" || fail "$venv holds $("$venv/bin/python" --version), and it has to be $versions; remove that folder and call this again."
    stamps="$venv/.mimhd_mm"
    mkdir -p "$stamps"
}

# changed NAME: whether requirements/NAME.txt differs from its stamp, which is then removed until `stamp NAME`
changed() {
    if cmp -s "$root/requirements/$1.txt" "$stamps/$1.txt"; then return 1; fi
    rm -f "$stamps/$1.txt"
}
stamp() { cp "$root/requirements/$1.txt" "$stamps/$1.txt"; }

# link_project OPTION...: this project in development mode, done again when the repository moved or its packaging changed
link_project() {
    local here
    here="$(echo "$root"; cat "$root/setup.py" "$root/pyproject.toml" "$root/mimhd_mm/version.py" "$root/requirements/"*.txt)"
    if [ "$here" != "$(cat "$stamps/project" 2>/dev/null)" ] || [ ! -e "$root/mimhd_mm/.mim/configs" ]; then
        say "installing $root in development mode"
        rm -f "$stamps/project"
        install "$@" --no-deps -e "$root"
        printf '%s\n' "$here" > "$stamps/project"
    fi
}
