"""MIM-HD and TinyMIM written down as papers and public code have them: what this project's step is compared with.

They are slow on purpose, in the ways that a straightforward reading is: attention is materialised, the KL divergence is
broadcast, the teacher runs on to its end, each view has a decoder pass of its own. Parts are built by this package's
classes, so weights and losses are the same. Nobody trains with them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mimhd_mm.models.attention import project_qkv
from mimhd_mm.models.backbones import RelationViT
from mimhd_mm.models.heads import RelationDistillHead
from mimhd_mm.models.relation import PAIRS, QKV
from mimhd_mm.models.selfsup import MIMHD, TinyMIM
from mimhd_mm.models.selfsup.relation_distiller import Images, student_and_teacher_views
from mimhd_mm.models.target_generators import MAETeacher
from mimhd_mm.models.views import draw_views


def relation(qkv: QKV, pair: str) -> Tensor:
    """Eq. 1: q, k, v, each (B, M, N, d), to R, (B, M, N, N), float32 as autocast has it on a GPU but not on a CPU."""
    first, second = (getattr(qkv, name) for name in PAIRS[pair])
    logits = first @ second.transpose(-2, -1) * first.shape[-1] ** -0.5  # (B, M, N, N)
    return logits.softmax(-1, dtype=torch.float32)


def broadcast_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 7's distances with all differences built, B x M2 x M1 x N x N numbers.

    Args:
        student (Tensor): ``log R``, (B, M2, N, N).
        teacher (Tensor): ``log R``, (B, M1, N, N).

    Returns:
        Tensor: (B, M2, M1), summed over key tokens, mean over query tokens.
    """
    student, teacher = student.unsqueeze(2), teacher.unsqueeze(1)  # (B, M2, 1, N, N), (B, 1, M1, N, N)
    return F.kl_div(student, teacher, reduction='none', log_target=True).sum(-1).mean(-1)


def broadcast_bytes(batch: int, student_heads: int, teacher_heads: int, num_tokens: int) -> int:
    """Memory for :func:`broadcast_kl`, forward and backward: two float32 tensors of its size, and one to spare."""
    return 3 * 4 * batch * student_heads * teacher_heads * num_tokens ** 2


def run_block(layer: nn.Module, x: Tensor) -> tuple[Tensor, QKV]:
    """One transformer block with its attention matrix built: tokens (B, N, D) to tokens, and q, k, v."""
    attention = layer.attn
    qkv = project_qkv(attention, layer.ln1(x))  # each (B, M, N, d)
    weight = F.dropout(relation(qkv, 'qk'), attention.attn_drop, attention.training)  # (B, M, N, N)
    y = attention.proj(rearrange(weight @ qkv.v, 'b m n d -> b n (m d)'))  # (B, N, D)
    x = x + attention.out_drop(attention.gamma1(attention.proj_drop(y)))
    return layer.ffn(layer.ln2(x), identity=x), qkv


class UnfusedViT(RelationViT):
    """A ``RelationViT`` that runs its blocks by :func:`run_block`; arguments are the parent's."""

    def forward_relation(self, images: Tensor, *, need_tokens: bool = True,
                         seen: Tensor | None = None) -> tuple[Tensor | None, QKV]:
        """As the parent's."""
        x = self.embed(images, seen)  # (B, 1 + N, D)
        for number, layer in enumerate(self.layers, start=1):
            if number == self.relation_block and (self.stop_at_relation or not need_tokens):
                return None, project_qkv(layer.attn, layer.ln1(x))  # each (B, M, 1 + N, d)
            x, qkv = run_block(layer, x)  # (B, 1 + N, D), each (B, M, 1 + N, d)
            if number == self.relation_block:
                tapped = qkv
        return (self.ln1(x) if self.final_norm else x), tapped


class WholeTeacher(MAETeacher):
    """A ``MAETeacher`` with all its blocks, every one of which runs."""

    def build_encoder(self) -> UnfusedViT:
        """The encoder to its end."""
        return UnfusedViT(self.arch, img_size=self.img_size, patch_size=self.patch_size, relation_block=self.block)


class UnfusedTeacher(MAETeacher):
    """A ``MAETeacher`` that stops at the tapped block, as TinyMIM's own, with attention materialised."""

    def build_encoder(self) -> UnfusedViT:
        """The encoder to the tapped q, k, v."""
        return UnfusedViT(self.arch, img_size=self.img_size, patch_size=self.patch_size, relation_block=self.block,
                          stop_at_relation=True)


class BroadcastHead(RelationDistillHead):
    """Eqs. 1 to 7 by :func:`broadcast_kl`; matchers are the parent's."""

    def loss(self, student: QKV, teacher: QKV) -> dict[str, Tensor]:
        """``loss_<pair>`` of q, k, v, each (B, M, 1 + N, d)."""
        if not self.with_cls_token:
            student, teacher = student.without_cls(), teacher.without_cls()
        losses = {}
        for pair in self.pairs:
            output = relation(student, pair).log()  # (B, M2, N, N)
            target = relation(teacher, pair).log()  # (B, M1, N, N)
            distance = broadcast_kl(output, target)  # (B, M2, M1)
            weight = self.matchers[pair].match(output, target, distance)  # (B, M2, M1)
            losses[f'loss_{pair}'] = (weight * distance).sum(-1).mean()
        return losses


class HeadToHead(RelationDistillHead):
    """TinyMIM's loss as its public code has it: head m of the student against head m of the teacher."""

    def loss(self, student: QKV, teacher: QKV) -> dict[str, Tensor]:
        """``loss_<pair>`` of q, k, v, each (B, M, 1 + N, d)."""
        if not self.with_cls_token:
            student, teacher = student.without_cls(), teacher.without_cls()
        return {f'loss_{pair}': F.kl_div(relation(student, pair).log(), relation(teacher, pair),
                                         reduction='none').sum(-1).mean() for pair in self.pairs}


class LiteralMIMHD(MIMHD):
    """MIM-HD as its paper reads. Arguments are the parent's; types of student, teacher and head are set here."""

    def __init__(self, backbone: dict, target_generator: dict, head: dict, **kwargs) -> None:
        super().__init__(dict(backbone, type=UnfusedViT), dict(target_generator, type=WholeTeacher),
                         dict(head, type=BroadcastHead), **kwargs)

    def loss(self, inputs: Images, data_samples: list[DataSample] | None = None, **kwargs) -> dict[str, Tensor]:
        """Eq. 11, by images (B, 3, H, W)."""
        images, teacher_images = student_and_teacher_views(inputs)  # each (B, 3, H, W)
        teacher = self.target_generator(teacher_images)  # each (B, M1, 1 + N, d1)
        tokens, student = self.backbone.forward_relation(images)  # (B, 1 + N, D), each (B, M2, 1 + N, d2)
        losses = self.head.loss(student, teacher)
        hidden = draw_views(len(tokens), tokens.shape[1] - 1, self.neck.mask_ratio, device=tokens.device)[0]  # (B, N)
        first = self.predict(tokens, hidden)  # (B, N, p p 3)
        second = self.predict(tokens, ~hidden)  # (B, N, p p 3)
        merged = torch.where(hidden.unsqueeze(-1), first, second)  # (B, N, p p 3), eq. 10
        target = self.rec_head.construct_target(images)  # (B, N, p p 3)
        losses['loss_rec'] = self.rec_weight * F.mse_loss(merged, target)
        return losses

    def predict(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """One view through the decoder: tokens (B, 1 + N, D), hidden patches (B, N), to (B, N, p * p * 3)."""
        neck = self.neck
        x = neck.decoder_embed(neck.connector(tokens))  # (B, 1 + N, C)
        patches = torch.where(hidden.unsqueeze(-1), neck.mask_token.to(x.dtype), x[:, 1:])  # (B, N, C), eq. 8
        x = torch.cat([x[:, :1], patches], dim=1) + neck.decoder_pos_embed  # (B, 1 + N, C)
        for block in neck.decoder_blocks:
            x, _ = run_block(block, x)  # (B, 1 + N, C)
        return neck.decoder_pred(neck.decoder_norm(x))[:, 1:]  # (B, N, p p 3), eq. 9


class PublicTinyMIM(TinyMIM):
    """TinyMIM's step as its public code has it. Arguments are the parent's; types are set here as above."""

    def __init__(self, backbone: dict, target_generator: dict, head: dict, **kwargs) -> None:
        super().__init__(dict(backbone, type=UnfusedViT), dict(target_generator, type=UnfusedTeacher),
                         dict(head, type=HeadToHead), **kwargs)
