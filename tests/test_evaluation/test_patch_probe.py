"""Linear segmentation of frozen patch tokens."""
import numpy as np
import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor, VisionTransformer
from PIL import Image

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import linear_miou
from mimhd_mm.evaluation.patch_probe import class_shares, confusion_matrix, mean_iou, to_classes

COLOURS = np.array([[0, 0, 0], [250, 20, 20], [20, 250, 20], [20, 20, 250]], dtype=np.uint8)  # void, classes 1 to 3
PREPROCESS = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
PATCH, SIDE = 8, 32


class Colours(VisionTransformer):
    """A network whose patch tokens are the mean colours of the patches: perfect features for coloured scenes."""

    def __init__(self, scale=1., **kwargs):
        super().__init__(arch=dict(embed_dims=4, num_layers=1, num_heads=1, feedforward_channels=4), img_size=SIDE,
                         patch_size=PATCH, final_norm=False, **kwargs)
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)  # blocks add nothing
        for channel in range(3):
            self.patch_embed.projection.weight.data[channel, channel] = scale / PATCH ** 2


def write_scenes(folder, cells, split, size=(SIDE, SIDE), raw=lambda labels: labels, suffix='.jpg'):
    """Scenes of 4 x 4 cells with a label each: colours in the images, numbers in the annotations."""
    images, annotations = folder / 'images' / split, folder / 'annotations' / split
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for number, grid in enumerate(cells):
        labels = grid.repeat(size[0] // 4, 0).repeat(size[1] // 4, 1).astype(np.uint8)
        Image.fromarray(COLOURS[labels]).save(images / f'{number:02d}{suffix}', **(
            dict(quality=100, subsampling=0) if suffix == '.jpg' else {}))
        Image.fromarray(raw(labels).astype(np.uint8)).save(annotations / f'{number:02d}.png')


def halves(number, seed=0):
    """Scenes whose left and right halves have one label each, so that patches are far from one another's edges."""
    rng = np.random.default_rng(seed)
    return [np.repeat(rng.permutation([1, 2, 3])[[0, 0, 1, 1]][None], 4, 0) for _ in range(number)]


def run(folder, backbone=None, **kwargs):
    kwargs = {**dict(num_classes=3, size=(SIDE, SIDE), batch_size=3), **kwargs}
    return linear_miou(backbone or Colours(), SelfSupDataPreprocessor(**PREPROCESS), folder, **kwargs)


@pytest.mark.parametrize('size, suffix', [((SIDE, SIDE), '.jpg'), ((64, 96), '.png')])
def test_perfect_features_give_100(tmp_path, size, suffix):
    write_scenes(tmp_path, halves(12), 'training', size, suffix=suffix)
    write_scenes(tmp_path, halves(5, seed=1), 'validation', size, suffix=suffix)
    assert run(tmp_path, blocks=(-1, 1)) == {-1: pytest.approx(100, abs=0.5), 1: pytest.approx(100, abs=0.5)}


def test_features_without_information_give_the_most_frequent_class(tmp_path):
    often = [np.full((4, 4), 2) for _ in range(9)] + [np.full((4, 4), 1)]
    write_scenes(tmp_path, often, 'training')
    write_scenes(tmp_path, [np.full((4, 4), 2), np.full((4, 4), 1)], 'validation')
    # all is called class 2: 1/2 of the union is right, class 1 has 0, class 3 occurs nowhere
    assert run(tmp_path, Colours(scale=0.))[-1] == pytest.approx((50 + 0) / 2)


def test_what_is_not_labelled_counts_neither_in_training_nor_in_validation(tmp_path):
    """Left halves are void (0 and 255); their colour is that of class 3, which the right halves never have."""
    def blank(labels):
        return np.where(labels == 3, np.where(np.arange(SIDE) % 2, 255, 0), labels)
    cells = [np.repeat(np.array([3, 3, label, label])[None], 4, 0) for label in (1, 2) * 6]
    write_scenes(tmp_path, cells, 'training', raw=blank)
    write_scenes(tmp_path, cells[:4], 'validation', raw=blank)
    assert run(tmp_path)[-1] == pytest.approx(100, abs=0.5)


def test_labels_from_zero(tmp_path):
    for split, seed in (('training', 0), ('validation', 1)):
        write_scenes(tmp_path, halves(8, seed), split, raw=lambda labels: labels - 1)
    assert run(tmp_path, reduce_zero_label=False)[-1] == pytest.approx(100, abs=0.5)
    with pytest.raises(UserInputError, match='label 2; with 2 classes'):
        run(tmp_path, num_classes=2, reduce_zero_label=False)


def test_batches_do_not_matter(tmp_path):
    rng = np.random.default_rng(0)
    write_scenes(tmp_path, rng.integers(0, 4, (13, 4, 4)), 'training')
    write_scenes(tmp_path, rng.integers(0, 4, (5, 4, 4)), 'validation')
    one, all_ = run(tmp_path, batch_size=1)[-1], run(tmp_path, batch_size=64)[-1]
    assert one == pytest.approx(all_, abs=0.05) and 40 < one < 99.9  # bilinear scores blur the edges of the cells


def test_class_shares_count_labelled_pixels():
    labels = torch.tensor([[0, 0, 1, 255], [0, 2, 255, 255], [255, 255, 2, 2], [255, 255, 2, 2]])
    shares, labelled = class_shares(labels, 3, (2, 2))
    assert labelled.tolist() == [True, True, False, True]
    assert shares.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_class_shares_where_the_grid_does_not_divide_the_labels():
    shares, _ = class_shares(torch.arange(5).repeat(5, 1), 5, (1, 2))
    assert shares[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
    assert shares[1].tolist() == pytest.approx([0, 0, 0, 1 / 2, 1 / 2])


def test_mean_iou_equals_a_loop_over_classes():
    generator = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(4, (20, 30), generator=generator) for _ in range(2))
    labels[:3] = 255
    ious = [((labels == c) & (predicted == c) & (labels != 255)).sum().item()
            / (((labels == c) | (predicted == c)) & (labels != 255)).sum().item() for c in range(4)]
    assert mean_iou(confusion_matrix(labels, predicted, 6)) == pytest.approx(100 * np.mean(ious))  # two never occur


def test_to_classes():
    labels = torch.tensor([[0, 1, 11, 255]])
    assert to_classes(labels, 11, True).tolist() == [[255, 0, 10, 255]]
    assert to_classes(labels, 12, False).tolist() == [[0, 1, 11, 255]]
    with pytest.raises(UserInputError, match='label 11, beyond 10'):
        to_classes(labels, 10, True)


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(UserInputError, match='multiple of the patch size, 8'):
        run(tmp_path, size=(32, 30))
    with pytest.raises(UserInputError, match='No folder'):
        run(tmp_path / 'nowhere')
    write_scenes(tmp_path, halves(1), 'training')
    write_scenes(tmp_path, halves(1), 'validation')
    with pytest.raises(UserInputError, match='at least 2'):
        run(tmp_path)


def test_a_diverged_network_scores_nan(tmp_path):
    write_scenes(tmp_path, halves(3), 'training')
    write_scenes(tmp_path, halves(2), 'validation')
    assert np.isnan(run(tmp_path, Colours(scale=float('nan')))[-1])
