"""``NonFiniteHook``: reports skipped steps and stops the run if there are too many in a row."""
import json
import math
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from ...errors import UserInputError
from ...registry import HOOKS
from ..optimizers import SkipNonFinite

SHOWN = 4  # images per process that the log names


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Report the steps that a guarded optimiser wrapper skipped, and stop the run after several in a row.

    Each skipped step gives one warning in the log, with the losses and the first images of the non-finite batches (of
    all accumulated batches, if only gradients were not finite), and one line of JSON with every image in
    ``non_finite_steps.jsonl`` of the work dir. ``skipped_steps`` in the message hub, which checkpoints hold, counts
    them. When the run stops, the weights from before those steps are saved as ``before_non_finite_iter_<n>.pth``.

    Args:
        max_in_a_row (int): Number of consecutive skipped steps at which the run stops. Defaults to 10 (our choice).

    Raises:
        UserInputError: If ``max_in_a_row`` is below 1; in training, when so many steps were skipped.
    """

    priority = 'NORMAL'

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise UserInputError(f'NonFiniteHook stops after max_in_a_row steps, 1 or more, not {max_in_a_row!r}; '
                                 f'default_hooks.non_finite=None never stops.')
        self.max_in_a_row = max_in_a_row
        self.batches: list[dict] = []

    def before_train(self, runner: Runner) -> None:
        """Warn if the optimiser wrapper does not skip non-finite steps."""
        if not guards_of(runner):
            runner.logger.warning(
                f'Steps that are not finite are not skipped by {type(runner.optim_wrapper).__name__}; '
                f'optim_wrapper.type=GuardedOptimWrapper and GuardedAmpOptimWrapper do that.')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Keep the batch until its step; report a skipped step."""
        guards = guards_of(runner)
        if not guards:
            return
        self.batches.append(dict(images=images_of(data_batch), losses=outputs or {}))
        if not any(guard.should_update() for guard in guards):
            return
        batches, self.batches = self.batches, []
        in_a_row = max(guard.skipped_in_a_row for guard in guards)
        if any(guard.just_skipped for guard in guards):
            self.report(runner, batches, in_a_row)
        if in_a_row >= self.max_in_a_row:
            self.stop(runner, in_a_row)

    def report(self, runner: Runner, batches: list[dict], in_a_row: int) -> None:
        """Record one skipped step; call it in every process."""
        for batch in batches:
            batch['losses'] = {name: float(value) for name, value in batch['losses'].items()}
        guilty = [batch for batch in batches if not all(map(math.isfinite, batch['losses'].values()))]
        found = all_gather_object(guilty)  # one list per process
        found = found if any(found) else all_gather_object(batches)
        total = runner.message_hub.get_info('skipped_steps', 0) + 1
        runner.message_hub.update_info('skipped_steps', total)
        if not is_main_process():
            return
        file = Path(runner.work_dir) / 'non_finite_steps.jsonl'
        record = dict(iteration=runner.iter + 1, skipped_steps=total, batches=[
            dict(rank=rank, images=batch['images'],
                 losses={name: f'{value:.6g}' for name, value in batch['losses'].items()})  # JSON knows no NaN
            for rank, own in enumerate(found) for batch in own])
        with open(file, 'a') as stream:
            stream.write(json.dumps(record) + '\n')
        runner.logger.warning(
            f'Step skipped at iteration {runner.iter + 1}: the loss or a gradient is not finite ({total} in all, '
            f'{in_a_row} in a row, the run stops at {self.max_in_a_row}). '
            + ' '.join(map(describe, record['batches'])) + f' All images are named in {str(file)!r}.')

    def stop(self, runner: Runner, number: int) -> None:
        """Save the weights from before the skipped steps, and end the run in every process.

        Raises:
            UserInputError: Always.
        """
        name = f'before_non_finite_iter_{runner.iter + 1}.pth'
        states = runner.model.state_dict().values()
        finite = torch.tensor(int(all(bool(value.isfinite().all()) for value in states if value.is_floating_point())))
        all_reduce(finite, 'min')  # BatchNorm's statistics differ between processes
        if finite:
            hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
            runner.save_checkpoint(runner.work_dir, name, by_epoch=False, backend_args=getattr(
                hook, 'backend_args', None))
            kept = f'the weights from before them are in {str(Path(runner.work_dir) / name)!r}'
        else:
            kept = 'the weights are not finite either, so none were saved'
        raise UserInputError(
            f'{number} steps in a row had a loss or gradients that are not finite, and {kept}; look at '
            f'non_finite_steps.jsonl beside them, then continue from a checkpoint with a lower learning rate, in '
            f'bfloat16 or float32, or without the images that are named there.')


def guards_of(runner: Runner) -> list[SkipNonFinite]:
    """The guarded optimiser wrappers of a run; with several students there is one for each."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [one for one in wrappers if isinstance(one, SkipNonFinite)]


def images_of(data_batch: dict | None) -> list[str]:
    """The paths of a batch's images, where its samples hold them."""
    samples = (data_batch or {}).get('data_samples') if isinstance(data_batch, dict) else None
    return [str(sample.get('img_path')) for sample in samples or [] if sample.get('img_path') is not None]


def describe(batch: dict) -> str:
    """Describe a batch of a record in words."""
    losses = ', '.join(f'{name} {value}' for name, value in batch['losses'].items())
    images = ', '.join(map(repr, batch['images'][:SHOWN]))
    more = f' and {len(batch["images"]) - SHOWN} more' if len(batch['images']) > SHOWN else ''
    return f'Process {batch["rank"]}: {losses}; images {images or "unknown"}{more}.'
