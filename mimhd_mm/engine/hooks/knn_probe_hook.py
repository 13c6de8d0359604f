"""``KNNProbeHook``: k-NN accuracy of the student during pre-training, beside the untrained student and the teacher."""
from collections.abc import Callable
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...evaluation import KNNProbe
from ...models import CachedTeacher, MAETeacher
from ...models.selfsup import students_of
from ...random_states import kept_random_states
from ...registry import HOOKS
from ..loading import build_teacher, build_untrained
from ..preflight import check_image_folder
from ..resume.state import has_loaded
from ..unwrapped import unwrapped


@HOOKS.register_module()
class KNNProbeHook(Hook):
    """Score the backbone by weighted k-NN on frozen features while it pre-trains.

    Before training the untrained student (the lower reference) and the whole teacher (the upper one) are scored. Then
    the student is scored every ``interval`` epochs and after the last one: ::

        k-NN top-1 (k=20): untrained 6.10, epoch 10 11.32, teacher 14.80

    The visualizer gets the same numbers as ``knn/student``, ``knn/untrained`` and ``knn/teacher``, by epoch. Each
    student of a ``MultiStudent`` has its own line and its own numbers, such as ``knn/tiny.student``.

    The hook does not change training: modes and random states are restored. Rank 0 evaluates in float32 while the
    others wait, so a probe has to be shorter than the timeout of the process group (nccl: 10 minutes); limit it with
    ``max_train`` and ``max_test``. The hook works with every mmpretrain pre-training model whose backbone is a
    ``VisionTransformer``. A model without a teacher (``MAE``) has no teacher's number.

    Args:
        train (dict): Config of the labelled dataset whose images vote; see
            :class:`~mimhd_mm.evaluation.KNNProbe` for the requirements on its pipeline.
        test (dict): Config of the labelled dataset that is scored.
        interval (int): Epochs between two probes. Defaults to 10.
        k (int): Neighbours that vote. Defaults to 20 (DINO).
        temperature (float): Temperature of the votes. Defaults to 0.07 (DINO).
        batch_size (int): Images a forward pass. Defaults to 128.
        num_workers (int): Loader processes. Defaults to 2.
        max_train (int, optional): Take this many images, evenly spaced. None takes all. Defaults to None.
        max_test (int, optional): The same for ``test``. Defaults to None.
        feature (str): ``'avg'``, the mean of the patch tokens, or ``'cls'``. Defaults to ``'avg'``.
        teacher (bool): Score the teacher. Defaults to True.
        baseline (bool): Score the untrained student. If a checkpoint was loaded, it is built again from the
            config and the run's seed. Defaults to True.

    Raises:
        UserInputError: Before training, if a folder or an option is wrong.
    """

    def __init__(self, train: dict, test: dict, interval: int = 10, k: int = 20, temperature: float = 0.07,
                 batch_size: int = 128, num_workers: int = 2, max_train: int | None = None,
                 max_test: int | None = None, feature: str = 'avg', teacher: bool = True,
                 baseline: bool = True) -> None:
        self.settings = dict(train=train, test=test, k=k, temperature=temperature, batch_size=batch_size,
                             num_workers=num_workers, max_train=max_train, max_test=max_test, feature=feature)
        self.interval = interval
        self.teacher = teacher
        self.baseline = baseline
        self.scores = {}  # keys are names for the visualizer

    def before_train(self, runner: Runner) -> None:
        """Check the folders; score the untrained student and the teacher."""
        for name in ('train', 'test'):
            check_image_folder(f'{self._config_key(runner)}.{name}', self.settings[name])
        with kept_random_states():
            self.probe = KNNProbe(**self.settings)
        self._on_main_process(self._score_references, runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Score the student."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._on_main_process(self._score_student, runner)

    def _on_main_process(self, score: Callable[[Runner, nn.Module], None], runner: Runner) -> None:
        if is_main_process():
            with kept_random_states():  # building a network draws random weights
                score(runner, unwrapped(runner))
        barrier()

    def _score_references(self, runner: Runner, model: nn.Module) -> None:
        if self.baseline:
            untrained = model
            if has_loaded(runner):
                untrained = build_untrained(runner.cfg, runner.seed).to(model.data_preprocessor.device)
            self.scores.update(self._score(untrained, 'untrained', model))
        generator = getattr(model, 'target_generator', None)
        if self.teacher and isinstance(generator, CachedTeacher) and not Path(generator.checkpoint or '').is_file():
            runner.logger.info('KNNProbeHook leaves the teacher out: a CachedTeacher has no network, and '
                               'model.target_generator.checkpoint is not there.')
        elif self.teacher and isinstance(generator, (CachedTeacher, MAETeacher)):
            teacher = build_teacher(generator.checkpoint, generator.arch, generator.img_size, generator.patch_size)
            teacher = teacher.to(model.data_preprocessor.device)
            self.scores['teacher'] = self.probe.score_backbone(teacher, model.data_preprocessor)
        if self.scores:
            self._report(runner, model, runner.epoch, self.scores)

    def _score_student(self, runner: Runner, model: nn.Module) -> None:
        self._report(runner, model, runner.epoch + 1, {**self.scores, **self._score(model, 'student', model)})

    def _score(self, scored: nn.Module, name: str, model: nn.Module) -> dict[str, float]:
        """Scores of every student, with the preprocessor of ``model``."""
        return {f'{prefix}{name}': self.probe.score_backbone(student.backbone, model.data_preprocessor)
                for prefix, student in students_of(scored).items()}

    def _report(self, runner: Runner, model: nn.Module, epoch: int, scores: dict) -> None:
        for prefix in students_of(model):
            captions = {f'{prefix}untrained': 'untrained', f'{prefix}student': f'epoch {epoch}', 'teacher': 'teacher'}
            line = ', '.join(f'{caption} {scores[name]:.2f}' for name, caption in captions.items() if name in scores)
            of = f', {prefix[:-1]}' if prefix else ''
            runner.logger.info(f'k-NN top-1 (k={self.probe.k}{of}): {line}')
        runner.visualizer.add_scalars({f'knn/{name}': score for name, score in scores.items()}, step=epoch)

    def _config_key(self, runner: Runner) -> str:
        """The key of this hook for ``--cfg-options``."""
        for index, hook in enumerate(runner.cfg.get('custom_hooks') or []):
            if isinstance(hook, dict) and str(hook.get('type')).split('.')[-1] == type(self).__name__:
                return f'custom_hooks.{index}'
        return type(self).__name__
