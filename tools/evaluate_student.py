"""Evaluate students downstream: k-NN, linear probe, fine-tuning and segmentation, in one table.

    python tools/evaluate_student.py work_dirs/RUN/epoch_5.pth --settings mini --untrained \\
        --classification-root data/tiny-imagenet-200 --segmentation-root data/camvid

Every training is an ordinary run of tools/train.py with a config in the work dir. A second call keeps
finished results and resumes interrupted trainings. Scores are those of the last evaluation, never of the best one.
"""
import argparse
import shlex
import sys
from pathlib import Path

from mimhd_mm.downstream.evaluate import evaluate
from mimhd_mm.downstream.settings import Options, shipped_settings
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.evaluation.tasks import METRICS


def parse_args(argv, settings: dict) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Downstream numbers of distilled students')
    parser.add_argument('checkpoints', nargs='+', metavar='checkpoint', help='file with tensors under `backbone.`')
    parser.add_argument('--settings', choices=list(settings), required=True,
                        help='mini: Tiny ImageNet and CamVid, for small machines; full: ImageNet-1K and ADE20K')
    parser.add_argument('--tasks', nargs='+', choices=list(METRICS), default=list(METRICS), help='default: all')
    parser.add_argument('--untrained', action='store_true', help='also evaluate the network before any training')
    parser.add_argument('--classification-root', metavar='DIR', help='folder with train/ and val/')
    parser.add_argument('--segmentation-root', metavar='DIR', help='folder with images/ and annotations/')
    parser.add_argument('--work-dir', metavar='DIR', default=Options.work_dir,
                        help='for all runs and the table (default %(default)s)')
    parser.add_argument('--gpus', type=int, default=1, help='processes of each training (default 1)')
    parser.add_argument('--shorten', type=float, default=1., metavar='FACTOR',
                        help='train for this part of the length of the configs, 0 < FACTOR <= 1 (default 1)')
    parser.add_argument('--seed', type=int, default=0, help='of every run (default 0)')
    parser.add_argument('--amp', action='store_true', help='mixed precision, of the type that configs name')
    return parser.parse_args(argv)


def main(argv=None, settings=None) -> None:
    settings = settings or shipped_settings()
    args = parse_args(argv, settings)
    arguments = sys.argv[1:] if argv is None else argv
    evaluate(Options(**{**vars(args), 'settings': settings[args.settings]}),
             shlex.join(['python', 'tools/evaluate_student.py', *arguments]))
    print('\n' + (Path(args.work_dir) / 'table.md').read_text(), end='')


if __name__ == '__main__':
    run_tool(main)
