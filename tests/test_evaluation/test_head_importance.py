"""Importance of heads: equal to finite differences, to hand-made attention, and through a file into the matcher."""
import json

import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.head_importance import (
    choose_measure,
    confidence,
    confidence_importance,
    gated_losses,
    gradient_importance,
    reconstructing_mae,
)
from mimhd_mm.evaluation.teacher_doctor import build_mae as mae_of_file
from mimhd_mm.models import MAETeacher, SelectHeadMatcher
from mimhd_mm.models.matchers.head_matchers import most_important
from mimhd_mm.weights.mae_files import read_mae_file
from mimhd_mm.weights.reading import sha256_of

from ..conftest import SIZE, TEACHER, build_mae

BLOCK = 3


@pytest.fixture
def mae(teacher_file):
    """In float64, so that finite differences are exact enough."""
    return mae_of_file(read_mae_file(teacher_file), TEACHER['num_heads'], 4).double()


def images(count=5):
    return torch.randn(count, 3, 32, 32, dtype=torch.float64)


# -------------------------------------------------------------------------------------------------------- gradient
def test_gates_of_one_leave_maes_own_loss(mae):
    x = images()
    torch.manual_seed(2)
    expected = mae(x, mode='loss')['loss']
    losses = gated_losses(mae, x, BLOCK, torch.ones(5, 4), seed=2)
    assert losses.shape == (5,)
    torch.testing.assert_close(losses.mean(), expected)


def test_gradient_equals_finite_differences_of_each_images_loss(mae):
    x, eps, mixed = images(), 1e-5, 0
    found = gradient_importance(mae, x, BLOCK)
    assert found.shape == (4,) and (found > 0).all()
    for head in range(4):
        step = torch.zeros(5, 4, dtype=torch.float64)
        step[:, head] = eps
        with torch.no_grad():
            slope = (gated_losses(mae, x, BLOCK, 1 + step) - gated_losses(mae, x, BLOCK, 1 - step)) / (2 * eps)
        torch.testing.assert_close(found[head].item(), slope.abs().mean().item(), rtol=1e-4, atol=1e-9)
        mixed += slope.sign().unique().numel() == 2
    assert mixed  # where signs differ, the derivative of the batch's loss would be another number


def test_a_gate_acts_on_its_own_head_and_image_alone(mae):
    x = images()
    gates = torch.ones(5, 4, dtype=torch.float64)
    gates[2, 1] = 0
    before, after = gated_losses(mae, x, BLOCK, torch.ones_like(gates)), gated_losses(mae, x, BLOCK, gates)
    assert (before != after).tolist() == [False, False, True, False, False]
    with torch.no_grad():  # the columns of the output projection that read head 1
        mae.backbone.layers[BLOCK - 1].attn.proj.weight[:, 12:24] = 0
    torch.testing.assert_close(gated_losses(mae, x, BLOCK, torch.ones_like(gates))[2], after[2])


def test_a_head_that_the_projection_drops_has_no_importance(mae):
    with torch.no_grad():
        mae.backbone.layers[BLOCK - 1].attn.proj.weight[:, 24:36] = 0
    found = gradient_importance(mae, images(), BLOCK)
    assert found[2] == 0 and (found[[0, 1, 3]] > 0).all()
    assert most_important(found.tolist(), 4)[-1] == 2


def test_nothing_of_the_model_or_of_chance_is_changed(mae):
    x, attention, state = images(), mae.backbone.layers[BLOCK - 1].attn, torch.random.get_rng_state()
    first = gradient_importance(mae, x, BLOCK)
    assert torch.equal(state, torch.random.get_rng_state())
    assert mae.backbone.layers[BLOCK - 1].attn is attention
    assert all(parameter.grad is None for parameter in mae.parameters())
    assert torch.equal(gradient_importance(mae, x, BLOCK), first)


def test_batches_are_averaged_by_images(mae):
    x = images()
    whole = gradient_importance(mae, x, BLOCK, batch_size=2, seed=4)
    parts = [gradient_importance(mae, x[2 * i:2 * i + 2], BLOCK, seed=4 + i) for i in range(3)]
    torch.testing.assert_close(whole, (2 * parts[0] + 2 * parts[1] + parts[2]) / 5)


def test_a_file_that_does_not_reconstruct_is_refused(teacher_file):
    with pytest.raises(UserInputError, match='does not reconstruct these images .* use --measure confidence'):
        reconstructing_mae(read_mae_file(teacher_file), torch.randn(4, 3, 32, 32), 4)


# ------------------------------------------------------------------------------------------------------ confidence
def test_confidence_of_hand_made_attention():
    attention = torch.stack([torch.eye(4), torch.full((4, 4), .25), torch.tensor([[.7, .1, .1, .1]] * 2 + [
        [.4, .6, 0., 0.]] * 2)])[None]
    torch.testing.assert_close(confidence(attention), torch.tensor([[1., .25, .65]]))


def test_confidence_of_a_teacher_without_class_token(teacher_file):
    teacher = MAETeacher(str(teacher_file), arch=TEACHER, block=BLOCK, **SIZE)
    teacher.load()
    x = images().float()
    q, k, _ = teacher(x)
    total = torch.zeros(4)
    for b in range(5):
        for m in range(4):
            weights = torch.softmax(q[b, m, 1:] @ k[b, m, 1:].T / 12 ** .5, -1)
            total[m] += sum(row.max() for row in weights) / 16 / 5
    torch.testing.assert_close(confidence_importance(teacher, x, batch_size=2), total)


def test_measure_follows_the_file(teacher_file, tmp_path):
    assert choose_measure(read_mae_file(teacher_file)) == 'gradient'
    tensors = {k: v for k, v in build_mae().state_dict().items() if k.startswith('backbone.')}
    torch.save(dict(state_dict=tensors), tmp_path / 'encoder.pth')
    encoder = read_mae_file(tmp_path / 'encoder.pth')
    assert choose_measure(encoder) == choose_measure(encoder, 'confidence') == 'confidence'
    with pytest.raises(UserInputError, match="encoder.pth' holds no decoder, .* use --measure confidence"):
        choose_measure(encoder, 'gradient')


# ----------------------------------------------------------------------------------------------- into the matcher
@pytest.mark.parametrize('student_heads, expected', [(2, [3, 1]), (4, [3, 1, 0, 2]), (6, [3, 1, 0, 2, 3, 1])])
def test_matcher_takes_the_most_important_heads_of_a_file(tmp_path, student_heads, expected):
    path = tmp_path / 'heads.json'
    path.write_text(json.dumps(dict(importance=[.2, .3, .1, .9])))
    for heads in (path, str(path)):
        matcher = SelectHeadMatcher(student_heads, 4, heads=heads)
        weight = matcher.match(None, None, torch.zeros(2, student_heads, 4))
        assert weight.argmax(-1)[0].tolist() == expected and weight.sum() == 2 * student_heads
    assert SelectHeadMatcher(6, 4).heads.tolist() == [0, 1, 2, 3, 0, 1]  # without a file: the first ones


def test_equal_heads_keep_their_order():
    assert most_important([1., 2., 1., 2.], 4) == [1, 3, 0, 2]


@pytest.mark.parametrize('content, message', [
    (None, "no file '.*heads.json'; write it with tools/analysis_tools/rank_heads.py"),
    ('{"importance": [1, 2', 'is not a file of tools/analysis_tools/rank_heads.py'),
    ('{"heads": [1, 2]}', 'is not a file of'),
    ('[1, 2, 3, 4]', 'is not a file of'),
    ('{"importance": 4}', 'is not a file of'),
    ('{"importance": [1, 2, 3, NaN]}', 'no finite number'),
    ('{"importance": [1, 2, 3]}', 'ranks 3 heads, but the teacher has 4'),
])
def test_unusable_files(tmp_path, content, message):
    path = tmp_path / 'heads.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserInputError, match=message) as caught:
        SelectHeadMatcher(3, 4, heads=str(path))
    assert 'heads.json' in str(caught.value) and '\n' not in str(caught.value)


def test_heads_that_are_neither_a_list_nor_a_file():
    with pytest.raises(UserInputError, match='needs 3 teacher heads between 0 and 3, one a student head, .* heads=2'):
        SelectHeadMatcher(3, 4, heads=2)


def test_a_ranking_of_another_teacher_is_refused_when_the_teacher_is_loaded(build_mimhd, teacher_file, tmp_path):
    """It would fit: blocks of one network, and networks of one size, have as many heads."""
    path, ranking = tmp_path / 'heads.json', dict(importance=[.2, .3, .1, .9], sha256=sha256_of(teacher_file), block=3)
    matcher = dict(type='SelectHeadMatcher', heads=str(path))
    path.write_text(json.dumps(ranking))
    model = build_mimhd(head=dict(type='RelationDistillHead', matcher=matcher))
    assert model.head.matchers['qk'].heads.tolist() == [3, 1, 0]
    for change, found in ((dict(block=2), 'block=2, but this one has 3'),
                          (dict(sha256='f' * 64), 'sha256=ffffffffffff')):
        path.write_text(json.dumps({**ranking, **change}))
        with pytest.raises(UserInputError, match=found):
            build_mimhd(head=dict(type='RelationDistillHead', matcher=matcher))
