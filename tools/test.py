"""Test a checkpoint with a config of this project, of mmpretrain or of mmsegmentation.

    python tools/test.py configs/finetune/CONFIG.py work_dirs/CONFIG/epoch_100.pth

Arguments are OpenMMLab's. Only the parts for testing are built: the training data need not exist, and a config with
GPU-only mixed precision for training can be tested on a CPU. A checkpoint that does not
fill the whole model is refused.
"""
import argparse
import os
import sys
from pathlib import Path

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mimhd_mm.datasets.nesting import innermost_datasets
from mimhd_mm.engine.launch import add_common_arguments, build_runner, load_config, run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.reading import read_tensors

PICKLES = ('.pkl', '.pickle')
METRIC_FILES = ('.json', '.yml', '.yaml', *PICKLES)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a model')
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='where results go: a .pkl file of predictions, for segmentation a folder of '
                                      'label maps; with --out-item metrics a .json, .yml or .pkl file')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what --out holds (default pred)')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder to paint predictions into')
    parser.add_argument('--interval', type=int,
                        help='with --show or --show-dir: every n-th image (classification only)')
    parser.add_argument('--wait-time', type=float, help='with --show: seconds a window stays (default 2)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation: tta_model and tta_pipeline')
    args = parser.parse_args(argv)
    if args.out_item is not None and args.out is None:
        raise UserInputError('--out-item says what --out holds; give --out FILE too.')
    if args.interval is not None and not (args.show or args.show_dir):
        raise UserInputError('--interval thins out what --show or --show-dir paint; give one of them too.')
    if args.wait_time is not None and not args.show:
        raise UserInputError('--wait-time is how long a window of --show stays; give --show too.')
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    amp, args.amp = args.amp, False  # here it is the test loop's, not the optimiser's
    cfg = load_config(args)
    if any(cfg.get(key) is None for key in ('test_dataloader', 'test_cfg', 'test_evaluator')):
        raise UserInputError(f'The config {args.config!r} has no test_dataloader with an evaluator, as pre-training '
                             f'has none; give one of fine-tuning, or score a pre-trained backbone with tools/knn.py.')
    keep_only_testing(cfg)
    check_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    segmentation = cfg.get('default_scope') == 'mmseg'
    if amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        paint(cfg, args, segmentation)
    if args.tta:
        use_tta(cfg, args.config)
    if args.out and args.out_item != 'metrics':
        write_predictions(cfg, args.out, segmentation)
    if args.out and args.out_item == 'metrics' and Path(args.out).suffix not in METRIC_FILES:
        raise UserInputError(f'--out {args.out!r} for metrics is a file ending in {", ".join(METRIC_FILES)}.')

    runner = build_runner(cfg)
    refuse_partial_loading(runner.model, args.checkpoint)
    metrics = runner.test()
    if args.out and args.out_item == 'metrics' and runner.rank == 0:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        mmengine.dump({name: value.tolist() if hasattr(value, 'tolist') else value
                       for name, value in metrics.items()}, args.out)


def keep_only_testing(cfg: Config) -> None:
    """Remove the settings for training and validation, whose data and precision this machine may not have."""
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler',
                'val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key, None)
    cfg.resume = False


def check_checkpoint(path: str) -> None:
    """Read a local checkpoint once before anything is built.

    Raises:
        UserInputError: If there is no such file or it is damaged.
    """
    if '://' not in path:
        read_tensors(path)


def refuse_partial_loading(model: nn.Module, checkpoint: str) -> None:
    """Make loading an error where the checkpoint leaves a tensor of the model as it was initialised.

    mmengine logs such tensors and goes on, and what it then tests is in part random.

    Args:
        model (nn.Module): The Runner's model, wrapped or not.
        checkpoint (str): For the message.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    shapes = []

    def remember(state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, error_msgs):
        shapes.append(error_msgs)  # the list that collects size mismatches as modules are loaded

    def refuse(_, incompatible):
        missing = [key for key in incompatible.missing_keys if 'num_batches_tracked' not in key]
        problems = [f'no {missing[0]!r} ({len(missing)} such tensors)'] if missing else []
        problems += [' '.join(message.split()) for message in shapes[-1][:1]]
        if problems:
            raise UserInputError(f'{checkpoint!r} does not fit the model of the config: {problems[0]}; give the config '
                                 f'that the checkpoint was trained with.')

    model._register_load_state_dict_pre_hook(remember)
    model.register_load_state_dict_post_hook(refuse)


def paint(cfg: Config, args: argparse.Namespace, segmentation: bool) -> None:
    """Turn on the visualisation hook of mmpretrain or of mmsegmentation.

    Raises:
        UserInputError: If an option would have no effect there.
    """
    if args.show and sys.platform.startswith('linux') and not (os.getenv('DISPLAY') or os.getenv('WAYLAND_DISPLAY')):
        raise UserInputError('--show opens windows, and there is no display here; use --show-dir FOLDER.')
    if segmentation and args.show and args.show_dir:
        raise UserInputError("mmsegmentation's hook either shows or saves; give --show or --show-dir.")
    if segmentation and args.interval is not None:
        raise UserInputError("mmsegmentation's hook paints every tested image; leave --interval out.")
    hook = cfg.setdefault('default_hooks', ConfigDict()).setdefault('visualization', ConfigDict())
    wait_time = 2. if args.wait_time is None else args.wait_time
    if segmentation:
        hook.setdefault('type', 'SegVisualizationHook')
        hook.update(draw=True, interval=1, show=args.show, wait_time=wait_time)  # mmseg 1.2 thins out tests too
        if args.show_dir:
            cfg.visualizer = dict(
                cfg.get('visualizer') or dict(type='SegLocalVisualizer'), save_dir=args.show_dir,
                vis_backends=[dict(type='LocalVisBackend')])
    else:
        hook.setdefault('type', 'VisualizationHook')
        hook.update(enable=True, show=args.show, wait_time=wait_time, out_dir=args.show_dir,
                    interval=args.interval or 1)


def use_tta(cfg: Config, name: str) -> None:
    """Wrap the model and replace the test pipeline as the config says.

    Raises:
        UserInputError: If it does not say.
    """
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise UserInputError(f'--tta needs `tta_model` and `tta_pipeline`, and the config {name!r} does not have both.')
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
    for _, dataset in innermost_datasets('test_dataloader.dataset', cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def write_predictions(cfg: Config, out: str, segmentation: bool) -> None:
    """Make the evaluator write predictions: one pickle, or label maps in a folder for segmentation.

    Raises:
        UserInputError: If ``out`` has the wrong ending or no metric can write label maps.
    """
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    if not segmentation:
        if Path(out).suffix not in PICKLES:
            raise UserInputError(f'--out {out!r} for predictions is a file ending in .pkl; or give --out-item metrics.')
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=out)]
        return
    if Path(out).suffix in METRIC_FILES:
        raise UserInputError(f'--out {out!r} for segmentation is a folder of label maps; or give --out-item metrics.')
    writers = [metric for metric in evaluators if metric.type.split('.')[-1] in ('IoUMetric', 'CityscapesMetric')]
    if not writers:
        raise UserInputError('--out writes label maps through IoUMetric, which the config does not have; '
                             'give --out-item metrics and a .json file.')
    for metric in writers:
        metric.output_dir = out
        if metric.type.endswith('CityscapesMetric'):
            metric.keep_results = True


if __name__ == '__main__':
    run_tool(main)
