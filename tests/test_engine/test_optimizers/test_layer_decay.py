"""The learning rate falls off by layer, for classifiers and segmentors; what gets weight decay."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.registry import MODELS

from ...conftest import SIZE, STUDENT

#: rate 0.5, three blocks: depth 0, then 1 to 3, then 4 for the last norm and what is not the backbone
SCALES = {
    'backbone.cls_token': 1 / 16, 'backbone.pos_embed': 1 / 16, 'backbone.patch_embed.projection.weight': 1 / 16,
    'backbone.patch_embed.projection.bias': 1 / 16, 'backbone.layers.0.ln1.weight': 1 / 8,
    'backbone.layers.0.attn.qkv.weight': 1 / 8, 'backbone.layers.1.attn.proj.bias': 1 / 4,
    'backbone.layers.2.ffn.layers.1.weight': 1 / 2, 'backbone.ln2.weight': 1, 'head.fc.weight': 1, 'head.fc.bias': 1}
DECAYED = {'backbone.patch_embed.projection.weight', 'head.fc.weight', *(
    f'backbone.layers.{i}.{name}.weight' for i in range(3)
    for name in ('attn.qkv', 'attn.proj', 'ffn.layers.0.0', 'ffn.layers.1'))}


def wrapper_cfg(constructor='BackboneLayerDecayConstructor', **paramwise):
    return dict(type='OptimWrapper', constructor=constructor, optimizer=dict(type='AdamW', lr=2., weight_decay=.1),
                paramwise_cfg=dict(layer_decay_rate=.5, **paramwise))


def classifier(**backbone):
    return MODELS.build(dict(
        type='ImageClassifier',
        backbone=dict(type='VisionTransformer', arch=dict(STUDENT), out_type='avg_featmap', final_norm=False, **SIZE,
                      **backbone),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=24)))


def groups(model, cfg) -> dict:
    """Parameter name to its group of the optimiser."""
    return {group['param_name']: group for group in build_optim_wrapper(model, cfg).optimizer.param_groups}


def test_learning_rates_by_hand():
    model = classifier()
    found = groups(model, wrapper_cfg())
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, scale in SCALES.items():
        assert found[name]['lr'] == 2 * scale and found[name]['lr_scale'] == scale, name


def test_weight_decay_on_matrices_only():
    found = groups(classifier(), wrapper_cfg())
    assert {name for name, group in found.items() if group['weight_decay']} == DECAYED
    assert {group['weight_decay'] for group in found.values()} == {0, .1}


def test_same_learning_rates_as_mmpretrain():
    """With mmpretrain's own settings for MAE; weight decay differs where those leave something out."""
    model = classifier()
    custom_keys = {key: dict(decay_mult=0.) for key in ('.ln', '.bias', '.cls_token', '.pos_embed')}
    theirs = groups(model, wrapper_cfg('LearningRateDecayOptimWrapperConstructor', custom_keys=custom_keys))
    ours = groups(model, wrapper_cfg(custom_keys=custom_keys))
    assert {name: group['lr'] for name, group in ours.items()} == {name: group['lr'] for name, group in theirs.items()}
    assert ours['backbone.cls_token']['weight_decay'] == theirs['backbone.cls_token']['weight_decay'] == 0
    bare = groups(model, wrapper_cfg('LearningRateDecayOptimWrapperConstructor'))  # without any list: all decay
    assert bare['backbone.cls_token']['weight_decay'] == bare['head.fc.bias']['weight_decay'] == .1


def test_frozen_parameters_are_left_out():
    found = groups(classifier(frozen_stages=2), wrapper_cfg())
    assert {name.split('.')[2] for name in found if name.startswith('backbone.layers.')} == {'2'}
    assert not {'backbone.cls_token', 'backbone.pos_embed', 'backbone.patch_embed.projection.weight'} & set(found)


def test_custom_keys_win():
    found = groups(classifier(), wrapper_cfg(bias_decay_mult=.5, custom_keys={'cls_token': dict(decay_mult=2.)}))
    assert found['backbone.cls_token']['weight_decay'] == .2
    assert found['backbone.pos_embed']['weight_decay'] == 0
    assert found['head.fc.bias']['weight_decay'] == .05


def test_wrapped_model():
    """As the Runner passes it under several GPUs."""
    model = classifier()
    wrapped = torch.nn.Module()
    wrapped.module = model
    assert groups(wrapped, wrapper_cfg())['backbone.cls_token']['lr'] == 2 / 16


@pytest.mark.parametrize('constructor', ['BackboneLayerDecayConstructor', 'mimhd_mm.BackboneLayerDecayConstructor'])
def test_segmentor(constructor):
    """From mmseg's scope, where mmseg's constructor refuses this backbone."""
    pytest.importorskip('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        from mmseg.registry import MODELS as SEGMENTORS
        model = SEGMENTORS.build(dict(
            type='EncoderDecoder',
            backbone=dict(type='mmpretrain.VisionTransformer', arch=dict(STUDENT), out_type='featmap', **SIZE),
            decode_head=dict(type='FCNHead', in_channels=24, channels=8, num_classes=3, num_convs=1)))
        found = groups(model, wrapper_cfg(constructor))
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found['backbone.pos_embed']['lr'] == 2 / 16 and found['backbone.pos_embed']['weight_decay'] == 0
    assert found['backbone.layers.2.attn.qkv.weight']['lr'] == 1 and found['backbone.ln1.weight']['lr'] == 2
    head = found['decode_head.conv_seg.weight']
    assert head['lr'] == 2 and head['weight_decay'] == .1


class ModelWithoutDepths(torch.nn.Module):
    """A model whose backbone cannot tell depths."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 2)


def refusal(model, cfg) -> str:
    with pytest.raises(Exception) as caught:
        build_optim_wrapper(model, cfg)
    error = root_cause(caught.value)
    assert isinstance(error, UserInputError)
    return str(error)


def test_backbone_without_depths_is_refused():
    message = refusal(ModelWithoutDepths(), wrapper_cfg())
    assert 'get_layer_depth' in message and 'Linear' in message and '\n' not in message


def test_unknown_options_are_refused():
    assert "'decay_rate'" in refusal(classifier(), wrapper_cfg(decay_rate=.5, num_layers=12))
    assert "'lr_mult'" in refusal(classifier(), wrapper_cfg(custom_keys=dict(head=dict(lr_mult=10.))))
    cfg = wrapper_cfg()
    del cfg['optimizer']['weight_decay']
    assert 'weight_decay' in refusal(classifier(), cfg)
