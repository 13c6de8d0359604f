"""Make a smaller data set from links: some classes, some images of each."""
import os
from pathlib import Path

from ..errors import UserInputError
from .image_files import image_files


def link_part(source: str | Path, target: str | Path, classes: int | None = None,
              per_class: int | None = None) -> dict:
    """Make a folder of links to a part of a data set.

    ``train`` gets ``per_class`` images of each of the classes, evenly spaced in the order of their names; ``val`` all
    images of these classes. Classes are evenly spaced in the order of their names, too, because WordNet gives similar
    classes neighbouring names.

    Args:
        source (str | Path): Folder with ``train/<class>/...`` and ``val/<class>/...``.
        target (str | Path): Folder to make; it must not exist.
        classes (int, optional): How many. None takes all. Defaults to None.
        per_class (int, optional): Training images of each. None takes all. Defaults to None.

    Returns:
        dict: ``classes``, ``train`` and ``val``: how many there are now.

    Raises:
        UserInputError: If the source has another layout or too few classes or images, or the target exists.
    """
    source, target = Path(source).resolve(), Path(target)
    if target.exists():
        raise UserInputError(f'{str(target)!r} exists already; name a new folder.')
    splits = [split for split in ('train', 'val') if (source / split).is_dir()]
    if 'train' not in splits:
        raise UserInputError(f'No folder {str(source / "train")!r}; name a folder with `train/<class>/...` in it.')
    names = sorted(folder.name for folder in (source / 'train').iterdir() if folder.is_dir())
    chosen = evenly_spaced(names, classes, f'classes in {str(source / "train")!r}')
    files = {}
    for name in chosen:
        found = sorted(image_files(source / 'train' / name))
        files['train', name] = evenly_spaced(found, per_class, f'images in {str(source / "train" / name)!r}')
        if 'val' in splits:
            files['val', name] = sorted(image_files(source / 'val' / name))
            if not files['val', name]:
                raise UserInputError(f'No image in {str(source / "val" / name)!r}; `val` needs one folder a class, '
                                     f'with images in it.')
    for (split, name), paths in files.items():
        folder = target / split / name
        for path in paths:
            link = folder / path.relative_to(source / split / name)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, link)
    return dict(classes=len(chosen), **{split: sum(len(paths) for (part, _), paths in files.items() if part == split)
                                        for split in splits})


def evenly_spaced(items: list, number: int | None, what: str) -> list:
    """Choose evenly spaced items, in their order: number i of n is item floor(i * len / n).

    Raises:
        UserInputError: If there are fewer, or the number is not positive.
    """
    if number is None:
        number = len(items)
    if not 0 < number <= len(items):
        raise UserInputError(f'There are {len(items)} {what}, so {number} cannot be taken; ask for 1 to {len(items)}.'
                             if items else f'There are no {what}.')
    return [items[i * len(items) // number] for i in range(number)]
