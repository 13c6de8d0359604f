"""tools/model_converters/vit_to_mmpretrain.py: what it writes, says and refuses."""
import pytest
import torch
from mmengine.config import Config

from mimhd_mm.engine.preflight.pretrained import check_pretrained
from mimhd_mm.errors import UserInputError
from mimhd_mm.registry import MODELS
from mimhd_mm.weights.mae_files import read_mae_file
from mimhd_mm.weights.reading import read_tensors

from ..conftest import build_mae, to_official
from ..test_models.test_vit_files import (
    DEPTH,
    HEADS,
    MLP,
    PATCH,
    PIXELS,
    STATED,
    TOLERANCE,
    WIDTH,
    difference,
    stated_file,
)
from .commands import call, error_of

TOOL = 'model_converters/vit_to_mmpretrain.py'


def finetune_cfg(checkpoint, heads=(HEADS, ) * DEPTH, **backbone) -> Config:
    """A fine-tuning config of the tests' size that starts from ``checkpoint``."""
    arch = dict(embed_dims=WIDTH, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=MLP)
    return Config(dict(default_scope='mmpretrain', train_cfg=dict(max_epochs=1), model=dict(
        type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=2, in_channels=WIDTH), backbone=dict(
            type='VisionTransformer', arch=arch, img_size=PIXELS, patch_size=PATCH,
            layer_cfgs=[dict(num_heads=number) for number in heads],
            init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.'), **backbone))))


@pytest.mark.parametrize('layout', STATED)
def test_fine_tuning_starts_from_what_is_written(layout, tmp_path, capsys):
    source, target = stated_file(layout, tmp_path / 'source.pth'), tmp_path / 'target.pth'
    call(TOOL, source.path, target, '--num-heads', HEADS, *(['--layout', layout] if layout == 'tinymim' else []))
    printed = capsys.readouterr().out
    assert f'layout {layout}, from ' in printed and ('from teacher.backbone.: ' in printed) == (layout == 'dino')
    assert f'encoder {WIDTH} wide, {DEPTH} blocks, patch {PATCH}, grid 4 x 4, final norm `ln1`' in printed
    assert 'read back and equal' in printed
    assert all(f'{name} ({number} tensors)' in printed for name, number in STATED[layout][2].items())
    meta = torch.load(target, weights_only=True)['meta']
    assert (meta['layout'], meta['num_heads']) == (layout, [HEADS] * DEPTH) and len(meta['source_sha256']) == 64

    cfg = finetune_cfg(target, out_type='raw', **(dict(layer_scale_init_value=1.) if layout == 'cae' else {}))
    check_pretrained(cfg)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    backbone.eval()
    with torch.no_grad():
        assert difference(backbone(source.images)[-1], source.features) <= TOLERANCE
    line = next(line for line in printed.splitlines() if line.startswith('backbone='))
    printed_cfg = finetune_cfg(target)
    printed_cfg.model.backbone = eval(line[len('backbone='):])
    check_pretrained(printed_cfg)


def test_heads_of_tinymim_are_written_and_checked(tmp_path, capsys):
    source, target = stated_file('tinymim', tmp_path / 'source.pth', heads=(3, 8)), tmp_path / 'target.pth'
    call(TOOL, source.path, target, '--layout', 'tinymim', '--num-heads', 3, 8)
    printed = capsys.readouterr().out
    assert 'Heads: 3 8 (by --num-heads)' in printed
    assert 'layer_cfgs=[dict(num_heads=3)]' in printed
    check_pretrained(finetune_cfg(target, heads=(3, 8)))
    with pytest.raises(UserInputError, match='block 2 has 8 heads'):
        check_pretrained(finetune_cfg(target, heads=(3, 3)))


def test_default_heads_come_with_a_caution(tmp_path, capsys):
    source = stated_file('tinymim', tmp_path / 'source.pth', width=192)
    call(TOOL, source.path, tmp_path / 'tinymim.pth', '--layout', 'tinymim')
    printed = capsys.readouterr().out
    assert 'Heads: 6 12 (by the code of tinymim; no tensor tells, so make sure)' in printed and 'fine-tuning' in printed
    source = stated_file('tinymim', tmp_path / 'source.pth')
    call(TOOL, source.path, tmp_path / 'unknown.pth')
    assert 'give --num-heads' in capsys.readouterr().out
    assert 'num_heads' not in torch.load(tmp_path / 'unknown.pth', weights_only=True)['meta']


def test_mae_with_its_decoder_round_trip(teacher_file, tmp_path, capsys):
    official = to_official(torch.load(teacher_file, weights_only=True)['state_dict'])
    torch.save(dict(model=official), tmp_path / 'official.pth')
    for source in (tmp_path / 'official.pth', teacher_file):
        target = tmp_path / f'from_{source.name}'
        call(TOOL, source, target, '--need-decoder')
        printed = capsys.readouterr().out
        assert 'read back and equal' in printed and 'decoder 32 wide, 2 blocks' in printed
        converted, original = read_mae_file(target, True), read_mae_file(teacher_file, True)
        assert converted.source == 'openmmlab'
        for part in ('encoder', 'decoder'):
            tensors, expected = getattr(converted, part), getattr(original, part)
            assert set(tensors) == set(expected)
            assert all(torch.equal(tensors[key], value) for key, value in expected.items())
        model = build_mae()
        model.load_state_dict(torch.load(target, weights_only=True)['state_dict'], strict=True)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file
    source = stated_file('mae', tmp_path / 'source.pth')
    save_file(read_tensors(source.path), str(tmp_path / 'source.safetensors'))
    for name in ('source.pth', 'source.safetensors'):
        call(TOOL, tmp_path / name, tmp_path / f'{name}.pth')
    first, second = (read_tensors(tmp_path / f'{name}.pth') for name in ('source.pth', 'source.safetensors'))
    assert set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_refused(tmp_path):
    source, target = stated_file('mae', tmp_path / 'source.pth').path, tmp_path / 'target.pth'
    tensors = torch.load(source, weights_only=True)['model']
    encoder = {key: value for key, value in tensors.items() if not key.startswith(('decoder_', 'mask_token'))}
    files = {
        'encoder.pth': encoder,
        'resnet.pth': {'conv1.weight': torch.ones(2), 'layer1.0.conv1.weight': torch.ones(2)},
        'unknown.pth': {**encoder, 'blocks.0.attn.rope': torch.ones(2)},
        'relative.pth': {**encoder, 'blocks.0.attn.relative_position_bias_table': torch.ones(2)},
    }
    for name, content in files.items():
        torch.save(dict(model=content), tmp_path / name)
    (tmp_path / 'half.pth').write_bytes(source.read_bytes()[:5000])

    for name, message, *options in (
            ('encoder.pth', 'no decoder', '--need-decoder'), ('resnet.pth', 'not of a known layout'),
            ('encoder.pth', "not of the layout 'hf'", '--layout', 'hf'), ('unknown.pth', 'blocks.0.attn.rope'),
            ('relative.pth', 'relative position bias'), ('half.pth', 'truncated'), ('missing.pth', 'No file'),
            ('encoder.pth', 'do not divide', '--num-heads', 5)):
        refusal = error_of(TOOL, tmp_path / name, target, *options)
        assert message in refusal and name in refusal and not target.exists()
    assert 'No folder' in error_of(TOOL, source, tmp_path / 'nowhere' / 'target.pth')
    assert 'end in .pth' in error_of(TOOL, source, tmp_path / 'target.safetensors')
    before = source.read_bytes()
    assert 'exists already' in error_of(TOOL, source, source) and source.read_bytes() == before
