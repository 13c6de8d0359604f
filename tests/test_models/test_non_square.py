"""Images that are wider than tall: pre-training with reconstruction, pictures of it, and other sizes at run time."""
import numpy as np
import pytest
import torch
from mmpretrain.models import MAEPretrainHead, VisionTransformer
from PIL import Image

from mimhd_mm.engine.loading import eval_pipeline, read_images
from mimhd_mm.errors import UserInputError
from mimhd_mm.models import MAEPixelHead
from mimhd_mm.models.positions import resize_positions, sincos_positions
from mimhd_mm.visualization import draw_reconstructions

LOSS = dict(type='PixelReconstructionLoss', criterion='L2')
WIDE = dict(img_size=(32, 48))  # 4 x 6 patches


def test_head_is_the_parent_on_squares_and_keeps_every_pixel_elsewhere():
    ours, parent = (kind(loss=LOSS, norm_pix=True, patch_size=8) for kind in (MAEPixelHead, MAEPretrainHead))
    square, wide = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 40)
    assert torch.equal(ours.patchify(square), parent.patchify(square))
    assert torch.equal(ours.unpatchify(ours.patchify(square)), square)
    patches = ours.patchify(wide)  # (2, 2 x 5, 192)
    assert torch.equal(ours.unpatchify(patches, (2, 5)), wide)
    third = wide[:, :, :8, 16:24].permute(0, 2, 3, 1).flatten(1)  # row 0, column 2, pixel by pixel
    assert torch.equal(patches[:, 2], third)
    with pytest.raises(UserInputError, match='whole patches of 8'):
        ours.patchify(torch.randn(1, 3, 20, 32))


def test_positions_of_a_wide_grid_follow_rows_and_columns():
    positions = sincos_positions((4, 6), 32)[0, 1:].reshape(4, 6, 32)
    square = sincos_positions((6, 6), 32)[0, 1:].reshape(6, 6, 32)
    across, down = positions.diff(dim=1).norm(dim=-1).mean(), positions.diff(dim=0).norm(dim=-1).mean()
    assert down > across  # four rows span what six columns span
    assert torch.equal(sincos_positions((6, 6), 32)[0, 1:].reshape(6, 6, 32), square)
    kept = torch.randn(1, 25, 8)
    assert torch.equal(resize_positions(kept, (4, 6), (4, 6)), kept)
    assert torch.equal(resize_positions(kept, (4, 6)), kept)  # 24 is no square: a file of that very grid
    with pytest.raises(UserInputError, match='24 patches'):
        resize_positions(kept, (5, 5))


def test_wide_images_distil_and_reconstruct(build_mimhd, tmp_path):
    model = build_mimhd(backbone=WIDE, target_generator=WIDE)
    images = torch.randn(2, 3, 32, 48)
    losses = model(images, mode='loss')
    assert set(losses) == {'loss_qk', 'loss_vv', 'loss_rec'}
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0
    draw_reconstructions(model, images, tmp_path / 'wide.png')
    assert (tmp_path / 'wide.png').stat().st_size > 1000


def test_reconstruction_of_wide_images_is_the_mean_square_of_the_merged_prediction(build_mimhd):
    model = build_mimhd(backbone=WIDE, target_generator=WIDE).eval()
    images = torch.randn(2, 3, 32, 48)
    torch.manual_seed(5)
    loss = model(images, mode='loss')['loss_rec']
    torch.manual_seed(5)
    merged = model.reconstruct(images).merged  # (B, 24, 192)
    error = 0.
    for row in range(4):
        for column in range(6):
            patch = images[:, :, 8 * row:8 * row + 8, 8 * column:8 * column + 8].permute(0, 2, 3, 1).flatten(1)
            target = (patch - patch.mean(1, keepdim=True)) / (patch.var(1, keepdim=True) + 1e-6).sqrt()
            error += (merged[:, 6 * row + column] - target).square().mean()
    assert loss.item() == pytest.approx(error.item() / 24, rel=1e-5)


@pytest.mark.parametrize('size', [(32, 32), (48, 32), (64, 48)])
def test_other_sizes_than_the_configured_one_are_taken(build_mimhd, size):
    """Positions of student, teacher and decoder are interpolated from the grid they were made for."""
    model = build_mimhd(backbone=WIDE, target_generator=WIDE)
    losses = model(torch.randn(2, 3, *size), mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())


def test_student_of_wide_images_loads_into_a_plain_transformer(build_mimhd):
    model = build_mimhd(backbone=WIDE, target_generator=WIDE).eval()
    plain = VisionTransformer(arch=dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48),
                              img_size=(32, 48), patch_size=8, out_type='raw')
    plain.load_state_dict(model.backbone.state_dict())
    plain.eval()
    images = torch.randn(2, 3, 32, 48)
    assert torch.allclose(plain(images)[0], model.backbone(images)[0], atol=1e-6)


def test_tools_read_images_at_a_wide_size(tmp_path):
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / 'a.png')
    assert eval_pipeline((32, 48), tmp_path / 'a.png')[1]['scale'] == (48, 32)
    identity = type('Identity', (), {'__call__': lambda self, data: data})()
    assert read_images([tmp_path / 'a.png'], (32, 48), 1, identity).shape == (1, 3, 32, 48)
