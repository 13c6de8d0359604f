"""A part of the tokens: equal to the slow version, which runs all patches and hides those that are not seen."""
import copy
import random

import pytest
import torch

from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.models.attention import project_qkv
from mimhd_mm.models.relation import QKV, Factors, log_softmax_of, with_cls
from mimhd_mm.models.views import asked_patches, count_asked, count_seen, draw_seen, draw_views, spread_views
from mimhd_mm.registry import MODELS

from ..conftest import mimhd_cfg
from .test_mimhd import images


def masked_pass(vit, x, seen, upto):
    """All patches run, but none attends to one that is not seen; q, k, v of a block and the tokens of the seen ones."""
    numbers = with_cls(seen)
    tokens = vit.embed(x)
    allowed = torch.zeros(tokens.shape[:2], dtype=torch.bool).scatter(1, numbers, True)[:, None, None]
    take = numbers[:, :, None].expand(-1, -1, tokens.shape[-1])
    for number, layer in enumerate(vit.layers, start=1):
        qkv = project_qkv(layer.attn, layer.ln1(tokens))
        if number == upto:
            tapped = QKV(*(torch.stack([side[b][:, numbers[b]] for b in range(len(x))]) for side in qkv))
            if not hasattr(layer, 'ffn'):
                return None, tapped
        weights = (qkv.q @ qkv.k.mT / qkv.q.shape[-1] ** 0.5).masked_fill(~allowed, float('-inf')).softmax(-1)
        mixed = (weights @ qkv.v).transpose(1, 2).flatten(2)
        tokens = tokens + layer.attn.proj(mixed)
        tokens = layer.ffn(layer.ln2(tokens), tokens)
    return vit.ln1(tokens).gather(1, take), tapped


@pytest.fixture(params=[dict(), dict(img_size=(32, 48))], ids=['square', 'wide'])
def size(request):
    return request.param


def build(teacher_file, size=None, **changes):
    cfg = mimhd_cfg(teacher_file, **changes)
    for part in ('backbone', 'target_generator'):
        cfg[part].update(size or {})
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def test_student_and_teacher_equal_masked_attention(teacher_file, size):
    model = build(teacher_file, size, token_fraction=0.5)
    height, width = size.get('img_size', (32, 32))
    x = torch.randn(2, 3, height, width)
    seen = draw_seen(2, height * width // 64, 0.5)
    tokens, qkv = model.backbone.forward_relation(x, seen=seen)
    slow_tokens, slow_qkv = masked_pass(model.backbone, x, seen, upto=3)
    torch.testing.assert_close(tokens, slow_tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(qkv.k, slow_qkv.k, rtol=1e-4, atol=1e-5)
    taught = model.target_generator(x, seen)
    _, slow = masked_pass(model.target_generator.encoder, x, seen, upto=3)
    for ours, theirs in zip(taught, slow):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_all_patches_gives_those_that_are_seen(teacher_file):
    model = build(teacher_file, target_generator=dict(token_fraction=1.0))
    x, seen = images(), draw_seen(2, 16, 0.25)
    whole, part = model.target_generator(x), model.target_generator(x, seen)
    for b in range(2):
        for place, number in enumerate([0, *(seen[b] + 1).tolist()]):
            assert torch.equal(part.v[b, :, place], whole.v[b, :, number])
    same = build(teacher_file).target_generator(x, seen)
    assert not torch.allclose(same.v, part.v, atol=1e-3)


@pytest.mark.parametrize('num_views, mask_ratio, fraction', [
    (2, 0.5, 0.5), (2, 0.25, 0.3), (1, 0.5, 0.5), (1, 0., 0.25)])
def test_the_loss_equals_the_slow_one(teacher_file, num_views, mask_ratio, fraction):
    """Eq. 11 of what is seen: relations among seen patches, and each patch from a view that did not show it."""
    model = build(teacher_file, token_fraction=fraction, neck=dict(num_views=num_views, mask_ratio=mask_ratio))
    x = images()
    torch.manual_seed(3), random.seed(3)
    losses = model(x, mode='loss')
    torch.manual_seed(3), random.seed(3)
    seen = draw_seen(2, 16, fraction)
    hidden, asked = spread_views(draw_views(2, seen.shape[1], mask_ratio, num_views), seen, 16)
    tokens, student = masked_pass(model.backbone, x, seen, upto=3)
    _, teacher = masked_pass(model.target_generator.encoder, x, seen, upto=3)
    expected = model.head.loss(student, teacher)
    for key in ('loss_qk', 'loss_vv'):
        torch.testing.assert_close(losses[key], expected[key], rtol=1e-4, atol=1e-6)
    neck, target, errors = model.neck, model.rec_head.construct_target(x), []
    for view in range(num_views):
        for b in range(2):
            sequence = (neck.mask_token + neck.decoder_pos_embed)[0].clone()  # (17, C)
            embedded = neck.decoder_embed(neck.connector(tokens[b]))  # (1 + n, C)
            sequence[0] = embedded[0] + neck.decoder_pos_embed[0, 0]
            for place, number in enumerate(seen[b].tolist()):
                if not hidden[view, b, number]:
                    sequence[number + 1] = embedded[place + 1] + neck.decoder_pos_embed[0, number + 1]
            out = sequence[None]
            for block in neck.decoder_blocks:
                out = block(out)
            out = neck.decoder_pred(neck.decoder_norm(out))[0, 1:]
            errors += [(out[n] - target[b, n]).square().mean() for n in range(16) if asked[view, b, n]]
    assert len(errors) == 32 if num_views == 2 else len(errors) < 32
    torch.testing.assert_close(losses['loss_rec'], model.rec_weight * torch.stack(errors).mean(), rtol=1e-4, atol=1e-6)


def test_views_split_what_is_seen_and_ask_for_every_patch_once():
    seen = draw_seen(50, 16, 0.5)
    masks = draw_views(50, 8, 0.25)
    hidden, asked = spread_views(masks, seen, 16)
    unseen = torch.ones(50, 16, dtype=torch.bool).scatter(1, seen, False)
    assert (hidden | ~unseen).all() and (hidden & asked == asked).all()
    assert torch.equal(hidden.gather(2, seen.expand(2, -1, -1)), masks)
    assert torch.equal(asked.sum(0), torch.ones(50, 16, dtype=torch.long))
    assert torch.equal(asked[0].sum(1), torch.full((50,), count_asked(16, 8, 0.25, 2)))
    first, second = asked_patches(asked, count_asked(16, 8, 0.25, 2))
    assert asked[0].gather(1, first).all() and asked[1].gather(1, second).all()
    shares = (asked[0] & unseen).sum(0) / unseen.sum(0)  # no place belongs to one view
    assert 0.2 < shares.min() and shares.max() < 0.8


def test_every_patch_has_the_same_chance_to_be_seen():
    seen = draw_seen(4000, 16, 0.25)
    assert seen.shape == (4000, 4) and (seen.diff(dim=1) > 0).all()
    counts = torch.bincount(seen.flatten(), minlength=16) / 4000
    torch.testing.assert_close(counts, torch.full((16,), 0.25), rtol=0, atol=0.03)
    assert draw_seen(2, 16, 1.0) is None and count_seen(16, 0.01) == 2 and count_seen(16, 0.999) == 16


def test_a_draw_leaves_torchs_generator_alone_and_follows_pythons():
    random.seed(5)
    before = torch.get_rng_state()
    first, second = draw_seen(3, 16, 0.5), draw_seen(3, 16, 0.5)
    assert torch.equal(before, torch.get_rng_state()) and not torch.equal(first, second)
    random.seed(5)
    assert torch.equal(draw_seen(3, 16, 0.5), first)


def test_of_all_tokens_nothing_changes(teacher_file):
    """Bit by bit: at 1.0 nothing is drawn, and the passes are those without the option."""
    results = []
    for changes in (dict(), dict(token_fraction=1.0, target_generator=dict(token_fraction=1.0))):
        torch.manual_seed(0)
        model = build(teacher_file, **changes)
        torch.manual_seed(1)
        results.append((model(images(), mode='loss'), torch.get_rng_state()))
    assert all(torch.equal(results[0][0][key], results[1][0][key]) for key in results[0][0])
    assert torch.equal(results[0][1], results[1][1])


def test_all_that_can_learn_gets_a_gradient(teacher_file):
    for changes in (dict(rec_weight=0), dict(rec_fraction=0.5), dict(relation_block=dict(), rec_weight=0)):
        model = build(teacher_file, token_fraction=0.25, **changes)
        model.train()
        sum(model(images(4), mode='loss').values()).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is None) != parameter.requires_grad, name


def test_the_class_token_and_drop_path_go_with_it(teacher_file):
    model = build(teacher_file, token_fraction=0.25, head=dict(with_cls_token=True), backbone=dict(drop_path_rate=0.5))
    model.train()
    assert all(torch.isfinite(value) for value in model(images(), mode='loss').values())


def test_the_relation_block_is_compared_and_not_deployed(teacher_file):
    """Its q, k, v have the teacher's head count, the last block learns as a whole, the backbone keeps its keys."""
    model = build(teacher_file, relation_block=dict(), rec_weight=0,
                  head=dict(matcher=dict(type='OneToOneHeadMatcher')))
    x = images()
    losses = model(x, mode='loss')
    tokens = model.backbone(x)[-1]
    block = model.relation_block
    normed = torch.nn.functional.layer_norm(tokens, (24,), block.norm.weight, block.norm.bias)
    q, k, v = (normed @ block.qkv.weight.mT + block.qkv.bias).chunk(3, -1)
    teacher = model.target_generator(x)
    for key, sides in (('loss_qk', (q, k)), ('loss_vv', (v, v))):
        ours = log_softmax_of(Factors(*(side[:, 1:].unflatten(-1, (4, 6)).transpose(1, 2) for side in sides)))
        theirs = log_softmax_of(Factors(*(side[:, :, 1:] for side in (
            (teacher.q, teacher.k) if key == 'loss_qk' else (teacher.v, teacher.v)))))
        torch.testing.assert_close(losses[key], (theirs.exp() * (theirs - ours)).sum(-1).mean())
    sum(losses.values()).backward()
    assert model.backbone.layers[-1].ffn.layers[1].weight.grad.abs().sum() > 0
    plain = {name for name in build(teacher_file).state_dict() if name.startswith('backbone.')}
    kept = model.state_dict()
    assert {name for name in kept if name.startswith('backbone.')} == plain
    assert {name for name in kept if name.startswith('relation_block.')} == {
        f'relation_block.{name}' for name in ('norm.weight', 'norm.bias', 'qkv.weight', 'qkv.bias')}


def test_all_students_of_one_teacher_see_the_same_patches(teacher_file):
    cfg = mimhd_cfg(teacher_file)
    teacher = cfg.pop('target_generator')
    students = {name: copy.deepcopy(cfg) for name in ('one', 'two')}
    model = MODELS.build(dict(type='mimhd_mm.MultiStudent', students=students, target_generator=teacher,
                              token_fraction=0.25))
    model.init_weights()
    shown = []
    for student in model.students.values():
        forward = student.backbone.forward_relation
        student.backbone.forward_relation = lambda *args, forward=forward, **kwargs: (
            shown.append(kwargs['seen']), forward(*args, **kwargs))[1]
    assert all(torch.isfinite(value) for value in model(images(), mode='loss').values())
    assert len(shown) == 2 and shown[0] is shown[1] and shown[0].shape == (2, 4)


@pytest.mark.parametrize('changes, message', [
    (dict(token_fraction=0), 'above 0 and up to 1'),
    (dict(token_fraction=1.5), 'token_fraction is the share'),
    (dict(target_generator=dict(token_fraction=0.5)), "is 'same', the patches that the student sees, or 1.0"),
    (dict(neck=dict(mask_ratio=0, num_views=1)), 'hides nothing of what the student saw'),
    (dict(neck=dict(mask_ratio=0), token_fraction=0.5), 'mask_ratio is a share'),
    (dict(relation_block=dict(num_heads=5, embed_dims=24)), '5 heads do not divide a width of 24'),
])
def test_wrong_settings_give_one_sentence(teacher_file, changes, message):
    with pytest.raises(UserInputError) as caught:
        MODELS.build(mimhd_cfg(teacher_file, **changes))
    assert message in str(root_cause(caught.value))


