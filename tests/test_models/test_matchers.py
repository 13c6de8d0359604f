"""Head matchers: one contract for the four, and what distinguishes them."""
import math

import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import (
    AttentionHeadMatcher,
    AverageHeadMatcher,
    ExplainHeadMatcher,
    OneToOneHeadMatcher,
    RegroupHeadMatcher,
    RelationDistillHead,
    RelationDistillLoss,
    SelectHeadMatcher,
)
from mimhd_mm.models.matchers.attention_head_matcher import DESCRIPTORS, column_descriptor, sample_descriptor, sinkhorn
from mimhd_mm.models.matchers.head_matchers import count_distinct
from mimhd_mm.models.relation import QKV, Factors, log_relation, log_softmax_of


def relations(student_heads, teacher_heads, batch=3, tokens=9, scale=2.):
    logits = [torch.randn(batch, heads, tokens, tokens) * scale for heads in (student_heads, teacher_heads)]
    return [x.log_softmax(-1) for x in logits]


def run(matcher, student, teacher):
    student, teacher = matcher.prepare(student, teacher)
    distance = RelationDistillLoss()(student, teacher)
    weight = matcher.match(student, teacher, distance)
    matcher.record(weight)
    return weight, distance


ATTENTION = [dict(descriptor=descriptor, balance=balance) for descriptor in DESCRIPTORS
             for balance in AttentionHeadMatcher.BALANCES]


@pytest.mark.parametrize('matcher, heads', [
    *((OneToOneHeadMatcher(4, 4), (4, 4)), (SelectHeadMatcher(3, 4), (3, 4)), (SelectHeadMatcher(6, 4), (6, 4)),
      (AverageHeadMatcher(3, 4), (3, 4)), (ExplainHeadMatcher(3, 4), (3, 4)), (ExplainHeadMatcher(4, 3), (4, 3)),
      (RegroupHeadMatcher(4, 4, student_dims=8), (4, 4))),
    *((AttentionHeadMatcher(m2, m1, **kwargs), (m2, m1)) for kwargs in ATTENTION for m2, m1 in ((3, 4), (4, 3))),
])
def test_contract(matcher, heads):
    weight, distance = run(matcher, *relations(*heads))
    assert weight.shape == distance.shape
    torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:2]))
    assert (weight >= 0).all()
    figures = matcher.diagnostics()
    assert set(figures) == {'head_entropy', 'head_coverage', 'head_spread', 'head_distinct', 'head_blur'}
    assert all(torch.isfinite(value) for value in figures.values())


def test_literal_descriptor_is_uniform_for_ever_and_learns_nothing():
    matcher = AttentionHeadMatcher(3, 4, descriptor='mean', balance=None, embeddings=False)
    optimizer = torch.optim.SGD(matcher.parameters(), lr=10.)
    for _ in range(3):
        weight, distance = run(matcher, *relations(3, 4))
        torch.testing.assert_close(weight, torch.full_like(weight, 1 / 4), rtol=0, atol=1e-6)
        optimizer.zero_grad()
        (weight * distance).sum(-1).mean().backward()
        assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in matcher.parameters())
        optimizer.step()


@pytest.mark.parametrize('descriptor', ['column', 'relation', 'sample'])
def test_other_descriptors_tell_heads_and_images_apart(descriptor):
    matcher = AttentionHeadMatcher(3, 4, descriptor=descriptor)
    weight, _ = run(matcher, *relations(3, 4))
    assert weight.std(1).mean() > 1e-3 and weight.std(0).mean() > 1e-3


def test_sample_descriptor_is_the_likeness_of_images_head_by_head():
    relation = torch.rand(3, 2, 5, 5).softmax(-1)  # (B, M, N, N)
    alike = torch.zeros(3, 2, 3)
    for head in range(2):
        for image in range(3):
            for other in range(3):
                alike[image, head, other] = torch.cosine_similarity(
                    relation[image, head].flatten(), relation[other, head].flatten(), dim=0)
    expected = alike - alike.mean(1, keepdim=True)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(sample_descriptor(relation), expected, rtol=1e-3, atol=1e-3)
    alone = sample_descriptor(relation[:1])  # one image: nothing to compare with
    torch.testing.assert_close(alone, torch.zeros_like(alone), rtol=0, atol=1e-2)


@pytest.mark.parametrize('descriptor', ['column', 'relation'])
def test_weight_does_not_depend_on_the_rest_of_the_batch(descriptor):
    matcher = AttentionHeadMatcher(3, 4, descriptor=descriptor)
    student, teacher = relations(3, 4)
    whole = run(matcher, student, teacher)[0]
    alone = run(matcher, student[1:2], teacher[1:2])[0]
    torch.testing.assert_close(whole[1:2], alone)


def test_permuting_teacher_heads_permutes_transport():
    matcher = AttentionHeadMatcher(3, 4, balance='transport')
    student, teacher = relations(3, 4)
    order = torch.tensor([2, 0, 3, 1])
    permuted = run(matcher, student, teacher[:, order])[0]
    torch.testing.assert_close(permuted, run(matcher, student, teacher)[0][..., order])


def test_transport_prefers_the_nearer_head():
    student, teacher = relations(4, 4)
    student = teacher[:, [1, 0, 3, 2]]
    weight, _ = run(AttentionHeadMatcher(4, 4, balance='transport', temperature=0.1), student, teacher)
    assert (weight.argmax(-1) == torch.tensor([1, 0, 3, 2])).all()


def test_sinkhorn_balances_columns_and_keeps_rows_exact():
    weight = sinkhorn(torch.randn(5, 6, 8) * 3)
    torch.testing.assert_close(weight.sum(-1), torch.ones(5, 6))
    torch.testing.assert_close(weight.sum(-2), torch.full((5, 8), 6 / 8), rtol=0, atol=2e-3)


def test_sinkhorn_ignores_what_all_rows_share():
    logits = torch.randn(6, 8)
    torch.testing.assert_close(sinkhorn(logits + 3 * torch.randn(8)), sinkhorn(logits), rtol=0, atol=1e-3)


@pytest.mark.parametrize('student_heads, teacher_heads', [(6, 8), (12, 16), (3, 16), (8, 4)])
def test_sinkhorn_converges_at_the_least_temperature(student_heads, teacher_heads):
    """Cosines at their extremes over 0.05: where plain rounds are a third off after thirty."""
    signs = torch.randn(300, student_heads, 1).sign() * torch.randn(300, 1, teacher_heads).sign()
    noise = torch.randn(300, student_heads, teacher_heads).sign()
    for cosines in (signs, noise, torch.rand(300, student_heads, teacher_heads) * 2 - 1):
        weight = sinkhorn(cosines / AttentionHeadMatcher.LEAST_TEMPERATURE)
        share = weight.sum(-2) * teacher_heads / student_heads
        assert (share - 1).abs().max() < 0.02


def test_sinkhorn_passes_the_gradient_of_the_converged_weight():
    """Against finite differences in float64."""
    logits = (torch.randn(4, 6, dtype=torch.float64) * 3).requires_grad_()
    scores = torch.randn(4, 6, dtype=torch.float64)
    (sinkhorn(logits) * scores).sum().backward()
    for place in [(0, 0), (2, 5), (3, 1)]:
        step = torch.zeros_like(logits)
        step[place] = 1e-4
        with torch.no_grad():
            change = ((sinkhorn(logits + step) - sinkhorn(logits - step)) * scores).sum() / 2e-4
        torch.testing.assert_close(logits.grad[place], change, rtol=2e-2, atol=1e-5)


def test_capacity_bounds_columns_and_lets_rows_be_sharper():
    logits = torch.randn(20, 3, 8) / 0.1
    equal, bounded = sinkhorn(logits), sinkhorn(logits, capacity=2.)
    torch.testing.assert_close(bounded.sum(-1), torch.ones(20, 3))
    assert bounded.sum(-2).max() < 2 * 3 / 8 * 1.01
    entropy = [torch.special.entr(weight).sum(-1).mean() for weight in (equal, bounded)]
    assert entropy[1] < entropy[0] - 0.3
    loose = sinkhorn(logits, capacity=8.)  # a bound of the number of rows is none
    torch.testing.assert_close(loose, logits.softmax(-1))


def test_no_two_student_heads_have_equal_targets_at_the_start():
    """Heads that differ along one axis have opposite descriptions: without embeddings their rows take two values."""
    axis, amount = torch.randn(1, 1, 9, 9), torch.tensor([-1.5, -1., -.5, .5, 1., 1.5])
    student = (axis * amount[None, :, None, None]).log_softmax(-1)
    teacher = relations(6, 8)[1][:1]
    rows = {embeddings: run(AttentionHeadMatcher(6, 8, embeddings=embeddings), student, teacher)[0].mean(0)
            for embeddings in (False, True)}
    assert count_distinct(rows[False]) <= 3
    assert count_distinct(rows[True]) == 6


def test_transport_of_one_head_is_one():
    weight, _ = run(AttentionHeadMatcher(1, 1, balance='transport'), *relations(1, 1))
    torch.testing.assert_close(weight, torch.ones(3, 1, 1))


@pytest.mark.parametrize('options, told', [
    (dict(descriptor='mean'), 'eq. 4 as printed'), (dict(balance=None), 'eq. 6 as printed'), (dict(), None)])
def test_the_printed_form_is_told_in_the_log(options, told, monkeypatch):
    from mimhd_mm.models.matchers import attention_head_matcher
    lines = []
    monkeypatch.setattr(attention_head_matcher, 'print_log', lambda text, *_: lines.append(text))
    AttentionHeadMatcher(3, 4, **options)
    assert (told in lines[0]) if told else not lines


# ---- heads cut anew --------------------------------------------------------------------------------------------------
def qkv_of(heads, dims, requires_grad=False, dtype=torch.float64):
    return QKV(*(torch.randn(2, heads, 9, dims, dtype=dtype, requires_grad=requires_grad) for _ in range(3)))


def heads_of(side, heads):
    """By hand: (B, M, N, d) to (B, N, M d) to (B, heads, N, .)."""
    whole = torch.cat(list(side.unbind(1)), -1)
    return torch.stack(whole.chunk(heads, -1), 1)


@pytest.mark.parametrize('pair', ['qk', 'vv', 'qq', 'kk'])
@pytest.mark.parametrize('matcher', [dict(type='OneToOneHeadMatcher'),
                                     dict(type='RegroupHeadMatcher', shrink=0.),
                                     dict(type='RegroupHeadMatcher', shrink=0., adaptive=True)])
def test_regrouped_heads_start_from_tinymims_loss_with_its_gradients(pair, matcher):
    """Three heads of eight channels against four of the teacher: as if the student's block had four heads of six."""
    student, teacher = qkv_of(3, 8, requires_grad=True), qkv_of(4, 5)
    head = RelationDistillHead(3, 4, pairs=[pair], matcher=matcher, student_dims=24, teacher_dims=20,
                               with_cls_token=True).double()
    loss = sum(head.loss(student, teacher).values())
    gradient = torch.autograd.grad(loss, student, allow_unused=True)
    rebuilt = QKV(*(heads_of(side, 4) for side in student))
    expected = (log_relation(teacher, pair).exp() * (log_relation(teacher, pair) - log_relation(rebuilt, pair)))
    expected = expected.sum(-1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    for ours, theirs in zip(gradient, torch.autograd.grad(expected, student, allow_unused=True)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_finer_heads_cut_both_networks():
    student, teacher = qkv_of(3, 8), qkv_of(4, 6)
    matcher = OneToOneHeadMatcher(3, 4, relation_heads=8)
    ours, theirs = matcher.regroup(Factors(student.q, student.k), Factors(teacher.v, teacher.v))
    assert torch.equal(ours.second, heads_of(student.k, 8)) and ours.first.shape == (2, 8, 9, 3)
    assert torch.equal(theirs.first, heads_of(teacher.v, 8)) and theirs.second is theirs.first


@pytest.mark.parametrize('pair', ['qk', 'vv'])
def test_regrouped_heads_equal_the_formula(pair):
    """``softmax(Q diag(a_m) K^T / sqrt(D2 / M1))`` with any a, token by token; negative a count as 0 for V-V."""
    student, teacher = qkv_of(3, 8), qkv_of(4, 5)
    matcher = RegroupHeadMatcher(3, 4, student_dims=24).double()
    torch.nn.init.normal_(matcher.share)
    first, second = (getattr(student, name) for name in pair)
    ours, _ = matcher.regroup(Factors(first, second if pair == 'qk' else first), Factors(teacher.q, teacher.k))
    found = log_softmax_of(ours).exp()
    share = matcher.share if pair == 'qk' else matcher.share.clamp_min(0)
    first, second = (torch.cat(list(side.unbind(1)), -1) for side in (first, second))  # (B, N, D2)
    for m in range(4):
        expected = (first @ torch.diag(share[m]) @ second.mT / (24 / 4) ** 0.5).softmax(-1)
        torch.testing.assert_close(found[:, m], expected)


def test_adaptive_shares_follow_attention_between_heads():
    student, teacher = qkv_of(3, 8), qkv_of(4, 5)
    matcher = RegroupHeadMatcher(3, 4, adaptive=True, student_dims=24).double()
    torch.nn.init.constant_(matcher.gate, 0.7)
    sides = Factors(student.q, student.k), Factors(teacher.q, teacher.k)
    ours, _ = matcher.regroup(*sides)
    likeness = []
    for side in sides:
        description = column_descriptor(log_softmax_of(side).exp())
        likeness.append(description @ description.mT)
    look = torch.cosine_similarity(matcher.proj_teacher(likeness[1])[:, :, None],
                                   matcher.proj_student(likeness[0])[:, None], dim=-1)  # (B, M1, M2)
    for m in range(4):
        for channel in range(24):
            share = matcher.start[m, channel] * (0.7 * look[:, m, channel // 8]).exp() * 2
            expected = student.q[:, channel // 8, :, channel % 8] * share[:, None]
            torch.testing.assert_close(ours.first[:, m, :, channel], expected)


def test_what_fell_below_zero_can_come_back():
    matcher = RegroupHeadMatcher(1, 2, student_dims=4)
    with torch.no_grad():
        matcher.share[0, 0] = -0.1
    values = torch.randn(2, 1, 5, 4)
    ours, _ = matcher.regroup(Factors(values, values), None)
    assert (ours.first[:, 0, :, 0] == 0).all()
    ours.first.sum().backward()
    assert matcher.share.grad[0, 0] != 0


def test_explained_heads_equal_the_slow_formula():
    student, teacher = relations(3, 5)
    matcher = ExplainHeadMatcher(3, 5)
    assert torch.equal(matcher.combination.argmax(1), torch.tensor([0, 0, 1, 1, 2]))
    torch.testing.assert_close(matcher.prepare(student, teacher)[0], student[:, [0, 0, 1, 1, 2]])
    torch.nn.init.normal_(matcher.combination)
    combined, target = matcher.prepare(student, teacher)
    assert target is teacher
    for m in range(5):
        power = torch.ones(3, 9, 9)
        for s in range(3):
            power = power * student[:, s].exp() ** max(matcher.combination[m, s].item(), 0)
        torch.testing.assert_close(combined[:, m].exp(), power / power.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_sleeping_head_is_penalised_until_it_wakes():
    matcher = ExplainHeadMatcher(3, 6, hinge=2.)
    assert matcher.penalty(None) == 0
    with torch.no_grad():
        matcher.combination.zero_()
        matcher.combination[:, 0] = 1  # heads 1 and 2 explain nothing
    torch.testing.assert_close(matcher.penalty(None).item(), 2 * (0.5 + 0.5) / 3)
    matcher.penalty(None).backward()
    assert (matcher.combination.grad[:, 1:] < 0).all()


def test_blur_is_what_no_student_can_remove():
    """``sum W KL(T || S) = JS + KL(mixture || S)``: a student that is the mixture leaves exactly the blur."""
    student, teacher = relations(3, 4)
    weight = torch.rand(3, 3, 4).softmax(-1)
    mixture = torch.stack([sum(weight[:, s, m, None, None] * teacher[:, m].exp() for m in range(4))
                           for s in range(3)], 1)
    for criterion in ('KL', 'L2'):
        loss = RelationDistillLoss(criterion)
        floor = loss.floor(teacher, weight)
        left = (weight * loss(mixture.log(), teacher)).sum(-1)
        torch.testing.assert_close(left, floor, rtol=1e-4, atol=1e-6)
        assert ((weight * loss(student, teacher)).sum(-1) > floor).all()
        one_hot = torch.eye(4)[:3].expand(3, 3, 4)
        torch.testing.assert_close(loss.floor(teacher, one_hot), torch.zeros(3, 3), rtol=0, atol=1e-5)


def test_the_head_measures_blur_and_counts_distinct_rows():
    student, teacher = qkv_of(3, 8), qkv_of(4, 5)
    head = RelationDistillHead(3, 4, with_cls_token=True).double()
    losses = head.loss(student, teacher)
    weight, target = head.matchers['qk'].last_weight, log_relation(teacher, 'qk')
    expected = RelationDistillLoss().floor(target, weight).mean() / losses['loss_qk']
    figures = head.diagnostics()
    torch.testing.assert_close(figures['head_blur_qk'], expected.detach())
    assert figures['head_distinct_qk'] == count_distinct(weight.mean(0))
    head = RelationDistillHead(4, 4, matcher=dict(type='OneToOneHeadMatcher'))
    head.loss(qkv_of(4, 8, dtype=torch.float32), qkv_of(4, 5, dtype=torch.float32))
    assert head.diagnostics()['head_blur_qk'] == 0 and head.diagnostics()['head_distinct_qk'] == 4


def test_rows_that_count_as_one():
    rows = torch.tensor([[.5, .5], [.52, .48], [.9, .1], [0, 1.]])
    assert count_distinct(rows) == 3 and count_distinct(rows[:2]) == 1 and count_distinct(rows, 0.01) == 4


def test_a_matcher_written_to_the_contract_works():
    from mimhd_mm.models import HeadMatcher
    from mimhd_mm.registry import MODELS

    class NearestHeadMatcher(HeadMatcher):
        def match(self, student, teacher, distance):
            return torch.nn.functional.one_hot(distance.argmin(-1), distance.shape[-1]).to(distance)

    MODELS.register_module(module=NearestHeadMatcher, force=True)
    try:
        head = RelationDistillHead(3, 4, matcher=dict(type='NearestHeadMatcher')).double()
        student, teacher = qkv_of(3, 8), qkv_of(4, 5)
        losses = head.loss(student, teacher)
        patches = student.without_cls(), teacher.without_cls()
        distance = RelationDistillLoss()(*(log_relation(side, 'vv') for side in patches))
        torch.testing.assert_close(losses['loss_vv'], distance.amin(-1).mean())
        assert head.diagnostics()['head_entropy_qk'] == 0
    finally:
        MODELS._module_dict.pop('NearestHeadMatcher')
        MODELS.mirror._module_dict.pop('NearestHeadMatcher')


def trained_entropy(balance, steps=300):
    """Train a matcher alone, as it would be with one teacher head much easier to imitate than the others."""
    torch.manual_seed(0)
    matcher = AttentionHeadMatcher(3, 4, balance=balance)
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=1e-2)
    handicap = torch.tensor([0., 1., 1., 1.])
    for _ in range(steps):
        student, teacher = relations(3, 4)
        weight = matcher.match(student, teacher, torch.zeros(3, 3, 4))
        matcher.record(weight)
        loss = (weight * handicap).sum(-1).mean() + (matcher.penalty(weight) if balance == 'penalty' else 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return matcher.diagnostics()


@pytest.mark.slow
def test_plain_softmax_collapses_and_balance_prevents_it():
    collapsed, balanced = trained_entropy(None), trained_entropy('sinkhorn')
    assert collapsed['head_entropy'] < 0.1 and collapsed['head_coverage'] <= 0.25
    assert balanced['head_coverage'] == 1 and balanced['head_entropy'] > 0.1


def test_penalty_is_zero_when_balanced_and_log_m_when_collapsed():
    matcher = AttentionHeadMatcher(3, 4, balance='penalty', penalty_weight=2.)
    torch.testing.assert_close(matcher.penalty(torch.full((2, 3, 4), .25)), torch.tensor(0.), rtol=0, atol=1e-6)
    one_head = torch.zeros(2, 3, 4)
    one_head[..., 1] = 1
    torch.testing.assert_close(matcher.penalty(one_head).item(), 2 * math.log(4))


def test_no_gradient_from_the_weight_into_the_relations():
    matcher = AttentionHeadMatcher(3, 4)
    student, teacher = relations(3, 4)
    student.requires_grad_()
    weight = matcher.match(student, teacher, torch.zeros(3, 3, 4))
    weight.square().sum().backward()
    assert student.grad is None and matcher.proj_student.weight.grad.abs().sum() > 0


def test_diagnostics_of_known_weights():
    matcher = SelectHeadMatcher(4, 4, heads=[2, 2, 2, 2])
    run(matcher, *relations(4, 4))
    assert {k: round(v.item(), 6) for k, v in matcher.diagnostics().items()} == dict(
        head_entropy=0., head_coverage=0.25, head_spread=0., head_distinct=1., head_blur=0.)
    matcher = OneToOneHeadMatcher(4, 4)
    assert matcher.diagnostics() == {}
    run(matcher, *relations(4, 4))
    figures = matcher.diagnostics()
    assert figures['head_entropy'] == 0 and figures['head_coverage'] == 1
    torch.testing.assert_close(figures['head_spread'].item(), math.sqrt(3) / 4)


def test_average_matcher_averages_probabilities():
    student, teacher = relations(3, 4)
    averages = AverageHeadMatcher(3, 4).prepare(student, teacher)
    for average, whole in zip(averages, (student, teacher)):
        torch.testing.assert_close(average.exp(), whole.exp().mean(1, keepdim=True))


@pytest.mark.parametrize('build, message', [
    (lambda: OneToOneHeadMatcher(3, 4, student_dims=30), "4 heads do not divide the student's width of 30"),
    (lambda: SelectHeadMatcher(3, 4, heads=[0, 1]), 'needs 3 teacher heads between 0 and 3'),
    (lambda: SelectHeadMatcher(2, 4, heads=[0, 4]), 'needs 2 teacher heads'),
    (lambda: AttentionHeadMatcher(3, 4, descriptor='rows'), "Unknown descriptor 'rows'; choose from 'mean', 'column'"),
    (lambda: AttentionHeadMatcher(3, 4, balance='entropy'), "Unknown balance 'entropy'; choose from None, 'sinkhorn'"),
    (lambda: AttentionHeadMatcher(3, 4, temperature=0), 'positive'),
    (lambda: AttentionHeadMatcher(3, 4, temperature=0.01), 'below 0.05, where weights can no longer be balanced'),
    (lambda: AttentionHeadMatcher(3, 4, capacity=0.5), 'capacity=0.5'),
    (lambda: AttentionHeadMatcher(3, 4, balance=None, capacity=2), "goes with balance='sinkhorn'"),
    (lambda: OneToOneHeadMatcher(3, 4, 5, student_dims=24), "5 heads do not divide the student's width of 24"),
    (lambda: OneToOneHeadMatcher(3, 5, 4, student_dims=24, teacher_dims=30), "the teacher's width of 30"),
    (lambda: RegroupHeadMatcher(3, 4, student_dims=30), "teacher's 4 heads do not divide the student's width of 30"),
    (lambda: RegroupHeadMatcher(3, 4, student_dims=24, shrink=-1), 'shrink is not negative'),
    (lambda: ExplainHeadMatcher(3, 4, hinge=-1), 'hinge is not negative'),
])
def test_bad_arguments(build, message):
    with pytest.raises(UserInputError, match=message):
        build()
