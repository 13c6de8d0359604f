"""``MAEPixelHead``: the pixels of hidden patches as a target, for images of any shape (eq. 10)."""

from einops import rearrange
from mmpretrain.models import MAEPretrainHead
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS


@MODELS.register_module()
class MAEPixelHead(MAEPretrainHead):
    """mmpretrain's ``MAEPretrainHead``, which takes square images, for images that are wider or taller too.

    On square images it is the parent, number for number. Arguments are the parent's: ``loss``, ``norm_pix`` (as the
    decoder was trained; see the table in docs/guides/teachers.md), ``patch_size``, ``in_channels``.
    """

    def patchify(self, imgs: Tensor) -> Tensor:
        """Images (B, C, H, W) to patches (B, N, p * p * C), row by row.

        Raises:
            UserInputError: If the sides are not multiples of the patch.
        """
        p = self.patch_size
        if imgs.shape[2] % p or imgs.shape[3] % p:
            raise UserInputError(f'Images of {imgs.shape[2]} x {imgs.shape[3]} px are not whole patches of {p} px; '
                                 f'choose a crop whose sides are multiples of it.')
        return rearrange(imgs, 'b c (h p) (w q) -> b (h w) (p q c)', p=p, q=p)  # (B, N, p p C)

    def unpatchify(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Patches (B, N, p * p * C) to images (B, C, H, W).

        Args:
            x (Tensor): Patches, row by row.
            grid (tuple, optional): Rows and columns of patches. None is for square images. Defaults to None.
        """
        rows, columns = grid or (int(x.shape[1] ** .5), ) * 2
        p = self.patch_size
        return rearrange(x, 'b (h w) (p q c) -> b c (h p) (w q)', h=rows, w=columns, p=p, q=p)  # (B, C, H, W)
