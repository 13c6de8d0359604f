"""Rank the heads of the teacher's block by importance, for ``SelectHeadMatcher(heads='heads.json')`` (Figure 2b).

    python tools/analysis_tools/rank_heads.py CONFIG --images FOLDER --out heads.json
"""
import argparse
import json
from pathlib import Path

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import build_preprocessor, image_size, list_images, read_config, read_images
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.head_importance import (
    MEASURES,
    choose_measure,
    confidence_importance,
    gradient_importance,
    reconstructing_mae,
)
from mimhd_mm.models import MAETeacher, RelationViT
from mimhd_mm.models.matchers.head_matchers import most_important
from mimhd_mm.registry import MODELS


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description="Rank the heads of the teacher's tapped block")
    parser.add_argument('config', help='config of a MIM-HD or TinyMIM pre-training')
    parser.add_argument('--images', required=True, help='folder of images, class folders or not')
    parser.add_argument('--out', required=True, help='the JSON file to write')
    parser.add_argument('--num', type=int, default=64, help='images, evenly spaced over the folder (default 64)')
    parser.add_argument('--measure', choices=MEASURES, help='gradient: how much the reconstruction depends on the '
                        'head (default where the file has a decoder); confidence: how sharply the head attends')
    args = parser.parse_args(argv)

    out = Path(args.out)
    if out.exists() or not out.parent.is_dir():
        raise UserInputError(f'--out {args.out!r} exists already, or its folder does not; name a new file in a folder '
                             f'that is there.')
    if args.num < 1:
        raise UserInputError(f'--num {args.num} leaves no image to measure on; give at least 1.')
    cfg, paths = read_config(args.config), list_images(args.images)
    student, teacher = (MODELS.build(dict(cfg.model[part])) if cfg.model.get(part) else None
                        for part in ('backbone', 'target_generator'))
    if not isinstance(student, RelationViT) or not isinstance(teacher, MAETeacher):
        raise UserInputError(f'{args.config!r} trains a {cfg.model.type} without a RelationViT and a MAETeacher; give '
                             f'a config of MIM-HD or TinyMIM.')

    file = teacher.load()
    measure = choose_measure(file, args.measure)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    side = int(file.num_patches ** .5) * file.patch_size  # of the images that the decoder was trained on
    images = read_images(paths, (side, side) if measure == 'gradient' else image_size(cfg), args.num,
                         build_preprocessor(cfg))  # (num, 3, H, W)
    if measure == 'gradient':
        mae = reconstructing_mae(file, images[:8], teacher.arch['num_heads']).to(device)
        importance = gradient_importance(mae, images.to(device), teacher.block).tolist()
    else:
        importance = confidence_importance(teacher.to(device), images.to(device)).tolist()

    out.write_text(json.dumps(dict(
        teacher=file.path, sha256=file.sha256, block=teacher.block, measure=measure, images=len(images),
        importance=importance, heads=most_important(importance, student.relation_heads)), indent=2) + '\n')
    for head in most_important(importance, len(importance)):
        print(f'head {head:2d}   {importance[head]:.4g}')
    print(f'wrote {out}; use it with --cfg-options model.head.matcher.type=SelectHeadMatcher '
          f'model.head.matcher.heads={out}')


if __name__ == '__main__':
    run_tool(main)
