"""Draw what runs logged: losses, learning rate, heads, probes, accuracies; one panel a number, one colour a run.

    python tools/analysis_tools/plot_log.py work_dirs/RUN_A work_dirs/RUN_B --smooth 0.6 --out log.png
"""
import argparse
from pathlib import Path

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.visualization import curves_figure, read_scalars
from mimhd_mm.visualization.pictures import check_output, save


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Draw the curves of one or several runs')
    parser.add_argument('runs', nargs='+', help='work folders, or scalars.json files')
    parser.add_argument('--out', required=True, help='the PNG file to write')
    parser.add_argument('--names', nargs='+', help='one a run (default: the names of the folders)')
    parser.add_argument('--keys', nargs='+', help='what to draw, e.g. loss knn/student (default: all but times)')
    parser.add_argument('--smooth', type=float, default=0., help='weight of the past in a moving average, 0 to below '
                        '1; the raw curve stays behind (default 0, none)')
    parser.add_argument('--dpi', type=int, default=150, help='dots an inch (default 150)')
    args = parser.parse_args(argv)

    names = args.names or [Path(run).resolve().name for run in args.runs]
    if not args.names and len(set(names)) < len(names):
        names = args.runs
    if len(names) != len(args.runs) or len(set(names)) < len(names):
        raise UserInputError(f'{len(args.runs)} runs need as many different --names, not {", ".join(names)}.')
    check_output(args.out)
    runs = {name: read_scalars(run) for name, run in zip(names, args.runs)}
    save(curves_figure(runs, args.keys, args.smooth), args.out, args.dpi)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
