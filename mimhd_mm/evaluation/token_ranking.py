"""Features of a network that drops the patches with the lowest [class] attention, without training.

Patches are scored by the [class] token's attention in one block, mean over heads, and the lowest are dropped before
or after one block; later blocks see the [class] token and the kept patches alone. Nothing is trained.
Dropped tokens are not merged into the kept ones as in EViT: this measures the ranking and is not a good way to prune.
"""
from collections.abc import Sequence

import torch
from einops import rearrange
from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..errors import UserInputError
from ..models import RelationViT
from ..models.attention import project_qkv
from ..models.views import take
from .attention_maps import class_attention

PLACES = ('before', 'after')


class PrunedViT:
    """A vision transformer that drops patches at one block.

    Args:
        backbone (VisionTransformer): In evaluation mode, with a [class] token.
        score_block (int, optional): The block whose [class] attention scores patches, counted from 1. None is the
            last. Defaults to None.
        prune_block (int, optional): The block at which patches are dropped. None is ``score_block``.
        place (str): ``'after'`` that block, so that it still mixes all patches, or ``'before'`` it. Defaults to
            ``'after'``.

    Raises:
        UserInputError: If a block is beyond the depth, the place unknown, or the network without [class] token.
    """

    def __init__(self, backbone: VisionTransformer, score_block: int | None = None,
                 prune_block: int | None = None, place: str = 'after') -> None:
        if not isinstance(backbone, VisionTransformer) or backbone.num_extra_tokens != 1:
            raise UserInputError(f'Patches are scored by the [class] token of a VisionTransformer, and this '
                                 f'{type(backbone).__name__} has none.')
        depth = len(backbone.layers)
        self.backbone = backbone
        self.score_block = score_block or depth
        self.prune_block = prune_block or self.score_block
        for block in (self.score_block, self.prune_block):
            if not 1 <= block <= depth:
                raise UserInputError(f'Block {block} was asked for, but the network has blocks 1 to {depth}.')
        if place not in PLACES:
            raise UserInputError(f'Patches are dropped "before" or "after" a block, not {place!r}.')
        self.whole_blocks = self.prune_block - (place == 'before')

    def embed_and_score(self, images: Tensor) -> tuple:
        """One pass over the whole images.

        Args:
            images (Tensor): (B, 3, H, W), normalised.

        Returns:
            tuple:

            - Tensor: (B, 1 + N, D), tokens where patches are to be dropped.
            - Tensor: (B, N), scores: [class] attention, mean over heads.
        """
        x = RelationViT.embed(self.backbone, images)  # (B, 1 + N, D); any VisionTransformer has the parts of it
        tokens = x
        for number, layer in enumerate(self.backbone.layers, start=1):
            if number == self.score_block:
                scores = class_attention(project_qkv(layer.attn, layer.ln1(x))).mean(1)  # (B, N)
            if number > max(self.whole_blocks, self.score_block - 1):
                break
            x = layer(x)  # (B, 1 + N, D)
            tokens = x if number == self.whole_blocks else tokens
        return tokens, scores

    def finish(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """The remaining blocks on some patches.

        Args:
            tokens (Tensor): (B, 1 + N, D), of :meth:`embed_and_score`.
            kept (Tensor): (B, n), numbers of the patches that stay.

        Returns:
            Tensor: (B, 1 + n, D), after the final norm where the network has one.
        """
        x = torch.cat([tokens[:, :1], take(tokens[:, 1:], kept)], dim=1)  # (B, 1 + n, D)
        for layer in self.backbone.layers[self.whole_blocks:]:
            x = layer(x)  # (B, 1 + n, D)
        return self.backbone.ln1(x) if self.backbone.final_norm else x

    def work(self, keep: float) -> float:
        """Remaining share of the patches' passes through blocks if ``keep`` of the patches are kept."""
        depth = len(self.backbone.layers)
        return (self.whole_blocks + keep * (depth - self.whole_blocks)) / depth


def kept_patches(scores: Tensor, keep: float) -> Tensor:
    """Numbers of the best patches: scores (B, N) to (B, n), ``n = round(keep * N)``, at least one."""
    number = max(round(keep * scores.shape[1]), 1)
    return scores.topk(number, dim=1).indices  # (B, n)


@torch.no_grad()
def pruned_features(network: PrunedViT, images: Tensor, keeps: Sequence[float], seeds: Sequence[int] = (0, ),
                    pool: str = 'avg') -> Tensor:
    """One feature an image for every keep rate, with the best patches kept and with patches drawn at random.

    Args:
        network (PrunedViT): K of :func:`kept_patches` go on.
        images (Tensor): (B, 3, H, W), normalised.
        keeps (Sequence[float]): Shares of the patches that are kept, K of them.
        seeds (Sequence[int]): One random order each. Which patches are drawn does not depend on the images, and the
            global random state stays. Defaults to (0, ).
        pool (str): ``'avg'``, mean of the kept patches' tokens, or ``'cls'``, the [class] token. Defaults to ``'avg'``.

    Returns:
        Tensor: (B, 1 + S, K, D); the first of the orders is by attention.
    """
    tokens, scores = network.embed_and_score(images)  # (B, 1 + N, D), (B, N)
    orders: list[Tensor] = [scores]
    for seed in seeds:
        noise = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))  # (B, N)
        orders.append(noise.to(scores.device))
    features = []
    for order in orders:
        for keep in keeps:
            x = network.finish(tokens, kept_patches(order, keep))  # (B, 1 + n, D)
            features.append(x[:, 0] if pool == 'cls' else x[:, 1:].mean(1))  # (B, D)
    return rearrange(torch.stack(features, 1), 'b (s k) d -> b s k d', k=len(keeps))
