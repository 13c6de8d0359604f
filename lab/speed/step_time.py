"""Time a training step and its parts: this project's MIM-HD and TinyMIM beside literal ones, side by side.

    python -m lab.speed.step_time --size base --batch-size 64 --dtype bfloat16 --out step_time.json
    python -m lab.speed.step_time --size micro --batch-size 4 --sweep tokens --plot growth.png
    python -m lab.speed.step_time --students tiny-small-base --batch-size 4 --out students.json

The last compares several students of one teacher with a run of each, one after the other.

Weights and images are random and no teacher's file is needed: how long a step takes does not depend on their values.
"""
import argparse
import shlex
import sys

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import record
from mimhd_mm.measuring.devices import available_bytes, choose, find_device

from . import report, stepping
from .variants import DEFAULT_VARIANTS, DTYPES, SIZES, STUDENTS, VARIANTS


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Time of a training step')
    parser.add_argument('--size', help=f'student: {", ".join(SIZES)} (default base)')
    parser.add_argument('--variants', nargs='+', metavar='NAME',
                        help=f'of {", ".join(VARIANTS)}; ratios are to the first (default all that '
                        'do not change the optimiser)')
    parser.add_argument('--students', metavar='NAME', help='in place of a size and variants, several students of one '
                        f'teacher: {" or ".join(STUDENTS)}; ratios are to the runs of each, one after the other')
    parser.add_argument('--batch-size', type=int, default=8, help='images a step (default 8)')
    parser.add_argument('--img-size', type=int, help="pixels along a side (default the config's)")
    parser.add_argument('--dtype', default='float32', help=f'{" or ".join(DTYPES)}, by autocast (default float32)')
    parser.add_argument('--device', help='cpu or cuda (default cuda where there is one)')
    parser.add_argument('--threads', type=int, help="of the CPU (default PyTorch's)")
    parser.add_argument('--compile', action='store_true', help='torch.compile teacher, student and decoder')
    parser.add_argument('--repeats', type=int, default=5, help='rounds that count (default 5)')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before them (default 2)')
    parser.add_argument('--images', help='folder of images to load in place of noise; the wait for them is a column')
    parser.add_argument('--workers', type=int, default=2, help='loader processes for --images (default 2)')
    parser.add_argument('--max-gb', type=float,
                        help="limit for the literal variant's broadcast (default half of what is free)")
    parser.add_argument('--sweep', help=f'measure for several values of {", ".join(stepping.SWEEPS)}')
    parser.add_argument('--values', type=int, nargs='+', help='those of --sweep')
    parser.add_argument('--plot', help='PNG file for --sweep (default step_time_<sweep>.png)')
    parser.add_argument('--out', help='JSON file for all figures')
    return parser.parse_args(argv)


def caption(name: str) -> str:
    """What a row of the table is."""
    known = dict({name: variant.caption for name, variant in VARIANTS.items()},
                 apart='the steps of each student, with a teacher each, added up; the largest of their memories',
                 together='a step of all students with one pass of one teacher')
    return known.get(name, 'MIM-HD, this project, this student alone')


def check(args: argparse.Namespace) -> stepping.Options:
    """What to measure.

    Raises:
        UserInputError: If arguments are unknown, out of range or contradict each other.
    """
    if args.students is not None:
        choose([args.students], tuple(STUDENTS), 'group of students')
        for name in ('size', 'variants', 'sweep', 'max_gb'):
            if getattr(args, name) is not None:
                raise UserInputError(f'--students and --{name.replace("_", "-")} exclude each other; leave one out.')
    args.size, args.variants = args.size or 'base', args.variants or DEFAULT_VARIANTS
    choose([args.size], tuple(SIZES), 'size')
    choose([args.dtype], DTYPES, 'dtype')
    choose(args.variants, tuple(VARIANTS), 'variant')
    for name in ('batch_size', 'repeats', 'img_size', 'threads', 'max_gb', *(['workers'] if args.images else [])):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            raise UserInputError(f'--{name.replace("_", "-")} is above 0, not {getattr(args, name)}.')
    if args.warmup < 0:
        raise UserInputError(f'--warmup is not negative, but {args.warmup} was given.')
    if args.compile and not args.warmup:
        raise UserInputError('--compile compiles in the first round; give --warmup 1 or more.')
    if args.sweep is None and (args.values or args.plot):
        raise UserInputError('--values and --plot belong to --sweep; give it, or leave them out.')
    if args.sweep is not None:
        choose([args.sweep], tuple(stepping.SWEEPS), 'sweep')
        args.plot = args.plot or f'step_time_{args.sweep}.png'
        args.values = args.values or list(stepping.SWEEPS[args.sweep][1])
        if min(args.values) < 1:
            raise UserInputError(f'--values are above 0, not {min(args.values)}.')
    if args.images is not None:
        if args.img_size is not None or args.sweep == 'tokens':
            raise UserInputError("--images are cropped to the config's size; leave out --img-size and --sweep tokens.")
        check_image_folder('--images', dict(data_root=args.images), 'give a folder with images')
    record.check_target(args.out, '.json')
    record.check_target(args.plot, '.png')
    device = find_device(args.device)
    limit = args.max_gb * 1e9 if args.max_gb else available_bytes(device) / 2
    return stepping.Options(
        args.size, args.variants, device, args.dtype, args.batch_size, args.repeats, args.warmup, limit, args.compile,
        args.images, args.workers, args.img_size, students=args.students)


def main(argv=None) -> None:
    args = parse_args(argv)
    options = check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.sweep:
        results, notes = stepping.sweep(args.sweep, args.values, options)
        report.plot_growth(args.plot, stepping.curves_of(results), stepping.SWEEPS[args.sweep][0])
        print(f'wrote {args.plot}\n')
    else:
        results, notes = stepping.measure(options)
    facts = record.about(
        shlex.join(['python', '-m', 'lab.speed.step_time', *(sys.argv[1:] if argv is None else argv)]),
        options.device, size=args.students or args.size, dtype=args.dtype,
        **({} if args.sweep == 'batch' else dict(batch_size=args.batch_size)),
        repeats=f'{args.repeats} after {args.warmup}, variants in turn')
    names = args.variants if args.students is None else [one['variant'] for one in results]
    notes = [f'{name}: {caption(name)}' for name in names] + notes + [
        'times are medians in ms, "to the first" the median of the ratios of each round; decoder = views, decoder and '
        'pixel loss; share = GFLOP/s of the step over those of its own matmuls run alone'
        + ('; peak memory on a CPU counts tensors only, not what operators take for themselves'
           if options.device.type == 'cpu' else '')
        + ('; memory and FLOPs are of the step before it was compiled' if args.compile else '')]
    report.publish(stepping.table_rows(results, args.images is not None), facts, notes, args.out, results=results)


if __name__ == '__main__':
    run_tool(main)
