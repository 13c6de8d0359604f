"""Write a report on one run or several: one HTML file that needs no network.

    python tools/report.py work_dirs/RUN -o report.html
    python tools/report.py work_dirs/RUN_A work_dirs/RUN_B --names A B --tables work_dirs/evaluation/table.json

Curves, head weights and pictures are those that the hooks of a run wrote to its work dir. If there are no such
pictures, attention.png and reconstruction.png of tools/analysis_tools are taken from there.
"""
import argparse

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.visualization.report import write_report


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='One HTML file about one run or several')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR',
                        help='work dir of a run, or of lab/tables/run_table.py for all its runs and tables')
    parser.add_argument('-o', '--out', default='report.html', help='HTML file to write (default %(default)s)')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='what to call the runs (default: their folders)')
    parser.add_argument('--tables', nargs='+', default=[], metavar='JSON',
                        help='downstream numbers: files of tools/evaluate_student.py or lab/tables/run_table.py, '
                             'or folders with them; those in a work dir are found')
    parser.add_argument('--max-pictures', type=int, default=6, metavar='N',
                        help='of each kind and run, evenly spaced over training (default %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace the file where it exists')
    args = parser.parse_args(argv)
    runs, size = write_report(**vars(args))
    print(f'wrote {args.out}: {runs} {"run" if runs == 1 else "runs"}, {size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
