"""Weighted k-nearest-neighbour classification of frozen features, without training.

The rule is DINO's (``eval_knn.py``; DINOv3 evaluates with it too): every test image takes the k training images of
the highest cosine similarity s, each votes for its class with exp(s / T), T = 0.07, and the class with most votes
wins. DINO reports k = 10 and k = 20. DINO's sweep over k is left out.
"""
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..errors import UserInputError


def extract_features(forward: Callable[[Tensor], Tensor], batches: Iterable[dict],
                     preprocess: BaseDataPreprocessor) -> tuple[Tensor, Tensor]:
    """Features and labels of every image, in the order of the batches.

    Args:
        forward (Callable): Normalised images (B, 3, H, W) to features (B, D). Its model is in evaluation mode.
        batches (Iterable[dict]): A dataloader with ``default_collate``: ``inputs``, a uint8 tensor (B, 3, H, W), and
            ``data_samples``, a list of B samples with ``gt_label``.
        preprocess (BaseDataPreprocessor): The model's own; it normalises and moves to the model's device.

    Returns:
        tuple:

        - Tensor: (n, D) float32 on the CPU.
        - Tensor: (n,) int64 labels on the CPU.
    """
    features, labels = [], []
    for batch in batches:
        images = preprocess(batch)['inputs']  # (B, 3, H, W)
        with torch.no_grad():
            features.append(forward(images).float().cpu())  # (B, D)
        labels.extend(int(sample.gt_label) for sample in batch['data_samples'])
    return torch.cat(features), torch.tensor(labels)  # (n, D), (n,)


def knn_accuracy(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, *,
                 k: int = 20, temperature: float = 0.07, num_classes: int, max_similarities: int = 2**26) -> float:
    """Top-1 accuracy of the weighted k-NN rule, computed where ``train_features`` live.

    Args:
        train_features (Tensor): (n, D); their length does not matter, only their direction.
        train_labels (Tensor): (n,) int64 in [0, num_classes).
        test_features (Tensor): (m, D).
        test_labels (Tensor): (m,) int64.
        k (int): Neighbours that vote. Defaults to 20 (DINO).
        temperature (float): T; lower lets the nearest count for more. Defaults to 0.07 (DINO).
        num_classes (int): C.
        max_similarities (int): Test images are taken in chunks of at most this many similarities (n numbers an
            image, one image at least), so that n x m is never whole in memory. Defaults to 2**26 (256 MiB).

    Returns:
        float: Percent of the test images; nan if a feature is not finite, as after a diverged run.

    Raises:
        UserInputError: If k is not between 1 and n, or the temperature is not positive.
    """
    check_neighbours(k, temperature, len(train_features))
    if not (train_features.isfinite().all() and test_features.isfinite().all()):
        return float('nan')
    device = train_features.device
    train_features = F.normalize(train_features, dim=1)  # (n, D)
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)  # (n,), (m,)
    chunk = max(1, max_similarities // len(train_features))

    correct = 0
    for features, labels in zip(test_features.split(chunk), test_labels.split(chunk)):
        features = F.normalize(features.to(device), dim=1)  # (c, D)
        similarity, neighbours = (features @ train_features.T).topk(k, dim=1)  # (c, k), (c, k)
        votes = similarity.new_zeros(len(features), num_classes)  # (c, C)
        votes.scatter_add_(1, train_labels[neighbours], (similarity / temperature).exp())
        correct += int((votes.argmax(dim=1) == labels).sum())
    return 100 * correct / len(test_labels)


def check_neighbours(k: int, temperature: float, num_train: int) -> None:
    """Check the settings of the rule against the number of training images.

    Raises:
        UserInputError: If k is not between 1 and ``num_train``, or the temperature is not positive.
    """
    if not 1 <= k <= num_train:
        raise UserInputError(f'k-NN with k={k} needs 1 to {num_train} neighbours, the number of its training images; '
                             f'choose another k or give more images.')
    if not temperature > 0:
        raise UserInputError(f'The temperature of k-NN is a positive number, not {temperature!r}; DINO takes 0.07.')
