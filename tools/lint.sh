#!/usr/bin/env bash
# Linter, spelling and types, from nothing: makes .venv if need be. Nothing is changed; `.venv/bin/ruff check --fix .`
# mends what it can.
#
#     bash tools/lint.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh dev
.venv/bin/python -m ruff check .
.venv/bin/codespell
.venv/bin/python -m mypy
