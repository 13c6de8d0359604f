"""Pictures: what is drawn equals what the model computes."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models import MAEPretrainHead, SelfSupDataPreprocessor, VisionTransformer
from mmpretrain.registry import MODELS
from PIL import Image

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.attention_maps import foreground_iou, top_mass
from mimhd_mm.models import RelationViT
from mimhd_mm.random_states import evaluating
from mimhd_mm.visualization import draw_attention, draw_reconstructions, reconstruction_figure
from mimhd_mm.visualization.pictures import (
    attention_maps,
    class_attention,
    denormalise_patches,
    hide_patches,
    to_pixels,
)

from ..test_tools.commands import call, error_of

ARCH = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
MAE = dict(
    type='MAE', backbone=dict(type='MAEViT', arch=ARCH, img_size=32, patch_size=8),
    neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48, decoder_embed_dim=32,
              decoder_depth=1, decoder_num_heads=2),
    head=dict(type='MAEPixelHead', norm_pix=True, patch_size=8,
              loss=dict(type='PixelReconstructionLoss', criterion='L2')))


def mimhd(checkpoint: Path) -> dict:
    return dict(
        type='MIMHD', backbone=dict(type='RelationViT', arch=dict(ARCH, num_heads=3), img_size=32, patch_size=8),
        target_generator=dict(type='MAETeacher', checkpoint=str(checkpoint), arch=ARCH, img_size=32, patch_size=8,
                              block=1),
        head=dict(type='RelationDistillHead'),
        neck=dict(type='DualViewMAEDecoder', decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2),
        rec_head=MAE['head'])


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)


@pytest.fixture
def teacher_file(tmp_path):
    model = MODELS.build(MAE)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'mae.pth')
    return tmp_path / 'mae.pth'


@pytest.fixture
def model(teacher_file):
    model = MODELS.build(dict(mimhd(teacher_file), data_preprocessor=dict(type='SelfSupDataPreprocessor', **NORMALISE)))
    model.init_weights()
    return model


@pytest.fixture
def images(model):
    """(2, 3, 32, 32), as a model gets them; whole numbers in [0, 255] once the normalisation is undone."""
    return model.data_preprocessor(dict(inputs=torch.randint(256, (2, 3, 32, 32)), data_samples=None))['inputs']


def backbone(kind=RelationViT, heads=4, **kwargs):
    built = kind(arch=dict(ARCH, num_heads=heads), img_size=32, patch_size=8, out_type='raw', **kwargs)
    built.init_weights()
    for layer in built.layers:  # far from uniform attention
        torch.nn.init.normal_(layer.attn.qkv.weight, std=0.3)
    return built


# ------------------------------------------------------------------------------------------------------- numbers
@pytest.mark.parametrize('norm_pix', [True, False])
def test_the_exact_target_gives_back_the_input(images, norm_pix):
    head = MAEPretrainHead(loss=dict(type='PixelReconstructionLoss', criterion='L2'), norm_pix=norm_pix, patch_size=8)
    target = head.construct_target(images)
    restored = head.unpatchify(denormalise_patches(target, images, head))
    torch.testing.assert_close(restored, images, atol=1e-4, rtol=1e-4)


def test_pixels_undo_the_preprocessor():
    raw = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    preprocess = SelfSupDataPreprocessor(**NORMALISE)  # turns BGR into RGB
    normalised = preprocess(dict(inputs=raw, data_samples=None))['inputs']
    torch.testing.assert_close(to_pixels(normalised, preprocess), raw.flip(1).permute(0, 2, 3, 1) / 255)
    torch.testing.assert_close(to_pixels(raw.float(), None), raw.permute(0, 2, 3, 1) / 255)


def test_hidden_patches_are_grey_and_the_others_untouched():
    pixels = torch.rand(2, 32, 32, 3)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 6] = True  # second row, third column of patches
    hidden = hide_patches(pixels, mask)
    expected = pixels.clone()
    expected[0, 8:16, 16:24] = 0.5
    assert torch.equal(hidden, expected)


def test_merged_picture_is_the_hand_made_merge(model, images):
    with evaluating(model):
        views, masks, merged = model.reconstruct(images)
    assert torch.equal(masks[0], ~masks[1]) and masks[0].any() and masks[1].any()
    by_hand = torch.empty_like(merged)
    for image in range(2):
        for patch in range(16):
            unseen = 0 if masks[0, image, patch] else 1
            by_hand[image, patch] = views[unseen, image, patch]
    assert not torch.equal(views[0], views[1])
    picture, expected = (
        to_pixels(model.rec_head.unpatchify(denormalise_patches(patches, images, model.rec_head)),
                  model.data_preprocessor) for patches in (merged, by_hand))
    assert picture.isfinite().all() and torch.equal(picture, expected)


def test_the_pictures_panels_are_the_hand_made_merge(model, images):
    """What the axes hold, against patches cut, normalised and put together here, without the package's help."""
    with evaluating(model):
        torch.manual_seed(5)
        views, masks, _ = model.reconstruct(images)
    torch.manual_seed(5)
    figure = reconstruction_figure(model, images, teacher=lambda images, masks: views[1])
    drawn = [axis.get_images()[0].get_array() for axis in figure.axes]  # row by row
    assert len(drawn) == 12
    mean, std = (torch.tensor(NORMALISE[name]) for name in ('mean', 'std'))
    for row, image in enumerate(images):
        panels = dict(input=torch.zeros(32, 32, 3), merged=torch.zeros(32, 32, 3), teacher=torch.zeros(32, 32, 3))
        for patch in range(16):
            place = (slice(patch // 4 * 8, patch // 4 * 8 + 8), slice(patch % 4 * 8, patch % 4 * 8 + 8))
            pixels = image[:, place[0], place[1]].permute(1, 2, 0)  # (8, 8, 3)
            chosen = views[0 if masks[0, row, patch] else 1, row, patch]
            for name, values in (('merged', chosen), ('teacher', views[1, row, patch])):
                panels[name][place] = values.view(8, 8, 3) * (pixels.var() + 1e-6) ** 0.5 + pixels.mean()
            panels['input'][place] = pixels
        panels = {name: ((panel * std + mean) / 255).clamp(0, 1) for name, panel in panels.items()}
        error = (panels['merged'] - panels['input']).abs().mean(-1)
        found = drawn[6 * row:6 * row + 6]
        for number, expected in ((0, panels['input']), (3, panels['merged']), (4, panels['teacher']), (5, error)):
            np.testing.assert_allclose(found[number], expected.numpy(), atol=1e-5)
        for view in range(2):  # views show what the other hides
            grey = (np.asarray(found[1 + view]).reshape(4, 8, 4, 8, 3) == 0.5).all((1, 3, 4)).reshape(16)
            assert grey.tolist() == masks[view, row].tolist()


def test_overlap_of_attention_with_a_mask_by_hand():
    attention = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.65, 0.05, 0.2]]).view(1, 2, 2, 2)
    assert top_mass(attention.flatten(2)).tolist() == [[[True, True, False, False], [False, True, False, False]]]
    assert top_mass(attention.flatten(2) * 7, 0.95).sum(-1).tolist() == [[4, 3]]  # 0.65 + 0.2 + 0.1 is just enough
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0], mask[0, 1, 3] = True, True  # the first row and a pixel of the second: 5 pixels
    # head 1 marks the upper half, 8 pixels, of which 5 are the mask's; head 2 the upper right quarter: 3 of 4, and 5
    torch.testing.assert_close(foreground_iou(attention, mask), torch.tensor([[5 / 8, 3 / 6]]))
    assert foreground_iou(attention, torch.zeros_like(mask)).isnan().all()  # nothing to find
    with pytest.raises(UserInputError, match='share of the attention'):
        top_mass(attention, 0)


@pytest.mark.parametrize('block', [1, 2])
def test_attention_is_that_of_the_real_block(block):
    student = backbone(relation_block=block)
    images = torch.randn(2, 3, 32, 32)
    with evaluating(student):
        found = class_attention(student.forward_relation(images)[1])
        # independently: the tokens before the block, by the parent's parts
        tokens = torch.cat([student.cls_token.expand(2, -1, -1), student.patch_embed(images)[0]], 1)
        tokens = tokens + student.pos_embed
        for layer in student.layers[:block - 1]:
            tokens = layer(tokens)
        layer = student.layers[block - 1]
        attention = layer.attn
        query, key, value = attention.qkv(layer.ln1(tokens)).reshape(2, 17, 3, 4, 12).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-2, -1) / 12 ** 0.5, dim=-1)  # (B, M, 1 + N, 1 + N)
        # these weights are the block's own: applied to the values they give what the block computes
        out = attention.proj((weights @ value).transpose(1, 2).reshape(2, 17, 48))
        torch.testing.assert_close(out, attention(layer.ln1(tokens)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, weights[:, :, 0, 1:])
    assert torch.equal(attention_maps(student, images).flatten(2), found)  # what is drawn
    assert weights[:, :, 0].std() > 0.01  # not uniform
    torch.testing.assert_close(found.sum(-1), 1 - weights[:, :, 0, 0])


# ------------------------------------------------------------------------------------------------------- pictures
def test_reconstructions_are_drawn_and_leave_no_trace(model, images, tmp_path):
    model.train()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    draw_reconstructions(model, images, tmp_path / 'new' / 'folder' / 'rec.png')
    assert modes == [part.training for part in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    with Image.open(tmp_path / 'new' / 'folder' / 'rec.png') as picture:
        width, height = picture.size
        assert np.asarray(picture.convert('RGB')).std() > 10
    assert width > 2 * height  # five columns, two rows


def test_drawn_input_column_shows_the_input(model, tmp_path):
    red = torch.zeros(1, 3, 32, 32)
    red[:, 2] = 255  # BGR
    images = model.data_preprocessor(dict(inputs=red, data_samples=None))['inputs']
    draw_reconstructions(model, images, tmp_path / 'rec.png')
    with Image.open(tmp_path / 'rec.png') as picture:
        pixels = np.asarray(picture.convert('RGB'))
    first_column = pixels[:, :pixels.shape[1] // 5]
    centre = first_column[first_column.shape[0] // 2 + 10, first_column.shape[1] // 2]
    assert centre.tolist() == [255, 0, 0]


def test_attention_of_several_backbones(model, images, tmp_path):
    few, many = backbone(heads=3), backbone(heads=8)
    few.train()
    draw_attention(few, images, tmp_path / 'one.png', model.data_preprocessor)
    assert few.training
    draw_attention(dict(student=few, teacher=many), images, tmp_path / 'two.png', model.data_preprocessor, max_heads=6)
    sizes = [Image.open(tmp_path / name).size for name in ('one.png', 'two.png')]
    assert sizes[1][0] > sizes[0][0] and sizes[1][1] > sizes[0][1]  # more heads, twice the rows


def test_what_cannot_be_drawn_is_refused(images, tmp_path):
    with pytest.raises(UserInputError, match='VisionTransformer; load the weights'):
        draw_attention(backbone(VisionTransformer), images, tmp_path / 'x.png')
    with pytest.raises(UserInputError, match='MAE has no `reconstruct`'):
        draw_reconstructions(MODELS.build(MAE), images, tmp_path / 'x.png')
    assert not (tmp_path / 'x.png').exists()


# ------------------------------------------------------------------------------------------------------- tools
@pytest.fixture
def run_files(model, teacher_file, tmp_path):
    """Config, checkpoint, folder of images."""
    (tmp_path / 'images').mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'images' / f'{number}.png')
    dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'images'), with_label=False)
    (tmp_path / 'config.py').write_text(
        f'default_scope = "mmpretrain"\nmodel = {mimhd(teacher_file)}\ntrain_dataloader = dict(dataset={dataset})\n'
        f'data_preprocessor = dict(type="SelfSupDataPreprocessor", **{NORMALISE})\n')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch_1.pth')
    return [str(tmp_path / name) for name in ('config.py', 'epoch_1.pth', 'images')]


def test_reconstruction_tool(run_files, tmp_path):
    config, checkpoint, folder = run_files
    common = ['analysis_tools/plot_reconstruction.py', config, checkpoint, '--images', folder]
    call(*common, '--out', tmp_path / 'r.png')
    call(*common, '--no-teacher', '--dpi', 100, '--out', tmp_path / 'small.png')
    width, small = (Image.open(tmp_path / name).size[0] for name in ('r.png', 'small.png'))
    assert width == 6 * 225 and small == 5 * 150  # columns, 1.5 inches each


@pytest.mark.parametrize('with_folder', [True, False])
def test_attention_tool(run_files, tmp_path, with_folder):
    config, checkpoint, folder = run_files
    call('analysis_tools/plot_attention.py', config, checkpoint, *(['--images', folder] if with_folder else []),
         '--out', tmp_path / 'a.png', '--num', 2)
    assert Image.open(tmp_path / 'a.png').size[1] > 500  # two images, student and teacher


@pytest.mark.parametrize('name', ['plot_reconstruction.py', 'plot_attention.py'])
def test_tools_refuse_wrong_input_in_one_sentence(run_files, tmp_path, name):
    config, _, folder = run_files
    assert 'none.pth' in error_of(f'analysis_tools/{name}', config, tmp_path / 'none.pth', '--images', folder, '--out',
                                  tmp_path / 'x.png')
    assert not (tmp_path / 'x.png').exists()
