"""``RelationDistillLoss``: how far every student head's relation is from every teacher head's."""
import math

import torch
from einops import rearrange
from mmengine.model import BaseModule
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS


@MODELS.register_module()
class RelationDistillLoss(BaseModule):
    """All distances between M2 student relations and M1 teacher relations of an image, as one matrix.

    The B x M2 x M1 x N x N differences are never built. Both criteria split into a term per head and a product, so
    the matrix is one batched matmul of (M2, N N) by (N N, M1), e.g. for ``KL(T || S) = sum T log T - sum T log S``.
    ``log N`` is added to both logarithms, which changes nothing, since the rows of T sum to 1, but keeps the two
    sums small and their difference exact where relations are flat.

    Args:
        criterion (str): ``'KL'`` for ``KL(teacher || student)`` in nats, the direction of TinyMIM, or ``'L2'`` for
            the squared distance of the two distributions (Table 3's MSE). Both are summed over key tokens and
            averaged over query tokens. Defaults to ``'KL'``.

    Raises:
        UserInputError: If the criterion is unknown.
    """

    CRITERIA = ('KL', 'L2')

    def __init__(self, criterion: str = 'KL') -> None:
        super().__init__()
        if criterion not in self.CRITERIA:
            raise UserInputError(f'Unknown criterion {criterion!r}; choose from {", ".join(self.CRITERIA)}.')
        self.criterion = criterion

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare every student head with every teacher head.

        Args:
            student (Tensor): ``log R`` of the student, (B, M2, N, N).
            teacher (Tensor): ``log R`` of the teacher, (B, M1, N, N).

        Returns:
            Tensor: (B, M2, M1), zero where two relations are equal, never below zero but for rounding.
        """
        num_tokens = student.shape[-1]
        with torch.autocast(student.device.type, enabled=False):
            if self.criterion == 'KL':
                student = student + math.log(num_tokens)  # (B, M2, N, N)
                log_ratio = teacher + math.log(num_tokens)  # (B, M1, N, N)
                teacher = teacher.exp()  # (B, M1, N, N)
                own = (teacher * log_ratio).sum((-2, -1)).unsqueeze(1)  # (B, 1, M1)
                distance = own - self._products(student, teacher)  # (B, M2, M1)
            else:
                student, teacher = student.exp(), teacher.exp()
                own = student.square().sum((-2, -1)).unsqueeze(2)  # (B, M2, 1)
                own = own + teacher.square().sum((-2, -1)).unsqueeze(1)  # (B, M2, M1)
                distance = own - 2 * self._products(student, teacher)  # (B, M2, M1)
        return distance / num_tokens

    @torch.no_grad()
    def floor(self, teacher: Tensor, weight: Tensor) -> Tensor:
        """What no student can remove of each student head's loss ``sum_m1 W[m2, m1] * distance[m2, m1]``.

        For fixed weights the best relation of a student head is the mixture ``sum W T``, and what it leaves is the
        mixture's spread: the Jensen-Shannon divergence of the teacher's heads, weighed by W, or their variance for L2.

        Args:
            teacher (Tensor): ``log R`` of the teacher, (B, M1, N, N).
            weight (Tensor): (B, M2, M1), rows sum to 1.

        Returns:
            Tensor: (B, M2).
        """
        num_tokens = teacher.shape[-1]
        with torch.autocast(teacher.device.type, enabled=False):
            teacher = teacher.exp()  # (B, M1, N, N)
            mixture = torch.einsum('b s m, b m i j -> b s i j', weight.to(teacher.dtype), teacher)  # (B, M2, N, N)
            own, mixed = (self._spread(relation) for relation in (teacher, mixture))  # (B, M1), (B, M2)
            return (mixed - (weight.to(own.dtype) @ own.unsqueeze(-1)).squeeze(-1)) / num_tokens

    def _spread(self, relation: Tensor) -> Tensor:
        """Entropy of relations (B, M, N, N), or their negative squared length for L2: (B, M)."""
        if self.criterion == 'KL':
            return torch.special.entr(relation).sum((-2, -1))
        return -relation.square().sum((-2, -1))

    @staticmethod
    def _products(student: Tensor, teacher: Tensor) -> Tensor:
        """Sum over all token pairs of student times teacher: (B, M2, N, N), (B, M1, N, N) to (B, M2, M1)."""
        return rearrange(student, 'b m i j -> b m (i j)') @ rearrange(teacher, 'b m i j -> b (i j) m')
