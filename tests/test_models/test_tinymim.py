"""TinyMIM: the loss equals an independent statement of the formula; what learns, and what each network is shown."""
import math

import pytest
import torch
from mmpretrain.models import VisionTransformer

from mimhd_mm.errors import UserInputError
from mimhd_mm.models.backbones.relation_vit import RelationViT
from mimhd_mm.registry import MODELS, TRANSFORMS

from ..conftest import SIZE, STUDENT, TEACHER, mimhd_cfg


def build_tinymim(teacher_file, **changes):
    cfg = mimhd_cfg(teacher_file, type='mimhd_mm.TinyMIM', backbone=dict(relation_heads=4), **changes)
    cfg['head'] = dict(type='RelationDistillHead', matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True)
    for key in ('neck', 'rec_head'):
        cfg.pop(key)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def qkv_of(backbone: VisionTransformer, images, block: int, heads: int):
    """q, k and v of one block, (3, B, heads, tokens, width a head), by a loop over mmpretrain's own layers."""
    tokens, _ = backbone.patch_embed(images)
    x = torch.cat([backbone.cls_token.expand(len(images), -1, -1), tokens], 1) + backbone.pos_embed
    for layer in backbone.layers[:block - 1]:
        x = layer(x)
    layer = backbone.layers[block - 1]
    qkv = torch.nn.functional.linear(layer.ln1(x), layer.attn.qkv.weight, layer.attn.qkv.bias)
    batch, number, width = qkv.shape
    return qkv.reshape(batch, number, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)


def reference_loss(student, teacher, first, second):
    """KL(teacher || student) of two relations as the public implementation has it: a mean over images, heads and
    query tokens of the sum over key tokens, image by image, head by head, row by row, with exponentials spelt out."""
    total, count = 0., 0
    batch, heads, number, _ = student[0].shape
    for image in range(batch):
        for head in range(heads):
            rows = []
            for side in (student, teacher):
                queries, keys = side[first][image, head].double(), side[second][image, head].double()
                scores = queries @ keys.T / math.sqrt(queries.shape[-1])
                exponentials = torch.exp(scores - scores.max(-1, keepdim=True).values)
                rows.append(exponentials / exponentials.sum(-1, keepdim=True))
            for token in range(number):
                ours, theirs = rows[0][token], rows[1][token]
                total += float((theirs * (theirs / ours).log()).sum())
                count += 1
    return total / count


def test_loss_is_the_public_implementations(teacher_file):
    model = build_tinymim(teacher_file).eval()
    for parameter in model.backbone.parameters():  # else the student's relations are nearly uniform
        torch.nn.init.normal_(parameter, std=0.5)
    images = torch.randn(2, 3, 32, 32)
    teacher = VisionTransformer(arch=TEACHER, out_type='raw', **SIZE)
    tensors = torch.load(teacher_file, weights_only=True)['state_dict']
    teacher.load_state_dict({key[9:]: value for key, value in tensors.items() if key.startswith('backbone.')})
    with torch.no_grad():
        losses = model(images, mode='loss')
        student = qkv_of(model.backbone, images, block=3, heads=4)  # rebuilt: 4 heads as the teacher, not 3
        target = qkv_of(teacher, images, block=3, heads=4)
    assert set(losses) == {'loss_qk', 'loss_vv'}
    assert losses['loss_qk'].item() == pytest.approx(reference_loss(student, target, 0, 1), rel=1e-4)
    assert losses['loss_vv'].item() == pytest.approx(reference_loss(student, target, 2, 2), rel=1e-4)
    # not the other direction, and not with the student's own head count
    assert abs(reference_loss(target, student, 0, 1) / losses['loss_qk'].item() - 1) > 0.01


def test_every_weight_that_can_learn_gets_a_gradient_and_the_teacher_none(teacher_file):
    model = build_tinymim(teacher_file)
    model.train()
    sum(model(torch.randn(2, 3, 32, 32), mode='loss').values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) != parameter.requires_grad, name
        assert parameter.grad is None or not name.startswith('target_generator.'), name
    last = model.backbone.layers[-1]
    assert not last.ffn.layers[1].weight.requires_grad and last.attn.qkv.weight.requires_grad


def test_student_sees_the_jittered_view_and_the_teacher_the_clean_one(teacher_file):
    model = build_tinymim(teacher_file).eval()
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    both = model([student, teacher], mode='loss')
    by_hand = model.head.loss(model.backbone.forward_relation(student)[1], model.target_generator(teacher))
    for key, value in both.items():
        assert value == by_hand[key]
    assert both['loss_qk'] != model([teacher, student], mode='loss')['loss_qk']
    assert model([student, student], mode='loss')['loss_qk'] == model(student, mode='loss')['loss_qk']


def test_mimhd_reconstructs_what_the_student_saw(build_mimhd):
    model = build_mimhd().eval()
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    torch.manual_seed(3)
    both = model([student, teacher], mode='loss')
    torch.manual_seed(3)
    alone = model(student, mode='loss')
    assert both['loss_rec'] == alone['loss_rec'] and both['loss_qk'] != alone['loss_qk']


def test_without_a_rebuilt_block_the_channels_are_cut_for_the_comparison(teacher_file):
    """The start is the same either way; the head count that is deployed is not."""
    losses = []
    for heads in (None, 4):
        cfg = mimhd_cfg(teacher_file, type='mimhd_mm.TinyMIM', head=dict(matcher=dict(type='OneToOneHeadMatcher')))
        cfg['backbone']['relation_heads'] = heads
        cfg.pop('neck'), cfg.pop('rec_head')
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        torch.manual_seed(1)
        losses.append(model(torch.randn(2, 3, 32, 32), mode='loss'))
        assert model.backbone.relation_heads == (heads or STUDENT['num_heads'])
    for key in ('loss_qk', 'loss_vv'):
        torch.testing.assert_close(losses[0][key], losses[1][key])


def test_constant_drop_path_spares_the_last_block():
    backbone = RelationViT(STUDENT, constant_drop_path=0.25, **SIZE)
    rates = [getattr(layer.attn.out_drop, 'drop_prob', 0.) for layer in backbone.layers]
    assert rates == [0.25, 0.25, 0.]
    with pytest.raises(UserInputError, match='exclude each other'):
        RelationViT(STUDENT, constant_drop_path=0.1, drop_path_rate=0.1, **SIZE)


def test_student_color_jitter_leaves_the_teachers_image():
    import numpy as np
    jitter = TRANSFORMS.build(dict(type='StudentColorJitter', brightness=0.4, contrast=0.4, saturation=0.4))
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    kept = image.copy()
    np.random.seed(0)
    student, teacher = jitter(dict(img=image))['img']
    assert (teacher == kept).all() and (student != kept).any() and student.shape == kept.shape
    packed = TRANSFORMS.build(dict(type='PackInputs'))(dict(img=[student, teacher]))['inputs']
    assert [tuple(view.shape) for view in packed] == [(3, 8, 10)] * 2
