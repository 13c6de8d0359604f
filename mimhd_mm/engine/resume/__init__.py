"""A run that was cut short goes on as if it had not been: Runner, loops and hooks.

Of the package's folders this is the one that reads private names of mmengine's Runner and loops.
"""
