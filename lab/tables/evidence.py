"""Run the tables of docs/evidence.md, or write its results from what is kept of them in docs/evidence.

    python tools/dataset_converters/take_part.py data/tiny-imagenet-200 data/part --classes 50 --per-class 48
    python -m lab.tables.evidence run --pretrain-root data/part --segmentation-root data/camvid --teacher MAE.pth
    python -m lab.tables.evidence write

`run` is lab.tables.run_table for each table of lab/tables/evidence.yml with its seeds; called again it goes on.
"""
import argparse
import shlex
import sys
from pathlib import Path

from mimhd_mm.engine.launch import run_tool

from .. import ROOT
from .evidence_page import read_results, run_evidence, write_page


def parse_args(argv) -> argparse.Namespace:
    docs = ROOT / 'docs'
    parser = argparse.ArgumentParser(description='Run and write the evidence page')
    parser.add_argument('--results', type=Path, default=docs / 'evidence', metavar='DIR',
                        help='folder of the kept results (default docs/evidence)')
    actions = parser.add_subparsers(dest='action', required=True)
    run = actions.add_parser('run', help='run tables and keep their results')
    run.add_argument('tables', nargs='*', help='which (default: all of lab/tables/evidence.yml)')
    run.add_argument('--pretrain-root', required=True, metavar='DIR', help='images, with train/ and val/')
    run.add_argument('--segmentation-root', metavar='DIR', help="CamVid (default: the config's folder)")
    run.add_argument('--teacher', required=True, metavar='FILE', help='the mini MAE')
    run.add_argument('--heads', metavar='FILE', help='file of tools/analysis_tools/rank_heads.py for the row that selects '
                     'heads (default: the first ones)')
    run.add_argument('--work-dir', default='work_dirs/evidence', metavar='DIR', help='default %(default)s')
    write = actions.add_parser('write', help='write the results into the page, from what is kept')
    write.add_argument('--page', type=Path, default=docs / 'evidence.md', metavar='FILE', help='default docs/evidence.md')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.action == 'run':
        where = {key: getattr(args, key) for key in ('pretrain_root', 'segmentation_root', 'teacher', 'heads',
                                                     'work_dir')}
        command = shlex.join(['python', '-m', 'lab.tables.evidence', *(sys.argv[1:] if argv is None else argv)])
        failures = run_evidence(args.tables, command, args.results, **where)
        for run, sentence in failures.items():
            print(f'error: {run}: {sentence}', file=sys.stderr)
        return 1 if failures else 0
    write_page(args.page, args.results)
    from .evidence_plot import draw_entropy, draw_scores  # matplotlib is not needed to run
    draw_scores(read_results(args.results), args.results / 'scores.png')
    draw_entropy(read_results(args.results), args.results / 'entropy.png')
    return 0


if __name__ == '__main__':
    run_tool(main)
