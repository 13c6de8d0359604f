"""Time and memory of the distances between all heads: one matmul here, against B x M2 x M1 x N x N numbers broadcast.

    python -m lab.speed.relation_loss --batch-size 8 --out relation_loss.json
"""
import argparse
import shlex
import sys

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import record
from mimhd_mm.measuring.devices import available_bytes, find_device

from . import relation_forms, report


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Distances between all heads: matmul against broadcast')
    parser.add_argument('--tokens', type=int, nargs='+', default=[64, 196, 576, 1024],
                        help='N, patch tokens (default 64 196 576 1024)')
    parser.add_argument('--heads', nargs='+', default=['3x16', '6x16', '12x16', '16x16'], metavar='M2xM1',
                        help="heads of student and teacher (default those of ViT-Ti, S, B and L against ViT-L's)")
    parser.add_argument('--batch-size', type=int, default=8, help='B, images (default 8)')
    parser.add_argument('--repeats', type=int, default=5, help='rounds that count, after one (default 5)')
    parser.add_argument('--device', help='cpu or cuda (default cuda where there is one)')
    parser.add_argument('--threads', type=int, help="of the CPU (default PyTorch's)")
    parser.add_argument('--max-gb', type=float,
                        help='leave out sizes whose broadcast needs more (default half of what is free)')
    parser.add_argument('--out', help='JSON file for all figures')
    return parser.parse_args(argv)


def read_heads(text: str) -> tuple:
    """``'12x16'`` as (12, 16).

    Raises:
        UserInputError: If it is written otherwise.
    """
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserInputError(f'--heads are given as M2xM1, e.g. 12x16, not {text!r}.')
    return int(parts[0]), int(parts[1])


def main(argv=None) -> None:
    args = parse_args(argv)
    heads = [read_heads(text) for text in args.heads]
    for name in ('tokens', 'batch_size', 'repeats', 'threads', 'max_gb'):
        value = getattr(args, name)
        if value is not None and (min(value) if isinstance(value, list) else value) <= 0:
            raise UserInputError(f'--{name.replace("_", "-")} is above 0, not {value}.')
    record.check_target(args.out, '.json')
    device = find_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    limit = args.max_gb * 1e9 if args.max_gb else available_bytes(device) / 2
    results, notes = relation_forms.measure(args.tokens, heads, args.batch_size, device, args.repeats, limit)
    if not results:
        raise UserInputError(f'No size fits: {notes[0]}.')
    facts = record.about(
        shlex.join(['python', '-m', 'lab.speed.relation_loss', *(sys.argv[1:] if argv is None else argv)]), device,
        repeats=f'{args.repeats}, the two forms in turn, after the check that both give the same')
    notes += ['forward and backward, float32, medians; memory is what comes on top of the two relations'
              + (', tensors only (a lower bound: not what operators take for themselves)'
                 if device.type == 'cpu' else '')]
    report.publish(relation_forms.table_rows(results), facts, notes, args.out, results=results)


if __name__ == '__main__':
    run_tool(main)
