"""Determine head counts and pixel kind of an MAE file by running it, and whether it reconstructs."""
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmpretrain.models import MAE
from torch import Tensor

from ..errors import UserInputError
from ..weights.fitting import load_exactly
from ..weights.mae_files import MAEFile


@dataclass
class Diagnosis:
    """The result of a diagnosis.

    Attributes:
        num_heads (int): Heads of the encoder; a file does not say, so all that divide the width were tried.
        decoder_num_heads (int): Heads of the decoder, likewise.
        norm_pix (bool): Whether the decoder predicts pixels normalised by patch.
        explained (float): Share of the variance of masked patches that the prediction explains; 1 is perfect, 0 is
            as good as predicting the mean.
    """
    num_heads: int
    decoder_num_heads: int
    norm_pix: bool
    explained: float


def diagnose(file: MAEFile, images: Tensor, num_heads: int | None = None) -> Diagnosis:
    """Reconstruct images with every possible head count and pixel kind, and choose the best.

    Args:
        file (MAEFile): With a decoder.
        images (Tensor): (B, 3, H, W), normalised by ImageNet's mean and standard deviation, of the file's size.
        num_heads (int, optional): Heads of the encoder, where they are known. None tries all.

    Returns:
        Diagnosis: The best that was found.

    Raises:
        UserInputError: If the file has no decoder.
    """
    if file.decoder is None:
        raise UserInputError(f'{file.path!r} holds no decoder, so there is nothing to reconstruct with.')
    best = None
    for heads in [num_heads] if num_heads else _head_counts(file.embed_dims):
        for decoder_heads in _head_counts(file.decoder_embed_dims):
            model = build_mae(file, heads, decoder_heads)
            for norm_pix, explained in explained_variance(model, images):
                if best is None or explained > best.explained:
                    best = Diagnosis(heads, decoder_heads, norm_pix, explained)
    return best


def build_mae(file: MAEFile, num_heads: int, decoder_num_heads: int) -> MAE:
    """mmpretrain's own ``MAE`` with the file's weights, in evaluation mode."""
    side = int(file.num_patches ** .5)
    model = MAE(
        backbone=dict(
            type='MAEViT', img_size=side * file.patch_size, patch_size=file.patch_size, mask_ratio=0.75,
            arch=dict(embed_dims=file.embed_dims, num_layers=file.num_layers, num_heads=num_heads,
                      feedforward_channels=file.feedforward_channels)),
        neck=dict(
            type='MAEPretrainDecoder', num_patches=file.num_patches, patch_size=file.patch_size,
            embed_dim=file.embed_dims, decoder_embed_dim=file.decoder_embed_dims, decoder_depth=file.decoder_depth,
            decoder_num_heads=decoder_num_heads),
        head=dict(
            type='MAEPretrainHead', patch_size=file.patch_size,
            loss=dict(type='PixelReconstructionLoss', criterion='L2')))
    for module, tensors in ((model.backbone, file.encoder), (model.neck, file.decoder)):
        load_exactly(module, tensors, file.path, 'give the file of a masked autoencoder', part=True)
    model.train(False)
    return model


@torch.no_grad()
def explained_variance(model: MAE, images: Tensor, seed: int = 0) -> Iterator[tuple[bool, float]]:
    """Mask 75 % of the patches and compare the prediction of those with raw and with normalised pixels.

    Args:
        model (MAE): In evaluation mode.
        images (Tensor): (B, 3, H, W), normalised.
        seed (int): Of the masks; the global random state is left as it was.

    Yields:
        tuple: ``norm_pix`` and the share of the masked patches' variance that is explained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        latent, mask, ids_restore = model.backbone(images)  # (B, 1 + N / 4, D), (B, N), (B, N)
        predicted = model.neck(latent, ids_restore)[mask.bool()]  # (masked, p p 3)
    for norm_pix in (True, False):
        model.head.norm_pix = norm_pix
        target = model.head.construct_target(images)[mask.bool()]  # (masked, p p 3)
        error = (predicted - target).square().mean()
        yield norm_pix, float(1 - error / (target - target.mean(0)).square().mean().clamp_min(1e-12))


def smooth_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Generate colour gradients with discs, which any MAE can reconstruct, in place of photographs.

    Args:
        count (int): B.
        size (int): Pixels along each side.
        seed (int): Defaults to 0.

    Returns:
        Tensor: (B, 3, size, size), about as spread as normalised photographs.
    """
    generator = torch.Generator().manual_seed(seed)
    ys, xs = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing='ij')  # (size, size) twice
    images: list[Tensor] = []
    for _ in range(count):
        a, b, c = torch.randn(3, 3, 1, 1, generator=generator)  # one number a colour, thrice
        image = a * xs + b * ys + c * (2 * xs * ys)  # (3, size, size)
        for _ in range(3):
            cx, cy, radius, *colour = torch.rand(6, generator=generator).tolist()
            disc = (xs - 2 * cx + 1) ** 2 + (ys - 2 * cy + 1) ** 2 < (0.2 + 0.4 * radius) ** 2  # (size, size)
            image = torch.where(disc, 2 * torch.tensor(colour).view(3, 1, 1) - 1 + 0.3 * image, image)
        images.append(image.clamp(-2, 2))
    return torch.stack(images)


def _head_counts(width: int) -> list[int]:
    """Head counts that divide a width into heads of 8 to 128, the usual 64 first."""
    return sorted((heads for heads in range(1, width + 1) if width % heads == 0 and 8 <= width // heads <= 128),
                  key=lambda heads: abs(width // heads - 64))
