"""Run the measurements of docs/performance.md, or write its tables from what is kept of them in docs/performance.

    python -m lab.speed.performance --list
    python -m lab.speed.performance run --images data/tiny-imagenet-200 --teacher MAE.pth
    python -m lab.speed.performance run base small --again
    python -m lab.speed.performance write

`run` calls the commands of lab/speed/performance.yml one after the other. Without names it leaves out what is kept
already, so called again it goes on. Nothing else should run on the machine.
"""
import argparse
import sys
from pathlib import Path

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError

from .. import ROOT
from .performance_page import listing, run_list, write_page


def parse_args(argv=None) -> argparse.Namespace:
    docs = ROOT / 'docs'
    parser = argparse.ArgumentParser(description='Run the measurements of the performance page, and write it')
    parser.add_argument('--list', action='store_true', help='print the commands')
    parser.add_argument('--results', type=Path, default=docs / 'performance', metavar='DIR',
                        help='folder of what is kept (default docs/performance)')
    parser.add_argument('--pictures', type=Path, default=docs / 'pictures', metavar='DIR',
                        help='folder of the plots (default docs/pictures)')
    actions = parser.add_subparsers(dest='action')
    run = actions.add_parser('run', help='run measurements and keep what they leave')
    run.add_argument('names', nargs='*', metavar='NAME', help='which (default all that are not kept yet)')
    run.add_argument('--images', metavar='DIR', help='Tiny ImageNet, with train/ and val/')
    run.add_argument('--teacher', metavar='FILE', help='the mini MAE')
    run.add_argument('--again', action='store_true', help='replace what is kept')
    write = actions.add_parser('write', help='write the page from what is kept')
    write.add_argument('--page', type=Path, default=docs / 'performance.md', metavar='FILE',
                       help='default docs/performance.md')
    args = parser.parse_args(argv)
    if not args.list and args.action is None:
        raise UserInputError('Nothing to do; give --list, run or write.')
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.list:
        print(listing())
    elif args.action == 'write':
        write_page(args.page, args.results, args.pictures)
    else:
        failures = run_list(args.names, args.results, args.pictures, args.again, images=args.images,
                            teacher=args.teacher)
        for name, sentence in failures.items():
            print(f'error: {name}: {sentence}', file=sys.stderr)
        return 1 if failures else 0
    return 0


if __name__ == '__main__':
    run_tool(main)
