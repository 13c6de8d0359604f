"""``LoadAndCrop``: decodes a large JPEG only at the resolution that its random crop needs."""
import io
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from ..registry import TRANSFORMS
from .decoding import BadImage, BadImages, check_size, decode_image, jpeg_frame, read_bytes
from .segmentation_check import ORIENTATION

#: reduction -> OpenCV's flag; the decoder leaves out high frequencies and does not resize
FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@TRANSFORMS.register_module()
class LoadAndCrop(RandomResizedCrop):
    """``LoadAnyImage`` and mmpretrain's bicubic ``RandomResizedCrop`` in one, faster on large JPEGs.

    The box is drawn from the size in the file's header, by the parent and with the same random numbers. Then the image
    is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that leaves the box at least as large as the output; the box is
    cut out and resized with antialiasing. At 1/1, and for every file but an upright JPEG, the result is that of the two
    transforms, pixel by pixel. A reduced scale is used if both sides of a box are at least twice those of the
    output: for 224 px, in images larger than about 500 px.

    Required keys: ``img_path``. Added keys: ``img`` (h, w, 3) uint8 in blue, green, red, ``img_shape``, ``ori_shape``.

    Args:
        scale (int | Sequence[int]): Output in pixels, a number or (h, w).
        crop_ratio_range (tuple): Share of the area. Defaults to (0.08, 1.0) (mmpretrain).
        aspect_ratio_range (tuple): Width by height. Defaults to (3/4, 4/3) (mmpretrain).
        max_attempts (int): Number of tries before the centre is taken. Defaults to 10 (mmpretrain).
        max_bad (int): Files that cannot be decoded and are replaced, see
            :class:`~mimhd_mm.datasets.load_any_image.LoadAnyImage`. Defaults to 0: the first one stops the run.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        UserInputError: If more images cannot be decoded.
    """

    def __init__(self, scale: int | Sequence[int], crop_ratio_range: tuple[float, float] = (0.08, 1.0),
                 aspect_ratio_range: tuple[float, float] = (3. / 4., 4. / 3.), max_attempts: int = 10,
                 max_bad: int = 0, backend_args: dict | None = None) -> None:
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, max_attempts, interpolation='bicubic',
                         backend='pillow')
        self.bad_images = BadImages(max_bad)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict | None:
        """``img_path`` to ``img`` (h, w, 3); None where another sample is to be taken."""
        path = results['img_path']
        try:
            results = self.load_and_crop(results, read_bytes(path, self.backend_args))
        except BadImage as reason:
            self.bad_images.add(path, reason)
            return None
        self.bad_images.good()
        return results

    def load_and_crop(self, results: dict, content: bytes) -> dict:
        """From the content of a file to ``img`` (h, w, 3).

        Raises:
            BadImage: If it cannot be decoded.
        """
        size = self.jpeg_size(content)
        if size is None:
            results['img'] = decode_image(content)  # (H, W, 3)
            results['ori_shape'] = results['img'].shape[:2]
            return super().transform(results)

        # the parent reads only the shape, so no pixels are needed
        box = self.rand_crop_params(np.empty((*size, 0)))  # top, left, height, width
        reduction = self.reduction(*box[2:])
        image = self.decode(content, reduction)  # (H / reduction, W / reduction, 3), rounded up
        if image.shape[:2] != tuple(-(-side // reduction) for side in size):
            raise BadImage('it decodes to another size than its header says')
        image = self.cut(image, [side / reduction for side in box])  # (h, w, 3)
        results.update(img=image, img_shape=image.shape, ori_shape=size)
        return results

    def reduction(self, height: int, width: int) -> int:
        """The largest reduction at which a box is still at least as large as the output."""
        return max(factor for factor in (1, *FLAGS)
                   if factor == 1 or (height >= factor * self.scale[0] and width >= factor * self.scale[1]))

    def cut(self, image: np.ndarray, box: Sequence[float]) -> np.ndarray:
        """Resize a box (top, left, height, width), which may begin and end inside pixels, to (h, w, 3)."""
        top, left, height, width = box
        first_row, first_column = int(top), int(left)
        crop = image[first_row:int(np.ceil(top + height)), first_column:int(np.ceil(left + width))]
        inside = (left - first_column, top - first_row, left - first_column + width, top - first_row + height)
        return np.array(Image.fromarray(crop).resize(tuple(self.scale[::-1]), Image.Resampling.BICUBIC, box=inside))

    @staticmethod
    def decode(content: bytes, reduction: int) -> np.ndarray:
        """Pixels of a JPEG in blue, green, red.

        Raises:
            BadImage: If there are none.
        """
        if reduction == 1:
            return decode_image(content)
        image = mmcv.imfrombytes(content, flag=FLAGS[reduction], backend='cv2')
        if image is None:
            raise BadImage('OpenCV finds no pixels in it')
        return image

    @staticmethod
    def jpeg_size(content: bytes) -> tuple[int, int] | None:
        """Height and width of an upright, plain, whole JPEG; None for all else.

        Turned images are excluded: their last, narrower pixels would come first at a reduced scale.

        Raises:
            BadImage: If it is too large.
        """
        frame = jpeg_frame(content)
        if frame is None or not frame.plain:
            return None
        check_size(*frame.size)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return frame.size if image.getexif().get(ORIENTATION, 1) == 1 else None
        except (OSError, ValueError, SyntaxError):
            return None
