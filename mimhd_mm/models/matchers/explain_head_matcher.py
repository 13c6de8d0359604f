"""``ExplainHeadMatcher``: every teacher head is explained by a combination of the student's heads."""

import torch
from einops import einsum
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from .head_matchers import HeadMatcher, identity
from .regroup_head_matcher import nonnegative


@MODELS.register_module()
class ExplainHeadMatcher(HeadMatcher):
    """Every teacher head m is compared with ``S_m = softmax(sum_s A[m, s] log S_s)``, with A >= 0 learned.

    A geometric mixture of the student's heads, so the combination is on the student's side and every target is a head
    of the teacher, which counts 1 / M1. At the start A is one-hot: teacher head m is explained by student head
    ``floor(m M2 / M1)``. A combination of M2 heads has rank M2 only: RegroupHeadMatcher combines channels.

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        hinge (float): Weight of the mean shortfall of student heads whose total, their column of A over the largest
            entry of each row, is below half of the fair share M1 / M2, so that none falls asleep. Defaults to 1.0 (our
            choice).
        **dims: ``student_dims`` and ``teacher_dims``; not used.

    Raises:
        UserInputError: If ``hinge`` is negative.
    """

    mixes = False

    def __init__(self, student_heads: int, teacher_heads: int, hinge: float = 1.0, **dims) -> None:
        super().__init__(student_heads, teacher_heads, **dims)
        if hinge < 0:
            raise UserInputError(f'ExplainHeadMatcher: hinge is not negative, but {hinge!r} was given.')
        self.hinge = hinge
        nearest = torch.arange(teacher_heads) * student_heads // teacher_heads  # (M1,)
        self.combination = nn.Parameter(torch.eye(student_heads)[nearest])  # (M1, M2), A

    def prepare(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """``log S`` of M1 combined heads, (B, M1, N, N), and the teacher's. Normalisers of single heads cancel."""
        combined = einsum(nonnegative(self.combination).to(student.dtype), student,
                          'm s, b s i j -> b m i j')  # (B, M1, N, N)
        return combined.log_softmax(-1), teacher

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """The identity, (B, M1, M1)."""
        return identity(distance)

    def shares(self) -> Tensor:
        """A with rows divided by their largest entry, (M1, M2)."""
        combination = nonnegative(self.combination)  # (M1, M2)
        return combination / combination.amax(-1, keepdim=True).clamp_min(1e-6)

    def penalty(self, weight: Tensor) -> Tensor | None:
        """``hinge`` times the mean over student heads of what they lack of half of their fair share."""
        if not self.hinge:
            return None
        fair = max(self.teacher_heads / self.student_heads, 1)
        return self.hinge * (0.5 - self.shares().sum(0) / fair).clamp_min(0).mean()

    def rows(self) -> Tensor | None:
        """What each student head explains: columns of A, (M2, M1)."""
        return None if self.last_weight is None else self.shares().mT
