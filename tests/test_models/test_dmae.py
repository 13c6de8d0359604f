"""DMAE: same visible patches for both networks, features compared at one block, the student a masked autoencoder."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models import VisionTransformer

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.models import MaskedMAETeacher, TappedMAEViT
from mimhd_mm.registry import MODELS
from mimhd_mm.weights.fitting import load_exactly
from mimhd_mm.weights.mae_files import read_mae_file

from ..conftest import DECODER, SIZE, STUDENT, TEACHER


def dmae_cfg(teacher_file, **changes) -> dict:
    cfg = dict(
        type='mimhd_mm.DMAE',
        backbone=dict(type='TappedMAEViT', arch=STUDENT, **SIZE),
        target_generator=dict(type='MaskedMAETeacher', checkpoint=str(teacher_file), arch=TEACHER, block=3, **SIZE),
        neck=dict(type='MAEPretrainDecoder', **DECODER),
        head=dict(type='MAEPretrainHead', norm_pix=False,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform'),
                  dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)])
    for key, value in changes.items():
        cfg[key] = dict(cfg[key], **value) if isinstance(value, dict) else value
    return cfg


@pytest.fixture
def build(teacher_file):
    def build(**changes):
        model = MODELS.build(dmae_cfg(teacher_file, **changes))
        model.init_weights()
        return model
    return build


def images(batch=2):
    return torch.randn(batch, 3, 32, 32)


def losses_at(model, x, seed=3):
    """Losses with the masks of one seed."""
    torch.manual_seed(seed)
    return model(x, mode='loss')


# ------------------------------------------------------------------------------------------------- what is compared
def test_teacher_sees_exactly_the_students_visible_patches(build, teacher_file):
    """By hand: mmpretrain's plain network, its own patches gathered one by one, three blocks."""
    model, x = build(), images()
    student = model.backbone.forward_feature(x)
    assert student.mask.sum(1).tolist() == [12, 12] and student.feature.shape == (2, 5, 24)
    target = model.target_generator(x, student.ids_keep)
    plain = VisionTransformer(arch=TEACHER, out_type='raw', **SIZE)
    load_exactly(plain, read_mae_file(teacher_file).encoder, 'file')
    plain.eval()
    tokens = plain.patch_embed(x)[0] + plain.pos_embed[:, 1:]
    for b in range(2):
        visible = [n for n in range(16) if student.mask[b, n] == 0]
        assert sorted(student.ids_keep[b].tolist()) == visible
        by_hand = torch.stack([(plain.cls_token + plain.pos_embed[:, :1])[0, 0],
                               *(tokens[b, n] for n in student.ids_keep[b])])[None]
        for layer in plain.layers[:3]:
            by_hand = layer(by_hand)
        torch.testing.assert_close(target[b], by_hand[0])


def test_hidden_patches_reach_neither_feature(build):
    model, x = build(), images()
    student = model.backbone.forward_feature(x)
    hidden = student.mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    changed = x + hidden * torch.randn_like(x)
    ids = student.ids_keep
    assert torch.equal(model.target_generator(changed, ids), model.target_generator(x, ids))
    assert torch.equal(model.backbone.forward_visible(changed, ids), model.backbone.forward_visible(x, ids))
    torch.testing.assert_close(model.backbone.forward_visible(x, ids), student.feature)


def test_latent_is_that_of_mmpretrains_encoder(build):
    model, x = build(), images()
    torch.manual_seed(1)
    latent, mask, ids_restore = model.backbone(x)
    torch.manual_seed(1)
    ours = model.backbone.forward_feature(x)
    assert torch.equal(ours.latent, latent) and torch.equal(ours.mask, mask)
    assert torch.equal(ours.ids_restore, ids_restore)


def test_reconstruction_is_mmpretrains_mae_on_the_same_mask(build):
    model, x = build(), images()
    mae = MODELS.build(dict(
        type='mmpretrain.MAE', backbone=dict(type='MAEViT', arch=STUDENT, mask_ratio=0.75, **SIZE),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=24, **DECODER),
        head=dict(type='MAEPretrainHead', norm_pix=False, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2'))))
    mae.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith(('backbone.', 'neck.'))})
    assert torch.equal(losses_at(model, x)['loss_rec'], losses_at(mae, x)['loss'])


def test_features_loss_equals_its_definition(build):
    model, x = build(feat_weight=2.5), images()
    loss = losses_at(model, x)['loss_feat']
    torch.manual_seed(3)
    student = model.backbone.forward_feature(x)
    ours = student.feature @ model.projection.weight.T + model.projection.bias
    theirs = model.target_generator(x, student.ids_keep)
    total = 0.
    for b in range(2):
        for token in range(5):  # [class] and the four visible patches
            a, t = ours[b, token], theirs[b, token]
            total += (a / a.square().sum().sqrt() - t / t.square().sum().sqrt()).abs().sum() / (2 * 5 * 48)
    assert loss > 0
    torch.testing.assert_close(loss, 2.5 * total)


def test_features_loss_is_zero_for_the_teacher_itself(build, teacher_file):
    model = build(backbone=dict(arch=TEACHER, feature_block=3))
    load_exactly(model.backbone, read_mae_file(teacher_file).encoder, 'file')
    model.projection = torch.nn.Identity()
    assert losses_at(model, images())['loss_feat'] == 0
    model.backbone.feature_block = 2
    assert losses_at(model, images())['loss_feat'] > 0


# --------------------------------------------------------------------------------------------------- what learns
def test_gradients_reach_what_learns_and_nothing_else(build):
    model = build()
    model.train()
    sum(losses_at(model, images()).values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith('target_generator.') or name.endswith('pos_embed')
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name  # so DDP needs no find_unused_parameters
    for name in ('backbone.layers.0.attn.qkv', 'projection', 'neck.decoder_blocks.0.attn.qkv'):
        assert model.get_submodule(name).weight.grad.abs().sum() > 0


def test_features_loss_stops_at_the_tapped_block(build):
    model = build(backbone=dict(feature_block=2))
    losses_at(model, images())['loss_feat'].backward()
    assert model.backbone.layers[1].ffn.layers[1].weight.grad.abs().sum() > 0
    assert model.backbone.layers[2].attn.qkv.weight.grad is None and model.neck.decoder_pred.weight.grad is None


def test_the_teacher_stays_as_its_file_and_in_evaluation(build, teacher_file):
    model = build()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    sum(losses_at(model, images()).values()).backward()
    optimizer.step()
    tensors = read_mae_file(teacher_file).encoder
    loaded = dict(model.target_generator.encoder.named_parameters())
    assert {key.split('.')[1] for key in loaded if key.startswith('layers.')} == {'0', '1', '2'}
    assert not any(key.startswith('ln1.') for key in loaded)
    assert all(torch.equal(value, tensors[key]) for key, value in loaded.items())
    assert not any(module.training for module in model.target_generator.modules())
    assert not any(key.startswith('target_generator') for key in model.state_dict())


def test_steps_lower_the_loss(build):
    model, x = build(), images(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for _ in range(30):
        losses = losses_at(model, x)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({key: value.item() for key, value in losses.items()})
    assert set(history[0]) == {'loss_rec', 'loss_feat'}
    assert all(history[-1][key] < 0.95 * history[0][key] for key in history[0])


def test_bfloat16_is_close(build):
    model, x = build(), images(8)
    exact = losses_at(model, x)
    with torch.autocast('cpu', torch.bfloat16):
        rough = losses_at(model, x)
    for key in exact:
        torch.testing.assert_close(rough[key].float(), exact[key], rtol=0.02, atol=1e-3)


def test_default_block_is_three_quarters_deep():
    assert TappedMAEViT('base').feature_block == 9
    assert TappedMAEViT(dict(STUDENT, num_layers=8), **SIZE).feature_block == 6
    assert MaskedMAETeacher(None, arch=dict(TEACHER, num_layers=24), **SIZE).block == 18


def test_a_pretrained_start_stays(teacher_file):
    backbone = TappedMAEViT(TEACHER, init_cfg=dict(
        type='Pretrained', checkpoint=str(teacher_file), prefix='backbone.'), **SIZE)
    backbone.init_weights()
    tensors = read_mae_file(teacher_file).encoder
    assert all(torch.equal(value, tensors[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize('changes, message', [
    (dict(backbone=dict(img_size=64)), 'The student has 8 x 8 patches and the teacher 4 x 4'),
    (dict(backbone=dict(img_size=(32, 64)), target_generator=dict(img_size=(32, 64))), 'square'),
    (dict(backbone=dict(feature_block=4)), 'Block 4 was asked for, but the network has blocks 1 to 3'),
    (dict(target_generator=dict(block=0)), 'Block 0 was asked for, but the network has blocks 1 to 4'),
    (dict(target_generator=dict(arch=STUDENT)), 'has embed_dims=48, but the teacher is configured with 24'),
    (dict(target_generator=dict(checkpoint=None)), 'No teacher'),
    (dict(feat_weight=0), 'feat_weight is positive, but 0 was given'),
])
def test_bad_configs_give_one_sentence(build, changes, message):
    with pytest.raises(Exception) as caught:
        build(**changes)
    error = root_cause(caught.value)
    assert isinstance(error, UserInputError) and message in str(error) and '\n' not in str(error)


def test_images_of_another_size_are_refused(build):
    with pytest.raises(UserInputError, match='Images of 48 x 48 px arrived, but img_size is 32 x 32'):
        build()(torch.randn(1, 3, 48, 48), mode='loss')


# ------------------------------------------------------------------------------------------- in mmengine's Runner
def test_a_run_and_its_checkpoint(teacher_file, image_folder, tmp_path):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    model = dict(dmae_cfg(teacher_file), data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[128.] * 3, std=[64.] * 3, to_rgb=True))
    runner = Runner.from_cfg(Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mimhd_mm']), work_dir=str(tmp_path), model=model,
        train_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='CustomDataset', data_root=str(image_folder), with_label=False, pipeline=pipeline)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)), train_cfg=dict(by_epoch=True, max_epochs=1),
        default_hooks=dict(teacher_file=dict(type='TeacherFileHook'),
                           checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0), log_level='ERROR', experiment_name=tmp_path.name)))
    runner.train()
    checkpoint = load_checkpoint_safely(tmp_path / 'epoch_1.pth')
    assert {key.split('.')[0] for key in checkpoint['state_dict']} == {'backbone', 'neck', 'projection'}
    assert checkpoint['meta']['teacher']['path'] == str(teacher_file)
    plain = VisionTransformer(arch=STUDENT, out_type='raw', init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'), prefix='backbone.'), **SIZE)
    plain.init_weights()
    student = {key[9:]: v for key, v in checkpoint['state_dict'].items() if key.startswith('backbone.')}
    assert set(plain.state_dict()) == set(student)
    assert all(torch.equal(value, student[key]) for key, value in plain.state_dict().items())
    plain.eval()
    runner.model.eval()
    x = images()
    torch.testing.assert_close(plain(x)[0], runner.model.extract_feat(x)[0])
