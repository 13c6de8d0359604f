"""MIMHD: the whole algorithm, alone and in mmengine's Runner."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.models import VisionTransformer

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.models.views import draw_images, draw_views
from mimhd_mm.registry import MODELS

from ..conftest import SIZE, STUDENT, mimhd_cfg


def images(batch=2):
    return torch.randn(batch, 3, 32, 32)


def test_exact_set_of_loss_keys(build_mimhd):
    assert set(build_mimhd()(images(), mode='loss')) == {'loss_qk', 'loss_vv', 'loss_rec'}
    assert set(build_mimhd(rec_weight=0)(images(), mode='loss')) == {'loss_qk', 'loss_vv'}


def test_gradients_reach_what_learns_and_nothing_else(build_mimhd):
    model = build_mimhd()
    model.train()
    sum(model(images(), mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith('target_generator.') or name.endswith(('backbone.pos_embed', 'log_scale')) or (
            name.startswith('neck.') and not name.startswith(('neck.connector', 'neck.mask_token')))
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name  # so DDP needs no find_unused_parameters


@pytest.mark.parametrize('block', [2, 3])
def test_without_reconstruction_all_that_can_learn_gets_a_gradient(build_mimhd, block):
    model = build_mimhd(rec_weight=0, backbone=dict(relation_block=block))
    sum(model(images(), mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) != parameter.requires_grad, name
    assert model.backbone.layers[block - 1].attn.qkv.weight.requires_grad
    assert not model.backbone.layers[block - 1].attn.proj.weight.requires_grad


def test_reconstruction_alone_reaches_the_student_through_the_frozen_decoder(build_mimhd):
    model = build_mimhd()
    model(images(), mode='loss')['loss_rec'].backward()
    assert all(layer.attn.qkv.weight.grad.abs().sum() > 0 for layer in model.backbone.layers)


def test_activation_checkpointing_changes_no_gradient(teacher_file):
    """For small GPUs: all blocks but those that run in parts (the tapped one, the decoder's first and last)."""
    from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
    inputs, gradients = images(), []
    for names in ([], ['backbone.layers.0', 'backbone.layers.1', 'neck.decoder_blocks.1', 'neck.decoder_blocks.0.ffn',
                       'neck.decoder_blocks.2.ffn']):
        torch.manual_seed(1)
        model = MODELS.build(mimhd_cfg(teacher_file, neck=dict(decoder_depth=3), backbone=dict(drop_path_rate=0.3)))
        if names:
            turn_on_activation_checkpointing(model, names)
        model.train()
        torch.manual_seed(2)
        sum(model(inputs, mode='loss').values()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], msg=name)


def test_teacher_is_in_eval_and_unchanged_after_a_step(build_mimhd):
    model = build_mimhd()
    before = copy.deepcopy(dict(model.target_generator.named_parameters()))
    decoder = copy.deepcopy(dict(model.neck.named_parameters()))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    sum(model(images(), mode='loss').values()).backward()
    optimizer.step()
    assert not any(module.training for module in model.target_generator.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.target_generator.named_parameters())
    for name, value in model.neck.named_parameters():
        assert torch.equal(value, decoder[name]) != name.startswith(('connector', 'mask_token')), name


def test_reconstruction_loss_is_the_error_of_blind_predictions(build_mimhd):
    """Eq. 10 by hand: every patch, from the view that hid it, against normalised pixels."""
    model, x = build_mimhd(rec_weight=2.5), images()
    torch.manual_seed(5)
    loss = model(x, mode='loss')['loss_rec']
    tokens = model.backbone.forward_relation(x)[0]
    torch.manual_seed(5)
    masks = draw_views(2, 16)
    views = model.neck(tokens, masks)
    error = 0.
    for b in range(2):
        for n in range(16):
            row, column = divmod(n, 4)
            patch = x[b, :, row * 8:row * 8 + 8, column * 8:column * 8 + 8].permute(1, 2, 0).flatten()
            target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            blind = views[0, b, n] if masks[0, b, n] else views[1, b, n]
            error += (blind - target).square().mean() / 32
    torch.testing.assert_close(loss, 2.5 * error)


def test_one_view_counts_hidden_patches_only(build_mimhd):
    model, x = build_mimhd(neck=dict(num_views=1, mask_ratio=0.25)), images()
    torch.manual_seed(5)
    loss = model(x, mode='loss')['loss_rec']
    torch.manual_seed(5)
    result = model.reconstruct(x)
    error = (result.views[0] - model.rec_head.construct_target(x)).square().mean(-1)
    torch.testing.assert_close(loss, error[result.masks[0]].mean())


def test_some_images_reconstructed_are_a_mean_over_those(build_mimhd):
    """With the draws of `draw_images`, uniform as its test shows, the mean over them estimates that over all."""
    model, x = build_mimhd(rec_fraction=0.5, rec_weight=2.5), images(5)
    torch.manual_seed(5)
    loss = model(x, mode='loss')['loss_rec']
    gradients = torch.autograd.grad(loss, [model.backbone.cls_token, model.neck.mask_token])
    torch.manual_seed(5)
    chosen = draw_images(5, 0.5)
    masks = draw_views(2, 16)
    assert len(chosen) == 2
    target, error = model.rec_head.construct_target(x), 0.
    for image, of_image in zip(chosen, masks.unbind(1)):
        tokens = model.backbone.forward_relation(x[image][None])[0]
        views = model.neck(tokens, of_image[:, None])  # (2, 1, 16, 192)
        blind = torch.where(of_image[0, :, None], views[0, 0], views[1, 0])
        error += 2.5 * (blind - target[image]).square().mean() / 2
    torch.testing.assert_close(loss, error)
    expected = torch.autograd.grad(error, [model.backbone.cls_token, model.neck.mask_token])
    for ours, theirs in zip(gradients, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_relations_are_of_all_images_however_many_are_reconstructed(build_mimhd):
    model, x = build_mimhd(), images(4)
    every = model(x, mode='loss')
    model.rec_fraction = 0.1
    some = model(x, mode='loss')
    assert all(torch.equal(every[name], some[name]) for name in ('loss_qk', 'loss_vv'))
    assert torch.isfinite(some['loss_rec']) and not torch.equal(every['loss_rec'], some['loss_rec'])
    assert model.reconstruct(x).merged.shape[0] == 4  # pictures are of all


def test_teacher_and_decoder_are_loaded_last_so_no_initialiser_touches_them(build_mimhd, teacher_file):
    model = build_mimhd(init_cfg=[dict(type='Constant', layer='Linear', val=0.5)])
    tensors = torch.load(teacher_file, weights_only=True)['state_dict']
    assert torch.equal(model.target_generator.encoder.cls_token, tensors['backbone.cls_token'])
    assert torch.equal(model.neck.mask_token, tensors['neck.mask_token'])
    assert torch.equal(model.neck.decoder_pred.weight, tensors['neck.decoder_pred.weight'])


def test_student_block_nine_of_table_four(build_mimhd):
    model = build_mimhd(backbone=dict(relation_block=2))
    losses = model(images(), mode='loss')
    (losses['loss_qk'] + losses['loss_vv']).backward()
    assert model.backbone.layers[2].attn.qkv.weight.grad is None
    assert model.backbone.layers[1].attn.qkv.weight.grad.abs().sum() > 0


def test_bfloat16_is_close(build_mimhd):
    model, x = build_mimhd(), images(8)
    torch.manual_seed(1)
    exact = model(x, mode='loss')
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16):
        rough = model(x, mode='loss')
    for key in exact:
        torch.testing.assert_close(rough[key].float(), exact[key], rtol=0.05, atol=1e-3)


def test_other_and_non_square_inputs(build_mimhd):
    model = build_mimhd(rec_weight=0)
    assert all(torch.isfinite(value) for value in model(torch.randn(2, 3, 48, 24), mode='loss').values())


@pytest.mark.parametrize('changes, message', [
    (dict(backbone=dict(img_size=64)), 'The student has 8 x 8 patches and the teacher 4 x 4'),
    (dict(target_generator=dict(block=5)), 'Block 5 was asked for, but the network has blocks 1 to 4'),
    (dict(rec_weight=-1), 'rec_weight'),
    (dict(rec_fraction=0), 'rec_fraction is a share of the images above 0 and up to 1, not 0'),
    (dict(rec_fraction=1.5), 'rec_fraction'),
    (dict(rec_head=None), '`neck` and `rec_head` belong together'),
    (dict(head=dict(matcher=dict(type='OneToOneHeadMatcher', relation_heads=5))), '5 heads do not divide the student'),
    (dict(head=dict(loss=dict(type='RelationDistillLoss', criterion='JS'))), "Unknown criterion 'JS'"),
    (dict(neck=dict(mask_ratio=0)), 'mask_ratio'),
])
def test_bad_configs_give_one_sentence(teacher_file, changes, message):
    with pytest.raises(UserInputError) as caught:
        MODELS.build(mimhd_cfg(teacher_file, **changes))
    sentence = str(root_cause(caught.value))
    assert message in sentence and '\n' not in sentence and not sentence.startswith('class `')


# ---- in the Runner ---------------------------------------------------------------------------------------------------
def runner_cfg(teacher_file, image_folder, work_dir, epochs=2, **changes):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    return Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mimhd_mm']), work_dir=str(work_dir),
        model=mimhd_cfg(teacher_file, data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[128.] * 3, std=[64.] * 3, to_rgb=True)),
        train_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='CustomDataset', data_root=str(image_folder), with_label=False, pipeline=pipeline)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, convert_to_iter_based=True)],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2), checkpoint=dict(type='CheckpointHook', interval=1),
            head_weight=dict(type='HeadWeightHook', interval=2), teacher_file=dict(type='TeacherFileHook')),
        randomness=dict(seed=0), log_level='ERROR', experiment_name=f'{work_dir.name}_{epochs}_{id(changes)}',
        **changes))


@pytest.fixture(scope='module')
def trained(teacher_file, image_folder, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('run')
    Runner.from_cfg(runner_cfg(teacher_file, image_folder, work_dir)).train()
    return work_dir


def test_checkpoint_holds_the_student_and_never_the_teacher(trained, teacher_file):
    checkpoint = load_checkpoint_safely(trained / 'epoch_2.pth')
    keys = set(checkpoint['state_dict'])
    assert not any(key.startswith('target_generator') for key in keys)
    assert {key.split('.')[0] for key in keys} == {'backbone', 'neck', 'head'}
    assert {key for key in keys if key.startswith('neck')} == {
        'neck.connector.weight', 'neck.connector.bias', 'neck.mask_token'}
    assert any(key.startswith('head.matchers.vv.proj_teacher') for key in keys)
    assert {'optimizer', 'param_schedulers'} <= set(checkpoint)
    from mimhd_mm.weights.reading import sha256_of
    assert checkpoint['meta']['teacher'] == dict(path=str(teacher_file), sha256=sha256_of(teacher_file))


def test_log_has_the_figures_of_the_heads(trained):
    log = ''.join(path.read_text() for path in trained.glob('*/vis_data/*.json'))
    for name in ('loss_qk', 'loss_rec', 'head_entropy_qk', 'head_coverage_vv', 'head_spread_qk'):
        assert f'"{name}"' in log


def test_plain_vision_transformer_loads_the_student_completely(trained):
    checkpoint = str(trained / 'epoch_2.pth')
    plain = VisionTransformer(arch=STUDENT, out_type='raw', init_cfg=dict(
        type='Pretrained', checkpoint=checkpoint, prefix='backbone.'), **SIZE)
    plain.init_weights()
    saved = load_checkpoint_safely(checkpoint)['state_dict']
    student = {key[9:]: value for key, value in saved.items() if key.startswith('backbone.')}
    assert set(plain.state_dict()) == set(student)
    assert all(torch.equal(value, student[key]) for key, value in plain.state_dict().items())
    classifier = VisionTransformer(arch=STUDENT, out_type='avg_featmap', final_norm=False, **SIZE)
    missing, unexpected = classifier.load_state_dict(student, strict=False)
    assert set(missing) == {'ln2.weight', 'ln2.bias'} and set(unexpected) == {'ln1.weight', 'ln1.bias'}


def test_loading_forgives_exactly_the_teachers_keys(trained, build_mimhd):
    state_dict = load_checkpoint_safely(trained / 'epoch_2.pth')['state_dict']
    model = build_mimhd()
    assert model.load_state_dict(state_dict, strict=True).missing_keys == []
    del state_dict['backbone.cls_token']
    with pytest.raises(RuntimeError, match='backbone.cls_token'):
        model.load_state_dict(state_dict, strict=True)
    load_checkpoint(model, str(trained / 'epoch_2.pth'), strict=True)  # mmengine's own loader agrees


@pytest.mark.parametrize('load', ['torch', 'mmengine'])
def test_names_that_the_teacher_has_too_are_missed_in_the_student(load, trained, build_mimhd, tmp_path):
    """Its ``ln1`` has the teacher's ending: ``backbone.layers.0.ln1.weight``, ``backbone.ln1.weight``."""
    state_dict = load_checkpoint_safely(trained / 'epoch_2.pth')['state_dict']
    norms = [key for key in state_dict if key.startswith('backbone.') and '.ln1.' in key]
    assert len(norms) == 8
    whole = {key: value for key, value in state_dict.items() if key not in norms}
    torch.save(dict(state_dict=whole), tmp_path / 'no_norms.pth')
    with pytest.raises(RuntimeError) as caught:
        if load == 'torch':
            build_mimhd().load_state_dict(whole, strict=True)
        else:
            load_checkpoint(build_mimhd(), str(tmp_path / 'no_norms.pth'), strict=True)
    assert all(key in str(caught.value) for key in norms) and 'target_generator' not in str(caught.value)


def test_resume_goes_on_with_the_same_teacher(trained, teacher_file, image_folder):
    runner = Runner.from_cfg(runner_cfg(teacher_file, image_folder, trained, epochs=3, resume=True))
    runner.train()
    assert runner.epoch == 3 and (trained / 'epoch_3.pth').exists()
    tensors = torch.load(teacher_file, weights_only=True)['state_dict']
    assert torch.equal(runner.model.target_generator.encoder.cls_token, tensors['backbone.cls_token'])


def test_resume_refuses_another_teacher(trained, teacher_file, image_folder, tmp_path):
    content = torch.load(teacher_file, weights_only=True)
    content['state_dict']['backbone.cls_token'] += 1
    torch.save(content, tmp_path / 'another.pth')
    cfg = runner_cfg(tmp_path / 'another.pth', image_folder, trained, epochs=4, resume=True)
    with pytest.raises(UserInputError, match='Cannot resume: this checkpoint was taught by'):
        Runner.from_cfg(cfg).train()


def test_a_new_start_from_another_teachers_student_is_told(trained, teacher_file, image_folder, tmp_path):
    content = torch.load(teacher_file, weights_only=True)
    content['state_dict']['backbone.cls_token'] += 1
    torch.save(content, tmp_path / 'another.pth')
    cfg = runner_cfg(tmp_path / 'another.pth', image_folder, tmp_path / 'run', epochs=1,
                     load_from=str(trained / 'epoch_2.pth'))
    cfg.log_level = 'WARNING'
    Runner.from_cfg(cfg).train()
    assert 'Loaded for a new start: this checkpoint was taught by' in next(tmp_path.rglob('*.log')).read_text()
