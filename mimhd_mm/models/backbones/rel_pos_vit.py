"""``RelPosViT``: a vision transformer with a relative position bias that starts at zero.

The published UperNet results of MAE, TinyMIM and their kin add such a bias to every block when they fine-tune on
segmentation, on top of the absolute position embedding of pre-training. They also start a learnable layer scale at 1;
here that is ``layer_scale_init_value=1.0`` of the parent and off by default, since it is a second change to the
network, and a factor at 1 on a learnable projection adds no function it could not already learn.
"""
from typing import Any

import torch
from einops import rearrange
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention, resize_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import MODELS
from ..attention import project_qkv


class RelPosAttention(MultiheadAttention):
    """mmpretrain's attention with a bias on the logits that depends on the offset between two patches.

    Args:
        parent (MultiheadAttention): The attention whose layers, head count and rates are taken over.
        window (tuple[int, int]): Patches (h, w) of the training size; the table has an entry an offset of it.
        with_cls_token (bool): Whether the first token is [class], which has three entries of its own.
    """

    def __init__(self, parent: MultiheadAttention, window: tuple[int, int], with_cls_token: bool = True) -> None:
        BaseModule.__init__(self, parent.init_cfg)
        self.input_dims, self.embed_dims = parent.input_dims, parent.embed_dims
        self.num_heads, self.head_dims = parent.num_heads, parent.head_dims
        self.attn_drop = parent.attn_drop
        self.qkv, self.proj = parent.qkv, parent.proj
        self.proj_drop, self.out_drop, self.gamma1 = parent.proj_drop, parent.out_drop, parent.gamma1

        height, width = window
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros(self.num_heads, 2 * height - 1, 2 * width - 1))  # (M, offsets down, offsets right)
        # patch looks at [class], [class] looks at patch, [class] looks at itself
        self.relative_position_bias_table_class = nn.Parameter(
            torch.zeros(self.num_heads, 3)) if with_cls_token else None
        self._register_load_state_dict_pre_hook(self._resize_table)

    def forward(self, x: Tensor, resolution: tuple[int, int]) -> Tensor:
        """Attend.

        Args:
            x (Tensor): (B, L, D), L = 1 + h w with a [class] token.
            resolution (tuple[int, int]): Patches (h, w) of the image.

        Returns:
            Tensor: (B, L, D).
        """
        q, k, v = project_qkv(self, x)  # each (B, M, L, d)
        bias = self.relative_bias(resolution).to(q.dtype)[None]  # (1, M, L, L)
        dropout = self.attn_drop if self.training else 0.
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)  # (B, M, L, d)
        x = self.proj(rearrange(x, 'b m n d -> b n (m d)'))  # (B, L, D)
        return self.out_drop(self.gamma1(self.proj_drop(x)))

    def relative_bias(self, resolution: tuple[int, int]) -> Tensor:
        """What is added to ``q k^T / sqrt(d)``.

        Another size than the training window's stretches the table, as the parent stretches the position embedding.

        Args:
            resolution (tuple[int, int]): Patches (h, w) of the image.

        Returns:
            Tensor: (M, L, L), rows are queries.
        """
        table = resize_table(self.relative_position_bias_table, resolution)  # (M, 2 h - 1, 2 w - 1)
        # windows[m, i, j, a, b] = table[m, i + a, j + b]; the entry of query (i, j) and key (k, l) is that of
        # offset (i - k, j - l), which stands at (i - k + h - 1, j - l + w - 1): a = h - 1 - k, b = w - 1 - l
        windows = table.unfold(1, resolution[0], 1).unfold(2, resolution[1], 1)  # (M, h, w, h, w)
        bias = rearrange(windows.flip(3, 4), 'm i j k l -> m (i j) (k l)')  # (M, h w, h w)
        if self.relative_position_bias_table_class is None:
            return bias
        heads, patches = bias.shape[:2]
        to_class, from_class, itself = self.relative_position_bias_table_class.view(heads, 3, 1, 1).unbind(1)
        bias = torch.cat([to_class.expand(heads, patches, 1), bias], dim=2)  # (M, h w, L)
        first = torch.cat([itself, from_class.expand(heads, 1, patches)], dim=2)  # (M, 1, L)
        return torch.cat([first, bias], dim=1)  # (M, L, L)

    def _resize_table(self, state_dict, prefix, *args) -> None:
        """Fit a table from another training size when it is loaded."""
        key, own = prefix + 'relative_position_bias_table', self.relative_position_bias_table
        if key in state_dict and state_dict[key].ndim == 3 and state_dict[key].shape[1:] != own.shape[1:]:
            window = ((own.shape[1] + 1) // 2, (own.shape[2] + 1) // 2)
            state_dict[key] = resize_table(state_dict[key], window)


def resize_table(table: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Stretch a table (M, 2 h - 1, 2 w - 1) to another grid (h', w'): offset 0 and the largest offsets stay such."""
    size = (2 * resolution[0] - 1, 2 * resolution[1] - 1)
    if tuple(table.shape[1:]) == size:
        return table
    stretched = F.interpolate(table[None].float(), size=size, mode='bilinear', align_corners=True)
    return stretched[0].to(table.dtype)  # (M, 2 h' - 1, 2 w' - 1)


class RelPosLayer(TransformerEncoderLayer):
    """mmpretrain's transformer block with :class:`RelPosAttention`.

    Args:
        parent (TransformerEncoderLayer): The block whose layers are taken over.
        window (tuple[int, int]): Patches (h, w) of the training size.
        with_cls_token (bool): Whether the first token is [class].
    """

    def __init__(self, parent: TransformerEncoderLayer, window: tuple[int, int], with_cls_token: bool = True) -> None:
        BaseModule.__init__(self, parent.init_cfg)
        self.embed_dims = parent.embed_dims
        self.ln1, self.ln2, self.ffn = parent.ln1, parent.ln2, parent.ffn
        self.attn = RelPosAttention(parent.attn, window, with_cls_token)

    def forward(self, x: Tensor, resolution: tuple[int, int]) -> Tensor:
        """As the parent's: tokens (B, L, D) of an image of ``resolution`` (h, w) patches to tokens (B, L, D)."""
        x = x + self.attn(self.ln1(x), resolution)  # (B, L, D)
        return self.ffn(self.ln2(x), identity=x)  # (B, L, D)


@MODELS.register_module()
class RelPosViT(VisionTransformer):
    """mmpretrain's ``VisionTransformer`` with a learnable relative position bias in every block.

    Tables are zero at first, so that until they are trained the outputs are those of ``VisionTransformer`` with the
    same weights. Its checkpoints, a distilled student's among them, load as they are; the tables alone are missing.
    Images of any size, square or not, are taken: position embedding and tables are interpolated from ``img_size``.

    Args:
        arch (str | dict): As in ``VisionTransformer``. Defaults to ``'base'``.
        **kwargs: Further arguments of ``VisionTransformer``; ``img_size`` is the training crop and sets the tables'
            window. ``layer_scale_init_value=1.0`` adds the published recipe's layer scale.
    """

    def __init__(self, arch='base', **kwargs) -> None:
        super().__init__(arch=arch, **kwargs)
        self.layers: Any = ModuleList(
            RelPosLayer(layer, self.patch_resolution, self.cls_token is not None) for layer in self.layers)
        if self.frozen_stages > 0:
            self._freeze_stages()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the parent's: images (B, 3, H, W) to one output a member of ``out_indices``."""
        x, resolution = self.patch_embed(images)  # (B, h w, D)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, L, D)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, resolution, mode=self.interpolate_mode,
                                 num_extra_tokens=self.num_extra_tokens)
        x = self.pre_norm(self.drop_after_pos(x))
        outputs = []
        for index, layer in enumerate(self.layers):
            x = layer(x, resolution)  # (B, L, D)
            if index == len(self.layers) - 1 and self.final_norm:
                x = self.ln1(x)
            if index in self.out_indices:
                outputs.append(self._format_output(x, resolution))
        return tuple(outputs)
