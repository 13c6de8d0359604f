#!/usr/bin/env bash
# The documentation as a site, from nothing: makes .venv-docs if need be, then builds site/ with mkdocs; a warning, such
# as a broken link or a docstring that names an argument which is not there, is an error. The stack is not needed.
#
#     bash tools/build_docs.sh [OPTION...]      (options of `mkdocs build`)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="$root/.venv-docs"
versions='3.10 or newer'
# shellcheck source=tools/setup_common.sh
source "$root/tools/setup_common.sh"
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv python3 python3.12 python3.11 python3.10
check_venv
if changed docs; then
    install -r requirements/docs.txt
    stamp docs
fi
exec "$venv/bin/mkdocs" build --strict "$@"
