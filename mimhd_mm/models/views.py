"""Random views of a token sequence (eqs. 8 and 9): draw them, hide tokens, merge predictions. Tensors in and out."""
import torch
from einops import rearrange
from torch import Tensor

from ..errors import UserInputError


def check_views(num_views: int, mask_ratio: float) -> None:
    """Check the two settings that :func:`draw_views` takes.

    Raises:
        UserInputError: If ``num_views`` is not 1 or 2, or ``mask_ratio`` is not inside (0, 1).
    """
    if num_views not in (1, 2):
        raise UserInputError(f'num_views is 1 or 2, not {num_views!r}: two views are complements of each other.')
    if not 0 < mask_ratio < 1:
        raise UserInputError(f'mask_ratio is a share of the patches between 0 and 1, exclusive, not {mask_ratio!r}.')


def draw_views(batch: int, num_tokens: int, mask_ratio: float = 0.5, num_views: int = 2, *, device=None,
               generator: torch.Generator = None) -> Tensor:
    """Split every image's patches into hidden and visible, anew for each image.

    View 1 hides ``round(mask_ratio * N)`` patches (at least one, at most all but one). View 2 is its complement:
    it hides exactly the patches that view 1 shows.

    Args:
        batch (int): B, images.
        num_tokens (int): N, patches.
        mask_ratio (float): Share of the patches that view 1 hides. Defaults to 0.5 (paper).
        num_views (int): 1 or 2. Defaults to 2 (paper).
        device: Where the result shall live.
        generator (torch.Generator, optional): Source of randomness; on ``device``.

    Returns:
        Tensor: (num_views, B, N) bool, True = hidden in that view.
    """
    num_hidden = min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1)
    noise = torch.rand(batch, num_tokens, device=device, generator=generator)  # (B, N)
    rank = noise.argsort(dim=1).argsort(dim=1)  # (B, N), a permutation a row
    hidden = rank < num_hidden  # (B, N)
    return torch.stack([hidden, ~hidden][:num_views])  # (V, B, N)


def hide(tokens: Tensor, mask_token: Tensor, masks: Tensor) -> Tensor:
    """Put the mask token in the place of every hidden patch, one sequence per view.

    Args:
        tokens (Tensor): (B, 1 + N, C), [class] token first; it is visible in every view.
        mask_token (Tensor): (1, 1, C).
        masks (Tensor): (V, B, N) bool, True = hidden.

    Returns:
        Tensor: (V * B, 1 + N, C), view by view, so that both views are one batch.
    """
    num_views = masks.shape[0]
    masks = torch.cat([torch.zeros_like(masks[..., :1]), masks], dim=-1)  # (V, B, 1 + N)
    views = torch.where(masks.unsqueeze(-1), mask_token.to(tokens.dtype), tokens)  # (V, B, 1 + N, C)
    return rearrange(views, 'v b n c -> (v b) n c', v=num_views)


def merge(predictions: Tensor, masks: Tensor) -> Tensor:
    """Eq. 10's choice: each patch from the view that did NOT see it.

    With one view, patches that it saw are never predicted blind; they come from that view all the same and are to
    be left out of a loss by ``masks[0]``.

    Args:
        predictions (Tensor): (V, B, N, P).
        masks (Tensor): (V, B, N) bool, True = hidden.

    Returns:
        Tensor: (B, N, P).
    """
    if len(predictions) == 1:
        return predictions[0]
    return torch.where(masks[0].unsqueeze(-1), predictions[0], predictions[1])
