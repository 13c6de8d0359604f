"""Give every kind of bad image and hostile file to what really loads them, and write down what each got."""
from collections.abc import Callable
from pathlib import Path

from mmengine.dataset import default_collate
from mmengine.runner import load_checkpoint
from mmpretrain.datasets import CustomDataset
from torch import nn
from torch.utils.data import DataLoader

from mimhd_mm.datasets import LoadAnyImage
from mimhd_mm.engine.resume.safe_loading import safe_loading
from mimhd_mm.errors import UserInputError
from mimhd_mm.markdown import markdown_table
from mimhd_mm.weights.mae_files import read_mae_file
from mimhd_mm.weights.reading import read_tensors
from mimhd_mm.weights.vit_files import read_vit_file

from . import bad_images, hostile_files

PIPELINE = [dict(type='mimhd_mm.LoadAnyImage', max_bad=100),
            dict(type='mmpretrain.RandomResizedCrop', scale=32, backend='pillow', interpolation='bicubic'),
            dict(type='mmpretrain.PackInputs')]  # of pre-training configs

#: what reads checkpoints -> how
READERS: dict[str, Callable[[Path], object]] = {
    'teacher': lambda path: read_mae_file(path, need_decoder=True),
    'converter': read_vit_file,
    'student': read_tensors,
    '--resume, load_from, init_cfg': safe_loading()(lambda path: load_checkpoint(nn.Linear(2, 2), str(path))),
}


def try_images(folder: Path) -> list[dict]:
    """Write one image of each kind and load it as a training does, alone and beside a good one.

    Args:
        folder (Path): Empty; what is written stays there.

    Returns:
        list[dict]: By kind ``input``, ``got`` and ``reason``; ``got`` is ``'decoded'`` or ``'replaced'``.
    """
    paths, rows = bad_images.write_kinds(folder), []
    for name, path in paths.items():
        try:
            image = LoadAnyImage()(dict(img_path=str(path)))['img']  # (H, W, 3)
            rows.append(dict(input=name, got='decoded', reason=f'{image.shape[1]} x {image.shape[0]} pixels'))
        except UserInputError as error:  # max_bad=0 names the file and the reason
            rows.append(dict(input=name, got='replaced', reason=str(error.__cause__)))
    return rows


def try_workers(folder: Path, workers: int = 2) -> dict:
    """One epoch over the images of :func:`try_images` and a good one through loader processes.

    Returns:
        dict: ``samples`` that were asked for and ``loaded``, ``replaced`` among them, and ``workers``.
    """
    bad_images.picture().save(folder / 'good.png')
    dataset = CustomDataset(data_root=str(folder), pipeline=PIPELINE, with_label=False)
    listed = [info['img_path'] for info in dataset.load_data_list()]
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=default_collate)
    loaded = [sample.img_path for batch in loader for sample in batch['data_samples']]
    replaced = sum(asked != got for asked, got in zip(listed, loaded))
    return dict(samples=len(listed), loaded=len(loaded), replaced=replaced, workers=workers)


def try_files(folder: Path) -> list[dict]:
    """Write one hostile file of each kind and give it to everything that reads checkpoints.

    Args:
        folder (Path): Empty; what is written stays there.

    Returns:
        list[dict]: By kind ``input``; ``got``, ``'refused'`` or the readers that took it; ``reason``, the sentence
        without the path; ``tried``, how many readers; ``payload``, ``'none'``, ``'not executed'`` or ``'EXECUTED'``.
    """
    rows = []
    for name, path in hostile_files.write_kinds(folder).items():
        taken, reason = [], ''
        for reader, read in READERS.items():
            try:
                read(path)
                taken.append(reader)
            except UserInputError as error:
                reason = reason or str(error).replace(repr(str(path)), 'the file')
        ran = path.with_name(path.name + '.ran').exists()
        inside = name in hostile_files.PAYLOADS or name in hostile_files.OTHER_PAYLOADS
        rows.append(dict(input=name, got=f'taken by {", ".join(taken)}' if taken else 'refused', reason=reason,
                         tried=len(READERS), payload='EXECUTED' if ran else 'not executed' if inside else 'none'))
    return rows


def harmless(result: dict) -> bool:
    """Whether every image was decoded or replaced, no worker died, and every file was refused without running."""
    epoch = result['epoch']
    return epoch['loaded'] == epoch['samples'] and all(
        row['got'] == 'refused' and row['payload'] != 'EXECUTED' for row in result['files'])


def markdown(result: dict) -> str:
    """Tables of what was tried, for ``docs/reliability.md``."""
    images, files, epoch = result['images'], result['files'], result['epoch']
    lines = [
        f'{len(images)} kinds of image, loaded as a training does: '
        f'{sum(row["got"] == "decoded" for row in images)} decoded, '
        f'{sum(row["got"] == "replaced" for row in images)} replaced by another image and named in the log. An epoch '
        f'over those that a data set lists, with {epoch["workers"]} loader processes, gave {epoch["loaded"]} of '
        f'{epoch["samples"]} samples, {epoch["replaced"]} of them replaced.', '',
        markdown_table(['Image', 'Got', ''],
                       ([row['input'], row['got'], cell(row['reason'])] for row in images), 'lll'), '',
        f'{len(files)} kinds of hostile file, each read as {"; ".join(READERS)}: '
        f'{sum(row["got"] == "refused" for row in files)} refused by all of them, '
        f'{sum(row["payload"] == "EXECUTED" for row in files)} payloads executed.', '',
        markdown_table(['File', 'Got', 'Payload', 'Sentence'],
                       ([row['input'], row['got'], row['payload'], cell(row['reason'])] for row in files), 'llll'), '']
    return '\n'.join(lines)


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace('|', r'\|').replace('<', '&lt;')
