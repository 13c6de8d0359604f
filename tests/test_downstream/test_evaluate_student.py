"""tools/evaluate_student.py: from a student's file to a table of the numbers in the runs' logs."""
import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mimhd_mm.downstream.settings import Settings, schedule_changes, shipped_settings
from mimhd_mm.engine.commands import call_tool
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.positions import resize_positions
from mimhd_mm.registry import MODELS
from mimhd_mm.weights.reading import read_tensors

from ..conftest import SIZE, STUDENT, build_mae, to_official
from ..test_configs.test_segmentation import write_scenes
from ..test_tools.commands import call, error_of, load_tool

TOOL = 'evaluate_student.py'
ARCH = dict(STUDENT, num_layers=4)
WIDTH = ARCH['embed_dims']
MINI = shipped_settings()['mini'].configs[96]
TASKS = ('knn', 'linear', 'finetune', 'linear_segmentation', 'segmentation')

CLASSIFIER = """
_base_ = {base!r}
model = dict(backbone=dict(arch=dict({arch}, _delete_=True), img_size=32), head=dict(in_channels=24))
train_dataloader = dict(batch_size=16, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
{more}
"""
LINEAR = 'model.update(neck=dict(input_features=24))\nmodel["backbone"].update(frozen_stages=4)'
SEGMENTER = """
_base_ = {base!r}
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(arch=dict({arch}, _delete_=True), img_size=(32, 32), out_indices=[0, 1, 2, 3]),
    decode_head=dict(in_channels=[24] * 4, channels=24), test_cfg=dict(crop_size=(32, 32), stride=(24, 24)))
{more}
crop = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomCrop', crop_size=(32, 32)),
        dict(type='PackSegInputs')]
whole = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48), keep_ratio=True),
         dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=crop))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=whole))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=40, val_interval=10)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=4),
                   dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=4, end=40)]
"""
UPERNET = 'model.update(neck=dict(embed_dim=24), auxiliary_head=dict(in_channels=24, channels=24))'
FROZEN = 'model["backbone"].update(frozen_stages=4)'


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """The shipped mini settings with networks that take a second."""
    folder = tmp_path_factory.mktemp('settings')
    arch = ', '.join(f'{key}={value}' for key, value in ARCH.items())
    texts = dict(linear=(CLASSIFIER, LINEAR), finetune=(CLASSIFIER, ''), linear_segmentation=(SEGMENTER, FROZEN),
                 segmentation=(SEGMENTER, UPERNET))
    for task, (text, more) in texts.items():
        (folder / f'{task}.py').write_text(text.format(base=str(MINI[task]), arch=arch, more=more))
    return {'tiny': Settings('tiny', {WIDTH: {task: folder / f'{task}.py' for task in texts}})}


@pytest.fixture(scope='module')
def student(tmp_path_factory):
    """A file of a student with 4 heads in its last block and 3 before, as mmengine writes it."""
    torch.manual_seed(5)
    backbone = dict(type='RelationViT', arch=ARCH, relation_heads=4, **SIZE)
    model = MODELS.build(dict(backbone))
    model.init_weights()
    path = tmp_path_factory.mktemp('pretraining') / 'epoch_5.pth'
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in model.state_dict().items()},
                    meta=dict(cfg=Config(dict(model=dict(backbone=backbone))).pretty_text)), path)
    return path


@pytest.fixture(scope='module')
def labelled(image_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp('labelled')
    for split in ('train', 'val'):
        shutil.copytree(image_folder, root / split)
    return root


def logged(folder: Path, key: str):
    """The last number of that name in the logs of a run."""
    lines = [json.loads(line) for file in sorted(folder.rglob('scalars.json'))
             for line in file.read_text().splitlines()]
    return [line[key] for line in lines if key in line][-1]


def refusal(settings: dict, *arguments) -> str:
    """As ``error_of``, with settings of one's own."""
    with pytest.raises(SystemExit) as caught:
        run_tool(lambda argv: load_tool(TOOL).main(argv, settings), [str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str) and '\n' not in caught.value.code
    return caught.value.code


@pytest.mark.slow
def test_from_a_file_to_a_table(tiny, student, labelled, tmp_path, capfd):
    """All five tasks, a second call that computes nothing, and one that goes on where a training was cut short."""
    pytest.importorskip('mmseg')
    work, scenes = tmp_path / 'work', write_scenes(tmp_path / 'scenes')
    arguments = [str(argument) for argument in (
        student, '--settings', 'tiny', '--classification-root', labelled, '--segmentation-root', scenes,
        '--work-dir', work, '--shorten', 0.1, '--seed', 3)]
    load_tool(TOOL).main(arguments, tiny)
    printed, text = capfd.readouterr().out, (work / 'table.md').read_text()
    row, = json.loads((work / 'table.json').read_text())['rows']
    folder = work / row['student']
    assert row['file'] == str(student)
    assert row['linear'] == logged(folder / 'linear', 'accuracy/top1')
    assert row['finetune'] == logged(folder / 'finetune', 'accuracy/top1')
    assert row['segmentation'] == logged(folder / 'segmentation', 'mIoU')
    assert row['linear_segmentation'] == logged(folder / 'linear_segmentation', 'mIoU')
    line = next(line for line in text.splitlines() if line.startswith(f'| {row["student"]} |'))
    assert all(f' {row[task]:.2f} ' in line for task in TASKS) and row['sha256'][:12] in line
    assert printed.endswith(text) and '* trained for 0.1 of the length' in text and 'loss' in printed
    for key in ('command', 'settings', 'seed', 'device', 'versions', 'commit', 'time'):
        assert f'- {key}: ' in text
    with open(work / 'table.csv') as file:
        assert [float(line['segmentation']) for line in csv.DictReader(file)] == [row['segmentation']]

    # length, seed and the head count of the last block have come through; what was probed is the student, bit by bit
    for task, last in (('linear', 'epoch_2.pth'), ('finetune', 'epoch_1.pth'), ('linear_segmentation', 'iter_4.pth'),
                       ('segmentation', 'iter_4.pth')):
        cfg = Config.fromfile(folder / task / 'config.py')
        assert (folder / task / 'run' / last).is_file() and cfg.randomness.seed == 3
        built = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
        assert [layer.attn.num_heads for layer in built.layers] == [3, 3, 3, 4]
    for probe in ('linear/run/epoch_2.pth', 'linear_segmentation/run/iter_4.pth'):
        probed = read_tensors(folder / probe)
        assert all(torch.equal(probed[key], value) for key, value in read_tensors(student).items() if key in probed)

    # again: what is complete is taken over, a training that was cut short after its first epoch goes on
    cut = folder / 'linear'
    (cut / 'result.json').unlink()
    (cut / 'run' / 'epoch_2.pth').unlink()
    (cut / 'run' / 'last_checkpoint').write_text(str(cut / 'run' / 'epoch_1.pth'))
    load_tool(TOOL).main(arguments, tiny)
    resumed = capfd.readouterr().out
    assert resumed.count('exists already') == 4 and resumed.count('train.py') == 1 and '--resume' in resumed
    assert (cut / 'run' / 'epoch_2.pth').is_file() and json.loads((cut / 'result.json').read_text())['resumed']
    load_tool(TOOL).main(arguments, tiny)
    again = capfd.readouterr().out
    assert again.count('exists already') == 5 and '$ ' not in again
    assert json.loads((work / 'table.json').read_text())['rows'][0]['finetune'] == row['finetune']

    other = refusal(tiny, *arguments[:-1], 4)
    assert str(folder) in other and 'other settings' in other


@pytest.mark.slow
def test_untrained(tiny, student, labelled, tmp_path):
    """The network before training has the student's head counts, starts nowhere and hangs on the seed alone."""
    scores = {}
    for name, seed in (('first', 1), ('second', 1), ('third', 2)):
        load_tool(TOOL).main([str(argument) for argument in (
            student, '--settings', 'tiny', '--classification-root', labelled, '--work-dir', tmp_path / name,
            '--tasks', 'knn', '--untrained', '--seed', seed)], tiny)
        rows = json.loads((tmp_path / name / 'table.json').read_text())['rows']
        assert [row['student'] for row in rows][1:] == ['untrained'] and rows[1]['file'] is None
        scores[name] = [row['knn'] for row in rows]
    assert scores['first'] == scores['second'] and scores['third'][0] == scores['first'][0]
    backbone = Config.fromfile(tmp_path / 'first' / 'untrained' / 'knn' / 'config.py').model.backbone
    assert backbone.init_cfg is None and [layer.num_heads for layer in backbone.layer_cfgs] == [3, 3, 3, 4]


@pytest.mark.slow
def test_knn_of_chosen_tasks(tiny, student, labelled, tmp_path):
    """k-NN equals tools/knn.py on the same files; the rest is 'not run'."""
    load_tool(TOOL).main([str(argument) for argument in (
        student, '--settings', 'tiny', '--classification-root', labelled, '--work-dir', tmp_path / 'work',
        '--tasks', 'knn')], tiny)
    row = json.loads((tmp_path / 'work' / 'table.json').read_text())['rows'][0]
    assert [row[task] for task in TASKS[1:]] == [None] * len(TASKS[1:])
    assert (tmp_path / 'work' / 'table.md').read_text().count('not run') == len(TASKS[1:])

    # the config of the training itself: 32 px instead of 64 px images, so the images are given that size
    cfg = Config(dict(model=dict(
        backbone=dict(type='RelationViT', arch=ARCH, relation_heads=4, img_size=64, patch_size=8),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53],
                               std=[58.395, 57.12, 57.375], to_rgb=True))))
    content = read_tensors(student)
    content['backbone.pos_embed'] = resize_positions(content['backbone.pos_embed'], (8, 8))
    torch.save(content, tmp_path / 'resized.pth')
    cfg.dump(tmp_path / 'config.py')
    call('knn.py', tmp_path / 'config.py', tmp_path / 'resized.pth', '--train', labelled / 'train', '--test',
         labelled / 'val', '--num-workers', 0, '--out', tmp_path / 'knn.json')
    assert row['knn'] == json.loads((tmp_path / 'knn.json').read_text())['top1']['this checkpoint']


def test_wrong_input_before_any_run(tiny, student, labelled, tmp_path, teacher_file):
    root, work = ('--classification-root', labelled), ('--work-dir', tmp_path / 'work')

    def refused(*arguments, settings=tiny):
        return refusal(settings, *arguments, '--settings', next(iter(settings)), *work, '--tasks', 'knn', 'linear')

    official = tmp_path / 'official.pth'
    torch.save(to_official(build_mae().state_dict()), official)
    assert '`backbone.`' in refused(official, *root)
    torch.save(dict(weight=torch.zeros(3)), official)
    assert '`backbone.`' in refused(official, *root)
    assert 'nothing.pth' in refused(tmp_path / 'nothing.pth', *root)
    wide = refused(teacher_file, *root)
    assert '48 wide' in wide and 'a width of 24;' in wide
    tensors = torch.load(student, weights_only=True)
    shallow = {key: value for key, value in tensors['state_dict'].items() if 'layers.3.' not in key}
    torch.save(shallow, tmp_path / 'shallow.pth')
    assert 'has 3 blocks' in refused(tmp_path / 'shallow.pth', *root)
    torch.save(dict(state_dict=tensors['state_dict'], meta=dict(num_heads=[3])), official)
    assert 'tells the heads of 1;' in refused(official, *root)
    assert 'both be called' in refused(student, student, *root)
    assert str(tmp_path / 'train') in refused(student, '--classification-root', tmp_path)
    assert '--classification-root' in refused(student, '--classification-root', tmp_path)
    for option in (('--shorten', 0), ('--shorten', 1.5), ('--gpus', 0)):
        assert option[0] in refused(student, *root, *option)
    assert not any((tmp_path / 'work').iterdir())

    (tmp_path / 'file').touch()
    assert '--work-dir' in refusal(tiny, student, '--settings', 'tiny', '--tasks', 'knn', *root, '--work-dir',
                                   tmp_path / 'file')
    assert 'nothing.pth' in error_of(TOOL, 'nothing.pth', '--settings', 'full', '--tasks', 'knn', *work)


@pytest.mark.slow
def test_sentence_of_a_tool_that_fails():
    with pytest.raises(UserInputError, match="^No config file 'nothing.py'"):
        call_tool('train.py', 'nothing.py')


def test_unknown_task(student, capsys):
    with pytest.raises(SystemExit) as caught:
        load_tool(TOOL).main([str(student), '--settings', 'mini', '--tasks', 'detection'])
    assert caught.value.code == 2 and "'detection' (choose from" in capsys.readouterr().err


def test_shipped_settings_are_for_the_widths_they_name():
    for settings in shipped_settings().values():
        for width, configs in settings.configs.items():
            assert set(configs) == {'linear', 'finetune', 'linear_segmentation', 'segmentation'}
            for path in configs.values():
                cfg = Config.fromfile(path)
                assert MODELS.build(dict(cfg.model.backbone, init_cfg=None)).embed_dims == width


@pytest.mark.parametrize('factor, epochs, parts', [
    (.5, 10, [(0, 1), (1, 10)]), (.1, 2, [(0, 1), (1, 2)]), (.01, 1, [(0, 1)])])
def test_shortened_schedules_keep_their_shape(factor, epochs, parts):
    changes = schedule_changes(Config.fromfile(MINI['linear']), factor)
    assert changes['train_cfg'] == dict(max_epochs=epochs, val_interval=1)
    assert [(part['begin'], part['end']) for part in changes['param_scheduler']] == parts
    assert changes['param_scheduler'][-1]['type'] == 'CosineAnnealingLR'
    assert changes['param_scheduler'][-1]['T_max'] == parts[-1][1] - parts[-1][0]


def test_shortened_iterations():
    changes = schedule_changes(Config.fromfile(MINI['segmentation']), .05)
    assert changes['train_cfg'] == dict(max_iters=50, val_interval=25)
    assert [(part['begin'], part['end']) for part in changes['param_scheduler']] == [(0, 5), (5, 50)]
    assert changes['default_hooks'] == dict(checkpoint=dict(interval=25))
    assert schedule_changes(Config.fromfile(MINI['segmentation']), 1) == {}
