"""Read-out KL: bilinear forms on a student's frozen tokens that explain the teacher's heads."""
import math

import pytest
import torch
import torch.nn.functional as F

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import read_out, read_out_kl
from mimhd_mm.evaluation.read_out import divergence, fit_forms, whitened
from mimhd_mm.models import MAETeacher, RelationViT
from mimhd_mm.models.relation import QKV

from ..conftest import SIZE, STUDENT, TEACHER

PATCHES = 16


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def preprocess(batch):
    return dict(inputs=batch['inputs'].float() / 64 - 2)  # (B, 3, H, W)


def batches(number=64):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(256, (number, 3, 8, 8), generator=generator).float()
    images = F.interpolate(coarse, scale_factor=4, mode='bilinear').to(torch.uint8)  # (number, 3, 32, 32)
    return [dict(inputs=part) for part in images.split(20)]


@pytest.fixture
def teacher():
    """Random, with relations that are far from uniform."""
    model = MAETeacher(None, arch=TEACHER, block=3, **SIZE)
    for number, parameter in enumerate(model.parameters()):
        parameter.data = 0.15 * noise(*parameter.shape, seed=number)
    model.encoder.layers[2].attn.qkv.weight.data *= 6.5
    return model


def as_student(teacher):
    """A student with the teacher's weights."""
    student = RelationViT(arch=TEACHER, relation_block=3, **SIZE)
    missing, unexpected = student.load_state_dict(teacher.encoder.state_dict(), strict=False)
    assert not unexpected
    return student


def uniform_kl(teacher, pair):
    """What the uniform relation gives on the held-out images."""
    images = torch.cat([preprocess(batch)['inputs'] for batch in batches()])[1::2]
    q, k, v = teacher(images).without_cls()
    first, second = dict(qk=(q, k), vv=(v, v))[pair]
    relation = (first @ second.transpose(-2, -1) / q.shape[-1] ** .5).softmax(-1)
    return float(math.log(PATCHES) + (relation * relation.clamp_min(1e-30).log()).sum(-1).mean())


# --------------------------------------------------------------------------------------------------- whole networks
def test_the_teacher_reads_itself_out_and_one_that_is_blind_gets_the_uniform_relation(teacher):
    found = read_out_kl(as_student(teacher), teacher, batches(), preprocess)
    blind = as_student(teacher)
    blind.layers[2].attn.qkv.weight.data.zero_()  # every token has the same q, k and v
    nothing = read_out_kl(blind, teacher, batches(), preprocess)
    for pair in ('qk', 'vv'):
        assert uniform_kl(teacher, pair) > 0.3
        assert 0 <= found[pair] < 0.01 * uniform_kl(teacher, pair)
        assert nothing[pair] == pytest.approx(uniform_kl(teacher, pair), rel=1e-4)


def test_basis_and_heads_of_the_student_do_not_matter(teacher):
    """Any invertible mixture of q's channels, over all heads, can be undone by the form."""
    student = RelationViT(arch=STUDENT, relation_block=2, **SIZE)
    for number, parameter in enumerate(student.parameters()):
        parameter.data = 0.3 * noise(*parameter.shape, seed=100 + number)
    expected = read_out_kl(student, teacher, batches(), preprocess, steps=200)
    mixed = RelationViT(arch=STUDENT, relation_block=2, relation_heads=2, **SIZE)
    mixed.load_state_dict(student.state_dict())
    projection = mixed.layers[1].attn.qkv
    for part, seed in enumerate((1, 2, 3)):
        rows = slice(24 * part, 24 * part + 24)
        mixture = torch.eye(24) + 0.1 * noise(24, 24, seed=seed)
        projection.weight.data[rows] = mixture @ projection.weight.data[rows]
        projection.bias.data[rows] = mixture @ projection.bias.data[rows]
    found = read_out_kl(mixed, teacher, batches(), preprocess, steps=200)
    for pair in ('qk', 'vv'):
        assert 0.01 < expected[pair] and found[pair] == pytest.approx(expected[pair], rel=0.02)


def test_same_numbers_again_and_modes_stay(teacher):
    student = RelationViT(arch=STUDENT, **SIZE)
    student.train()
    state = torch.get_rng_state()
    first = read_out_kl(student, teacher, batches(), preprocess)
    assert student.training and torch.equal(state, torch.get_rng_state())
    assert read_out_kl(student, teacher, batches(), preprocess) == first
    assert list(read_out_kl(student, teacher, batches(), preprocess, pairs=('kk', ))) == ['kk']


def test_wrong_input_is_refused(teacher):
    student = RelationViT(arch=STUDENT, **SIZE)
    with pytest.raises(UserInputError, match='1 images are too few'):
        read_out_kl(student, teacher, [dict(inputs=batches()[0]['inputs'][:1])], preprocess)
    with pytest.raises(UserInputError, match='no image'):
        read_out_kl(student, teacher, [], preprocess)
    with pytest.raises(UserInputError, match="Unknown relation pair 'xy'"):
        read_out_kl(student, teacher, batches(), preprocess, pairs=('xy', ))
    with pytest.raises(UserInputError, match='RelationViT'):
        read_out_kl(torch.nn.Identity(), teacher, batches(), preprocess)
    with pytest.raises(UserInputError, match='64 patches of these images and the teacher 16'):
        read_out_kl(RelationViT(arch=STUDENT, img_size=32, patch_size=4), teacher, batches(), preprocess)


def test_a_diverged_student_scores_nan(teacher):
    student = RelationViT(arch=STUDENT, **SIZE)
    student.layers[-1].attn.qkv.weight.data[0, 0] = float('nan')
    assert all(math.isnan(kl) for kl in read_out_kl(student, teacher, batches(), preprocess).values())


# --------------------------------------------------------------------------------------------------------- the fit
def random_problem(number=40, patches=6, width=4, heads=3):
    queries, keys = noise(number, patches, width, seed=1), noise(number, patches, width, seed=2)
    teacher = QKV(*(2 * noise(number, heads, patches, 5, seed=seed) for seed in (3, 4, 5)))
    return queries, keys, teacher


def test_divergence_equals_a_loop_and_chunks_do_not_matter(monkeypatch):
    queries, keys, teacher = random_problem(number=5)
    forms = noise(3, 4, 4, seed=6)
    expected = torch.zeros(3)
    for image in range(5):
        for head in range(3):
            target = (teacher.q[image, head] @ teacher.k[image, head].T / 5 ** .5).softmax(-1)
            scores = (queries[image] @ forms[head] @ keys[image].T).softmax(-1)
            expected[head] += (target * (target / scores).log()).sum(-1).mean() / 5
    torch.testing.assert_close(divergence(forms, queries, keys, teacher, 'qk'), expected)
    gradients = []
    for chunk in (1, 3 * 36 * 2, 10**9):
        monkeypatch.setattr(read_out, 'CHUNK', chunk)
        learned = forms.clone().requires_grad_()
        torch.testing.assert_close(divergence(learned, queries, keys, teacher, 'qk', backward=True), expected)
        gradients.append(learned.grad)
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])


def test_the_fit_is_the_minimum_of_a_convex_problem():
    """Plain gradient descent, from elsewhere and for long, ends at the same forms."""
    queries, keys, teacher = random_problem()
    found = fit_forms(queries, keys, teacher, 'qk', 100, 0.01)
    target = (teacher.q @ teacher.k.transpose(-2, -1) / 5 ** .5).softmax(-1)  # (n, M, N, N)
    forms = noise(3, 4, 4, seed=9).requires_grad_()
    for _ in range(1500):
        scores = torch.einsum('bid,mde,bje->bmij', queries, forms, keys).log_softmax(-1)
        loss = F.kl_div(scores, target, reduction='sum') / (40 * 6) + 0.01 * forms.square().sum()
        gradient, = torch.autograd.grad(loss, forms)
        forms = (forms - 0.3 * gradient).detach().requires_grad_()
    torch.testing.assert_close(found, forms.detach(), atol=2e-3, rtol=0)


def test_forms_of_independent_noise_are_next_to_nothing():
    """What has nothing to do with the teacher cannot explain it; held out, it is no better than a uniform relation."""
    queries, keys, teacher = random_problem(number=400)
    half = QKV(*(x[:200] for x in teacher)), QKV(*(x[200:] for x in teacher))
    forms = fit_forms(queries[:200], keys[:200], half[0], 'qk', 100, 1e-4)
    uniform = divergence(torch.zeros_like(forms), queries[200:], keys[200:], half[1], 'qk')
    found = divergence(forms, queries[200:], keys[200:], half[1], 'qk')
    assert (found > uniform).all() and (found < 1.05 * uniform).all()


def test_whitened():
    queries, keys = 5 + noise(30, 6, 4) @ noise(4, 4, seed=1), 3 + noise(30, 6, 4, seed=2) @ noise(4, 4, seed=3)
    keys[..., 3] = keys[..., 0]  # a direction without variance
    white_queries, white_keys = whitened(queries, keys, slice(0, None, 2))
    torch.testing.assert_close(torch.einsum('bni,bnj->ij', white_queries[::2], white_queries[::2]) / 90, torch.eye(4),
                               atol=1e-4, rtol=0)
    moment = torch.einsum('bni,bnj->ij', white_keys[::2], white_keys[::2]) / 90
    torch.testing.assert_close(torch.linalg.eigvalsh(moment), torch.tensor([0., 1, 1, 1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(white_keys.mean(1), torch.zeros(30, 4), atol=1e-5, rtol=0)
