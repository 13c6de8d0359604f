"""1, 2 and 4 processes, and gradient accumulation, train alike; a process that dies ends the others."""
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimhd_mm.models import AttentionHeadMatcher

from .many_processes import EPOCHS, SCENARIOS

ROOT = Path(__file__).parents[2]
LOSS = 5e-6  # relative, float32: sums in another order
HEADS = {'': 1e-5, 'transport': 5e-4}  # absolute, of W, which is below 1; transport divides by distances' small spread
STEPS = 2 * EPOCHS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == 'nt', reason='processes are forked')]


@pytest.fixture(scope='module')
def outcome(tmp_path_factory, teacher_file, image_folder):
    """The folder in which every scenario left what it did, what was printed, and how long all took."""
    folder = tmp_path_factory.mktemp('processes')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.test_engine.many_processes', str(folder), str(teacher_file),
         str(image_folder), *SCENARIOS], cwd=ROOT, capture_output=True, text=True, timeout=600,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout, done.stderr


def parts_of(folder: Path, scenario: str) -> list[dict]:
    return [torch.load(folder / f'{scenario}_{rank}.pth', weights_only=True) for rank in range(SCENARIOS[scenario][0])]


def steps_of(folder: Path, scenario: str) -> list[tuple[dict[str, float], dict[int, tuple[Tensor, ...]]]]:
    """Of each step the mean losses, and by image its masks (V, N), sum of pixels, and W of each pair (M2, M1)."""
    parts, accumulate = parts_of(folder, scenario), SCENARIOS[scenario][2]
    steps = []
    for first in range(0, len(parts[0]['batches']), accumulate):
        batches = [part['batches'][index] for part in parts for index in range(first, first + accumulate)]
        losses = {key: sum(batch['losses'][key] for batch in batches) / len(batches) for key in batches[0]['losses']}
        images = {number: (batch['masks'][:, index], batch['inputs'][index],
                           *(weight[index] for weight in batch['weights'].values()))
                  for batch in batches for index, number in enumerate(batch['numbers'])}
        steps.append((losses, images))
    return steps


@pytest.mark.parametrize('scenario, alone', [
    ('two', 'one'), ('four', 'one'), ('one, accumulated', 'one'), ('two, accumulated', 'one'),
    ('two, transport', 'one, transport')])
def test_the_same_curve_as_one_process_with_the_same_batch(outcome, scenario, alone):
    """Losses, and of every image the augmentation, both masks and W; without `find_unused_parameters`."""
    found, expected = steps_of(outcome[0], scenario), steps_of(outcome[0], alone)
    assert len(found) == len(expected) == STEPS
    for (losses, images), (expected_losses, expected_images) in zip(found, expected):
        assert losses.keys() == expected_losses.keys() >= {'loss', 'loss_qk', 'loss_vv', 'loss_rec'}
        for key, value in expected_losses.items():
            assert losses[key] == pytest.approx(value, rel=LOSS), key
        assert images.keys() == expected_images.keys() and len(images) == 16
        for number, (masks, pixels, *weights) in expected_images.items():
            assert torch.equal(images[number][0], masks) and torch.equal(images[number][1], pixels)
            assert torch.equal(masks[0], ~masks[1])
            for weight, expected_weight in zip(images[number][2:], weights):
                assert (weight - expected_weight).abs().max() <= HEADS['transport' if 'transport' in scenario else '']


def test_the_curves_say_something(outcome):
    """They fall; W differs between images; all images but none twice are in an epoch; epochs differ."""
    steps = steps_of(outcome[0], 'one')
    assert steps[-1][0]['loss'] < steps[0][0]['loss'] * 0.97
    weights = torch.stack([image[2] for image in steps[0][1].values()])  # (B, M2, M1)
    assert weights.std(0).max() > 0.01
    assert len(steps[0][1].keys() | steps[1][1].keys()) == 32 and steps[0][1].keys() != steps[2][1].keys()


@pytest.mark.parametrize('scenario', ['two', 'four', 'two, accumulated', 'two, transport'])
def test_processes_end_with_the_same_weights(outcome, scenario):
    first, *others = [part['state'] for part in parts_of(outcome[0], scenario)]
    for other in others:
        assert first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)


def test_a_bad_loss_of_one_process_is_skipped_by_all(outcome):
    """Process 1's images are NaN at iteration 3; the first process tells of it, and both go on alike."""
    folder = outcome[0]
    first, second = parts_of(folder, 'bad')
    assert (first['skipped'], second['skipped']) == (1, 1) and len(first['batches']) == STEPS
    assert all(torch.equal(value, second['state'][key]) and value.isfinite().all()
               for key, value in first['state'].items())
    log = next((folder / 'bad').glob('*/*.log')).read_text()
    line, = [line for line in log.splitlines() if 'Step skipped at iteration 3' in line]
    assert 'Process 1: loss nan' in line and 'Process 0' not in line and '.png' in line


def test_a_process_that_dies_ends_the_others(outcome):
    """The one that is left is told so by the next reduction, without a timeout; the cause is printed."""
    _, stdout, stderr = outcome
    failed = dict(line.rsplit(': ', 1) for line in stdout.splitlines() if line.endswith(' failed'))
    assert failed == {scenario: '2 failed' if scenario == 'dies' else '0 failed' for scenario in SCENARIOS}
    assert 'dies, process 1: RuntimeError: this process dies at iteration 2' in stderr
    assert 'dies, process 0: ' in stderr


def test_the_launcher_ends_those_that_wait(tmp_path):
    """Process 0 would sleep for ten minutes; tools/dist_train.sh is this launcher."""
    (tmp_path / 'program.py').write_text(
        'import os, time\nif os.environ["RANK"] == "1":\n    raise RuntimeError("out of luck")\ntime.sleep(600)\n')
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'dist_run.py', '--nproc_per_node', '2', '--rdzv_backend',
         'c10d', '--rdzv_endpoint', '127.0.0.1:0', tmp_path / 'program.py'], capture_output=True, text=True,
        timeout=300)
    assert done.returncode != 0 and 'RuntimeError: out of luck' in done.stderr
    assert time.monotonic() - start < 240


def test_what_does_depend_on_the_split():
    """`balance='penalty'` is a divergence of the batch's mean weight: convex, so smaller batches make it larger."""
    matcher = AttentionHeadMatcher(3, 4, balance='penalty')
    weight = torch.randn(8, 3, 4).softmax(-1)  # (B, M2, M1)
    halves = [matcher.penalty(half) for half in weight.chunk(2)]
    assert sum(halves) / 2 > matcher.penalty(weight) + 1e-3
