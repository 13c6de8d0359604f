"""Random views of a token sequence (eqs. 8 and 9): draw them, hide tokens, merge predictions. Tensors in and out.

Nothing here waits for the device: every size follows from Python numbers, never from what a tensor holds.
"""
from typing import Tuple

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


def count_hidden(num_tokens: int, mask_ratio: float) -> int:
    """Patches that view 1 hides of ``num_tokens``: the share ``mask_ratio``, at least one, at most all but one."""
    return min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1)


def draw_views(batch: int, num_tokens: int, mask_ratio: float = 0.5, num_views: int = 2, *, device=None,
               generator: torch.Generator = None) -> Tensor:
    """Split every image's patches into hidden and visible, anew for each image.

    View 1 hides :func:`count_hidden` patches. View 2 is its complement: it hides exactly the patches that view 1 shows.

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
    noise = torch.rand(batch, num_tokens, device=device, generator=generator)  # (B, N)
    rank = noise.argsort(dim=1).argsort(dim=1)  # (B, N), a permutation a row
    hidden = rank < count_hidden(num_tokens, mask_ratio)  # (B, N)
    return torch.stack([hidden, ~hidden][:num_views])  # (V, B, N)


def draw_images(batch: int, fraction: float, *, device=None, generator: torch.Generator = None) -> Tensor:
    """Choose some of a batch's images, each with the same chance; a mean over them estimates the mean over all.

    Args:
        batch (int): B, images.
        fraction (float): Share to choose, inside (0, 1]; ``round(fraction * B)`` images, at least one.
        device: Where the result shall live.
        generator (torch.Generator, optional): Source of randomness; on ``device``.

    Returns:
        Tensor: (b,) numbers of images, each once.
    """
    return torch.rand(batch, device=device, generator=generator).argsort()[:max(round(fraction * batch), 1)]  # (b,)


def hidden_patches(masks: Tensor, mask_ratio: float) -> Tuple[Tensor, ...]:
    """Which patches each view hides, as numbers: with two views every patch of an image is in exactly one.

    Args:
        masks (Tensor): (V, B, N) bool, True = hidden, as :func:`draw_views` gives them for this ``mask_ratio``.
        mask_ratio (float): Share of the patches that view 1 hides.

    Returns:
        tuple[Tensor]: V times (B, n_v), n_v patches hidden by view v, in ascending order.
    """
    num_tokens = masks.shape[-1]
    num_hidden = count_hidden(num_tokens, mask_ratio)
    order = masks[0].int().argsort(dim=1, descending=True, stable=True)  # (B, N), those that view 1 hides first
    return order.split([num_hidden, num_tokens - num_hidden], dim=1)[:len(masks)]


def take(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Some tokens of each image: of (B, N, C) those with the given numbers (B, n), as (B, n, C)."""
    return tokens.gather(1, numbers.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))  # (B, n, C)


def put_back(tokens: Tensor, numbers: Tensor, num_tokens: int) -> Tensor:
    """The inverse of :func:`take`: (B, n, C) with their numbers (B, n) to (B, N, C), zero at all other places."""
    places = tokens.new_zeros(len(tokens), num_tokens, tokens.shape[-1])  # (B, N, C)
    return places.scatter(1, numbers.unsqueeze(-1).expand_as(tokens), tokens)


def hide(tokens: Tensor, substitute: Tensor, masks: Tensor) -> Tensor:
    """Put a substitute in the place of every hidden patch, one sequence per view.

    Args:
        tokens (Tensor): (B, 1 + N, C), [class] token first; it is visible in every view.
        substitute (Tensor): The mask token, (1, 1, C), or what it is at each place, (1, 1 + N, C).
        masks (Tensor): (V, B, N) bool, True = hidden.

    Returns:
        Tensor: (V * B, 1 + N, C), view by view, so that both views are one batch.
    """
    num_views = masks.shape[0]
    masks = torch.cat([torch.zeros_like(masks[..., :1]), masks], dim=-1)  # (V, B, 1 + N)
    views = torch.where(masks.unsqueeze(-1), substitute.to(tokens.dtype), tokens)  # (V, B, 1 + N, C)
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
