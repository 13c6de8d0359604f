"""Scores of a frozen network: k-NN and ridge on class labels, a closed-form linear probe on scenes."""
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mimhd_mm.engine.loading import build_teacher
from mimhd_mm.evaluation.block_features import block_features
from mimhd_mm.evaluation.knn import extract_features, knn_accuracy
from mimhd_mm.evaluation.knn_probe import pixel_features
from mimhd_mm.evaluation.patch_probe import linear_miou
from mimhd_mm.evaluation.read_out import read_out_kl
from mimhd_mm.evaluation.ridge import ridge_accuracy
from mimhd_mm.models import RelationViT
from mimhd_mm.registry import MODELS

from .images import Batches
from .protocol import ProtocolSettings
from .training import Place

#: validation images on whose relations the teacher is read out, every second of them held out
READ_OUT_IMAGES = 256


def score_network(backbone: nn.Module, preprocess: BaseDataPreprocessor, place: Place, settings: ProtocolSettings,
                  blocks: Sequence[int]) -> dict[int, dict[str, float]]:
    """Scores of the mean patch token, and of the patch tokens, of some blocks.

    Args:
        backbone (nn.Module): A vision transformer in evaluation mode.
        preprocess (BaseDataPreprocessor): Its own.
        place (Place): All training images are the bank, all validation images are scored; so are all scenes.
        settings (ProtocolSettings): Of the protocol.
        blocks (sequence[int]): Counted from 1.

    Returns:
        dict: Block -> ``knn``, ``ridge``, ``miou``, percent.
    """
    train, val = (Batches(place.data / f'{part}.safetensors') for part in ('train', 'val'))
    bank, bank_labels = block_features(backbone, train, preprocess, blocks)  # block -> (n, D); (n,)
    test, test_labels = block_features(backbone, val, preprocess, blocks)  # block -> (m, D); (m,)
    miou = linear_miou(backbone, preprocess, place.scenes, num_classes=settings.classes, size=settings.scene_size,
                       blocks=blocks)
    return {block: dict(label_scores(bank[block], bank_labels, test[block], test_labels, len(train.file.classes)),
                        miou=miou[block]) for block in blocks}


def label_scores(bank: Tensor, bank_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int
                 ) -> dict[str, float]:
    """Top-1 of (m, D) features by the (n, D) ones of the bank: 20 neighbours, and ridge regression."""
    return dict(knn=knn_accuracy(bank, bank_labels, test, test_labels, num_classes=classes),
                ridge=ridge_accuracy(bank, bank_labels, test, test_labels, num_classes=classes))


def score_pixels(preprocess: BaseDataPreprocessor, place: Place) -> dict[str, float]:
    """``knn`` of the pixels themselves."""
    train, val = (Batches(place.data / f'{part}.safetensors') for part in ('train', 'val'))
    found = [*extract_features(pixel_features, train, preprocess), *extract_features(pixel_features, val, preprocess)]
    return dict(knn=knn_accuracy(*found, num_classes=len(train.file.classes)))


def whole_teacher(target_generator: dict, path: Path) -> nn.Module:
    """The teacher's encoder with all of its blocks, frozen, in float32."""
    settings = {key: target_generator[key] for key in ('arch', 'img_size', 'patch_size')}
    encoder = build_teacher(path, kind=RelationViT, **settings)
    encoder.eval()  # mmpretrain's returns nothing
    return encoder.requires_grad_(False)


def read_out(student: nn.Module, target_generator: dict, preprocess: BaseDataPreprocessor, place: Place) -> float:
    """Read-out KL of the student's tapped block against the teacher's: the mean of Q-K and V-V, nats a query."""
    settings = dict(target_generator, type='mimhd_mm.MAETeacher', checkpoint=str(place.teacher), dtype=None)
    teacher = MODELS.build(settings)
    teacher.load()
    batches = Batches(place.data / 'val.safetensors', READ_OUT_IMAGES)
    return fmean(read_out_kl(student, teacher, batches, preprocess).values())
