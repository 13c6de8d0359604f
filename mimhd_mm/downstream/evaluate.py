"""Evaluate students downstream: plan and check every run, run it, write one table."""
import copy
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from ..engine.commands import call_tool, logged
from ..engine.launch import read_config_file, use_amp
from ..engine.loading import build_preprocessor, build_untrained
from ..engine.preflight import check_config
from ..engine.preflight.pretrained import check_pretrained
from ..errors import UserInputError
from ..evaluation import KNNProbe
from ..evaluation.tasks import METRICS, SEGMENTATIONS
from ..project import environment
from ..registry import DATASETS
from ..weights.checkpoint_files import newest_checkpoint
from ..weights.mae_files import read_mae_file
from ..weights.writing import write_whole
from .inputs import check_folder, check_options, read_students
from .settings import EvaluatedStudent, Options, config_text, sha256_of_text
from .table import write_table


@dataclass(frozen=True)
class TaskRun:
    """One task of one student.

    Attributes:
        student (EvaluatedStudent): What is evaluated.
        task (str): Of :data:`METRICS`.
        folder (Path): For config and result; logs and checkpoints go into `run` below it.
        text (str): The config as it is written.
        cfg (Config): The same, read.
    """
    student: EvaluatedStudent
    task: str
    folder: Path
    text: str
    cfg: Config

    @property
    def identity(self) -> dict:
        """The inputs that a stored result must have been computed from."""
        return dict(student=self.student.name, task=self.task, student_sha256=self.student.sha256,
                    config_sha256=sha256_of_text(self.text))

    @property
    def length(self) -> int:
        """Epochs or iterations of the training."""
        return self.cfg.train_cfg.get('max_iters') or self.cfg.train_cfg.max_epochs

    def result(self) -> dict | None:
        """The result of an earlier call, if it finished and belongs to this run."""
        file = self.folder / 'result.json'
        found = json.loads(file.read_text()) if file.is_file() else {}
        return found if self.identity.items() <= found.items() else None


def evaluate(options: Options, command: str) -> list[dict]:
    """Run every task without a result and write ``table.md``, ``table.csv`` and ``table.json`` into the work dir.

    The score of a training is that of its final weights. The best of several evaluations would be selected on the
    images that are scored.

    Args:
        options (Options): What is asked for.
        command (str): The command line, for the table.

    Returns:
        list[dict]: The results, one a task and student.

    Raises:
        UserInputError: If anything does not fit, before the first run; or if a run fails.
    """
    check_options(options)
    students = read_students(options)
    runs = plan(options, students)
    results = []
    for number, run in enumerate(runs, start=1):
        print(f'\n== {number}/{len(runs)}  {run.student.name}: {run.task}', flush=True)
        result = run.result()
        if result is None:
            result = execute(run, options)
        else:
            print(f'exists already: {run.folder / "result.json"}')
        print(f'{result["score"]:.2f} %', flush=True)
        results.append(result)
        write_table(students, results, options, command)
    return results


def plan(options: Options, students: list[EvaluatedStudent]) -> list[TaskRun]:
    """Every run, each checked as ``tools/train.py`` will check it.

    Raises:
        UserInputError: With the first problem.
    """
    runs, looked_at = [], set()
    for student in students:
        for task in [task for task in METRICS if task in options.tasks]:
            path = options.settings.configs[student.width]['linear' if task == 'knn' else task]
            folder = Path(options.work_dir).resolve() / student.name / task
            text = config_text(read_config_file(path), student, task, folder, options)
            cfg = Config.fromstring(text, '.py')
            check_folder(folder, text)
            if task == 'knn':
                check_pretrained(cfg)
            else:
                if options.amp:
                    use_amp(cfg)
                check_config(cfg)
            if task not in SEGMENTATIONS and (path, task) not in looked_at:
                check_labels(cfg, task)
            looked_at.add((path, task))
            runs.append(TaskRun(student, task, folder, text, cfg))
    return runs


def check_labels(cfg: Config, task: str) -> None:
    """List the labelled images of a classification task.

    Raises:
        UserInputError: If labels are missing or differ between the splits, or k-NN has fewer images than neighbours.
    """
    if task == 'knn':
        build_probe(cfg)
        return
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[]))


def execute(run: TaskRun, options: Options) -> dict:
    """Run or resume one task, and write its ``result.json``.

    Raises:
        UserInputError: If it fails.
    """
    start, config = time.time(), run.folder / 'config.py'
    run.folder.mkdir(parents=True, exist_ok=True)
    write_whole(config, run.text)
    saved = newest_checkpoint(run.folder / 'run')
    if run.task == 'knn':
        score = score_knn(run)
    else:
        arguments = [*(['--resume', saved] if saved else []), *(['--amp'] if options.amp else [])]
        if options.gpus > 1:
            call_tool('dist_train.sh', config, options.gpus, *arguments, total=run.length)
        else:
            call_tool('train.py', config, *arguments, total=run.length)
        score = last_score(run)
    result = dict(**run.identity, score=score, seconds=round(time.time() - start, 1), resumed=bool(saved),
                  settings=options.settings.name, shorten=options.shorten, seed=options.seed, gpus=options.gpus,
                  amp=options.amp, environment=environment())
    write_whole(run.folder / 'result.json', json.dumps(result, indent=2) + '\n')
    return result


def last_score(run: TaskRun) -> float:
    """Top-1 or mIoU, in percent, of the evaluation after the last epoch or iteration.

    Raises:
        UserInputError: If the logs have none.
    """
    key = METRICS[run.task]
    scores = [line[key] for line in logged(run.folder / 'run') if key in line and line['step'] == run.length]
    if not scores:
        raise UserInputError(f'The run in {str(run.folder)!r} was stopped in its last evaluation; remove that folder '
                             f'and call this again.')
    return scores[-1]


def build_probe(cfg: Config) -> KNNProbe:
    """Build a k-NN probe on all images of a classification config, with its validation pipeline.

    Raises:
        UserInputError: If labels are missing or differ, or images are fewer than neighbours.
    """
    loader = cfg.val_dataloader
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return KNNProbe(dict(loader.dataset, split='train'), dict(loader.dataset),
                        batch_size=loader.batch_size, num_workers=loader.num_workers)


def score_knn(run: TaskRun) -> float:
    """Top-1 in percent of weighted k-NN on the mean patch token of the frozen student."""
    cfg = copy.deepcopy(run.cfg)
    cfg.model.backbone.init_cfg = None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # mmengine would log the start of every parameter
    try:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            backbone = build_untrained(cfg, cfg.randomness.seed).backbone
            preprocess = build_preprocessor(cfg).to(device)
    finally:
        logger.setLevel(level)
    if run.student.path:  # names and shapes have been compared; positions are resized, `ln2` is not used
        backbone.load_state_dict(read_mae_file(run.student.path).encoder, strict=False)
    return build_probe(cfg).score_backbone(backbone.to(device), preprocess)
