"""Teacher files and MAETeacher: every layout read, every tensor verified, nothing executed, never trained."""
import pickle

import pytest
import torch
from mmpretrain.models import VisionTransformer

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import MAETeacher
from mimhd_mm.models.positions import resize_positions
from mimhd_mm.weights.fitting import load_exactly
from mimhd_mm.weights.mae_files import read_mae_file
from mimhd_mm.weights.reading import read_tensors

from ..conftest import SIZE, STUDENT, TEACHER, to_official

#: largest difference from float32 features, as a share of the largest feature
TOLERANCE = dict(bfloat16=0.02, float16=0.002)


def state_dict_of(file):
    return torch.load(file, weights_only=True)['state_dict']


@pytest.fixture
def layouts(teacher_file, tmp_path):
    """The same weights in every layout that is read."""
    from safetensors.torch import save_file
    ours = state_dict_of(teacher_file)
    official = to_official(ours)
    torch.save(dict(model=official, epoch=800), tmp_path / 'official.pth')
    torch.save({f'module.{key}': value for key, value in official.items()}, tmp_path / 'ddp.pth')
    save_file({k: v.contiguous() for k, v in ours.items()}, tmp_path / 'ours.safetensors')
    save_file({k: v.contiguous() for k, v in official.items()}, tmp_path / 'official.safetensors')
    return [tmp_path / name for name in ('official.pth', 'ddp.pth', 'ours.safetensors', 'official.safetensors')]


def test_every_layout_gives_the_same_tensors(teacher_file, layouts):
    reference = read_mae_file(teacher_file, need_decoder=True)
    ours = state_dict_of(teacher_file)
    assert {f'backbone.{k}' for k in reference.encoder} | {f'neck.{k}' for k in reference.decoder} == {
        key for key in ours if key.startswith(('backbone.', 'neck.'))}
    for path in layouts:
        file = read_mae_file(path, need_decoder=True)
        assert file.source == ('openmmlab' if path.name.startswith('ours') else 'official')
        for part in ('encoder', 'decoder'):
            tensors, expected = getattr(file, part), getattr(reference, part)
            assert set(tensors) == set(expected)
            assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_sizes_are_read_from_the_tensors(teacher_file):
    file = read_mae_file(teacher_file)
    assert (file.embed_dims, file.num_layers, file.feedforward_channels) == (48, 4, 96)
    assert (file.patch_size, file.num_patches, file.decoder_embed_dims, file.decoder_depth) == (8, 16, 32, 2)


def test_real_mmengine_checkpoint_is_read_without_unpickling(tmp_path, teacher_file):
    import numpy as np
    from mmengine.logging import HistoryBuffer
    content = torch.load(teacher_file, weights_only=True)
    buffer = HistoryBuffer()
    buffer.update(1.5)
    content['message_hub'] = dict(log_scalars={'train/loss': buffer}, runtime_info={'x': np.float64(2.)})
    torch.save(content, tmp_path / 'epoch_1.pth')
    assert read_mae_file(tmp_path / 'epoch_1.pth').num_layers == 4


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_payload_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / 'executed'
    torch.save(dict(model=dict(cls_token=torch.zeros(1)), payload=Payload(marker)), tmp_path / 'evil.pth')
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(Payload(marker)))
    marker.unlink(missing_ok=True)
    for name in ('evil.pth', 'evil.pkl'):
        with pytest.raises(UserInputError, match='refused'):
            read_tensors(tmp_path / name)
    assert not marker.exists()


def test_getattr_in_a_file_reaches_nothing_but_log_buffers(tmp_path):
    class Sneaky:
        def __reduce__(self):
            return getattr, (torch.nn.Module, '__init__')
    torch.save(dict(model=Sneaky()), tmp_path / 'sneaky.pth')
    with pytest.raises(UserInputError):
        read_tensors(tmp_path / 'sneaky.pth')


def test_reader_for_old_torch_takes_the_same_files_and_refuses_the_same(tmp_path, teacher_file):
    from mimhd_mm.compat import _RestrictedPickle
    for zipped in (True, False):
        content = dict(torch.load(teacher_file, weights_only=True), scalar=torch.zeros(2).numpy().mean())
        torch.save(content, tmp_path / 'file.pth', _use_new_zipfile_serialization=zipped)
        read = torch.load(tmp_path / 'file.pth', pickle_module=_RestrictedPickle, weights_only=False)
        assert all(torch.equal(read['state_dict'][key], value) for key, value in content['state_dict'].items())
        torch.save(dict(model=Payload(tmp_path / 'executed')), tmp_path / 'evil.pth',
                   _use_new_zipfile_serialization=zipped)
        with pytest.raises(pickle.UnpicklingError, match='no tensor and no plain value'):
            torch.load(tmp_path / 'evil.pth', pickle_module=_RestrictedPickle, weights_only=False)
    assert not (tmp_path / 'executed').exists()


def test_unusable_files(tmp_path, teacher_file):
    whole = teacher_file.read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[:len(whole) // 2])
    (tmp_path / 'empty.pth').write_bytes(b'')
    (tmp_path / 'half.safetensors').write_bytes(b'\x10\0\0\0\0\0\0\0{"a":')
    torch.save(dict(model=dict(weight=torch.zeros(2))), tmp_path / 'other.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    official = to_official(state_dict_of(teacher_file))
    encoder = {k: v for k, v in official.items() if not k.startswith(('decoder', 'mask'))}
    torch.save(dict(model=encoder), tmp_path / 'mae_pretrain_vit.pth')
    for name, message in {
            'missing.pth': 'No file', 'half.pth': 'truncated or not a checkpoint', 'empty.pth': 'truncated|refused',
            'half.safetensors': 'truncated', 'other.pth': 'not a masked autoencoder', 'list.pth': 'no state dict',
            'mae_pretrain_vit.pth': 'encoder but no decoder .* mae_pretrain_vit_large_full.pth'}.items():
        with pytest.raises(UserInputError, match=message) as caught:
            read_mae_file(tmp_path / name, need_decoder=True)
        assert name in str(caught.value) and '\n' not in str(caught.value)
    assert read_mae_file(tmp_path / 'mae_pretrain_vit.pth').decoder is None


def build(teacher_file, **kwargs):
    teacher = MAETeacher(**{**dict(checkpoint=str(teacher_file), arch=TEACHER, block=3), **SIZE, **kwargs})
    teacher.load()
    return teacher


def test_relation_equals_that_of_the_whole_network(teacher_file):
    teacher = build(teacher_file)
    plain = VisionTransformer(arch=TEACHER, out_type='raw', **SIZE)
    load_exactly(plain, read_mae_file(teacher_file).encoder, 'file')
    seen = {}
    plain.layers[2].attn.qkv.register_forward_hook(lambda module, args, output: seen.update(qkv=output))
    x = torch.randn(2, 3, 32, 32)
    plain.eval()
    plain(x)
    q, k, v = seen['qkv'].view(2, 17, 3, 4, 12).permute(2, 0, 3, 1, 4)
    for ours, theirs in zip(teacher(x), (q, k, v)):
        torch.testing.assert_close(ours, theirs)


def test_every_tensor_equals_the_file(teacher_file):
    teacher, tensors = build(teacher_file), state_dict_of(teacher_file)
    loaded = dict(teacher.encoder.named_parameters())
    assert len(loaded) > 30
    assert all(torch.equal(value, tensors[f'backbone.{key}']) for key, value in loaded.items())


def test_frozen_and_in_evaluation_whatever_is_called(teacher_file):
    teacher = build(teacher_file)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(x.requires_grad for x in teacher(torch.randn(1, 3, 32, 32)))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_weights_cast_once_give_what_autocast_gives(teacher_file, dtype):
    """The same numbers as float32 weights under autocast, with and without an autocast around."""
    kind = getattr(torch, dtype)
    if not torch.autocast('cpu', kind)._enabled:
        pytest.skip(f'torch {torch.__version__} has no autocast to {dtype} on a CPU')
    exact, cast, images = build(teacher_file), build(teacher_file, dtype=dtype), torch.randn(2, 3, 32, 32)
    with torch.autocast('cpu', kind):
        expected, inside = exact(images), cast(images)
    for x, y, z, reference in zip(cast(images), inside, expected, exact(images)):
        assert x.dtype == kind and torch.equal(x, y) and torch.equal(x, z)
        assert 0 < (x - reference).abs().max() <= TOLERANCE[dtype] * reference.abs().max()


def test_weights_cast_are_the_files_rounded_and_norms_are_not_cast(teacher_file):
    tensors = read_mae_file(teacher_file).encoder
    kinds = {torch.float32: set(), torch.bfloat16: set()}
    for name, value in build(teacher_file, dtype='bfloat16').encoder.named_parameters():
        kinds[value.dtype].add(name)
        assert torch.equal(value, tensors[name].to(value.dtype)), name
    assert {'cls_token', 'pos_embed', 'layers.0.ln1.weight', 'layers.2.ln1.bias'} <= kinds[torch.float32]
    assert kinds[torch.bfloat16] == {name for name in kinds[torch.bfloat16] if 'ln' not in name} >= {
        'patch_embed.projection.weight', 'layers.0.attn.qkv.weight', 'layers.1.ffn.layers.1.bias'}


def test_positions_are_interpolated_for_another_grid(teacher_file):
    teacher = build(teacher_file, img_size=48)
    expected = resize_positions(read_mae_file(teacher_file).encoder['pos_embed'], (6, 6))
    assert torch.equal(teacher.encoder.pos_embed, expected) and expected.shape == (1, 37, 48)


def test_same_grid_leaves_positions_alone():
    positions = torch.randn(1, 17, 8)
    assert resize_positions(positions, (4, 4)) is positions


@pytest.mark.parametrize('kwargs, message', [
    (dict(arch=STUDENT), 'has embed_dims=48, but the teacher is configured with 24'),
    (dict(arch=dict(TEACHER, num_layers=5)), 'has num_layers=4, but'),
    (dict(patch_size=4, img_size=16), 'patches of 8 px'),
    (dict(checkpoint=None), 'No teacher'),
    (dict(dtype='half'), "Unknown dtype 'half' of the teacher; choose from None, 'bfloat16', 'float16'"),
    (dict(block=5), 'Block 5 was asked for, but the network has blocks 1 to 4'),
])
def test_file_and_config_disagree(teacher_file, kwargs, message):
    with pytest.raises(UserInputError, match=message):
        build(teacher_file, **kwargs)


def test_load_exactly_names_what_is_missing():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(UserInputError, match=r"lacks 'bias' \(1 such"):
        load_exactly(layer, dict(weight=torch.zeros(2, 2)), 'file')
    with pytest.raises(UserInputError, match=r"'weight' is \(3, 2\) in the file but \(2, 2\)"):
        load_exactly(layer, dict(weight=torch.zeros(3, 2), bias=torch.zeros(2)), 'file')
    whole = dict(weight=torch.ones(2, 2), bias=torch.ones(2))
    with pytest.raises(UserInputError, match="has the unknown 'scale'"):
        load_exactly(layer, dict(whole, scale=torch.ones(2)), 'file')
    load_exactly(layer, dict(whole, scale=torch.ones(2)), 'file', part=True)
    assert torch.equal(layer.weight, whole['weight']) and torch.equal(layer.bias, whole['bias'])


@pytest.mark.parametrize('key', [
    'blocks.0.ls1.gamma', 'blocks.3.attn.rel_pos_bias', 'blocks.1.attn.q_norm.weight', 'register_tokens',
    'norm_pre.bias', 'decoder_blocks.0.ls1.gamma'])
@pytest.mark.parametrize('layout', ['official', 'openmmlab'])
def test_what_makes_it_another_network_is_refused(layout, key, teacher_file, tmp_path):
    tensors = state_dict_of(teacher_file)
    if layout == 'official':
        tensors = to_official(tensors)
    else:
        key = ('neck.' if key.startswith('decoder') else 'backbone.') + key.replace('blocks', 'layers') \
            .replace('decoder_layers', 'decoder_blocks')
    torch.save(dict(model=dict(tensors, **{key: torch.ones(48)})), tmp_path / 'dino.pth')
    name = key.partition('.')[2] if layout == 'openmmlab' else key.split('.', 1)[-1]
    with pytest.raises(UserInputError, match=f'dino.pth.*{name}.*masked autoencoder') as caught:
        read_mae_file(tmp_path / 'dino.pth')
    assert '\n' not in str(caught.value)
