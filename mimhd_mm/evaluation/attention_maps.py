"""Attention of a [class] token to the patches, and how well it covers an object."""
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import UserInputError
from ..models.relation import QKV


def class_attention(qkv: QKV) -> Tensor:
    """Attention of the [class] token to the patches, ``softmax(q k^T / sqrt(d))``.

    The softmax is over all tokens, as in the block; what [class] gives to itself is left out, so a row sums to 1
    less that.

    Args:
        qkv (QKV): Each (B, M, 1 + N, d), [class] token first.

    Returns:
        Tensor: (B, M, N), float32.
    """
    query = qkv.q[:, :, :1].float() * qkv.q.shape[-1] ** -0.5  # (B, M, 1, d)
    attention = (query @ qkv.k.float().transpose(-2, -1)).softmax(dim=-1)  # (B, M, 1, 1 + N)
    return attention[:, :, 0, 1:]  # (B, M, N)


def top_mass(attention: Tensor, mass: float = 0.6) -> Tensor:
    """The smallest set of patches that holds a given share of the attention, as DINO thresholds its maps.

    Args:
        attention (Tensor): (..., N), not negative; what it sums to does not matter.
        mass (float): The share, inside (0, 1]. Defaults to 0.6 (DINO).

    Returns:
        Tensor: (..., N) bool, at least one of N.

    Raises:
        UserInputError: If the share is out of range.
    """
    if not 0 < mass <= 1:
        raise UserInputError(f'The share of the attention to keep is above 0 and up to 1, not {mass!r}; DINO takes '
                             f'0.6.')
    attention = attention.double()
    largest, order = (attention / attention.sum(-1, keepdim=True)).sort(-1, descending=True)  # (..., N)
    before = largest.cumsum(-1) - largest  # (..., N), what the larger ones have already
    return torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before < mass - 1e-6)  # of float32


def foreground_iou(attention: Tensor, masks: Tensor, mass: float = 0.6) -> Tensor:
    """Intersection over union of each head's :func:`top_mass` patches with the foreground, pixel by pixel.

    Args:
        attention (Tensor): (B, M, h, w), one number a patch.
        masks (Tensor): (B, H, W) bool, True = foreground.
        mass (float): Share of the attention that is kept. Defaults to 0.6 (DINO).

    Returns:
        Tensor: (B, M) float32 in [0, 1]; nan for images without foreground.
    """
    kept = top_mass(rearrange(attention, 'b m h w -> b m (h w)'), mass)  # (B, M, N)
    kept = rearrange(kept, 'b m (h w) -> b m h w', h=attention.shape[-2]).float()
    kept = F.interpolate(kept, masks.shape[-2:], mode='nearest').bool()  # (B, M, H, W)
    masks = masks.unsqueeze(1)  # (B, 1, H, W)
    overlap = (kept & masks).sum((-2, -1)) / (kept | masks).sum((-2, -1))  # (B, M)
    return overlap.where(masks.any(-1).any(-1), float('nan'))  # (B, M)
