"""MIM-HD: distil a large masked autoencoder into a small vision transformer, for mmpretrain and mmsegmentation.

Importing this package checks the versions it stands on, teaches mmengine to resolve ``_base_ = 'mimhd_mm::...'``
and registers every class. mmsegmentation is not imported.
"""
from .compat import check_versions, register_config_packages, register_safe_globals
from .version import __version__

check_versions()
register_config_packages()
register_safe_globals()

from . import datasets, engine, models  # noqa: E402,F401  (they register themselves)

__all__ = ['__version__']
