"""The matchers' contract, and the three fixed strategies of Figure 2 (a-c)."""
import json
import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

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

    def check_teacher(self, sha256: str, block: int) -> None:
        """Called once the teacher is loaded: a matcher that was made for a certain teacher compares.

        Args:
            sha256 (str): Hash of the teacher's file, in hexadecimal.
            block (int): The tapped block, counted from 1.

        Raises:
            UserInputError: If this is another teacher.
        """

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
        heads (Sequence[int] | str | Path, optional): For each student head the teacher head that teaches it, counted
            from 0, M2 of them; or the JSON file of ``tools/analysis_tools/rank_heads.py``, whose M2 most important
            heads are taken, see :func:`most_important`. None takes the first M2 (again from the start if M2 > M1).
            Defaults to None.

    Raises:
        UserInputError: If the list has another length or a number outside 0 .. M1 - 1, or the file is missing, damaged
            or of a teacher with another head count.
    """

    def __init__(self, student_heads: int, teacher_heads: int,
                 heads: Union[Sequence[int], str, Path, None] = None) -> None:
        super().__init__(student_heads, teacher_heads)
        self.ranking = read_ranking(heads, teacher_heads) if isinstance(heads, (str, Path)) else None
        if heads is None:
            heads = [m % teacher_heads for m in range(student_heads)]
        elif self.ranking:
            heads = most_important(self.ranking['importance'], student_heads)
        if not isinstance(heads, Sequence) or len(heads) != student_heads or not all(
                isinstance(m, int) and 0 <= m < teacher_heads for m in heads):
            raise UserInputError(f'SelectHeadMatcher needs {student_heads} teacher heads between 0 and '
                                 f'{teacher_heads - 1}, one a student head, but got heads={heads}.')
        self.register_buffer('heads', torch.tensor(heads), persistent=False)
        self.register_buffer('weight', torch.eye(teacher_heads)[self.heads], persistent=False)  # (M2, M1)

    def check_teacher(self, sha256: str, block: int) -> None:
        """A ranking is of one block of one file: others may have as many heads."""
        for name, found in (('sha256', sha256), ('block', block)):
            told = (self.ranking or {}).get(name, found)
            if told != found:
                raise UserInputError(f'SelectHeadMatcher: the ranking of heads was measured on a teacher with '
                                     f'{name}={str(told)[:12]}, but this one has {str(found)[:12]}; measure it with '
                                     f'tools/analysis_tools/rank_heads.py.')

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """One-hot rows, (B, M2, M1)."""
        return self.weight.to(distance.dtype).expand_as(distance)


def most_important(importance: Sequence[float], number: int) -> List[int]:
    """Numbers of the most important heads, counted from 0, best first; of equal ones the lower number.

    Args:
        importance (Sequence[float]): One figure a head.
        number (int): How many; where there are fewer heads it goes on from the best again.
    """
    order = sorted(range(len(importance)), key=lambda head: -importance[head])
    return [order[m % len(order)] for m in range(number)]


def read_ranking(path: Union[str, Path], teacher_heads: int) -> dict:
    """What ``tools/analysis_tools/rank_heads.py`` wrote.

    Args:
        path (str | Path): The JSON file.
        teacher_heads (int): M1, figures that there must be.

    Returns:
        dict: ``importance``, a list of M1 numbers; ``sha256`` and ``block`` of the teacher, where the file tells them.

    Raises:
        UserInputError: If the file is missing or damaged, or was measured on another number of heads.
    """
    path = Path(path)
    if not path.is_file():
        raise UserInputError(f'SelectHeadMatcher: no file {str(path)!r}; write it with '
                             f'tools/analysis_tools/rank_heads.py or give the heads as a list.')
    try:
        content = json.loads(path.read_text())
        importance = [float(figure) for figure in content['importance']]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserInputError(f'SelectHeadMatcher: {str(path)!r} is not a file of tools/analysis_tools/rank_heads.py, '
                             f'which holds a list of numbers named "importance"; write it anew.') from error
    if not all(map(math.isfinite, importance)):
        raise UserInputError(f'SelectHeadMatcher: {str(path)!r} holds an importance that is no finite number; measure '
                             f'the heads anew.')
    if len(importance) != teacher_heads:
        raise UserInputError(f'SelectHeadMatcher: {str(path)!r} ranks {len(importance)} heads, but the teacher has '
                             f'{teacher_heads}; measure this teacher with tools/analysis_tools/rank_heads.py.')
    return dict(content, importance=importance)
