"""``CompileHook``: ``torch.compile`` for the networks of a distillation."""
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from torch import nn

from ...errors import UserInputError
from ...models import CachedTeacher
from ...models.selfsup import MultiStudent, RelationDistiller, students_of
from ...registry import HOOKS
from ..unwrapped import unwrapped


def compile_networks(model: nn.Module, backend: str = 'inductor', mode: str | None = None) -> None:
    """Compile teacher, student and decoder of a ``TinyMIM`` or ``MIMHD``, or of each student of a ``MultiStudent``.

    Methods are replaced, not modules, so parameters, their names and checkpoints do not change. Losses are not
    compiled: they take a small part of a step (docs/performance.md).

    Args:
        model (nn.Module): The algorithm.
        backend (str): Of ``torch.compile``. Defaults to ``'inductor'``.
        mode (str, optional): Of ``torch.compile``. Defaults to None.

    Raises:
        UserInputError: If the model is of another class.
    """
    if not isinstance(model, (RelationDistiller, MultiStudent)):
        raise UserInputError(f'CompileHook compiles a MIMHD, a TinyMIM or a MultiStudent, not a '
                             f"{type(model).__name__}; leave it out, or set compile=True, which is mmengine's own.")
    parts = []
    if not isinstance(model.target_generator, CachedTeacher):  # which has no network
        parts.append((model.target_generator.encoder, 'forward_relation'))
    for student in students_of(model).values():
        parts.append((student.backbone, 'forward_relation'))
        if student.with_neck:
            parts.append((student.neck, 'predict_hidden'))
    for part, method in parts:
        setattr(part, method, torch.compile(getattr(part, method), backend=backend, mode=mode))


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the networks before training, on devices of the given types: ::

        --cfg-options default_hooks.compile.type=CompileHook

    mmengine's own ``compile=True`` wraps ``forward`` of the whole model, which changes with every learning rate and
    clashes with ``paramwise_cfg``. Results agree with those of the uncompiled networks to rounding. On other devices
    the hook does nothing. The first steps take minutes.

    Args:
        devices (Sequence[str]): Types of devices to compile on. Defaults to ``('cuda',)``: on a CPU it gained nothing,
            see docs/performance.md.
        backend (str): Of ``torch.compile``. Defaults to ``'inductor'``.
        mode (str, optional): Of ``torch.compile``. Defaults to None.
    """

    priority = 'LOW'  # after hooks that run the networks before training

    def __init__(self, devices: Sequence[str] = ('cuda', ), backend: str = 'inductor',
                 mode: str | None = None) -> None:
        self.devices = tuple(devices)
        self.settings = dict(backend=backend, mode=mode)

    def before_train(self, runner) -> None:
        """Compile the networks, and log whether that was done."""
        model = unwrapped(runner)
        device = model.data_preprocessor.device.type
        if device in self.devices:
            compile_networks(model, **self.settings)
        runner.logger.info(f'Networks are {"compiled" if device in self.devices else "not compiled"} on {device}.')
