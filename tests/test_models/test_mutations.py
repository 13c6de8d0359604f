"""The tests of the core formulas notice it when one is wrong: each mutation here makes at least one of them fail.

A mutation changes one line in a copy of a function's source text. The copy's code takes the function's place while the
tests that are named are called, and is taken out again.
"""
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest
import torch

from mimhd_mm.models import ExplainHeadMatcher, RegroupHeadMatcher, RelationDistillHead, RelationDistillLoss
from mimhd_mm.models import relation as relation_module
from mimhd_mm.models.matchers import attention_head_matcher, head_matchers, regroup_head_matcher
from mimhd_mm.models.relation import log_relation, log_softmax_of, logits_of
from mimhd_mm.models.views import asked_patches, draw_seen, draw_views, hide, merge, spread_views

from . import test_matchers as matchers
from . import test_mimhd as mimhd
from . import test_relation as relation
from . import test_relation_distill_head as head
from . import test_relation_loss as loss
from . import test_token_fraction as tokens
from . import test_views as views
from .test_relation_distill_head import qkvs

Test = tuple[Callable, Sequence]


def eq_7_in_loops() -> None:
    """Of each image the sum over teacher heads of W times KL, mean over images and student heads."""
    module = RelationDistillHead(3, 4)
    student, teacher = qkvs(3, 4, torch.float64)
    module.double()
    losses = module.loss(student, teacher)
    for pair in ('qk', 'vv'):
        ours, theirs = (log_relation(net.without_cls(), pair) for net in (student, teacher))
        distance, weight = loss.slow_distance(ours, theirs, 'KL'), module.matchers[pair].last_weight
        expected = sum(weight[b, m2, m1] * distance[b, m2, m1] for b in range(2) for m2 in range(3) for m1 in range(4))
        torch.testing.assert_close(losses[f'loss_{pair}'], expected / 6)


def descriptors_in_loops() -> None:
    """Attention that token n gets from all tokens, less the heads' mean of it, of unit length."""
    weights = torch.randn(2, 3, 5, 5, dtype=torch.float64).softmax(-1)  # (B, M, N, N)
    found = attention_head_matcher.column_descriptor(weights)  # (B, M, N)
    for image, description in zip(weights, found):
        received = torch.stack([torch.stack([head[:, n].sum() / 5 for n in range(5)]) for head in image])  # (M, N)
        for own, expected in zip(description, received - sum(received) / 3):
            torch.testing.assert_close(own, expected / expected.square().sum().sqrt())


class Mutation(NamedTuple):
    """A formula that is made wrong.

    Attributes:
        function (FunctionType): Whose text is changed.
        old (str): What stands in it exactly once.
        new (str): What comes in its place.
        tests (list): Test functions with their arguments; names of fixtures as strings.
    """
    function: FunctionType
    old: str
    new: str
    tests: list[Test]


MUTATIONS = {
    # the five that were asked for
    'sign of KL': Mutation(
        RelationDistillLoss.forward, 'distance = own - self._products', 'distance = own + self._products',
        [(loss.test_zero_at_identity_and_positive_elsewhere, ('KL',)),
         (loss.test_equals_a_double_loop_with_its_gradient, ('KL',))]),
    'axis of the softmax of a relation': Mutation(
        log_softmax_of, 'dim=-1', 'dim=-2',
        [(relation.test_rows_sum_to_one, ('qk',)), (relation.test_equals_the_formula_written_out, ())]),
    'transposed W': Mutation(
        RelationDistillHead.loss, '(weight * distance)', '(weight.mT.reshape(distance.shape) * distance)',
        [(eq_7_in_loops, ())]),
    'swapped views': Mutation(
        merge, 'predictions[0], predictions[1])', 'predictions[1], predictions[0])',
        [(views.test_merge_takes_each_patch_from_the_view_that_did_not_see_it, ())]),
    'swapped views in training': Mutation(
        asked_patches, 'descending=True', 'descending=False',
        [(views.test_hidden_patches_are_those_of_the_masks_and_go_back_to_their_places, (16, 0.5, (8, 8))),
         (mimhd.test_reconstruction_loss_is_the_error_of_blind_predictions, ('build_mimhd',))]),
    'direction of KL': Mutation(
        RelationDistillHead._compare, 'self.loss_module(output, target)', 'self.loss_module(target, output).mT',
        [(head.test_one_to_one_with_equal_head_counts_is_tinymim, ()), (eq_7_in_loops, ())]),
    # and some more
    'scale of the products': Mutation(
        logits_of, '** -0.5', '** 0.5', [(relation.test_equals_the_formula_written_out, ())]),
    'queries and keys exchanged': Mutation(
        logits_of, 'return first @ second', 'return (first @ second).mT',
        [(relation.test_rows_are_queries_and_columns_are_keys, ()),
         (relation.test_equals_the_formula_written_out, ())]),
    'axis of W': Mutation(
        attention_head_matcher.sinkhorn, '(logits + columns).softmax(-1)', '(logits + columns).softmax(-2)',
        [(matchers.test_sinkhorn_balances_columns_and_keeps_rows_exact, ())]),
    'attention that a token gives, not receives': Mutation(
        attention_head_matcher.column_descriptor, 'relation.mean(-2)', 'relation.mean(-1)',
        [(descriptors_in_loops, ())]),
    'shown instead of hidden': Mutation(
        hide, 'torch.where(masks.unsqueeze(-1), substitute', 'torch.where(~masks.unsqueeze(-1), substitute',
        [(views.test_hide_replaces_hidden_patches_and_nothing_else, ())]),
    # heads cut anew, combinations, balance and blur
    'scale of regrouped heads': Mutation(
        RegroupHeadMatcher.regroup, ' * self.teacher_heads ** 0.5', '',
        [(matchers.test_regrouped_heads_equal_the_formula, ('qk',)),
         (matchers.test_regrouped_heads_equal_the_formula, ('vv',))]),
    'channels dealt out in turn': Mutation(
        head_matchers.cut, "'b n (h c) -> b h n c', h=heads", "'b n (c h) -> b h n c', h=heads",
        [(matchers.test_regrouped_heads_start_from_tinymims_loss_with_its_gradients,
          ('qk', dict(type='OneToOneHeadMatcher')))]),
    'negative shares': Mutation(
        regroup_head_matcher.nonnegative, 'weight.clamp_min(0) - weight', 'weight - weight',
        [(matchers.test_regrouped_heads_equal_the_formula, ('vv',)),
         (matchers.test_explained_heads_equal_the_slow_formula, ())]),
    'shares that cannot come back': Mutation(
        regroup_head_matcher.nonnegative, 'weight + (weight.clamp_min(0) - weight).detach()', 'weight.clamp_min(0)',
        [(matchers.test_what_fell_below_zero_can_come_back, ())]),
    'combined heads without their normaliser': Mutation(
        ExplainHeadMatcher.prepare, 'combined.log_softmax(-1)', 'combined',
        [(matchers.test_explained_heads_equal_the_slow_formula, ())]),
    'hinge the wrong way round': Mutation(
        ExplainHeadMatcher.penalty, '0.5 - self.shares().sum(0) / fair', 'self.shares().sum(0) / fair - 0.5',
        [(matchers.test_a_sleeping_head_is_penalised_until_it_wakes, ())]),
    'capacity as a lower bound': Mutation(
        attention_head_matcher.sinkhorn, 'columns.clamp_max(0)', 'columns.clamp_min(0)',
        [(matchers.test_capacity_bounds_columns_and_lets_rows_be_sharper, ())]),
    'blur without its entropies': Mutation(
        RelationDistillLoss._spread, "self.criterion == 'KL'", "self.criterion == 'L2'",
        [(matchers.test_blur_is_what_no_student_can_remove, ())]),
    # a part of the tokens
    'the patch before': Mutation(
        relation_module.with_cls, 'seen + 1', 'seen',
        [(tokens.test_a_teacher_of_all_patches_gives_those_that_are_seen, ('teacher_file',)),
         (tokens.test_student_and_teacher_equal_masked_attention, ('teacher_file', {}))]),
    'unseen patches shown': Mutation(
        spread_views, 'masks.new_ones', 'masks.new_zeros',
        [(tokens.test_views_split_what_is_seen_and_ask_for_every_patch_once, ())]),
    'patches asked for twice': Mutation(
        spread_views, '[asked, ~asked]', '[asked, asked]',
        [(tokens.test_views_split_what_is_seen_and_ask_for_every_patch_once, ())]),
    'the same patches for ever': Mutation(
        draw_seen, 'random.getrandbits(63)', '0',
        [(tokens.test_a_draw_leaves_torchs_generator_alone_and_follows_pythons, ())]),
    'the first patches': Mutation(
        draw_seen, 'noise.argsort(dim=1)', 'noise.sort(dim=1).indices.sort(dim=1).values',
        [(tokens.test_every_patch_has_the_same_chance_to_be_seen, ())]),
    'views that are the same': Mutation(
        draw_views, '[hidden, ~hidden]', '[hidden, hidden]',
        [(views.test_views_are_complements_of_the_right_size, (0.5, 8))]),
}


#: arguments of tests that are fixtures
FIXTURES = ('build_mimhd', 'teacher_file')


def mutated(function: FunctionType, old: str, new: str) -> CodeType:
    """The code of a copy of a function with a change in its text."""
    text = textwrap.dedent(inspect.getsource(function))
    assert text.count(old) == 1, f'{old!r} stands {text.count(old)} times in {function.__qualname__}'
    assert '\n' not in old
    names = dict(function.__globals__)
    exec(compile(text.replace(old, new), f'mutated {function.__qualname__}', 'exec'), names)
    assert not function.__code__.co_freevars
    return names[function.__name__].__code__


def failures(tests: Sequence[Test], request) -> list[str]:
    """Names of the tests that fail."""
    failed = []
    for test, arguments in tests:
        arguments = [request.getfixturevalue(one) if isinstance(one, str) and one in FIXTURES else one
                     for one in arguments]
        torch.manual_seed(0)
        try:
            test(*arguments)
        except AssertionError:
            failed.append(test.__name__)
    return failed


@pytest.mark.parametrize('name', MUTATIONS)
def test_is_noticed(name, request, monkeypatch):
    mutation = MUTATIONS[name]
    assert failures(mutation.tests, request) == []
    with monkeypatch.context() as patch:
        patch.setattr(mutation.function, '__code__', mutated(mutation.function, mutation.old, mutation.new))
        failed = failures(mutation.tests, request)
        assert failed == [test.__name__ for test, _ in mutation.tests]
    assert failures(mutation.tests, request) == []
