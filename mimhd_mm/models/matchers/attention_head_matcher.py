"""``AttentionHeadMatcher``: the paper's learned, weighted head matching (eqs. 4-6; Figure 2d)."""
import math
from typing import Optional

import torch
import torch.nn.functional as F
from einops import einsum
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


def sinkhorn(logits: Tensor, iterations: int = 30) -> Tensor:
    """The matrix nearest to ``softmax(logits)`` whose rows sum to 1 and whose columns share the rows' mass evenly.

    Alternating normalisation in the log domain, columns (to M2 / M1) then rows, so that rows are exact.

    Args:
        logits (Tensor): (..., M2, M1).
        iterations (int): Rounds. Defaults to 30.

    Returns:
        Tensor: (..., M2, M1); rows sum to 1, columns to M2 / M1 but for what the last round left.
    """
    log_share = math.log(logits.shape[-2] / logits.shape[-1])
    logits = logits.log_softmax(-1)
    for _ in range(iterations):
        logits = logits.log_softmax(-2) + log_share  # (..., M2, M1), columns
        logits = logits.log_softmax(-1)  # (..., M2, M1), rows
    return logits.exp()


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
    sends every student head to the one teacher head that is easiest to imitate. Hence ``descriptor`` and ``balance``.
    Descriptions are taken relative to the network's mean head: heads of a young student look alike, and a weight
    whose rows are equal is made uniform by balancing.

    Args:
        student_heads (int): M2.
        teacher_heads (int): M1.
        descriptor (str): F. ``'mean'`` as printed (uniform for ever), ``'column'`` (attention each token receives,
            less the mean head's, normalised), ``'relation'`` (the whole relation, likewise) or ``'sample'`` (which
            images of the batch a head finds alike, after SemCKD, likewise; it needs two images a process at least:
            of one it tells nothing). Defaults to ``'column'``.
        balance (str, optional): What keeps the weight from collapsing. None as printed; ``'sinkhorn'`` gives every
            teacher head the same total; ``'penalty'`` adds ``KL(column mass || uniform)`` to the loss;
            ``'transport'`` leaves the projections out and takes the balanced weight of least distance, i.e. entropic
            optimal transport of the detached distances. Defaults to ``'sinkhorn'``.
        proj_dims (int): C of eq. 5. Defaults to 64 (our choice).
        temperature (float): Divides the cosine of query and key, or the standardised distance. Defaults to 0.1 (our
            choice): with logits in [-10, 10] the balancing is as good as complete after its 30 rounds.
        learn_temperature (bool): Whether the temperature is a parameter. A learned one falls without end, until
            balancing no longer keeps up. Unused with ``'transport'``. Defaults to False.
        penalty_weight (float): Factor of ``'penalty'``. Defaults to 1.0 (our choice).

    Raises:
        UserInputError: If the descriptor or the balance is unknown, or a number is not positive.
    """

    BALANCES = (None, 'sinkhorn', 'penalty', 'transport')

    def __init__(self, student_heads: int, teacher_heads: int, descriptor: str = 'column',
                 balance: Optional[str] = 'sinkhorn', proj_dims: int = 64, temperature: float = 0.1,
                 learn_temperature: bool = False, penalty_weight: float = 1.0) -> None:
        super().__init__(student_heads, teacher_heads)
        if descriptor not in DESCRIPTORS:
            raise UserInputError(f'Unknown descriptor {descriptor!r}; choose from {", ".join(map(repr, DESCRIPTORS))}.')
        if balance not in self.BALANCES:
            raise UserInputError(f'Unknown balance {balance!r}; choose from {", ".join(map(repr, self.BALANCES))}.')
        if temperature <= 0 or proj_dims < 1:
            raise UserInputError(f'temperature and proj_dims are positive, not {temperature!r} and {proj_dims!r}.')
        self.descriptor = descriptor
        self.balance = balance
        self.temperature = temperature
        self.penalty_weight = penalty_weight
        if balance == 'transport':
            return
        self.proj_student = nn.Linear(student_heads, proj_dims)
        self.proj_teacher = nn.Linear(teacher_heads, proj_dims)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)

    def match(self, student: Tensor, teacher: Tensor, distance: Tensor) -> Tensor:
        """Eqs. 4-6, (B, M2, M1). Gradients reach the projections, not the relations: those learn by eq. 7 alone."""
        if self.balance == 'transport':
            cost = distance.detach()  # (B, M2, M1)
            cost = cost - cost.mean(-1, keepdim=True)  # what a row or a column shares, balancing takes away anyway
            cost = cost - cost.mean(-2, keepdim=True)
            cost = cost / cost.std((-2, -1), keepdim=True).clamp_min(1e-12)
            return sinkhorn(-cost / self.temperature)
        with torch.autocast(distance.device.type, enabled=False):
            query = self.proj_student(self._likeness(student))  # (B, M2, C), eq. 5
            key = self.proj_teacher(self._likeness(teacher))  # (B, M1, C), eq. 5
            logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * self.log_scale.exp()  # (B, M2, M1)
            return sinkhorn(logits) if self.balance == 'sinkhorn' else logits.softmax(-1)  # eq. 6

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
