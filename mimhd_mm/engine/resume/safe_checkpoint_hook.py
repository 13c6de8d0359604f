"""``SafeCheckpointHook``: writes checkpoints atomically and removes an old one only after the new one is written."""
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...registry import HOOKS
from ...weights.checkpoint_files import INTERRUPTED, hash_file
from ...weights.writing import remove_leftovers, write_whole
from .state import has_loaded, is_resumed

ATOMIC = dict(backend='mimhd_mm.atomic')


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` for a run that may be killed at any moment; arguments are the parent's.

    - Local files are written through :class:`~mimhd_mm.weights.checkpoint_files.AtomicBackend`, with a hash beside
      each. If ``backend_args``, ``file_client_args`` or a remote ``out_dir`` is given, that backend is used.
    - With ``max_keep_ckpts`` the parent removes a checkpoint before it writes the next one. Here it is removed
      afterwards, so there are never fewer whole checkpoints than that. This needs space for one more.
    - ``last_checkpoint`` is replaced atomically, after the checkpoint that it names.
    - If a run was killed between a checkpoint and the evaluation that follows it, the resumed run makes that evaluation
      first. ``last_evaluation`` in the work dir holds the iteration of the last finished evaluation.
    - The checkpoint of an interrupted run (``interrupted_iter_N.pth``) is removed after the next regular one.

    Raises:
        UserInputError: If the disk is full.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.saved_iter: int | None = None
        remote = '://' in str(self.out_dir)
        if self.backend_args is None and self.file_client_args is None and not remote:
            self.backend_args = dict(ATOMIC)

    def before_train(self, runner: Runner) -> None:
        """Remove partly written files of a killed run; make an evaluation that it missed."""
        super().before_train(runner)
        if is_main_process():
            for folder in {Path(runner.work_dir), Path(self.out_dir)}:
                names = remove_leftovers(folder) if folder.is_dir() else []
                if names:
                    runner.logger.info(f'Removed partly written files of a killed run: {", ".join(names)}.')
        if not (is_resumed(runner) and has_loaded(runner)):
            if is_main_process():  # left by another run in the same folder
                _evaluation_note(runner).unlink(missing_ok=True)
            return
        self.last_ckpt = str(runner._load_from) if runner._load_from else None
        missing = [evaluation_is_missing(runner)]
        broadcast_object_list(missing)  # only the first process can read the note
        if missing[0]:
            runner.logger.info('The evaluation after this checkpoint did not finish, so it is made now.')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Keep the best checkpoint, then record that the evaluation is finished."""
        super().after_val_epoch(runner, metrics)
        if is_main_process():
            write_whole(_evaluation_note(runner), str(runner.iter).encode())

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self.saved_iter = meta['iter']
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if is_main_process():
            write_whole(Path(runner.work_dir) / 'last_checkpoint', str(self.last_ckpt).encode())
            if outdated is not None:
                self._remove(outdated)
            for path in Path(runner.work_dir).glob(INTERRUPTED.format('*')):
                hash_file(path).unlink(missing_ok=True)
                path.unlink()

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # deepspeed's
            self.file_backend.rmtree(path)


def save_interrupted(runner: Runner, epoch: int, iteration: int) -> str:
    """Write the checkpoint of a run that is about to end; to be called in every process.

    Args:
        runner (Runner): Of the run.
        epoch (int): Complete epochs.
        iteration (int): Complete iterations.

    Returns:
        str: Its name in the work dir.
    """
    name = INTERRUPTED.format(iteration)
    runner.save_checkpoint(runner.work_dir, name, by_epoch=False, meta=dict(epoch=epoch, iter=iteration),
                           backend_args=dict(ATOMIC))
    if is_main_process():
        write_whole(Path(runner.work_dir) / 'last_checkpoint', str(Path(runner.work_dir) / name).encode())
    return name


def _evaluation_note(runner: Runner) -> Path:
    return Path(runner.work_dir) / 'last_evaluation'


def evaluation_is_missing(runner: Runner) -> bool:
    """Whether an evaluation was due at the iteration of the checkpoint and did not finish."""
    loop = runner.train_loop
    if runner.val_loop is None or getattr(loop, 'first_batch', 0):
        return False
    loop._decide_current_val_interval()
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, length = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    if not done or done < loop.val_begin or (done % loop.val_interval and done != length):
        return False
    note = _evaluation_note(runner)
    noted = note.read_text().strip() if note.is_file() else ''
    return not noted.isdigit() or int(noted) < loop.iter
