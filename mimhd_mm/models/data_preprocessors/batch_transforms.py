"""Random crops, flips and colour jitter of a whole batch at once, on whatever device it is.

Each function draws from the distribution of its mmpretrain counterpart, which works image by image on the CPU, and
computes what Pillow computes, 8-bit rounding between steps included. No number is brought back to the host, so a GPU's
queue is never waited for. Images are grey levels, 0 to 255, as uint8 or float32; channels are blue, green, red, as
``LoadImageFromFile`` gives them and ``ColorJitter`` expects them.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor

Range = Sequence[float] | None
LUMA = (7471., 38470., 19595.)  # of blue, green and red, in 1/65536 (Pillow's conversion to 'L')
CUBIC = -0.5  # the parameter `a` of Keys' kernel (Pillow's BICUBIC)


def uniform(bounds: Sequence[float], *shape: int, device: torch.device) -> Tensor:
    """Uniform numbers from the first bound to below the second, float32, from torch's random state of that device."""
    low, high = bounds
    return low + (high - low) * torch.rand(*shape, device=device)


def draw_boxes(batch: int, size: tuple[int, int], crop_ratio_range: Sequence[float],
               aspect_ratio_range: Sequence[float], max_attempts: int, device: torch.device) -> Tensor:
    """Boxes as mmpretrain's ``RandomResizedCrop.rand_crop_params`` draws them.

    All attempts of all images are drawn at once, and each image takes its first that fits.

    Args:
        batch (int): B.
        size (tuple): Height and width of the images in pixels.
        crop_ratio_range (Sequence[float]): Share of the area, least and most.
        aspect_ratio_range (Sequence[float]): Width by height, least and most.
        max_attempts (int): Then the largest centred box of an allowed shape is taken.
        device (torch.device): Where.

    Returns:
        Tensor: (B, 4) float32, whole numbers: top, left, height, width.
    """
    height, width = size
    tries = max(max_attempts, 1), batch
    area = uniform(crop_ratio_range, *tries, device=device) * (height * width)  # (T, B)
    aspect = uniform([math.log(bound) for bound in aspect_ratio_range], *tries, device=device).exp()  # (T, B)
    sides = torch.stack(((area / aspect).sqrt(), (area * aspect).sqrt())).round()  # (2, T, B), height and width
    limits = torch.stack((torch.full_like(sides[0], height), torch.full_like(sides[0], width)))  # (2, T, B)
    fits = ((sides > 0) & (sides <= limits)).all(0) & (max_attempts > 0)  # (T, B)
    first = fits.float().argmax(0, keepdim=True).expand(2, 1, batch)  # (2, 1, B)
    chosen = sides.gather(1, first)[:, 0]  # (2, B)

    low, high = min(aspect_ratio_range), max(aspect_ratio_range)
    whole = (round(width / low) if width / height < low else height,
             round(height * high) if width / height > high else width)
    centred = torch.stack([torch.full_like(chosen[0], side) for side in whole])  # (2, B)
    fitted = fits.any(0)  # (B,)
    chosen = torch.where(fitted, chosen, centred)  # (2, B)
    room = limits[:, 0] - chosen  # (2, B), whole numbers
    drawn = torch.minimum((torch.rand(2, batch, device=device) * (room + 1)).floor(), room)  # (2, B)
    corner = torch.where(fitted, drawn, (room / 2).floor())  # (2, B)
    return torch.cat((corner, chosen)).T  # (B, 4)


def resampling_weights(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Weights that resize the pixels ``start`` to ``start + length`` of a row to ``out`` pixels, as Pillow's BICUBIC.

    The kernel is widened where pixels become fewer (antialiasing), and sees nothing beyond the crop.

    Args:
        start (Tensor): (B,) whole numbers.
        length (Tensor): (B,) whole numbers.
        size (int): Pixels of the uncropped row.
        out (int): Pixels wanted.

    Returns:
        Tensor: (B, out, size) float32; each row of ``size`` sums to 1.
    """
    scale = (length / out)[:, None, None]  # (B, 1, 1)
    left, right = start[:, None, None], (start + length)[:, None, None]  # (B, 1, 1)
    centres = left + (torch.arange(out, device=start.device) + 0.5)[None, :, None] * scale  # (B, out, 1)
    pixels = (torch.arange(size, device=start.device) + 0.5)[None, None, :]  # (1, 1, size)
    x = ((pixels - centres) / scale.clamp(min=1)).abs()  # (B, out, size)
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    weights = weights * ((pixels > left) & (pixels < right))  # (B, out, size)
    return weights / weights.sum(-1, keepdim=True)


def crop_and_resize(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Each image's box, resized as Pillow's BICUBIC does it: rows, 8-bit rounding, columns, 8-bit rounding.

    (From version 13 on, Pillow takes columns first where the height shrinks more; they then differ where both clip.)

    Two batched matrix products, since a crop followed by a resize is linear in rows and in columns. Call it outside
    autocast: half precision would round the weights.

    Args:
        images (Tensor): (B, 3, H, W).
        boxes (Tensor): (B, 4) whole numbers: top, left, height, width.
        size (tuple): Height h and width w wanted, in pixels.

    Returns:
        Tensor: (B, 3, h, w) float32, whole numbers.
    """
    top, left, height, width = boxes.float().unbind(1)  # each (B,)
    across = resampling_weights(left, width, images.shape[3], size[1])[:, None]  # (B, 1, w, W)
    down = resampling_weights(top, height, images.shape[2], size[0])[:, None]  # (B, 1, h, H)
    rows = to_levels(images.float() @ across.transpose(2, 3) + 0.5)  # (B, 3, H, w)
    return to_levels(down @ rows + 0.5)  # (B, 3, h, w)


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images (B, 3, H, W), those mirrored left to right that ``flipped`` (B,) says."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)  # (B, 3, H, W)


def draw_jitter(batch: int, brightness: Range, contrast: Range, saturation: Range,
                device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors and their order as mmpretrain's ``ColorJitter`` draws them.

    Args:
        batch (int): B.
        brightness (Sequence[float], optional): Least and most; None leaves it as it is, like the next two.
        contrast (Sequence[float], optional): Least and most.
        saturation (Sequence[float], optional): Least and most.
        device (torch.device): Where.

    Returns:
        tuple:

        - Tensor: (B, 3) factors of brightness, contrast and saturation; 1 changes nothing.
        - Tensor: (B, 3) which of the three (0, 1, 2) comes first, second and third.
    """
    factors = torch.stack([uniform(bounds or (1., 1.), batch, device=device)
                           for bounds in (brightness, contrast, saturation)], dim=1)  # (B, 3)
    return factors, torch.rand(batch, 3, device=device).argsort(dim=1)


def jitter_colors(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast and saturation of each image, one after the other, as Pillow's ``ImageEnhance``.

    All three are blends with something duller: black, the mean grey level, or the image's own grey levels.

    Args:
        images (Tensor): (B, 3, H, W); blue, green, red.
        factors (Tensor): (B, 3), see :func:`draw_jitter`.
        order (Tensor): (B, 3), see :func:`draw_jitter`.

    Returns:
        Tensor: (B, 3, H, W) float32, whole numbers.
    """
    images = images.float()  # (B, 3, H, W)
    for step in range(order.shape[1]):
        kind = order[:, step]  # (B,)
        factor = factors.gather(1, kind[:, None])[:, :, None, None]  # (B, 1, 1, 1)
        blue, green, red = images.split(1, dim=1)  # each (B, 1, H, W)
        grey = ((LUMA[0] * blue + LUMA[1] * green + LUMA[2] * red + 32768) / 65536).floor()  # (B, 1, H, W)
        mean = (grey.mean((1, 2, 3), keepdim=True) + 0.5).floor()  # (B, 1, 1, 1)
        kind = kind[:, None, None, None]  # (B, 1, 1, 1)
        dull = torch.where(kind == 0, torch.zeros_like(mean), torch.where(kind == 1, mean, grey))  # (B, 1, H, W)
        images = to_levels(dull + factor * (images - dull))  # (B, 3, H, W)
    return images


def to_levels(values: Tensor) -> Tensor:
    """The 8-bit grey level that Pillow makes of a number: cut off to a whole one, from 0 to 255."""
    return values.floor().clamp(0, 255)
