"""Figures as PNG files: what the decoder fills in, and where the heads of the [class] token look."""
from pathlib import Path
from typing import Dict, List, Optional, Union

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import MAEPretrainHead
from torch import Tensor, nn

from ..errors import UserInputError
from ..models.backbones import RelationViT
from ..models.relation import QKV
from ..states import evaluating, kept_random_states

GREY = 0.5


def draw_reconstructions(model: nn.Module, images: Tensor, path: Union[str, Path]) -> None:
    """Draw one row an image: input, each view with its hidden patches grey, merged prediction, error.

    Predictions of normalised patches are given the mean and spread of the input's own patch (as MAE's pictures are),
    so a patch of one colour looks right whatever was predicted for it. The error is the mean absolute
    difference of the channels, of pixel values in [0, 1]; all rows share its scale.

    Args:
        model (nn.Module): A :class:`~mimhd_mm.models.MIMHD`; its modes and the random states stay as they are.
        images (Tensor): (B, 3, H, W), normalised, on the model's device.
        path (str | Path): Where the PNG goes; missing folders are made.

    Raises:
        UserInputError: If the model does not reconstruct.
    """
    if not hasattr(model, 'reconstruct'):
        raise UserInputError(f'{type(model).__name__} has no `reconstruct`; pictures of reconstructions need MIMHD.')
    with evaluating(model), kept_random_states():
        result = model.reconstruct(images)  # views (V, B, N, P), masks (V, B, N), merged (B, N, P)
        merged = denormalise_patches(result.merged, images, model.rec_head)  # (B, N, P)
    inputs = to_pixels(images, model.data_preprocessor)  # (B, H, W, 3)
    merged = model.rec_head.unpatchify(merged, model.grid_of(images))  # (B, 3, H, W)
    merged = to_pixels(merged, model.data_preprocessor)  # (B, H, W, 3)
    hidden = [hide_patches(inputs, mask) for mask in result.masks]  # V times (B, H, W, 3)
    error = (merged - inputs).abs().mean(dim=-1)  # (B, H, W)

    views = [f'view {number}' for number in range(1, len(hidden) + 1)]
    titles = ['input', *views, 'merged prediction', f'error, 0 to {error.max():.2f}']
    columns = [inputs, *hidden, merged, error]
    figure, axes = panels(len(images), titles)
    for row in range(len(images)):
        for axis, column in zip(axes[row], columns):
            scale = dict(cmap='magma', vmin=0, vmax=max(float(error.max()), 1e-6)) if column is error else {}
            axis.imshow(column[row].cpu().numpy(), interpolation='nearest', **scale)
    save(figure, path)


def draw_attention(backbones: Union[RelationViT, Dict[str, RelationViT]], images: Tensor, path: Union[str, Path],
                   preprocess: Optional[BaseDataPreprocessor] = None, max_heads: int = 8) -> None:
    """Draw where the [class] token looks, head by head, in the tapped block; one row an image and backbone.

    Every map is scaled to its own largest weight: maps tell where a head looks, not how peaked it is.

    Args:
        backbones (RelationViT | dict[str, RelationViT]): One, or several by name.
        images (Tensor): (B, 3, H, W), normalised, on the backbones' device.
        path (str | Path): Where the PNG goes; missing folders are made.
        preprocess (BaseDataPreprocessor, optional): The model's, to undo its normalisation. None takes ``images`` for
            pixel values in [0, 255]. Defaults to None.
        max_heads (int): Draw the first so many heads of each. Defaults to 8.

    Raises:
        UserInputError: If a backbone is no :class:`~mimhd_mm.models.RelationViT`.
    """
    if not isinstance(backbones, dict):
        backbones = {'': backbones}
    maps = {}
    for name, backbone in backbones.items():
        if not isinstance(backbone, RelationViT):
            raise UserInputError(f'Attention is drawn from the q and k of a RelationViT, not of a '
                                 f'{type(backbone).__name__}; load the weights into one.')
        with evaluating(backbone):
            attention = class_attention(backbone.forward_relation(images)[1])[:, :max_heads]  # (B, heads, N)
            height = backbone.patch_embed(images[:1])[1][0]  # patches in a column
        attention = rearrange(attention, 'b m (h w) -> b m h w', h=height)
        maps[name] = F.interpolate(attention, images.shape[-2:], mode='bilinear')  # (B, heads, H, W)

    inputs = to_pixels(images, preprocess)  # (B, H, W, 3)
    heads = max(attention.shape[1] for attention in maps.values())
    figure, axes = panels(len(images) * len(maps), ['input', *(f'head {head}' for head in range(1, heads + 1))])
    rows = [(image, name) for image in range(len(images)) for name in maps]
    for row, (image, name) in zip(axes, rows):
        row[0].imshow(inputs[image].cpu().numpy())
        row[0].set_ylabel(name)
        for axis, attention in zip(row[1:], maps[name][image]):
            axis.imshow(inputs[image].mean(dim=-1).cpu().numpy(), cmap='gray', vmin=0, vmax=1)
            axis.imshow(attention.cpu().numpy(), cmap='inferno', vmin=0, alpha=0.65)
        for axis in row[1 + maps[name].shape[1]:]:  # this backbone has fewer heads than another
            axis.axis('off')
    save(figure, path)


def class_attention(qkv: QKV) -> Tensor:
    """Attention of the [class] token to the patches, ``softmax(q k^T / sqrt(d))``.

    The softmax is over all tokens, as in the block; what [class] gives to itself is left out, so a row sums to 1
    less that.

    Args:
        qkv (QKV): Each (B, M, 1 + N, d), [class] token first.

    Returns:
        Tensor: (B, M, N), float32.
    """
    query = qkv.q[:, :, :1].float() * qkv.q.shape[-1] ** -0.5  # (B, M, 1, d)
    attention = (query @ qkv.k.float().transpose(-2, -1)).softmax(dim=-1)  # (B, M, 1, 1 + N)
    return attention[:, :, 0, 1:]  # (B, M, N)


def denormalise_patches(prediction: Tensor, images: Tensor, head: MAEPretrainHead) -> Tensor:
    """Undo what ``head`` does to its target: of ``norm_pix``, each patch's mean and standard deviation.

    Args:
        prediction (Tensor): (B, N, P) in the decoder's target space.
        images (Tensor): (B, 3, H, W), normalised; the patches whose statistics are used.
        head (MAEPretrainHead): Of the model.

    Returns:
        Tensor: (B, N, P) in the space of ``head.patchify(images)``.
    """
    if not head.norm_pix:
        return prediction
    patches = head.patchify(images)  # (B, N, P)
    mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)  # (B, N, 1)
    return prediction * (var + 1e-6) ** 0.5 + mean


def to_pixels(images: Tensor, preprocess: Optional[BaseDataPreprocessor]) -> Tensor:
    """Undo the preprocessor's mean and std: (B, 3, H, W), RGB, to (B, H, W, 3) in [0, 1]."""
    if hasattr(preprocess, 'mean'):
        images = images * preprocess.std + preprocess.mean  # (B, 3, H, W) in [0, 255]
    return rearrange(images / 255, 'b c h w -> b h w c').clamp(0, 1)


def hide_patches(pixels: Tensor, mask: Tensor) -> Tensor:
    """Grey out the hidden patches, which are square: pixels (B, H, W, 3), mask (B, N) True = hidden, row by row."""
    size = round((pixels.shape[1] * pixels.shape[2] / mask.shape[1]) ** 0.5)
    hidden = repeat(mask, 'b (h w) -> b (h p) (w q) 1', h=pixels.shape[1] // size, p=size, q=size)  # (B, H, W, 1)
    return torch.where(hidden, GREY, pixels)


def panels(rows: int, titles: List[str]) -> tuple:
    """A figure of ``rows`` x ``len(titles)`` square axes without ticks: (figure, rows of axes)."""
    figure = Figure(figsize=(1.6 * len(titles), 1.6 * rows + 0.3), layout='constrained')
    FigureCanvasAgg(figure)
    axes: List[List[Axes]] = figure.subplots(rows, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    return figure, axes


def save(figure: Figure, path: Union[str, Path]) -> None:
    """Write a figure, making its folder where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
