"""``LoadAndCrop``: decode of a large JPEG only the resolution that its random crop needs."""
import io
from typing import Optional, Sequence, Tuple, Union

import cv2
import mmcv
import numpy as np
from mmengine import fileio
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from ..errors import UserInputError
from ..registry import TRANSFORMS
from .segmentation_check import ORIENTATION

#: reduction -> how OpenCV decodes at it; a JPEG decoder then leaves out high frequencies, it does not resize
FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
         8: cv2.IMREAD_REDUCED_COLOR_8}


@TRANSFORMS.register_module()
class LoadAndCrop(RandomResizedCrop):
    """mmpretrain's ``LoadImageFromFile`` and bicubic ``RandomResizedCrop`` in one, faster on large JPEGs.

    The box is drawn from the size in the file's header, by the parent and with the same random numbers. Then the image
    is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that leaves the box at least as large as the output; the box is
    cut out and resized with antialiasing. At 1/1, and for every file but an upright JPEG, the result is that of the two
    transforms, pixel by pixel. The reduced scales come into play where both sides of a box are at least twice the
    output's, so for 224 px from about 500 px of image on.

    Required keys: ``img_path``. Added keys: ``img`` (h, w, 3) uint8 in blue, green, red, ``img_shape``, ``ori_shape``.

    Args:
        scale (int | Sequence[int]): Output in pixels, a number or (h, w).
        crop_ratio_range (tuple): Share of the area. Defaults to (0.08, 1.0) (mmpretrain).
        aspect_ratio_range (tuple): Width by height. Defaults to (3/4, 4/3) (mmpretrain).
        max_attempts (int): Before the centre is taken. Defaults to 10 (mmpretrain).
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        UserInputError: If an image cannot be decoded.
    """

    def __init__(self, scale: Union[int, Sequence[int]], crop_ratio_range: Tuple[float, float] = (0.08, 1.0),
                 aspect_ratio_range: Tuple[float, float] = (3. / 4., 4. / 3.), max_attempts: int = 10,
                 backend_args: Optional[dict] = None) -> None:
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, max_attempts, interpolation='bicubic',
                         backend='pillow')
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """``img_path`` to ``img`` (h, w, 3)."""
        path = results['img_path']
        content = fileio.get(path, backend_args=self.backend_args)
        size = self.jpeg_size(content, path)
        if size is None:
            results['img'] = self.decode(content, path)  # (H, W, 3)
            results['ori_shape'] = results['img'].shape[:2]
            return super().transform(results)

        # the parent asks an image for its shape only: this one has no pixels
        box = self.rand_crop_params(np.empty((*size, 0)))  # top, left, height, width
        reduction = self.reduction(*box[2:])
        image = self.decode(content, path, reduction)  # (H / reduction, W / reduction, 3), rounded up
        if image.shape[:2] != tuple(-(-side // reduction) for side in size):
            raise UserInputError(f'The image {path!r} decodes to another size than its header says; remove or replace '
                                 f'it.')
        image = self.cut(image, [side / reduction for side in box])  # (h, w, 3)
        results.update(img=image, img_shape=image.shape, ori_shape=size)
        return results

    def reduction(self, height: int, width: int) -> int:
        """How far a box of so many pixels can be reduced without falling below the output."""
        return max(factor for factor in FLAGS
                   if factor == 1 or (height >= factor * self.scale[0] and width >= factor * self.scale[1]))

    def cut(self, image: np.ndarray, box: Sequence[float]) -> np.ndarray:
        """Resize a box (top, left, height, width), which may begin and end inside pixels, to (h, w, 3)."""
        top, left, height, width = box
        first_row, first_column = int(top), int(left)
        crop = image[first_row:int(np.ceil(top + height)), first_column:int(np.ceil(left + width))]
        inside = (left - first_column, top - first_row, left - first_column + width, top - first_row + height)
        return np.array(Image.fromarray(crop).resize(tuple(self.scale[::-1]), Image.Resampling.BICUBIC, box=inside))

    @staticmethod
    def decode(content: bytes, path: str, reduction: int = 1) -> np.ndarray:
        """Pixels of a file in blue, green, red.

        Raises:
            UserInputError: If OpenCV finds none.
        """
        image = mmcv.imfrombytes(content, flag=FLAGS[reduction], backend='cv2')
        if image is None:
            raise UserInputError(f'The image {path!r} cannot be decoded; remove or replace it.')
        return image

    @staticmethod
    def jpeg_size(content: bytes, path: str) -> Optional[Tuple[int, int]]:
        """Height and width of a JPEG; None for other formats, and for a JPEG that its EXIF tag turns.

        Of an image that is no multiple of the reduction, the last pixels cover less, and turning puts them first.

        Raises:
            UserInputError: If it is no image.
        """
        try:
            with Image.open(io.BytesIO(content)) as image:
                upright = image.format == 'JPEG' and image.getexif().get(ORIENTATION, 1) == 1
                return image.size[::-1] if upright else None
        except (OSError, ValueError, SyntaxError) as error:
            raise UserInputError(f'The image {path!r} cannot be decoded ({error}); remove or replace it.') from error
