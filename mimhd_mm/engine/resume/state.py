"""Whether a run continues from a checkpoint; mmengine's Runner keeps this under private names."""
from mmengine.runner import Runner


def is_resumed(runner: Runner) -> bool:
    """Whether the run resumes a checkpoint, or is about to, rather than only starting from its weights."""
    return runner._resume


def has_loaded(runner: Runner) -> bool:
    """Whether a checkpoint has been loaded."""
    return runner._has_loaded
