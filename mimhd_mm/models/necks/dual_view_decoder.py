"""``DualViewMAEDecoder``: the teacher's decoder on two complementary views of the student's tokens (eqs. 8-9)."""

import torch
from einops import rearrange
from mmpretrain.models.necks import MAEPretrainDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import MODELS
from ...weights.fitting import load_exactly
from ...weights.reading import Tensors
from ..attention import finish_block, split_heads
from ..checkpointing import keep_out_of_checkpoints
from ..positions import resize_positions, sincos_positions
from ..relation import QKV, with_cls
from ..views import asked_patches, check_views, count_asked, hide, put_back, take


@MODELS.register_module()
class DualViewMAEDecoder(MAEPretrainDecoder):
    """Reconstructs each view's hidden patches from the tokens that the view shows.

    Both views run as one batch of 2 B. The student saw the whole image; its output tokens are what is hidden. The
    decoder is the teacher's. A linear layer in front, the connector, maps the student's width to that of the teacher's
    encoder where they differ (our choice).

    What several images or views share is computed once: the connector and ``decoder_embed`` are one layer, a token
    enters the first block's q, k, v projection once for both views, and hidden places, the same in every image, once a
    step. :meth:`predict_hidden`, for training, leaves out what eq. 10 does not ask for.

    Args:
        student_dims (int): Width of the student; filled in by the algorithm.
        patch_grid (tuple): Rows and columns of patches of the image size configured; filled in by the algorithm.
            Defaults to (14, 14).
        num_views (int): 2, complementary (paper), or 1 (Figure 6). Defaults to 2.
        mask_ratio (float): Share of the patches that view 1 hides; view 2 hides the rest. Defaults to 0.5 (paper).
        frozen (bool): Keep the teacher's decoder as it is. Gradients pass through it to the student all the same;
            the connector and the mask token learn. Defaults to True (our choice; the paper says "reused").
        embed_dim (int): Width of the teacher's encoder. Defaults to 1024, ViT-L.
        **kwargs: Arguments of ``MAEPretrainDecoder``: ``decoder_embed_dim``, ``decoder_depth``, ...

    Raises:
        UserInputError: If a value is out of its range.
    """

    connector: nn.Module
    LEARNED = ('connector.', 'mask_token')  # also where the decoder is frozen

    def __init__(self, student_dims: int, patch_grid: tuple[int, int] = (14, 14), *, num_views: int = 2,
                 mask_ratio: float = 0.5, frozen: bool = True, embed_dim: int = 1024, **kwargs) -> None:
        check_views(num_views, mask_ratio)
        super().__init__(num_patches=patch_grid[0] * patch_grid[1], embed_dim=embed_dim, **kwargs)
        self.patch_grid = (patch_grid[0], patch_grid[1])
        self.num_views = num_views
        self.mask_ratio = mask_ratio
        self.frozen = frozen
        self.connector = nn.Identity() if student_dims == embed_dim else nn.Linear(student_dims, embed_dim)
        if frozen:
            for name, parameter in self.named_parameters():
                parameter.requires_grad = name.startswith(self.LEARNED)
            keep_out_of_checkpoints(self, lambda name: not name.startswith(self.LEARNED))

    def init_weights(self) -> None:
        """As the parent, whose position embeddings are of square grids only, for any grid."""
        super(MAEPretrainDecoder, self).init_weights()
        self.decoder_pos_embed.data.copy_(sincos_positions(self.patch_grid, self.decoder_pos_embed.shape[-1]))
        nn.init.normal_(self.mask_token, std=.02)

    def load_decoder(self, tensors: Tensors, path: str) -> None:
        """Load the teacher's decoder and verify it; the connector keeps its own start.

        Args:
            tensors (dict): Tensors of a ``MAEPretrainDecoder``.
            path (str): The file they come from, for messages.

        Raises:
            UserInputError: If a tensor is missing or has another shape.
        """
        tensors = dict(tensors, decoder_pos_embed=resize_positions(tensors['decoder_pos_embed'], self.patch_grid))
        own = nn.Module()  # everything but the connector
        for name, module in self.named_children():
            if name != 'connector':
                own.add_module(name, module)
        own.mask_token, own.decoder_pos_embed = self.mask_token, self.decoder_pos_embed
        load_exactly(own, tensors, path, 'check the sizes in model.neck')

    def forward(self, tokens: Tensor, masks: Tensor, grid: tuple[int, int] | None = None, *,
                seen: Tensor | None = None) -> Tensor:
        """Predict the pixels of every patch in every view.

        Args:
            tokens (Tensor): The student's, (B, 1 + N, D), [class] first.
            masks (Tensor): (V, B, N) bool, True = hidden in that view.
            grid (tuple, optional): Rows and columns of patches, where they are not those configured.
            seen (Tensor, optional): As in :meth:`predict_hidden`; each view hides all other patches.

        Returns:
            Tensor: (V, B, N, p * p * 3), in the units the decoder was trained for.
        """
        x = self._up_to_last_block(tokens, masks, grid, seen)  # (V B, 1 + N, C), eq. 8
        x = self.decoder_blocks[-1](x)  # (V B, 1 + N, C)
        x = self.decoder_pred(self.decoder_norm(x)[:, 1:])  # (V B, N, p p 3), eq. 9
        return rearrange(x, '(v b) n p -> v b n p', v=len(masks))

    def predict_hidden(self, tokens: Tensor, masks: Tensor, grid: tuple[int, int] | None = None, *,
                       seen: Tensor | None = None, asked: Tensor | None = None) -> Tensor:
        """Predict the pixels of every patch in the view that hides it, all that eq. 10 asks for.

        The same as merging what :meth:`forward` gives, but the last block's queries and all after them are computed
        for hidden patches only; its keys and values are of all tokens.

        Args:
            tokens (Tensor): The student's, (B, 1 + N, D), [class] first.
            masks (Tensor): (V, B, N) bool, True = hidden, drawn with this decoder's ``mask_ratio``.
            grid (tuple, optional): Rows and columns of patches, where they are not those configured.
            seen (Tensor, optional): (B, n), numbers of the patches that ``tokens``, then (B, 1 + n, D), are of. None is
                all of them.
            asked (Tensor, optional): (V, B, N) bool, which view predicts which patch, of
                :func:`~mimhd_mm.models.views.spread_views`. None is ``masks``.

        Returns:
            Tensor: (B, N, p * p * 3); zero for patches that no view is asked for, as there are with one view.
        """
        x = self._up_to_last_block(tokens, masks, grid, seen)  # (V B, 1 + N, C), eq. 8
        num_tokens, num_views = masks.shape[-1], len(masks)
        count = count_asked(num_tokens, tokens.shape[1] - 1, self.mask_ratio, num_views)
        numbers = asked_patches(masks if asked is None else asked, count)  # V times (B, n_v)
        blind = [self._last_block(view, 1 + of_view) for view, of_view in zip(x.chunk(num_views), numbers)]
        x = self.decoder_pred(self.decoder_norm(torch.cat(blind, 1)))  # (B, n, p p 3), eq. 9
        return put_back(x, torch.cat(numbers, 1), num_tokens)  # (B, N, p p 3)

    def _embed(self, tokens: Tensor) -> Tensor:
        """The student's tokens (B, 1 + N, D) in the decoder's width (B, 1 + N, C).

        Two linear layers in a row are one, whose weight is their product: a product a step rather than one more layer a
        token. It is taken in float32, so that autocast rounds no more than it would.
        """
        if isinstance(self.connector, nn.Identity):
            return self.decoder_embed(tokens)
        first, second = self.connector, self.decoder_embed
        with torch.autocast(tokens.device.type, enabled=False):
            weight = second.weight @ first.weight  # (C, D)
            bias = second.weight @ first.bias + second.bias  # (C,)
        return F.linear(tokens, weight, bias)

    def _up_to_last_block(self, tokens: Tensor, masks: Tensor, grid: tuple[int, int] | None,
                          seen: Tensor | None = None) -> Tensor:
        """Hide what each view hides and run all blocks but the last: (V B, 1 + N, C), view by view."""
        positions = resize_positions(self.decoder_pos_embed, grid or self.patch_grid, self.patch_grid)
        shown = self._embed(tokens)  # (B, 1 + N, C), or (B, 1 + n, C)
        if seen is not None:
            shown = put_back(shown, with_cls(seen), 1 + masks.shape[-1])  # (B, 1 + N, C), zero at what is hidden
        shown = shown + positions  # (B, 1 + N, C)
        hidden = self.mask_token + positions  # (1, 1 + N, C), at each place
        x = hide(shown, hidden, masks)  # (V B, 1 + N, C), eq. 8
        for number, block in enumerate(list(self.decoder_blocks)[:-1]):
            if number:
                x = block(x)  # (V B, 1 + N, C)
                continue
            qkv = [block.attn.qkv(block.ln1(part)) for part in (shown, hidden)]  # (B, 1 + N, 3 C), (1, 1 + N, 3 C)
            x = finish_block(block, x, split_heads(block.attn, hide(qkv[0], qkv[1], masks)))  # (V B, 1 + N, C)
        return x

    def _last_block(self, x: Tensor, numbers: Tensor) -> Tensor:
        """The last block on (B, 1 + N, C), for the tokens with these numbers (B, n) alone: (B, n, C)."""
        block, width = self.decoder_blocks[-1], x.shape[-1]
        heads = block.attn.num_heads
        weight, bias = block.attn.qkv.weight, block.attn.qkv.bias  # (3 C, C), (3 C,)
        normed = block.ln1(x)  # (B, 1 + N, C)
        q = F.linear(take(normed, numbers), weight[:width], bias[:width])  # (B, n, C)
        q = rearrange(q, 'b n (m d) -> b m n d', m=heads)  # (B, M, n, d)
        kv = F.linear(normed, weight[width:], bias[width:])  # (B, 1 + N, 2 C)
        k, v = rearrange(kv, 'b n (two m d) -> two b m n d', two=2, m=heads)  # (B, M, 1 + N, d)
        return finish_block(block, take(x, numbers), QKV(q, k, v))  # (B, n, C)
