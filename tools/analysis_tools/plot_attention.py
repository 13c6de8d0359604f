"""Draw the [class] attention of several checkpoints side by side; with masks, also measure its overlap with objects.

    python tools/analysis_tools/plot_attention.py CONFIG work_dirs/RUN/epoch_100.pth --images FOLDER --untrained \\
        --other CONFIG2 CHECKPOINT2 --masks FOLDER --out attention.png

The drawn block is the distilled one of each student and the tapped one of the teacher, which is drawn if its file
exists. With --masks the tool also writes attention_iou.csv and .json:
intersection over union of the foreground with the patches that have 60 % of a head's attention (DINO's protocol).
"""
import argparse
import csv
import json
from pathlib import Path

import torch

from mimhd_mm.engine.inspection import decodable_images, fixed_images, foreground_masks
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import (
    build_preprocessor,
    build_teacher,
    build_untrained,
    image_size,
    images_of,
    list_images,
    load_backbone,
    read_config,
    teacher_settings,
)
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.attention_maps import foreground_iou
from mimhd_mm.models import RelationViT
from mimhd_mm.registry import MODELS
from mimhd_mm.visualization import draw_attention
from mimhd_mm.visualization.pictures import attention_maps, check_output

BATCH = 32


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw attention maps')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', nargs='+', help='checkpoints of the run')
    parser.add_argument('--other', nargs=2, action='append', default=[], metavar=('CONFIG', 'CHECKPOINT'),
                        help='config and checkpoint of another run; may be given several times')
    parser.add_argument('--names', nargs='+', help='one a checkpoint, in the order they are given (default: student, '
                        'or the names of the files and their folders)')
    parser.add_argument('--untrained', action='store_true', help="also the run's student before its first step")
    parser.add_argument('--no-teacher', action='store_true', help='leave the teacher out')
    parser.add_argument('--images', help="folder of images, class folders or not (default: the config's own)")
    parser.add_argument('--out', default='attention.png', help='the PNG file to write (default attention.png)')
    parser.add_argument('--dpi', type=int, default=150, help='dots an inch, 1.5 inches a panel (default 150)')
    parser.add_argument('--num', type=int, default=4, help='images, evenly spaced over the folder (default 4)')
    parser.add_argument('--max-heads', type=int, default=8, help='heads drawn of each network (default 8)')
    parser.add_argument('--masks', help='folder of label images (PNG), named as the images, to measure overlap with')
    parser.add_argument('--foreground', type=int, nargs='+', metavar='LABEL',
                        help='labels that are foreground (default: all but 0 and 255)')
    parser.add_argument('--mass', type=float, default=0.6, help='share of the attention to compare (default 0.6, DINO)')
    parser.add_argument('--mask-num', type=int, default=500, help='images to measure, evenly spaced (default 500)')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    if args.masks and not args.images:
        raise UserInputError('--masks needs --images, the folder whose images they belong to.')
    if args.max_heads < 1:
        raise UserInputError(f'--max-heads {args.max_heads} draws nothing; give at least 1.')
    cfg = read_config(args.config)
    paths = list_images(args.images) if args.images else images_of(cfg)
    check_output(args.out)
    size, device = image_size(cfg), 'cuda' if torch.cuda.is_available() else 'cpu'
    backbones = {name: backbone.to(device) for name, backbone in load_networks(args, cfg).items()}
    preprocess = build_preprocessor(cfg).to(device)
    draw_attention(backbones, fixed_images(paths, size, args.num, preprocess), args.out, preprocess, args.max_heads,
                   args.dpi)
    print(f'wrote {args.out}')
    if args.masks:
        measure(args, backbones, decodable_images(paths, args.mask_num), size, preprocess)


def load_networks(args: argparse.Namespace, cfg) -> dict[str, RelationViT]:
    """Every network to draw, by name.

    Raises:
        UserInputError: If a file does not fit, sizes of images differ, or there are not as many names as checkpoints.
    """
    runs = [(args.config, path) for path in args.checkpoint] + list(args.other)
    names = args.names or (['student'] if len(runs) == 1 else
                           [f'{Path(path).parent.name}/{Path(path).stem}' for _, path in runs])
    if len(names) != len(runs) or len(set(names)) < len(names):
        raise UserInputError(f'{len(runs)} checkpoints need as many different --names, not {", ".join(names)}.')
    backbones = {}
    if args.untrained:
        backbones['untrained'] = build_untrained(cfg, (cfg.get('randomness') or {}).get('seed') or 0).backbone
    for name, (config, checkpoint) in zip(names, runs):
        own = cfg if config == args.config else read_config(config)
        if image_size(own) != image_size(cfg):
            raise UserInputError(f'{config!r} takes images of {image_size(own)} px and {args.config!r} of '
                                 f'{image_size(cfg)}; only networks of one image size are drawn side by side.')
        backbones[name] = load_backbone(own, checkpoint, RelationViT)
    teacher = None if args.no_teacher else teacher_settings(cfg)
    if teacher is not None:
        block = MODELS.build(dict(cfg.model.target_generator)).block
        backbones[f'teacher, block {block}'] = build_teacher(**teacher, kind=RelationViT, relation_block=block)
    return backbones


def measure(args: argparse.Namespace, backbones: dict[str, RelationViT], paths: list, size: tuple,
            preprocess) -> None:
    """Print and write how well each head's attention covers the foreground."""
    masks = foreground_masks(paths, args.images, args.masks, size, args.foreground)  # (n, H, W)
    images = fixed_images(paths, size, len(paths), preprocess)  # (n, 3, H, W)
    shares = masks.flatten(1).float().mean(1)  # (n,)
    result = dict(mass=args.mass, images=int((shares > 0).sum()), whole_image=float(shares[shares > 0].mean()),
                  networks={})
    print(f"IoU of the foreground with the patches that have {100 * args.mass:g} % of a head's attention, "
          f'{result["images"]} images (marking the whole image scores {100 * result["whole_image"]:.1f} %)')
    for name, backbone in backbones.items():
        overlap = torch.cat([foreground_iou(attention_maps(backbone, batch).cpu(), mask, args.mass)
                             for batch, mask in zip(images.split(BATCH), masks.split(BATCH))])  # (n, heads)
        overlap = overlap[shares > 0]
        heads = overlap.mean(0).tolist()
        result['networks'][name] = dict(heads=heads, mean=float(overlap.mean()),
                                        best_head_mean=float(overlap.amax(1).mean()))
        found = result['networks'][name]
        print(f'  {name:<24} mean of heads {100 * found["mean"]:5.1f} %   best head of each image '
              f'{100 * found["best_head_mean"]:5.1f} %   heads {" ".join(f"{100 * head:.1f}" for head in heads)}')
    stem = Path(args.out).with_suffix('')
    Path(f'{stem}_iou.json').write_text(json.dumps(result, indent=2) + '\n')
    with open(f'{stem}_iou.csv', 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['network', 'head', 'iou'])
        rows.writerows([name, head, f'{iou:.5f}'] for name, found in result['networks'].items()
                       for head, iou in enumerate(found['heads'], start=1))
    print(f'wrote {stem}_iou.csv and {stem}_iou.json')


if __name__ == '__main__':
    run_tool(main)
