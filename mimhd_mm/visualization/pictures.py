"""Figures of reconstructions and of [class] attention, as PNG files."""
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import MAEPretrainHead
from torch import Tensor, nn

from ..errors import UserInputError
from ..evaluation.attention_maps import class_attention
from ..models.backbones import RelationViT
from ..random_states import evaluating, kept_random_states

GREY = 0.5
ATTENTION_MAP = colormaps['inferno'].resampled(48)  # fewer colours make smaller files, and look the same
#: images (B, 3, H, W) and masks (V, B, N), True = hidden, to a prediction (B, N, P) of what is hidden, or None
Reconstructor = Callable[[Tensor, Tensor], Tensor | None]


def draw_reconstructions(model: nn.Module, images: Tensor, path: str | Path,
                         teacher: Reconstructor | None = None, dpi: int = 150) -> None:
    """Write :func:`reconstruction_figure` to ``path``, a PNG file; missing folders are made."""
    save(reconstruction_figure(model, images, teacher), path, dpi)


def reconstruction_figure(model: nn.Module, images: Tensor, teacher: Reconstructor | None = None,
                          preprocess: BaseDataPreprocessor | None = None) -> Figure:
    """One row per image: input, views with hidden patches in grey, merged prediction, the teacher's prediction, error.

    Predictions of normalised patches get the mean and standard deviation of the input's patch (as in MAE's pictures),
    so a patch of one colour looks right for any prediction. The error is the mean absolute difference of the channels
    of the student's prediction, for pixel values in [0, 1]; all rows share its scale.

    Args:
        model (nn.Module): A :class:`~mimhd_mm.models.MIMHD`; its modes and the random states stay as they are.
        images (Tensor): (B, 3, H, W), normalised, on the model's device.
        teacher (Callable, optional): Reconstructs from the same views; where it gives None, and without it, its column
            is left out. Defaults to None.
        preprocess (BaseDataPreprocessor, optional): What normalised the images. None is the model's. Defaults to None.

    Raises:
        UserInputError: If the model does not reconstruct.
    """
    if not hasattr(model, 'reconstruct'):
        raise UserInputError(f'{type(model).__name__} has no `reconstruct`; pictures of reconstructions need MIMHD.')
    def pixels(prediction: Tensor) -> Tensor:  # (B, N, P) to (B, H, W, 3)
        patches = denormalise_patches(prediction, images, model.rec_head)  # (B, N, P)
        return to_pixels(model.rec_head.unpatchify(patches, model.grid_of(images)), preprocess)

    preprocess = preprocess or model.data_preprocessor
    with evaluating(model), kept_random_states():
        result = model.reconstruct(images)  # views (V, B, N, P), masks (V, B, N), merged (B, N, P)
    inputs, merged = to_pixels(images, preprocess), pixels(result.merged)  # each (B, H, W, 3)
    error = (merged - inputs).abs().mean(dim=-1)  # (B, H, W)

    columns = {'input': inputs}
    for number, mask in enumerate(result.masks, start=1):
        columns[f'view {number}:\nwhat it shows'] = hide_patches(inputs, mask)  # (B, H, W, 3)
    columns['student: each patch\nfrom the other view' if len(result.masks) > 1 else 'student'] = merged
    if teacher is not None:
        with torch.no_grad(), kept_random_states():
            predicted = teacher(images, result.masks)  # (B, N, P)
        if predicted is not None:
            columns['teacher,\nsame views'] = pixels(predicted)  # (B, H, W, 3)
    columns[f"student's error,\n0 to {error.max():.2f}"] = error
    figure, axes = panels(len(images), list(columns))
    for row in range(len(images)):
        for axis, column in zip(axes[row], columns.values()):
            scale = dict(cmap='magma', vmin=0, vmax=max(float(error.max()), 1e-6)) if column is error else {}
            axis.imshow(column[row].cpu().numpy(), interpolation='nearest', **scale)
    note = "Of what a view hides, the teacher has seen nothing; the student's tokens come from the whole image."
    if model.rec_head.norm_pix:
        note += '\nPatches are predicted normalised: the mean colour and the contrast of each are those of the input.'
    figure.supxlabel(note, fontsize=7)
    return figure


def draw_attention(backbones: RelationViT | dict[str, RelationViT], images: Tensor, path: str | Path,
                   preprocess: BaseDataPreprocessor | None = None, max_heads: int = 8,
                   dpi: int = 150) -> None:
    """Write :func:`attention_figure` to ``path``, a PNG file; missing folders are made."""
    save(attention_figure(backbones, images, preprocess, max_heads), path, dpi)


def attention_figure(backbones: RelationViT | dict[str, RelationViT], images: Tensor,
                     preprocess: BaseDataPreprocessor | None = None, max_heads: int = 8) -> Figure:
    """[class] attention of each head in the tapped block; one row per image and backbone.

    Every map is scaled to its own largest weight, so maps show the place of attention and not its sharpness.

    Args:
        backbones (RelationViT | dict[str, RelationViT]): One, or several by name.
        images (Tensor): (B, 3, H, W), normalised, on the backbones' device.
        preprocess (BaseDataPreprocessor, optional): The model's, to undo its normalisation. None takes ``images`` for
            pixel values in [0, 255]. Defaults to None.
        max_heads (int): Draw the first so many heads of each. Defaults to 8 (paper, Figures 1 and 5).

    Raises:
        UserInputError: If a backbone is no :class:`~mimhd_mm.models.RelationViT`.
    """
    if not isinstance(backbones, dict):
        backbones = {'': backbones}
    maps = {name: attention_maps(backbone, images)[:, :max_heads]  # (B, heads, h, w)
            for name, backbone in backbones.items()}

    inputs = to_pixels(images, preprocess)  # (B, H, W, 3)
    heads = max(attention.shape[1] for attention in maps.values())
    figure, axes = panels(len(images) * len(maps), ['input', *(f'head {head}' for head in range(1, heads + 1))])
    rows = [(image, name) for image in range(len(images)) for name in maps]
    for row, (image, name) in zip(axes, rows):
        if name == next(iter(maps)):  # the other rows of the same image need no second copy
            row[0].imshow(inputs[image].cpu().numpy(), interpolation='nearest')
        else:
            row[0].spines[:].set_visible(False)
        attention = F.interpolate(maps[name][image:image + 1], images.shape[-2:], mode='bilinear')[0]  # (heads, H, W)
        row[1].set_ylabel(name, fontsize=8)
        for axis, weights in zip(row[1:], attention):
            axis.imshow(weights.cpu().numpy(), cmap=ATTENTION_MAP, vmin=0, interpolation='nearest')
        for axis in row[1 + len(attention):]:  # this backbone has fewer heads than another
            axis.spines[:].set_visible(False)
    figure.supxlabel('Attention of the [class] token: bright = much, dark = none, each map scaled to its own largest.',
                     fontsize=7)
    return figure


def attention_maps(backbone: RelationViT, images: Tensor) -> Tensor:
    """[class] attention of the tapped block, normalised images (B, 3, H, W) to (B, heads, h, w), one number a patch.

    Raises:
        UserInputError: If the backbone is no :class:`~mimhd_mm.models.RelationViT`.
    """
    if not isinstance(backbone, RelationViT):
        raise UserInputError(f'Attention is drawn from the q and k of a RelationViT, not of a '
                             f'{type(backbone).__name__}; load the weights into one.')
    with evaluating(backbone):
        attention = class_attention(backbone.forward_relation(images, need_tokens=False)[1])  # (B, heads, N)
        height = backbone.patch_embed(images[:1])[1][0]  # patches in a column
    return rearrange(attention, 'b m (h w) -> b m h w', h=height)


def denormalise_patches(prediction: Tensor, images: Tensor, head: MAEPretrainHead) -> Tensor:
    """Undo the normalisation of ``head``'s target: with ``norm_pix``, each patch's mean and standard deviation.

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


def to_pixels(images: Tensor, preprocess: BaseDataPreprocessor | None) -> Tensor:
    """Undo the preprocessor's mean and std: (B, 3, H, W), RGB, to (B, H, W, 3) in [0, 1]."""
    if hasattr(preprocess, 'mean'):
        images = images * preprocess.std + preprocess.mean  # (B, 3, H, W) in [0, 255]
    return rearrange(images / 255, 'b c h w -> b h w c').clamp(0, 1)


def hide_patches(pixels: Tensor, mask: Tensor) -> Tensor:
    """Grey out the hidden patches, which are square: pixels (B, H, W, 3), mask (B, N) True = hidden, row by row."""
    size = round((pixels.shape[1] * pixels.shape[2] / mask.shape[1]) ** 0.5)
    hidden = repeat(mask, 'b (h w) -> b (h p) (w q) 1', h=pixels.shape[1] // size, p=size, q=size)  # (B, H, W, 1)
    return torch.where(hidden, GREY, pixels)


def panels(rows: int, titles: list[str]) -> tuple:
    """A figure of ``rows`` x ``len(titles)`` square axes without ticks: (figure, rows of axes)."""
    figure = Figure(figsize=(1.5 * len(titles), 1.5 * rows + 0.6), layout='constrained')
    axes: list[list[Axes]] = figure.subplots(rows, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    return figure, axes


def to_array(figure: Figure, dpi: int = 100) -> np.ndarray:
    """A figure as an image: (height, width, 3), RGB, uint8, as a visualizer takes it."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # without alpha: the background is white


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure, making its folder where it is missing.

    Raises:
        UserInputError: If it cannot be written.
    """
    check_output(path)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi)


def check_output(path: str | Path, suffixes: Sequence[str] = ('.png', '.pdf', '.svg')) -> None:
    """Check that a file can be written, before the work starts; missing folders are made.

    Raises:
        UserInputError: If its suffix is not one of ``suffixes``, it is a folder, or its folder takes no file.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise UserInputError(f'{str(path)!r} does not end in {" or ".join(suffixes)}; '
                             f'choose one of these endings.')
    if path.is_dir():
        raise UserInputError(f'{str(path)!r} is a folder; name the file to write.')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        with open(path, 'ab') if path.exists() else nullcontext():
            pass
    except OSError as error:
        raise UserInputError(f'{str(path)!r} cannot be written ({error.strerror or error}); choose a file in a folder '
                             f'that you may write to.') from error
