"""Score a pre-trained checkpoint by weighted k-NN on its frozen features; nothing is trained.

    python tools/knn.py CONFIG work_dirs/RUN/epoch_100.pth --train data/images/train --test data/images/val
"""
import argparse
import json
from pathlib import Path

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import (
    build_preprocessor,
    build_teacher,
    build_untrained,
    eval_pipeline,
    image_size,
    list_images,
    load_backbone,
    read_config,
    teacher_settings,
)
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.evaluation import KNNProbe
from mimhd_mm.evaluation.knn_probe import FEATURES, pixel_features


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='k-NN accuracy of a pre-trained backbone')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('--train', required=True, help='folder of class folders whose images vote')
    parser.add_argument('--test', required=True, help='folder of the same class folders whose images are scored')
    parser.add_argument('--k', type=int, default=20, help='neighbours that vote (default 20)')
    parser.add_argument('--temperature', type=float, default=0.07, help='of the votes (default 0.07)')
    parser.add_argument('--feature', choices=FEATURES, default='avg',
                        help='mean of the patch tokens (default) or the [class] token, of the last block')
    parser.add_argument('--blocks', action='store_true',
                        help='also score the tokens of every block; only the last is after the norm')
    parser.add_argument('--untrained', action='store_true', help='also score the student before its first step')
    parser.add_argument('--batch-size', type=int, default=128, help='images a forward pass (default 128)')
    parser.add_argument('--num-workers', type=int, default=2, help='loader processes (default 2)')
    parser.add_argument('--max-train', type=int, help='take this many images of --train, evenly spaced')
    parser.add_argument('--max-test', type=int, help='take this many images of --test, evenly spaced')
    parser.add_argument('--out', help='also write the numbers to this JSON file')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config)
    student = load_backbone(cfg, args.checkpoint)
    for name in ('train', 'test'):
        check_image_folder(f'--{name}', dict(data_root=getattr(args, name)), 'give a folder of class folders')
    pipeline = eval_pipeline(image_size(cfg), list_images(args.train)[0])
    train, test = (dict(type='mmpretrain.CustomDataset', data_root=folder, pipeline=pipeline)
                   for folder in (args.train, args.test))
    probe = KNNProbe(train, test, k=args.k, temperature=args.temperature, feature=args.feature,
                     batch_size=args.batch_size, num_workers=args.num_workers,
                     max_train=args.max_train, max_test=args.max_test)

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    preprocess = build_preprocessor(cfg).to(device)
    networks = {}
    if args.untrained:
        networks['untrained student'] = build_untrained(cfg, cfg.get('randomness', {}).get('seed') or 0).backbone
    networks['this checkpoint'] = student
    teacher = teacher_settings(cfg)
    if teacher is not None:
        networks['its teacher'] = build_teacher(**teacher)
    scores = {name: probe.score_backbone(network.to(device), preprocess) for name, network in networks.items()}
    by_block = {name: [*(probe.score_backbone(network, preprocess, block) for block in range(1, len(network.layers))),
                       scores[name]] for name, network in networks.items()} if args.blocks else {}
    scores['raw pixels (32 x 32)'] = probe.score(pixel_features, preprocess)

    print(f'k-NN top-1 in percent (k={args.k}, T={args.temperature:g}, feature={args.feature}), '
          f'{len(probe.train)} training and {len(probe.test)} test images of {probe.num_classes} classes')
    for name, score in scores.items():
        print(f'  {name:<22}{score:6.2f}')
    for name, tops in by_block.items():
        print(f'  {name}, block 1 to {len(tops)}: ' + ' '.join(f'{top:.2f}' for top in tops))
    if args.out:
        Path(args.out).write_text(json.dumps(dict(
            config=args.config, checkpoint=args.checkpoint, train=args.train, test=args.test, k=args.k,
            temperature=args.temperature, feature=args.feature, num_train=len(probe.train),
            num_test=len(probe.test), num_classes=probe.num_classes, top1=scores,
            **(dict(top1_of_blocks=by_block) if by_block else {})), indent=2) + '\n')


if __name__ == '__main__':
    run_tool(main)
