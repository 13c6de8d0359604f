"""``rank_heads.py``: from a config and images to a file that a run selects its heads with."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mimhd_mm.registry import MODELS
from mimhd_mm.weights.reading import sha256_of

from ..conftest import STUDENT, mimhd_cfg
from .commands import call, error_of
from .test_teacher_tools import striped_images, train_mae

TOOL = 'analysis_tools/rank_heads.py'
PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[63.75] * 3, to_rgb=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A teacher that reconstructs, the same without its decoder, images for it, and configs of both."""
    root = tmp_path_factory.mktemp('rank')
    init_default_scope('mmpretrain')
    state_dict = train_mae(norm_pix=False, steps=30).state_dict()
    encoder = {key: value for key, value in state_dict.items() if key.startswith('backbone.')}
    for name, tensors in (('mae', state_dict), ('encoder', encoder)):
        torch.save(dict(state_dict=tensors), root / f'{name}.pth')
        cfg = Config(dict(model=mimhd_cfg(root / f'{name}.pth'), data_preprocessor=PREPROCESSOR))
        cfg.dump(str(root / f'{name}.py'))
    pixels = (127.5 + 63.75 * striped_images(6, seed=2).expand(-1, -1, 32, -1)).clamp(0, 255).byte()
    (root / 'images').mkdir()
    for index, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(root / 'images' / f'{index}.png')
    return root


@pytest.mark.parametrize('name, options, measure', [
    ('mae', [], 'gradient'), ('mae', ['--measure', 'confidence'], 'confidence'), ('encoder', [], 'confidence')])
def test_ranking_goes_into_a_model(folder, tmp_path, capsys, name, options, measure):
    out = tmp_path / 'heads.json'
    call(TOOL, folder / f'{name}.py', '--images', folder / 'images', '--out', out, '--num', 5, *options)
    content = json.loads(out.read_text())
    assert set(content) == {'teacher', 'sha256', 'block', 'measure', 'images', 'importance', 'heads'}
    assert content['sha256'] == sha256_of(folder / f'{name}.pth') and content['block'] == 3
    assert content['measure'] == measure and content['images'] == 5
    importance = content['importance']
    assert len(importance) == 4 and min(importance) > 0
    best = sorted(range(4), key=lambda head: -importance[head])
    assert content['heads'] == best[:3] and len(content['heads']) == STUDENT['num_heads']
    assert f'head {best[0]:2d}' in capsys.readouterr().out

    model = MODELS.build(mimhd_cfg(folder / 'mae.pth', head=dict(
        matcher=dict(type='SelectHeadMatcher', heads=str(out)))))
    assert all(matcher.heads.tolist() == content['heads'] for matcher in model.head.matchers.values())


def test_a_head_without_effect_comes_last(folder, tmp_path):
    content = torch.load(folder / 'mae.pth', weights_only=True)
    content['state_dict']['backbone.layers.2.attn.proj.weight'][:, :12] = 0  # head 0 of block 3
    torch.save(content, tmp_path / 'mae.pth')
    Config(dict(model=mimhd_cfg(tmp_path / 'mae.pth'), data_preprocessor=PREPROCESSOR)).dump(str(tmp_path / 'cfg.py'))
    call(TOOL, tmp_path / 'cfg.py', '--images', folder / 'images', '--out', tmp_path / 'heads.json')
    content = json.loads((tmp_path / 'heads.json').read_text())
    assert content['importance'][0] == 0 and 0 not in content['heads'] and content['images'] == 6


def test_one_sentence_for_wrong_input(folder, tmp_path, teacher_file):
    (tmp_path / 'old.json').write_text('{}')
    (tmp_path / 'empty').mkdir()
    for name, changes in (('plain', dict(target_generator=None)), ('gone', None), ('untrained', None)):
        model = mimhd_cfg(teacher_file if name == 'untrained' else tmp_path / 'gone.pth', **(changes or {}))
        Config(dict(model=model, data_preprocessor=PREPROCESSOR)).dump(str(tmp_path / f'{name}.py'))

    def error(config, images=folder / 'images', out=tmp_path / 'new.json', *options):
        return error_of(TOOL, config, '--images', images, '--out', out, *options)
    assert 'exists already' in error(folder / 'mae.py', out=tmp_path / 'old.json')
    assert 'its folder does not' in error(folder / 'mae.py', out=tmp_path / 'no' / 'new.json')
    assert 'No image in' in error(folder / 'mae.py', images=tmp_path / 'empty')
    assert 'No config file' in error(tmp_path / 'none.py')
    assert 'without a RelationViT and a MAETeacher' in error(tmp_path / 'plain.py')
    assert "No file '" in error(tmp_path / 'gone.py') and 'gone.pth' in error(tmp_path / 'gone.py')
    assert 'does not reconstruct' in error(tmp_path / 'untrained.py')
    assert 'at least 1' in error(folder / 'mae.py', folder / 'images', tmp_path / 'new.json', '--num', 0)
    assert 'holds no decoder' in error(
        folder / 'encoder.py', folder / 'images', tmp_path / 'new.json', '--measure', 'gradient')
    assert (tmp_path / 'old.json').read_text() == '{}' and not (tmp_path / 'new.json').exists()
