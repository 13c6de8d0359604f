"""``MIMHD``: the paper's algorithm."""
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from ...weights.mae_files import MAEFile
from ..heads import MAEPixelHead
from ..relation import QKV
from ..views import Views, draw_images, draw_views, merge, spread_views
from .relation_distiller import RelationDistiller, build_networks


class Reconstruction(NamedTuple):
    """What the decoder makes of a batch, in its own units.

    Attributes:
        views (Tensor): (V, B, N, p * p * 3), one prediction a view.
        masks (Tensor): (V, B, N) bool, True = hidden in that view.
        merged (Tensor): (B, N, p * p * 3), each patch from the view that did not see it.
    """
    views: Tensor
    masks: Tensor
    merged: Tensor


@MODELS.register_module()
class MIMHD(RelationDistiller):
    """MIM-HD: head-level relation distillation and dual-view reconstruction.

    Sizes that follow from others are filled in here and need not be repeated in a config: the head counts of
    ``head``; ``student_dims``, ``patch_grid``, ``patch_size`` and ``embed_dim`` of ``neck``; ``patch_size`` of
    ``rec_head``.

    Args:
        backbone (dict): The student, a ``RelationViT``.
        target_generator (dict): The teacher, a ``MAETeacher``.
        head (dict): A ``RelationDistillHead``.
        neck (dict, optional): A ``DualViewMAEDecoder``. None leaves reconstruction out; what then gets no gradient,
            the student beyond the tapped q, k, v, is frozen. Defaults to None.
        rec_head (dict, optional): A ``MAEPixelHead``; its ``norm_pix`` must be as the teacher's decoder was
            trained. Given together with ``neck``. Defaults to None.
        rec_weight (float): alpha of eq. 11. The paper does not give it. 0 leaves reconstruction out.
            Defaults to 1.0 (our choice).
        rec_fraction (float): Share of a batch's images that are reconstructed, at least one, drawn anew at every step;
            L_REC is their mean, whose expectation is the mean over all. Defaults to 1.0 (paper).
        **kwargs: Arguments of ``RelationDistiller`` and ``BaseSelfSupervisor``: ``token_fraction``, ``relation_block``,
            ``data_preprocessor``, ``init_cfg``. Of a part of the tokens the two views split what the student saw; each
            view hides all that it did not see, and is asked for half of it.

    Raises:
        UserInputError: If student and teacher see different grids of patches, a setting contradicts another, or
            ``rec_head`` is of another type.
    """

    def __init__(self, backbone: dict, target_generator: dict, head: dict, neck: dict | None = None,
                 rec_head: dict | None = None, rec_weight: float = 1.0, rec_fraction: float = 1.0, **kwargs) -> None:
        if rec_weight < 0:
            raise UserInputError(f'rec_weight (alpha of eq. 11) is not negative, but {rec_weight!r} was given.')
        if not 0 < rec_fraction <= 1:
            raise UserInputError(f'rec_fraction is a share of the images above 0 and up to 1, not {rec_fraction!r}; '
                                 f'rec_weight=0 leaves reconstruction out.')
        if rec_weight == 0:
            neck = rec_head = None
        if (neck is None) != (rec_head is None):
            raise UserInputError('`neck` and `rec_head` belong together: give both, or neither (or rec_weight=0) to '
                                 'distil without reconstruction.')
        student, teacher = build_networks(backbone, target_generator)
        if neck is not None:
            patch_size = student.patch_embed.projection.kernel_size[0]
            neck = dict(dict(student_dims=student.embed_dims, patch_grid=student.patch_resolution,
                             patch_size=patch_size, embed_dim=teacher.embed_dims), **neck)
            rec_head = dict(dict(patch_size=patch_size), **(rec_head or {}))
        super().__init__(backbone=student, target_generator=teacher, head=head, neck=neck, **kwargs)
        self.rec_head: Any = MODELS.build(rec_head) if rec_head else None  # a MAEPixelHead, as the next lines check
        if self.with_neck and not isinstance(self.rec_head, MAEPixelHead):
            raise UserInputError(f"rec_head is a MAEPixelHead, which takes images of any shape, not a "
                                 f"{type(self.rec_head).__name__}; set model.rec_head.type='MAEPixelHead'.")
        if self.with_neck and self.neck.mask_ratio == 0 and self.token_fraction == 1:
            raise UserInputError('neck.mask_ratio=0 hides nothing of what the student saw, and it sees all patches; '
                                 'set neck.mask_ratio=0.5, or model.token_fraction below 1.')
        self.rec_weight = rec_weight
        self.rec_fraction = rec_fraction

    @property
    def uses_decoder(self) -> bool:
        """Whether the teacher's file has to hold a decoder."""
        return self.with_neck

    def take_from(self, file: MAEFile, block: int) -> None:
        """As the parent; and the decoder."""
        super().take_from(file, block)
        if self.with_neck:
            self.neck.load_decoder(file.decoder, file.path)

    def distil(self, images: Tensor, teacher: QKV, seen: Tensor | None = None) -> dict[str, Tensor]:
        """Eq. 11: ``L = L_R^QK + L_R^VV + alpha * L_REC``.

        Args:
            images (Tensor): (B, 3, H, W), what is reconstructed, and of which the student sees the patches ``seen``.
            teacher (QKV): Of the teacher's tapped block, each (B, M1, 1 + n, d1), without gradient.
            seen (Tensor, optional): (B, n), numbers of the patches; None is all of them, n = N.

        Returns:
            dict: ``loss_qk`` and ``loss_vv`` (whatever ``head.pairs`` says), and ``loss_rec``, times alpha.
        """
        tokens, student = self.tap(images, seen, need_tokens=self.with_neck)  # (B, 1 + n, D), QKV
        losses = self.head.loss(student, teacher)  # eqs. 1-7
        if self.with_neck and tokens is not None:
            tokens, images, seen = self.choose_images(tokens, images, seen)  # (b, 1 + n, D), (b, 3, H, W), (b, n)
            hidden, asked = self.draw_masks(tokens, images, seen)  # each (V, b, N), eq. 8
            merged = self.neck.predict_hidden(tokens, hidden, self.grid_of(images), seen=seen, asked=asked)  # eq. 9
            blind = asked.any(0).to(merged.dtype)  # (b, N), all of them with two views
            losses['loss_rec'] = self.rec_weight * self.rec_head.loss(merged, images, blind)  # eq. 10
        return losses

    def choose_images(self, tokens: Tensor, images: Tensor,
                      seen: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The share ``rec_fraction`` of the batch: the same b images of tokens, images and numbers of seen patches."""
        if self.rec_fraction == 1:
            return tokens, images, seen
        chosen = draw_images(len(images), self.rec_fraction, device=images.device)  # (b,)
        return tokens[chosen], images[chosen], None if seen is None else seen[chosen]

    def draw_masks(self, tokens: Tensor, images: Tensor, seen: Tensor | None = None,
                   generator: torch.Generator | None = None) -> Views:
        """Views of images (B, 3, H, W) of which the student gave tokens (B, 1 + n, D): each (V, B, N) bool."""
        masks = draw_views(len(tokens), tokens.shape[1] - 1, self.neck.mask_ratio, self.neck.num_views,
                           device=tokens.device, generator=generator)  # (V, B, n)
        if seen is None:
            return Views(masks, masks)
        rows, columns = self.grid_of(images)
        return spread_views(masks, seen, rows * columns)

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W)."""
        return images.shape[-2] // self.rec_head.patch_size, images.shape[-1] // self.rec_head.patch_size

    @torch.no_grad()
    def reconstruct(self, images: Tensor, generator: torch.Generator | None = None) -> Reconstruction:
        """Reconstruct normalised images (B, 3, H, W), all of them and in every view, for looking at.

        Raises:
            UserInputError: If the model was built without a decoder.
        """
        if not self.with_neck:
            raise UserInputError('This model was built without a decoder (rec_weight=0 or neck=None), so it cannot '
                                 'reconstruct.')
        tokens, _ = self.backbone.forward_relation(images)  # (B, 1 + N, D)
        masks, _ = self.draw_masks(tokens, images, generator=generator)  # (V, B, N), eq. 8
        views = self.neck(tokens, masks, self.grid_of(images))  # (V, B, N, p p 3), eq. 9
        return Reconstruction(views, masks, merge(views, masks))

