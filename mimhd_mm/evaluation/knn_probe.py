"""``KNNProbe``: scores a network's features by k-NN on two labelled sets of images."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import VisionTransformer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ..errors import UserInputError
from ..random_states import evaluating, kept_random_states
from ..registry import DATASETS
from .knn import check_neighbours, extract_features, knn_accuracy

FEATURES = ('avg', 'cls')


class KNNProbe:
    """Score networks by weighted k-NN on frozen features; modes and random states are restored.

    Args:
        train (dict): Config of the dataset whose images vote. Its pipeline ends in ``PackInputs``, gives every
            image one size and draws nothing at random.
        test (dict): Config of the dataset that is scored; same classes.
        k (int): Neighbours that vote. Defaults to 20.
        temperature (float): See :func:`~mimhd_mm.evaluation.knn_accuracy`. Defaults to 0.07.
        feature (str): What of the last block, after the final norm: ``'avg'``, the mean of the patch tokens, or
            ``'cls'``, the [class] token. Defaults to ``'avg'``.
        batch_size (int): Images a forward pass. Defaults to 128.
        num_workers (int): Loader processes. Defaults to 2.
        max_train (int, optional): Take this many images, evenly spaced over the dataset's list (which is sorted by
            class). None takes all. Defaults to None.
        max_test (int, optional): The same for ``test``. Defaults to None.

    Raises:
        UserInputError: If an option is unknown, k is larger than the training set, a dataset is without labels or
            the two differ in their classes.
    """

    def __init__(self, train: dict, test: dict, *, k: int = 20, temperature: float = 0.07, feature: str = 'avg',
                 batch_size: int = 128, num_workers: int = 2, max_train: int | None = None,
                 max_test: int | None = None) -> None:
        if feature not in FEATURES:
            raise UserInputError(f'Unknown feature {feature!r} of the k-NN probe; choose from {FEATURES}.')
        self.train = evenly_spaced(build_labelled('train', train), max_train)
        self.test = evenly_spaced(build_labelled('test', test), max_test)
        classes, test_classes = (data.dataset.metainfo['classes'] for data in (self.train, self.test))
        if tuple(classes) != tuple(test_classes):
            odd = sorted(set(classes) ^ set(test_classes)) or list(test_classes)
            raise UserInputError(f'The k-NN probe needs the same classes in `train` ({len(classes)}) and `test` '
                                 f'({len(test_classes)}), in the same order; they differ in {odd[0]!r}, for one.')
        check_neighbours(k, temperature, len(self.train))
        self.num_classes = len(classes)
        self.k, self.temperature, self.feature = k, temperature, feature
        self.loader = dict(batch_size=batch_size, num_workers=num_workers, collate_fn=default_collate)

    def score(self, forward: Callable[[Tensor], Tensor], preprocess: BaseDataPreprocessor) -> float:
        """Top-1 in percent of the features that ``forward`` computes.

        Args:
            forward (Callable): Normalised images (B, 3, H, W) to features (B, D).
            preprocess (BaseDataPreprocessor): Normalises, and moves to the device that ``forward`` works on.
        """
        with kept_random_states():  # a dataloader draws a seed for its workers
            (train, train_labels), (test, test_labels) = (
                extract_features(forward, DataLoader(data, **self.loader), preprocess)
                for data in (self.train, self.test))  # (n, D), (n,); (m, D), (m,)
        return knn_accuracy(
            train.to(preprocess.device), train_labels, test, test_labels,
            k=self.k, temperature=self.temperature, num_classes=self.num_classes)

    def score_backbone(self, backbone: VisionTransformer, preprocess: BaseDataPreprocessor,
                       block: int | None = None) -> float:
        """Top-1 in percent of a vision transformer's features, in float32.

        Args:
            backbone (VisionTransformer): The network.
            preprocess (BaseDataPreprocessor): See :meth:`score`.
            block (int, optional): Whose tokens, counted from 1. None takes the last one's, after the final norm; so
                does its number. Defaults to None.

        Raises:
            UserInputError: If the backbone is no vision transformer, lacks the block, or has no [class] token and
                shall give it.
        """
        if not isinstance(backbone, VisionTransformer):
            raise UserInputError(f'The k-NN probe reads the tokens of a VisionTransformer (MAEViT, RelationViT), '
                                 f'not of {type(backbone).__name__}; remove it from this config.')
        if self.feature == 'cls' and not backbone.num_extra_tokens:
            raise UserInputError("feature='cls' asks for the [class] token of a backbone without one; use 'avg'.")
        block = len(backbone.layers) if block is None else block
        if not 1 <= block <= len(backbone.layers):
            raise UserInputError(f'The backbone has the blocks 1 to {len(backbone.layers)}, not {block}.')
        with evaluating(backbone), raw_output(backbone, block):
            return self.score(lambda images: token_features(backbone, images, self.feature), preprocess)


def token_features(backbone: VisionTransformer, images: Tensor, feature: str) -> Tensor:
    """One vector an image from a backbone that is in :func:`raw_output`: (B, 3, H, W) to (B, D)."""
    # the parent's forward: of a subclass like MAEViT, what it does without masking
    tokens = VisionTransformer.forward(backbone, images)[-1]  # (B, extra + N, D)
    if feature == 'cls':
        return tokens[:, 0]  # (B, D)
    return tokens[:, backbone.num_extra_tokens:].mean(dim=1)  # (B, D)


@contextmanager
def raw_output(backbone: VisionTransformer, *blocks: int) -> Iterator[None]:
    """Make a vision transformer return all tokens of the given blocks, from 1, or of the last after its norm."""
    kept = backbone.out_type, backbone.out_indices
    backbone.out_type, backbone.out_indices = 'raw', [block - 1 for block in blocks or (len(backbone.layers), )]
    try:
        yield
    finally:
        backbone.out_type, backbone.out_indices = kept


def pixel_features(images: Tensor, size: int = 32) -> Tensor:
    """The baseline without a network: normalised pixels, averaged down to ``size`` x ``size`` where larger.

    Args:
        images (Tensor): (B, 3, H, W).
        size (int): Keeps the feature short, 3 x 32 x 32 = 3072 numbers. Defaults to 32.

    Returns:
        Tensor: (B, 3 * h * w).
    """
    return F.adaptive_avg_pool2d(images, [min(size, side) for side in images.shape[-2:]]).flatten(1)


def build_labelled(name: str, cfg: dict) -> Dataset:
    """Build a dataset and check that its first sample has an image and a label.

    Raises:
        UserInputError: If one of them is missing.
    """
    dataset = DATASETS.build(cfg)
    with kept_random_states():
        sample = dataset[0]
    if not isinstance(sample.get('inputs'), torch.Tensor) or 'gt_label' not in sample.get('data_samples', ()):
        raise UserInputError(f'The k-NN probe needs images with labels in `{name}`; its dataset has to set '
                             f"`with_label=True` and its pipeline has to end in dict(type='PackInputs').")
    return dataset


def evenly_spaced(dataset: Dataset, number: int | None) -> Subset:
    """Choose ``number`` evenly spaced samples, or all if the dataset has fewer."""
    number = len(dataset) if number is None else min(number, len(dataset))
    return Subset(dataset, [i * len(dataset) // number for i in range(number)])
