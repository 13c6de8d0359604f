"""``DMAE``: a small masked autoencoder that also imitates a large one's features, a peer of the paper's tables.

"Masked Autoencoders Enable Efficient Knowledge Distillers" (CVPR 2023). What its public code has beyond that is left
out: reconstruction of the teacher's prediction, more than one pair of blocks, and projections with hidden layers.
"""

from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserInputError
from ...registry import MODELS
from .relation_distiller import build_networks


@MODELS.register_module()
class DMAE(BaseSelfSupervisor):
    """Masked reconstruction, and features at 3/4 of the depth that follow the teacher's.

    Both networks see the same visible patches. Sizes that follow from others are filled in here and need not be
    repeated in a config: ``num_patches``, ``patch_size`` and ``embed_dim`` of ``neck``; ``patch_size`` of ``head``;
    the widths of the projection.

    Args:
        backbone (dict): The student, a ``TappedMAEViT``.
        target_generator (dict): The teacher, a ``MaskedMAETeacher``.
        neck (dict): The student's own decoder, a ``MAEPretrainDecoder``; it learns.
        head (dict): A ``MAEPretrainHead``; its ``norm_pix`` is free, since the teacher's decoder is not used.
        feat_weight (float): Weight of the features' loss. Defaults to 1.0 (the public code adds the two up).
        **kwargs: Arguments of ``BaseSelfSupervisor``: ``data_preprocessor``, ``init_cfg``.

    Raises:
        UserInputError: If student and teacher see different grids of patches, the grid is not square, or the weight
            is not positive.
    """

    def __init__(self, backbone: dict, target_generator: dict, neck: dict, head: dict, feat_weight: float = 1.0,
                 **kwargs) -> None:
        if not feat_weight > 0:
            raise UserInputError(f'feat_weight is positive, but {feat_weight!r} was given; without the teacher the '
                                 f'algorithm is MAE.')
        student, teacher = build_networks(backbone, target_generator)
        rows, columns = student.patch_resolution
        if rows != columns:
            raise UserInputError(f"DMAE takes square images, as mmpretrain's MAE, but backbone.img_size gives "
                                 f'{rows} x {columns} patches; make it square.')
        patch_size = student.patch_embed.projection.kernel_size[0]
        neck = dict(dict(num_patches=rows * columns, patch_size=patch_size, embed_dim=student.embed_dims), **neck)
        head = dict(dict(patch_size=patch_size), **head)
        super().__init__(backbone=student, neck=neck, head=head, target_generator=teacher, **kwargs)
        self.projection = nn.Linear(student.embed_dims, teacher.encoder.embed_dims)
        self.feat_weight = feat_weight

    def init_weights(self) -> None:
        """Initialise what learns, then load the teacher, last, so that nothing writes over it."""
        super().init_weights()
        self.target_generator.load()

    def extract_feat(self, inputs: Tensor):
        """The student's features of whole images, as ``VisionTransformer.forward`` gives them."""
        return self.backbone(inputs, mask=None)

    def loss(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> dict[str, Tensor]:
        """Reconstruct what is masked, and imitate the teacher on what is visible (n of N patches).

        Args:
            inputs (Tensor): (B, 3, H, W), normalised images.
            data_samples (list, optional): Not used.

        Returns:
            dict: ``loss_rec`` and ``loss_feat``, the latter times its weight; the runner adds them up.

        Raises:
            UserInputError: If there are several views of an image.
        """
        if not isinstance(inputs, Tensor):
            raise UserInputError(f'DMAE shows both networks the same image, but the pipeline made {len(inputs)} views; '
                                 f'take StudentColorJitter and its kin out of it.')
        student = self.backbone.forward_feature(inputs)  # latent and feature (B, 1 + n, D2), mask (B, N)
        target = self.target_generator(inputs, student.ids_keep)  # (B, 1 + n, D1), no gradient
        predicted = self.neck(student.latent, student.ids_restore)  # (B, N, p p 3)
        return dict(
            loss_rec=self.head.loss(predicted, inputs, student.mask),
            loss_feat=self.feat_weight * self.feature_distance(student.feature, target))

    def feature_distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean absolute difference of the projected student's tokens and the teacher's, all of them of length 1.

        Args:
            student (Tensor): (B, 1 + n, D2), [class] takes part.
            teacher (Tensor): (B, 1 + n, D1).

        Returns:
            Tensor: A scalar, mean over images, tokens and channels, in float32.
        """
        student = F.normalize(self.projection(student).float(), dim=-1)  # (B, 1 + n, D1)
        return F.l1_loss(student, F.normalize(teacher.float(), dim=-1))
