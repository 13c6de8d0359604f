"""``RelationDistiller``: what TinyMIM and MIM-HD share, distillation of the relations of one block."""
from collections.abc import Sequence

from mmengine.model import BaseModule
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from ...weights.mae_files import MAEFile
from ..relation import QKV
from ..views import check_fraction, draw_seen
from .relation_block import RelationBlock

Images = Tensor | Sequence[Tensor]


class RelationDistiller(BaseSelfSupervisor):
    """Relations of a block of the student imitate those of a block of the teacher.

    What the tapped q, k, v do not depend on, that block's output projection and MLP, gets no gradient from relations.
    It is frozen where nothing else reaches it, so that ``find_unused_parameters`` is not needed.

    Head counts of ``head`` follow from the networks and are filled in.

    Args:
        backbone (dict): The student, a ``RelationViT``.
        target_generator (dict): The teacher, a ``MAETeacher`` or a ``CachedTeacher``.
        head (dict): A ``RelationDistillHead``.
        token_fraction (float): Share of the patches that the student sees, drawn anew for each image at every step; the
            relations are those among [class] and these patches. The teacher sees the same patches, or all of them, see
            its ``token_fraction``. Downstream the student sees all. Defaults to 1.0, all patches (paper).
        relation_block (dict, optional): A ``RelationBlock``, put after the student's last block while it is distilled:
            its q, k, v are compared, so that the student's last block learns as a whole and keeps its own head count.
            Checkpoints of a run hold it, exported students do not. None taps ``backbone.relation_block``. Defaults to
            None (paper).
        **kwargs: Arguments of ``BaseSelfSupervisor``: ``neck``, ``data_preprocessor``, ``init_cfg``.

    Raises:
        UserInputError: If student and teacher see different grids of patches, or ``token_fraction`` is out of range.
    """

    def __init__(self, backbone: dict, target_generator: dict, head: dict, neck: dict | None = None,
                 token_fraction: float = 1.0, relation_block: dict | None = None, **kwargs) -> None:
        check_fraction(token_fraction)
        student, teacher = build_networks(backbone, target_generator)
        extra: RelationBlock | None = None
        if relation_block is not None:
            extra = MODELS.build(dict(
                dict(type='RelationBlock', in_dims=student.embed_dims, num_heads=teacher.relation_heads),
                **relation_block))
        elif neck is None:
            student.freeze_beyond_relation()
        student_heads, student_dims = (extra.num_heads, extra.embed_dims) if extra else (
            student.relation_heads, student.embed_dims)
        head = dict(dict(student_heads=student_heads, teacher_heads=teacher.relation_heads, student_dims=student_dims,
                         teacher_dims=teacher.embed_dims), **head)
        super().__init__(backbone=student, neck=neck, head=head, target_generator=teacher, **kwargs)
        self.relation_block = extra
        self.token_fraction = token_fraction

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
        """Take what the student needs from its teacher's file, and check that matchers made for a teacher fit this one.

        Args:
            file (MAEFile): As loaded.
            block (int): The teacher's tapped block, counted from 1.

        Raises:
            UserInputError: If an importance of heads was measured on another teacher.
        """
        for matcher in self.head.matchers.values():
            matcher.check_teacher(file.sha256, block)

    def forward(self, inputs: Images, data_samples: list[DataSample] | None = None, mode: str = 'tensor',
                teacher: QKV | None = None, seen: Tensor | None = None):
        """As the parent's; with q, k, v of a ``teacher`` that is run elsewhere, ``'loss'`` is :meth:`distil`."""
        if mode == 'loss' and teacher is not None:
            return self.distil(student_and_teacher_views(inputs)[0], teacher, seen)
        return super().forward(inputs, data_samples, mode)

    def extract_feat(self, inputs: Tensor):
        """The student's features, as its ``VisionTransformer.forward`` gives them."""
        return self.backbone(inputs)

    def loss(self, inputs: Images, data_samples: list[DataSample] | None = None, **kwargs) -> dict[str, Tensor]:
        """Show the images to the teacher, and let the student imitate it: :meth:`distil`.

        Args:
            inputs (Tensor | Sequence[Tensor]): (B, 3, H, W), normalised images; or two of them, the student's view
                and the teacher's, which differ in colour only (``StudentColorJitter``).
            data_samples (list, optional): Where the images come from; a ``CachedTeacher`` needs it.

        Returns:
            dict: Losses that the runner adds up.
        """
        images, teacher_images = student_and_teacher_views(inputs)  # each (B, 3, H, W)
        seen = choose_tokens(self, images, data_samples)  # (B, n), or None for all
        teacher = self.target_generator(teacher_images, seen, data_samples)  # each (B, M1, 1 + n, d1), no gradient
        return self.distil(images, teacher, seen)

    def distil(self, images: Tensor, teacher: QKV, seen: Tensor | None = None) -> dict[str, Tensor]:
        """Eqs. 1 and 7: ``L = L_R^QK + L_R^VV``.

        Args:
            images (Tensor): (B, 3, H, W), of which the student sees the patches ``seen``.
            teacher (QKV): Of the teacher's tapped block, each (B, M1, 1 + n, d1), without gradient.
            seen (Tensor, optional): (B, n), numbers of the patches; None is all of them, n = N.

        Returns:
            dict: ``loss_qk`` and ``loss_vv`` (whatever ``head.pairs`` says).
        """
        _, student = self.tap(images, seen, need_tokens=False)  # each (B, M2, 1 + n, d2)
        return self.head.loss(student, teacher)

    def tap(self, images: Tensor, seen: Tensor | None, *, need_tokens: bool) -> tuple[Tensor | None, QKV]:
        """The student's tokens (B, 1 + n, D), if needed, and the q, k, v to compare, each (B, M2, 1 + n, d2)."""
        if self.relation_block is None:
            return self.backbone.forward_relation(images, need_tokens=need_tokens, seen=seen)
        tokens, _ = self.backbone.forward_relation(images, seen=seen)  # (B, 1 + n, D)
        return tokens, self.relation_block(tokens)


def choose_tokens(model: BaseModule, images: Tensor, data_samples: list[DataSample] | None) -> Tensor | None:
    """The patches of images (B, 3, H, W) that the student sees: (B, n) numbers, or None for all of them.

    Args:
        model (BaseModule): With ``token_fraction`` and a teacher, ``target_generator``.
        images (Tensor): (B, 3, H, W).
        data_samples (list, optional): Passed to a teacher that has chosen the patches already, a ``CachedTeacher``.
    """
    teacher = model.target_generator
    if (chosen := teacher.chosen_tokens(data_samples, model.token_fraction)) is not None:
        return chosen
    rows, columns = (side // teacher.patch_size for side in images.shape[-2:])
    return draw_seen(len(images), rows * columns, model.token_fraction, device=images.device)


def student_and_teacher_views(inputs: Images) -> tuple[Tensor, Tensor]:
    """What each network is shown, (B, 3, H, W) twice: the same images, unless the pipeline made two views.

    Raises:
        UserInputError: If there is another number of views.
    """
    if isinstance(inputs, Tensor):
        return inputs, inputs
    if len(inputs) != 2:
        raise UserInputError(f"The pipeline made {len(inputs)} views of an image; give one, or the student's and the "
                             f"teacher's, as StudentColorJitter does.")
    return inputs[0], inputs[1]


def build_networks(backbone: dict | BaseModule,
                   target_generator: dict | BaseModule) -> tuple[BaseModule, BaseModule]:
    """Student and teacher from their configs; what is built already stays.

    Raises:
        UserInputError: If the two see different grids of patches.
    """
    student, teacher = (part if isinstance(part, BaseModule) else MODELS.build(part)
                        for part in (backbone, target_generator))
    grids = student.patch_resolution, teacher.patch_resolution
    if tuple(grids[0]) != tuple(grids[1]):
        ours, theirs = (' x '.join(map(str, grid)) for grid in grids)
        raise UserInputError(f'The student has {ours} patches and the teacher {theirs}; choose img_size and patch_size '
                             f'of backbone and target_generator so that both see the same grid.')
    return student, teacher
