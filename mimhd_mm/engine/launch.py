"""Build a Runner from a config file and command line options, for ``tools/train.py`` and ``tools/test.py``."""
import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..datasets.nesting import LOADERS
from ..errors import UserInputError, root_cause
from ..weights.writing import DISK_FULL_ERRORS
from .cached_training import use_teacher_cache
from .preflight import check_config
from .resume.safe_loading import safe_loading


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that training and testing share; names and meanings are OpenMMLab's."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument('--amp', action='store_true',
                        help='mixed precision: of the type that the config names, else fp16, on a GPU; bf16 on a CPU')
    parser.add_argument('--no-pin-memory', action='store_true', help='set pin_memory=False in every dataloader')
    parser.add_argument('--no-persistent-workers', action='store_true',
                        help='set persistent_workers=False in every dataloader')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_cfg.max_epochs=10 or key="[a,b]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='what started the processes')
    # torch.distributed.launch passes --local-rank (torch 2) or --local_rank (torch 1)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config_file(path: str | Path) -> Config:
    """Read a config.

    Raises:
        UserInputError: If the file is missing or cannot be parsed.
    """
    if not Path(path).is_file():
        raise UserInputError(f'No config file {str(path)!r}; the ones of this project are under configs/.')
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program and can raise anything
        message = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise UserInputError(f'The config {str(path)!r} cannot be read ({message}).') from error


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config`` and apply the shared arguments.

    Raises:
        UserInputError: If the file is missing or cannot be parsed.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config_file(args.config)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)

    if cfg.get('default_scope') != 'mmseg':  # mmpretrain's data preprocessors expect stacked batches
        for loader in filter(cfg.get, LOADERS):
            cfg[loader].setdefault('collate_fn', dict(type='default_collate'))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    for loader in (cfg[key] for key in LOADERS if cfg.get(key)):
        loader.get('collate_fn', {}).pop('_scope_', None)  # mmengine would pass its own mark as an argument
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', True)  # restarting them takes seconds an epoch
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers or not loader.get('num_workers'):
            loader.persistent_workers = False
        if not loader.get('num_workers'):
            loader.pop('prefetch_factor', None)  # torch refuses it there
    if args.amp:
        use_amp(cfg)
    drop_amp_settings(cfg)
    return cfg


def use_amp(cfg: Config) -> None:
    """Switch ``cfg.optim_wrapper`` to mixed precision: mmengine's on a GPU, :class:`CPUAmpOptimWrapper` without.

    A wrapper that skips non-finite steps is replaced by one that skips them too.
    """
    guarded = str(cfg.optim_wrapper.get('type')).split('.')[-1].startswith('Guarded')
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'mimhd_mm.GuardedAmpOptimWrapper' if guarded else 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mimhd_mm.GuardedCPUAmpOptimWrapper' if guarded else 'mimhd_mm.CPUAmpOptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)


def drop_amp_settings(cfg: Config) -> None:
    """Remove mixed-precision settings if the optimiser wrapper does not accept them."""
    wrapper = cfg.get('optim_wrapper') or {}
    if str(wrapper.get('type', 'OptimWrapper')).split('.')[-1] in (
            'OptimWrapper', 'GuardedOptimWrapper', 'CPUAmpOptimWrapper', 'GuardedCPUAmpOptimWrapper'):
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)


def build_runner(cfg: Config) -> Runner:
    """Check ``cfg``, start the process group if there are several processes, and build the Runner.

    It is a :class:`~mimhd_mm.engine.resume.runner.ResumableRunner` unless the config names another ``runner_type``.
    Without a GPU the backend of the process group is gloo, whatever the config names (nccl needs GPUs), models are
    wrapped without a device, and BatchNorm is not synchronised.

    Raises:
        UserInputError: With the first problem that :func:`check_config` or :func:`use_teacher_cache` finds, or for a
            Slurm or MPI launch without a GPU.
    """
    check_config(cfg)
    use_teacher_cache(cfg)
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        if cfg.launcher != 'pytorch':
            raise UserInputError(f'--launcher {cfg.launcher} needs GPUs and none is visible; on CPUs start the '
                                 f'processes with tools/dist_train.sh or tools/dist_test.sh.')
        torch.distributed.init_process_group('gloo')
        cfg.sync_bn = None
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.setdefault('runner_type', 'mimhd_mm.ResumableRunner')
    return RUNNERS.build(cfg)


def check_batches(runner: Runner) -> None:
    """Build the training data and check that it fills at least one batch.

    Raises:
        UserInputError: If there are fewer images than a batch on each process takes, and incomplete ones are dropped.
    """
    loader = runner.train_loop.dataloader
    if len(loader) == 0:
        raise UserInputError(
            f'{len(loader.dataset)} training images fill no batch of {loader.batch_size} on each of '
            f'{runner.world_size} processes; set --cfg-options train_dataloader.batch_size to a smaller number.')


def run_tool(main: Callable[[list | None], int | None], argv: list | None = None) -> None:
    """Call ``main``; report wrong input or a full disk in one sentence on stderr, with exit status 1.

    The whole tool runs under :func:`~mimhd_mm.engine.resume.safe_loading.safe_loading`, whichever Runner it builds.
    """
    try:
        with safe_loading():
            status = main(argv)
        sys.exit(status)
    except UserInputError as error:
        sys.exit(f'error: {root_cause(error)}')
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        name = f' for {str(error.filename)!r}' if error.filename else ''
        sys.exit(f'error: No room{name} ({error.strerror}); complete files are intact: free some space and run the '
                 f'command again.')
