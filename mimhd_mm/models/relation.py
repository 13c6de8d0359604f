"""Relations between tokens (eq. 1): what is distilled. Tensors in, tensors out."""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserInputError

#: pair -> the two members of :class:`QKV` it relates, queries first. The paper uses 'qk' and 'vv'.
PAIRS = {'qk': ('q', 'k'), 'vv': ('v', 'v'), 'kk': ('k', 'k'), 'qv': ('q', 'v'), 'qq': ('q', 'q')}


class QKV(NamedTuple):
    """Queries, keys and values of one attention block, each of shape (B, heads, tokens, head width)."""
    q: Tensor
    k: Tensor
    v: Tensor

    def without_cls(self) -> 'QKV':
        """The patch tokens alone: the first token, [class], is left out."""
        return QKV(*(x[:, :, 1:] for x in self))

    def take(self, seen: Tensor | None) -> 'QKV':
        """The [class] token and the patches with the given numbers.

        Args:
            seen (Tensor, optional): (B, n), numbers of patches, from 0. None keeps all.

        Returns:
            QKV: Each (B, heads, 1 + n, head width), in the order of ``seen``.
        """
        if seen is None:
            return self
        numbers = with_cls(seen)[:, None, :, None]  # (B, 1, 1 + n, 1)
        return QKV(*(x.gather(2, numbers.expand(-1, x.shape[1], -1, x.shape[3])) for x in self))


class Factors(NamedTuple):
    """The two sides of eq. 1's product, each of shape (B, heads, tokens, width); one tensor twice for V-V."""
    first: Tensor
    second: Tensor


def with_cls(seen: Tensor) -> Tensor:
    """Numbers of patches (B, n) as numbers of tokens (B, 1 + n): [class] is token 0, patch i is token i + 1."""
    return F.pad(seen + 1, (1, 0))  # (B, 1 + n)


def check_pair(pair: str) -> str:
    """Return ``pair`` if it is one of :data:`PAIRS`.

    Raises:
        UserInputError: If it is not.
    """
    if pair not in PAIRS:
        raise UserInputError(f'Unknown relation pair {pair!r}; choose from {", ".join(map(repr, PAIRS))}.')
    return pair


def factors(qkv: QKV, pair: str) -> Factors:
    """What eq. 1 multiplies for a pair: Q and K for ``'qk'``, V and V for ``'vv'``.

    Args:
        qkv (QKV): Each (B, M, N, d).
        pair (str): A key of :data:`PAIRS`.
    """
    return Factors(*(getattr(qkv, name) for name in PAIRS[check_pair(pair)]))


def logits_of(sides: Factors) -> Tensor:
    """Scaled products of every token with every token, ``Q K^T / sqrt(d)``.

    Computed in float32 whatever the input's type is: in bf16 a KL divergence of 0.005 between two relations comes
    out 5 % wrong.

    Args:
        sides (Factors): Each (B, M, N, d); a second side of one head, (B, 1, N, d), serves all M.

    Returns:
        Tensor: (B, M, N, N), float32 (float64 stays float64); row i belongs to query token i.
    """
    first, second = sides
    kind = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        first = first.to(kind) * first.shape[-1] ** -0.5  # (B, M, N, d)
        second = second.to(kind).transpose(-2, -1)  # (B, M, d, N), or (B, 1, d, N)
        if second.shape[1] == 1:  # one product of taller matrices
            return (first.flatten(1, 2) @ second.squeeze(1)).unflatten(1, first.shape[1:3])  # (B, M, N, N)
        return first @ second  # (B, M, N, N)


def log_softmax_of(sides: Factors) -> Tensor:
    """``log R`` of eq. 1 from its two sides, each (B, M, N, d): one log-softmax per query token, (B, M, N, N)."""
    return F.log_softmax(logits_of(sides), dim=-1)


def relation_logits(qkv: QKV, pair: str) -> Tensor:
    """:func:`logits_of` a pair: q, k, v, each (B, M, N, d), to (B, M, N, N)."""
    return logits_of(factors(qkv, pair))


def log_relation(qkv: QKV, pair: str) -> Tensor:
    """``log R`` of eq. 1 for a pair.

    Args:
        qkv (QKV): Each (B, M, N, d).
        pair (str): A key of :data:`PAIRS`.

    Returns:
        Tensor: (B, M, N, N); ``exp`` of each row sums to 1.
    """
    return log_softmax_of(factors(qkv, pair))
