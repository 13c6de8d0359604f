"""Kill, interrupt and corrupt a training at random, resume it, and compare its end with an undisturbed one's.

Every training is a process of its own, forked from this one, which has imported everything already: starting Python
and torch anew would take longer than the training. The kills are real (SIGKILL). A fault's moment is drawn from the
time the undisturbed run took; for faults inside an evaluation or the writing of a checkpoint the process tells, through
memory that both share, what it is doing.
"""
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import statistics
import struct
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.hooks import INTERRUPTED_STATUS
from mimhd_mm.errors import UserInputError
from mimhd_mm.markdown import markdown_table
from mimhd_mm.weights.checkpoint_files import newest_checkpoint
from mimhd_mm.weights.writing import write_whole

#: kind of fault -> what is done
KINDS = {
    'kill': 'SIGKILL at a random moment',
    'kill-writing': 'SIGKILL while a checkpoint is written',
    'kill-evaluating': 'SIGKILL in an evaluation or probe',
    'terminate': 'SIGTERM at a random moment',
    'truncate': 'SIGKILL, then the newest checkpoint cut short',
    'flip': 'SIGKILL, then one bit of the newest checkpoint flipped',
    'half-written': 'SIGKILL, then a half-written temporary file left behind',
}
CORRUPTIONS = ('truncate', 'flip', 'half-written')
DISTURBANCES = ('kill', 'kill', 'kill-writing', 'kill-evaluating', 'terminate')  # most at any moment
#: what a training is doing, as it tells
STARTING, TRAINING, WRITING, EVALUATING = range(4)
#: seconds after which a process that does nothing is given up; our choice
PATIENCE = 300.


class SoakHook(Hook):
    """Write losses, memory and what is being done, for the process that looks on.

    Args:
        shared (mmap.mmap): 16 bytes: what is being done, and after how many iterations.
        file (Path): Gets a line of JSON an iteration.
    """

    priority = 'VERY_HIGH'

    def __init__(self, shared: mmap.mmap, file: Path) -> None:
        self.shared, self.file = shared, open(file, 'ab', buffering=0)

    def _tell(self, runner: Runner, what: int) -> None:
        self.shared[:16] = struct.pack('qq', what, runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Training."""
        self._tell(runner, TRAINING)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writing, until the next iteration or evaluation."""
        self._tell(runner, WRITING)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Evaluating."""
        self._tell(runner, EVALUATING)

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluating too: probes come at the end of an epoch, before its checkpoint."""
        self._tell(runner, EVALUATING)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """A line about the iteration; losses in hexadecimal, so that equal means equal."""
        losses = {key: float(value).hex() for key, value in outputs.items() if 'loss' in key}
        line = json.dumps(dict(iter=runner.iter, losses=losses, memory=resident_memory()))
        self.file.write(f'{line}\n'.encode())


@dataclass
class Fault:
    """One disturbance.

    Attributes:
        kind (str): Of :data:`KINDS`.
        doing (str): What the training was doing.
        iteration (int): After how many iterations.
    """
    kind: str
    doing: str
    iteration: int


@dataclass
class Round:
    """A run from its first iteration to its last, with faults in between.

    Attributes:
        faults (list[Fault]): In order.
        starts (int): Processes it took.
        identical (bool): Whether its end and every iteration's losses are those of the undisturbed run.
        different (list[str]): What is not, if anything.
        seconds (float): Duration.
    """
    faults: list[Fault] = field(default_factory=list)
    starts: int = 0
    identical: bool = False
    different: list[str] = field(default_factory=list)
    seconds: float = 0.


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


class Training:
    """Starts a config's training in forked processes and looks on.

    Args:
        cfg (Config): Complete but for ``work_dir``.
        folder (Path): Work dir.
    """

    def __init__(self, cfg: Config, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        self.shared = mmap.mmap(-1, 16)
        self.log = folder.with_suffix('.jsonl')
        self.pid = 0

    def start(self) -> None:
        """Start a process that trains, or goes on from the newest checkpoint that is whole."""
        self.shared[:16] = struct.pack('qq', STARTING, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._train()

    def _train(self) -> None:
        """In the process; never returns."""
        status = 1
        try:
            output = os.open(self.folder.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            cfg = Config(self.cfg.to_dict())
            cfg.work_dir, cfg.resume = str(self.folder), True
            cfg.experiment_name = f'{self.folder.name}_{os.getpid()}'
            cfg.setdefault('runner_type', 'mimhd_mm.ResumableRunner')
            runner = RUNNERS.build(cfg)
            runner.register_hook(SoakHook(self.shared, self.log))
            runner.train()
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds: float | None = None, doing: int | None = None) -> int | None:
        """Wait for the process to end, or for a time, or until it does something.

        Args:
            seconds (float, optional): None waits :data:`PATIENCE`.
            doing (int, optional): One of the constants of this file.

        Returns:
            int | None: Its status, negative for a signal; None if it lives.
        """
        end = time.monotonic() + (PATIENCE if seconds is None else seconds)
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if doing is not None and self.state()[0] == doing:
                return None
            time.sleep(0.0005)
        return None

    def state(self) -> tuple:
        """What the process is doing, and after how many iterations."""
        return struct.unpack('qq', self.shared[:16])

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end.

        Returns:
            int: The status, negative for a signal.

        Raises:
            UserInputError: If the process does not end.
        """
        os.kill(self.pid, number)
        status = self.wait()
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise UserInputError(f'A training did not end within {PATIENCE:.0f} s of signal {number}; see '
                                 f'{str(self.folder.with_suffix(".log"))!r}.')
        return status

    def losses(self) -> dict[int, dict]:
        """The losses of the last pass over each iteration; lines that a kill cut short are left out."""
        found = {}
        for line in self._lines():
            found[line['iter']] = line['losses']
        return found

    def memory(self) -> list[int]:
        """Resident bytes after every iteration."""
        return [line['memory'] for line in self._lines()]

    def _lines(self) -> list[dict]:
        lines = []
        for line in self.log.read_bytes().split(b'\n') if self.log.is_file() else []:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                pass
        return lines


def final_state(folder: Path) -> dict[str, object]:
    """Weights, optimiser and schedules of the last checkpoint, flat, with a digest in place of each tensor."""
    path = newest_checkpoint(folder)
    saved = load_checkpoint_safely(path)
    flat: dict[str, object] = dict(epoch=saved['meta']['epoch'], iter=saved['meta']['iter'])

    def flatten(key: str, value: object) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                flatten(f'{key}.{name}', part)
        elif isinstance(value, (list, tuple)):
            for number, part in enumerate(value):
                flatten(f'{key}.{number}', part)
        elif isinstance(value, Tensor):
            content = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            flat[key] = hashlib.sha256(content).hexdigest()
        else:
            flat[key] = repr(value)

    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        flatten(part, saved.get(part))
    return flat


def differences(one: dict, other: dict) -> list[str]:
    """Keys whose values differ or that only one has."""
    return sorted(str(key) for key in {*one, *other} if one.get(key) != other.get(key))


def truncate(path: Path, draw: random.Random) -> None:
    """Leave a part of a file."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit of a file."""
    place = draw.randrange(path.stat().st_size)
    with open(path, 'r+b') as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << draw.randrange(8)]))


def corrupt(kind: str, folder: Path, draw: random.Random) -> bool:
    """Do one of :data:`CORRUPTIONS` to a work dir; False where it has no checkpoint."""
    newest = newest_checkpoint(folder)
    if newest is None:
        return False
    if kind == 'half-written':
        content = newest.read_bytes()
        half = content[:draw.randrange(len(content))]
        (folder / f'{newest.name}.{os.getpid()}.tmp').write_bytes(half)
    else:
        {'truncate': truncate, 'flip': flip}[kind](newest, draw)
    return True


class Soak:
    """Rounds of one training.

    Args:
        cfg (Config): Of the training, complete but for ``work_dir``; best with a checkpoint every few iterations.
        folder (Path): For everything that is written.
        seed (int): Of the faults. Defaults to 0.
    """

    def __init__(self, cfg: Config, folder: Path, seed: int = 0) -> None:
        self.cfg, self.folder = cfg, folder
        self.draw = random.Random(seed)
        self.rounds: list[Round] = []

    def undisturbed(self, memory_factor: int = 1) -> None:
        """The run that the others are compared with, and one to see the memory over many iterations.

        Args:
            memory_factor (int): How many times longer the second run is; 1 takes the first for both. Defaults to 1.

        Raises:
            UserInputError: If one fails.
        """
        training, self.start_seconds, self.seconds = self._run_whole('undisturbed', self.cfg)
        self.losses, self.memory = training.losses(), training.memory()
        self.state = final_state(training.folder)
        if memory_factor > 1:
            longer = Config(self.cfg.to_dict())
            key = 'max_epochs' if 'max_epochs' in longer.train_cfg else 'max_iters'
            longer.train_cfg[key] *= memory_factor
            self.memory = self._run_whole('memory', longer)[0].memory()

    def _run_whole(self, name: str, cfg: Config) -> tuple:
        """The training, the seconds to its first iteration, and all of its seconds."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        for ending in ('jsonl', 'log'):
            (self.folder / f'{name}.{ending}').unlink(missing_ok=True)
        training, start = Training(cfg, self.folder / name), time.monotonic()
        training.start()
        status = training.wait(doing=TRAINING)
        began = time.monotonic() - start
        while status is None:
            status = training.wait(5)
        if status or not training.losses() or newest_checkpoint(training.folder) is None:
            raise UserInputError(f'The undisturbed training ended with status {status}; see '
                                 f'{str(self.folder / name)!r}.log.')
        return training, began, time.monotonic() - start

    def disturbed(self, kinds: Sequence[str]) -> Round:
        """A run with these faults, in this order, as far as it lasts; resumed after each until it ends by itself."""
        folder, start = self.folder / 'disturbed', time.monotonic()
        for path in (folder.with_suffix('.jsonl'), folder.with_suffix('.log')):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        training, result = Training(self.cfg, folder), Round()
        for kind in [*kinds, None]:
            training.start()
            result.starts += 1
            status = self._wait(training, kind)
            if status is None:
                doing, iteration = training.state()
                status = training.signal(signal.SIGTERM if kind == 'terminate' else signal.SIGKILL)
                if status and (kind not in CORRUPTIONS or corrupt(kind, folder, self.draw)):
                    names = ('starting', 'training', 'writing a checkpoint', 'evaluating')
                    result.faults.append(Fault(kind, names[doing], iteration))
            if status not in (0, -signal.SIGKILL, -signal.SIGTERM, INTERRUPTED_STATUS):
                raise UserInputError(f'A training ended with status {status} after {kind!r}; see '
                                     f'{str(folder.with_suffix(".log"))!r}.')
            if status == 0:
                break
        result.different = differences(self.state, final_state(folder)) + [
            f'losses of iteration {key}' for key in differences(self.losses, training.losses())]
        result.identical = not result.different
        result.seconds = time.monotonic() - start
        self.rounds.append(result)
        return result

    def _wait(self, training: Training, kind: str | None) -> int | None:
        """Wait for the moment of a fault; the status of the process if it ends before that."""
        if kind is None:
            return training.wait()
        if kind in ('kill-writing', 'kill-evaluating'):
            return training.wait(doing=WRITING if kind == 'kill-writing' else EVALUATING)
        if self.draw.random() < 0.1:
            return training.wait(self.draw.uniform(0, self.start_seconds))
        status = training.wait(doing=TRAINING)
        return status if status is not None else training.wait(
            self.draw.uniform(0, 0.5 * (self.seconds - self.start_seconds)))

    def meet(self, kills: int, corruptions: int, minutes: float | None = None, faults: int = 5) -> Iterator[Round]:
        """Go round until there were so many kills and corruptions, or the time is up; gives each round when it ended.

        Args:
            kills (int): SIGKILLs without a corruption, at any moment.
            corruptions (int): Of files.
            minutes (float, optional): A round that has begun is ended. None sets no limit. Defaults to None.
            faults (int): Drawn for a round. Defaults to 5.
        """
        end = time.monotonic() + 60 * minutes if minutes is not None else float('inf')
        while time.monotonic() < end:
            done = self.report()
            groups = [group for group, missing in ((DISTURBANCES, done['kills'] < kills),
                                                   (CORRUPTIONS, done['corruptions'] < corruptions))
                      if missing or minutes is not None]
            if not groups:
                break
            yield self.disturbed([self.draw.choice(self.draw.choice(groups)) for _ in range(faults)])

    def report(self) -> dict:
        """Everything that was found, for JSON."""
        faults = [(fault, one) for one in self.rounds for fault in one.faults]
        table = {kind: dict(tried=sum(fault.kind == kind for fault, _ in faults),
                            identical=sum(fault.kind == kind and one.identical for fault, one in faults))
                 for kind in KINDS}
        return dict(
            rounds=len(self.rounds), identical=sum(one.identical for one in self.rounds), faults=table,
            kills=sum(fault.kind.startswith('kill') for fault, _ in faults),
            corruptions=sum(fault.kind in CORRUPTIONS for fault, _ in faults),
            iterations=len(self.losses), seconds_undisturbed=round(self.seconds, 2),
            memory=memory_growth(self.memory), details=[asdict(one) for one in self.rounds])


def memory_growth(memory: Sequence[int]) -> dict:
    """Resident memory over the iterations of a run, in MiB.

    The growth is that of the medians of the second and of the last quarter: the first has warm-up in it.
    """
    quarter = len(memory) // 4
    if not quarter:
        return dict(iterations=len(memory))
    early = statistics.median(memory[quarter:2 * quarter]) / 2**20
    late = statistics.median(memory[-quarter:]) / 2**20
    return dict(iterations=len(memory), second_quarter_mib=round(early, 2), last_quarter_mib=round(late, 2),
                growth_mib=round(late - early, 2), growth_kib_an_iteration=round(
                    (late - early) * 1024 / (len(memory) * 0.5), 3))


def markdown(report: dict) -> str:
    """The table of a report."""
    rows = [[sentence, row['tried'], row['identical']] for kind, sentence in KINDS.items()
            for row in [report['faults'][kind]] if row['tried']]
    lines = [markdown_table(['fault', 'times', 'in runs that ended bit-identical'], rows, 'lll')]
    memory = report['memory']
    lines += ['', f'{report["rounds"]} runs of {report["iterations"]} iterations, {report["identical"]} of them ended '
                  f'with the losses, weights, optimiser and schedules of the undisturbed run, bit by bit.']
    if 'growth_mib' in memory:
        lines.append(f'Memory of the undisturbed process: {memory["second_quarter_mib"]} MiB in the second quarter of '
                     f'{memory["iterations"]} iterations, {memory["last_quarter_mib"]} MiB in the last.')
    return '\n'.join(lines) + '\n'


def merge(reports: Sequence[dict]) -> dict:
    """One report of several of the same configuration; the memory is that of the longest run."""
    merged = dict(max(reports, key=lambda report: report['memory']['iterations']))
    for key in ('rounds', 'identical', 'kills', 'corruptions'):
        merged[key] = sum(report[key] for report in reports)
    merged['faults'] = {kind: {key: sum(report['faults'][kind][key] for report in reports)
                               for key in ('tried', 'identical')} for kind in KINDS}
    merged['details'] = [one for report in reports for one in report['details']]
    return merged


def write_report(report: dict, folder: Path) -> None:
    """``soak.json`` and ``soak.md``."""
    write_whole(folder / 'soak.json', (json.dumps(report, indent=1) + '\n').encode())
    write_whole(folder / 'soak.md', markdown(report).encode())
