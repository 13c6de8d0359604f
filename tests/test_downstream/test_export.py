"""tools/model_converters/export_student.py: every format gives the student's features under the library it is for."""
import copy
import json

import pytest
import torch
from mmengine.config import Config

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.downstream import export as export_module
from mimhd_mm.downstream.export import FORMATS, NEEDS, TOLERANCE, export, read_student
from mimhd_mm.engine.loading import read_config
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.selfsup import students_of
from mimhd_mm.registry import MODELS
from mimhd_mm.weights.reading import read_tensors

from ..conftest import SIZE, STUDENT, mimhd_cfg
from ..test_tools.commands import error_of, load_tool

TOOL = 'model_converters/export_student.py'
NAMES = dict(mmpretrain='s.pth', mmseg='s.pth', timm='s.safetensors', hf='folder', onnx='s.onnx')
each_format = pytest.mark.parametrize('kind', FORMATS)


def need(kind: str) -> None:
    for package in NEEDS.get(kind, ()):
        pytest.importorskip(package)


def write_run(folder, model: dict) -> tuple:
    """A config file with ``model``, and a checkpoint of it with weights that tell every part from every other."""
    cfg = Config(dict(default_scope='mmpretrain', model=model, data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)))
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    built = MODELS.build(copy.deepcopy(model))
    for student in students_of(built).values():
        for parameter in student.backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    torch.save(dict(state_dict=built.state_dict(), meta=dict(epoch=1)), folder / 'epoch_1.pth')
    return folder / 'config.py', folder / 'epoch_1.pth'


@pytest.fixture
def pretrained(tmp_path, teacher_file):
    """Config and checkpoint of a MIM-HD run."""
    return write_run(tmp_path / 'run', mimhd_cfg(teacher_file))


def student_of(run):
    return read_student(read_config(run[0]), run[1])


def classifier(**backbone) -> dict:
    return dict(type='ImageClassifier',
                backbone=dict(type='VisionTransformer', arch=dict(STUDENT), out_type='avg_featmap', final_norm=False,
                              **{**SIZE, **backbone}),
                head=dict(type='LinearClsHead', num_classes=2, in_channels=24))


@each_format
def test_round_trip(kind, pretrained, tmp_path, capsys):
    """The tool compares features itself; here, that it ran and wrote the backbone alone."""
    need(kind)
    out = tmp_path / NAMES[kind]
    load_tool(TOOL).main([str(pretrained[1]), str(out), '--format', kind, '--config', str(pretrained[0])])
    printed = capsys.readouterr().out
    assert f'Wrote {out}' in printed and '123.675' in printed
    if kind == 'onnx':
        return
    tensors = read_tensors(out / 'model.safetensors' if kind == 'hf' else out)
    student = student_of(pretrained)
    assert sum(value.numel() for value in tensors.values()) == sum(
        value.numel() for value in student.backbone.state_dict().values())
    assert not [key for key in tensors if 'decoder' in key or 'teacher' in key or 'matcher' in key]


def test_one_of_several_students(tmp_path, teacher_file):
    single = mimhd_cfg(teacher_file)
    teacher = single.pop('target_generator')
    wide = dict(single, backbone=dict(single['backbone'], arch=dict(STUDENT, embed_dims=36), relation_heads=4))
    config, checkpoint = write_run(tmp_path / 'run', dict(
        type='MultiStudent', students=dict(slim=single, wide=wide), target_generator=teacher))
    for name, width, heads in (('slim', 24, [3, 3, 3]), ('wide', 36, [3, 3, 4])):
        out = tmp_path / f'{name}.pth'
        load_tool(TOOL).main([str(checkpoint), str(out), '--format', 'mmpretrain', '--config', str(config),
                              '--student', name])
        saved = load_checkpoint_safely(checkpoint)['state_dict']
        for key, value in read_tensors(out).items():
            assert torch.equal(value, saved[f'students.{name}.{key}'])
        assert read_tensors(out)['backbone.cls_token'].shape[-1] == width
        assert load_checkpoint_safely(out)['meta']['num_heads'] == heads

    def error(*options, config=config):
        return error_of(TOOL, checkpoint, tmp_path / 's.pth', '--format', 'mmpretrain', '--config', config, *options)

    assert error() == 'error: The config trains the students slim, wide; choose one with --student.'
    assert error('--student', 'tall') == "error: The config has no student 'tall': its students are slim, wide."
    alone = write_run(tmp_path / 'alone', mimhd_cfg(teacher_file))[0]
    assert "lacks 'cls_token'" in error(config=alone)
    assert 'it trains one student; leave --student out.' in error('--student', 'slim', config=alone)


def test_difference_is_measured(pretrained, tmp_path):
    student = student_of(pretrained)
    difference = export(student, tmp_path / 's.pth', 'mmpretrain')
    assert 0 <= difference <= TOLERANCE
    meta = load_checkpoint_safely(tmp_path / 's.pth')['meta']
    assert meta['num_heads'] == [3, 3, 3] and meta['source_sha256'] == student.sha256


def test_timm_line_that_is_printed(pretrained, tmp_path, capsys):
    """It loads the file, and pools what fine-tuning pools: the average of the patch tokens."""
    timm = pytest.importorskip('timm')
    out = tmp_path / 's.safetensors'
    load_tool(TOOL).main([str(pretrained[1]), str(out), '--format', 'timm', '--config', str(pretrained[0])])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith('timm.create_model(')
    model = eval(line, dict(timm=timm)).eval()
    images, student = torch.randn(2, 3, 32, 32), student_of(pretrained)
    with torch.no_grad():
        torch.testing.assert_close(model(images), student.tokens(images)[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5)


def test_hf_folder_says_how_images_are_normalised(pretrained, tmp_path):
    need('hf')
    export(student_of(pretrained), tmp_path / 'folder', 'hf')
    found = json.loads((tmp_path / 'folder' / 'preprocessor_config.json').read_text())
    assert found['image_mean'] == pytest.approx([0.485, 0.456, 0.406]) and found['size'] == dict(height=32, width=32)
    config = json.loads((tmp_path / 'folder' / 'config.json').read_text())
    assert config['layer_norm_eps'] == 1e-6 and config['num_attention_heads'] == 3


@each_format
def test_fine_tuned_student(kind, tmp_path):
    """Without a norm after the last block, and on images that are not square."""
    need(kind)
    student = student_of(write_run(tmp_path / 'run', classifier(img_size=(32, 48))))
    if kind == 'hf':
        with pytest.raises(UserInputError, match='norm after its last block'):
            export(student, tmp_path / NAMES[kind], kind)
        assert not (tmp_path / NAMES[kind]).exists()
        return
    assert export(student, tmp_path / NAMES[kind], kind) <= TOLERANCE
    if kind == 'timm':
        assert 'fc_norm.weight' in read_tensors(tmp_path / NAMES[kind])


@each_format
def test_head_counts_that_differ(kind, tmp_path, teacher_file):
    """TinyMIM's adaptive block: written where a format can say it, else refused."""
    need(kind)
    run = write_run(tmp_path / 'run', mimhd_cfg(teacher_file, backbone=dict(relation_heads=4)))
    student = student_of(run)
    assert student.num_heads == [3, 3, 4]
    if kind in ('mmpretrain', 'onnx'):
        assert export(student, tmp_path / NAMES[kind], kind) <= TOLERANCE
        return
    message = error_of(TOOL, run[1], tmp_path / NAMES[kind], '--format', kind, '--config', run[0])
    assert '[3, 3, 4]' in message and not (tmp_path / NAMES[kind]).exists()


def test_wrong_features_are_noticed(pretrained, tmp_path, monkeypatch):
    """A head count that shapes do not show."""
    pytest.importorskip('timm')
    settings = export_module.timm_settings
    monkeypatch.setattr(export_module, 'timm_settings', lambda student: dict(settings(student), num_heads=4))
    with pytest.raises(RuntimeError, match='differ by'):
        export(student_of(pretrained), tmp_path / 's.safetensors', 'timm')
    assert not (tmp_path / 's.safetensors').exists()


def test_library_that_is_not_installed(pretrained, tmp_path, monkeypatch):
    def missing(package):
        raise ImportError(f'No module named {package!r}')

    monkeypatch.setattr(export_module.importlib, 'import_module', missing)
    message = error_of(TOOL, pretrained[1], tmp_path / 's.pth', '--format', 'timm', '--config', pretrained[0])
    assert 'timm' in message and 'requirements/export.txt' in message


def test_wrong_input(pretrained, tmp_path):
    config, checkpoint = pretrained

    def refused(checkpoint, out, kind='timm', config=config):
        return error_of(TOOL, checkpoint, out, '--format', kind, '--config', config)

    assert 'has to end in .pth' in refused(checkpoint, tmp_path / 's.onnx', 'mmpretrain')
    assert 'exists already' in refused(checkpoint, checkpoint, 'mmpretrain')
    assert 'No folder' in refused(checkpoint, tmp_path / 'nowhere' / 's.pth', 'mmpretrain')
    assert 'nothing.pth' in refused(tmp_path / 'nothing.pth', tmp_path / 's.pth', 'mmpretrain')
    other = write_run(tmp_path / 'other', classifier())[0]
    assert 'belongs to the checkpoint' in refused(checkpoint, tmp_path / 's.pth', 'mmpretrain', other)


def test_more_than_a_plain_transformer_is_refused(tmp_path):
    run = write_run(tmp_path / 'run', classifier(layer_scale_init_value=.1))
    assert 'gamma' in error_of(TOOL, run[1], tmp_path / 's.pth', '--format', 'mmpretrain', '--config', run[0])
