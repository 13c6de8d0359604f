"""The second protocol: how it is read, claimed, run, kept, compared and written."""
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image

from lab.evidence.__main__ import main
from lab.evidence.page import BEGIN, END, results_text, write_page
from lab.evidence.protocol import FILE, count_passes, read_protocol
from lab.evidence.runs import claimed, collect, plan, read_runs, run_all
from lab.evidence.statistics import T_QUANTILE, mean_of, paired_difference
from lab.evidence.training import Place, placed, resolve, settings_key, student_start, train
from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.datasets.image_packing import pack_images
from mimhd_mm.errors import UserInputError
from mimhd_mm.project import project_root

from ...conftest import mimhd_cfg

PROTOCOL = read_protocol()
RUNTIME = project_root() / 'configs' / '_base_'
SEEN = []


@HOOKS.register_module()
class NoteViews(Hook):
    """Which view of which image, step by step, into :data:`SEEN`."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        SEEN.append([(sample.sample_index, sample.view) for sample in data_batch['data_samples']])


# statistics

def test_the_interval_is_that_of_a_paired_t_test():
    """Differences 1, 2, 3, 6: mean 3, deviation 2.1602, t 3.1824, half width 3.4374."""
    found = paired_difference({0: 2., 1: 4., 2: 6., 3: 10., 9: 99.}, {0: 1., 1: 2., 2: 3., 3: 4., 8: -99.})
    assert found.mean == pytest.approx(3) and found.n == 4
    assert (found.low, found.high) == pytest.approx((3 - 3.43741, 3 + 3.43741), abs=1e-4)
    assert found.reading == 'no difference seen'


@pytest.mark.parametrize('first, second, reading', [
    ([5., 5.1, 5.2], [4., 4., 4.], 'better'), ([4., 4., 4.], [5., 5.1, 5.2], 'worse'),
    ([4., 5., 6.], [4.1, 4.9, 6.], 'no difference seen'), ([5.], [4.], 'undecided')])
def test_readings(first, second, reading):
    pair = dict(enumerate(first)), dict(enumerate(second))
    assert paired_difference(*pair).reading == reading
    turned = paired_difference(*pair, higher_is_better=False).reading
    assert turned == {'better': 'worse', 'worse': 'better'}.get(reading, reading)


def test_quantiles():
    stats = pytest.importorskip('scipy.stats')
    for freedom, quantile in T_QUANTILE.items():
        assert quantile == pytest.approx(stats.t.ppf(.975, freedom), abs=5e-5)


def test_nothing_in_common():
    assert paired_difference({0: 1.}, {1: 1.}) is None and mean_of([]) is None
    assert mean_of([2.]) == (2., None, 1) and mean_of([1., 3.]) == pytest.approx((2., 2 ** .5, 2))


# protocol

@pytest.mark.parametrize('text, passes', [('E', 24000), ('2E', 48000), ('1.5E', 36000), (640, 640), (0, 0)])
def test_passes(text, passes):
    assert count_passes(text, 24000) == passes


def test_the_protocol_names_rows_that_can_be_run():
    """Every option fits its config, and rows of equal settings have one key."""
    keys = {(table.name, row.name): settings_key(row, PROTOCOL.settings)
            for table in PROTOCOL.tables.values() for row in table.rows}
    assert len({keys[row] for row in (
        ('tokens', 'a quarter, teacher sees the same'), ('rec', 'alpha 0'), ('claims', 'default, E'),
        ('matchers', 'E: one to one, cut into 8 heads'))}) == 1
    assert keys['tokens', 'all tokens'] == keys['rec', 'all tokens, alpha 0'] != keys['claims', 'default, E']
    assert keys['claims', 'untrained'] == keys['references', 'untrained']
    assert keys['claims', 'TinyMIM, E'] != keys['claims', 'TinyMIM, 2E']
    claims = PROTOCOL.tables['claims'].rows
    assert len(claims[0].seeds) >= 5 and {'TinyMIM, 3E', 'MAE, 3E', 'untrained'} <= set(claims[0].against)


@pytest.mark.parametrize('change, named', [
    (dict(passes='E2'), 'E2'), (dict(agianst='b'), 'agianst'), (dict(against='c'), "'c'"), (dict(kind='mae'), 'kind'),
    (dict(name='b'), 'two rows')])
def test_wrong_rows(tmp_path, change, named):
    content = yaml.safe_load(FILE.read_text())
    rows = [dict(dict(name='a', config='x.py'), **change), dict(name='b', config='x.py')]
    content['tables'] = dict(some=dict(title='Some', seeds=[0], rows=rows))
    path = tmp_path / 'protocol.yml'
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserInputError, match=named):
        read_protocol(path)


def test_the_key_follows_what_counts_and_nothing_else():
    row = PROTOCOL.tables['claims'].rows[0]
    key = settings_key(row, PROTOCOL.settings)
    assert key == settings_key(dataclasses.replace(row, name='other', seeds=(7, ), against=()), PROTOCOL.settings)
    for change in (dict(passes=640), dict(images=100), dict(options={'model.rec_weight': 0.7})):
        assert key != settings_key(dataclasses.replace(row, **change), PROTOCOL.settings)
    assert key != settings_key(row, dataclasses.replace(PROTOCOL.settings, views=9))


def test_schedules_end_with_the_steps():
    cfg = resolve(dataclasses.replace(PROTOCOL.tables['claims'].rows[0], passes=24000), PROTOCOL.settings)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=375)
    rising, falling = cfg.param_scheduler
    assert rising.end == falling.begin == 38 and falling.end == 375 and falling.T_max == 337
    assert not rising.by_epoch and not falling.by_epoch


# locks

@pytest.mark.slow
def test_a_run_is_claimed_once_and_a_dead_process_holds_nothing(tmp_path):
    code = ('import sys, time; from pathlib import Path; from lab.evidence.runs import claimed\n'
            'with claimed(Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)')
    command = [sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project_root()) as other:
        while (line := other.stdout.readline()) not in ('True\n', 'False\n', ''):
            pass
        assert line == 'True\n'
        with claimed(tmp_path) as mine:
            assert not mine
        assert (tmp_path / 'lock').read_text() == str(other.pid)
        os.kill(other.pid, signal.SIGKILL)
    with claimed(tmp_path) as mine:
        assert mine and (tmp_path / 'lock').read_text() == str(os.getpid())


# a protocol of seconds

@pytest.fixture(scope='module')
def small(tmp_path_factory, image_folder, teacher_file):
    """Images, scenes, a protocol with three rows, and where all that is."""
    root = tmp_path_factory.mktemp('small')
    (root / 'data').mkdir()
    for part in ('train', 'val'):
        pack_images(image_folder, root / 'data' / f'{part}.safetensors')
    rng = np.random.default_rng(0)
    for part, number in (('training', 6), ('validation', 2)):
        for kind in ('images', 'annotations'):
            (root / 'scenes' / kind / part).mkdir(parents=True)
        for name in range(number):
            labels = np.repeat(np.repeat(rng.integers(1, 4, (4, 6), dtype=np.uint8), 8, 0), 8, 1)  # (32, 48)
            colours = np.array([[0, 0, 0], [250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)[labels]
            Image.fromarray(colours).save(root / 'scenes' / 'images' / part / f'{name}.png')
            Image.fromarray(labels).save(root / 'scenes' / 'annotations' / part / f'{name}.png')
    model = mimhd_cfg(teacher_file)
    (root / 'mimhd.py').write_text(
        f"_base_ = {[str(RUNTIME / 'schedules' / 'pretrain_mini-5e.py'), str(RUNTIME / 'mimhd_runtime.py')]!r}\n"
        f"data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], "
        f"std=[58.395, 57.12, 57.375], to_rgb=True)\nmodel = {model!r}\n"
        'train_dataloader = dict(batch_size=4, num_workers=0, collate_fn=dict(type="default_collate"), '
        'dataset=dict(type="CustomDataset"), sampler=dict(type="DefaultSampler", shuffle=True))\n')
    config = str(root / 'mimhd.py')
    one = {'model.rec_weight': 0, 'model.backbone.relation_heads': 4,
           'model.head.matcher': {'_delete_': True, 'type': 'OneToOneHeadMatcher'}}
    content = dict(
        settings=dict(images=16, epoch=32, batch_size=8, warm_up=.1, classes=3, scene_size=[32, 48], views=2,
                      read_out_config=config),
        tables=dict(
            first=dict(title='First', seeds=[0, 1], rows=[
                dict(name='default', config=config, against='half'),
                dict(name='half', config=config, options=dict(one, **{'model.token_fraction': .5}))]),
            second=dict(title='Second', seeds=[0], rows=[
                dict(name='the same', config=config), dict(name='untrained', config=config, passes=0),
                dict(name='pixels', kind='pixels'), dict(name='teacher', kind='teacher', config=config)])))
    (root / 'protocol.yml').write_text(yaml.safe_dump(content))
    return (read_protocol(root / 'protocol.yml'),
            Place(root / 'data', root / 'scenes', teacher_file, root / 'work'), root / 'docs')


@pytest.fixture(scope='module')
def made(small):
    """All of its runs."""
    protocol, place, docs = small
    runs = plan(protocol, [], place)
    assert run_all(runs, protocol, place, docs) == {}
    return runs


@pytest.mark.slow
def test_rows_of_equal_settings_are_one_run(small, made):
    protocol, place, docs = small
    assert len(made) == 7 and [run.seed for run in made] == [0] * 5 + [1] * 2
    first, second = (read_runs(docs / f'{name}.json') for name in ('first', 'second'))
    assert second['the same'] == first['default']  # with both seeds, whoever asked for them
    assert len(list((place.work_dir / 'caches').glob('*.safetensors'))) == 2  # all tokens, and half of them


@pytest.mark.slow
def test_what_is_kept_of_a_run(made):
    result = next(run.result for run in made if run.row.name == 'default')
    assert set(result['scores']) == {'knn', 'knn_before', 'ridge', 'ridge_before', 'miou', 'miou_before', 'read_out'}
    assert all(0 <= result['scores'][key] <= 100 for key in result['scores'])
    assert result['steps'] == 4 and result['passes'] == 32 and {'loss_qk', 'loss_rec'} <= set(result['logged'])
    assert 0 < result['step_seconds'] < result['seconds'] and result['cache_cpu_seconds'] > 0
    teacher = next(run.result for run in made if run.row.name == 'teacher')
    assert set(teacher['blocks']) == {'1', '2', '3', '4'} and teacher['scores']['knn'] == teacher['blocks']['3']['knn']
    assert set(next(run.result for run in made if run.row.name == 'pixels')['scores']) == {'knn'}


@pytest.mark.slow
def test_what_is_done_is_not_done_again(small, made):
    protocol, place, docs = small
    before = {run.folder: (run.folder / 'result.json').stat().st_mtime_ns for run in made}
    half = next(run for run in made if run.row.name == 'half' and run.seed == 1)
    kept = half.result
    (half.folder / 'result.json').unlink()
    assert run_all(plan(protocol, [], place), protocol, place, docs) == {}
    assert [run.folder for run in made if (run.folder / 'result.json').stat().st_mtime_ns != before[run.folder]] == [
        half.folder]
    assert half.result['scores'] == kept['scores'] and half.result['logged'] == kept['logged']


@pytest.mark.slow
def test_what_another_process_has_is_left_to_it(small, made):
    protocol, place, docs = small
    run = dataclasses.replace(made[0], folder=place.work_dir / 'claimed')
    with claimed(run.folder):
        assert run_all([run], protocol, place, docs) == {}
    assert run.result is None
    shutil.rmtree(run.folder)


@pytest.mark.slow
def test_a_row_that_fails_does_not_stop_the_others(small, made, tmp_path):
    protocol, place, docs = small
    bad = dataclasses.replace(made[0].row, images=1000)
    runs = [dataclasses.replace(made[0], row=bad, folder=tmp_path / 'bad'), made[1]]
    failures = run_all(runs, protocol, place, docs)
    assert list(failures) == ['bad'] and 'has 32' in failures['bad'] and (tmp_path / 'bad' / 'error.txt').is_file()


@pytest.mark.slow
def test_seeds_are_paired(small, made):
    """Rows with one seed have the same start, the same images in the same order and the same views."""
    protocol, place, _ = small
    default, half = protocol.tables['first'].rows
    configs = [resolve(row, protocol.settings) for row in (default, half)]
    starts = [student_start(cfg.model.backbone, 0, place.work_dir / 'starts') for cfg in configs]
    assert starts[0] == starts[1] != student_start(configs[0].model.backbone, 1, place.work_dir / 'starts')
    seen = []
    for number, cfg in enumerate(configs):
        cfg, _ = placed(cfg, place, 0, place.work_dir.parent / f'paired-{number}', starts[0])
        cfg.custom_hooks = [dict(type='NoteViews')]
        SEEN.clear()
        train(cfg, starts[0])
        seen.append(list(SEEN))
    assert len(seen[0]) == 4 and seen[0] == seen[1]
    assert sorted(index for index, _ in seen[0][0] + seen[0][1]) == list(range(16))  # every image once in a pass
    assert len(set(sum(seen[0], []))) == 32  # and the other view of each in the next


def test_a_student_that_starts_elsewhere_is_refused(small):
    protocol, place, _ = small
    cfg = resolve(protocol.tables['first'].rows[0], protocol.settings)
    starts = [student_start(cfg.model.backbone, seed, place.work_dir / 'starts') for seed in (0, 1)]
    placed_cfg, _ = placed(cfg, place, 0, place.work_dir.parent / 'elsewhere', starts[0])
    with pytest.raises(UserInputError, match='does not start from its file'):
        train(placed_cfg, starts[1])


@pytest.mark.slow
def test_the_last_checkpoint_is_the_student_that_was_scored(small, made):
    run = next(run for run in made if run.row.name == 'default')
    tensors = load_checkpoint_safely(run.folder / 'iter_4.pth')['state_dict']
    assert any(key.startswith('backbone.') for key in tensors)
    start = load_checkpoint_safely(next((small[1].work_dir / 'starts').glob('*-s0.pth')))['state_dict']
    assert not torch.equal(tensors['backbone.layers.0.attn.qkv.weight'], start['backbone.layers.0.attn.qkv.weight'])


# page

@pytest.mark.slow
def test_the_page_is_written_from_the_files_alone_and_twice_the_same(small, made, tmp_path):
    protocol, _, docs = small
    page = tmp_path / 'page.md'
    page.write_text(f'before\n\n{BEGIN}\nold\n{END}\n\nafter\n')
    write_page(page, docs, protocol)
    text = page.read_text()
    write_page(page, docs, protocol)
    assert page.read_text() == text and text.startswith('before') and text.endswith('after\n') and 'old' not in text
    rows = {line.split(' | ')[0][2:]: line.split(' | ') for line in text.splitlines() if line.startswith('| ')}
    scores = [run['scores']['knn'] for run in read_runs(docs / 'first.json')['default']]
    assert rows['default'][1] == f'{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f} (n=2)'
    assert {'default – half', 'untrained', 'pixels', 'teacher: block', '4'} <= set(rows)
    assert '(n=2)' in rows['default – half'][1] and rows['pixels'][2] == '–'


@pytest.mark.slow
def test_results_of_other_settings_are_dropped_and_those_of_other_machines_stay(small, made, tmp_path):
    protocol, place, docs = small
    shutil.copytree(docs, tmp_path / 'docs')
    file = tmp_path / 'docs' / 'second.json'
    content = json.loads(file.read_text())
    run = content['rows'][1]['runs'][0]
    content['rows'][1]['runs'] += [dict(run, seed=5, device='elsewhere'), dict(run, seed=6, key='other')]
    file.write_text(json.dumps(content))
    collect(protocol, place, tmp_path / 'docs')
    assert [run['seed'] for run in read_runs(file)['untrained']] == [0, 5]


def test_a_page_without_marks(tmp_path):
    (tmp_path / 'page.md').write_text(BEGIN)
    with pytest.raises(UserInputError, match='lacks the lines'):
        write_page(tmp_path / 'page.md', tmp_path, PROTOCOL)


def test_the_page_in_the_repository_is_up_to_date():
    docs = project_root() / 'docs'
    text = (docs / 'evidence.md').read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text[text.index(BEGIN) + len(BEGIN):text.index(END)].strip() == results_text(PROTOCOL, docs / 'evidence2')


# commands

def test_list(capsys, tmp_path):
    assert main(['list', 'pairs', '--results', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'to do 0 1 2' in out and '9 runs to do' in out


@pytest.mark.parametrize('arguments, named', [
    (['list', 'paris'], 'paris'), (['run', '--data', 'x', '--scenes', 'x', '--work-dir', 'x', '--teacher', 'x.pth'],
                                   'x.pth')])
def test_wrong_arguments(arguments, named):
    with pytest.raises(UserInputError, match=named):
        main(arguments)
