"""Frozen features of several blocks of a vision transformer, in one pass."""
from collections.abc import Iterable, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..errors import UserInputError
from ..random_states import evaluating
from .knn_probe import raw_output


def block_features(backbone: VisionTransformer, batches: Iterable[dict], preprocess: BaseDataPreprocessor,
                   blocks: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """The mean patch token of every image after each of some blocks.

    Args:
        backbone (VisionTransformer): The network, on the device of ``preprocess``.
        batches (Iterable[dict]): A dataloader with ``default_collate``: ``inputs``, a uint8 tensor (B, 3, H, W), and
            ``data_samples``, a list of B samples with ``gt_label``.
        preprocess (BaseDataPreprocessor): The model's own; it normalises and moves to the model's device.
        blocks (Sequence[int]): Counted from 1; or from the end, -1 is the last. The last block's are after the final
            norm, where the network has one.

    Returns:
        tuple:

        - dict[int, Tensor]: By block, as it was asked for: (n, D) float32 on the CPU.
        - Tensor: (n,) int64 labels on the CPU.

    Raises:
        UserInputError: If the backbone is no vision transformer or lacks a block.
    """
    numbers(backbone, blocks)
    found: dict[int, list[Tensor]] = {block: [] for block in blocks}
    labels: list[int] = []
    for batch in batches:
        tokens = patch_tokens(backbone, preprocess(batch)['inputs'], blocks)  # each (B, N, D)
        for block, x in tokens.items():
            found[block].append(x.float().mean(1).cpu())  # (B, D)
        labels.extend(int(sample.gt_label) for sample in batch['data_samples'])
    return {block: torch.cat(features) for block, features in found.items()}, torch.tensor(labels)


@torch.no_grad()
def patch_tokens(backbone: VisionTransformer, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    """The patch tokens after each of some blocks, in evaluation mode.

    Args:
        backbone (VisionTransformer): The network.
        images (Tensor): (B, 3, H, W), normalised.
        blocks (Sequence[int]): As in :func:`block_features`.

    Returns:
        dict[int, Tensor]: By block, as it was asked for: (B, N, D).

    Raises:
        UserInputError: As :func:`block_features`.
    """
    wanted = numbers(backbone, blocks)
    in_order = sorted(set(wanted))
    with evaluating(backbone), raw_output(backbone, *in_order):
        # the parent's forward: of a subclass like MAEViT, what it does without masking
        outputs = dict(zip(in_order, VisionTransformer.forward(backbone, images)))  # each (B, extra + N, D)
    return {block: outputs[number][:, backbone.num_extra_tokens:] for block, number in zip(blocks, wanted)}


def numbers(backbone: VisionTransformer, blocks: Sequence[int]) -> list[int]:
    """Blocks counted from 1 or from the end, -1 is the last, as counted from 1.

    Raises:
        UserInputError: If the backbone is no vision transformer or lacks one of them.
    """
    if not isinstance(backbone, VisionTransformer):
        raise UserInputError(f'Features by block are those of a VisionTransformer (MAEViT, RelationViT), not of '
                             f'{type(backbone).__name__}.')
    depth = len(backbone.layers)
    for block in blocks:
        if not 1 <= abs(block) <= depth:
            raise UserInputError(f'The backbone has the blocks 1 to {depth}, or -{depth} to -1 from the end, not '
                                 f'{block}.')
    return [block if block > 0 else depth + 1 + block for block in blocks]
