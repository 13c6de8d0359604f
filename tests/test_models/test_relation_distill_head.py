"""RelationDistillHead (eqs. 1-7)."""
import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import RelationDistillHead
from mimhd_mm.models.relation import QKV


def qkvs(student_heads, teacher_heads, dtype=torch.float32):
    return [QKV(*torch.randn(3, 2, heads, 7, dims, dtype=dtype))
            for heads, dims in ((student_heads, 4), (teacher_heads, 6))]


def tinymim_loss(student, teacher):
    """TinyMIM's formula restated: KL(teacher || student) of attention-like maps, mean over images, heads, queries."""
    total = {}
    for name, (a, b) in dict(qk=('q', 'k'), vv=('v', 'v')).items():
        def scores(net):
            x, y = getattr(net, a), getattr(net, b)
            return torch.einsum('bhid,bhjd->bhij', x, y) * x.shape[-1] ** -.5
        target = scores(teacher).softmax(-1)
        total[name] = torch.nn.functional.kl_div(
            scores(student).log_softmax(-1), target, reduction='none').sum(-1).mean()
    return total


def test_one_to_one_with_equal_head_counts_is_tinymim():
    head = RelationDistillHead(4, 4, matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True)
    student, teacher = qkvs(4, 4, torch.float64)
    losses = head.loss(student, teacher)
    for pair, value in tinymim_loss(student, teacher).items():
        torch.testing.assert_close(losses[f'loss_{pair}'], value)


def test_zero_when_the_student_is_the_teacher():
    head = RelationDistillHead(4, 4, matcher=dict(type='OneToOneHeadMatcher'))
    student, _ = qkvs(4, 4)
    for value in head.loss(student, student).values():
        torch.testing.assert_close(value, torch.tensor(0.), rtol=0, atol=1e-6)


def test_cls_token_takes_no_part_by_default():
    head = RelationDistillHead(3, 4)
    student, teacher = qkvs(3, 4)
    changed = QKV(*(torch.cat([x[:, :, :1] + 1, x[:, :, 1:]], 2) for x in student))
    assert {k: v.item() for k, v in head.loss(student, teacher).items()} == {
        k: v.item() for k, v in head.loss(changed, teacher).items()}


def test_each_pair_has_its_own_matcher_and_both_learn():
    head = RelationDistillHead(3, 4)
    student, teacher = qkvs(3, 4)
    sum(head.loss(student, teacher).values()).backward()
    gradients = [head.matchers[pair].proj_student.weight.grad for pair in ('qk', 'vv')]
    assert all(gradient.abs().sum() > 0 for gradient in gradients) and not torch.equal(*gradients)


def test_keys_follow_the_pairs():
    student, teacher = qkvs(3, 4)
    assert set(RelationDistillHead(3, 4, pairs=('qk', 'kk', 'qq')).loss(student, teacher)) == {
        'loss_qk', 'loss_kk', 'loss_qq'}
    head = RelationDistillHead(3, 4, pairs=['vv'], matcher=dict(type='AttentionHeadMatcher', balance='penalty'))
    assert set(head.loss(student, teacher)) == {'loss_vv', 'loss_vv_balance'}
    names = ('entropy', 'coverage', 'spread', 'distinct', 'blur')
    assert set(head.diagnostics()) == {f'head_{name}_vv' for name in names}


def test_teacher_gets_no_gradient():
    head = RelationDistillHead(3, 4)
    student, teacher = qkvs(3, 4)
    for x in (*student, *teacher):
        x.requires_grad_()
    sum(head.loss(student, teacher).values()).backward()
    assert all(x.grad is None for x in teacher) and all(x.grad.abs().sum() > 0 for x in student)


@pytest.mark.parametrize('matcher', [
    dict(type='AttentionHeadMatcher'), dict(type='AttentionHeadMatcher', balance='penalty', descriptor='relation'),
    dict(type='AttentionHeadMatcher', balance='transport'), dict(type='AverageHeadMatcher'),
    dict(type='SelectHeadMatcher')], ids=str)
@pytest.mark.parametrize('chunk_size', [1, 2, 8])
def test_chunks_change_no_loss_no_gradient_and_no_diagnostic(matcher, chunk_size):
    """To 1e-9, in float64; three images, so that chunks of two are uneven."""
    student, teacher = qkvs(3, 4, torch.float64)
    results = []
    for size in (None, chunk_size):
        torch.manual_seed(1)
        head = RelationDistillHead(3, 4, matcher=matcher, chunk_size=size).double()
        inputs = QKV(*(x.clone().requires_grad_() for x in student))
        losses = head.loss(inputs, teacher)
        before = head.diagnostics()
        sum(losses.values()).backward()
        assert {name: value.item() for name, value in head.diagnostics().items()} == {
            name: value.item() for name, value in before.items()}  # computing again does not touch them
        results.append({**losses, **before, **dict(zip('qkv', (x.grad for x in inputs))), **{
            name: value.grad for name, value in head.named_parameters() if value.grad is not None}})
    plain, chunked = results
    assert plain.keys() == chunked.keys() and plain['q'].abs().sum() > 0
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize('kwargs, message', [
    (dict(chunk_size=0), 'chunk_size is a number of images, at least 1'),
    (dict(chunk_size=2, matcher=dict(type='AttentionHeadMatcher', descriptor='sample')),
     'compares the images of a batch'),
    (dict(pairs=('qk', 'kv')), "Unknown relation pair 'kv'"),
    (dict(pairs=()), '`pairs` names each relation'),
    (dict(pairs=('qk', 'qk')), '`pairs` names each relation'),
    (dict(matcher=dict(type='BestHeadMatcher')), "Unknown matcher 'BestHeadMatcher'; choose from AttentionHeadMatcher"),
    (dict(matcher=dict(type='MAEPretrainHead')), "Unknown matcher 'MAEPretrainHead'"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserInputError, match=message):
        RelationDistillHead(3, 4, **kwargs)
