"""Predict how long a config's run takes on a machine and how to start it there; ``tools/plan.py`` uses it."""
import math
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import BaseSelfSupervisor

from ..engine.loading import build_model
from ..engine.preflight import check_image_folder
from ..errors import UserInputError
from .memory import peak_bytes, state_bytes
from .stand_ins import build_optimiser, fill_randomly, random_images
from .timing import Step, quartiles

#: training images of the data sets whose size is fixed
IMAGES = {'ImageNet': 1281167, 'TinyImageNet': 100000}
#: share of a device's memory that is planned with: our choice
HEADROOM = 0.9


class PlannedRun(NamedTuple):
    """A config's run, independent of the machine.

    Attributes:
        batch_size (int): Images a GPU and iteration.
        global_batch (int): Images an update that ``lr`` is meant for: ``auto_scale_lr.base_batch_size``.
        lr (float): Learning rate.
        images (int): Images an epoch.
        epochs (float): Rounds over them; of a run by iterations, what these make.
    """
    batch_size: int
    global_batch: int
    lr: float
    images: int
    epochs: float


class Cost(NamedTuple):
    """Time and memory of one GPU, or CPU process.

    Attributes:
        batch_size (int): Images an iteration that were measured.
        iteration (float): Seconds for data, forward and backward pass of that many.
        update (float): Seconds of the optimiser.
        fixed_bytes (int): Memory of weights and optimiser.
        image_bytes (float): Memory an image on top.
    """
    batch_size: int
    iteration: float
    update: float
    fixed_bytes: int
    image_bytes: float


class Plan(NamedTuple):
    """How to run it.

    Attributes:
        gpus (int): GPUs, or CPU processes.
        batch_size (int): Images of each in an iteration.
        accumulate (int): Iterations an update.
        lr (float): For the images of an update, by linear scaling.
        unaccumulated_lr (float): For updates at every iteration; what ``--auto-scale-lr`` sets.
        hours (float): Of the whole run.
        bytes (float): Memory of each.
    """
    gpus: int
    batch_size: int
    accumulate: int
    lr: float
    unaccumulated_lr: float
    hours: float
    bytes: float


def largest_batch(cost: Cost, memory: float, limit: int) -> int:
    """The largest power of two of images that fits into memory, or ``limit`` where so many fit.

    Raises:
        UserInputError: If not even one image fits.
    """
    fits = math.floor((HEADROOM * memory - cost.fixed_bytes) / cost.image_bytes)
    if fits < 1:
        need = (cost.fixed_bytes + cost.image_bytes) / HEADROOM / 1e9
        raise UserInputError(f'One image needs {need:.1f} GB of memory and there are {memory / 1e9:.1f}; take a '
                             f'smaller model or a larger machine.')
    return limit if fits >= limit else 2 ** int(math.log2(fits))


def make_plan(run: PlannedRun, cost: Cost, gpus: int, batch_size: int) -> Plan:
    """Accumulate to the config's global batch, scale the rate to what that comes to, and add up the time.

    GPUs are taken to be equally fast and the exchange of gradients to cost nothing; iterations to take time in
    proportion to their images.

    Args:
        run (PlannedRun): The config's.
        cost (Cost): Measured.
        gpus (int): How many.
        batch_size (int): Images of each in an iteration.
    """
    accumulate = max(1, round(run.global_batch / (gpus * batch_size)))
    iterations = run.epochs * (run.images // (gpus * batch_size))
    seconds = iterations * cost.iteration * batch_size / cost.batch_size + iterations / accumulate * cost.update
    scale = gpus * batch_size / run.global_batch
    return Plan(gpus, batch_size, accumulate, run.lr * scale * accumulate, run.lr * scale, seconds / 3600,
                cost.fixed_bytes + cost.image_bytes * batch_size)


def describe_run(cfg: Config, images: int | None) -> PlannedRun:
    """The run of a config that trains on ``images``; None is where they are not known.

    Raises:
        UserInputError: If they are not known and the data set is not one of :data:`IMAGES`, or the config does not say
            how long it trains.
    """
    batch_size = cfg.train_dataloader.batch_size
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size') or batch_size
    if images is None:
        kind = str(cfg.train_dataloader.dataset.type).split('.')[-1]
        if kind not in IMAGES:
            raise UserInputError(f'The images of {kind} cannot be counted, for they are not here; give the number of '
                                 f'training images with --epoch-images.')
        images = IMAGES[kind]
    lengths = cfg.get('train_cfg') or {}
    if lengths.get('max_epochs'):
        epochs = lengths['max_epochs']
    elif lengths.get('max_iters'):
        epochs = lengths['max_iters'] * base / images
    else:
        raise UserInputError('The config has neither train_cfg.max_epochs nor train_cfg.max_iters; set one.')
    return PlannedRun(batch_size, base, cfg.optim_wrapper.optimizer.lr, images, epochs)


def check_trainable(cfg: Config, path: str) -> None:
    """Check that a config trains a model.

    Raises:
        UserInputError: If a part is missing.
    """
    for key in ('model', 'train_dataloader', 'optim_wrapper'):
        if not cfg.get(key):
            raise UserInputError(f'The config {path!r} has no {key}; give one that trains a model.')


def is_mixed(cfg: Config) -> bool:
    """Whether the config's optimiser wrapper is one of mixed precision."""
    return 'Amp' in str(cfg.optim_wrapper.get('type', ''))


def choose_dtype(cfg: Config, device: torch.device, amp: bool) -> str:
    """The type that ``tools/train.py`` would compute in: on a CPU bf16 with ``amp``, else float32; on a GPU the
    config's where it is mixed or ``amp`` asks for it, fp16 where the config names none."""
    if device.type == 'cpu':
        return 'bfloat16' if amp else 'float32'
    return cfg.optim_wrapper.get('dtype') or 'float16' if amp or is_mixed(cfg) else 'float32'


def data_problem(cfg: Config) -> str | None:
    """What is wrong with the training data; None if nothing is."""
    try:
        check_image_folder('train_dataloader.dataset', cfg.train_dataloader.dataset)
    except UserInputError as error:
        return str(error)
    return None


def make_batches(cfg: Config, model: BaseModel, batch_size: int, device: torch.device, real: bool
                 ) -> tuple[Callable[[], dict], int | None]:
    """Batches for :class:`Step` and the images an epoch has: the config's own, or noise.

    Raises:
        UserInputError: If there is no data for a model that needs labels.
    """
    if not real:
        if not isinstance(model, BaseSelfSupervisor):
            raise UserInputError(f'Without its images a {type(model).__name__} cannot be measured, for it learns from '
                                 f'labels; {data_problem(cfg)}')
        images = random_images(cfg, batch_size, device)  # (B, 3, H, W)
        return (lambda: dict(inputs=images)), None
    loader = Runner.build_dataloader(dict(cfg.train_dataloader, batch_size=batch_size), seed=0)
    if len(loader) == 0:
        raise UserInputError(f'{len(loader.dataset)} training images fill no batch of {batch_size}; give a smaller '
                             f'--batch-size.')

    def endless():
        while True:
            yield from loader

    batches = endless()
    return (lambda: model.data_preprocessor(next(batches), True)), len(loader.dataset)


def measure(cfg: Config, device: torch.device, dtype: str, batch_size: int, iterations: int, real: bool
            ) -> tuple[Cost, dict[str, tuple], int | None]:
    """Train for some iterations on random weights; no file of weights is read.

    Args:
        cfg (Config): Loaded as for training.
        device (torch.device): Where.
        dtype (str): As of :func:`~mimhd_mm.measuring.stand_ins.build_optimiser`.
        batch_size (int): Images an iteration. On a GPU it is halved until it fits.
        iterations (int): How many count, after two.
        real (bool): Whether the config's own images are loaded.

    Returns:
        tuple: What it costs, quartiles of the seconds by part, and the images an epoch has, where known.

    Raises:
        UserInputError: If the model or its images cannot be used, or one image does not fit.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    torch.manual_seed(0)
    model = build_model(cfg)
    fill_randomly(model)
    model = revert_sync_batchnorm(model)  # it needs a process group
    model.to(device).train()
    step = Step(model, build_optimiser(cfg, model, device, dtype), lambda: {}, device)
    while True:
        step.batch, images = make_batches(cfg, model, batch_size, device, real)
        try:
            for _ in range(2):
                step()
            fixed, image = memory_of(step, batch_size, device)
            rounds = [step() for _ in range(iterations)]
            break
        except torch.cuda.OutOfMemoryError as error:
            if batch_size == 1:
                raise UserInputError('Not even one image fits into the memory of this GPU; take a smaller model.'
                                     ) from error
            step.optim_wrapper.zero_grad()
            batch_size //= 2
    parts = dict(
        data=quartiles([one['data'] for one in rounds]), update=quartiles([one['optimiser'] for one in rounds]),
        iteration=quartiles([sum(one.values()) - one['optimiser'] for one in rounds]))
    return Cost(batch_size, parts['iteration'].median, parts['update'].median, fixed, image), parts, images


def memory_of(step: Step, batch_size: int, device: torch.device) -> tuple[int, float]:
    """Memory that does not depend on the batch, and what an image adds.

    The first is weights, gradients and the optimiser's state. Activations are all there when the backward pass begins
    and no gradient is, so what is left after taking gradients off is too little for a small batch, and the forward pass
    alone is what counts.

    Args:
        step (Step): One that has been called before, so that the optimiser's state is there.
        batch_size (int): Images it takes.
        device (torch.device): Where.

    Returns:
        tuple: Bytes, and bytes an image.
    """
    data = step.batch()
    forward = peak_bytes(lambda: step.losses(data), device)
    both = peak_bytes(lambda: step.without_update(data), device)
    gradients = sum(x.numel() * x.element_size() for x in step.model.parameters() if x.requires_grad)
    fixed = state_bytes(step.model, step.optim_wrapper.optimizer) + gradients
    return fixed, max(forward, both - gradients) / batch_size


def command_line(config: str, plan: Plan, options: Sequence[str] = (), switches: Sequence[str] = ()) -> str:
    """The command that trains by a plan, with further ``--cfg-options`` and switches."""
    start = ['python', 'tools/train.py', config]
    if plan.gpus > 1:
        start = ['bash', 'tools/dist_train.sh', config, str(plan.gpus)]
    changes = [*options, f'train_dataloader.batch_size={plan.batch_size}',
               f'optim_wrapper.accumulative_counts={plan.accumulate}', f'optim_wrapper.optimizer.lr={plan.lr:.4g}']
    return shlex.join([*start, *switches, '--cfg-options', *changes])


def describe_plan(run: PlannedRun, cost: Cost, parts: dict[str, tuple], plan: Plan, memory: float, machines: str
                  ) -> str:
    """Format the measurements and the plan as lines to print.

    Args:
        run (PlannedRun): The config's.
        cost (Cost): Measured.
        parts (dict): Quartiles of the seconds by part, as of :func:`measure`.
        plan (Plan): Made of the two.
        memory (float): Bytes of each machine.
        machines (str): What these are called.
    """
    low, median, high = (1000 * seconds for seconds in parts['iteration'])
    waiting = 100 * parts['data'].median / (cost.iteration + cost.update)
    configured = (cost.fixed_bytes + cost.image_bytes * run.batch_size) / 1e9
    return '\n'.join([
        f'one iteration of {cost.batch_size} images: {median:.0f} ms ({low:.0f} to {high:.0f}), and '
        f'{1000 * cost.update:.0f} ms for an update; {cost.batch_size / (cost.iteration + cost.update):.3g} images/s, '
        f'{waiting:.0f} % of the time waiting for data',
        f'memory: {cost.fixed_bytes / 1e9:.2f} GB for weights, gradients and optimiser, and '
        f'{cost.image_bytes / 1e9:.4f} GB an image; the {run.batch_size} images of the config take '
        f'{configured:.1f} GB, and there are {memory / 1e9:.1f} GB',
        f'the run: {run.epochs:.6g} epochs of {run.images} images, {run.global_batch} an update, on {plan.gpus} '
        f'{machines}: {plan.hours:.3g} hours',
        f'at {plan.batch_size} images an iteration, {plan.accumulate} iteration(s) an update and lr {plan.lr:.4g} '
        f'(with no accumulation, --auto-scale-lr would set {plan.unaccumulated_lr:.4g}):'])


def unknowns(device: torch.device, gpus: int, real: bool, problem: str | None) -> list[str]:
    """The limits of a plan made on this machine, one sentence each."""
    found = ['weights were random and no file of weights was read, which changes no time',
             'time was reckoned in proportion to the images of an iteration; measure the batch of the plan with '
             '--batch-size where it is another']
    if not real:
        found.append(f'images were noise, so the wait for data is not in these figures ({problem})')
    else:
        found.append('loader processes begin with full queues: where images are read more slowly than used, only '
                     'more --iterations show the whole wait')
    if gpus > 1:
        found.append(f'{gpus} processes were reckoned as {gpus} times one: the exchange of gradients is not in it')
    if device.type == 'cpu':
        found += ['this is a CPU: what a GPU takes, in time or memory, cannot be told from it',
                  'memory counts tensors only, not what operators and loaders take for themselves, and its growth with '
                  'the batch was reckoned in proportion to the images']
    return found
