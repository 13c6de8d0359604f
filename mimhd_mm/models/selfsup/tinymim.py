"""``TinyMIM``: distillation of one block's relations, the paper's baseline; ``MIMHD`` builds on it."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

from mmengine.model import BaseModule
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from ..mae_files import MAEFile
from ..relation import QKV

Images = Union[Tensor, Sequence[Tensor]]


@MODELS.register_module()
class TinyMIM(BaseSelfSupervisor):
    """Relations of the student's tapped block imitate those of the teacher's (Table 1's baseline).

    TinyMIM itself is this with ``OneToOneHeadMatcher``, the student's last block rebuilt with the teacher's head count
    (``backbone.relation_heads``) and the [class] token taking part (``head.with_cls_token=True``); its configs say
    so. What the tapped q, k, v do not depend on, that block's output projection and MLP, gets no gradient from
    relations and is frozen here, so that ``find_unused_parameters`` is not needed.

    Head counts of ``head`` follow from the networks and are filled in.

    Args:
        backbone (dict): The student, a ``RelationViT``.
        target_generator (dict): The teacher, a ``MAETeacher``.
        head (dict): A ``RelationDistillHead``.
        **kwargs: Arguments of ``BaseSelfSupervisor``: ``neck``, ``data_preprocessor``, ``init_cfg``.

    Raises:
        UserInputError: If student and teacher see different grids of patches.
    """

    def __init__(self, backbone: dict, target_generator: dict, head: dict, neck: Optional[dict] = None,
                 **kwargs) -> None:
        student, teacher = build_networks(backbone, target_generator)
        if neck is None:
            student.freeze_beyond_relation()
        head = dict(dict(student_heads=student.relation_heads, teacher_heads=teacher.relation_heads), **head)
        super().__init__(backbone=student, neck=neck, head=head, target_generator=teacher, **kwargs)

    def init_weights(self) -> None:
        """Initialise the student, then load the teacher, last, so that nothing writes over it."""
        super().init_weights()
        if self.with_target_generator:  # that of several students is loaded by MultiStudent
            self.take_from(self.target_generator.load(need_decoder=self.uses_decoder), self.target_generator.block)

    @property
    def uses_decoder(self) -> bool:
        """Whether the teacher's file has to hold a decoder."""
        return False

    def take_from(self, file: MAEFile, block: int) -> None:
        """What a student needs of its teacher's file: see that what its matchers know of a teacher is about this one.

        Args:
            file (MAEFile): As loaded.
            block (int): The teacher's tapped block, counted from 1.

        Raises:
            UserInputError: If an importance of heads was measured on another teacher.
        """
        for matcher in self.head.matchers.values():
            matcher.check_teacher(file.sha256, block)

    def forward(self, inputs: Images, data_samples: Optional[List[DataSample]] = None, mode: str = 'tensor',
                teacher: Optional[QKV] = None):
        """As the parent's; with q, k, v of a ``teacher`` that is run elsewhere, ``'loss'`` is :meth:`distil`."""
        if mode == 'loss' and teacher is not None:
            return self.distil(inputs, teacher)
        return super().forward(inputs, data_samples, mode)

    def extract_feat(self, inputs: Tensor):
        """The student's features, as its ``VisionTransformer.forward`` gives them."""
        return self.backbone(inputs)

    def loss(self, inputs: Images, data_samples: Optional[List[DataSample]] = None, **kwargs) -> Dict[str, Tensor]:
        """Show the images to the teacher, and let the student imitate it: :meth:`distil`.

        Args:
            inputs (Tensor | Sequence[Tensor]): (B, 3, H, W), normalised images; or two of them, the student's view
                and the teacher's, which differ in colour only (``StudentColorJitter``).
            data_samples (list, optional): Not used.

        Returns:
            dict: Losses that the runner adds up.
        """
        images, teacher_images = student_and_teacher_views(inputs)  # each (B, 3, H, W)
        teacher = self.target_generator(teacher_images)  # each (B, M1, 1 + N, d1), no gradient
        return self.distil(images, teacher)

    def distil(self, images: Tensor, teacher: QKV) -> Dict[str, Tensor]:
        """Eqs. 1 and 7: ``L = L_R^QK + L_R^VV``.

        Args:
            images (Tensor): (B, 3, H, W), what the student sees.
            teacher (QKV): Of the teacher's tapped block, each (B, M1, 1 + N, d1), without gradient.

        Returns:
            dict: ``loss_qk`` and ``loss_vv`` (whatever ``head.pairs`` says).
        """
        _, student = self.backbone.forward_relation(images, need_tokens=False)  # each (B, M2, 1 + N, d2)
        return self.head.loss(student, teacher)


def student_and_teacher_views(inputs: Images) -> Tuple[Tensor, Tensor]:
    """What each network is shown, (B, 3, H, W) twice: the same images, unless the pipeline made two views.

    Raises:
        UserInputError: If there is another number of views.
    """
    if isinstance(inputs, Tensor):
        return inputs, inputs
    if len(inputs) != 2:
        raise UserInputError(f'The pipeline made {len(inputs)} views of an image; give one, or the student\'s and the '
                             f'teacher\'s, as StudentColorJitter does.')
    return tuple(inputs)


def build_networks(backbone: Union[dict, BaseModule],
                   target_generator: Union[dict, BaseModule]) -> Tuple[BaseModule, BaseModule]:
    """Student and teacher from their configs; what is built already stays.

    Raises:
        UserInputError: If the two see different grids of patches.
    """
    student, teacher = (part if isinstance(part, BaseModule) else MODELS.build(part)
                        for part in (backbone, target_generator))
    grids = student.patch_resolution, teacher.encoder.patch_resolution
    if tuple(grids[0]) != tuple(grids[1]):
        ours, theirs = (' x '.join(map(str, grid)) for grid in grids)
        raise UserInputError(f'The student has {ours} patches and the teacher {theirs}; choose img_size and patch_size '
                             f'of backbone and target_generator so that both see the same grid.')
    return student, teacher
