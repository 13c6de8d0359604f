"""Attention of mmpretrain's transformer blocks in two halves: the q, k and v, and all that follows them."""
from einops import rearrange
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor
from torch.nn import functional as F

from .relation import QKV


def project_qkv(attention: MultiheadAttention, x: Tensor) -> QKV:
    """First half of mmpretrain's ``MultiheadAttention``: tokens (B, N, D) to q, k, v, each (B, M, N, d)."""
    return split_heads(attention, attention.qkv(x))


def split_heads(attention: MultiheadAttention, qkv: Tensor) -> QKV:
    """What ``MultiheadAttention.qkv`` gives, (B, N, 3 D), as q, k, v, each (B, M, N, d)."""
    return QKV(*rearrange(qkv, 'b n (three m d) -> three b m n d', three=3, m=attention.num_heads))


def attend(attention: MultiheadAttention, qkv: QKV) -> Tensor:
    """Second half of mmpretrain's ``MultiheadAttention``: q, k, v, each (B, M, N, d), to tokens (B, N, D).

    There may be fewer queries than keys; the tokens are those of the queries.
    """
    dropout = attention.attn_drop if attention.training else 0.
    x = F.scaled_dot_product_attention(*qkv, dropout_p=dropout)  # (B, M, N, d)
    x = attention.proj(rearrange(x, 'b m n d -> b n (m d)'))  # (B, N, D)
    return attention.out_drop(attention.gamma1(attention.proj_drop(x)))


def finish_block(block: TransformerEncoderLayer, x: Tensor, qkv: QKV) -> Tensor:
    """mmpretrain's ``TransformerEncoderLayer`` from its q, k, v on: the queries' tokens (B, N, D), in and out."""
    x = x + attend(block.attn, qkv)  # (B, N, D)
    return block.ffn(block.ln2(x), x)  # (B, N, D)
