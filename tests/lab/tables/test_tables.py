"""The paper's tables: what is listed exists, what is written adds up, and configs/README.md says the same."""
import json
import re
import statistics
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from lab import ROOT
from lab.tables.evaluation import evaluation_folder, evaluation_options, student_width
from lab.tables.plan import TableOptions, plan_row
from lab.tables.readme import BEGIN, END, generated_part, write_readme
from lab.tables.report import summary, write_report
from lab.tables.rows import PaperRow, PaperTable, read_tables, tables_file
from lab.tables.runs import last_figures, locked
from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.checkpoint_files import newest_checkpoint

CONFIGS = ROOT / 'configs'
TABLES = read_tables(tables_file())
ROWS = [pytest.param(table.rows[number], kind, id=f'{table.name}-{number + 1}-{kind}')
        for table in TABLES.values() for number in range(len(table.rows)) for kind in table.rows[number].sources]
MINI = 'configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'
ENVIRONMENT = dict(device='a machine', versions='torch 0', commit='abc')


@pytest.fixture
def data(tmp_path):
    for split in ('train', 'val'):
        for label in 'ab':
            (tmp_path / 'data' / split / label).mkdir(parents=True)
    return tmp_path / 'data'


@pytest.mark.parametrize('row, kind', ROWS)
def test_every_row_can_be_planned(row, kind, tmp_path, monkeypatch):
    """Its config is there and takes its options, and there are configs to evaluate its student."""
    monkeypatch.chdir(tmp_path)  # where no weights have been imported
    options = TableOptions(mini=kind == 'mini', work_dir=str(tmp_path))
    if 'checkpoint' in row.sources[kind]:
        assert plan_row(row, options) == []
        return
    run, = plan_row(row, options)
    for key, value in row.sources[kind].get('options', {}).items():
        found = run.cfg
        for part in key.split('.'):
            found = found[part]
        assert found == value
    configs = evaluation_options(run, 'finetune', options).settings.configs[student_width(run)]
    on_tiny = 'tiny-imagenet' in row.sources[kind]['config']
    assert ('tiny-imagenet' in configs['finetune'].name) == on_tiny


def test_equal_runs_share_a_folder_and_others_do_not(tmp_path):
    def folder(options=None, row_options=None, seed=0, **kwargs):
        row = PaperRow(1, 'row', dict(mini=dict(config=MINI, options=row_options or {})))
        return plan_row(row, TableOptions(mini=True, seeds=seed + 1, work_dir=str(tmp_path), **kwargs))[seed].folder

    assert folder() == folder()
    (tmp_path / 'teacher.pth').write_text('one')
    folders = [folder(), folder(row_options={'model.rec_weight': 0.5}), folder(seed=1), folder(shorten=.4),
               folder(pretrain_root='elsewhere'), folder(gpus=2), folder(amp=True),
               folder(teacher=str(tmp_path / 'teacher.pth'))]
    assert len(set(folders)) == len(folders)
    assert all(path.parent == tmp_path / 'runs' for path in folders)
    full = {(table, row.number): plan_row(row, TableOptions(work_dir=str(tmp_path)))[0].folder
            for table, numbers in (('table3', (3, )), ('figure2', (4, )), ('figure6', (5, )),
                                   ('table1-tiny-imagenet', (1, )))
            for row in TABLES[table].rows if row.number in numbers}
    assert len(set(full.values())) == 1  # mimhd-literal is trained once for all


def test_the_written_config(tmp_path, data):
    row = PaperRow(1, 'row', dict(mini=dict(config=MINI, options={'model.head.loss.criterion': 'L2'})))
    run = plan_row(row, TableOptions(mini=True, seeds=3, shorten=.4, pretrain_root=str(data), teacher='mae.pth',
                                     work_dir=str(tmp_path)))[2]
    (tmp_path / 'config.py').write_text(run.text)
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.head.loss == dict(type='RelationDistillLoss', criterion='L2')
    assert cfg.randomness.seed == 2 and cfg.randomness.diff_rank_seed and cfg.auto_scale_lr.enable
    assert cfg.model.target_generator.checkpoint == str(Path('mae.pth').resolve())
    probe = cfg.default_hooks.knn_probe
    assert {cfg.train_dataloader.dataset.data_root, probe.train.data_root, probe.test.data_root} == {str(data)}
    assert cfg.train_cfg.max_epochs == 2 and [part.end for part in cfg.param_scheduler] == [1, 2]
    assert run.checkpoint == run.folder / 'pretrain' / 'epoch_2.pth' and cfg.work_dir == str(run.checkpoint.parent)


def test_mean_and_deviation_by_hand(tmp_path, data):
    """10, 12 and 17: mean 13, squared deviations 9 + 1 + 16 = 26, over n - 1 = 2."""
    assert summary([10., 12., 17.]) == dict(mean=13., std=pytest.approx(13 ** .5), n=3)
    assert summary([5.]) == dict(mean=5., std=None, n=1) and summary([]) is None

    rows = [PaperRow(1, 'three seeds', dict(mini=dict(config=MINI), full=dict(config=MINI)), dict(mIoU=41.)),
            PaperRow(2, 'one seed', dict(mini=dict(config=MINI, options={'model.rec_weight': 0.5}))),
            PaperRow(3, 'none', dict(mini=dict(config=MINI, options={'model.rec_weight': 2})))]
    table = PaperTable('some', 'Some table', rows)
    options = TableOptions(mini=True, seeds=3, pretrain_root=str(data), work_dir=str(tmp_path), tasks=('knn', ))
    plans = {row.number: plan_row(row, options) for row in rows}
    for run, score, entropy in [*zip(plans[1], (10., 12., 17.), (.2, .4, .9)), (plans[2][1], 8.5, .25)]:
        folder = evaluation_folder(run, 'knn', options)
        folder.mkdir(parents=True)
        (folder / 'score.json').write_text(json.dumps(
            dict(score=score, seconds=360, resumed=False, environment=ENVIRONMENT)))
        (run.folder / 'pretrain.json').write_text(json.dumps(
            dict(seconds=3240, resumed=True, logged=dict(head_entropy_qk=entropy), environment=ENVIRONMENT)))
    write_report(table, plans, {(3, 0): 'It broke.'}, options, 'the command')
    text = (tmp_path / 'some-mini.md').read_text()
    for line in ('| 13.00 ± 3.61 (n=3) | not run |', '| 8.50 (n=1) | not run |', '| failed | not run |',
                 '- row 3, seed 0, failed: It broke.', '- commit: abc', 'row 1 3.00 after being resumed'):
        assert line in text
    found = json.loads((tmp_path / 'some-mini.json').read_text())['rows']
    assert [row['status'] for row in found] == ['run', 'partly run', 'failed']
    assert found[0]['logged']['head_entropy_qk'] == dict(
        mean=pytest.approx(.5), std=pytest.approx(statistics.stdev([.2, .4, .9])), n=3)
    assert '41.0' not in text and not list(tmp_path.glob('*.tmp'))

    # with the full sizes the paper's number is in a column of its own
    options = TableOptions(work_dir=str(tmp_path))
    write_report(table, {row.number: plan_row(row, options) for row in rows}, {}, options, 'the command')
    head, _, first, second, *_ = (tmp_path / 'some.md').read_text().splitlines()[2:]
    assert head.endswith('| mIoU | PAPER: mIoU |') and first.endswith('| not run | 41.0 |')
    assert second.startswith('| one seed | | | not run |') and second.endswith('| not run | |')


def test_what_a_kill_leaves(tmp_path):
    """A note that was cut short, or names a checkpoint that is gone, is not followed; half a line is not read."""
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('')
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('/moved/since/epoch_3.pth')
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'epoch_3.pth').touch()
    assert newest_checkpoint(tmp_path) is None  # cut short
    torch.save(dict(meta={}, state_dict={}), tmp_path / 'epoch_3.pth')
    assert newest_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'

    assert last_figures(tmp_path) == {}
    for name, lines in (('1', ['{"loss": 1, "head_entropy_qk": 0.1}']), ('2', [
            '{"loss": 1, "head_entropy_qk": 0.2, "time": 3}', '{"knn/student": 3}', '{"loss": 1, "head_en'])):
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data' / 'scalars.json').write_text('\n'.join(lines))
    assert last_figures(tmp_path) == dict(head_entropy_qk=.2)


def test_two_calls_do_not_train_in_one_folder(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UserInputError, match='Another call is at work'), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_readme_is_what_is_generated():
    text = (CONFIGS / 'README.md').read_text(encoding='utf-8')
    part = text[text.index(BEGIN) + len(BEGIN):text.index(END)].strip()
    assert part == generated_part(CONFIGS, TABLES), 'run python -m lab.tables.run_table --readme'
    for row in (row for table in TABLES.values() for row in table.rows):
        assert f'| {row.number} | {row.name} |' in part
        for number in row.paper.values():
            assert str(number) in part


def test_readme_links_exist():
    links = re.findall(r'\]\(([^)]+)\)', (CONFIGS / 'README.md').read_text(encoding='utf-8'))
    assert len(links) > 50
    for target in links:
        assert (CONFIGS / target).is_file(), target


def test_readme_is_rewritten_between_its_markers(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n', encoding='utf-8')
    write_readme(readme, TABLES)
    text = readme.read_text(encoding='utf-8')
    assert text.startswith(f'before\n{BEGIN}\n') and text.endswith(f'{END}\nafter\n') and '\nold\n' not in text
    readme.write_text('no markers')
    with pytest.raises(UserInputError, match='begin: written'):
        write_readme(readme, TABLES)
    assert readme.read_text() == 'no markers'
