"""Measure the steps of several variants side by side: what ``lab/speed/step_time.py`` does."""
import gc
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import memory
from mimhd_mm.measuring.devices import choose
from mimhd_mm.measuring.stand_ins import build_optimiser, random_images
from mimhd_mm.measuring.timing import SECTIONS, Step, quartiles
from mimhd_mm.models.selfsup import MIMHD

from . import accounting
from .interleaving import StudentsStep, interleave
from .variants import (
    VARIANTS,
    NotHere,
    build_students,
    build_variant,
    check_memory,
    compile_variant,
    read_size,
    share_frozen,
)

#: what can be swept -> (caption of the axis, values)
SWEEPS = {'tokens': ('patch tokens N', (64, 196, 576, 1024)), 'heads': ("student's heads", (3, 6, 12, 24)),
          'batch': ('images a batch', (1, 2, 4, 8, 16))}


class Options(NamedTuple):
    """What to measure, and how often.

    Attributes:
        size (str): A key of ``SIZES``.
        variants (Sequence[str]): Keys of ``VARIANTS``; ratios are to the first.
        device (torch.device): Where.
        dtype (str): ``'float32'``, or ``'bfloat16'`` by autocast.
        batch_size (int): Images a step.
        repeats (int): Rounds that count.
        warmup (int): Rounds before them.
        max_bytes (float): Limit for the literal variant's broadcast.
        compile (bool): Whether ``torch.compile`` is used. Memory and FLOPs are counted without it.
        images (str, optional): Folder of images to load through the first variant's training pipeline; None is noise.
        workers (int): Loader processes.
        img_size (int, optional): In place of the config's.
        heads (int, optional): Of the student, in place of the architecture's.
        students (str, optional): A key of ``STUDENTS``, measured in place of size and variants.
    """
    size: str
    variants: Sequence[str]
    device: torch.device
    dtype: str
    batch_size: int
    repeats: int
    warmup: int
    max_bytes: float
    compile: bool = False
    images: str | None = None
    workers: int = 0
    img_size: int | None = None
    heads: int | None = None
    students: str | None = None


def measure(options: Options) -> tuple[list[dict], list[str]]:
    """Time the variants in turn and account for each of them.

    Variants that cannot be built here, for want of memory or of an argument, are left out with a note. Of students, the
    first result is ``'apart'``, what the steps of each take one after the other.

    Returns:
        tuple: One dict a variant, see :func:`summarise`, and notes.

    Raises:
        UserInputError: If the input is wrong.
        NotHere: If nothing can be measured.
    """
    steps, notes = (build_student_steps(options), []) if options.students else build_steps(options)
    costs, asked = {}, len(steps)
    rates: dict[accounting.Matmul, float] = {}
    for name in list(steps):
        try:
            steps[name]()  # the optimiser's state is there from now on
            costs[name] = account(steps[name], options, rates)
        except torch.cuda.OutOfMemoryError:
            notes.append(f'{name} was left out: {options.batch_size} images do not fit into the memory of the GPU.')
            del steps[name]
    if not steps or options.students and len(steps) < asked:
        raise NotHere(' '.join(notes))
    for step in steps.values():
        if options.compile:
            compile_variant(step.model)
        step.watch()
    rounds = interleave(steps, options.repeats, options.warmup)
    if options.students:
        rounds = dict(apart=add_up_rounds(rounds), **rounds)
        costs['apart'] = add_up_costs([costs[name] for name in rounds if name not in ('apart', 'together')])
    first = [sum(one.values()) for one in rounds[next(iter(rounds))]]
    return [summarise(name, rounds[name], first, costs[name], options.batch_size) for name in rounds], notes


def build_steps(options: Options) -> tuple[dict[str, Step], list[str]]:
    """The steps by name, and notes on those left out."""
    models, steps, notes = {}, {}, []
    for name in choose(options.variants, tuple(VARIANTS), 'variant'):
        try:
            torch.manual_seed(0)
            model, cfg = build_variant(name, options.size, img_size=options.img_size, heads=options.heads,
                                       dtype=VARIANTS[name].dtype_on(options.device, options.dtype))
            check_memory(model, options.batch_size, options.max_bytes)
        except NotHere as error:
            notes.append(f'{name} was left out: {error}')
            continue
        models[name] = model, cfg
    if not models:
        raise NotHere(' '.join(notes))
    share_frozen([model for model, _ in models.values()])
    batch = make_batches(*next(iter(models.values())), options)
    for name, (model, cfg) in models.items():
        model.to(options.device)
        optimiser = build_optimiser(cfg, model, options.device,
                                    VARIANTS[name].dtype_on(options.device, options.dtype))
        steps[name] = Step(model, optimiser, batch, options.device)
    return steps, notes


def build_student_steps(options: Options) -> dict[str, Step]:
    """The steps of some students, each with a teacher, and ``'together'``, that of all with one."""
    torch.manual_seed(0)
    models = build_students(options.students, img_size=options.img_size, dtype=options.dtype)
    share_frozen([model for model, _ in models.values()])
    batch, steps = make_batches(*next(iter(models.values())), options), {}
    for name, (model, cfg) in models.items():
        model.to(options.device)
        kind = StudentsStep if name == 'together' else Step
        steps[name] = kind(model, build_optimiser(cfg, model, options.device, options.dtype), batch, options.device)
    return steps


def add_up_rounds(rounds: dict[str, list[dict]]) -> list[dict]:
    """Seconds by section of what is run one after the other in each round: all but ``'together'``."""
    alone = [own for name, own in rounds.items() if name != 'together']
    return [{section: sum(one[section] for one in parts) for section in SECTIONS} for parts in zip(*alone)]


def add_up_costs(costs: Sequence[dict]) -> dict:
    """:func:`account` of steps that are run one after the other."""
    flops = sum(one['flops'] for one in costs)
    return dict(peak_bytes=max(one['peak_bytes'] for one in costs), flops=flops,
                matmul_flops_per_second=flops / sum(one['flops'] / one['matmul_flops_per_second'] for one in costs))


def make_batches(model: nn.Module, cfg: Config, options: Options) -> Callable[[], dict]:
    """What gives a batch: the same noise again and again, or the images of a folder by the config's pipeline."""
    if options.images is None:
        images = random_images(cfg, options.batch_size, options.device)  # (B, 3, H, W)
        return lambda: dict(inputs=images)
    loader = dict(
        batch_size=options.batch_size, num_workers=options.workers, drop_last=True,
        persistent_workers=options.workers > 0, pin_memory=options.device.type == 'cuda',
        sampler=dict(type='InfiniteSampler', shuffle=True), collate_fn=dict(type='default_collate'),
        dataset=dict(type='mmpretrain.CustomDataset', data_root=options.images, with_label=False,
                     pipeline=cfg.train_pipeline))
    batches = iter(Runner.build_dataloader(loader, seed=0))
    preprocess = model.data_preprocessor.to(options.device)
    return lambda: preprocess(next(batches), True)


def account(step: Step, options: Options, rates: dict[accounting.Matmul, float]) -> dict:
    """What one step costs apart from time.

    FLOPs are counted on up to 8 images and scaled to the batch. Memory is the step's own: other variants' weights are
    not in it, its teacher is.

    Args:
        step (Step): One that has been called before.
        options (Options): For device and batch size.
        rates (dict): Matmuls measured already; added to.

    Returns:
        dict: ``peak_bytes``, ``flops`` and ``matmul_flops_per_second``.
    """
    images = step.batch()['inputs']
    images = (images if isinstance(images, torch.Tensor) else images[0])[:8]  # (b, 3, H, W)
    flops = accounting.count_flops(lambda: step.without_update(dict(inputs=images))) / len(images) * options.batch_size
    with accounting.Accountant() as accountant:
        step()
    used = accountant.peak_bytes if options.device.type == 'cpu' else memory.peak_bytes(step, options.device)
    return dict(peak_bytes=used + memory.state_bytes(step.model, *step.optimizers), flops=flops,
                matmul_flops_per_second=accounting.matmul_rate(accountant.matmuls, options.device, rates))


def summarise(name: str, rounds: list[dict], first: Sequence[float], costs: dict, batch_size: int) -> dict:
    """The figures of one variant.

    Args:
        name (str): The variant's.
        rounds (list[dict]): Seconds by section of each round.
        first (Sequence[float]): Seconds of the first variant's step in each round.
        costs (dict): Of :func:`account`.
        batch_size (int): Images a step.

    Returns:
        dict: Times in seconds, as quartiles; ``ratio`` is that of each round, so a slow round counts on both sides.
    """
    totals = [sum(one.values()) for one in rounds]
    seconds = quartiles(totals)
    rate = costs['flops'] / seconds.median
    share = rate / costs['matmul_flops_per_second'] if costs['matmul_flops_per_second'] else None
    return dict(
        variant=name, batch_size=batch_size, seconds=seconds._asdict(), images_per_second=batch_size / seconds.median,
        ratio=quartiles([own / other for own, other in zip(totals, first)])._asdict(),
        sections={section: quartiles([one[section] for one in rounds])._asdict() for section in SECTIONS},
        **costs, flops_per_second=rate, share_of_matmul_rate=share, rounds=rounds)


def table_rows(results: Sequence[dict], with_data: bool) -> list[dict]:
    """Results of :func:`measure` as rows of a table; parts of a step as medians, in ms."""
    rows = []
    for result in results:
        low, median, high = (1000 * result['seconds'][key] for key in ('low', 'median', 'high'))
        row = dict(variant=result['variant'])
        if 'value' in result:
            row[result['swept']] = result['value']
        row.update({'ms a step': median, 'quartiles': f'{low:.0f} to {high:.0f}',
                    'images/s': result['images_per_second'], 'to the first': result['ratio']['median']})
        row.update({section: 1000 * result['sections'][section]['median'] for section in SECTIONS
                    if with_data or section != 'data'})
        row.update({'peak GB': result['peak_bytes'] / 1e9,
                    'GFLOP/image': result['flops'] / result['batch_size'] / 1e9,
                    'GFLOP/s': result['flops_per_second'] / 1e9,
                    'plain matmul GFLOP/s': result['matmul_flops_per_second'] / 1e9,
                    'share': result['share_of_matmul_rate']})
        rows.append(row)
    return rows


def sweep(kind: str, values: Sequence[int], options: Options) -> tuple[list[dict], list[str]]:
    """:func:`measure` for each value of what is swept; those at which nothing fits are left out with a note.

    Args:
        kind (str): A key of :data:`SWEEPS`.
        values (Sequence[int]): Patch tokens, heads or images a batch.
        options (Options): All else.

    Returns:
        tuple: As of :func:`measure`; each dict has ``swept`` and ``value`` too.

    Raises:
        UserInputError: If a number of tokens is not a square.
        NotHere: If nothing can be measured at any value.
    """
    patch = read_size(options.size, MIMHD).model.backbone.patch_size
    if kind == 'tokens' and any(math.isqrt(value) ** 2 != value for value in values):
        raise UserInputError(f'Images here are square, so a number of patch tokens is a square number, e.g. 196 = 14 x '
                             f'14; {", ".join(map(str, values))} were given.')
    results, notes = [], []
    for value in values:
        changes = {'tokens': dict(img_size=math.isqrt(value) * patch), 'heads': dict(heads=value),
                   'batch': dict(batch_size=value)}[kind]
        try:
            found, more = measure(options._replace(**changes))
        except NotHere as error:
            found, more = [], [str(error)]
        except torch.cuda.OutOfMemoryError:  # in a later round; what was measured before stays
            found, more = [], ['left out, it does not fit into the memory of the GPU']
        gc.collect()  # watched models refer to themselves, and would be there beside the next
        results += [dict(one, swept=kind, value=value) for one in found]
        notes += [f'{kind} {value}: {note}' for note in more]
    if not results:
        raise NotHere(' '.join(notes))
    return results, notes


def curves_of(results: Sequence[dict]) -> dict[str, list[tuple]]:
    """Results of :func:`sweep` as lines of :func:`lab.speed.report.plot_growth`."""
    curves: dict[str, list[tuple]] = {}
    for result in results:
        curves.setdefault(result['variant'], []).append((result['value'], *result['seconds'].values()))
    return curves
