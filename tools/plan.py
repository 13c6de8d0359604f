"""Measure some iterations of a config on this machine; predict the time of its run and print a command.

    python tools/plan.py configs/pretrain/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py
"""
import argparse
import shlex
import sys

import torch
from mmengine.config import DictAction

from mimhd_mm.engine.launch import load_config, run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import planning, record
from mimhd_mm.measuring.devices import available_bytes, find_device

CPU_BATCH = 4  # images measured on a CPU: our choice


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Time and memory of a run on this machine')
    parser.add_argument('config', help='config file')
    parser.add_argument('--iterations', type=int, default=20, help='to measure, after two (default 20)')
    parser.add_argument('--gpus', type=int,
                        help='to plan for, all as fast as this one (default those here; 1 CPU process)')
    parser.add_argument('--batch-size', type=int,
                        help=f"images an iteration to measure (default the config's; on a CPU {CPU_BATCH})")
    parser.add_argument('--epoch-images', type=int, help='training images, where they are not here to be counted')
    parser.add_argument('--device', help='cpu or cuda (default cuda where there is one)')
    parser.add_argument('--amp', action='store_true', help='bf16 on a CPU, as of tools/train.py')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config')
    parser.add_argument('--out', help='JSON file for all figures')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0, no_pin_memory=False, no_persistent_workers=False)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    for name in ('iterations', 'gpus', 'batch_size', 'epoch_images'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserInputError(f'--{name.replace("_", "-")} is 1 or more, not {getattr(args, name)}.')
    record.check_target(args.out, '.json')
    device = find_device(args.device)
    amp, args.amp = args.amp, False  # tools/train.py's switch; what it sets is set below, for this device
    cfg = load_config(args)
    planning.check_trainable(cfg, args.config)
    problem = planning.data_problem(cfg)
    if problem:
        planning.describe_run(cfg, args.epoch_images)  # refuses what it cannot count before anything is measured

    dtype = planning.choose_dtype(cfg, device, amp)
    batch_size = args.batch_size or cfg.train_dataloader.batch_size
    if device.type == 'cpu' and not args.batch_size:
        batch_size = min(batch_size, CPU_BATCH)
    cost, parts, images = planning.measure(cfg, device, dtype, batch_size, args.iterations, not problem)

    run = planning.describe_run(cfg, args.epoch_images or images)
    gpus = args.gpus or (torch.cuda.device_count() if device.type == 'cuda' else 1)
    memory = available_bytes(device) if device.type == 'cpu' else torch.cuda.get_device_properties(device).total_memory
    limit = min(run.batch_size, max(run.global_batch // gpus, 1))
    plan = planning.make_plan(run, cost, gpus, planning.largest_batch(cost, memory, limit))
    extra = [f'{key}={value}' for key, value in (args.cfg_options or {}).items()]
    if device.type == 'cpu' and not amp and planning.is_mixed(cfg):
        extra.append('optim_wrapper.type=OptimWrapper')
    start = planning.command_line(args.config, plan, extra, ['--amp'] if amp else [])

    facts = record.about(
        shlex.join(['python', 'tools/plan.py', *(sys.argv[1:] if argv is None else argv)]), device,
        dtype=dtype, measured=f'{args.iterations} iterations of {cost.batch_size} images')
    notes = planning.unknowns(device, gpus, not problem, problem)
    machines = 'GPU(s)' if device.type == 'cuda' else 'CPU process(es)'
    print(planning.describe_plan(run, cost, parts, plan, memory, machines))
    print(f'\n    {start}\n')
    print(record.legend(facts, notes))
    if args.out:
        record.write_json(args.out, dict(
            about=facts, notes=notes, run=run._asdict(), cost=cost._asdict(), plan=plan._asdict(), start=start,
            seconds={part: values._asdict() for part, values in parts.items()}))


if __name__ == '__main__':
    run_tool(main)
