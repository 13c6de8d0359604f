"""Print how much of its teacher's relations a pre-trained student knows: the read-out KL of each pair.

    python tools/analysis_tools/read_out.py CONFIG work_dirs/RUN/epoch_100.pth --images FOLDER

Each teacher head is explained by a bilinear form on all channels of the student's frozen q, k (v, v), fitted on one
half of the images and scored on the other (mimhd_mm/evaluation/read_out.py). It is the same scale for every method.
"""
import argparse
import copy
import inspect

import torch
from mmengine.config import Config

from mimhd_mm.engine.inspection import fixed_images
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import (
    build_preprocessor,
    build_untrained,
    image_size,
    images_of,
    list_images,
    load_backbone,
    read_config,
)
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import read_out_kl
from mimhd_mm.models import MAETeacher, RelationViT

BATCH = 64  # images a forward pass


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description="Read-out KL of a student's relations against its teacher's")
    parser.add_argument('config', help='config of a pre-training with a teacher')
    parser.add_argument('checkpoint', help='checkpoint of that run')
    parser.add_argument('--teacher', help="MAE file to use in place of the config's")
    parser.add_argument('--images', help="folder of images, class folders or not (default: those of the config's "
                        'validation, or of its training)')
    parser.add_argument('--num', type=int, default=512, help='images, evenly spaced; one half is fitted on, the other '
                        'is scored (default 512)')
    parser.add_argument('--untrained', action='store_true', help='also read out the student before its first step')
    args = parser.parse_args(argv)

    if args.num < 2:
        raise UserInputError(f'--num {args.num} leaves nothing to fit or nothing to score; give at least 2.')
    cfg = read_config(args.config)
    teacher = teacher_of(cfg, args)
    students = {'this checkpoint': load_backbone(cfg, args.checkpoint, kind=RelationViT)}
    if args.untrained:
        seed = (cfg.get('randomness') or {}).get('seed') or 0
        students['untrained student'] = copy.deepcopy(students['this checkpoint'])
        students['untrained student'].load_state_dict(build_untrained(cfg, seed).backbone.state_dict())
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    paths = list_images(args.images) if args.images else images_of(cfg)
    images = fixed_images(paths, image_size(cfg), args.num, build_preprocessor(cfg).to(device))  # (num, 3, H, W)
    batches = [dict(inputs=part) for part in images.split(BATCH)]
    pairs = cfg.model.head.get('pairs') or ('qk', 'vv')
    print(f'Read-out KL in nats a query, mean over {teacher.relation_heads} heads of block {teacher.block} of '
          f'{teacher.checkpoint}; 0: the student knows them all. Fitted on {(len(images) + 1) // 2} images, scored on '
          f'{len(images) // 2}.')
    for name, student in students.items():
        found = read_out_kl(student.to(device), teacher.to(device), batches, lambda batch: batch, pairs=pairs)
        print(f'  {name:<19}' + ''.join(f'{pair} {kl:.4f}   ' for pair, kl in found.items()).rstrip())


def teacher_of(cfg: Config, args: argparse.Namespace) -> MAETeacher:
    """The config's teacher, loaded; the ``--teacher`` file goes into the config.

    Raises:
        UserInputError: If the config has no teacher, or its file cannot be used.
    """
    settings = cfg.model.get('target_generator')
    if not settings:
        raise UserInputError(f'{args.config!r} trains a {cfg.model.type} without a teacher; give a config of MIM-HD or '
                             f'TinyMIM.')
    if args.teacher:
        settings.checkpoint = args.teacher
    names = set(inspect.signature(MAETeacher).parameters) - {'token_fraction', 'init_cfg'}
    teacher = MAETeacher(**{'checkpoint': None, **{name: value for name, value in settings.items() if name in names}})
    teacher.load()
    return teacher


if __name__ == '__main__':
    run_tool(main)
