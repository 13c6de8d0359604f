"""``RelationDistillHead``: relations of two networks in, losses out (eqs. 1-7)."""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import UserInputError
from ...registry import MODELS
from ..matchers import HeadMatcher
from ..relation import QKV, check_pair, factors, log_softmax_of

#: images of a batch whose blur is measured, for the log
BLUR_IMAGES = 4


@MODELS.register_module()
class RelationDistillHead(BaseModule):
    """Compares the student's relations with the teacher's, pair by pair, head by head.

    Reduction: mean over images, query tokens and student heads, sum over teacher heads, whose weights sum to 1. So
    with as many heads on both sides and one-to-one matching the loss is TinyMIM's.

    Args:
        student_heads (int): M2; filled in by the algorithm.
        teacher_heads (int): M1; filled in by the algorithm.
        student_dims (int, optional): D2, width of the student's q, k, v; filled in by the algorithm.
        teacher_dims (int, optional): D1, the same of the teacher; filled in by the algorithm.
        pairs (Sequence[str]): Relations to distil, keys of ``mimhd_mm.models.relation.PAIRS``; each has its own
            matcher. Defaults to ``('qk', 'vv')`` (paper).
        matcher (dict): A head matcher. Defaults to ``dict(type='AttentionHeadMatcher')`` (paper).
        loss (dict): What compares two relations. Defaults to ``dict(type='RelationDistillLoss', criterion='KL')``.
        with_cls_token (bool): Whether the [class] token takes part as query and key. Defaults to False (paper).
        chunk_size (int, optional): Compare so many images at a time and compute their relations again in the backward
            pass, so that never more relations are in memory than of one pair and that many images. None takes the whole
            batch at once. Defaults to None.

    Raises:
        UserInputError: If a pair or a type is unknown, ``pairs`` is empty, or ``chunk_size`` is not positive or the
            matcher looks across images.
    """

    matchers: Any  # ModuleDict, a HeadMatcher by pair

    def __init__(self, student_heads: int, teacher_heads: int, pairs: Sequence[str] = ('qk', 'vv'),
                 matcher: dict = dict(type='AttentionHeadMatcher'),
                 loss: dict = dict(type='RelationDistillLoss', criterion='KL'),
                 with_cls_token: bool = False, chunk_size: int | None = None, student_dims: int | None = None,
                 teacher_dims: int | None = None) -> None:
        super().__init__()
        self.pairs = tuple(check_pair(pair) for pair in pairs)
        if not self.pairs or len(set(self.pairs)) < len(self.pairs):
            raise UserInputError(f'`pairs` names each relation to distil once, not {tuple(pairs)!r}.')
        if MODELS.get(matcher['type']) is None or not issubclass(MODELS.get(matcher['type']), HeadMatcher):
            known = sorted(name for name, cls in MODELS.module_dict.items() if issubclass(cls, HeadMatcher))
            raise UserInputError(f'Unknown matcher {matcher["type"]!r}; choose from {", ".join(known)}.')
        self.matchers = nn.ModuleDict({
            pair: MODELS.build(dict(matcher, student_heads=student_heads, teacher_heads=teacher_heads,
                                    student_dims=student_dims, teacher_dims=teacher_dims))
            for pair in self.pairs})
        self.loss_module = MODELS.build(loss)
        self.with_cls_token = with_cls_token
        self.chunk_size = chunk_size
        if chunk_size is None:
            return
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise UserInputError(f'chunk_size is a number of images, at least 1, or None, not {chunk_size!r}.')
        if not all(matcher.per_image for matcher in self.matchers.values()):
            raise UserInputError(f'chunk_size={chunk_size} and this {matcher["type"]} exclude each other: it compares '
                                 f'the images of a batch with each other; leave one out.')

    def loss(self, student: QKV, teacher: QKV) -> dict[str, Tensor]:
        """Distil every pair.

        Args:
            student (QKV): Each (B, M2, 1 + N, d2), [class] token first.
            teacher (QKV): Each (B, M1, 1 + N, d1), [class] token first; gets no gradient.

        Returns:
            dict: ``loss_<pair>`` for each pair, and ``loss_<pair>_balance`` where the matcher has a penalty.
        """
        if not self.with_cls_token:
            student, teacher = student.without_cls(), teacher.without_cls()
        losses = {}
        for pair in self.pairs:
            matcher = self.matchers[pair]
            distance, weight, floor = self._compare_in_chunks(pair, student, teacher)  # (B, M2, M1) twice, (b, M2)
            losses[f'loss_{pair}'] = (weight * distance).sum(-1).mean()  # eq. 7
            if (penalty := matcher.penalty(weight)) is not None:
                losses[f'loss_{pair}_balance'] = penalty
            matcher.record(weight, self._blur(distance, weight, floor))
        return losses

    @torch.no_grad()
    def _blur(self, distance: Tensor, weight: Tensor, floor: Tensor | None) -> Tensor | None:
        """Share of the loss that no student can remove, of the images that ``floor`` (b, M2) was measured of."""
        if floor is None:
            return None
        some = slice(0, len(floor))
        return floor.mean() / (weight[some] * distance[some]).sum(-1).mean().clamp_min(1e-12)

    def _compare_in_chunks(self, pair: str, student: QKV, teacher: QKV) -> tuple[Tensor, Tensor, Tensor | None]:
        """As :meth:`_compare`, ``chunk_size`` images at a time."""
        if self.chunk_size is None:
            return self._compare(pair, student, teacher)
        chunks = [checkpoint(self._compare, pair, QKV(*part[:3]), QKV(*part[3:]),
                             use_reentrant=False, preserve_rng_state=False)  # nothing random in it
                  for part in zip(*(x.split(self.chunk_size) for x in (*student, *teacher)))]
        distance, weight, floor = zip(*chunks)
        return torch.cat(distance), torch.cat(weight), None if floor[0] is None else torch.cat(floor)[:BLUR_IMAGES]

    def _compare(self, pair: str, student: QKV, teacher: QKV) -> tuple[Tensor, Tensor, Tensor | None]:
        """Distances of all pairs of heads and their weights, (B, M2, M1) each, and the floor of some images' losses.

        It may run a second time, in the backward pass, so it changes no state.
        """
        matcher = self.matchers[pair]
        ours, theirs = matcher.regroup(factors(student, pair), factors(teacher, pair))
        with torch.no_grad():
            target = log_softmax_of(theirs)  # (B, M1, N, N), eq. 1
        output, target = matcher.prepare(log_softmax_of(ours), target)  # (B, M2, N, N), (B, M1, N, N)
        distance = self.loss_module(output, target)  # (B, M2, M1)
        weight = matcher.match(output, target, distance)  # (B, M2, M1), eqs. 4-6
        some = slice(0, BLUR_IMAGES)
        floor = self.loss_module.floor(target[some], weight[some]) if matcher.mixes else None  # (b, M2)
        return distance, weight, floor

    def diagnostics(self) -> dict[str, Tensor]:
        """Figures of each pair's matcher of the last batch, ``head_entropy_<pair>`` and so on."""
        return {f'{name}_{pair}': value for pair in self.pairs
                for name, value in self.matchers[pair].diagnostics().items()}
