"""Whether a run goes on from a checkpoint, which mmengine's Runner tells under private names only."""
from mmengine.runner import Runner


def is_resumed(runner: Runner) -> bool:
    """Whether the run goes on from a checkpoint, or is about to, instead of only starting from its weights."""
    return runner._resume


def has_loaded(runner: Runner) -> bool:
    """Whether a checkpoint has been loaded."""
    return runner._has_loaded
