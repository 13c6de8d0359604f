"""The matchers' contract, and the three fixed strategies of Figure 2 (a-c)."""
import math
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS


class HeadMatcher(BaseModule):
    """Decides how much each teacher head counts for each student head.

    The contract: :meth:`forward` returns a weight whose rows (one a student head) sum to 1 over teacher heads.
    :meth:`prepare` may first reduce the relations, e.g. average them.

    Args:
        student_heads (int): M2, heads of the student's tapped block.
        teacher_heads (int): M1, heads of the teacher's tapped block.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__()
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads
        self.last_weight: Optional[Tensor] = None

    def prepare(self, student: Tensor, teacher: Tensor) -> Tuple[Tensor, Tensor]:
        """Relations to compare, from ``log R`` of student (B, M2, N, N) and teacher (B, M1, N, N): these, unchanged."""
        return student, teacher

    def forward(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """Weigh every pair of heads.

        Args:
            student (Tensor): ``log R`` of the student, (B, M2, N, N).
            teacher (Tensor): ``log R`` of the teacher, (B, M1, N, N).
            distance (Tensor): What the loss measured between them, (B, M2, M1).

        Returns:
            Tensor: (B, M2, M1); each row sums to 1.
        """
        weight = self.match(student, teacher, distance)
        self.last_weight = weight.detach()
        return weight

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """The weight; arguments as in :meth:`forward`."""
        raise NotImplementedError

    def penalty(self, weight: Tensor) -> Optional[Tensor]:
        """A scalar to be added to the loss, or None."""
        return None

    @torch.no_grad()
    def diagnostics(self) -> Dict[str, Tensor]:
        """What the last batch's weight looked like; scalars that stay on their device.

        Returns:
            dict: Empty before the first batch, else

            - ``head_entropy``: mean entropy of an image's rows over ``log M1``; 0 = one teacher head a student head
              (collapse), 1 = uniform.
            - ``head_coverage``: share of teacher heads whose mass (column sum, mean over images) is at least half of
              its fair share M2 / M1.
            - ``head_spread``: standard deviation across student heads, mean over teacher heads; 0 = all rows equal.
        """
        if self.last_weight is None:
            return {}
        rows, mean = self.last_weight, self.last_weight.mean(0)  # (B, M2, M1), (M2, M1)
        num_students, num_teachers = mean.shape
        entropy = torch.special.entr(rows).sum(-1).mean() / math.log(max(num_teachers, 2))
        coverage = (mean.sum(0) >= 0.5 * num_students / num_teachers).float().mean()
        return dict(head_entropy=entropy, head_coverage=coverage, head_spread=mean.std(0, unbiased=False).mean())


@MODELS.register_module()
class OneToOneHeadMatcher(HeadMatcher):
    """Student head m learns from teacher head m (Figure 2c; TinyMIM, with its adaptive block).

    Raises:
        UserInputError: If the two head counts differ.
    """

    def __init__(self, student_heads: int, teacher_heads: int) -> None:
        super().__init__(student_heads, teacher_heads)
        if student_heads != teacher_heads:
            raise UserInputError(
                f'OneToOneHeadMatcher needs as many student heads as teacher heads, but there are {student_heads} and '
                f'{teacher_heads}; set backbone.relation_heads={teacher_heads} or use AttentionHeadMatcher.')

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """The identity, (B, M, M)."""
        return torch.eye(self.student_heads, dtype=distance.dtype, device=distance.device).expand_as(distance)


@MODELS.register_module()
class AverageHeadMatcher(HeadMatcher):
    """Both networks' relations are averaged over heads, and the two averages compared (Figure 2a)."""

    def prepare(self, student: Tensor, teacher: Tensor) -> Tuple[Tensor, Tensor]:
        """``log`` of the mean relation of each network: (B, 1, N, N) twice."""
        return tuple(x.logsumexp(1, keepdim=True) - math.log(x.shape[1]) for x in (student, teacher))

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """One, (B, 1, 1)."""
        return torch.ones_like(distance)


@MODELS.register_module()
class SelectHeadMatcher(HeadMatcher):
    """Student head m learns from one chosen teacher head (Figure 2b).

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        heads (Sequence[int], optional): For each student head the teacher head that teaches it, counted from 0, M2
            of them. None takes the first M2 (again from the start if M2 > M1). Defaults to None.

    Raises:
        UserInputError: If the list has another length or a number outside 0 .. M1 - 1.
    """

    def __init__(self, student_heads: int, teacher_heads: int, heads: Optional[Sequence[int]] = None) -> None:
        super().__init__(student_heads, teacher_heads)
        heads = [m % teacher_heads for m in range(student_heads)] if heads is None else list(heads)
        if len(heads) != student_heads or not all(isinstance(m, int) and 0 <= m < teacher_heads for m in heads):
            raise UserInputError(f'SelectHeadMatcher needs {student_heads} teacher heads between 0 and '
                                 f'{teacher_heads - 1}, one a student head, but got heads={heads}.')
        self.register_buffer('heads', torch.tensor(heads), persistent=False)

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """One-hot rows, (B, M2, M1)."""
        weight = torch.nn.functional.one_hot(self.heads, self.teacher_heads).to(distance.dtype)  # (M2, M1)
        return weight.expand_as(distance)
