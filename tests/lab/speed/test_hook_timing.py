"""``lab/speed/hook_time.py``: what hooks take is theirs, and the training is that of the plain Runner."""
import json
import time
import uuid

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lab.robustness.soak_config import tiny_config
from lab.speed.hook_timing import HookTimingRunner, acts, table_rows, time_hooks
from mimhd_mm.engine import ResumableRunner
from mimhd_mm.engine.hooks import HeadRoutingHook
from mimhd_mm.errors import UserInputError
from mimhd_mm.registry import HOOKS

from ...conftest import mimhd_cfg
from ...test_engine.runs import equal, settings, state_of
from ...test_tools.commands import call, error_of

SECONDS = 0.05


class Sleeper(Hook):
    """Sleeps after every iteration, and once before the run, which is no part of training."""

    def before_run(self, runner):
        time.sleep(SECONDS)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(SECONDS)


class Caller(Hook):
    """Calls a moment of its own kind, as a hook does that saves a checkpoint."""

    def after_train_epoch(self, runner):
        runner.call_hook('nap')
        time.sleep(SECONDS)


class Called(Hook):
    """Sleeps three times as long as its caller."""

    def nap(self, runner):
        time.sleep(3 * SECONDS)


def train(kind, teacher_file, image_folder, work_dir, *hooks) -> Runner:
    config = settings(mimhd_cfg(teacher_file), image_folder, dict(type='EpochBasedTrainLoop', max_epochs=2))
    runner = kind.from_cfg(Config(dict(config, work_dir=str(work_dir), experiment_name=uuid.uuid4().hex)))
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def timed(teacher_file, image_folder, tmp_path_factory):
    hooks = (Sleeper(), Caller(), Called(), HeadRoutingHook(interval=3))
    return train(HookTimingRunner, teacher_file, image_folder, tmp_path_factory.mktemp('timed'), *hooks)


@pytest.mark.slow
def test_what_a_hook_takes_is_its_own(timed):
    taken = {one.name: one for one in timed.taken()}
    assert taken['Sleeper'].calls == 12  # 2 epochs of 6 batches, and not the sleep before the run
    assert taken['Sleeper'].seconds >= 12 * SECONDS
    assert taken['Caller'].calls == taken['Called'].calls == 2
    assert taken['Called'].seconds >= 6 * SECONDS
    assert 2 * SECONDS <= taken['Caller'].seconds < taken['Called'].seconds  # without those of the hook that it calls
    assert sum(one.seconds for one in taken.values()) < timed.training_seconds


@pytest.mark.slow
def test_sums_of_the_table(timed):
    *rows, drawing, looking, everything = table_rows(timed)
    assert [row['seconds'] for row in rows] == sorted((row['seconds'] for row in rows), reverse=True)
    drawn, = [row for row in rows if row['hook'] == 'HeadRoutingHook']
    assert drawn['calls'] == 16 and drawn['seconds'] > 0  # before, after, 12 iterations and 2 epochs
    assert looking['hook'] == '**those that draw or probe**'
    assert drawing['seconds'] == looking['seconds'] == drawn['seconds']
    assert everything['seconds'] == pytest.approx(sum(row['seconds'] for row in rows))
    assert everything['percent of training'] == pytest.approx(100 * everything['seconds'] / timed.training_seconds)


@pytest.mark.slow
def test_training_is_that_of_the_plain_runner(timed, teacher_file, image_folder, tmp_path):
    plain = train(ResumableRunner, teacher_file, image_folder, tmp_path, Sleeper(), Caller(), Called(),
                  HeadRoutingHook(interval=3))
    assert equal(state_of(plain), state_of(timed))


def test_only_moments_at_which_a_hook_acts_are_calls():
    assert acts(Sleeper, 'after_train_iter') and not acts(Sleeper, 'before_train_iter')
    assert acts(Called, 'nap')  # none of mmengine's: who has the method has it for a purpose
    assert acts(HOOKS.get('mmengine.IterTimerHook'), 'before_train_iter')  # by a method for several moments


@pytest.mark.slow
def test_the_tool_trains_and_writes_a_table(tmp_path, capsys):
    config, out = tmp_path / 'config.py', tmp_path / 'hooks.json'
    tiny_config(tmp_path).dump(config)
    arguments = (config, '--work-dir', tmp_path / 'run', '--out', out, '--cfg-options', 'train_cfg.max_epochs=2')
    call('lab.speed.hook_time', *arguments)
    printed = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert '\n'.join(content['table']) in printed and content['about']['iterations'] == 20
    hooks = {one['name']: one for one in content['hooks']}
    assert hooks['KNNProbeHook']['kind'] == 'probes' and hooks['KNNProbeHook']['seconds'] > 0
    assert hooks['SafeCheckpointHook']['kind'] == '' and hooks['SafeCheckpointHook']['seconds'] > 0
    assert hooks['ReconstructionHook']['kind'] == 'draws' and hooks['ReconstructionHook']['calls'] > 0
    assert (tmp_path / 'run' / 'epoch_2.pth').is_file()
    assert 'is there already' in error_of('lab.speed.hook_time', *arguments)


def test_another_runner_is_refused():
    with pytest.raises(UserInputError, match="the config has runner_type='Runner'"):
        time_hooks(Config(dict(runner_type='Runner')))
    for name in ('ResumableRunner', 'MultiStudentRunner'):
        cfg = Config(dict(runner_type=f'mimhd_mm.{name}'))
        time_hooks(cfg)
        assert cfg.runner_type == 'mimhd_mm.HookTimingRunner'
