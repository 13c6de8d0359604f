"""``ResumableRunner``: mmengine's Runner, resuming at any iteration from the newest whole checkpoint."""

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from ...datasets.seeded_samples import outlive_sigterm
from ...errors import UserInputError
from ...registry import RUNNERS
from ...weights.checkpoint_files import check_checkpoint, newest_checkpoint
from .loops import ResumableEpochBasedTrainLoop, ResumableIterBasedTrainLoop
from .safe_loading import safe_loading

#: loop of mmengine -> its replacement
RESUMABLE = {EpochBasedTrainLoop: ResumableEpochBasedTrainLoop, IterBasedTrainLoop: ResumableIterBasedTrainLoop}


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's Runner for ``runner_type='mimhd_mm.ResumableRunner'``; arguments are the parent's.

    - mmengine's two training loops are replaced by those of :mod:`mimhd_mm.engine.resume.loops`, so configs keep the
      names of the loops; loops of other kinds stay as they are.
    - ``resume=True`` without ``load_from`` takes the newest whole checkpoint of the work dir and names the damaged
      ones that it skipped. Without a checkpoint the run starts at the beginning, from the config's ``start_from`` if
      set. A damaged ``load_from`` is refused.
    - Before a checkpoint is written, the hooks' ``gather_states(runner)`` is called in every process; mmengine's
      ``before_save_checkpoint`` is called in the first one only.
    - Whatever is loaded through mmengine while it trains, validates, tests or loads is loaded under
      :func:`~mimhd_mm.engine.resume.safe_loading.safe_loading`.
    """

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args, **kwargs) -> DataLoader:
        """Build a loader as the parent does; its workers keep running for a while after SIGTERM."""
        built = Runner.build_dataloader(dataloader, *args, **kwargs)
        if built is not dataloader:
            outlive_sigterm(built)
        return built

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; mmengine's loops are replaced by resumable ones."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if 'type' not in loop:
                loop['type'] = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
            kind = loop['type']
            kind = MMENGINE_LOOPS.get(kind) if isinstance(kind, str) else kind
            loop['type'] = RESUMABLE.get(kind, loop['type'])
        return super().build_train_loop(loop)

    @safe_loading()
    def train(self) -> nn.Module:
        """As the parent; nothing in a file that ``init_cfg`` or a checkpoint names is executed."""
        return super().train()

    @safe_loading()
    def val(self) -> dict:
        """As the parent; nothing in a checkpoint is executed."""
        return super().val()

    @safe_loading()
    def test(self) -> dict:
        """As the parent; nothing in a checkpoint is executed."""
        return super().test()

    @safe_loading()
    def load_checkpoint(self, *args, **kwargs) -> dict:
        """As the parent; nothing in the checkpoint is executed."""
        return super().load_checkpoint(*args, **kwargs)

    def load_or_resume(self) -> None:
        """Load or resume; a resumed run takes the checkpoint of :meth:`choose_checkpoint`."""
        if self._resume and not self._has_loaded:
            self._load_from = self.choose_checkpoint()
            if self._load_from is None:
                self.logger.warning(f'No checkpoint in {self.work_dir} to resume from: training starts at iteration 0.')
                self._resume = False
                self._load_from = self.cfg.get('start_from')
        super().load_or_resume()

    def choose_checkpoint(self) -> str | None:
        """Find the checkpoint to resume from in the first process and broadcast it.

        Raises:
            UserInputError: In every process, if ``load_from`` is missing or damaged.
        """
        answer = [None, None]
        if is_main_process():
            try:
                if self._load_from is not None:
                    check_checkpoint(self._load_from)
                    answer[0] = self._load_from
                else:
                    found = newest_checkpoint(self.work_dir)
                    answer[0] = found and str(found)
            except UserInputError as error:
                answer[1] = str(error)
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise UserInputError(answer[1])
        return answer[0]

    def resume(self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True,
               map_location: str = 'cpu') -> None:
        """Resume as the parent does, but load to the CPU: a checkpoint holds the states of all processes."""
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

    def save_checkpoint(self, *args, **kwargs) -> None:
        """Write a checkpoint. Call it in every process."""
        self.call_hook('gather_states')
        super().save_checkpoint(*args, **kwargs)
