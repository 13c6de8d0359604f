"""Random views of a token sequence (eqs. 8 and 9): draw them, hide tokens, merge predictions. Tensors in and out.

Nothing here waits for the device: every size follows from Python numbers, never from what a tensor holds.
"""
import random
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..errors import UserInputError


class Views(NamedTuple):
    """Which patches each view hides from the decoder, and which of them it is asked for.

    Attributes:
        hidden (Tensor): (V, B, N) bool, True = a mask token stands in its place.
        asked (Tensor): (V, B, N) bool, True = predicted from this view. The view hides it, and no other view is asked
            for it.
    """
    hidden: Tensor
    asked: Tensor


def check_views(num_views: int, mask_ratio: float) -> None:
    """Check the two settings that :func:`draw_views` takes.

    Raises:
        UserInputError: If ``num_views`` is not 1 or 2, or ``mask_ratio`` is not inside (0, 1); one view may hide
            nothing (0) of the patches that the student saw, where it does not see all.
    """
    if num_views not in (1, 2):
        raise UserInputError(f'num_views is 1 or 2, not {num_views!r}: two views are complements of each other.')
    if num_views == 1 and mask_ratio == 0:
        return
    if not 0 < mask_ratio < 1:
        raise UserInputError(f'mask_ratio is a share of the patches between 0 and 1, exclusive, not {mask_ratio!r}.')


def check_fraction(token_fraction: float) -> None:
    """Check the share that :func:`draw_seen` takes.

    Raises:
        UserInputError: If it is not inside (0, 1].
    """
    if not 0 < token_fraction <= 1:
        raise UserInputError(f'token_fraction is the share of the patches that the student sees, above 0 and up to 1 '
                             f'(all), not {token_fraction!r}.')


def count_seen(num_tokens: int, fraction: float) -> int:
    """Patches that are seen of ``num_tokens``: the share ``fraction``, at least two, so that relations relate."""
    return min(max(round(fraction * num_tokens), 2), num_tokens)


def draw_seen(batch: int, num_tokens: int, fraction: float, *, device=None) -> Tensor | None:
    """Choose the patches of each image that a network sees, anew for each image, each patch with the same chance.

    One number is drawn from Python's generator; it seeds the rest, on any device. So torch's generators, and what else
    is drawn from them, are as they would be without.

    Args:
        batch (int): B, images.
        num_tokens (int): N, patches.
        fraction (float): Share to see, inside (0, 1]; 1 draws nothing.
        device: Where the result shall live.

    Returns:
        Tensor or None: (B, n) numbers of patches, ascending; None for all of them.
    """
    if fraction == 1:
        return None
    generator = torch.Generator(device or 'cpu').manual_seed(random.getrandbits(63))
    noise = torch.rand(batch, num_tokens, device=device, generator=generator)  # (B, N)
    return noise.argsort(dim=1)[:, :count_seen(num_tokens, fraction)].sort(dim=1).values  # (B, n)


def count_hidden(num_tokens: int, mask_ratio: float) -> int:
    """Patches that view 1 hides of ``num_tokens``: the share ``mask_ratio``, at least one unless it is 0, not all."""
    if mask_ratio == 0:
        return 0
    return min(max(round(mask_ratio * num_tokens), 1), num_tokens - 1)


def draw_views(batch: int, num_tokens: int, mask_ratio: float = 0.5, num_views: int = 2, *, device=None,
               generator: torch.Generator | None = None) -> Tensor:
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


def draw_images(batch: int, fraction: float, *, device=None, generator: torch.Generator | None = None) -> Tensor:
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


def spread_views(masks: Tensor, seen: Tensor, num_tokens: int) -> Views:
    """Views of the seen patches as views of the whole image: what the student did not see, every view hides.

    With two views every patch is asked for once: a seen one in the view that hides it, and the others half in one view
    and half in the other, drawn anew.

    Args:
        masks (Tensor): (V, B, n) bool, of the seen patches, as :func:`draw_views` gives them.
        seen (Tensor): (B, n), their numbers.
        num_tokens (int): N, patches of the image.

    Returns:
        Views: Each (V, B, N).
    """
    hidden = masks.new_ones(*masks.shape[:2], num_tokens)  # (V, B, N)
    hidden = hidden.scatter(2, seen.expand_as(masks), masks)  # (V, B, N)
    if len(masks) == 1:
        return Views(hidden, hidden)
    noise = torch.rand(len(seen), num_tokens, device=seen.device).scatter(1, seen, 2.)  # (B, N), seen ones last
    half = noise.argsort(dim=1).argsort(dim=1) < (num_tokens - seen.shape[1]) // 2  # (B, N), half of the unseen
    asked = torch.scatter(half, 1, seen, masks[0])  # (B, N)
    return Views(hidden, torch.stack([asked, ~asked]))


def count_asked(num_tokens: int, num_seen: int, mask_ratio: float, num_views: int) -> int:
    """Patches that view 1 is asked for: the seen ones that it hides, and the unseen or, of two views, half of these."""
    return count_hidden(num_seen, mask_ratio) + (num_tokens - num_seen) // num_views


def asked_patches(asked: Tensor, count: int) -> tuple[Tensor, ...]:
    """Which patches each view is asked for, as numbers: with two views every patch of an image is in exactly one.

    Args:
        asked (Tensor): (V, B, N) bool; of two views the second is the complement of the first.
        count (int): True places of an image in the first view, see :func:`count_asked`.

    Returns:
        tuple[Tensor]: V times (B, n_v), n_v patches of view v, in ascending order.
    """
    order = asked[0].int().argsort(dim=1, descending=True, stable=True)  # (B, N), those that view 1 is asked for first
    return order.split([count, asked.shape[-1] - count], dim=1)[:len(asked)]


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
