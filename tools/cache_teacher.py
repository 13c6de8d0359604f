r"""Run a teacher once: write its q, k, v for K fixed views of every training image to one file.

    python tools/cache_teacher.py configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py \
        data/teacher.safetensors --views 8

CONFIG pre-trains a MIMHD, a TinyMIM or a MultiStudent with a MAETeacher. The tool first prints the size of the file.
At the end it prints the options with which tools/train.py trains from the file. The student then sees the same K views
of each image, one per epoch in turn, and no step runs the teacher.
"""
import argparse
import sys

from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress

from mimhd_mm.engine.launch import read_config_file, run_tool
from mimhd_mm.engine.teacher_caching import CacheWriter
from mimhd_mm.errors import UserInputError


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description="Write a teacher's q, k, v for fixed views of every training image")
    parser.add_argument('config', help='config of a pre-training with a MAETeacher')
    parser.add_argument('out', help='file to write, .safetensors; never overwritten')
    parser.add_argument('--views', type=int, required=True, help='views of each image')
    parser.add_argument('--view-seed', type=int, default=0, help='of crops, flips and chosen patches (default 0)')
    parser.add_argument('--token-fraction', type=float, help='share of the patches that teacher and student see, '
                        "chosen once for each view (default: the config's, or all where its teacher sees all)")
    parser.add_argument('--batch-size', type=int, default=64, help='images a pass of the teacher (default 64)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config, as for tools/train.py')
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        raise UserInputError(f'--batch-size {args.batch_size} was given; expected 1 image or more.')

    cfg = read_config_file(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    writer = CacheWriter(cfg, args.out, args.views, args.view_seed, args.token_fraction)
    images, views, _, heads, tokens, width = writer.shape
    print(f'{images} images, {views} views of each, 3 x {heads} heads x {tokens} tokens x {width} numbers of 2 bytes: '
          f'{writer.num_bytes} bytes ({writer.num_bytes / 1e9:.2f} GB).', flush=True)
    writer.write(args.batch_size, progress=lambda items, total: track_iter_progress((items, total), file=sys.stderr))
    same = ' and the --cfg-options given here' if args.cfg_options else ''
    print(f'wrote {args.out}; train with it by tools/train.py {args.config}{same} and\n'
          f'--cfg-options {writer.options(cfg)}')


if __name__ == '__main__':
    run_tool(main)
