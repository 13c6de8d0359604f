"""Draw where the heads of a checkpoint's [class] token look in its last block, beside its teacher's if that is here.

    python tools/analysis_tools/plot_attention.py CONFIG work_dirs/RUN/epoch_100.pth --images FOLDER --out attention.png
"""
import argparse

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import (build_preprocessor, build_teacher, image_size, images_of, list_images,
                                     load_backbone, read_config, read_images, teacher_settings)
from mimhd_mm.models import RelationViT
from mimhd_mm.visualization import draw_attention


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Draw attention maps')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('--images', help="folder of images, class folders or not (default: the config's own)")
    parser.add_argument('--out', default='attention.png', help='the PNG file to write (default attention.png)')
    parser.add_argument('--num', type=int, default=4, help='images, evenly spaced over the folder (default 4)')
    parser.add_argument('--max-heads', type=int, default=8, help='heads drawn of each network (default 8)')
    args = parser.parse_args(argv)

    cfg = read_config(args.config)
    paths = list_images(args.images) if args.images else images_of(cfg)
    backbones = dict(student=load_backbone(cfg, args.checkpoint, RelationViT))
    teacher = teacher_settings(cfg)
    if teacher is not None:
        backbones['teacher'] = build_teacher(**teacher, kind=RelationViT)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    preprocess = build_preprocessor(cfg).to(device)
    images = read_images(paths, image_size(cfg), args.num, preprocess)  # (num, 3, H, W)
    draw_attention({name: backbone.to(device) for name, backbone in backbones.items()}, images, args.out,
                   preprocess, args.max_heads)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
