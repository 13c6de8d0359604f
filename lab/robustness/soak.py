"""Kill, interrupt and corrupt a training at random and compare its end with an undisturbed one's, bit by bit.

    python -m lab.robustness.soak --kills 50 --corruptions 20

Needs no data: a tiny MIM-HD on images that it makes, unless --config names another. Writes soak.json and soak.md.
"""
import argparse
import json
from pathlib import Path

import torch

from mimhd_mm.engine.launch import add_common_arguments, load_config, run_tool
from mimhd_mm.engine.preflight import check_config
from mimhd_mm.errors import UserInputError

from .soak_config import tiny_config
from .soak_runs import Soak, markdown, merge, write_report


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description='Disturb a training and see that its end is the same')
    parser.add_argument('--config', help='config of a training on one process; default a tiny MIM-HD')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', default=[],
                        help='override settings of the config, as in tools/train.py')
    parser.add_argument('--kills', type=int, default=50, help='SIGKILLs; default 50')
    parser.add_argument('--corruptions', type=int, default=20, help='checkpoints damaged; default 20')
    parser.add_argument('--minutes', type=float, help='go on for so long instead')
    parser.add_argument('--memory-factor', type=int, default=10,
                        help='how many times longer the run is whose memory is watched; default 10')
    parser.add_argument('--seed', type=int, default=0, help='of the faults; default 0')
    parser.add_argument('--work-dir', default='work_dirs/soak', help='default work_dirs/soak')
    parser.add_argument('--append', action='store_true', help='add to the report that is in the work dir')
    args = parser.parse_args(argv)
    no_time = args.minutes is not None and args.minutes <= 0
    if args.kills < 0 or args.corruptions < 0 or args.memory_factor < 1 or no_time:
        raise UserInputError('--kills and --corruptions are 0 or more, --memory-factor 1 or more, --minutes above 0.')

    torch.set_num_threads(1)  # processes are forked from this one
    folder = Path(args.work_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    earlier = folder / 'soak.json'
    if earlier.exists() and not args.append:
        raise UserInputError(f'{str(earlier)!r} is there already; give --append, or another --work-dir.')
    reports = [json.loads(earlier.read_text())] if args.append and earlier.is_file() else []
    path = args.config
    if path is None:
        path = folder / 'config.py'
        tiny_config(folder).dump(path)
    common = argparse.ArgumentParser()
    add_common_arguments(common)
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    cfg = load_config(common.parse_args([str(path), *options]))
    check_config(cfg)

    soak = Soak(cfg, folder, args.seed)
    soak.undisturbed(args.memory_factor)
    print(f'undisturbed: {len(soak.losses)} iterations in {soak.seconds:.0f} s', flush=True)
    report = merge([*reports, soak.report()])
    write_report(report, folder)
    for one in soak.meet(args.kills, args.corruptions, args.minutes):
        kinds = ', '.join(f'{fault.kind} at {fault.iteration}' for fault in one.faults)
        verdict = 'identical' if one.identical else 'DIFFERENT'
        print(f'run {len(soak.rounds)}: {verdict} after {kinds or "nothing"} ({one.seconds:.0f} s)', flush=True)
        report = merge([*reports, soak.report()])
        write_report(report, folder)  # after every run: the soak may be stopped too
    print(f'\n{markdown(report)}\nwrote {folder / "soak.json"} and soak.md')
    return int(report['identical'] < report['rounds'])


if __name__ == '__main__':
    run_tool(main)
