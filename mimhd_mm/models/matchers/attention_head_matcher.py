"""``AttentionHeadMatcher``: the paper's learned, weighted head matching (eqs. 4-6; Figure 2d)."""
import logging
import math
from typing import Optional

import torch
import torch.nn.functional as F
from einops import einsum
from mmengine.logging import print_log
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from .head_matchers import HeadMatcher


def mean_descriptor(relation: Tensor) -> Tensor:
    """Eq. 4 as printed: the mean of a relation, (B, M, N, N) to (B, M, 1). It is 1 / N whatever the relation."""
    return relation.mean((-2, -1)).unsqueeze(-1)


def column_descriptor(relation: Tensor) -> Tensor:
    """Attention that each token receives, less the network's mean head, of unit length: (B, M, N, N) to (B, M, N)."""
    received = relation.mean(-2)  # (B, M, N)
    return F.normalize(received - received.mean(1, keepdim=True), dim=-1)


def relation_descriptor(relation: Tensor) -> Tensor:
    """The relation itself, less the network's mean head, of unit length: (B, M, N, N) to (B, M, N N)."""
    return F.normalize((relation - relation.mean(1, keepdim=True)).flatten(-2), dim=-1)


def sample_descriptor(relation: Tensor) -> Tensor:
    """Which images of the batch a head finds alike, less the mean head's view of it: (B, M, N, N) to (B, M, B).

    SemCKD's description of a layer, similarities between samples, taken head by head.
    """
    flat = F.normalize(relation.flatten(-2), dim=-1)  # (B, M, N N)
    alike = einsum(flat, flat, 'b m f, c m f -> b m c')  # (B, M, B)
    return F.normalize(alike - alike.mean(1, keepdim=True), dim=-1, eps=1e-4)  # what is smaller is rounding


DESCRIPTORS = {'mean': mean_descriptor, 'column': column_descriptor, 'relation': relation_descriptor,
               'sample': sample_descriptor}


#: from wide to narrow: how much of the logits counts, in how many rounds; each stage starts from the last one's result
STAGES = ((1 / 32, 30), (1 / 16, 30), (1 / 8, 30), (1 / 4, 30), (1 / 2, 30), (1, 150))
#: rounds that gradients pass through
LEARNED_ROUNDS = 30


def sinkhorn(logits: Tensor, capacity: Optional[float] = None) -> Tensor:
    """The matrix nearest to ``softmax(logits)`` whose rows sum to 1 and whose columns share the rows' mass.

    Alternating scaling in the log domain, ending on rows, so that these are exact. Plain rounds converge the more slowly
    the larger the logits are: after 30 of them columns were up to 33 % off for cosines over a temperature of 0.1. Here
    the logits are turned up in stages (:data:`STAGES`), each of which starts where the last one ended. For cosines over
    0.05 the worst of 70,000 random and extreme patterns is then 0.6 % off. Gradients pass through the last
    :data:`LEARNED_ROUNDS`, where the rest is settled.

    Args:
        logits (Tensor): (..., M2, M1).
        capacity (float, optional): Columns sum to at most ``capacity * M2 / M1``. None makes every column sum to
            ``M2 / M1``. Defaults to None.

    Returns:
        Tensor: (..., M2, M1).
    """
    share = math.log(logits.shape[-2] / logits.shape[-1] * (capacity or 1))
    columns = logits.new_zeros(*logits.shape[:-2], 1, logits.shape[-1])  # (..., 1, M1), log of their factors

    def settle(logits: Tensor, columns: Tensor, rounds: int) -> Tensor:
        for _ in range(rounds):
            rows = (logits + columns).logsumexp(-1, keepdim=True)  # (..., M2, 1)
            columns = share - (logits - rows).logsumexp(-2, keepdim=True)  # (..., 1, M1)
            if capacity is not None:
                columns = columns.clamp_max(0)  # those with room left stay as they are
        return columns

    with torch.no_grad():
        for part, rounds in STAGES:
            columns = settle(part * logits, part * columns, rounds) / part
    columns = settle(logits, columns, LEARNED_ROUNDS)
    return (logits + columns).softmax(-1)


@MODELS.register_module()
class AttentionHeadMatcher(HeadMatcher):
    """Weighs teacher heads for each student head by attention between descriptions of the heads.

    ``S = F(R) F(R)^T`` describes each head of a network by its likeness to the others (eq. 4), one linear layer a
    network maps the rows of S to queries and keys (eq. 5), and their products give the weight (eq. 6).
    Every image has its own weight, so results do not depend on how a batch is spread over processes; but for
    ``descriptor='sample'``, which compares the images that a process has, and ``balance='penalty'``, which looks at
    their mean weight.

    The paper leaves two things open that decide whether this works. Its F, the mean over N x N, is the constant
    1 / N, so that S and the weight never leave their uniform start; and a weight that is free to minimise the loss
    sends every student head to the one teacher head that is easiest to imitate. Hence ``descriptor`` and ``balance``;
    a warning says so where the printed form is chosen. Descriptions are taken relative to the network's mean head.

    One thing stays, whatever W is: a student head whose row is a mixture is asked for the mixture's blurred relation,
    and part of its loss can be removed by no student (``head_blur`` in the log). And heads with equal rows have equal
    targets and become copies. ``embeddings`` keep rows apart: descriptions alone do not, for heads that differ along one
    axis have descriptions that are each other's opposites, so that rows take two values (docs/evidence.md).

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        descriptor (str): F. ``'mean'`` as printed (uniform for ever), ``'column'`` (attention each token receives,
            less the mean head's, normalised), ``'relation'`` (the whole relation, likewise) or ``'sample'`` (which
            images of the batch a head finds alike, after SemCKD, likewise; it needs two images a process at least:
            of one it tells nothing). Defaults to ``'column'``.
        balance (str, optional): What keeps the weight from collapsing. None as printed; ``'sinkhorn'`` gives every
            teacher head the same total, or at most ``capacity`` times that; ``'penalty'`` adds ``KL(column mass ||
            uniform)`` to the loss; ``'transport'`` leaves the projections out and takes the balanced weight of least
            distance, i.e. entropic optimal transport of the detached distances. Defaults to ``'sinkhorn'``.
        proj_dims (int): C of eq. 5. Defaults to 64 (our choice).
        temperature (float): Divides the cosine of query and key, or the standardised distance; at least 0.05 where
            weights are balanced. Defaults to 0.1 (our choice).
        embeddings (bool): Whether each head has a learned vector, random at the start, that is added to its query or
            key. Defaults to True (our choice).
        capacity (float, optional): With ``'sinkhorn'``: the most that a teacher head may give, in units of its fair share
            M2 / M1, at least 1. A student of fewer heads than the teacher has needs it for rows sharper than log(M1 / M2).
            None makes all shares equal. Defaults to None.
        penalty_weight (float): Factor of ``'penalty'``. Defaults to 1.0 (our choice).
        **dims: ``student_dims`` and ``teacher_dims``; not used.

    Raises:
        UserInputError: If the descriptor or the balance is unknown, or a number is out of its range.
    """

    BALANCES = (None, 'sinkhorn', 'penalty', 'transport')
    LEAST_TEMPERATURE = 0.05  # of balanced weights: below, they are no longer balanced

    def __init__(self, student_heads: int, teacher_heads: int, descriptor: str = 'column',
                 balance: Optional[str] = 'sinkhorn', proj_dims: int = 64, temperature: float = 0.1,
                 embeddings: bool = True, capacity: Optional[float] = None, penalty_weight: float = 1.0,
                 **dims) -> None:
        super().__init__(student_heads, teacher_heads, **dims)
        if descriptor not in DESCRIPTORS:
            raise UserInputError(f'Unknown descriptor {descriptor!r}; choose from {", ".join(map(repr, DESCRIPTORS))}.')
        if balance not in self.BALANCES:
            raise UserInputError(f'Unknown balance {balance!r}; choose from {", ".join(map(repr, self.BALANCES))}.')
        if temperature <= 0 or proj_dims < 1:
            raise UserInputError(f'temperature and proj_dims are positive, not {temperature!r} and {proj_dims!r}.')
        if balance in ('sinkhorn', 'transport') and temperature < self.LEAST_TEMPERATURE:
            raise UserInputError(f'temperature={temperature!r} is below {self.LEAST_TEMPERATURE}, where weights can no '
                                 f'longer be balanced; choose a larger one, or balance=None.')
        if capacity is not None and (capacity < 1 or balance != 'sinkhorn'):
            raise UserInputError(f"capacity={capacity!r} goes with balance='sinkhorn' and is at least 1, a teacher head's "
                                 f'fair share.')
        self.descriptor = descriptor
        self.balance = balance
        self.temperature = temperature
        self.capacity = capacity
        self.penalty_weight = penalty_weight
        self.per_image = descriptor != 'sample' or balance == 'transport'
        self.warn_of_printed_form()
        if balance == 'transport':
            return
        self.proj_student = nn.Linear(student_heads, proj_dims)
        self.proj_teacher = nn.Linear(teacher_heads, proj_dims)
        self.embed_student = self.embed_teacher = None
        if embeddings:
            self.embed_student = nn.Parameter(torch.randn(student_heads, proj_dims))
            self.embed_teacher = nn.Parameter(torch.randn(teacher_heads, proj_dims))

    def warn_of_printed_form(self) -> None:
        """Say in the log what the paper's own choices lead to."""
        if self.balance == 'transport':
            return
        if self.descriptor == 'mean':
            print_log("AttentionHeadMatcher: descriptor='mean' is eq. 4 as printed. It describes every head by the same "
                      'constant: without embeddings the head weights stay uniform for ever.', 'current', logging.WARNING)
        elif self.balance is None:
            print_log('AttentionHeadMatcher: balance=None is eq. 6 as printed. Head weights may collapse onto the teacher '
                      'head that is easiest to imitate; head_coverage in the log tells.', 'current', logging.WARNING)

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """Eqs. 4-6, (B, M2, M1). Gradients reach the projections, not the relations: those learn by eq. 7 alone."""
        if self.balance == 'transport':
            cost = distance.detach()  # (B, M2, M1)
            cost = cost - cost.mean(-1, keepdim=True)  # balancing takes away what a row or a column shares
            cost = cost - cost.mean(-2, keepdim=True)
            scale = cost.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-12)  # (B, 1, 1)
            return sinkhorn(-cost / scale / self.temperature)
        with torch.autocast(distance.device.type, enabled=False):
            query = self.proj_student(self._likeness(student))  # (B, M2, C), eq. 5
            key = self.proj_teacher(self._likeness(teacher))  # (B, M1, C), eq. 5
            if self.embed_student is not None:
                query, key = query + self.embed_student, key + self.embed_teacher
            logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT / self.temperature  # (B, M2, M1)
            return sinkhorn(logits, self.capacity) if self.balance == 'sinkhorn' else logits.softmax(-1)  # eq. 6

    def _likeness(self, log_relation: Tensor) -> Tensor:
        """Eq. 4: ``log R`` (B, M, N, N) to S (B, M, M)."""
        description = DESCRIPTORS[self.descriptor](log_relation.detach().exp())  # (B, M, F)
        return description @ description.mT

    def penalty(self, weight: Tensor) -> Optional[Tensor]:
        """``KL(column mass || uniform)`` of the batch's mean weight, times ``penalty_weight``, or None."""
        if self.balance != 'penalty':
            return None
        mass = weight.mean((0, 1))  # (M1,), sums to 1
        return self.penalty_weight * (math.log(len(mass)) - torch.special.entr(mass).sum())


@MODELS.register_module()
class LiteralHeadMatcher(AttentionHeadMatcher):
    """Eqs. 4-6 as the paper prints them: every head has the same description, and the weights stay uniform for ever.

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        proj_dims (int): C of eq. 5. Defaults to 64 (our choice).
        **dims: ``student_dims`` and ``teacher_dims``; not used.
    """

    def __init__(self, student_heads: int, teacher_heads: int, proj_dims: int = 64, **dims) -> None:
        super().__init__(student_heads, teacher_heads, descriptor='mean', balance=None, embeddings=False,
                         proj_dims=proj_dims, **dims)
