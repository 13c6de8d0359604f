"""One HTML file about one run or several: read (``runs``, ``tables``), compare (``config_diff``), draw, assemble."""
from .page import write_report

__all__ = ['write_report']
