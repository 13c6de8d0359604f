"""``read_out.py``: from a config and a checkpoint to the read-out KL of its student."""
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mimhd_mm.engine.inspection import fixed_images
from mimhd_mm.engine.loading import build_untrained
from mimhd_mm.evaluation import read_out_kl
from mimhd_mm.registry import MODELS

from ..conftest import SIZE, STUDENT, TEACHER, mimhd_cfg
from .commands import call, error_of

TOOL = 'analysis_tools/read_out.py'
PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[63.75] * 3, to_rgb=True)


@pytest.fixture(scope='module')
def sharp_teacher(teacher_file, tmp_path_factory):
    """The tests' teacher with relations that are far from uniform, and so are worth reading."""
    content = torch.load(teacher_file, weights_only=True)
    content['state_dict']['backbone.layers.2.attn.qkv.weight'] *= 10
    path = tmp_path_factory.mktemp('sharp') / 'mae.pth'
    torch.save(content, path)
    return path


def dump(path, model, **more):
    Config(dict(model=model, data_preprocessor=PREPROCESSOR, **more)).dump(str(path))
    return path


@pytest.fixture
def run(tmp_path, teacher_file):
    """Writes a config and a checkpoint that is not the untrained student; returns both."""
    def write(model):
        init_default_scope('mmpretrain')
        config = dump(tmp_path / 'cfg.py', model)
        trained = build_untrained(Config.fromfile(config), seed=5)
        for parameter in trained.backbone.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'epoch_1.pth')
        return config, tmp_path / 'epoch_1.pth'
    return write


def tinymim(teacher_file):
    cfg = mimhd_cfg(teacher_file, type='mimhd_mm.TinyMIM', backbone=dict(relation_heads=4))
    return dict({name: cfg[name] for name in ('type', 'backbone', 'target_generator')},
                head=dict(type='RelationDistillHead', matcher=dict(type='OneToOneHeadMatcher')))


def dmae(teacher_file):
    return dict(
        type='mimhd_mm.DMAE', backbone=dict(type='TappedMAEViT', arch=STUDENT, mask_ratio=0.5, **SIZE),
        target_generator=dict(type='MaskedMAETeacher', checkpoint=str(teacher_file), arch=TEACHER, block=3, **SIZE),
        neck=dict(type='MAEPretrainDecoder', decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2),
        head=dict(type='MAEPretrainHead', norm_pix=True, loss=dict(type='PixelReconstructionLoss', criterion='L2')))


@pytest.mark.parametrize('kind', [mimhd_cfg, tinymim, dmae])
def test_numbers_of_the_checkpoint_and_before_training(run, sharp_teacher, image_folder, capsys, kind):
    config, checkpoint = run(kind(sharp_teacher))
    call(TOOL, config, checkpoint, '--images', image_folder, '--num', 31, '--untrained')
    out = capsys.readouterr().out
    assert '4 heads of block 3' in out and 'Fitted on 16 images, scored on 15' in out
    rows = [re.search(rf'{name} +qk (\S+)   vv (\S+)', out).groups()
            for name in ('this checkpoint', 'untrained student')]
    assert rows[0] != rows[1] and all(0.01 < float(kl) < 3 for row in rows for kl in row)


def test_the_teacher_as_a_student_knows_everything(tmp_path, sharp_teacher, image_folder, capsys):
    """Its file goes in by --teacher; the config's is not there. Its pairs and its images are the config's."""
    model = mimhd_cfg(tmp_path / 'gone.pth', backbone=dict(arch=TEACHER, relation_block=3), head=dict(pairs=['kk']))
    loader = dict(batch_size=2, dataset=dict(type='CustomDataset', data_root=str(image_folder)))
    config = dump(tmp_path / 'cfg.py', model, train_dataloader=loader)
    call(TOOL, config, sharp_teacher, '--teacher', sharp_teacher, '--untrained')
    out = capsys.readouterr().out
    assert 'Fitted on 16 images, scored on 16' in out
    itself, untrained = (float(re.search(rf'{name} +kk (\S+)$', out, re.M).group(1))
                         for name in ('this checkpoint', 'untrained student'))
    assert itself < 0.2 * untrained  # not 0: 16 images do not tell all of the forms


def test_the_printed_number_is_the_functions(run, sharp_teacher, image_folder, capsys):
    config, checkpoint = run(mimhd_cfg(sharp_teacher))
    call(TOOL, config, checkpoint, '--images', image_folder)
    model = MODELS.build(dict(mimhd_cfg(sharp_teacher), data_preprocessor=PREPROCESSOR))
    model.init_weights()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'], strict=False)
    images = fixed_images(image_folder, (32, 32), 512, model.data_preprocessor)
    found = read_out_kl(model.backbone, model.target_generator, [dict(inputs=images)], lambda batch: batch)
    assert f'qk {found["qk"]:.4f}   vv {found["vv"]:.4f}' in capsys.readouterr().out


def test_one_sentence_for_wrong_input(run, tmp_path, teacher_file, image_folder):
    config, checkpoint = run(mimhd_cfg(teacher_file))
    images = ('--images', image_folder)
    assert 'at least 2' in error_of(TOOL, config, checkpoint, '--num', 1, *images)
    assert 'names no dataset' in error_of(TOOL, config, checkpoint)
    (tmp_path / 'empty').mkdir()
    assert 'No image in' in error_of(TOOL, config, checkpoint, '--images', tmp_path / 'empty')
    assert 'gone.pth' in error_of(TOOL, config, checkpoint, '--teacher', tmp_path / 'gone.pth', *images)
    assert 'gone.pth' in error_of(TOOL, config, tmp_path / 'gone.pth', *images)
    plain = dump(tmp_path / 'plain.py', dict(type='MAE', backbone=dict(type='MAEViT', arch=STUDENT, **SIZE)))
    assert 'MAE without a teacher' in error_of(TOOL, plain, checkpoint, *images)
    wider = dump(tmp_path / 'wider.py', mimhd_cfg(teacher_file, backbone=dict(arch=TEACHER)))
    assert 'belongs to the checkpoint' in error_of(TOOL, wider, checkpoint, *images)
    other = dump(tmp_path / 'other.py', mimhd_cfg(teacher_file, target_generator=dict(arch=STUDENT)))
    assert 'set model.target_generator.arch' in error_of(TOOL, other, checkpoint, *images)
