"""``MaskedMAETeacher``: a frozen masked autoencoder's encoder on the student's visible patches, up to one block."""
import torch
from torch import Tensor

from ...registry import MODELS
from ..backbones import TappedMAEViT
from .mae_teacher import MAETeacher


@MODELS.register_module()
class MaskedMAETeacher(MAETeacher):
    """Gives the tokens to imitate, for the patches that the student sees (DMAE).

    Arguments and guarantees are ``MAETeacher``'s: only the blocks up to the tapped one are built, weights are verified
    as they are loaded, last; it never trains and never is saved. ``block`` defaults to 18 of ViT-L's 24, 3/4 of the
    depth, as in DMAE.
    """

    def build_encoder(self) -> TappedMAEViT:
        """The encoder, to the end of the tapped block."""
        return TappedMAEViT(self.arch, img_size=self.img_size, patch_size=self.patch_size, feature_block=self.block,
                            stop_at_feature=True)

    @torch.no_grad()
    def forward(self, images: Tensor, ids_keep: Tensor) -> Tensor:  # type: ignore[override]
        """Tokens of the tapped block.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            ids_keep (Tensor): (B, n), numbers of the patches that are visible.

        Returns:
            Tensor: (B, 1 + n, D1), [class] first, then in the order of ``ids_keep``.
        """
        with self.precision(images):
            return self.encoder.forward_visible(images, ids_keep)
