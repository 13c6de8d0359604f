"""``LoadAnyImage``: loads images of every kind and replaces those that cannot be decoded."""

from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS
from .decoding import BadImage, BadImages, decode_image, read_bytes


@TRANSFORMS.register_module()
class LoadAnyImage(BaseTransform):
    """mmpretrain's ``LoadImageFromFile`` for data sets that may hold damaged or unusual images.

    Ordinary images give the same pixels. Beyond that, images with transparency, CMYK, 16 bits or palettes are
    converted (:func:`~mimhd_mm.datasets.decoding.decode_image`), and files that are cut short, no images, too large or
    unreadable are bad: where ``max_bad`` allows it they are named in the log and replaced by another, random sample of
    the data set, label and all (mmengine's ``BaseDataset`` draws it with numpy's generator); else the run ends with a
    sentence that names them. For validation and testing leave ``max_bad`` at 0, so that no image goes missing.

    Required keys: ``img_path``. Added keys: ``img`` (H, W, 3) uint8 in blue, green, red, ``img_shape``, ``ori_shape``.

    Args:
        max_bad (int): Different files that a loader process replaces before it stops, see
            :class:`~mimhd_mm.datasets.decoding.BadImages`. Defaults to 0: the first one stops it.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        UserInputError: If more images are bad, or 100 in a row.
    """

    def __init__(self, max_bad: int = 0, backend_args: dict | None = None) -> None:
        self.bad_images = BadImages(max_bad)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict | None:
        """``img_path`` to ``img`` (H, W, 3); None where another sample is to be taken."""
        path = results['img_path']
        try:
            image = decode_image(read_bytes(path, self.backend_args))  # (H, W, 3)
        except BadImage as reason:
            self.bad_images.add(path, reason)
            return None
        self.bad_images.good()
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_bad={self.bad_images.max_bad}, backend_args={self.backend_args})'
