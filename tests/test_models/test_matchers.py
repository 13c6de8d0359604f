"""Head matchers: one contract for the four, and what distinguishes them."""
import math

import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import (AttentionHeadMatcher, AverageHeadMatcher, OneToOneHeadMatcher, RelationDistillLoss,
                             SelectHeadMatcher)
from mimhd_mm.models.matchers.attention_head_matcher import DESCRIPTORS, sample_descriptor, sinkhorn


def relations(student_heads, teacher_heads, batch=3, tokens=9, scale=2.):
    logits = [torch.randn(batch, heads, tokens, tokens) * scale for heads in (student_heads, teacher_heads)]
    return [x.log_softmax(-1) for x in logits]


def run(matcher, student, teacher):
    student, teacher = matcher.prepare(student, teacher)
    distance = RelationDistillLoss()(student, teacher)
    return matcher(student, teacher, distance), distance


ATTENTION = [dict(descriptor=descriptor, balance=balance) for descriptor in DESCRIPTORS
             for balance in AttentionHeadMatcher.BALANCES]


@pytest.mark.parametrize('matcher, heads', [
    *((OneToOneHeadMatcher(4, 4), (4, 4)), (SelectHeadMatcher(3, 4), (3, 4)), (SelectHeadMatcher(6, 4), (6, 4)),
      (AverageHeadMatcher(3, 4), (3, 4))),
    *((AttentionHeadMatcher(m2, m1, **kwargs), (m2, m1)) for kwargs in ATTENTION for m2, m1 in ((3, 4), (4, 3))),
])
def test_contract(matcher, heads):
    weight, distance = run(matcher, *relations(*heads))
    assert weight.shape == distance.shape
    torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:2]))
    assert (weight >= 0).all()
    figures = matcher.diagnostics()
    assert set(figures) == {'head_entropy', 'head_coverage', 'head_spread'}
    assert all(torch.isfinite(value) for value in figures.values())


def test_literal_descriptor_is_uniform_for_ever_and_learns_nothing():
    matcher = AttentionHeadMatcher(3, 4, descriptor='mean', balance=None)
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
    weight = sinkhorn(torch.randn(5, 6, 8) * 3, iterations=100)
    torch.testing.assert_close(weight.sum(-1), torch.ones(5, 6))
    torch.testing.assert_close(weight.sum(-2), torch.full((5, 8), 6 / 8), rtol=0, atol=2e-3)


def test_sinkhorn_ignores_what_all_rows_share():
    logits = torch.randn(6, 8)
    torch.testing.assert_close(sinkhorn(logits + 3 * torch.randn(8), 200), sinkhorn(logits, 200), rtol=0, atol=1e-4)


@pytest.mark.parametrize('student_heads, teacher_heads', [(6, 8), (12, 16), (3, 16)])
def test_no_weight_that_the_default_temperature_allows_leaves_a_teacher_head_out(student_heads, teacher_heads):
    preferred = torch.rand(2000, 1, teacher_heads) ** 3  # some heads are liked by most rows, some by few
    likes = torch.rand(2000, student_heads, teacher_heads) < preferred
    weight = sinkhorn(torch.where(likes, 10., -10.))  # cosines of 1 and -1 over a temperature of 0.1
    share = weight.sum(-2) * teacher_heads / student_heads
    entropy = torch.special.entr(weight).sum(-1).mean(-1) / math.log(teacher_heads)
    assert share.min() > 0.5 and entropy.min() > 0.1


def trained_entropy(balance, steps=300):
    """Train a matcher alone, as it would be with one teacher head much easier to imitate than the others."""
    torch.manual_seed(0)
    matcher = AttentionHeadMatcher(3, 4, balance=balance)
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=1e-2)
    handicap = torch.tensor([0., 1., 1., 1.])
    for _ in range(steps):
        student, teacher = relations(3, 4)
        weight = matcher(student, teacher, torch.zeros(3, 3, 4))
        loss = (weight * handicap).sum(-1).mean() + (matcher.penalty(weight) if balance == 'penalty' else 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return matcher.diagnostics()


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
    weight = matcher(student, teacher, torch.zeros(3, 3, 4))
    weight.square().sum().backward()
    assert student.grad is None and matcher.proj_student.weight.grad.abs().sum() > 0


def test_diagnostics_of_known_weights():
    matcher = SelectHeadMatcher(4, 4, heads=[2, 2, 2, 2])
    run(matcher, *relations(4, 4))
    assert {k: round(v.item(), 6) for k, v in matcher.diagnostics().items()} == dict(
        head_entropy=0., head_coverage=0.25, head_spread=0.)
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
    (lambda: OneToOneHeadMatcher(3, 4), 'as many student heads as teacher heads, but there are 3 and 4'),
    (lambda: SelectHeadMatcher(3, 4, heads=[0, 1]), 'needs 3 teacher heads between 0 and 3'),
    (lambda: SelectHeadMatcher(2, 4, heads=[0, 4]), 'needs 2 teacher heads'),
    (lambda: AttentionHeadMatcher(3, 4, descriptor='rows'), "Unknown descriptor 'rows'; choose from 'mean', 'column'"),
    (lambda: AttentionHeadMatcher(3, 4, balance='entropy'), "Unknown balance 'entropy'; choose from None, 'sinkhorn'"),
    (lambda: AttentionHeadMatcher(3, 4, temperature=0), 'positive'),
])
def test_bad_arguments(build, message):
    with pytest.raises(UserInputError, match=message):
        build()
