"""From a row of a table to runs: their configs, their folders, and a look at everything before the first of them."""
import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat

from mmengine.config import Config

from mimhd_mm.datasets.nesting import datasets_of
from mimhd_mm.downstream.settings import schedule_changes
from mimhd_mm.engine.launch import read_config_file
from mimhd_mm.errors import UserInputError
from mimhd_mm.project import project_root
from mimhd_mm.weights.reading import sha256_of

from .rows import PaperRow, options_text


@dataclass(frozen=True)
class TableOptions:
    """What is asked for; the arguments of ``lab/tables/run_table.py``.

    Attributes:
        mini (bool): The miniatures in place of the full sizes. Defaults to False.
        seeds (int): Runs of each row, with seeds from 0. Defaults to 1.
        gpus (int): Processes of each training. Defaults to 1.
        tasks (sequence[str]): What is evaluated, of :data:`~mimhd_mm.evaluation.tasks.METRICS`.
        pretrain_root (str, optional): Folder of the images for pre-training. None takes the config's.
        classification_root (str, optional): Folder with ``train`` and ``val``. None takes that of pre-training.
        segmentation_root (str, optional): Folder with images and annotations. None takes the config's.
        teacher (str, optional): MAE file for every row that has a teacher. None takes the config's.
        heads (str, optional): File of ``tools/analysis_tools/rank_heads.py`` for the rows with a
            ``SelectHeadMatcher``. None takes what the config says, by default the first heads.
        shorten (float): Factor on the length of every training, above 0 and up to 1. Defaults to 1.
        shorten_tasks (float, optional): The factor for trainings of the evaluation. None takes ``shorten``.
        amp (bool): Whether ``tools/train.py`` gets ``--amp``. Defaults to False.
        work_dir (str): For every run and the tables. Defaults to ``'work_dirs/tables'``.
    """
    mini: bool = False
    seeds: int = 1
    gpus: int = 1
    tasks: Sequence[str] = ('knn', )
    pretrain_root: str | None = None
    classification_root: str | None = None
    segmentation_root: str | None = None
    teacher: str | None = None
    heads: str | None = None
    shorten: float = 1.
    shorten_tasks: float | None = None
    amp: bool = False
    work_dir: str = 'work_dirs/tables'

    @property
    def kind(self) -> str:
        """``'mini'`` or ``'full'``."""
        return 'mini' if self.mini else 'full'

    @property
    def task_length(self) -> float:
        """Factor on the length of the evaluation's trainings."""
        return self.shorten if self.shorten_tasks is None else self.shorten_tasks


@dataclass(frozen=True)
class SeedRun:
    """A row with one seed.

    Attributes:
        seed (int): Of pre-training and evaluation.
        folder (Path): For config and results; logs and checkpoints go into `pretrain` below it, where mmengine writes
            a config of the same name. Its name ends in a hash of all that decides the outcome, so that equal runs of
            several rows or tables are one, and different ones never meet.
        text (str, optional): The config as it is written; None where weights are imported.
        cfg (Config, optional): The same, read.
        base (Path, optional): The row's config, which it inherits.
        imported (Path, optional): The file of imported weights.
        untrained (bool): Whether the student stays as it is before the first step. Defaults to False.
    """
    seed: int
    folder: Path
    text: str | None = None
    cfg: Config | None = None
    base: Path | None = None
    imported: Path | None = None
    untrained: bool = False

    @property
    def checkpoint(self) -> Path:
        """What is evaluated."""
        if self.imported:
            return self.imported
        name = 'untrained' if self.untrained else f'epoch_{self.cfg.train_cfg.max_epochs}'
        return Path(self.cfg.work_dir) / f'{name}.pth'


def plan_row(row: PaperRow, options: TableOptions) -> list[SeedRun]:
    """The runs of a row, one a seed; none where it has no miniature or its imported file is not here.

    Raises:
        UserInputError: If its config cannot be read or an option does not fit it.
    """
    source = row.sources.get(options.kind)
    if source is None:
        return []
    if 'checkpoint' in source:
        path = Path(source['checkpoint']).resolve()
        if not path.is_file():
            return []
        key = file_hash(str(path))[:10]
        return [SeedRun(seed, runs_folder(options) / f'{path.stem}-s{seed}-{key}', imported=path)
                for seed in range(options.seeds)]
    return [plan_pretraining(source, options, seed) for seed in range(options.seeds)]


def plan_pretraining(source: dict, options: TableOptions, seed: int) -> SeedRun:
    """Write a row's config, in memory, and give the run a folder by what it says and by the files it reads.

    Raises:
        UserInputError: If the config cannot be read or an option does not fit it.
    """
    path = project_root() / source['config']
    base = read_base(path)
    row_options = dict(source.get('options') or {})
    for key in row_options:
        check_option(base, key, source['config'])
    body = pretraining_text(path, base, row_options, options, seed)
    try:
        cfg = Config.fromstring(body, '.py')
    except Exception as error:  # a value may clash with what it replaces in as many ways as there are configs
        message = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise UserInputError(f'{source["config"]} does not take the options {options_text(row_options)} ({message}).'
                             ) from error
    files = [(cfg.model.get('target_generator') or {}).get('checkpoint'), selected_heads(cfg)]
    hashes = [file_hash(file) if isinstance(file, str) and Path(file).is_file() else None for file in files]
    untrained = bool(source.get('untrained'))
    identity = json.dumps([cfg.to_dict(), hashes, options.gpus, options.amp, *([untrained] if untrained else [])],
                          sort_keys=True, default=str)
    changed = (f'{key.split(".")[-1]}={value}' for key, value in row_options.items() if value_of(base, key) != value)
    words = [path.stem, *changed, *(['untrained'] if untrained else []), f's{seed}',
             hashlib.sha256(identity.encode()).hexdigest()[:10]]
    folder = runs_folder(options) / re.sub(r'[^\w.=-]', '', '-'.join(words))
    cfg.work_dir = (folder / 'pretrain').as_posix()
    return SeedRun(seed, folder, f'{body}work_dir = {cfg.work_dir!r}\n', cfg, path, untrained=untrained)


def pretraining_text(path: Path, base: Config, row_options: dict, options: TableOptions, seed: int) -> str:
    """A config that inherits a row's and sets its options, seed, data, teacher and length; but for the work dir."""
    merged = copy.deepcopy(base)
    merged.merge_from_dict(row_options)
    changes = Config(dict(randomness=dict(seed=seed)))
    changes.merge_from_dict(row_options)
    settings = {}
    if 'auto_scale_lr' in base:
        settings['auto_scale_lr.enable'] = True
    if options.pretrain_root:
        root = Path(options.pretrain_root).resolve().as_posix()
        settings.update({f'{key}.data_root': root for key, _ in pretraining_datasets(merged)})
    if options.teacher and merged.model.get('target_generator'):
        settings['model.target_generator.checkpoint'] = Path(options.teacher).resolve().as_posix()
    if options.heads and selects_heads(merged):
        settings['model.head.matcher.heads'] = Path(options.heads).resolve().as_posix()
    if options.mini:  # so that little is lost when it is cut short
        merged.merge_from_dict({'default_hooks.checkpoint.interval': 1})
        settings['default_hooks.checkpoint.interval'] = 1
    merged.train_cfg.setdefault('val_interval', 1)
    for change in (settings, schedule_changes(merged, options.shorten)):
        changes.merge_from_dict(change)
    return '\n'.join([
        '# Written by lab/tables/run_table.py: a row of a table, with its options, seed, data and length.',
        f'_base_ = {path.resolve().as_posix()!r}', '',
        *(f'{key} = {pformat(value, width=110, sort_dicts=False)}' for key, value in changes.to_dict().items())]) + '\n'


def check_option(base: Config, key: str, name: str) -> None:
    """See that an option of a row sets something that its config has.

    Raises:
        UserInputError: If the part of the config that it belongs to is not there.
    """
    parts, found = key.split('.'), base._cfg_dict
    for number, part in enumerate(parts[:-1] or parts, start=1):
        if not isinstance(found, dict) or part not in found:
            raise UserInputError(f'The option {key!r} does not fit {name}, which has no {".".join(parts[:number])!r}; '
                                 f'correct it in the list of tables.')
        found = found[part]
    if len(parts) > 1 and not isinstance(found, dict):
        raise UserInputError(f'The option {key!r} does not fit {name}, whose {".".join(parts[:-1])!r} is a '
                             f'{type(found).__name__} and no dict; correct it in the list of tables.')


def value_of(base: Config, key: str):
    """What a config has under a dotted key; None if nothing."""
    *parents, last = key.split('.')
    return functools.reduce(lambda found, part: found[part], parents, base).get(last)


def pretraining_datasets(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Every dataset of a pre-training with the key it stands under: for training, and those of a k-NN probe."""
    return datasets_of(cfg, ['train_dataloader'])


def selects_heads(cfg: Config) -> bool:
    """Whether teacher heads are chosen by number."""
    matcher = (cfg.model.get('head') or {}).get('matcher') or {}
    return str(matcher.get('type')).split('.')[-1] == 'SelectHeadMatcher'


def selected_heads(cfg: Config):
    """``heads`` of a ``SelectHeadMatcher``: None, a list or a file."""
    return cfg.model.head.matcher.get('heads') if selects_heads(cfg) else None


def runs_folder(options: TableOptions) -> Path:
    """Where all tables of a work dir keep their runs."""
    return Path(options.work_dir).resolve() / 'runs'


@functools.cache
def read_base(path: Path) -> Config:
    """A config, read once; not to be changed."""
    return read_config_file(path)


@functools.cache
def file_hash(path: str) -> str:
    """Hash of a file, computed once."""
    return sha256_of(Path(path))
