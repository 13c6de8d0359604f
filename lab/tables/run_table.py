"""Run a table of the paper from lab/tables/tables.yml: pre-train each row, evaluate it, write the table.

    python -m lab.tables.run_table --list
    python -m lab.tables.run_table table3 --mini --pretrain-root data/tiny-imagenet-200 --teacher MAE.pth
    python -m lab.tables.run_table table3 --gpus 8 --seeds 3

Every training is an ordinary run of tools/train.py with a config in WORK_DIR/runs, and every evaluation is that of
tools/evaluate_student.py. The table, WORK_DIR/TABLE.md, .csv and .json, is rewritten after each row. Called again, this
takes over what is complete and goes on where a training was cut short; equal runs of several rows or tables are one.
A row that fails is reported in the table, the others go on, and the status is 1.
"""
import argparse
import shlex
import sys
from pathlib import Path

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.tasks import METRICS

from .. import ROOT
from .plan import TableOptions
from .readme import write_readme
from .report import report_stem
from .rows import choose_table, describe_tables, read_tables, tables_file
from .runs import run_table

#: of the full sizes what the paper reports, of the miniatures what takes no training
DEFAULT_TASKS = {'full': ['finetune', 'segmentation'], 'mini': ['knn']}


def parse_args(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run a table of the paper')
    parser.add_argument('table', nargs='?', help='name of a table; see --list')
    parser.add_argument('--list', action='store_true', help='print tables and rows, and run nothing')
    parser.add_argument('--readme', action='store_true', help='write the map in configs/README.md, and run nothing')
    parser.add_argument('--mini', action='store_true', help='the miniatures, for small machines')
    parser.add_argument('--rows', type=int, nargs='+', metavar='N', help='run only these rows (default: all)')
    parser.add_argument('--seeds', type=int, default=1, metavar='N',
                        help='run each row with seeds 0 to N-1 (default 1)')
    parser.add_argument('--tasks', nargs='+', choices=list(METRICS),
                        help='default: finetune segmentation, as the paper reports; with --mini: knn')
    parser.add_argument('--gpus', type=int, default=1, help='processes of each training (default 1)')
    parser.add_argument('--pretrain-root', metavar='DIR', help="images to pre-train on (default: the configs')")
    parser.add_argument('--classification-root', metavar='DIR',
                        help='folder with train/ and val/ (default: that of pre-training)')
    parser.add_argument('--segmentation-root', metavar='DIR',
                        help="folder with images/ and annotations/ (default: the configs')")
    parser.add_argument('--teacher', metavar='FILE', help="MAE file of the teacher (default: the configs')")
    parser.add_argument('--heads', metavar='FILE', help='file of tools/analysis_tools/rank_heads.py, for rows that '
                        'select heads (default: the first ones)')
    parser.add_argument('--shorten', type=float, default=1., metavar='FACTOR',
                        help='train for this part of the length of the configs, 0 < FACTOR <= 1 (default 1)')
    parser.add_argument('--shorten-tasks', type=float, metavar='FACTOR',
                        help='the same for the trainings of the evaluation (default: as --shorten)')
    parser.add_argument('--amp', action='store_true', help='mixed precision, of the type that configs name')
    parser.add_argument('--work-dir', metavar='DIR', default=TableOptions.work_dir,
                        help='for all runs and the table (default %(default)s)')
    parser.add_argument('--tables', metavar='FILE', type=Path, default=tables_file(),
                        help='another list of tables (default lab/tables/tables.yml)')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    tables = read_tables(args.tables)
    if args.list:
        print(describe_tables(tables))
        return 0
    if args.readme:
        if args.tables != tables_file():
            raise UserInputError('--readme writes the map of lab/tables/tables.yml; leave --tables out.')
        write_readme(ROOT / 'configs' / 'README.md', tables)
        return 0
    table = choose_table(tables, args.table)
    own = {key: value for key, value in vars(args).items() if key not in ('table', 'list', 'readme', 'rows', 'tables')}
    own['tasks'] = args.tasks or DEFAULT_TASKS['mini' if args.mini else 'full']
    options = TableOptions(**own)
    arguments = sys.argv[1:] if argv is None else argv
    failures = run_table(table, args.rows, options, shlex.join(['python', '-m', 'lab.tables.run_table', *arguments]))
    print('\n' + report_stem(table, options).with_suffix('.md').read_text(), end='')
    for run, sentence in failures.items():
        print(f'error: {run}: {sentence}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    run_tool(main)
