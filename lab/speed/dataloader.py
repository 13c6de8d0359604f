"""How many images a second a config's training dataloader gives, and how long a training would wait for them.

    python -m lab.speed.dataloader configs/pretrain/CONFIG.py --workers 0 2 4 8 --batches 50 --step-ms 300

Each row fetches batches, copies them to the device and preprocesses them there (augmentation too, where the config has
it), and sleeps for --step-ms, the time of a training step. "waited" is the share of the time spent waiting for batches;
a GPU is kept busy where it is near 0.
"""
import argparse
import shlex
import sys

from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mimhd_mm.engine.launch import load_config, run_tool
from mimhd_mm.engine.loading import build_preprocessor
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import record
from mimhd_mm.measuring.devices import find_device

from . import report
from .loader_speed import build_loader, measure_loader, table_rows


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of a config's training dataloader")
    parser.add_argument('config', help='config file')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2, 4], help='loader processes (default 0 2 4)')
    parser.add_argument('--batches', type=int, default=20, help='batches to measure (default 20)')
    parser.add_argument('--step-ms', type=float, default=0., help='time of a training step (default 0)')
    parser.add_argument('--out', help='JSON file for all figures')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config')
    # the rest of what training takes, as it is there by default
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0, amp=False, no_pin_memory=False,
                        no_persistent_workers=False)
    args = parser.parse_args(argv)
    if args.batches < 1 or min(args.workers) < 0 or args.step_ms < 0:
        raise UserInputError('--batches is 1 or more, and --workers and --step-ms are not negative; correct what was '
                             'given.')
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    record.check_target(args.out, '.json')
    cfg = load_config(args)
    if cfg.get('model') is None:
        raise UserInputError(f'The config {args.config!r} has no model, whose preprocessing is part of the work; '
                             f'give a whole one, of configs/pretrain for example.')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    check_image_folder('train_dataloader.dataset', (cfg.get('train_dataloader') or {}).get('dataset') or {})
    device = find_device(None)
    preprocess = build_preprocessor(cfg).to(device)
    results = [measure_loader(build_loader(cfg, workers), preprocess, args.batches, args.step_ms / 1000)
               for workers in args.workers]
    facts = record.about(
        shlex.join(['python', '-m', 'lab.speed.dataloader', *(sys.argv[1:] if argv is None else argv)]), device,
        batch_size=cfg.train_dataloader.batch_size, batches=args.batches, step_ms=args.step_ms)
    report.publish(table_rows(results), facts, ['waited: percent of the whole time, steps of step_ms included, that is '
                                                'spent waiting for batches'], args.out, rows=results)


if __name__ == '__main__':
    run_tool(main)
