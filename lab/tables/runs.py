"""Run a table of the paper row by row, so that a later call takes over what is complete and goes on with the rest."""
import fcntl
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

from mimhd_mm.downstream.evaluate import evaluate
from mimhd_mm.downstream.inputs import check_options
from mimhd_mm.downstream.settings import Options, shipped_settings
from mimhd_mm.engine.commands import call_tool, logged
from mimhd_mm.engine.loading import build_untrained
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.project import environment
from mimhd_mm.weights.checkpoint_files import newest_checkpoint
from mimhd_mm.weights.writing import write_whole

from .evaluation import check_run, evaluation_folder, evaluation_options
from .plan import SeedRun, TableOptions, plan_row, selects_heads
from .report import write_report
from .rows import PaperTable, choose_rows

#: kinds of keys in the log of a pre-training that are kept for the table
LOGGED = ('head_entropy', 'head_coverage', 'head_spread')


def run_table(table: PaperTable, numbers: Sequence[int] | None, options: TableOptions, command: str
              ) -> dict[str, str]:
    """Run what has no result yet; write the table before the first run and after every one.

    Args:
        table (PaperTable): Which.
        numbers (sequence[int], optional): Rows to run; the others are shown with what is there. None runs all.
        options (TableOptions): What is asked for.
        command (str): The command line, for the table.

    Returns:
        dict: What failed: row and seed -> a sentence.

    Raises:
        UserInputError: If anything does not fit, before the first run.
    """
    chosen = choose_rows(table, numbers)
    check_table_options(options)
    plans: dict[int, list[SeedRun]] = {}
    for row in table.rows:
        try:
            plans[row.number] = plan_row(row, options)
        except UserInputError:
            if row.number in chosen:
                raise
            plans[row.number] = []
        if numbers and row.number in chosen and not plans[row.number]:
            source = row.sources.get(options.kind)
            raise UserInputError(f'Row {row.number} of {table.name} cannot be run: ' + (
                f'no file {source["checkpoint"]!r}; write it with tools/model_converters/vit_to_mmpretrain.py.'
                if source else 'it has no miniature; leave --mini out or choose other --rows.'))
    if options.heads and not any(selects_heads(run.cfg) for number in chosen for run in plans[number] if run.cfg):
        raise UserInputError(f'--heads is for rows with a SelectHeadMatcher, and none of the rows '
                             f'{", ".join(map(str, chosen))} of {table.name} has one; leave it out.')
    for number in chosen:
        missing = [run for run in plans[number] if not all(is_complete(run, task, options) for task in options.tasks)]
        for run in missing[:1]:  # seeds make no difference to what can be checked
            check_run(run, options)

    failures: dict[tuple[int, int], str] = {}
    write_report(table, plans, failures, options, command)
    for row in table.rows:
        for run in plans[row.number] if row.number in chosen else []:
            print(f'\n=== {table.name}, row {row.number} of {len(table.rows)}: {row.name}; seed {run.seed}', flush=True)
            try:
                execute(run, options)
            except UserInputError as error:
                failures[row.number, run.seed] = str(root_cause(error))
            except Exception as error:  # out of memory, say: the other rows may do
                traceback.print_exc()
                failures[row.number, run.seed] = ' '.join(f'{type(error).__name__}: {error}'.split())
            if (row.number, run.seed) in failures:
                print(f'failed: {failures[row.number, run.seed]}', file=sys.stderr, flush=True)
            write_report(table, plans, failures, options, command)
    return {f'row {number}, seed {seed}': sentence for (number, seed), sentence in failures.items()}


def check_table_options(options: TableOptions) -> None:
    """Look at what does not depend on the rows.

    Raises:
        UserInputError: With the first problem.
    """
    if options.seeds < 1:
        raise UserInputError(f'--seeds is 1 or more, not {options.seeds}.')
    for name in ('teacher', 'heads'):
        file = getattr(options, name)
        if file and not Path(file).is_file():
            raise UserInputError(f'--{name}: no file {file!r}; give the path of one that exists.')
    check_options(Options(
        checkpoints=[], settings=shipped_settings()[options.kind], tasks=options.tasks, work_dir=options.work_dir,
        gpus=options.gpus, shorten=options.shorten))
    if not 0 < options.task_length <= 1:
        raise UserInputError(f'--shorten-tasks is above 0 and up to 1, not {options.shorten_tasks}.')


def is_complete(run: SeedRun, task: str, options: TableOptions) -> bool:
    """Whether the score of a task is there."""
    try:
        return (evaluation_folder(run, task, options) / 'score.json').is_file()
    except UserInputError:  # its data are not here; check_run says so
        return False


def execute(run: SeedRun, options: TableOptions) -> None:
    """Pre-train and evaluate what has not been yet.

    Raises:
        UserInputError: If a part of it fails.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder):
        if run.cfg is not None:
            pretrain(run, options)
        for task in options.tasks:
            score(run, task, options)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other calls out of a folder; the lock goes with the process.

    Raises:
        UserInputError: If another call is at work there.
    """
    with open(folder / 'lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserInputError(f'Another call is at work in {str(folder)!r}; wait for it and call this again.'
                                 ) from error
        yield


def pretrain(run: SeedRun, options: TableOptions) -> None:
    """Train, or go on where the last checkpoint is, unless it is done; ``pretrain.json`` is written last.

    A row without training writes its student's start instead.

    Raises:
        UserInputError: If the training fails.
    """
    done = run.folder / 'pretrain.json'
    if done.is_file():
        print(f'there already: {run.checkpoint}')
        return
    start, config, epochs = time.time(), run.folder / 'config.py', run.cfg.train_cfg.max_epochs
    write_whole(config, run.text)
    saved = None if run.untrained else newest_checkpoint(Path(run.cfg.work_dir))
    arguments = [*(['--resume', saved] if saved else []), *(['--amp'] if options.amp else [])]
    if run.untrained:
        epochs = 0
        save_untrained(run)
    elif options.gpus > 1:
        call_tool('dist_train.sh', config, options.gpus, *arguments, total=epochs)
    else:
        call_tool('train.py', config, *arguments, total=epochs)
    if not run.checkpoint.is_file():
        raise UserInputError(f'The training in {str(run.folder)!r} ended without {run.checkpoint.name!r}; remove that '
                             f'folder and call this again.')
    write_whole(done, json.dumps(dict(
        epochs=epochs, seconds=round(time.time() - start, 1), resumed=bool(saved),
        logged=last_figures(Path(run.cfg.work_dir)), environment=environment()), indent=2) + '\n')


def save_untrained(run: SeedRun) -> None:
    """Write a checkpoint of the model before the first step."""
    with DefaultScope.overwrite_default_scope(run.cfg.get('default_scope', 'mmpretrain')):
        model = build_untrained(run.cfg, run.seed)
    run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=dict(cfg=run.cfg.pretty_text, epoch=0), state_dict=model.state_dict()), run.checkpoint)


def last_figures(folder: Path) -> dict[str, float]:
    """The head weights' figures in the last line about training, if it has any."""
    for entry in reversed(logged(folder)):
        if 'loss' in entry:
            return {key: value for key, value in entry.items() if key.startswith(LOGGED)}
    return {}


def score(run: SeedRun, task: str, options: TableOptions) -> None:
    """Evaluate a task, unless it is done; ``score.json`` is written last.

    Raises:
        UserInputError: If it fails.
    """
    folder = evaluation_folder(run, task, options)
    if is_complete(run, task, options):
        print(f'there already: {folder / "score.json"}')
        return
    asked = evaluation_options(run, task, options)
    asked = Options(**{**vars(asked), 'work_dir': str(folder)})
    result, = evaluate(asked, f'run_table.py, {task}')
    if torch.cuda.is_available():  # the next training is a process of its own
        torch.cuda.empty_cache()
    keys = ('task', 'score', 'seconds', 'resumed', 'student_sha256', 'environment')
    write_whole(folder / 'score.json', json.dumps({key: result[key] for key in keys}, indent=2) + '\n')
