"""``DeviceAugmentation``: crops, flips and colour jitter of whole batches on the device that trains."""

import torch
from mmpretrain.datasets.transforms import ColorJitter, RandomResizedCrop
from mmpretrain.models import SelfSupDataPreprocessor
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from .batch_transforms import crop_and_resize, draw_boxes, draw_jitter, flip, jitter_colors


@MODELS.register_module()
class DeviceAugmentation(SelfSupDataPreprocessor):
    """Augments in training, then normalises as its parent does; dataloader workers only decode.

    Batches arrive as uint8, a quarter of float32's bytes to copy. Crop, flip and jitter come in this order and follow
    mmpretrain's CPU transforms: the same distributions and, for the same drawn numbers, the same pixels to within a
    grey level. Hue is left out: ``StudentColorJitter`` in the pipeline has it.

    Random numbers are those of torch on the device: ``torch.manual_seed`` repeats them, and
    ``randomness=dict(diff_rank_seed=True)``, which the configs here set, tells processes apart. Outside training
    images are normalised only, so that an evaluation pipeline has to give them their size.

    Args:
        crop (dict, optional): Random resized crop, for images that are stored whole. Arguments of mmpretrain's
            ``RandomResizedCrop``: ``scale``, ``crop_ratio_range``, ``aspect_ratio_range``, ``max_attempts``, with its
            defaults; bicubic. None takes images as they come. Defaults to None.
        flip_prob (float): Probability of a horizontal flip. Defaults to 0.
        student_jitter (dict, optional): ``brightness``, ``contrast`` and ``saturation`` of mmpretrain's
            ``ColorJitter``. The inputs become the list of the student's view and the teacher's, which ``TinyMIM`` and
            ``MIMHD`` take apart. None makes one view. Defaults to None.
        **kwargs: Arguments of ``SelfSupDataPreprocessor``. ``non_blocking=True`` lets the copy to a GPU overlap with
            its work; it needs ``pin_memory=True`` of the dataloader, which ``tools/train.py`` sets on a GPU.

    Raises:
        UserInputError: If an option is out of range, or a training batch is not one tensor of uint8 colour images.
    """

    def __init__(self, crop: dict | None = None, flip_prob: float = 0., student_jitter: dict | None = None,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= flip_prob <= 1:
            raise UserInputError(f'flip_prob is a probability, 0 to 1, not {flip_prob!r}.')
        self.crop = crop and RandomResizedCrop(**crop, interpolation='bicubic', backend='pillow')
        self.flip_prob = flip_prob
        self.jitter = student_jitter and ColorJitter(**student_jitter)
        if self.jitter and self.jitter.hue is not None:
            raise UserInputError('student_jitter has no hue on the device; leave `hue` out, or put StudentColorJitter '
                                 'into the pipeline and student_jitter=None here.')

    def forward(self, data: dict, training: bool = False) -> dict:
        """Copy a batch to the device, augment it where ``training``, normalise it.

        Args:
            data (dict): ``inputs`` (B, 3, H, W) uint8, and ``data_samples``.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: ``inputs`` (B, 3, h, w) float32, or with ``student_jitter`` a list of two; and ``data_samples``.
        """
        if training:
            images = self.cast_data(data['inputs'])  # (B, 3, H, W)
            # the Runner calls this under its autocast
            with torch.no_grad(), torch.autocast(images_device(images), enabled=False):
                data = dict(data, inputs=self.augment(images))
        return super().forward(data, training)

    def augment(self, images: Tensor):
        """Images (B, 3, H, W) uint8 to (B, 3, h, w), whole numbers, or to two of them: the student's, the teacher's."""
        batch, device = len(images), images.device
        if self.crop:
            boxes = draw_boxes(batch, (images.shape[2], images.shape[3]), self.crop.crop_ratio_range,
                               self.crop.aspect_ratio_range, self.crop.max_attempts, device)  # (B, 4)
            images = crop_and_resize(images, boxes, self.crop.scale)  # (B, 3, h, w)
        if self.flip_prob:
            images = flip(images, torch.rand(batch, device=device) < self.flip_prob)  # (B, 3, h, w)
        if self.jitter:
            factors, order = draw_jitter(batch, self.jitter.brightness, self.jitter.contrast, self.jitter.saturation,
                                         device)  # (B, 3), (B, 3)
            return [jitter_colors(images, factors, order), images]  # each (B, 3, h, w)
        return images


def images_device(images: Tensor) -> str:
    """The kind of device a batch is on.

    Raises:
        UserInputError: If it is not one tensor of uint8 colour images.
    """
    if not isinstance(images, Tensor):
        raise UserInputError('DeviceAugmentation takes one view of each image, stacked; remove StudentColorJitter or '
                             'MultiView from the pipeline and set collate_fn=dict(type="default_collate").')
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise UserInputError(f'DeviceAugmentation takes uint8 images (B, 3, H, W), not {images.dtype} of shape '
                             f'{tuple(images.shape)}; end the pipeline in PackInputs without normalising.')
    return images.device.type
