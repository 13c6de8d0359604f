"""FixedViews: the same K crops of every image whenever they are asked for, each once in K epochs."""
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mimhd_mm.datasets import FixedViews, SeededDataset
from mimhd_mm.datasets.seeded_samples import SampleKey
from mimhd_mm.errors import UserInputError

CROP = dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0))


def folder(root, *steps) -> dict:
    return dict(type='CustomDataset', data_root=str(root), with_label=False,
                pipeline=[dict(type='LoadImageFromFile'), *steps])


@pytest.fixture
def views(image_folder):
    flip, pack = dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')
    return FixedViews(folder(image_folder, CROP, flip, pack), num_views=3)


def test_a_view_is_the_same_whenever_it_is_asked_for(views, image_folder):
    again = FixedViews(views.dataset, num_views=3)
    first = {(index, view): views.view(index, view)['inputs'] for index in range(4) for view in range(3)}
    for (index, view), image in reversed(first.items()):
        np.random.rand(), torch.rand(1)
        assert torch.equal(image, again.view(index, view)['inputs'])
    assert all(not torch.equal(first[index, 0], first[index, view]) for index in range(4) for view in (1, 2))
    other = FixedViews(views.dataset, num_views=3, view_seed=1)
    assert not torch.equal(first[0, 0], other.view(0, 0)['inputs'])


def test_a_view_leaves_random_states_alone_and_says_which_it_is(views):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    sample = views.view(5, 2)['data_samples']
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.get_rng_state())
    assert (sample.sample_index, sample.view) == (5, 2)


def test_k_epochs_see_k_views(views):
    def seen(seed, epochs):
        dataset = SeededDataset(views, seed=seed)
        return [[dataset[SampleKey(index, epoch)]['data_samples'].view for epoch in epochs] for index in range(32)]

    orders = seen(0, range(3))
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert {order[0] for order in orders} == {0, 1, 2}  # images do not march in step
    assert seen(0, range(3, 6)) == orders and seen(1, range(3)) != orders


@pytest.mark.parametrize('workers', [0, 1])
def test_without_an_epoch_views_are_drawn(views, workers):
    loader = DataLoader(views, batch_size=4, num_workers=workers, collate_fn=list)
    np.random.seed(0)
    samples = [sample for batch in loader for sample in batch]
    assert len({sample['data_samples'].view for sample in samples}) == 3
    for sample in samples:
        place = sample['data_samples'].sample_index, sample['data_samples'].view
        assert torch.equal(sample['inputs'], views.view(*place)['inputs'])


def test_two_images_of_a_view_are_fixed_together(image_folder):
    """The student's colours, too; the teacher's image is the crop itself."""
    jitter = dict(type='StudentColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    both = FixedViews(folder(image_folder, CROP, jitter, dict(type='PackInputs')), 2)
    alone = FixedViews(folder(image_folder, CROP, dict(type='PackInputs')), 2)
    student, teacher = both.view(3, 1)['inputs']
    assert torch.equal(student, both.view(3, 1)['inputs'][0]) and not torch.equal(student, teacher)
    assert torch.equal(teacher, alone.view(3, 1)['inputs'])


def test_refuses_wrong_settings(image_folder):
    with pytest.raises(UserInputError, match='num_views'):
        FixedViews(folder(image_folder), 0)
    with pytest.raises(UserInputError, match='PackInputs'):
        FixedViews(folder(image_folder, CROP), 2).view(0, 0)
