"""Train by a config as tools/train.py does, and tell how much of that time each hook took.

    python -m lab.speed.hook_time configs/pretrain/CONFIG.py --cfg-options KEY=VALUE --out hook_time.json

The log and all that the hooks write go to --work-dir, by default work_dirs/hook_time.
"""
import argparse
import shlex
import sys

import torch
from mmengine.dist import is_main_process

from mimhd_mm.engine.launch import add_common_arguments, build_runner, check_batches, load_config, run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import record
from mimhd_mm.measuring.devices import find_device

from . import report
from .hook_timing import table_rows, time_hooks

NOTES = ("seconds are from before the first hook of the training to after the last one; each is a hook's own, without "
         'those of hooks that it calls; calls are the moments for which it has a method',
         'hooks that draw: head weights, head routing, reconstructions, attention; that probe: k-NN')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time of a training's hooks", conflict_handler='resolve')
    add_common_arguments(parser)
    parser.add_argument('--threads', type=int, help="of the CPU (default PyTorch's)")
    parser.add_argument('--out', help='JSON file for all figures')
    parser.add_argument('--work-dir', default='work_dirs/hook_time',
                        help='folder for logs and checkpoints (default %(default)s)')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    if args.threads is not None and args.threads < 1:
        raise UserInputError(f'--threads is above 0, not {args.threads}.')
    record.check_target(args.out, '.json')
    cfg = load_config(args)
    time_hooks(cfg)
    if args.threads:
        torch.set_num_threads(args.threads)
    runner = build_runner(cfg)
    check_batches(runner)
    runner.train()

    if not is_main_process():
        return
    facts = record.about(
        shlex.join(['python', '-m', 'lab.speed.hook_time', *(sys.argv[1:] if argv is None else argv)]),
        find_device(None), batch_size=runner.train_dataloader.batch_size, iterations=runner.iter,
        training=f'{runner.training_seconds:.0f} s')
    idle = ['every moment of a hook begins and ends with an idle GPU'] if torch.cuda.is_available() else []
    report.publish(table_rows(runner), facts, [*NOTES, *idle], args.out, training_seconds=runner.training_seconds,
                   hooks=[one._asdict() for one in runner.taken()])


if __name__ == '__main__':
    run_tool(main)
