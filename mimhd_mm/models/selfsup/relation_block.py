"""``RelationBlock``: q, k, v of their own for distillation, thrown away afterwards."""

from einops import rearrange
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from ..relation import QKV


@MODELS.register_module()
class RelationBlock(BaseModule):
    """A norm and a q, k, v projection after the student's last block, with any number of heads.

    The idea is D2-MAE's (MAE-Lite): what is compared with the teacher is not a part of what is deployed.

    Args:
        in_dims (int): D, width of the student; filled in by the algorithm.
        num_heads (int): M2. Defaults to the teacher's head count; filled in by the algorithm.
        embed_dims (int, optional): Width of each of q, k and v. None is the student's, or the next multiple of
            ``num_heads`` above it. Defaults to None (our choice).

    Raises:
        UserInputError: If the heads do not divide the width.
    """

    def __init__(self, in_dims: int, num_heads: int, embed_dims: int | None = None, init_cfg=None) -> None:
        super().__init__(init_cfg)
        embed_dims = embed_dims or -(-in_dims // num_heads) * num_heads
        if embed_dims % num_heads:
            raise UserInputError(f'relation_block: {num_heads} heads do not divide a width of {embed_dims}; choose a '
                                 f'multiple of them.')
        self.num_heads = num_heads
        self.embed_dims = embed_dims
        self.norm = nn.LayerNorm(in_dims)
        self.qkv = nn.Linear(in_dims, 3 * embed_dims)

    def forward(self, tokens: Tensor) -> QKV:
        """The student's tokens (B, 1 + N, D) to q, k, v, each (B, M2, 1 + N, d)."""
        qkv = self.qkv(self.norm(tokens))  # (B, 1 + N, 3 M2 d)
        return QKV(*rearrange(qkv, 'b n (three m d) -> three b m n d', three=3, m=self.num_heads))
