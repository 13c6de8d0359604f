"""MIM-HD: distil a large masked autoencoder into a small vision transformer, for mmpretrain and mmsegmentation.

Importing this package checks the versions it needs, lets mmengine resolve ``_base_ = 'mimhd_mm::...'`` and registers
every class. It changes no loader of mmengine or torch, and mmsegmentation is not imported.
"""
from .compat import check_versions, register_config_packages
from .version import __version__

check_versions()
register_config_packages()

from . import datasets, engine, models  # noqa: E402,F401  (they register themselves)

__all__ = ['__version__']
