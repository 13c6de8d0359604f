"""Exact resume: Runner, loops and hooks that continue an interrupted run as if it had not been interrupted.

This is the only folder of the package that reads private names of mmengine's Runner and loops.
"""
