"""Measure accuracy when a student keeps only the patches with the highest [class] attention, without training.

    python tools/analysis_tools/rank_tokens.py CONFIG work_dirs/RUN/epoch_100.pth --train FOLDER --test FOLDER \\
        --other CONFIG_OF_TINYMIM CHECKPOINT --out pruned.png

Each image's patches are scored by the [class] token's attention in one block, the lowest are dropped, and the mean of
the kept ones is classified by k-NN among likewise pruned training images; for comparison patches are dropped at random.
A fine-tuned classifier (--classifier CONFIG CHECKPOINT) is scored by its own top-1. Beside the PNG, the numbers are
written as .json and .csv.
"""
import argparse
import csv
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.dataset import default_collate
from mmpretrain.models import ImageClassifier
from torch import Tensor
from torch.utils.data import DataLoader

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import (
    build_model,
    build_preprocessor,
    build_untrained,
    eval_pipeline,
    image_size,
    list_images,
    load_backbone,
    read_config,
)
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import KNNProbe, extract_features, knn_accuracy
from mimhd_mm.evaluation.token_ranking import PLACES, PrunedViT, pruned_features
from mimhd_mm.models import RelationViT
from mimhd_mm.random_states import kept_random_states
from mimhd_mm.visualization.curves import COLOURS
from mimhd_mm.visualization.pictures import check_output, save
from mimhd_mm.weights.fitting import load_exactly
from mimhd_mm.weights.reading import read_tensors

KEEP = (1.0, 0.75, 0.5, 0.25, 0.1)
POOLS = {'avg_featmap': 'avg', 'cls_token': 'cls'}  # what a classifier's backbone makes of its tokens


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Accuracy of a student against the share of patches that it keeps')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('--other', nargs=2, action='append', default=[], metavar=('CONFIG', 'CHECKPOINT'),
                        help='config and checkpoint of another run, e.g. of TinyMIM; may be given several times')
    parser.add_argument('--classifier', nargs=2, action='append', default=[], metavar=('CONFIG', 'CHECKPOINT'),
                        help='config and checkpoint of a fine-tuned classifier; may be given several times')
    parser.add_argument('--names', nargs='+', help='one a checkpoint, in the order run, others, classifiers (default: '
                        'the names of the files and their folders)')
    parser.add_argument('--untrained', action='store_true', help="also the run's student before its first step")
    parser.add_argument('--train', required=True, help='folder of class folders whose images vote')
    parser.add_argument('--test', required=True, help='folder of the same class folders whose images are scored')
    parser.add_argument('--out', required=True, help='the PNG file to write')
    parser.add_argument('--keep', type=float, nargs='+', default=KEEP,
                        help='shares of the patches to keep (default 1 0.75 0.5 0.25 0.1)')
    parser.add_argument('--score-block', type=int, help='block whose [class] attention scores patches (default: last)')
    parser.add_argument('--prune-block', type=int, help='block at which patches are dropped (default: --score-block)')
    parser.add_argument('--place', choices=PLACES, default='after', help='drop before or after that block (default '
                        'after)')
    parser.add_argument('--random', type=int, default=3, help='random orders, whose mean is drawn (default 3)')
    parser.add_argument('--k', type=int, default=20, help='neighbours that vote (default 20)')
    parser.add_argument('--batch-size', type=int, default=128, help='images a forward pass (default 128)')
    parser.add_argument('--num-workers', type=int, default=2, help='loader processes (default 2)')
    parser.add_argument('--max-train', type=int, help='take this many images of --train, evenly spaced')
    parser.add_argument('--max-test', type=int, help='take this many images of --test, evenly spaced')
    parser.add_argument('--dpi', type=int, default=150, help='dots an inch (default 150)')
    args = parser.parse_args(argv)
    if args.random < 1 or not all(0 < keep <= 1 for keep in args.keep):
        raise UserInputError(f'--keep takes shares above 0 and up to 1 and --random a number of at least 1, not '
                             f'{args.keep} and {args.random}.')
    args.keep = sorted(set(args.keep), reverse=True)
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    for name in ('train', 'test'):
        check_image_folder(f'--{name}', dict(data_root=getattr(args, name)), 'give a folder of class folders')
    check_output(args.out)
    for suffix in ('.json', '.csv'):
        check_output(Path(args.out).with_suffix(suffix), (suffix, ))
    scorers = build_scorers(args)
    curves, work = {}, {}
    for name, (scorer, network) in scorers.items():
        attention, *drawn = scorer()  # K numbers each
        curves[f'{name}, by attention'] = attention
        curves[f'{name}, random'] = torch.tensor(drawn).mean(0).tolist()
        work[name] = [network.work(keep) for keep in args.keep]
        print(f'{name}: top-1 in percent by [class] attention (and at random), share of the patches kept')
        for number, keep in enumerate(args.keep):
            print(f'  {keep:5.2f}  {attention[number]:6.2f}  ({curves[name + ", random"][number]:.2f})  '
                  f'{100 * work[name][number]:.0f} % of the passes of patches through blocks')
    write(args, curves, work)


def build_scorers(args: argparse.Namespace) -> dict[str, tuple]:
    """What computes the accuracies of each network, and the network, by name.

    Raises:
        UserInputError: If a file does not fit, a classifier has other classes or neither a mean nor the [class] token
            at its end, or there are not as many names as networks.
    """
    runs = [(args.config, args.checkpoint), *args.other]
    names = args.names or [f'{Path(path).parent.name}/{Path(path).stem}' for _, path in [*runs, *args.classifier]]
    if len(names) != len(runs) + len(args.classifier) or len(set(names)) < len(names):
        raise UserInputError(f'{len(runs) + len(args.classifier)} checkpoints need as many different --names, not '
                             f'{", ".join(names)}.')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    scorers = {}

    def add(name: str, cfg, backbone, model=None) -> None:
        network = PrunedViT(backbone, args.score_block, args.prune_block, args.place)
        preprocess = build_preprocessor(cfg).to(device)
        probe = build_probe(args, image_size(cfg))
        classes = getattr(model.head, 'num_classes', None) if model else probe.num_classes
        if model and backbone.out_type not in POOLS or classes != probe.num_classes:
            raise UserInputError(f'The classifier {name!r} has out_type={backbone.out_type!r} and {classes} classes; '
                                 f'expected one of {", ".join(POOLS)}, and the {probe.num_classes} classes of --test.')
        if model and POOLS[backbone.out_type] == 'cls' and network.whole_blocks == len(backbone.layers):
            raise UserInputError(f'The classifier {name!r} looks at the [class] token, which dropping patches after '
                                 f'the last block cannot change; give --place before or an earlier --prune-block.')
        scorers[name] = (lambda: (classifier_scores if model else knn_scores)(args, network, probe, preprocess, model),
                         network)

    for name, (config, checkpoint) in zip(names, runs):
        cfg = read_config(config)
        backbone = load_backbone(cfg, checkpoint, RelationViT).to(device)
        backbone.train(False)
        add(name, cfg, backbone)
        if args.untrained and config == args.config:
            backbone = build_untrained(cfg, (cfg.get('randomness') or {}).get('seed') or 0).backbone.to(device)
            backbone.train(False)
            add('untrained', cfg, backbone)
    for name, (config, checkpoint) in zip(names[len(runs):], args.classifier):
        cfg = read_config(config)
        model = build_model(cfg)
        if not isinstance(model, ImageClassifier):
            raise UserInputError(f'{config!r} trains a {type(model).__name__}; --classifier takes a fine-tuned '
                                 f'ImageClassifier.')
        load_exactly(model, read_tensors(checkpoint), checkpoint)
        model.to(device).train(False)
        add(name, cfg, model.backbone, model)
    return scorers


def build_probe(args: argparse.Namespace, size: tuple[int, int]) -> KNNProbe:
    """The two labelled sets at the size of a network's images."""
    pipeline = eval_pipeline(size, list_images(args.train)[0])
    train, test = (dict(type='mmpretrain.CustomDataset', data_root=folder, pipeline=pipeline)
                   for folder in (args.train, args.test))
    return KNNProbe(train, test, k=args.k, batch_size=args.batch_size, num_workers=args.num_workers,
                    max_train=args.max_train, max_test=args.max_test)


def features_of(args: argparse.Namespace, network: PrunedViT, data, preprocess, pool: str) -> tuple[Tensor, Tensor]:
    """Features (n, 1 + S, K, D) and labels (n,) of a data set."""
    loader = DataLoader(data, args.batch_size, num_workers=args.num_workers, collate_fn=default_collate)
    with kept_random_states():
        return extract_features(lambda images: pruned_features(network, images, args.keep, range(args.random), pool),
                                loader, preprocess)


def knn_scores(args: argparse.Namespace, network: PrunedViT, probe: KNNProbe, preprocess, _) -> list[list[float]]:
    """k-NN top-1 in percent: 1 + S lists of K numbers."""
    (train, train_labels), (test, test_labels) = (
        features_of(args, network, data, preprocess, 'avg') for data in (probe.train, probe.test))
    return [[knn_accuracy(train[:, order, keep], train_labels, test[:, order, keep], test_labels, k=args.k,
                          num_classes=probe.num_classes) for keep in range(len(args.keep))]
            for order in range(train.shape[1])]


def classifier_scores(args: argparse.Namespace, network: PrunedViT, probe: KNNProbe, preprocess,
                      model: ImageClassifier) -> list[list[float]]:
    """The classifier's own top-1 in percent: 1 + S lists of K numbers; labels are the sorted folders' places."""
    pool = POOLS[model.backbone.out_type]
    features, labels = features_of(args, network, probe.test, preprocess, pool)  # (n, 1 + S, K, D), (n,)
    device = next(model.parameters()).device
    with torch.no_grad():
        if pool == 'avg':
            features = model.backbone.ln2(features.to(device))
        predicted = model.head((features.to(device).flatten(0, 2), )).argmax(-1).cpu()  # (n (1 + S) K,)
    correct = predicted.view(features.shape[:3]) == labels[:, None, None]  # (n, 1 + S, K)
    return (100 * correct.float().mean(0)).tolist()


def write(args: argparse.Namespace, curves: dict[str, list[float]], work: dict[str, list[float]]) -> None:
    """The picture and the numbers."""
    figure = Figure(figsize=(6, 4.2), layout='constrained')
    axis = figure.subplots()
    for number, (label, values) in enumerate(curves.items()):
        style = dict(linestyle='--', marker='s', markerfacecolor='white') if label.endswith(', random') else \
            dict(linestyle='-', marker='o')
        axis.plot([100 * keep for keep in args.keep], values, color=COLOURS[number // 2 % len(COLOURS)], label=label,
                  markersize=4, **style)
    axis.invert_xaxis()  # from whole images to few patches
    axis.set_xlabel('patches kept, %')
    axis.set_ylabel(f'top-1, % ({"classifiers: their own; others: " if args.classifier else ""}k-NN, k={args.k})')
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    save(figure, args.out, args.dpi)
    block = args.score_block or 'last'
    Path(args.out).with_suffix('.json').write_text(json.dumps(dict(
        metric="top-1 in percent: a classifier's own, k-NN for others", k=args.k, score_block=block,
        prune_block=args.prune_block or block, place=args.place, train=args.train, test=args.test,
        max_train=args.max_train, max_test=args.max_test, random_orders=args.random, keep=args.keep, curves=curves,
        work=work), indent=2) + '\n')
    with open(Path(args.out).with_suffix('.csv'), 'w', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(['network', 'order', 'keep', 'top1'])
        for label, values in curves.items():
            name, order = label.rsplit(', ', 1)
            rows.writerows([name, order.replace('by ', ''), keep, f'{value:.3f}']
                           for keep, value in zip(args.keep, values))
    print(f'wrote {args.out}, and the numbers beside it as .json and .csv')


if __name__ == '__main__':
    run_tool(main)
