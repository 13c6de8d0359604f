"""Importance of each head of a teacher's block, for the selection of heads in Figure 2 (b).

The paper names no measure. Two from the literature are offered (our choice):

- ``'gradient'`` (Michel et al., 2019): how strongly the teacher's own masked reconstruction reacts to a gate on the
  head's output. It needs the file's decoder.
- ``'confidence'`` (Voita et al., 2019): how sharply the head attends. It needs the encoder alone.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmpretrain.models import MAE
from torch import Tensor, nn

from ..errors import UserInputError
from ..models import MAETeacher
from ..models.attention import attend, project_qkv
from ..models.relation import log_relation
from ..random_states import kept_random_states
from ..weights.mae_files import MAEFile
from .teacher_doctor import build_mae, diagnose

MEASURES = ('gradient', 'confidence')


def choose_measure(file: MAEFile, measure: str | None = None) -> str:
    """Choose the measure: the given one, else ``'gradient'`` if the file has a decoder.

    Raises:
        UserInputError: If the gradient is asked for and the file has no decoder.
    """
    if measure == 'gradient' and file.decoder is None:
        raise UserInputError(f'{file.path!r} holds no decoder, so it has no reconstruction to take the gradient of; '
                             f'use --measure confidence.')
    return measure or ('confidence' if file.decoder is None else 'gradient')


def reconstructing_mae(file: MAEFile, images: Tensor, num_heads: int) -> MAE:
    """mmpretrain's MAE from a file, with the decoder's heads and the kind of pixels that reconstruct best.

    Args:
        file (MAEFile): With a decoder.
        images (Tensor): (B, 3, H, W), normalised, of the file's size, on the CPU.
        num_heads (int): Heads of the encoder.

    Raises:
        UserInputError: If it does not reconstruct, for then its gradient says nothing.
    """
    found = diagnose(file, images, num_heads)
    explained = f'explains {100 * found.explained:.1f} % of the variance of masked patches'
    if not found.explained > 0.05:
        raise UserInputError(f'{file.path!r} does not reconstruct these images ({explained}), so that the gradient of '
                             f'its loss says nothing about its heads; use --measure confidence.')
    print_log(f'Decoder: {found.decoder_num_heads} heads, {"normalised" if found.norm_pix else "raw"} pixels, '
              f'{explained}.', logger='current')
    model = build_mae(file, found.num_heads, found.decoder_num_heads)
    model.head.norm_pix = found.norm_pix
    return model


def gradient_importance(model: MAE, images: Tensor, block: int, batch_size: int = 16, seed: int = 0) -> Tensor:
    """Mean over images of ``|dL_b / dg_m|`` at ``g = 1``: ``L_b`` is image b's own loss, ``g_m`` the gate of head m.

    The absolute value is taken per image, so that gradients of opposite sign do not cancel out.

    Args:
        model (MAE): In evaluation mode; ``head.norm_pix`` as the decoder was trained.
        images (Tensor): (B, 3, H, W), normalised.
        block (int): The encoder's block, counted from 1.
        batch_size (int): Images at a time. Defaults to 16.
        seed (int): Of the masks; the global random state is left as it was.

    Returns:
        Tensor: (M,), on the CPU, not negative.
    """
    num_heads = model.backbone.layers[block - 1].attn.num_heads
    total = torch.zeros(num_heads)  # (M,)
    for number, batch in enumerate(images.split(batch_size)):
        gates = torch.ones(len(batch), num_heads, device=batch.device, requires_grad=True)  # (b, M)
        loss = gated_losses(model, batch, block, gates, seed + number).sum()
        gradient, = torch.autograd.grad(loss, gates)  # (b, M): a gate acts on the loss of its own image alone
        total += gradient.abs().sum(0).cpu()  # (M,)
    return total / len(images)


def gated_losses(model: MAE, images: Tensor, block: int, gates: Tensor, seed: int = 0) -> Tensor:
    """Each image's masked reconstruction loss with gates on the heads of one block.

    Args:
        model (MAE): In evaluation mode.
        images (Tensor): (B, 3, H, W), normalised.
        block (int): The encoder's block, counted from 1.
        gates (Tensor): (B, M), factors of the heads' outputs.
        seed (int): Of the masks. Defaults to 0.

    Returns:
        Tensor: (B,), mean squared error over an image's masked patches; its mean is MAE's loss.
    """
    with kept_random_states(), gated(model.backbone.layers[block - 1], gates):
        torch.manual_seed(seed)
        latent, mask, ids_restore = model.backbone(images)  # (B, 1 + n, D), (B, N), (B, N)
    predicted = model.neck(latent, ids_restore)  # (B, N, p p 3)
    error = (predicted - model.head.construct_target(images)).square().mean(-1)  # (B, N)
    return (error * mask).sum(1) / mask.sum(1)  # (B,)


def confidence_importance(teacher: MAETeacher, images: Tensor, batch_size: int = 16) -> Tensor:
    """Mean over images and queries of the largest attention weight of a head of the teacher's tapped block.

    Attention is the Q-K relation as it is distilled: of whole images, among patches, without [class].

    Args:
        teacher (MAETeacher): Loaded.
        images (Tensor): (B, 3, H, W), normalised.
        batch_size (int): Images at a time. Defaults to 16.

    Returns:
        Tensor: (M1,), on the CPU, between 1 / N and 1.
    """
    total = torch.zeros(teacher.relation_heads)  # (M1,)
    for batch in images.split(batch_size):
        attention = log_relation(teacher(batch).without_cls(), 'qk').exp()  # (b, M1, N, N)
        total += confidence(attention).sum(0).cpu()  # (M1,)
    return total / len(images)


def confidence(attention: Tensor) -> Tensor:
    """Mean over queries of the largest weight: attention (B, M, N, N), rows are queries, to (B, M)."""
    return attention.amax(-1).mean(-1)


class GatedAttention(nn.Module):
    """mmpretrain's ``MultiheadAttention`` with a factor on each head's output before the heads are mixed.

    Args:
        attention (nn.Module): The attention, whose layers are used as they are.
        gates (Tensor): (B, M).
    """

    def __init__(self, attention: nn.Module, gates: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.gates = gates

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        qkv = project_qkv(self.attention, x)  # each (B, M, N, d)
        gated_v = qkv.v * self.gates[..., None, None]  # (B, M, N, d); a head's output is linear in v
        return attend(self.attention, qkv._replace(v=gated_v))  # (B, N, D)


@contextmanager
def gated(layer: nn.Module, gates: Tensor) -> Iterator[None]:
    """Apply gates (B, M) to the attention of a transformer block inside the context."""
    attention = layer.attn
    layer.attn = GatedAttention(attention, gates)
    try:
        yield
    finally:
        layer.attn = attention
