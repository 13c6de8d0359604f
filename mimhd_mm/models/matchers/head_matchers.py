"""The matchers' contract, and the three fixed strategies of Figure 2 (a-c)."""
import inspect
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from mmengine.model import BaseModule
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from ..relation import Factors

#: rows of W that differ by no more than this in any entry count as one; our choice
SAME_ROW = 0.05


class HeadMatcher(BaseModule):
    """Decides what each student head learns from the teacher's heads.

    The contract. :class:`~mimhd_mm.models.heads.RelationDistillHead` builds a matcher for each pair of relations and
    calls, in this order,

    1. :meth:`regroup`, before eq. 1: heads that are cut anew, M2' of the student and M1' of the teacher. By default
       they stay as they are.
    2. :meth:`prepare`: the relations to compare, made from ``log R`` of both. By default these.
    3. :meth:`match`: the weight W of eqs. 6 and 7. This one has to be written. Rows sum to 1.
    4. :meth:`penalty`: a term for the loss. By default none.
    5. :meth:`record`, once a batch, for :meth:`diagnostics`.

    1 to 3 may run twice a step, in parts of the batch, so they change no state.

    Args:
        student_heads (int): M2, heads of the student's tapped block.
        teacher_heads (int): M1, heads of the teacher's tapped block.
        student_dims (int, optional): D2, width of the student's q, k and v over all heads.
        teacher_dims (int, optional): D1, the same of the teacher.

    Raises:
        UserInputError: If there is another option.
    """

    #: whether an image's weight depends on that image alone
    per_image = True
    #: whether rows of W may be mixtures of several teacher heads
    mixes = True

    def __init__(self, student_heads: int, teacher_heads: int, *, student_dims: int | None = None,
                 teacher_dims: int | None = None, **unknown) -> None:
        if unknown:
            own = [name for name in inspect.signature(type(self).__init__).parameters
                   if name not in ('self', 'student_heads', 'teacher_heads', 'student_dims', 'teacher_dims', 'dims')]
            raise UserInputError(f'{type(self).__name__} has no option {next(iter(unknown))!r}; it has '
                                 f'{", ".join(own) or "none"}.')
        super().__init__()
        self.student_heads = student_heads
        self.teacher_heads = teacher_heads
        self.student_dims = student_dims
        self.teacher_dims = teacher_dims
        self.last_weight: Tensor | None = None
        self.last_blur: Tensor | None = None

    def regroup(self, student: Factors, teacher: Factors) -> tuple[Factors, Factors]:
        """Cut the two sides of eq. 1's product into heads anew.

        Args:
            student (Factors): Each (B, M2, N, d2), queries and keys for Q-K, values twice for V-V.
            teacher (Factors): Each (B, M1, N, d1), without gradient.

        Returns:
            tuple[Factors, Factors]: Each (B, M', N, d'); a second side of one head, (B, 1, N, d'), serves all heads.
        """
        return student, teacher

    def prepare(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Relations to compare, from ``log R`` of student (B, M2, N, N) and teacher (B, M1, N, N): these, unchanged."""
        return student, teacher

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """Weigh every pair of heads.

        Args:
            student (Tensor): ``log R`` of the student, (B, M2, N, N).
            teacher (Tensor): ``log R`` of the teacher, (B, M1, N, N).
            distance (Tensor): What the loss measured between them, (B, M2, M1).

        Returns:
            Tensor: (B, M2, M1); each row sums to 1.
        """
        raise NotImplementedError

    def penalty(self, weight: Tensor) -> Tensor | None:
        """A scalar to be added to the loss, or None, given the batch's weight (B, M2, M1)."""
        return None

    def check_teacher(self, sha256: str, block: int) -> None:
        """Called once the teacher is loaded: a matcher that was made for a certain teacher compares.

        Args:
            sha256 (str): Hash of the teacher's file, in hexadecimal.
            block (int): The tapped block, counted from 1.

        Raises:
            UserInputError: If this is another teacher.
        """

    def record(self, weight: Tensor, blur: Tensor | None = None) -> None:
        """Keep a batch's weight (B, M2, M1) and, where it was measured, its blur, a scalar."""
        self.last_weight = weight.detach()
        self.last_blur = blur

    def rows(self) -> Tensor | None:
        """What tells heads apart, (M2, F), a row a head: the mean of the last batch's W over its images."""
        return None if self.last_weight is None else self.last_weight.mean(0)  # (M2, M1)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, Tensor]:
        """What the last batch's weight looked like; scalars that stay on their device.

        Returns:
            dict: Empty before the first batch, else

                - ``head_entropy``: mean entropy of an image's rows over ``log M1``; 0 = one teacher head a student head
                  (collapse), 1 = uniform.
                - ``head_coverage``: share of teacher heads whose mass (column sum, mean over images) is at least half
                  of its fair share M2 / M1.
                - ``head_spread``: standard deviation across student heads, mean over teacher heads; 0 = all rows equal.
                - ``head_distinct``: number of rows that differ from all rows before them by more than 0.05 somewhere.
                  Heads with equal rows have equal targets and become copies of each other.
                - ``head_blur``: share of the loss that no student can remove, because heads are asked for mixtures of
                  teacher heads; 0 = none.
        """
        if self.last_weight is None or (rows_of_heads := self.rows()) is None:
            return {}
        rows, mean = self.last_weight, self.last_weight.mean(0)  # (B, M2, M1), (M2, M1)
        num_students, num_teachers = mean.shape
        entropy = torch.special.entr(rows).sum(-1).mean() / math.log(max(num_teachers, 2))
        coverage = (mean.sum(0) >= 0.5 * num_students / num_teachers).float().mean()
        blur = mean.new_zeros(()) if self.last_blur is None else self.last_blur
        return dict(head_entropy=entropy, head_coverage=coverage, head_spread=mean.std(0, unbiased=False).mean(),
                    head_distinct=count_distinct(rows_of_heads), head_blur=blur)


def count_distinct(rows: Tensor, tolerance: float = SAME_ROW) -> Tensor:
    """How many rows of (M, F) differ from all rows before them by more than ``tolerance`` in some entry: a scalar."""
    difference = (rows[:, None] - rows).abs().amax(-1)  # (M, M)
    repeats = (difference <= tolerance).tril(-1).any(1)  # (M,)
    return (~repeats).float().sum()


def identity(distance: Tensor) -> Tensor:
    """Head m learns from head m: (B, M, M), for distances of that shape."""
    return torch.eye(distance.shape[-1], dtype=distance.dtype, device=distance.device).expand_as(distance)


def split_anew(sides: Factors, heads: int) -> Factors:
    """The same channels, side by side, as another number of heads: (B, M, N, d) to (B, heads, N, M d / heads)."""
    if sides.first.shape[1] == heads:
        return sides
    first = cut(sides.first, heads)  # (B, heads, N, M d / heads)
    return Factors(first, first if sides.second is sides.first else cut(sides.second, heads))


def cut(side: Tensor, heads: int) -> Tensor:
    """(B, M, N, d) to (B, heads, N, M d / heads)."""
    return rearrange(rearrange(side, 'b m n d -> b n (m d)'), 'b n (h c) -> b h n c', h=heads)


@MODELS.register_module()
class OneToOneHeadMatcher(HeadMatcher):
    """Student head m learns from teacher head m (Figure 2c).

    Where the head counts differ, the channels of both networks are cut into ``relation_heads`` heads for the comparison
    (MiniLMv2): no block of the student is rebuilt, and it keeps its own heads downstream.

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        relation_heads (int, optional): Heads to compare, a common divisor of both widths; more heads than the teacher
            has are finer targets. None is the teacher's head count. Defaults to None (our choice).
        **dims: ``student_dims`` and ``teacher_dims``, filled in by the algorithm.

    Raises:
        UserInputError: If ``relation_heads`` does not divide a width.
    """

    mixes = False

    def __init__(self, student_heads: int, teacher_heads: int, relation_heads: int | None = None, **dims) -> None:
        super().__init__(student_heads, teacher_heads, **dims)
        self.relation_heads = teacher_heads if relation_heads is None else relation_heads
        for name, width, heads in (('student', self.student_dims, student_heads),
                                   ('teacher', self.teacher_dims, teacher_heads)):
            if self.relation_heads < 1 or heads != self.relation_heads and width and width % self.relation_heads:
                raise UserInputError(f"OneToOneHeadMatcher: {self.relation_heads} heads do not divide the {name}'s "
                                     f'width of {width}; set head.matcher.relation_heads to a common divisor of both '
                                     f"networks' widths.")

    def regroup(self, student: Factors, teacher: Factors) -> tuple[Factors, Factors]:
        """Both networks' channels as ``relation_heads`` heads; heads that are these already stay as they are."""
        return split_anew(student, self.relation_heads), split_anew(teacher, self.relation_heads)

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """The identity, (B, M, M)."""
        return identity(distance)


@MODELS.register_module()
class AverageHeadMatcher(HeadMatcher):
    """Both networks' relations are averaged over heads, and the two averages compared (Figure 2a)."""

    mixes = False

    def prepare(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """``log`` of the mean relation of each network: (B, 1, N, N) twice."""
        ours, theirs = (x.logsumexp(1, keepdim=True) - math.log(x.shape[1]) for x in (student, teacher))
        return ours, theirs

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

    mixes = False

    def __init__(self, student_heads: int, teacher_heads: int,
                 heads: Sequence[int] | str | Path | None = None, **dims) -> None:
        super().__init__(student_heads, teacher_heads, **dims)
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


def most_important(importance: Sequence[float], number: int) -> list[int]:
    """Numbers of the most important heads, counted from 0, best first; of equal ones the lower number.

    Args:
        importance (Sequence[float]): One figure a head.
        number (int): How many; where there are fewer heads it goes on from the best again.
    """
    order = sorted(range(len(importance)), key=lambda head: -importance[head])
    return [order[m % len(order)] for m in range(number)]


def read_ranking(path: str | Path, teacher_heads: int) -> dict:
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
