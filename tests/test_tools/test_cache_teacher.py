"""tools/cache_teacher.py: says what it needs, writes the file, prints options with which tools/train.py trains."""
import re
import shlex

import pytest
from mmengine.config import Config

from mimhd_mm.models.target_generators.teacher_cache import TeacherCache

from ..conftest import mimhd_cfg
from ..test_engine.runs import settings
from .commands import call, error_of

TOOL = 'cache_teacher.py'


def write_config(folder, model, images, **changes):
    loop = dict(type='EpochBasedTrainLoop', max_epochs=2)
    path = folder / 'config.py'
    Config(dict(settings(model, images, loop, **changes), custom_imports=dict(imports=['mimhd_mm']))).dump(path)
    return path


@pytest.fixture
def config(tmp_path, teacher_file, image_folder):
    return write_config(tmp_path, mimhd_cfg(teacher_file, token_fraction=0.25), image_folder)


@pytest.mark.slow
@pytest.mark.parametrize('fraction, tokens', [(None, 5), (0.5, 9), (1.0, 17)])
def test_trains_with_what_is_printed(config, tmp_path, capsys, fraction, tokens):
    """The config's share of the patches, another one, and all of them."""
    out = tmp_path / 'new' / 'cache.safetensors'
    options = [] if fraction is None else ['--token-fraction', fraction]
    call(TOOL, config, out, '--views', 2, '--batch-size', 16, *options,
         '--cfg-options', 'train_dataloader.num_workers=1')
    printed = capsys.readouterr().out
    assert f'32 images, 2 views of each, 3 x 4 heads x {tokens} tokens x 12 numbers' in printed
    assert f': {out.stat().st_size} bytes' in printed
    assert TeacherCache(out).shape == (32, 2, 3, 4, tokens, 12)
    told = shlex.split(re.search(r'--cfg-options (model.*)', printed)[1])
    call('train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options', *told)
    assert (tmp_path / 'run' / 'epoch_2.pth').is_file()
    dumped = Config.fromfile(tmp_path / 'run' / 'config.py')
    dataset = dumped.train_dataloader.dataset
    assert dataset.type == 'mimhd_mm.FixedViews' and dataset.num_views == 2
    call('train.py', tmp_path / 'run' / 'config.py', '--resume')  # wrapped already


def test_refuses_wrong_input(config, tmp_path, teacher_file, image_folder):
    out = tmp_path / 'cache'
    assert 'No config file' in error_of(TOOL, tmp_path / 'gone.py', out, '--views', 2)
    assert 'num_views' in error_of(TOOL, config, out, '--views', 0)
    assert '--batch-size 0' in error_of(TOOL, config, out, '--views', 1, '--batch-size', 0)
    assert 'token_fraction' in error_of(TOOL, config, out, '--views', 1, '--token-fraction', 1.5)
    (tmp_path / 'kept').write_text('mine')
    assert 'not overwritten' in error_of(TOOL, config, tmp_path / 'kept', '--views', 1)

    def refused(*options):
        return error_of(TOOL, config, out, '--views', 1, '--cfg-options', *options)

    assert 'No file' in refused(f'model.target_generator.checkpoint={tmp_path / "gone.pth"}')
    assert 'DeviceAugmentation' in refused('data_preprocessor.type=DeviceAugmentation')
    assert 'with a MAETeacher' in refused('model.target_generator.type=MaskedMAETeacher')
    assert '4 x 4 patches, and the teacher takes 8 x 8' in refused(
        'model.target_generator.img_size=64', 'model.backbone.img_size=64')
    assert not out.exists() and (tmp_path / 'kept').read_text() == 'mine'


def test_train_refuses_another_pipeline_before_training(config, tmp_path):
    out = tmp_path / 'cache'
    call(TOOL, config, out, '--views', 1)
    message = error_of('train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options',
                       'model.target_generator.type=CachedTeacher', f'model.target_generator.cache={out}',
                       'train_dataloader.dataset.pipeline.2.prob=0.25')
    assert 'dataset.pipeline.2.prob=0.5' in message and not list((tmp_path / 'run').rglob('*.pth'))
