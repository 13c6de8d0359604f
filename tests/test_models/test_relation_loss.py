"""RelationDistillLoss: equal to slow, independent versions; values and gradients."""
import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import RelationDistillLoss
from mimhd_mm.models.relation import QKV, log_relation


def random_relation(heads, batch=2, tokens=6, dtype=torch.float64, scale=1.):
    return torch.randn(batch, heads, tokens, tokens, dtype=dtype).mul(scale).log_softmax(-1)


def slow_distance(student, teacher, criterion):
    """A loop over images and pairs of heads, from the definition of each divergence."""
    out = torch.zeros(len(student), student.shape[1], teacher.shape[1], dtype=student.dtype)
    for b in range(len(student)):
        for m2 in range(student.shape[1]):
            for m1 in range(teacher.shape[1]):
                p, q = teacher[b, m1].exp(), student[b, m2].exp()
                terms = p * (p / q).log() if criterion == 'KL' else (p - q) ** 2
                out[b, m2, m1] = terms.sum(-1).mean()
    return out


@pytest.mark.parametrize('criterion', ['KL', 'L2'])
def test_equals_a_double_loop_with_its_gradient(criterion):
    logits = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    teacher, weight = random_relation(4), torch.rand(2, 3, 4, dtype=torch.float64)
    results = []
    for compare in (RelationDistillLoss(criterion), lambda s, t: slow_distance(s, t, criterion)):
        distance = compare(logits.log_softmax(-1), teacher)
        gradient, = torch.autograd.grad((weight * distance).sum(), logits)
        results.append((distance.detach(), gradient))
    for ours, slow in zip(*results):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-9)


@pytest.mark.parametrize('criterion', ['KL', 'L2'])
def test_zero_at_identity_and_positive_elsewhere(criterion):
    relation = random_relation(5, dtype=torch.float32)
    distance = RelationDistillLoss(criterion)(relation, relation)
    torch.testing.assert_close(distance.diagonal(dim1=1, dim2=2), torch.zeros(2, 5), rtol=0, atol=1e-6)
    off = ~torch.eye(5, dtype=torch.bool).expand(2, 5, 5)
    assert (distance[off] > 1e-4).all()


def test_never_negative_even_where_relations_are_flat():
    flat = random_relation(4, tokens=64, dtype=torch.float32, scale=1e-3)
    other = random_relation(4, tokens=64, dtype=torch.float32, scale=1e-3)
    assert RelationDistillLoss()(flat, other).min() > -1e-8


def test_direction_is_teacher_to_student():
    peaked = torch.tensor([[.98, .01, .01]]).log().expand(1, 1, 3, 3)
    flat = torch.full((1, 1, 3, 3), 1 / 3).log()
    expected = .98 * torch.tensor(.98 * 3).log() + .02 * torch.tensor(.01 * 3).log()
    torch.testing.assert_close(RelationDistillLoss()(flat, peaked).item(), expected.item())


def test_finite_and_exact_for_half_precision_inputs_that_overflow_softmax():
    qkv = QKV(*(torch.randn(3, 2, 3, 6, 4) * 100).half())
    distance = RelationDistillLoss()(log_relation(qkv, 'qk'), log_relation(qkv, 'vv'))
    assert torch.isfinite(distance).all() and distance.dtype == torch.float32


def test_autocast_changes_nothing():
    student, teacher = random_relation(3, dtype=torch.float32), random_relation(4, dtype=torch.float32)
    loss = RelationDistillLoss()
    with torch.autocast('cpu', torch.bfloat16):
        inside = loss(student, teacher)
    torch.testing.assert_close(inside, loss(student, teacher), rtol=0, atol=0)


def test_unknown_criterion():
    with pytest.raises(UserInputError, match="Unknown criterion 'MSE'; choose from KL, L2"):
        RelationDistillLoss('MSE')
