"""Check the files and labels of ADE20K, or of any data set in its layout, before training.

    python tools/dataset_converters/check_ade20k.py data/ade/ADEChallengeData2016
    python tools/dataset_converters/check_ade20k.py data/camvid --num-classes 11

The layout: images/{training,validation}/*.jpg and annotations/{training,validation}/*.png, paired by name. The exit
status is 1 for a missing annotation, a label out of range, two sizes of a pair, or a file that does not decode.
"""
import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from mimhd_mm.datasets.segmentation_check import SplitReport, check_pairs, list_pairs
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError

COLUMNS = ('split', 'images', 'annotations', 'checked', 'sizes (px)', 'labels', 'classes seen', 'not scored')


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Check ADE20K')
    parser.add_argument('data_root', help='folder that holds images and annotations')
    parser.add_argument('--num-classes', type=int, default=150, help='classes that are scored (default 150)')
    parser.add_argument('--no-reduce-zero-label', action='store_true',
                        help='label 0 is a class; default: it is not scored and classes begin at 1')
    parser.add_argument('--sample', type=int, help='open so many pairs of each split, evenly spaced (default all)')
    args = parser.parse_args(argv)
    for name, value in (('--num-classes', args.num_classes), ('--sample', args.sample)):
        if value is not None and value < 1:
            raise UserInputError(f'{name} {value} was given; expected 1 or more.')

    root, reduce_zero_label = Path(args.data_root), not args.no_reduce_zero_label
    rows = [COLUMNS]
    for split in ('training', 'validation'):
        pairs = list_pairs(root / 'images' / split, root / 'annotations' / split)
        report = check_pairs(pairs, args.num_classes, reduce_zero_label, args.sample,
                             progress=partial(show_progress, split=split))
        rows.append(row(split, report, reduce_zero_label, args.num_classes))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())


def row(split: str, report: SplitReport, reduce_zero_label: bool, num_classes: int) -> tuple:
    """The table's cells for one split."""
    sizes = sorted(report.sizes)
    widths, heights = zip(*sizes)
    size = ('{} x {}'.format(*sizes[0]) if len(sizes) == 1 else
            f'{min(widths)}..{max(widths)} x {min(heights)}..{max(heights)}')
    labels = f'{min(report.labels)}..{max(report.labels)}' if report.labels else '-'
    classes = len(report.labels - ({0} if reduce_zero_label else set()))
    return (split, str(report.images), str(report.annotations), str(report.checked), size, labels,
            f'{classes} of {num_classes}', f'{100 * report.unscored:.1f} %')


def show_progress(items: Iterable, total: int, split: str) -> Iterable:
    """Pass items on; count them on stderr, in one line that is written over."""
    number = 0
    try:
        for number, item in enumerate(items, start=1):
            if number % max(1, total // 100) == 0:
                print(f'\r{split}: {number} of {total}', end='', file=sys.stderr, flush=True)
            yield item
    finally:  # at the end, or before the message about a bad file
        print(f'\r{split}: {number} of {total}', file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
