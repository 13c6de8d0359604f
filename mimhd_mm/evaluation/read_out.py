"""Read-out KL: how much of the teacher's relations a student holds, however its heads were matched.

Every head m of the teacher is explained by a bilinear form of its own on all channels of the student's frozen tokens,

    S_m = softmax(Q A_m K^T),    A_m: (D2, D2),

fitted by minimising ``KL(T_m || S_m)``. The problem is convex, so that neither a seed nor a rate decides where the fit
ends. V-V is read out alike, with values in place of queries and keys; its form need not be symmetric. What a student
knows but has in another head, or in no head of its own, counts here, and losses of different methods do not. The
form is of full rank: a teacher's head may need as many channels as it has.
"""
from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ..errors import UserInputError
from ..models import MAETeacher, RelationViT
from ..models.relation import QKV, check_pair, factors, log_relation
from ..random_states import evaluating

CHUNK = 2**23  # numbers of a relation (b, M1, N, N) that are in memory at a time (32 MiB)


def read_out_kl(student_backbone: RelationViT, teacher: MAETeacher, batches: Iterable[dict],
                preprocess: BaseDataPreprocessor, *, pairs: Sequence[str] = ('qk', 'vv'), steps: int = 40,
                penalty: float = 1e-4) -> dict[str, float]:
    """Read-out KL of each pair on held-out images: every second image is fitted on, and the others are held out.

    Student and teacher see whole images; relations are those among patches, without [class].

    Args:
        student_backbone (RelationViT): Its tapped block is read.
        teacher (MAETeacher): Loaded, with the same grid of patches.
        batches (Iterable[dict]): With ``inputs``, a uint8 tensor (B, 3, H, W). About 512 images are enough for a width
            of 96; all of them are kept in memory as q, k and v.
        preprocess (BaseDataPreprocessor): The model's own; it normalises and moves to the networks' device.
        pairs (Sequence[str]): Defaults to the paper's, ``('qk', 'vv')``.
        steps (int): Of L-BFGS. Defaults to 40 (our choice).
        penalty (float): See :func:`fit_forms`. Defaults to 1e-4 (our choice).

    Returns:
        dict[str, float]: By pair: nats a query, mean over heads; 0 is all that there is to know. nan after a diverged
        run.

    Raises:
        UserInputError: If a pair is unknown, there are fewer than 2 images, the grids of patches differ or the
            student has no tapped block.
    """
    for pair in pairs:
        check_pair(pair)
    if not isinstance(student_backbone, RelationViT):
        raise UserInputError(f'The q, k and v of a RelationViT are read out, not of {type(student_backbone).__name__}.')
    student, target = tapped(student_backbone, teacher, batches, preprocess)  # (n, M2, N, d2), (n, M1, N, d1) thrice
    if len(student.q) < 2:
        raise UserInputError(f'{len(student.q)} images are too few to fit a read-out on one half and score it on the '
                             f'other; give at least 2.')
    if not all(x.isfinite().all() for x in student):
        return {pair: float('nan') for pair in pairs}
    found = {}
    for pair in pairs:
        queries, keys = whitened(*(rearrange(x, 'b m n d -> b n (m d)') for x in factors(student, pair)),
                                 slice(0, None, 2))  # (n, N, D2) twice
        forms = fit_forms(queries[::2], keys[::2], QKV(*(x[::2] for x in target)), pair, steps, penalty)
        found[pair] = float(divergence(forms, queries[1::2], keys[1::2], QKV(*(x[1::2] for x in target)), pair).mean())
    return found


@torch.no_grad()
def tapped(student: RelationViT, teacher: MAETeacher, batches: Iterable[dict], preprocess: BaseDataPreprocessor
           ) -> tuple[QKV, QKV]:
    """q, k, v of all images' patches, float32: student's, each (n, M2, N, d2), and teacher's, each (n, M1, N, d1).

    Raises:
        UserInputError: If there is no image, or the two do not see the same patches.
    """
    ours: list[QKV] = []
    theirs: list[QKV] = []
    with evaluating(student):
        for batch in batches:
            images = preprocess(batch)['inputs']  # (B, 3, H, W)
            ours.append(student.forward_relation(images, need_tokens=False)[1].without_cls())
            theirs.append(teacher(images).without_cls())
            patches = ours[-1].q.shape[2], theirs[-1].q.shape[2]
            if patches[0] != patches[1]:
                raise UserInputError(f'The student sees {patches[0]} patches of these images and the teacher '
                                     f'{patches[1]}; read out a student with the same grid of patches.')
    if not ours:
        raise UserInputError('There is no image to read out; give at least 2.')
    return tuple(QKV(*(torch.cat(parts).float() for parts in zip(*found))) for found in (ours, theirs))


def whitened(queries: Tensor, keys: Tensor, fitted: slice) -> tuple[Tensor, Tensor]:
    """Transform queries and keys to coordinates in which the fit converges equally well for every student.

    Queries get an identity for their second moment, and keys for their covariance within an image: what all keys of an
    image share does not change a softmax. Directions without any variance are dropped. The forms that can be read out
    are the same before and after.

    Args:
        queries (Tensor): (n, N, D2).
        keys (Tensor): (n, N, D2).
        fitted (slice): The images whose moments are taken.

    Returns:
        tuple: (n, N, D2) twice.
    """
    keys = keys - keys.mean(1, keepdim=True)  # (n, N, D2)
    return tuple(x @ whitening(x[fitted].flatten(0, 1)) for x in (queries, keys))


def whitening(x: Tensor) -> Tensor:
    """The symmetric matrix W for which x W, x being (n, D), has an identity for its second moment: (D, D)."""
    x = x.double()  # (n, D)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))  # (D,), (D, D)
    scale = torch.where(values > 1e-8 * values[-1], values.clamp_min(1e-200).rsqrt(), 0.)  # (D,)
    return ((vectors * scale) @ vectors.T).float()  # (D, D)


def fit_forms(queries: Tensor, keys: Tensor, teacher: QKV, pair: str, steps: int, penalty: float) -> Tensor:
    """The bilinear forms that explain the teacher's heads best: ``min sum_m [KL(T_m || S_m) + penalty |A_m|^2]``.

    L-BFGS from zero, which is the uniform relation.

    Args:
        queries (Tensor): (n, N, D2), whitened.
        keys (Tensor): (n, N, D2), whitened.
        teacher (QKV): Each (n, M1, N, d1).
        pair (str): Of the teacher's relation.
        steps (int): At most.
        penalty (float): In nats a query; a logit of variance 1 costs about as much.

    Returns:
        Tensor: (M1, D2, D2).
    """
    width = queries.shape[-1]
    forms = queries.new_zeros(teacher.q.shape[1], width, width, requires_grad=True)  # (M1, D2, D2)
    optimizer = torch.optim.LBFGS([forms], max_iter=steps, max_eval=2 * steps, tolerance_grad=1e-7,
                                  tolerance_change=1e-9, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = penalty * forms.square().sum()
        loss.backward()
        return loss.detach() + divergence(forms, queries, keys, teacher, pair, backward=True).sum()

    with torch.enable_grad():
        optimizer.step(closure)
    return forms.detach()


def divergence(forms: Tensor, queries: Tensor, keys: Tensor, teacher: QKV, pair: str, backward: bool = False) -> Tensor:
    """``KL(T_m || softmax(Q A_m K^T))`` of every head, mean over queries and images.

    Args:
        forms (Tensor): (M1, D2, D2).
        queries (Tensor): (n, N, D2).
        keys (Tensor): (n, N, D2).
        teacher (QKV): Each (n, M1, N, d1).
        pair (str): Of the teacher's relation.
        backward (bool): Whether the gradient of the sum over heads is added to the forms'. Defaults to False.

    Returns:
        Tensor: (M1,), without gradient.
    """
    number, heads, patches = teacher.q.shape[:3]
    chunk = max(1, CHUNK // (heads * patches ** 2))
    total = forms.new_zeros(heads)  # (M1,)
    for start in range(0, number, chunk):
        part = slice(start, start + chunk)
        target = log_relation(QKV(*(x[part] for x in teacher)), pair)  # (b, M1, N, N)
        scores = queries[part, None] @ forms @ keys[part, None].transpose(-2, -1)  # (b, M1, N, N)
        kl = (target.exp() * (target - scores.log_softmax(-1))).sum((-2, -1)).sum(0) / (number * patches)  # (M1,)
        if backward:
            kl.sum().backward()
        total += kl.detach()
    return total
