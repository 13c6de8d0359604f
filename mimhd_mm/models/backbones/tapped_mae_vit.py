"""``TappedMAEViT``: MAE's encoder of visible patches that also returns the tokens after one of its blocks."""
from typing import NamedTuple

import torch
from mmpretrain.models import MAEViT
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from .relation_vit import RelationViT


class MaskedFeatures(NamedTuple):
    """What a masked forward pass gives; n of N patches are visible.

    Attributes:
        latent (Tensor): (B, 1 + n, D), tokens of the last block after the final norm, [class] first.
        feature (Tensor): (B, 1 + n, D), tokens of the tapped block, [class] first.
        mask (Tensor): (B, N), 0 = visible, 1 = masked.
        ids_restore (Tensor): (B, N), where each patch went when visible ones were put first.
    """
    latent: Tensor
    feature: Tensor
    mask: Tensor
    ids_restore: Tensor

    @property
    def ids_keep(self) -> Tensor:
        """(B, n), numbers of the visible patches in the order of the tokens."""
        return self.ids_restore.argsort(dim=1)[:, :self.feature.shape[1] - 1]


@MODELS.register_module()
class TappedMAEViT(MAEViT):
    """mmpretrain's ``MAEViT`` with one block tapped for feature distillation.

    State-dict keys, shapes and ``forward`` are those of ``MAEViT``; :meth:`forward_feature` is new.

    Args:
        arch (str | dict): As in ``MAEViT``. Defaults to ``'base'``.
        feature_block (int, optional): The tapped block, counted from 1. None is 3/4 of the depth, 9 of ViT-B's 12
            (DMAE). Defaults to None.
        stop_at_feature (bool): Build nothing beyond the tapped block, not the final norm either, for a teacher.
            Defaults to False.
        **kwargs: Further arguments of ``MAEViT``, e.g. ``img_size``, ``patch_size``, ``mask_ratio``.

    Raises:
        UserInputError: If the architecture is unknown or the block beyond its depth.
    """

    def __init__(self, arch: str | dict = 'base', *, feature_block: int | None = None,
                 stop_at_feature: bool = False, **kwargs) -> None:
        settings = RelationViT.settings_of(arch)
        depth = settings['num_layers']
        block = max(1, depth * 3 // 4) if feature_block is None else feature_block
        if not isinstance(block, int) or not 1 <= block <= depth:
            raise UserInputError(f'Block {block!r} was asked for, but the network has blocks 1 to {depth} '
                                 f'(counted from 1).')
        if stop_at_feature:
            settings['num_layers'] = block
            kwargs['final_norm'] = False
        super().__init__(arch=settings, **kwargs)
        self.feature_block = block
        self.stop_at_feature = stop_at_feature

    def init_weights(self) -> None:
        """As the parent, but weights that ``init_cfg=dict(type='Pretrained', ...)`` loads stay as they are."""
        if self.stop_at_feature:  # a truncated network has no start of its own: its owner loads it
            return
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            super(MAEViT, self).init_weights()
        else:
            super().init_weights()

    def forward_feature(self, images: Tensor) -> MaskedFeatures:
        """Mask images (B, 3, H, W) at random, as ``forward`` does, and run on what is visible."""
        x = self.embed_patches(images)  # (B, N, D)
        x, mask, ids_restore = self.random_masking(x, self.mask_ratio)  # (B, n, D), (B, N), (B, N)
        x, feature = self.run_blocks(x)  # each (B, 1 + n, D)
        return MaskedFeatures(self.ln1(x), feature, mask, ids_restore)

    def forward_visible(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """The tapped block's tokens for given patches.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            ids_keep (Tensor): (B, n), numbers of the visible patches.

        Returns:
            Tensor: (B, 1 + n, D), [class] first, then in the order of ``ids_keep``.
        """
        x = self.embed_patches(images)  # (B, N, D)
        x = x.gather(1, ids_keep[..., None].expand(-1, -1, x.shape[-1]))  # (B, n, D)
        return self.run_blocks(x)[1]  # (B, 1 + n, D)

    def embed_patches(self, images: Tensor) -> Tensor:
        """Patches with their positions, without [class]: images (B, 3, H, W) to tokens (B, N, D).

        Raises:
            UserInputError: If the images are not of the configured size.
        """
        if tuple(images.shape[-2:]) != tuple(self.img_size):
            raise UserInputError(f'Images of {images.shape[-2]} x {images.shape[-1]} px arrived, but img_size is '
                                 f'{self.img_size[0]} x {self.img_size[1]}; set the crop of the pipeline and img_size '
                                 f'to one size.')
        return self.patch_embed(images)[0] + self.pos_embed[:, 1:]

    def run_blocks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Visible patches (B, n, D) to tokens of the last block and of the tapped one, (B, 1 + n, D) twice."""
        cls_token = self.cls_token + self.pos_embed[:, :1]  # (1, 1, D)
        x = torch.cat([cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + n, D)
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)  # (B, 1 + n, D)
            if number == self.feature_block:
                feature = x
        return x, feature
