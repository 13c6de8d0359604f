"""``RegroupHeadMatcher``: the student's channels form one head for each teacher head, and the forming is learned."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from ..relation import Factors, log_softmax_of
from .attention_head_matcher import column_descriptor
from .head_matchers import HeadMatcher, cut, identity


def nonnegative(weight: Tensor) -> Tensor:
    """``max(weight, 0)`` with the gradient of ``weight``, so that what fell below zero can come back."""
    return weight + (weight.clamp_min(0) - weight).detach()


def block_indicator(heads: int, dims: int) -> Tensor:
    """1 where a channel belongs to a block, (heads, dims); block m has channels m dims/heads to (m+1) dims/heads."""
    return torch.eye(heads).repeat_interleave(dims // heads, dim=1)


@MODELS.register_module()
class RegroupHeadMatcher(HeadMatcher):
    """Every teacher head m is taught to a head that the student's channels form for it.

    ``S_m = softmax(Q diag(a_m) K^T / sqrt(D2 / M1))`` over all D2 channels of the student, with ``a_m`` learned; the
    loss is the mean of ``KL(T_m || S_m)``. At the start ``a_m`` is the indicator of the m-th of M1 blocks of channels,
    which is TinyMIM's loss without rebuilding the student's block. Attention between heads (eqs. 4-6) weighs teacher
    heads, so that targets are mixtures; here the combination is on the student's side, and every target is a head of
    the teacher. Every teacher head counts 1 / M1, so none is the easiest.

    With ``adaptive`` the attention of eqs. 4-6 is turned round: each teacher head looks for the student's own heads by
    what it and they attend to in this image, and ``a_m`` of a head's channels is multiplied by the exponential of that.

    For relations of one matrix with itself (V-V, Q-Q, K-K) ``a`` is kept non-negative.

    Args:
        student_heads (int): M2, the student's own heads; any number.
        teacher_heads (int): M1.
        adaptive (bool): Whether ``a`` depends on the image. Defaults to False (our choice).
        shrink (float): Weight of the mean squared distance of ``a`` from its start in the loss. Defaults to 0.01 (our
            choice).
        proj_dims (int): C of eq. 5, with ``adaptive``. Defaults to 64 (our choice).
        student_dims (int): D2; filled in by the algorithm.
        teacher_dims (int, optional): D1; not used.

    Raises:
        UserInputError: If M1 does not divide D2, or a number is negative.
    """

    mixes = False

    def __init__(self, student_heads: int, teacher_heads: int, adaptive: bool = False, shrink: float = 0.01,
                 proj_dims: int = 64, *, student_dims: int | None = None,
                 teacher_dims: int | None = None) -> None:
        super().__init__(student_heads, teacher_heads, student_dims=student_dims, teacher_dims=teacher_dims)
        if not self.student_dims or self.student_dims % teacher_heads:
            raise UserInputError(f"RegroupHeadMatcher: the teacher's {teacher_heads} heads do not divide the student's "
                                 f'width of {self.student_dims}; use OneToOneHeadMatcher with relation_heads, a common '
                                 f'divisor of both widths.')
        if shrink < 0 or proj_dims < 1:
            raise UserInputError(f'RegroupHeadMatcher: shrink is not negative and proj_dims is positive, not '
                                 f'{shrink!r} and {proj_dims!r}.')
        self.shrink = shrink
        self.register_buffer('start', block_indicator(teacher_heads, self.student_dims), persistent=False)  # (M1, D2)
        self.share = nn.Parameter(self.start.clone())  # (M1, D2), a
        self.adaptive = adaptive
        if adaptive:
            self.proj_student = nn.Linear(student_heads, proj_dims)
            self.proj_teacher = nn.Linear(teacher_heads, proj_dims)
            self.gate = nn.Parameter(torch.zeros(()))  # 0: the static form

    def regroup(self, student: Factors, teacher: Factors) -> tuple[Factors, Factors]:
        """The student's sides (B, M2, N, d2) as M1 heads over all channels: (B, M1, N, D2) and (B, 1, N, D2)."""
        symmetric = student.first is student.second
        share = nonnegative(self.share) if symmetric else self.share  # (M1, D2)
        if self.adaptive:
            look = self.attention(student, teacher)  # (B, M1, M2)
            channels = repeat(look, 'b m s -> b m (s d)', d=self.share.shape[1] // self.student_heads)  # (B, M1, D2)
            share = share * (self.gate * channels).exp()  # (B, M1, D2)
        first = cut(student.first, 1)  # (B, 1, N, D2)
        second = first if symmetric else cut(student.second, 1)  # (B, 1, N, D2)
        # eq. 1 divides by sqrt(D2); a head of M1 has D2 / M1 channels
        share = rearrange(share, '... m d -> ... m 1 d') * self.teacher_heads ** 0.5  # (..., M1, 1, D2)
        return Factors(first * share.to(first.dtype), second), teacher  # (B, M1, N, D2), (B, 1, N, D2)

    def attention(self, student: Factors, teacher: Factors) -> Tensor:
        """Eqs. 4-6 turned round: cosine of teacher head and student head, (B, M1, M2). Relations get no gradient."""
        likeness = []
        with torch.no_grad():
            for sides in (teacher, student):
                description = column_descriptor(log_softmax_of(sides).exp())  # (B, M, N)
                likeness.append(description @ description.mT)  # (B, M, M), eq. 4
        with torch.autocast(student.first.device.type, enabled=False):
            query = F.normalize(self.proj_teacher(likeness[0]), dim=-1)  # (B, M1, C), eq. 5
            key = F.normalize(self.proj_student(likeness[1]), dim=-1)  # (B, M2, C), eq. 5
            return query @ key.mT  # (B, M1, M2), eq. 6 before its softmax

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """The identity, (B, M1, M1)."""
        return identity(distance)

    def penalty(self, weight: Tensor) -> Tensor | None:
        """``shrink`` times the squared distance of ``a`` from its start, mean over teacher heads."""
        return self.shrink * (self.share - self.start).square().sum(-1).mean() if self.shrink else None

    def rows(self) -> Tensor | None:
        """``a``, (M1, D2), each row divided by its largest entry: what tells the formed heads apart."""
        if self.last_weight is None:
            return None
        return self.share / self.share.abs().amax(-1, keepdim=True).clamp_min(1e-6)
