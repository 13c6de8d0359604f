"""What the speed laboratory measures with: literal forms give this project's losses, counters count."""
import copy
import json
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lab.speed import accounting, relation_forms, report, stepping, variants
from lab.speed.interleaving import StudentsStep, interleave
from lab.speed.literal import LiteralMIMHD, PublicTinyMIM, broadcast_bytes, broadcast_kl
from mimhd_mm.engine.optimizers import FusedAdamW
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import memory, stand_ins
from mimhd_mm.measuring.timing import SECTIONS, Step, quartiles
from mimhd_mm.models import MIMHD, TinyMIM

from ...conftest import mimhd_cfg

CPU = torch.device('cpu')
TINY = stepping.Options('micro', tuple(variants.VARIANTS), CPU, 'float32', batch_size=2, repeats=2, warmup=0,
                        max_bytes=1e9, img_size=32)


# ---- literal steps ---------------------------------------------------------------------------------------------------
def build_pair(ours, literal, cfg):
    """A model of this project and its literal counterpart, teacher from the file and all that learns the same."""
    models = [cls(**{key: value for key, value in copy.deepcopy(cfg).items() if key != 'type'})
              for cls in (ours, literal)]
    for model in models:
        model.init_weights()
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    learned = dict(models[0].named_parameters())
    assert all(torch.equal(x, learned[name]) for name, x in models[1].named_parameters() if x.requires_grad)
    return [model.train() for model in models]


def assert_same_losses_and_gradients(models, images):
    found = []
    for model in models:
        torch.manual_seed(3)  # the same masks, the same drop path
        losses = model(images, mode='loss')
        sum(losses.values()).backward()
        found.append({**losses, **{name: x.grad for name, x in model.named_parameters() if x.grad is not None}})
    ours, literal = found
    assert set(ours) == set(literal) and len(ours) > 10
    for key in ours:
        torch.testing.assert_close(ours[key], literal[key], rtol=1e-3, atol=1e-6, msg=lambda text: f'{key}: {text}')


@pytest.mark.parametrize('matcher', [
    dict(type='AttentionHeadMatcher'), dict(type='AttentionHeadMatcher', descriptor='mean', balance=None),
    dict(type='SelectHeadMatcher')], ids=lambda matcher: '-'.join(map(str, matcher.values())))
def test_literal_mimhd_has_this_projects_losses_and_gradients(teacher_file, matcher):
    cfg = mimhd_cfg(teacher_file, head=dict(matcher=matcher), neck=dict(mask_ratio=0.4), rec_weight=2.)
    ours, literal = build_pair(MIMHD, LiteralMIMHD, cfg)
    assert len(literal.target_generator.encoder.layers) == 4 > len(ours.target_generator.encoder.layers)
    assert_same_losses_and_gradients((ours, literal), torch.randn(3, 3, 32, 32))


def test_public_tinymim_has_this_projects_losses_and_gradients(teacher_file):
    cfg = mimhd_cfg(teacher_file, head=dict(matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True),
                    backbone=dict(relation_heads=4, constant_drop_path=0.3))
    del cfg['neck'], cfg['rec_head']
    assert_same_losses_and_gradients(build_pair(TinyMIM, PublicTinyMIM, cfg), torch.randn(4, 3, 32, 32))


# ---- counting --------------------------------------------------------------------------------------------------------
def test_peak_counts_what_is_alive_at_once():
    x = torch.randn(1000)  # there before: not counted

    def compute():
        y = x * 2  # 4000 bytes
        z = y + 1  # 8000
        del y  # 4000
        x.add_(1)  # in place
        return z.view(10, 100) - 1  # 8000, a view is no storage

    assert memory.peak_bytes(compute, CPU) == 8000


def test_peak_sees_what_the_backward_pass_keeps():
    x = torch.randn(100, 100, requires_grad=True)
    once = memory.peak_bytes(lambda: x.exp().exp().sum().backward(), CPU)
    with torch.no_grad():
        assert memory.peak_bytes(lambda: x.exp().exp().sum(), CPU) < once
    assert once >= 3 * 40000  # two results kept, and a gradient


def test_flops_of_a_block_are_those_by_hand_with_fused_attention_too():
    batch, heads, tokens, width = 2, 4, 16, 8
    x = torch.randn(batch, tokens, heads * width)
    layer = nn.Linear(heads * width, heads * width, bias=False)

    def compute():
        y = layer(x).view(batch, tokens, heads, width).transpose(1, 2)  # (B, M, N, d)
        F.scaled_dot_product_attention(y, y, y).sum().backward()

    linear = 2 * batch * tokens * (heads * width) ** 2 * 2  # forward, and the weight's gradient
    attention = 2 * batch * heads * tokens ** 2 * width * (2 + 4)
    assert accounting.count_flops(compute) == linear + attention
    assert torch.backends.cuda.flash_sdp_enabled()


def test_matmuls_of_a_step_and_their_rate():
    x, layer = torch.randn(64, 32), nn.Linear(32, 16)
    with accounting.Accountant() as accountant:
        layer(layer(x) @ torch.randn(16, 32)).sum().backward()
    shapes = {matmul[:2]: count for matmul, count in accountant.matmuls.items()}
    assert shapes[(64, 32), (32, 16)] >= 2  # the layer, twice
    assert shapes[(16, 64), (64, 32)] == 2  # its weight's gradient
    assert accounting.Matmul((64, 32), (32, 16), torch.float32).flops == 2 * 64 * 32 * 16
    known = {}
    assert 0 < accounting.matmul_rate(accountant.matmuls, CPU, known) < float('inf')
    assert set(known) <= set(accountant.matmuls)
    assert accounting.matmul_rate({}, CPU, known) == 0
    matmul = accounting.Matmul((1, 1), (1, 1), torch.float32)  # 2 FLOPs, 4 times, 0.5 seconds each
    assert accounting.matmul_rate({matmul: 4}, CPU, {matmul: 0.5}) == 4


# ---- steps -----------------------------------------------------------------------------------------------------------
def test_quartiles():
    assert quartiles([3., 1., 2., 5., 4.]) == (2, 3, 4)
    assert quartiles([7.]) == (7, 7, 7)


def test_variants_take_turns():
    order = []

    def step(name):
        return lambda: order.append(name) or {'all': float(len(order))}

    rounds = interleave({name: step(name) for name in 'ABC'}, repeats=2, warmup=1)
    assert ''.join(order) == 'ABC' * 3
    assert [one['all'] for one in rounds['B']] == [5, 8]


@pytest.mark.slow
def test_all_variants_are_measured_and_their_figures_agree():
    results, notes = stepping.measure(TINY)
    assert notes == [] and [one['variant'] for one in results] == list(variants.VARIANTS)
    by_name = {one['variant']: one for one in results}
    for one in results:
        assert len(one['rounds']) == 2 and tuple(one['rounds'][0]) == SECTIONS
        median = quartiles([sum(each.values()) for each in one['rounds']]).median
        assert one['seconds']['median'] == median
        assert one['images_per_second'] == pytest.approx(2 / median)
        assert one['flops_per_second'] == pytest.approx(one['flops'] / median)
        assert one['share_of_matmul_rate'] == pytest.approx(one['flops_per_second'] / one['matmul_flops_per_second'])
        for section in ('teacher', 'student', 'relations', 'backward', 'optimiser'):
            assert one['sections'][section]['median'] > 0, section
    assert by_name['mimhd']['ratio']['median'] == 1
    ours = [by_name['mimhd']['rounds'][i] for i in range(2)]
    ratios = [sum(by_name['tinymim']['rounds'][i].values()) / sum(ours[i].values()) for i in range(2)]
    assert by_name['tinymim']['ratio']['median'] == pytest.approx(sum(ratios) / 2)
    # the literal step runs the rest of the teacher and all of the decoder's last block, and keeps every attention
    assert by_name['literal']['flops'] > by_name['mimhd']['flops'] > by_name['mimhd-half']['flops']
    assert by_name['mimhd']['flops'] > by_name['tinymim']['flops']
    # the one matmul for all pairs of heads, and no more, comes on top of comparing head with head
    assert 1 < by_name['tinymim']['flops'] / by_name['public-tinymim']['flops'] < 1.01
    assert by_name['literal']['peak_bytes'] > by_name['mimhd']['peak_bytes'] > by_name['tinymim']['peak_bytes']

    table = report.markdown(stepping.table_rows(results, with_data=False)).splitlines()
    assert len(table) == 2 + len(results) and len({line.count('|') for line in table}) == 1
    assert ' data ' not in table[0] and table[2].startswith('| mimhd |')
    json.dumps(results)


def flops_of(model, images) -> int:
    """Of a model's forward and backward pass."""
    return accounting.count_flops(lambda: model.parse_losses(model(images, mode='loss'))[0].backward())


def test_a_step_has_no_more_arithmetic_than_it_had():
    """Waste creeps in unseen where only time is looked at. Counts are exact; the bounds are today's and 0.1 % more."""
    flops = {}
    images = torch.randn(4, 3, 32, 32)
    for name in ('tinymim', 'mimhd', 'mimhd-half'):
        model, _ = variants.build_variant(name, 'micro', img_size=32)
        flops[name] = flops_of(model, images)
    assert 0.5 * 852_141_056 < flops['tinymim'] <= 1.001 * 852_141_056
    assert 1 < flops['mimhd'] / flops['tinymim'] <= 1.001 * 1.25555
    assert 1 < flops['mimhd-half'] / flops['tinymim'] <= 1.001 * 1.15587


@pytest.mark.slow
def test_students_together_and_apart():
    results, notes = stepping.measure(TINY._replace(students='micro'))
    by_name = {one['variant']: one for one in results}
    assert notes == [] and list(by_name) == ['apart', 'micro', 'nano', 'together']
    alone = by_name['micro'], by_name['nano']
    for key in ('flops', 'peak_bytes'):
        assert by_name['apart'][key] == (sum if key == 'flops' else max)(one[key] for one in alone)
    for number, rounds in enumerate(zip(*(one['rounds'] for one in alone))):
        assert by_name['apart']['rounds'][number] == {
            section: sum(one[section] for one in rounds) for section in SECTIONS}
    together = by_name['together']
    for section in ('teacher', 'student', 'relations', 'decoder', 'backward', 'optimiser'):
        assert all(one[section] > 0 for one in together['rounds']), section
    ratios = [sum(one.values()) / sum(other.values()) for one, other in zip(
        together['rounds'], by_name['apart']['rounds'])]
    assert together['ratio']['median'] == pytest.approx(sum(ratios) / 2)
    assert together['peak_bytes'] < sum(one['peak_bytes'] for one in alone)  # one teacher, activations in turns
    json.dumps(results)


def test_students_together_need_the_teachers_flops_once():
    steps = stepping.build_student_steps(TINY._replace(students='micro'))
    images = steps['micro'].batch()
    flops = {name: accounting.count_flops(lambda: step.without_update(images)) for name, step in steps.items()}
    teacher = accounting.count_flops(lambda: steps['together'].model.teach(images['inputs']))
    assert teacher > 0 and flops['together'] == flops['micro'] + flops['nano'] - teacher
    encoders = [step.model.target_generator.encoder.cls_token.data_ptr() for step in steps.values()]
    assert len(set(encoders)) == 1  # for teachers are large


def test_a_step_of_students_is_that_of_training():
    """The same weights as by ``train_step``, which preprocesses images as well."""
    found = []
    for by_step in (True, False):
        torch.manual_seed(0)
        random.seed(0)  # of the patches that are seen
        model, cfg = variants.build_students('micro', img_size=32)['together']
        optimiser = stand_ins.build_optimiser(cfg, model, CPU, 'float32')
        images = torch.randn(2, 3, 32, 32)
        if by_step:
            StudentsStep(model, optimiser, lambda: dict(inputs=images), CPU)()
        else:
            model.data_preprocessor.mean.zero_(), model.data_preprocessor.std.fill_(1)
            model.train_step(dict(inputs=images.flip(1), data_samples=[]), optimiser)  # it swaps BGR
        found.append(model.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_a_step_trains_the_student_and_no_teacher():
    model, cfg = variants.build_variant('literal', 'micro', img_size=32)
    images = stand_ins.random_images(cfg, 2, CPU)
    step = Step(model, stand_ins.build_optimiser(cfg, model, CPU, 'bfloat16'), lambda: dict(inputs=images), CPU)
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    step()
    changed = {name.split('.')[0] for name, x in model.named_parameters() if not torch.equal(x, before[name])}
    assert changed == {'backbone', 'neck', 'head'}


def test_teachers_keep_their_weights_in_the_type_of_the_step():
    """Of this project; the public form casts at every step."""
    def weights(name, dtype):
        model, _ = variants.build_variant(name, 'micro', img_size=32, dtype=dtype)
        return model.target_generator.encoder.layers[0].attn.qkv.weight.dtype

    assert weights('mimhd', 'float32') == weights('literal', 'bfloat16') == torch.float32
    assert weights('mimhd-bf16', variants.VARIANTS['mimhd-bf16'].dtype_on(CPU, 'float32')) == torch.bfloat16
    assert variants.VARIANTS['tinymim'].dtype_on(CPU, 'float32') == 'float32'


def test_teachers_are_in_memory_once():
    models = [variants.build_variant(name, 'micro', img_size=32)[0] for name in ('mimhd', 'literal')]
    variants.share_frozen(models)
    first, second = (model.target_generator.encoder.layers[0].attn.qkv.weight for model in models)
    assert first.data_ptr() == second.data_ptr()
    first, second = (model.backbone.layers[0].attn.qkv.weight for model in models)
    assert first.data_ptr() != second.data_ptr()


def test_a_variant_that_does_not_fit_is_left_out_with_a_note():
    results, notes = stepping.measure(TINY._replace(variants=('tinymim', 'literal'), max_bytes=10., repeats=1))
    assert [one['variant'] for one in results] == ['tinymim']
    assert len(notes) == 1 and notes[0].startswith('literal was left out: its broadcast KL needs')
    with pytest.raises(UserInputError, match='literal was left out'):
        stepping.measure(TINY._replace(variants=('literal', ), max_bytes=10.))


def test_sweep_of_tokens_grows():
    results, _ = stepping.sweep('tokens', [16, 64], TINY._replace(variants=('tinymim', ), repeats=1, img_size=None))
    assert [one['value'] for one in results] == [16, 64]
    assert results[1]['flops'] > 4 * results[0]['flops']  # linear layers four times, relations sixteen
    assert [point[0] for point in stepping.curves_of(results)['tinymim']] == [16, 64]
    with pytest.raises(UserInputError, match='a square number'):
        stepping.sweep('tokens', [50], TINY)


def test_a_sweep_goes_on_where_nothing_fits():
    options = TINY._replace(variants=('literal', ), repeats=1, max_bytes=2.5e5)
    results, notes = stepping.sweep('batch', [1, 64], options)
    assert [one['value'] for one in results] == [1]
    assert len(notes) == 1 and notes[0].startswith('batch 64: literal was left out: its broadcast KL needs')
    with pytest.raises(UserInputError, match='batch 64: literal was left out.* batch 128: '):
        stepping.sweep('batch', [64, 128], options)


def test_variants_of_the_optimiser_change_nothing_else():
    models = {}
    for name in ('mimhd', 'mimhd-adamw', 'mimhd-foreach'):
        torch.manual_seed(0)
        model, cfg = variants.build_variant(name, 'micro', img_size=32)
        models[name] = model, stand_ins.build_optimiser(cfg, model, CPU, 'float32').optimizer
    assert [type(optimiser) for _, optimiser in models.values()] == [FusedAdamW, torch.optim.AdamW, torch.optim.AdamW]
    assert [optimiser.defaults['foreach'] for _, optimiser in models.values()] == [None, None, True]
    settings = [{key: value for key, value in optimiser.defaults.items() if key not in ('fused', 'foreach')}
                for _, optimiser in models.values()]
    assert settings[0] == settings[1] == settings[2]
    weights = [torch.cat([x.flatten() for x in model.parameters()]) for model, _ in models.values()]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert not {'mimhd-adamw', 'mimhd-foreach'} & set(variants.DEFAULT_VARIANTS)


# ---- relations -------------------------------------------------------------------------------------------------------
def test_the_two_forms_of_the_relation_loss_are_equal_and_the_broadcast_takes_more():
    results, notes = relation_forms.measure([9, 64, 4000], [(3, 4)], 2, CPU, repeats=2, max_bytes=1e8)
    assert [one['tokens'] for one in results] == [9, 64]
    assert len(notes) == 1 and 'N = 4000: left out' in notes[0]
    memory = results[1]['peak_bytes']
    numbers = 2 * 3 * 4 * 64 * 64
    assert memory['matmul'] < 8 * numbers <= memory['broadcast'] <= broadcast_bytes(2, 3, 4, 64)
    row = relation_forms.table_rows(results)[1]
    assert row['times less'] == pytest.approx(memory['broadcast'] / memory['matmul'])


def test_broadcast_kl_is_the_divergence_by_a_loop():
    student, teacher = (torch.randn(1, heads, 3, 3).log_softmax(-1) for heads in (2, 3))
    found = broadcast_kl(student, teacher)
    for m2 in range(2):
        for m1 in range(3):
            by_hand = sum(torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x[row])
                                                              for x in (teacher[0, m1], student[0, m2])))
                          for row in range(3)) / 3
            torch.testing.assert_close(found[0, m2, m1], by_hand)


def test_forms_that_differ_are_noticed(monkeypatch):
    monkeypatch.setitem(relation_forms.FORMS, 'broadcast', lambda *relations: broadcast_kl(*relations) * 1.01)
    with pytest.raises(AssertionError, match='distances of the two forms differ'):
        relation_forms.measure([9], [(3, 4)], 2, CPU, repeats=1, max_bytes=1e8)
