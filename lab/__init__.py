"""The laboratory: what made the tables and pages of ``docs/``. It is run from a clone and is no part of the package."""
from pathlib import Path

#: the clone
ROOT = Path(__file__).resolve().parents[1]
