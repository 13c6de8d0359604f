"""Runs of the protocol: planned, claimed by one of several processes, made, and kept."""
import fcntl
import json
import os
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.errors import UserInputError
from mimhd_mm.project import environment
from mimhd_mm.registry import MODELS
from mimhd_mm.weights.writing import write_whole

from .caches import waited_for
from .protocol import Protocol, ProtocolRow, ProtocolSettings, ProtocolTable
from .scoring import read_out, score_network, score_pixels, whole_teacher
from .training import Place, base_config, frozen_student, placed, resolve, settings_key, student_start, train


@dataclass(frozen=True)
class ProtocolRun:
    """A row with one seed; rows of equal settings, of one table or several, are one run.

    Attributes:
        row (ProtocolRow): Of which.
        seed (int): Of start, order, views and masks.
        key (str): Hash of the row's settings.
        folder (Path): Its own.
    """
    row: ProtocolRow
    seed: int
    key: str
    folder: Path

    @property
    def result(self) -> dict | None:
        """What came out; None before its end."""
        file = self.folder / 'result.json'
        return json.loads(file.read_text()) if file.is_file() else None


def plan(protocol: Protocol, tables: Sequence[str], place: Place, only: str = '', seeds: Sequence[int] | None = None
         ) -> list[ProtocolRun]:
    """All runs of some tables: first every row with its first seed, then with its second.

    Args:
        protocol (Protocol): Where they are.
        tables (sequence[str]): Names; none are all.
        place (Place): Files.
        only (str): A regular expression; rows in whose name it is found. Defaults to all.
        seeds (sequence[int], optional): In place of the protocol's. Defaults to None.

    Raises:
        UserInputError: If a table is unknown, no row fits, or an option of a row does not fit its config.
    """
    found = {}
    context = place.identity()
    for table in chosen_tables(protocol, tables):
        for row in (row for row in table.rows if re.search(only, row.name)):
            key = settings_key(row, protocol.settings)
            for seed in (seeds if seeds is not None and row.kind == 'student' else row.seeds):
                name = f'{re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")}-{key}-{context}-s{seed}'
                found.setdefault(
                    (key, seed), ProtocolRun(row, seed, key, place.work_dir / run_folder(place.work_dir, name)))
    if not found:
        raise UserInputError(f'No row of the tables has {only!r} in its name; see `python -m lab.evidence list`.')
    return sorted(found.values(), key=lambda run: run.seed)


def run_folder(work_dir: Path, name: str) -> str:
    """The folder of a run: found by its hashes, so that a row may be renamed."""
    tail = '-'.join(name.split('-')[-3:])
    return next((path.name for path in sorted(work_dir.glob(f'*-{tail}'))), name)


def chosen_tables(protocol: Protocol, names: Sequence[str]) -> list[ProtocolTable]:
    """Tables by name, or all.

    Raises:
        UserInputError: If one is unknown.
    """
    unknown = [name for name in names if name not in protocol.tables]
    if unknown:
        raise UserInputError(f'The protocol has the tables {", ".join(protocol.tables)}, not {unknown[0]!r}.')
    return [protocol.tables[name] for name in names or protocol.tables]


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process has a folder for itself, until the end of the block.

    The lock is the system's, on a file of the folder: it ends with the process, however that ends. The file holds the
    number of the process that has it, or had it last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def run_all(runs: Sequence[ProtocolRun], protocol: Protocol, place: Place, docs: Path) -> dict[str, str]:
    """Make what is not there; runs that another process has are left to it, and results are collected after each.

    Returns:
        dict: What failed: run -> the last line of the error. It is tried again by the next call.
    """
    failures = {}
    for number, run in enumerate(runs, start=1):
        with claimed(run.folder) as mine:
            if not mine or run.result is not None:
                continue
            print(f'[{number}/{len(runs)}] {run.row.name}, seed {run.seed}', flush=True)
            try:
                result = make(run, protocol.settings, place)
            except Exception as error:  # whatever one row does, the others go on
                failures[run.folder.name] = f'{type(error).__name__}: {error}'.splitlines()[0]
                write_whole(run.folder / 'error.txt', traceback.format_exc())
                print(f'  failed: {failures[run.folder.name]}', flush=True)
                continue
            write_whole(run.folder / 'result.json', json.dumps(result, indent=1) + '\n')
            (run.folder / 'error.txt').unlink(missing_ok=True)
            scores = ', '.join(f'{key} {value:.4g}' for key, value in result['scores'].items())
            print(f'  {scores}; {result["seconds"]:.0f} s and {result["evaluation_seconds"]:.0f} s', flush=True)
        collect(protocol, place, docs)
    return failures


def make(run: ProtocolRun, settings: ProtocolSettings, place: Place) -> dict:
    """Train and score, or score alone what is not trained."""
    result = dict(key=run.key, seed=run.seed, passes=run.row.passes, steps=0, seconds=0., cpu_seconds=0.,
                  step_seconds=0., cache_seconds=0., cache_cpu_seconds=0., logged={}, **environment())
    if run.row.kind == 'pixels':
        return scored(result, lambda: dict(scores=score_pixels(normaliser(), place)))
    cfg = resolve(run.row, settings)
    if run.row.kind == 'teacher':
        return scored(result, lambda: teacher_scores(cfg.model.target_generator, settings, place))
    start = student_start(cfg.model.backbone, run.seed, place.work_dir / 'starts')
    if run.row.passes:
        placed_cfg, taken = placed(cfg, place, run.seed, run.folder, start)
        result.update(taken, **train(placed_cfg, start))
    state = result.pop('state', None) or start_state(start)
    student = frozen_student(cfg.model.backbone, state)
    teacher = base_config(settings.read_out_config).model.target_generator
    return scored(result, lambda: student_scores(student, teacher, settings, place))


def scored(result: dict, score) -> dict:
    """``result`` with what ``score()`` adds and how long it took."""
    begin = time.perf_counter()
    result = dict(result, **score())
    return dict(result, evaluation_seconds=round(time.perf_counter() - begin, 1))


def student_scores(student, target_generator: dict, settings: ProtocolSettings, place: Place) -> dict:
    """Of the last block and of the one before, and the read-out KL."""
    by_block = score_network(student, normaliser(), place, settings, (-1, -2))
    return dict(scores=dict(last_two(by_block[-1], by_block[-2]),
                            read_out=read_out(student, target_generator, normaliser(), place)))


def teacher_scores(target_generator: dict, settings: ProtocolSettings, place: Place) -> dict:
    """Of the tapped block and of the one before; and of every block."""
    teacher, tapped = whole_teacher(target_generator, place.teacher), target_generator['block']
    by_block = score_network(teacher, normaliser(), place, settings, range(1, len(teacher.layers) + 1))
    return dict(scores=last_two(by_block[tapped], by_block[tapped - 1]), blocks=by_block)


def last_two(last: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Scores of two blocks under one name each."""
    return {**last, **{f'{metric}_before': value for metric, value in before.items()}}


def normaliser():
    """mmpretrain's normalisation of the configs."""
    return MODELS.build(dict(type='mmpretrain.SelfSupDataPreprocessor', to_rgb=True, mean=[123.675, 116.28, 103.53],
                             std=[58.395, 57.12, 57.375]))


def start_state(start: Path) -> dict:
    """The student's weights in a file of :func:`student_start`."""
    tensors = load_checkpoint_safely(start)['state_dict']
    return {key.removeprefix('backbone.'): value for key, value in tensors.items()}


def collect(protocol: Protocol, place: Place, docs: Path) -> None:
    """Write what there is into ``<docs>/<table>.json``; what other machines left there of the same settings stays."""
    docs.mkdir(parents=True, exist_ok=True)
    context = place.identity()
    found = {}
    for file in sorted(place.work_dir.glob(f'*-{context}-s*/result.json')):
        result = json.loads(file.read_text())
        found[result['key'], result['seed']] = result
    with waited_for(place.work_dir / 'collect.lock'):
        for table in protocol.tables.values():
            write_table(table, protocol.settings, found, docs / f'{table.name}.json')


def write_table(table: ProtocolTable, settings: ProtocolSettings, found: dict[tuple, dict], path: Path) -> None:
    """Merge results into a table's file: one line a run."""
    there = read_runs(path)
    rows = []
    for row in table.rows:
        key = settings_key(row, settings)
        runs = {run['seed']: run for run in there.get(row.name, []) if run['key'] == key}
        runs.update({result['seed']: result for (other, _), result in found.items() if other == key})
        rows.append(dict(name=row.name, runs=[runs[seed] for seed in sorted(runs)]))
    if any(row['runs'] for row in rows):
        lines = [f'  {{"name": {json.dumps(row["name"])}, "runs": [' + ','.join(
            f'\n   {json.dumps(run)}' for run in row['runs']) + ']}' for row in rows]
        write_whole(path, f'{{"table": {json.dumps(table.name)}, "rows": [\n' + ',\n'.join(lines) + ']}\n')


def read_runs(path: Path) -> dict[str, list[dict]]:
    """Runs of every row in a table's file; nothing without one."""
    if not path.is_file():
        return {}
    return {row['name']: row['runs'] for row in json.loads(path.read_text())['rows']}
