"""Inputs of pictures: fixed images as the model receives them, masks, and the teacher's own reconstruction."""
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserInputError
from ..models import MIMHD, DualViewMAEDecoder, MAETeacher, RelationViT
from ..models.views import merge, put_back, take
from ..registry import TRANSFORMS
from ..weights.mae_files import read_mae_file
from .loading import build_teacher, eval_pipeline, list_images


def decodable_images(paths: list[Path], number: int) -> list[Path]:
    """Choose ``number`` images, evenly spaced in the list; one that does not decode is named and replaced.

    Args:
        paths (list[Path]): Image files.
        number (int): How many, or all where the list is shorter.

    Raises:
        UserInputError: If none of the list decodes, or the number is below 1.
    """
    if number < 1:
        raise UserInputError(f'{number} images were asked for; ask for at least 1.')
    number = min(number, len(paths))
    starts = [index * len(paths) // number for index in range(number)]
    chosen = []
    for start, end in zip(starts, [*starts[1:], len(paths)]):
        chosen.extend(_first_decodable(paths[start:end]))
    if not chosen:
        raise UserInputError(f'None of {len(paths)} images decodes, {str(paths[0])!r} first; give other images.')
    return chosen


def _first_decodable(paths: Iterable[Path]) -> list[Path]:
    """The first image that can be decoded, as a list of one, or none."""
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
            return [path]
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for a damaged file
            print_log(f'Skipped the image {str(path)!r}, which cannot be decoded ({error}).', logger='current',
                      level=logging.WARNING)
    return []


def fixed_images(source: str | Path | list[Path] | Dataset, size: tuple[int, int], number: int,
                 preprocess: BaseDataPreprocessor) -> Tensor:
    """Load images without augmentation, evenly spaced in a folder or a data set.

    Args:
        source (str | Path | list[Path] | Dataset): A folder, image files, or a data set of mmpretrain's kind, whose
            pipeline is not used.
        size (tuple): Height and width in pixels.
        number (int): How many, or all where there are fewer.
        preprocess (BaseDataPreprocessor): The model's.

    Returns:
        Tensor: (number, 3, H, W), normalised; images that do not decode are skipped with their name in the log.

    Raises:
        UserInputError: If the folder holds no image, none decodes, or the data set does not list its images.
    """
    if isinstance(source, (str, Path)):
        source = list_images(source)
    if isinstance(source, list):
        return _read([dict(img_path=str(path)) for path in decodable_images(source, number)], size, preprocess)
    while hasattr(source, 'dataset'):  # RepeatDataset and similar wrappers
        source = source.dataset
    if not hasattr(source, 'get_data_info') or len(source) == 0:
        raise UserInputError(f'{type(source).__name__} does not list its images; name a folder of images with '
                             f'`images`.')
    step = max(len(source) // number, 1)
    samples = [source.get_data_info(index) for index in range(0, step * min(number, len(source)), step)]
    if 'img' not in samples[0]:
        if any(not Path(sample['img_path']).is_file() for sample in samples):
            raise UserInputError('The training images are not plain files; name a folder of images with `images`.')
        paths = [Path(sample['img_path']) for sample in samples]
        samples = [dict(img_path=str(path)) for path in paths if _first_decodable([path])]
        if not samples:
            raise UserInputError(f'None of {len(paths)} training images decodes, {str(paths[0])!r} first.')
    return _read(samples, size, preprocess)


def _read(samples: list[dict], size: tuple[int, int], preprocess: BaseDataPreprocessor) -> Tensor:
    """Load samples with ``img_path`` or with a decoded ``img``: (B, 3, H, W), normalised."""
    if 'img' in samples[0]:
        resize = dict(type='Resize', scale=size[::-1], backend='pillow', interpolation='bicubic')
        steps = [resize, dict(type='PackInputs')]
    else:
        steps = eval_pipeline(size, samples[0]['img_path'])
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    images = torch.stack([pipeline(sample)['inputs'] for sample in samples])  # (B, 3, H, W) uint8
    return preprocess(dict(inputs=images, data_samples=None))['inputs']  # (B, 3, H, W)


def foreground_masks(paths: list[Path], images: str | Path, masks: str | Path, size: tuple[int, int],
                     foreground: Sequence[int] | None = None) -> Tensor:
    """Read foreground masks from label images; ``masks`` has the same subfolders and names as ``images``.

    Masks are resized and cropped like the images in :func:`fixed_images`, with nearest-neighbour interpolation.

    Args:
        paths (list[Path]): Image files below ``images``.
        images (str | Path): Folder.
        masks (str | Path): Folder of PNG files of the same names, one number a pixel (grey or palette).
        size (tuple): Height and width in pixels.
        foreground (Sequence[int], optional): Labels that are foreground. None takes all but 0 and 255, which mean
            background and "not labelled" in most data sets. Defaults to None.

    Returns:
        Tensor: (n, H, W) bool.

    Raises:
        UserInputError: If a mask is missing, cannot be decoded, has colours for labels or another size than its image,
            or there is no foreground in any.
    """
    steps = [dict(step, interpolation='nearest') if 'interpolation' in step else step
             for step in eval_pipeline(size, paths[0])[1:-1]]  # without reading and packing
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    found = []
    for path in paths:
        file = (Path(masks) / path.relative_to(images)).with_suffix('.png')
        if not file.is_file():
            raise UserInputError(f'The image {str(path)!r} has no mask {str(file)!r}; give a folder of PNG files that '
                                 f'are named as the images.')
        try:
            with Image.open(path) as image, Image.open(file) as mask:
                labels, same_size = np.asarray(mask), image.size == mask.size
        except (OSError, ValueError, SyntaxError) as error:
            raise UserInputError(f'The mask {str(file)!r} cannot be decoded ({error}).') from error
        if labels.ndim != 2 or not same_size:
            raise UserInputError(f'The mask {str(file)!r} is {labels.shape} and no label image of the size of '
                                 f'{str(path)!r}; expected one label a pixel.')
        wanted = np.isin(labels, foreground) if foreground else ~np.isin(labels, (0, 255))  # (h, w)
        sample = pipeline(dict(img=wanted.astype(np.uint8), img_shape=wanted.shape))
        found.append(torch.from_numpy(np.ascontiguousarray(sample['img'])).bool())  # (H, W)
    found = torch.stack(found)  # (n, H, W)
    if not found.any():
        raise UserInputError(f'No pixel of {len(paths)} masks in {str(masks)!r} is foreground; name its labels with '
                             f'--foreground.')
    return found


@torch.no_grad()
def teacher_reconstruction(teacher: MAETeacher, model: MIMHD, images: Tensor, masks: Tensor) -> Tensor:
    """Reconstruct the same views with the teacher's whole MAE, whose encoder sees only the visible patches of a view.

    A distillation run does not hold the teacher's later blocks, and its decoder may have been trained. So both networks
    are built from the file, used on the device of the images, and released.

    Args:
        teacher (MAETeacher): Names the file and the sizes of the encoder.
        model (MIMHD): Gives the sizes of the decoder.
        images (Tensor): (B, 3, H, W), normalised.
        masks (Tensor): (V, B, N) bool, True = hidden; all rows of a view hide the same number.

    Returns:
        Tensor: (B, N, P), each patch from the view that hides it, in the decoder's units.

    Raises:
        UserInputError: If the file cannot be read or has no decoder.
    """
    encoder = build_teacher(teacher.checkpoint, teacher.arch, teacher.img_size, teacher.patch_size, kind=RelationViT)
    decoder = teacher_decoder(model.neck, encoder)
    file = read_mae_file(teacher.checkpoint, need_decoder=True)
    decoder.load_decoder(file.decoder, file.path)
    encoder, decoder = encoder.to(images.device), decoder.to(images.device)
    encoder.train(False)
    decoder.train(False)

    tokens = encoder.embed(images)  # (B, 1 + N, D)
    views = []
    for mask in masks:  # (B, N)
        num_visible = int((~mask[0]).sum())
        visible = mask.int().argsort(dim=1, stable=True)[:, :num_visible]  # (B, n)
        x = torch.cat([tokens[:, :1], take(tokens[:, 1:], visible)], dim=1)  # (B, 1 + n, D)
        for layer in encoder.layers:
            x = layer(x)  # (B, 1 + n, D)
        x = encoder.ln1(x)  # (B, 1 + n, D)
        x = torch.cat([x[:, :1], put_back(x[:, 1:], visible, mask.shape[1])], dim=1)  # (B, 1 + N, D)
        views.append(decoder(x, mask[None], model.grid_of(images))[0])  # (B, N, P)
    return merge(torch.stack(views), masks)  # (B, N, P)


def teacher_decoder(neck: DualViewMAEDecoder, encoder: RelationViT) -> DualViewMAEDecoder:
    """Build a decoder of the sizes of ``neck`` for the teacher's tokens: no connector, weights not loaded."""
    block = neck.decoder_blocks[0]
    width = neck.decoder_pos_embed.shape[-1]
    patch_size = encoder.patch_embed.projection.kernel_size[0]
    return DualViewMAEDecoder(
        encoder.embed_dims, neck.patch_grid, embed_dim=encoder.embed_dims, patch_size=patch_size,
        decoder_embed_dim=width, decoder_depth=len(neck.decoder_blocks), decoder_num_heads=block.attn.num_heads,
        mlp_ratio=block.ffn.layers[0][0].out_features // width)
