"""``HeadWeightHook``: logs figures of the head weights."""
from mmengine.hooks import Hook

from ...models.selfsup import students_of
from ...registry import HOOKS
from ..unwrapped import unwrapped


@HOOKS.register_module()
class HeadWeightHook(Hook):
    """Log ``head_entropy``, ``head_coverage``, ``head_spread``, ``head_distinct`` and ``head_blur`` of every pair.

    Each student of a ``MultiStudent`` has its own figures, such as ``tiny.head_entropy_qk``. They are read from the
    device only when they are logged, so other steps are not slowed down.

    Args:
        interval (int): Iterations between readings; choose that of ``LoggerHook``. Defaults to 100.
    """

    priority = 'NORMAL'  # before LoggerHook, which reads what is written here

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Write the figures of the last batch to the message hub, which the logger reads."""
        if not (self.every_n_inner_iters(batch_idx, self.interval) or self.end_of_epoch(
                runner.train_dataloader, batch_idx)):
            return
        model = unwrapped(runner)
        for prefix, student in students_of(model).items():
            for name, value in student.head.diagnostics().items():
                runner.message_hub.update_scalar(f'train/{prefix}{name}', value.item())
