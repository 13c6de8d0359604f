#!/usr/bin/env bash
# The demo, from nothing: makes .venv if need be, then runs tools/quickstart.py with the same arguments.
#
#     bash tools/quickstart.sh [--minutes 1] [--out FOLDER]
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/tools/setup_env.sh" demo
exec "$root/.venv/bin/python" "$root/tools/quickstart.py" "$@"
