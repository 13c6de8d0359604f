"""Train a model from a config of this project, of mmpretrain or of mmsegmentation.

    python tools/train.py configs/pretrain/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py

Ends with status 75 when SIGTERM or SIGUSR1 stopped it: a checkpoint is saved, and --resume continues from there.
"""
import argparse

from mimhd_mm.engine.launch import add_common_arguments, build_runner, check_batches, load_config, run_tool


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Train a model')
    add_common_arguments(parser)
    parser.add_argument('--resume', nargs='?', const='auto',
                        help='resume from a checkpoint, or from the newest of the work dir that is whole when none is '
                             'given')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by actual / base batch size (auto_scale_lr of the config)')
    args = parser.parse_args(argv)

    cfg = load_config(args)
    if args.resume is not None:
        cfg.resume = True
        cfg.start_from, cfg.load_from = cfg.get('load_from'), None if args.resume == 'auto' else args.resume
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        cfg.auto_scale_lr = dict(cfg.auto_scale_lr, enable=True)
    runner = build_runner(cfg)
    check_batches(runner)
    runner.train()


if __name__ == '__main__':
    run_tool(main)
