"""``TeacherFileHook``: makes sure that a resumed run uses the same teacher."""
import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log

from ...errors import UserInputError
from ...registry import HOOKS
from ..resume.state import is_resumed
from ..unwrapped import unwrapped


@HOOKS.register_module()
class TeacherFileHook(Hook):
    """Write the teacher's path and hash into each checkpoint; compare them when a run is resumed.

    Checkpoints do not hold the teacher; it is read from its own file at every start.

    Raises:
        UserInputError: On ``--resume``, if the hash of the teacher's file has changed.
    """

    priority = 'NORMAL'

    @staticmethod
    def _teacher(runner):
        model = unwrapped(runner)
        return model.target_generator

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add ``meta['teacher'] = dict(path=..., sha256=...)``."""
        teacher = self._teacher(runner)
        checkpoint['meta']['teacher'] = dict(path=str(teacher.checkpoint), sha256=teacher.sha256)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse another teacher when resuming; warn when a checkpoint is only loaded."""
        saved = checkpoint.get('meta', {}).get('teacher')
        teacher = self._teacher(runner)
        if saved is None or saved['sha256'] == teacher.sha256:
            return
        message = (f'this checkpoint was taught by {saved["path"]!r} (sha256 {saved["sha256"][:12]}), but '
                   f'{str(teacher.checkpoint)!r} has sha256 {str(teacher.sha256)[:12]}')
        if is_resumed(runner):
            raise UserInputError(f'Cannot resume: {message}; set model.target_generator.checkpoint to the same '
                                 f'file, or start a new run with load_from.')
        print_log(f'Loaded for a new start: {message}.', logger='current', level=logging.WARNING)
