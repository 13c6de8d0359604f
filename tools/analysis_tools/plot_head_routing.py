"""Draw which teacher heads taught which student head, over training.

    python tools/analysis_tools/plot_head_routing.py work_dirs/RUN --out routing.png
    python tools/analysis_tools/plot_head_routing.py CONFIG work_dirs/RUN/epoch_*.pth --images FOLDER --out routing.png

It uses the readings of a run whose config has a HeadRoutingHook, or the checkpoints of any run and some images.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

from mimhd_mm.engine.hooks.head_routing_hook import figures_of
from mimhd_mm.engine.inspection import fixed_images
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import build_untrained, image_size, list_images, load_model, read_config
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.selfsup import RelationDistiller
from mimhd_mm.random_states import evaluating
from mimhd_mm.visualization import history_figure, read_head_weights
from mimhd_mm.visualization.pictures import check_output, save
from mimhd_mm.visualization.routing import FIGURES


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Draw how the heads of the teacher are shared out')
    parser.add_argument('run', nargs='+', metavar='RUN | CONFIG CHECKPOINT',
                        help='a work folder (or head_weights.json), or a config and checkpoints in their order')
    parser.add_argument('--out', required=True, help='the PNG file to write')
    parser.add_argument('--pairs', nargs='+', help='relations to draw, e.g. qk (default: all)')
    parser.add_argument('--student', default='', help='which one, where a model teaches several')
    parser.add_argument('--moments', type=int, default=3, help='heat maps of each relation, from the first reading to '
                        'the last (default 3)')
    parser.add_argument('--images', help='with checkpoints: folder of images to match heads on')
    parser.add_argument('--num', type=int, default=64, help='with checkpoints: images, evenly spaced (default 64)')
    parser.add_argument('--dpi', type=int, default=150, help='dots an inch (default 150)')
    args = parser.parse_args(argv)

    if args.moments < 1:
        raise UserInputError(f'--moments {args.moments} draws nothing; give at least 1.')
    check_output(args.out)
    if len(args.run) == 1:
        readings = read_head_weights(args.run[0])
    elif args.images is None:
        raise UserInputError('Checkpoints hold no head weights, which depend on images; name a folder with --images.')
    else:
        readings = weights_of_checkpoints(args.run[0], args.run[1:], args.images, args.num)
    save(draw(readings, args), args.out, args.dpi)
    print(f'wrote {args.out}')


def draw(readings: list[dict], args: argparse.Namespace):
    """The figure of the readings that are asked for.

    Raises:
        UserInputError: If there are none.
    """
    students = sorted({reading.get('student', '') for reading in readings})
    if args.student not in students:
        raise UserInputError(f'There are head weights of the students {", ".join(map(repr, students))}, and none of '
                             f'{args.student!r}; choose one with --student.')
    readings = [reading for reading in readings if reading.get('student', '') == args.student]
    by_pair = {pair: [reading for reading in readings if reading['pair'] == pair]
               for pair in dict.fromkeys(reading['pair'] for reading in readings)}
    for pair in args.pairs or ():
        if pair not in by_pair:
            raise UserInputError(f'There are head weights of {", ".join(by_pair)}, and none of {pair!r}.')
    by_pair = {pair: by_pair[pair] for pair in args.pairs or by_pair}
    steps = sorted(set.intersection(*({reading['iter'] for reading in found} for found in by_pair.values())))
    chosen = sorted({steps[round(index)] for index in np.linspace(0, len(steps) - 1, args.moments)})
    moments = []
    for step in chosen:
        at = {pair: next(reading for reading in found if reading['iter'] == step) for pair, found in by_pair.items()}
        caption = next(iter(at.values())).get('name', f'iteration {step}')
        moments.append((caption, {pair: np.array(reading['W']) for pair, reading in at.items()}))
    figures = {pair: dict({name: [reading.get(name, float('nan')) for reading in found]
                           for name in FIGURES if any(name in reading for reading in found)},
                          iter=[reading.get('name', reading['iter']) for reading in found])
               for pair, found in by_pair.items()}
    return history_figure(moments, figures if len(steps) > 1 else None, 'Which teacher heads teach which student head')


def weights_of_checkpoints(config: str, checkpoints: list[str], folder: str, number: int) -> list[dict]:
    """Head weights on fixed images, before training and of each checkpoint; see ``read_head_weights`` for the form.

    Raises:
        UserInputError: If a file does not fit or the model matches no heads.
    """
    cfg = read_config(config)
    list_images(folder)
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    readings = []
    for order, checkpoint in enumerate([None, *checkpoints]):
        model = load_model(cfg, checkpoint) if checkpoint else build_untrained(cfg, seed)
        if not isinstance(model, RelationDistiller):
            raise UserInputError(f'{config!r} trains a {type(model).__name__}, which matches no heads; give a config '
                                 f'of MIM-HD.')
        model = model.to('cuda' if torch.cuda.is_available() else 'cpu')
        images = fixed_images(folder, image_size(cfg), number, model.data_preprocessor)  # (num, 3, H, W)
        with evaluating(model):
            _, student = model.tap(images, None, need_tokens=False)  # each (B, M2, 1 + N, d2)
            model.head.loss(student, model.target_generator(images))
        for pair, matcher in model.head.matchers.items():
            readings.append(dict(
                iter=order, pair=pair, name=Path(checkpoint).stem if checkpoint else 'untrained',
                W=matcher.last_weight.float().mean(0).tolist(), **figures_of(matcher)))
    return readings


if __name__ == '__main__':
    run_tool(main)
