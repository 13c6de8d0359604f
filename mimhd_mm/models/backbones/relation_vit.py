"""``RelationViT``: a vision transformer that also returns the q, k and v of one of its blocks."""

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from ..attention import finish_block, project_qkv
from ..positions import sincos_positions
from ..relation import QKV, with_cls
from ..views import take


@MODELS.register_module()
class RelationViT(VisionTransformer):
    """mmpretrain's ``VisionTransformer`` with one block tapped for distillation.

    State-dict keys, shapes and outputs are those of ``VisionTransformer``, so a checkpoint of this class loads into
    it. What is new: :meth:`forward_relation` returns the tokens and the tapped block's q, k, v as values.

    ViT-S and ViT-Ti are ``arch='deit-small'`` (384 wide, 6 heads) and ``'deit-tiny'`` (192, 3); mmpretrain's
    ``'small'`` is another network.

    Args:
        arch (str | dict): As in ``VisionTransformer``. Defaults to ``'base'``.
        relation_block (int, optional): The tapped block, counted from 1. None is the last (paper). Defaults to None.
        relation_heads (int, optional): Head count of the tapped block alone, TinyMIM's "adaptive block"; shapes of
            its weights do not change, so the number must be given again when the checkpoint is used. None keeps the
            architecture's. Defaults to None.
        stop_at_relation (bool): Build nothing beyond the tapped block's q, k, v projection, for a teacher: no later
            block, no output projection, no MLP, no final norm. Defaults to False.
        drop_path_rate (float): Rate of the last block, rising linearly from 0, as in ``VisionTransformer``.
        constant_drop_path (float): The same rate in every block but the last, which has none, as TinyMIM distils (its
            rate is 0.1); in place of ``drop_path_rate``. Defaults to 0.
        sincos_pos_embed (bool): Start from MAE's fixed sine-cosine position embedding and keep it fixed, rather than
            from a learnable random one. Defaults to True (MAE, TinyMIM).
        **kwargs: Further arguments of ``VisionTransformer``, e.g. ``img_size``, ``patch_size``, ``layer_cfgs``.

    Raises:
        UserInputError: If the block is beyond the depth, a head count does not divide the width, or both kinds of drop
            path are asked for.
    """

    def __init__(self, arch: str | dict = 'base', *, relation_block: int | None = None,
                 relation_heads: int | None = None, stop_at_relation: bool = False, sincos_pos_embed: bool = True,
                 drop_path_rate: float = 0., constant_drop_path: float = 0., out_type: str = 'raw',
                 layer_cfgs: dict | list = dict(), **kwargs) -> None:
        settings = self.settings_of(arch)
        width, depth = settings['embed_dims'], settings['num_layers']
        block = depth if relation_block is None else relation_block
        if not isinstance(block, int) or not 1 <= block <= depth:
            raise UserInputError(f'Block {block!r} was asked for, but the network has blocks 1 to {depth} '
                                 f'(counted from 1).')
        for heads in filter(None, (settings['num_heads'], relation_heads)):
            if width % heads:
                raise UserInputError(f'{heads} heads do not divide a width of {width}; choose a divisor of it.')
        layer_cfgs = [dict(layer_cfgs) for _ in range(depth)] if isinstance(layer_cfgs, dict) else [
            dict(layer_cfg) for layer_cfg in layer_cfgs]
        if relation_heads:
            layer_cfgs[block - 1]['num_heads'] = relation_heads
        if constant_drop_path:
            if drop_path_rate:
                raise UserInputError(f'drop_path_rate={drop_path_rate} and constant_drop_path={constant_drop_path} '
                                     f'exclude each other; leave one out.')
            for layer_cfg in layer_cfgs[:-1]:
                layer_cfg['drop_path_rate'] = constant_drop_path
        if stop_at_relation:
            settings, layer_cfgs = dict(settings, num_layers=block), layer_cfgs[:block]
            kwargs['final_norm'] = False
        super().__init__(
            arch=settings, out_type=out_type, layer_cfgs=layer_cfgs, drop_path_rate=drop_path_rate, **kwargs)

        self.relation_block = block
        self.stop_at_relation = stop_at_relation
        self.sincos_pos_embed = sincos_pos_embed
        if sincos_pos_embed:
            self.pos_embed.requires_grad = False
        if stop_at_relation:
            last = self.layers[-1]
            del last.attn.proj, last.ln2, last.ffn

    @classmethod
    def settings_of(cls, arch: str | dict) -> dict:
        """The four sizes behind an architecture's name, or those of a dict, checked."""
        if isinstance(arch, dict):
            missing = {'embed_dims', 'num_layers', 'num_heads', 'feedforward_channels'} - set(arch)
            if missing:
                raise UserInputError(f'`arch` lacks {sorted(missing)}; give a name or all four sizes.')
            return dict(arch)
        if str(arch).lower() not in cls.arch_zoo:
            raise UserInputError(f'Unknown arch {arch!r}; choose from {", ".join(sorted(cls.arch_zoo))}.')
        return dict(cls.arch_zoo[arch.lower()])

    @property
    def relation_heads(self) -> int:
        """Head count of the tapped block."""
        return self.layers[self.relation_block - 1].attn.num_heads

    def freeze_beyond_relation(self) -> None:
        """Freeze what the tapped block's q, k, v do not depend on, where nothing else learns from the tokens.

        Those weights would get no gradient anyway; frozen, they need no ``find_unused_parameters`` either.
        """
        block = self.layers[self.relation_block - 1]
        beyond = [block.attn.proj, block.attn.gamma1, block.ln2, block.ffn, *self.layers[self.relation_block:]]
        for module in beyond + ([self.ln1] if self.final_norm else []):
            module.requires_grad_(False)

    def init_weights(self) -> None:
        """As the parent, then MAE's start values where nothing is loaded.

        MAE's: sine-cosine position embedding, patch projection initialised as a linear layer, [class] token with a
        standard deviation of 0.02. With ``init_cfg=dict(type='Pretrained', ...)`` the loaded weights stay.
        """
        if self.stop_at_relation:  # a truncated network has no start of its own: its owner loads it
            return
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            return
        if self.sincos_pos_embed:
            self.pos_embed.data.copy_(sincos_positions(self.patch_resolution, self.embed_dims))
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=.02)

    def embed(self, images: Tensor, seen: Tensor | None = None) -> Tensor:
        """Patches, [class] token and positions: images (B, 3, H, W) to tokens (B, 1 + N, D).

        With ``seen``, (B, n), tokens are those of [class] and the patches with these numbers: (B, 1 + n, D).
        """
        x, resolution = self.patch_embed(images)  # (B, N, D)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, resolution, mode=self.interpolate_mode,
                                 num_extra_tokens=self.num_extra_tokens)
        if seen is not None:
            x = take(x, with_cls(seen))  # (B, 1 + n, D)
        return self.pre_norm(self.drop_after_pos(x))

    def forward_relation(self, images: Tensor, *, need_tokens: bool = True,
                         seen: Tensor | None = None) -> tuple[Tensor | None, QKV]:
        """Tokens of the last block and q, k, v of the tapped one.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            need_tokens (bool): False stops at the tapped block's q, k, v. Defaults to True.
            seen (Tensor, optional): (B, n), numbers of the patches that the network sees; it then runs on n tokens and
                [class], each patch with its own position, and N below is n. None shows it all. Defaults to None.

        Returns:
            tuple:

            - Tensor or None: (B, 1 + N, D) after the final norm; None if it was not needed or ``stop_at_relation``.
            - QKV: each (B, M, 1 + N, d), [class] token first.
        """
        x = self.embed(images, seen)  # (B, 1 + N, D)
        for number, layer in enumerate(self.layers, start=1):
            if number != self.relation_block:
                x = layer(x)  # (B, 1 + N, D)
                continue
            qkv = project_qkv(layer.attn, layer.ln1(x))  # each (B, M, 1 + N, d)
            if self.stop_at_relation or not need_tokens:
                return None, qkv
            x = finish_block(layer, x, qkv)  # (B, 1 + N, D)
        return (self.ln1(x) if self.final_norm else x), qkv
