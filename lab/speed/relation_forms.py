"""The distances between all heads as one matmul, and broadcast: what ``lab/speed/relation_loss.py`` compares."""
import gc
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mimhd_mm.measuring.memory import peak_bytes
from mimhd_mm.measuring.timing import Clock, quartiles
from mimhd_mm.models.losses import RelationDistillLoss

from .literal import broadcast_bytes, broadcast_kl

#: the forms, each of log R of student (B, M2, N, N) and teacher (B, M1, N, N); the first is this project's
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'matmul': RelationDistillLoss('KL'), 'broadcast': broadcast_kl}


def random_relations(batch: int, heads: int, num_tokens: int, device: torch.device) -> Tensor:
    """``log R`` of noise, (B, M, N, N), float32."""
    return torch.randn(batch, heads, num_tokens, num_tokens, device=device).log_softmax(-1)


def gradient(form: str, student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward pass of one form.

    Args:
        form (str): A key of :data:`FORMS`.
        student (Tensor): ``log R``, (B, M2, N, N); gets the gradient.
        teacher (Tensor): ``log R``, (B, M1, N, N).
        weight (Tensor): Of the distances, (B, M2, M1).

    Returns:
        tuple: Distances (B, M2, M1) and the gradient (B, M2, N, N) of their weighted sum.
    """
    student = student.detach().requires_grad_()
    distance = FORMS[form](student, teacher)  # (B, M2, M1)
    return distance.detach(), torch.autograd.grad((weight * distance).sum(), student)[0]


def check_equal(student: Tensor, teacher: Tensor, weight: Tensor) -> None:
    """See that both forms give the same distances and gradients, to 1e-4 of the largest.

    Raises:
        AssertionError: If they do not.
    """
    for name, first, second in zip(('distances', 'gradients'), *(gradient(form, student, teacher, weight)
                                                                 for form in FORMS)):
        difference = ((first - second).abs().max() / second.abs().max()).item()
        assert difference < 1e-4, f'the {name} of the two forms differ by {difference:.1e} of the largest'


def measure(tokens: Sequence[int], heads: Sequence[tuple[int, int]], batch: int, device: torch.device, repeats: int,
            max_bytes: float) -> tuple[list[dict], list[str]]:
    """Time and memory of both forms, forward and backward, in turn.

    Args:
        tokens (Sequence[int]): N.
        heads (Sequence[tuple]): M2 and M1.
        batch (int): B.
        device (torch.device): Where.
        repeats (int): Rounds that count, after one that does not.
        max_bytes (float): Sizes whose broadcast needs more are left out with a note.

    Returns:
        tuple: One dict a size, and notes.
    """
    results, notes = [], []
    clock = Clock(device)
    for students, teachers in heads:
        for number in tokens:
            need = broadcast_bytes(batch, students, teachers, number)
            if need > max_bytes:
                notes.append(f'{students} x {teachers} heads, N = {number}: left out, the broadcast form needs about '
                             f'{need / 1e9:.1f} GB and the limit is {max_bytes / 1e9:.1f} GB (--max-gb)')
                continue
            torch.manual_seed(0)
            arguments = (random_relations(batch, students, number, device),
                         random_relations(batch, teachers, number, device),
                         torch.rand(batch, students, teachers, device=device))
            check_equal(*arguments)
            seconds: dict[str, list[float]] = {form: [] for form in FORMS}
            for _ in range(repeats):
                for form in FORMS:
                    start = clock.mark()
                    gradient(form, *arguments)
                    end = clock.mark()
                    clock.wait()
                    seconds[form].append(clock.between(start, end))
            memory = {form: peak_bytes(partial(gradient, form, *arguments), device) for form in FORMS}
            results.append(dict(
                batch=batch, student_heads=students, teacher_heads=teachers, tokens=number,
                seconds={form: quartiles(values)._asdict() for form, values in seconds.items()}, peak_bytes=memory))
            del arguments
            gc.collect()
    return results, notes


def table_rows(results: Sequence[dict]) -> list[dict]:
    """Results of :func:`measure` as rows of a table; times in ms, memory in MB beyond the two relations."""
    rows = []
    for one in results:
        ours, other = (one['seconds'][form]['median'] for form in FORMS)
        memory = [one['peak_bytes'][form] for form in FORMS]
        rows.append({
            'B': one['batch'], 'M2': one['student_heads'], 'M1': one['teacher_heads'], 'N': one['tokens'],
            'matmul ms': 1000 * ours, 'broadcast ms': 1000 * other, 'times faster': other / ours,
            'matmul MB': memory[0] / 1e6, 'broadcast MB': memory[1] / 1e6, 'times less': memory[1] / memory[0]})
    return rows
