"""Tiny ImageNet: the official archive's layout and the plain class-folder layout."""
from pathlib import Path

from mmpretrain.datasets import CustomDataset

from ..errors import UserInputError
from ..registry import DATASETS
from .image_files import IMAGE_SUFFIXES, image_files


@DATASETS.register_module()
class TinyImageNet(CustomDataset):
    """Tiny ImageNet (200 classes, 64 x 64 pixels), or any part of it.

    Two layouts are read, told apart by the files that are there.

    The official archive, with its validation images in one folder: ::

        tiny-imagenet-200
        ├── train/<wnid>/images/*.JPEG
        └── val
            ├── images/*.JPEG
            └── val_annotations.txt     (file name, wnid, box; separated by tabs)

    One folder a class: ::

        tiny-imagenet
        ├── train/<wnid>/*.JPEG
        └── val/<wnid>/*.JPEG

    Classes are the folders of ``train`` in alphabetical order, for both splits and both layouts.

    Args:
        data_root (str): The folder that holds ``train`` and ``val``.
        split (str): ``'train'`` or ``'val'``. Defaults to ``'train'``.
        with_label (bool): Whether samples carry ``gt_label``. Defaults to True.
        metainfo (dict, optional): Passed on; ``classes`` is filled in from the folders.
        **kwargs: Arguments of :class:`mmpretrain.datasets.CustomDataset`.

    Raises:
        UserInputError: If the folder is missing, holds no image, or an annotation names an unknown class.
    """

    SPLITS = ('train', 'val')

    def __init__(self, data_root: str | Path, split: str = 'train', with_label: bool = True,
                 metainfo: dict | None = None, **kwargs) -> None:
        if split not in self.SPLITS:
            raise UserInputError(f'Tiny ImageNet has the splits {self.SPLITS}, not split={split!r}.')
        root = Path(data_root)
        if not (root / split).is_dir():
            raise UserInputError(
                f'No folder {str(root / split)!r}: set `data_root` to the folder of Tiny ImageNet that holds '
                f'`train` and `val`.')
        self.split = split
        train = root / 'train' if (root / 'train').is_dir() else root / split
        classes = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
        super().__init__(data_root=str(root), data_prefix=split, with_label=with_label,
                         metainfo={'classes': tuple(classes), **(metainfo or {})}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List ``img_path`` and, with labels, ``gt_label`` of every image."""
        root = Path(self.img_prefix)
        annotations = root / 'val_annotations.txt'
        if annotations.is_file():
            pairs = [line.split('\t')[:2] for line in annotations.read_text().splitlines() if line.strip()]
            samples = [(root / 'images' / name, wnid) for name, wnid in pairs]
        else:
            samples = [(path, path.relative_to(root).parts[0]) for path in sorted(image_files(root))]
        if not samples:
            raise UserInputError(
                f'No image in {str(root)!r}; expected {", ".join(IMAGE_SUFFIXES)} files in class folders.')

        index = {wnid: label for label, wnid in enumerate(self.CLASSES)}
        unknown = sorted({wnid for _, wnid in samples} - set(index))
        if unknown and self.with_label:
            raise UserInputError(
                f'{str(root)!r} has {len(unknown)} class(es) without a folder in `train`, {unknown[0]!r} first; '
                f'copy the class folders of both splits or set `with_label=False`.')
        if not self.with_label:
            return [dict(img_path=str(path)) for path, _ in samples]
        return [dict(img_path=str(path), gt_label=index[wnid]) for path, wnid in samples]
