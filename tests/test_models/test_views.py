"""Views: each patch is hidden exactly once and predicted by the view that did not see it."""
import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models.views import (
    asked_patches,
    check_views,
    count_hidden,
    draw_images,
    draw_views,
    hide,
    merge,
    put_back,
    take,
)


@pytest.mark.parametrize('ratio, hidden', [(0.5, 8), (0.25, 4), (0.75, 12), (0.01, 1), (0.99, 15)])
def test_views_are_complements_of_the_right_size(ratio, hidden):
    masks = draw_views(6, 16, ratio)
    assert masks.shape == (2, 6, 16)
    assert torch.equal(masks[0], ~masks[1])
    assert (masks[0].sum(-1) == hidden).all()


def test_every_image_gets_its_own_split_and_every_patch_its_turn():
    masks = draw_views(2000, 16, 0.5)[0].float()
    assert (masks[0] != masks[1]).any()
    torch.testing.assert_close(masks.mean(0), torch.full((16,), 0.5), atol=0.05, rtol=0)


def test_generator_decides():
    draw = [draw_views(2, 16, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draw)


def test_one_view():
    assert draw_views(2, 16, 0.75, 1).shape == (1, 2, 16)


def test_hide_replaces_hidden_patches_and_nothing_else():
    tokens, mask_token = torch.randn(2, 5, 3), torch.full((1, 1, 3), 9.)
    masks = draw_views(2, 4)
    views = hide(tokens, mask_token, masks)
    assert views.shape == (4, 5, 3)
    for v in range(2):
        for b in range(2):
            row = views[v * 2 + b]
            assert torch.equal(row[0], tokens[b, 0])  # [class] is visible
            for n in range(4):
                expected = mask_token[0, 0] if masks[v, b, n] else tokens[b, n + 1]
                assert torch.equal(row[n + 1], expected)


def test_hide_takes_a_substitute_for_each_place():
    tokens, substitute, masks = torch.randn(2, 5, 3), torch.randn(1, 5, 3), draw_views(2, 4)
    views = hide(tokens, substitute, masks).view(2, 2, 5, 3)
    for v, b, n in torch.cartesian_prod(*map(torch.arange, (2, 2, 4))):
        assert torch.equal(views[v, b, n + 1], (substitute[0] if masks[v, b, n] else tokens[b])[n + 1])


@pytest.mark.parametrize('num_tokens, ratio, sizes', [(16, 0.5, (8, 8)), (15, 0.5, (8, 7)), (16, 0.25, (4, 12))])
def test_hidden_patches_are_those_of_the_masks_and_go_back_to_their_places(num_tokens, ratio, sizes):
    masks, patches = draw_views(3, num_tokens, ratio), torch.randn(3, num_tokens, 2)
    hidden = asked_patches(masks, count_hidden(num_tokens, ratio))
    assert tuple(numbers.shape[1] for numbers in hidden) == sizes
    for mask, numbers in zip(masks, hidden):
        for b in range(3):
            assert numbers[b].tolist() == [n for n in range(num_tokens) if mask[b, n]]
        alone = put_back(take(patches, numbers), numbers, num_tokens)
        assert torch.equal(alone, patches * mask.unsqueeze(-1))
    numbers = torch.cat(hidden, 1)
    assert torch.equal(put_back(take(patches, numbers), numbers, num_tokens), patches)
    assert len(asked_patches(masks[:1], count_hidden(num_tokens, ratio))) == 1


def test_every_image_is_drawn_as_often_and_none_twice():
    draws = torch.stack([draw_images(5, 0.4) for _ in range(3000)])  # (3000, 2)
    assert draws.shape[1] == 2 and (draws[:, 0] != draws[:, 1]).all()
    torch.testing.assert_close(draws.flatten().bincount() / 3000, torch.full((5,), 0.4), rtol=0, atol=0.04)
    assert len(draw_images(3, 0.01)) == 1 and sorted(draw_images(4, 1.).tolist()) == [0, 1, 2, 3]


def test_merge_takes_each_patch_from_the_view_that_did_not_see_it():
    masks = draw_views(3, 16)
    predictions = torch.stack([torch.zeros(3, 16, 2), torch.ones(3, 16, 2)])  # says which view it is from
    merged = merge(predictions, masks)
    for b in range(3):
        for n in range(16):
            source = int(merged[b, n, 0])
            assert masks[source, b, n] and not masks[1 - source, b, n]


@pytest.mark.parametrize('views, ratio, message', [
    (3, .5, 'num_views is 1 or 2'), (2, 0, 'mask_ratio'), (2, 1., 'mask_ratio')])
def test_bad_settings(views, ratio, message):
    with pytest.raises(UserInputError, match=message):
        check_views(views, ratio)
