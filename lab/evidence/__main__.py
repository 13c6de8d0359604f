"""Run the second protocol of docs/evidence.md, list what is done, or write its results into the page.

    python -m lab.evidence run [TABLE ...] --data DIR --scenes DIR --teacher MAE.pth --work-dir DIR
    python -m lab.evidence list [TABLE ...]
    python -m lab.evidence write

Calls of `run` may be killed, called again, and made side by side on one work dir: a run is the unit, and takes minutes.
"""
import argparse
import warnings
from pathlib import Path

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.project import project_root

DOCS = project_root() / 'docs'


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog='python -m lab.evidence', description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (('run', 'make what is not there'), ('collect', 'keep the results of a work dir, as run does'),
                       ('list', 'rows, seeds, what is done and how long the rest takes'),
                       ('write', 'write the results into docs/evidence.md')):
        command = commands.add_parser(name, help=text)
        command.add_argument('--results', type=Path, default=DOCS / 'evidence2', help='folder of the results')
        if name in ('run', 'list'):
            command.add_argument('tables', nargs='*', help='default: all')
            command.add_argument('--only', default='', metavar='REGEX', help='rows in whose name it is found')
            command.add_argument('--seeds', type=int, nargs='+', help="in place of the protocol's")
        if name in ('run', 'collect'):
            for option, what in (
                    ('--data', 'folder of labelled packed images: train.safetensors and val.safetensors'),
                    ('--scenes', 'folder of CamVid with images and annotations'),
                    ('--teacher', 'checkpoint of the mini MAE'), ('--work-dir', 'for the runs')):
                command.add_argument(option, type=Path, required=True, help=what)
        if name == 'write':
            command.add_argument('--page', type=Path, default=DOCS / 'evidence.md')
    args = parser.parse_args(argv)
    return globals()[f'do_{args.command}'](args)


def do_run(args: argparse.Namespace) -> int:
    """Make runs; status 1 if some failed."""
    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from .protocol import read_protocol
    from .runs import plan, run_all
    torch.set_num_threads(1)
    MMLogger.get_instance('lab', log_level='ERROR')
    init_default_scope('mmpretrain')
    protocol, place = read_protocol(), place_of(args)
    place.check()
    runs = plan(protocol, args.tables, place, args.only, args.seeds)
    failures = run_all(runs, protocol, place, args.results)
    for name, sentence in failures.items():
        print(f'failed: {name}: {sentence}')
    return int(bool(failures))


def do_collect(args: argparse.Namespace) -> int:
    """Keep results."""
    from .protocol import read_protocol
    from .runs import collect
    collect(read_protocol(), place_of(args), args.results)
    return 0


def do_list(args: argparse.Namespace) -> int:
    """Print one line a row."""
    from .listing import listing
    from .protocol import read_protocol
    print(listing(read_protocol(), args.tables, args.results, args.only, args.seeds))
    return 0


def do_write(args: argparse.Namespace) -> int:
    """Write the page."""
    from .page import write_page
    from .protocol import read_protocol
    write_page(args.page, args.results, read_protocol())
    return 0


def place_of(args: argparse.Namespace):
    """Files of a call; paths made absolute."""
    from .training import Place
    return Place(args.data.resolve(), args.scenes.resolve(), args.teacher.resolve(), args.work_dir.resolve())


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    run_tool(main)
