"""Linear segmentation in closed form: ridge regression from frozen patch tokens to the classes of their pixels.

It uses mmsegmentation's data layout and mIoU, and needs no optimiser, augmentation or seed. Every image is resized to
one size; sliding windows and flips are left out.
"""
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..datasets.image_files import image_files
from ..datasets.segmentation_check import IGNORED, Pair, check_pairs, decode, list_pairs
from ..errors import UserInputError
from ..registry import TRANSFORMS
from .block_features import numbers, patch_tokens
from .ridge import HELD_OUT, RidgeSums, choose_and_fit, predict


def linear_miou(backbone: VisionTransformer, preprocess: BaseDataPreprocessor, folder: str | Path, *,
                num_classes: int, size: tuple[int, int], blocks: Sequence[int] = (-1, ),
                reduce_zero_label: bool = True, batch_size: int = 8) -> dict[int, float]:
    """Mean intersection over union of linear segmentation on frozen patch tokens.

    A patch's target is the share of each class among its labelled pixels; patches without any are left out. Every
    tenth training scene chooses the penalty, then all are fitted. Scores of the patches are enlarged to the labels'
    resolution (bilinear), the largest is the prediction, and one confusion matrix counts the pixels of all validation
    scenes. Classes that are neither predicted nor labelled are left out of the mean, as in mmsegmentation.

    Args:
        backbone (VisionTransformer): The network, on the device of ``preprocess``.
        preprocess (BaseDataPreprocessor): The model's own.
        folder (str | Path): With ``images`` and ``annotations``, each with ``training`` and ``validation``.
        num_classes (int): C.
        size (tuple): Rows and columns in pixels that images are resized to; multiples of the patch size. Annotations
            keep theirs.
        blocks (Sequence[int]): Whose tokens, counted from 1, or from the end. The last block's are after the final
            norm, where the network has one. Defaults to (-1, ).
        reduce_zero_label (bool): Whether 0 in annotations is not scored and 1 to C are the classes, rather than 0 to
            C - 1; 255 is not scored in either. Defaults to True (ADE20K).
        batch_size (int): Images a forward pass. Defaults to 8.

    Returns:
        dict[int, float]: Percent, by block as it was asked for; nan after a diverged run.

    Raises:
        UserInputError: If the folder, an annotation or the size does not fit, a block is missing, or there are fewer
            than 2 training scenes.
    """
    numbers(backbone, blocks)
    patch = backbone.patch_embed.projection.kernel_size[0]
    if any(side < patch or side % patch for side in size):
        raise UserInputError(f'The size {tuple(size)} of images is not a multiple of the patch size, {patch}; give '
                             f'rows and columns that are.')
    training, validation = (pairs_of(folder, split, num_classes, reduce_zero_label)
                            for split in ('training', 'validation'))
    if len(training) < 2:
        raise UserInputError(f'{str(folder)!r} has {len(training)} training scene; linear segmentation needs at least '
                             f'2, one to choose the penalty on.')

    sums = {}
    for index, (tokens, labels) in enumerate(scenes(backbone, preprocess, training, size, blocks, batch_size)):
        shares, labelled = class_shares(to_classes(labels, num_classes, reduce_zero_label), num_classes,
                                        (size[0] // patch, size[1] // patch))  # (N, C), (N,)
        for block, x in tokens.items():  # (N, D)
            part = sums.setdefault((block, index % HELD_OUT == 0), RidgeSums(x.shape[1], num_classes))
            part.add(x[labelled], shares[labelled])
    weights = {block: choose_and_fit(sums[block, False], sums[block, True]) for block in blocks
               if sums[block, False].finite and sums[block, True].finite}  # each (1 + D, C)

    confusion = {block: torch.zeros(num_classes, num_classes, dtype=torch.int64) for block in weights}
    for tokens, labels in scenes(backbone, preprocess, validation, size, blocks, batch_size):
        labels = to_classes(labels, num_classes, reduce_zero_label)  # (H, W)
        for block, weight in weights.items():
            scores = predict(weight, tokens[block]).T  # (C, N)
            scores = scores.reshape(1, num_classes, size[0] // patch, size[1] // patch).float()  # (1, C, h, w)
            predicted = F.interpolate(scores, labels.shape, mode='bilinear', align_corners=False)[0].argmax(0)  # (H, W)
            confusion[block] += confusion_matrix(labels, predicted, num_classes)
    return {block: mean_iou(confusion[block]) if block in confusion else float('nan') for block in blocks}


def pairs_of(folder: str | Path, split: str, num_classes: int, reduce_zero_label: bool) -> list[Pair]:
    """Image and annotation files of a split, in order; some are opened to check the labels.

    Raises:
        UserInputError: If something is missing or does not fit.
    """
    images, annotations = Path(folder) / 'images' / split, Path(folder) / 'annotations' / split
    suffix = next((path.suffix for path in sorted(image_files(images))), '.jpg')
    pairs = list_pairs(images, annotations, img_suffix=suffix)
    check_pairs(pairs, num_classes, reduce_zero_label, sample=32)
    return pairs


def scenes(backbone: VisionTransformer, preprocess: BaseDataPreprocessor, pairs: list[Pair], size: tuple[int, int],
           blocks: Sequence[int], batch_size: int) -> Iterator[tuple[dict[int, Tensor], Tensor]]:
    """Frozen patch tokens and labels of every scene.

    Yields:
        tuple:

        - dict[int, Tensor]: By block: (N, D) float32 on the CPU.
        - Tensor: (H, W) int64, the annotation as it is in its file.
    """
    resize = dict(type='Resize', scale=tuple(size)[::-1], backend='pillow', interpolation='bicubic')
    steps = [dict(type='LoadAnyImage'), resize, dict(type='PackInputs')]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start:start + batch_size]
        images = torch.stack([pipeline(dict(img_path=image))['inputs'] for image, _ in batch])  # (B, 3, H, W) uint8
        images = preprocess(dict(inputs=images, data_samples=None))['inputs']  # (B, 3, H, W)
        tokens = {block: x.float().cpu() for block, x in patch_tokens(backbone, images, blocks).items()}  # (B, N, D)
        for index, (_, annotation) in enumerate(batch):
            labels = torch.from_numpy(decode(annotation)[0].astype(np.int64))  # (H, W)
            yield {block: x[index] for block, x in tokens.items()}, labels


def to_classes(labels: Tensor, num_classes: int, reduce_zero_label: bool) -> Tensor:
    """An annotation as class numbers 0 to C - 1 and 255 for what is not scored: (H, W), in and out.

    Raises:
        UserInputError: If it holds another label.
    """
    if reduce_zero_label:
        labels = torch.where((labels == 0) | (labels == IGNORED), IGNORED, labels - 1)  # (H, W)
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= num_classes))]
    if len(wrong):
        raise UserInputError(f'An annotation holds the label {int(wrong[0]) + reduce_zero_label}, beyond {num_classes} '
                             f'classes (reduce_zero_label={reduce_zero_label}); give the number of classes that the '
                             f'data set has.')
    return labels


def class_shares(labels: Tensor, num_classes: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The share of each class among the labelled pixels of every patch.

    Args:
        labels (Tensor): (H, W) int64, classes and 255. A pixel belongs to the patch that its upper left corner is in,
            where the grid does not divide H or W.
        num_classes (int): C.
        grid (tuple): Rows and columns of patches, N in all.

    Returns:
        tuple:

        - Tensor: (N, C) float64; a patch without labelled pixels has zeros.
        - Tensor: (N,) bool, whether the patch has any.
    """
    rows, columns = (torch.arange(side) * cells // side for side, cells in zip(labels.shape, grid))  # (H,), (W,)
    patches = rows[:, None] * grid[1] + columns  # (H, W), number of the patch
    scored = labels != IGNORED  # (H, W)
    cells = patches[scored] * num_classes + labels[scored]  # (labelled,)
    counts = torch.bincount(cells, minlength=grid[0] * grid[1] * num_classes).view(-1, num_classes).double()  # (N, C)
    total = counts.sum(1)  # (N,)
    return counts / total.clamp_min(1)[:, None], total > 0


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Scored pixels by class (rows) and predicted class (columns): (H, W) int64 twice to (C, C) int64."""
    scored = labels != IGNORED  # (H, W)
    cells = labels[scored] * num_classes + predicted[scored]  # (labelled,)
    return torch.bincount(cells, minlength=num_classes ** 2).view(num_classes, num_classes)


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union in percent of a confusion matrix (C, C), over the classes that occur in it."""
    both = confusion.diagonal().double()  # (C,)
    either = (confusion.sum(0) + confusion.sum(1) - confusion.diagonal()).double()  # (C,)
    return 100 * float((both / either)[either > 0].mean())
