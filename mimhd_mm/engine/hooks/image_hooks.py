"""``ReconstructionHook`` and ``AttentionHook``: draw the same few images while a model trains."""

import torch
from mmengine.runner import Runner
from torch import Tensor, nn

from ...models import MIMHD, RelationViT
from ...registry import HOOKS
from ...visualization.pictures import Reconstructor, attention_figure, reconstruction_figure
from ..inspection import fixed_images, teacher_reconstruction
from ..loading import list_images
from ..unwrapped import unwrapped
from .drawing_hook import DrawingHook


class FixedImagesHook(DrawingHook):
    """A :class:`DrawingHook` that loads fixed images once.

    Args:
        images (str, optional): A folder. None takes the training data's, without augmentation. Defaults to None.
        num (int): How many, evenly spaced in the list. Defaults to 4.
        interval (int): See :class:`DrawingHook`. Defaults to 10.
        by_epoch (bool): See :class:`DrawingHook`. Defaults to True.

    Raises:
        UserInputError: Before training, if the folder holds no image.
    """

    def __init__(self, images: str | None = None, num: int = 4, interval: int = 10, by_epoch: bool = True) -> None:
        super().__init__(interval, by_epoch)
        self.images = images
        self.num = num
        self.batch: Tensor | None = None  # (num, 3, H, W), on the CPU
        self.told = False

    def prepare(self, runner: Runner) -> None:
        """Check that the folder is not empty."""
        if self.images is not None:
            list_images(self.images)

    def read(self, runner: Runner, student: nn.Module) -> Tensor:
        """The images, (num, 3, H, W), normalised, on the model's device."""
        preprocess = unwrapped(runner).data_preprocessor
        if self.batch is None:
            source = runner.train_dataloader.dataset if self.images is None else self.images
            self.batch = fixed_images(source, student.backbone.img_size, self.num, preprocess).cpu()
        return self.batch.to(preprocess.device)

    def say_nothing_to_draw(self, runner: Runner, reason: str) -> bool:
        """Log once why there is no picture."""
        if not self.told:
            runner.logger.info(f'{type(self).__name__} has nothing to draw: {reason}.')
        self.told = True
        return False


@HOOKS.register_module()
class ReconstructionHook(FixedImagesHook):
    """Draw reconstructions of fixed images: input, both views, merged prediction, the teacher's prediction, error.

    The visualizer gets the image ``reconstruction``. Views are the same every time, so that pictures can be compared.
    The whole MAE of the teacher's file makes the teacher's prediction of the same views, once, at the first picture and
    on the model's device; its networks are then released. Models without a decoder have no picture.

    Args:
        images (str, optional): A folder. None takes the training data's, without augmentation. Defaults to None.
        num (int): How many, evenly spaced in the list. Defaults to 4.
        interval (int): Epochs between two pictures; iterations if not ``by_epoch``. There is always one before
            training and one after it. Defaults to 10 (our choice).
        by_epoch (bool): What ``interval`` counts. Defaults to True.
        teacher (bool): Whether to draw the teacher's prediction. Defaults to True.
        seed (int): Of the views. Defaults to 0.

    Raises:
        UserInputError: Before training, if the folder holds no image.
    """

    def __init__(self, images: str | None = None, num: int = 4, interval: int = 10, by_epoch: bool = True,
                 teacher: bool = True, seed: int = 0) -> None:
        super().__init__(images, num, interval, by_epoch)
        self.teacher = teacher
        self.seed = seed
        self.targets: dict[str, Tensor] = {}  # by student (num, N, P), what the teacher makes of it, on the CPU

    def draw(self, runner: Runner, student: nn.Module, name: str, step: int) -> bool:
        """Draw one picture."""
        if not isinstance(student, MIMHD) or not student.with_neck:
            return self.say_nothing_to_draw(runner, 'the model does not reconstruct')
        images = self.read(runner, student)  # (num, 3, H, W)
        torch.manual_seed(self.seed)
        figure = reconstruction_figure(student, images, self._teacher_of(runner, student, name),
                                       unwrapped(runner).data_preprocessor)
        return self.show(runner, 'reconstruction', name, figure, step)

    def _teacher_of(self, runner: Runner, student: MIMHD, name: str) -> Reconstructor:
        """The teacher's reconstruction as a function, which computes it once; None if it cannot be computed."""
        def remembered(images: Tensor, masks: Tensor) -> Tensor | None:
            if name not in self.targets and self.teacher:
                try:
                    self.targets[name] = teacher_reconstruction(
                        unwrapped(runner).target_generator, student, images, masks).cpu()  # (num, N, P)
                except Exception as error:  # such as a lack of memory; the rest of the picture is drawn without it
                    reason = f'{type(error).__name__}: {error}'.splitlines()[0]
                    runner.logger.warning(f"ReconstructionHook leaves the teacher's reconstruction out ({reason}).")
                    self.teacher = False
            return self.targets[name].to(images.device) if name in self.targets else None
        return remembered


@HOOKS.register_module()
class AttentionHook(FixedImagesHook):
    """Draw the [class] attention of each student head in the tapped block, on fixed images.

    The visualizer gets the image ``attention``. Models whose backbone is not a ``RelationViT`` have no picture.

    Args:
        images (str, optional): A folder. None takes the training data's, without augmentation. Defaults to None.
        num (int): How many, evenly spaced in the list. Defaults to 4.
        interval (int): Epochs between two pictures; iterations if not ``by_epoch``. There is always one before
            training and one after it. Defaults to 10 (our choice).
        by_epoch (bool): What ``interval`` counts. Defaults to True.
        max_heads (int): Number of heads to draw. Defaults to 8 (paper).

    Raises:
        UserInputError: Before training, if the folder holds no image.
    """

    def __init__(self, images: str | None = None, num: int = 4, interval: int = 10, by_epoch: bool = True,
                 max_heads: int = 8) -> None:
        super().__init__(images, num, interval, by_epoch)
        self.max_heads = max_heads

    def draw(self, runner: Runner, student: nn.Module, name: str, step: int) -> bool:
        """Draw one picture."""
        if not isinstance(student.backbone, RelationViT):
            return self.say_nothing_to_draw(runner, f'no RelationViT, but a {type(student.backbone).__name__}')
        figure = attention_figure(student.backbone, self.read(runner, student), unwrapped(runner).data_preprocessor,
                                  self.max_heads)
        return self.show(runner, 'attention', name, figure, step)
