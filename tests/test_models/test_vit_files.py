"""Vision transformers of other projects: each layout gives the features that its own arithmetic gives."""
import argparse
import copy
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import VisionTransformer
from torch import nn

from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.vit_files import LAYOUTS, read_vit_file

from ..conftest import build_mae
from .test_mae_teacher import Payload

WIDTH, DEPTH, HEADS, MLP, PATCH, PIXELS = 48, 2, 4, 96, 8, 32
TOLERANCE = 1e-5


class SourceAttention(nn.Module):
    """Attention as timm, MAE, DINO and MoCo v3 name it; with q_bias and v_bias as BEiT and CAE do."""

    def __init__(self, width, heads, split_bias):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=not split_bias)
        self.proj = nn.Linear(width, width)
        if split_bias:
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        rows, width = self.qkv.weight, x.shape[-1]
        bias = [self.q_bias, None, self.v_bias] if hasattr(self, 'q_bias') else self.qkv.bias.chunk(3)
        q, k, v = (F.linear(x, rows[i * width:(i + 1) * width], bias[i]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for i in range(3))  # each (B, heads, tokens, width of a head)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** .5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class SourceBlock(nn.Module):
    """A block; ``scale`` gives CAE's gammas."""

    def __init__(self, width, heads, split_bias, scale):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = SourceAttention(width, heads, split_bias)
        self.mlp = nn.ModuleDict(dict(fc1=nn.Linear(width, MLP), fc2=nn.Linear(MLP, width)))
        if scale:
            self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x + getattr(self, 'gamma_1', 1) * self.attn(self.norm1(x))
        return x + getattr(self, 'gamma_2', 1) * self.mlp['fc2'](F.gelu(self.mlp['fc1'](self.norm2(x))))


class SourceViT(nn.Module):
    """The encoder of MAE, DINO, MoCo v3 and TinyMIM; with ``cae``, that of CAE. Random in every tensor."""

    def __init__(self, heads=(HEADS, ) * DEPTH, cae=False, width=WIDTH):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (PIXELS // PATCH) ** 2, width))
        self.patch_embed = nn.ModuleDict(dict(proj=nn.Conv2d(3, width, PATCH, PATCH)))
        self.blocks = nn.ModuleList([SourceBlock(width, number, cae, cae) for number in heads])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        randomise(self)

    def forward(self, images):
        patches = self.patch_embed['proj'](images).flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # (B, 1 + N, C)


def randomise(module):
    """Weights that no part of the network is blind to."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=.3)


def prefixed(state_dict, prefix):
    return {prefix + key: value.clone() for key, value in state_dict.items()}


def some(prefix, *names):
    """A few tensors that are no part of an encoder."""
    return {prefix + name: torch.ones(3) for name in names}


def mae_content(vit):
    decoder = {key[len('neck.'):].replace('.ln1.', '.norm1.').replace('.ln2.', '.norm2.').replace(
        'ffn.layers.0.0', 'mlp.fc1').replace('ffn.layers.1', 'mlp.fc2'): value
        for key, value in build_mae().state_dict().items() if key.startswith('neck.')}
    decoder = {('decoder_norm' + key[3:] if key.startswith('ln1.') else key): value for key, value in decoder.items()}
    return dict(model={**vit.state_dict(), **decoder}, epoch=1600)


def dino_content(vit):
    student = prefixed(SourceViT().state_dict(), 'module.backbone.')
    return dict(student={**student, **some('module.head.', 'mlp.0.weight')}, epoch=100,
                teacher={**prefixed(vit.state_dict(), 'backbone.'), **some('head.', 'mlp.0.weight', 'mlp.0.bias')},
                args=argparse.Namespace(arch='vit_small', lr=5e-4))


def mocov3_content(vit):
    momentum = prefixed(SourceViT().state_dict(), 'module.momentum_encoder.')
    return dict(arch='vit_base', state_dict={
        **prefixed(vit.state_dict(), 'module.base_encoder.'), **some('module.base_encoder.head.', '0.weight'),
        **momentum, **some('module.predictor.', '0.weight', '1.running_mean')})


def cae_content(vit):
    teacher = prefixed(SourceViT(cae=True).state_dict(), 'teacher.')
    return dict(model={**prefixed(vit.state_dict(), 'encoder.'), **teacher, 'mask_token': torch.ones(1, 1, WIDTH),
                       **some('pretext_neck.', 'regressor_blocks.0.gamma_1_cross', 'norm.weight')})


#: layout -> the file's content of a network, whether the network is CAE's, what is left out
STATED = {
    'mae': (mae_content, False, {}),
    'dino': (dino_content, False, {'student': 31, 'head': 2}),
    'mocov3': (mocov3_content, False, {'base_encoder.head': 1, 'momentum_encoder': 30, 'predictor': 2}),
    'cae': (cae_content, True, {'teacher': 36, 'pretext_neck': 2, 'mask_token': 1}),
    'tinymim': (lambda vit: dict(model=vit.state_dict()), False, {}),
}
each_stated = pytest.mark.parametrize('layout', STATED)


def difference(found, expected):
    """Largest difference, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def features(file, images, **changes):
    """Of mmpretrain's VisionTransformer with the file's tensors; tokens unless the file has a norm of the average."""
    model = VisionTransformer(**{**dict(out_type='raw'), **file.settings, **changes})
    model.load_state_dict(file.encoder, strict=True)
    model.eval()
    with torch.no_grad():
        return model(images)[-1]


def stated_file(layout, path, **options):
    """A file of this layout, and the features of the network in it."""
    content, cae, _ = STATED[layout]
    vit = SourceViT(cae=cae, **options)
    torch.save(content(vit), path)
    with torch.no_grad():
        return SimpleNamespace(path=path, images=(images := torch.randn(2, 3, PIXELS, PIXELS)), features=vit(images))


@each_stated
def test_features_of_restated_networks(layout, tmp_path):
    source = stated_file(layout, tmp_path / 'file.pth')
    asked = layout if layout == 'tinymim' else 'auto'
    file = read_vit_file(source.path, asked, [HEADS])
    assert file.source == layout and file.left_out == STATED[layout][2]
    assert file.taken_from == dict(dino='teacher.backbone.', mocov3='base_encoder.', cae='encoder.').get(layout, '')
    assert (file.embed_dims, file.num_layers, file.patch_size, file.grid) == (WIDTH, DEPTH, PATCH, 4)
    assert difference(features(file, source.images), source.features) <= TOLERANCE
    assert difference(features(file, source.images, arch=dict(file.settings['arch'], num_heads=6)),
                      source.features) > .01


def test_options_of_a_run_may_be_there_and_code_may_not(tmp_path):
    content = dino_content(SourceViT())
    content['args'].hook = Payload(tmp_path / 'executed')
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(UserInputError, match='refused'):
        read_vit_file(tmp_path / 'file.pth')
    assert not (tmp_path / 'executed').exists()


def test_only_cae_is_given_a_layer_scale_and_zero_biases_of_k(tmp_path):
    for layout in ('cae', 'mae'):
        file = read_vit_file(stated_file(layout, tmp_path / f'{layout}.pth').path)
        assert ('layer_scale_init_value' in file.settings) == (layout == 'cae')
        bias_of_k = file.encoder['layers.1.attn.qkv.bias'][WIDTH:2 * WIDTH]
        assert (bias_of_k == 0).all() == (layout == 'cae')


def test_mae_decoder_comes_along(tmp_path):
    file = read_vit_file(stated_file('mae', tmp_path / 'mae.pth').path)
    assert set(file.decoder) == set(build_mae().neck.state_dict()) and file.decoder_depth == 2
    content = torch.load(tmp_path / 'mae.pth', weights_only=True)
    del content['model']['decoder_pred.weight']
    torch.save(content, tmp_path / 'cut.pth')
    file = read_vit_file(tmp_path / 'cut.pth')
    assert file.decoder is None and sum(file.left_out.values()) == len(build_mae().neck.state_dict()) - 1


def test_last_block_of_tinymim_has_heads_of_its_own(tmp_path):
    source = stated_file('tinymim', tmp_path / 'file.pth', heads=(3, 8))
    right = read_vit_file(source.path, 'tinymim', [3, 8])
    assert right.num_heads == [3, 8]
    assert difference(features(right, source.images), source.features) <= TOLERANCE
    for wrong in ([3], [8], [8, 3]):
        assert difference(features(read_vit_file(source.path, 'tinymim', wrong), source.images), source.features) > .01


@pytest.mark.parametrize('layout, width, expected', [
    ('tinymim', 192, [6, 12]), ('tinymim', 768, [12, 16]), ('mocov3', 384, [12, 12]), ('cae', 384, [12, 12]),
    ('timm', 384, [6, 6]), ('dino', 192, [3, 3]), ('mae', 768, [12, 12]), ('timm', 48, None)])
def test_heads_by_layout_and_width(layout, width, expected, tmp_path):
    torch.save(SourceViT(width=width, cae=layout == 'cae').state_dict(), tmp_path / 'file.pth')
    assert read_vit_file(tmp_path / 'file.pth', layout).num_heads == expected


@pytest.mark.parametrize('options', [
    dict(), dict(init_values=.1), dict(global_pool='avg'), dict(global_pool='avg', final_norm=True, fc_norm=True),
    dict(qkv_bias=False), dict(img_size=(32, 40)), dict(in_chans=4)], ids=str)
def test_timm(options, tmp_path):
    timm = pytest.importorskip('timm.models.vision_transformer')
    model = timm.VisionTransformer(**{**dict(
        img_size=PIXELS, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=2, num_classes=5),
        **options})
    randomise(model)
    model.eval()
    torch.save(model.state_dict(), tmp_path / 'file.pth')
    images = torch.randn(2, options.get('in_chans', 3), 32, 40 if 'img_size' in options else 32)
    with torch.no_grad():
        expected = model.forward_features(images)
        if options.get('global_pool'):
            expected = model.forward_head(expected, pre_logits=True)
    file = read_vit_file(tmp_path / 'file.pth', num_heads=[HEADS])
    assert file.source == 'timm' and file.left_out == {'head': 2}
    changes = dict(img_size=options['img_size']) if 'img_size' in options else {}  # which no tensor tells
    assert difference(features(file, images, **changes), expected) <= TOLERANCE


def test_timm_models_that_a_plain_transformer_cannot_be(tmp_path):
    timm = pytest.importorskip('timm.models.vision_transformer')
    for options, message in {
            'reg_tokens': (dict(reg_tokens=2), 'further tokens beside'),
            'class_token': (dict(class_token=False, global_pool='avg'), 'no .class. token'),
            'no_embed_class': (dict(no_embed_class=True), 'none of the .class. token'),
            'qk_norm': (dict(qk_norm=True), "'blocks.0.attn.q_norm.weight'"),
            'pre_norm': (dict(pre_norm=True), "'norm_pre.weight'"),
            'pos_embed': (dict(pos_embed='none'), "nothing for 'pos_embed'")}.values():
        model = timm.VisionTransformer(img_size=PIXELS, patch_size=PATCH, embed_dim=WIDTH, depth=1, num_heads=4,
                                       **options)
        torch.save(model.state_dict(), tmp_path / 'file.pth')
        with pytest.raises(UserInputError, match=message) as caught:
            read_vit_file(tmp_path / 'file.pth')
        assert '\n' not in str(caught.value)


def hf_config(transformers, kind, **changes):
    return getattr(transformers, kind)(**{**dict(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=MLP, image_size=PIXELS,
        patch_size=PATCH), **changes})


@pytest.mark.parametrize('kind, eps', [
    ('ViTModel', 1e-3), ('ViTForImageClassification', 1e-12), ('ViTMAEModel', 1e-12)])
@pytest.mark.parametrize('names', ['saved', 'in memory'])
def test_hugging_face(kind, eps, names, tmp_path):
    transformers = pytest.importorskip('transformers')
    mae = kind == 'ViTMAEModel'
    config = hf_config(transformers, 'ViTMAEConfig' if mae else 'ViTConfig', layer_norm_eps=eps,
                       **(dict(mask_ratio=0.) if mae else {}))
    model = getattr(transformers, kind)(config)
    randomise(model)
    model.eval()
    model.save_pretrained(tmp_path)
    if names == 'in memory':
        from safetensors.torch import save_file
        save_file(model.state_dict(), str(tmp_path / 'model.safetensors'))
    images = torch.randn(2, 3, PIXELS, PIXELS)
    noise = dict(noise=torch.arange(16.).expand(2, -1)) if mae else {}  # patches stay in order
    with torch.no_grad():
        expected = getattr(model, 'vit', model)(pixel_values=images, **noise).last_hidden_state
    file = read_vit_file(tmp_path)
    assert file.source == 'hf' and file.num_heads == [HEADS] * DEPTH and file.eps == eps and file.decoder is None
    assert file.left_out == {'ViTModel': {'pooler': 2}, 'ViTForImageClassification': {'classifier': 2}}.get(kind, {})
    assert difference(features(file, images), expected) <= TOLERANCE


@pytest.mark.parametrize('names', ['saved', 'in memory'])
def test_hugging_face_decoder(names, tmp_path):
    transformers = pytest.importorskip('transformers')
    model = transformers.ViTMAEForPreTraining(hf_config(
        transformers, 'ViTMAEConfig', decoder_hidden_size=32, decoder_num_hidden_layers=2, layer_norm_eps=1e-6,
        decoder_num_attention_heads=4, decoder_intermediate_size=128))
    randomise(model)
    model.eval()
    model.save_pretrained(tmp_path)
    if names == 'in memory':
        from safetensors.torch import save_file
        save_file(model.state_dict(), str(tmp_path / 'model.safetensors'))
    file = read_vit_file(tmp_path)
    assert not file.left_out
    neck = build_mae().neck
    neck.load_state_dict(file.decoder, strict=True)
    latent, ids_restore = torch.randn(2, 5, WIDTH), torch.stack([torch.randperm(16) for _ in range(2)])
    with torch.no_grad():
        expected = model.decoder(latent, ids_restore).logits
        assert difference(neck(latent, ids_restore), expected) <= TOLERANCE


def test_hugging_face_without_config_and_with_another_activation(tmp_path):
    transformers = pytest.importorskip('transformers')
    transformers.ViTModel(hf_config(transformers, 'ViTConfig')).save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(dict(config, hidden_act='quick_gelu')))
    with pytest.raises(UserInputError, match='quick_gelu'):
        read_vit_file(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(UserInputError, match='cannot be read'):
        read_vit_file(tmp_path)
    (tmp_path / 'config.json').unlink()
    file = read_vit_file(tmp_path / 'model.safetensors')
    assert file.eps is None and file.num_heads is None


@pytest.mark.parametrize('layout', [*STATED, 'timm'])
@pytest.mark.parametrize('key', ['blocks.1.attn.k_norm.weight', 'blocks.0.mlp.w3.weight', 'norm_pre.weight', 'extra'])
def test_nothing_of_the_encoder_is_dropped(layout, key, tmp_path):
    vit = SourceViT(cae=layout == 'cae')
    content = STATED.get(layout, STATED['tinymim'])[0](vit)
    tensors = content.get('teacher') or content.get('state_dict') or content['model']
    prefix = {'dino': 'backbone.', 'mocov3': 'module.base_encoder.', 'cae': 'encoder.'}.get(layout, '')
    tensors[prefix + key] = torch.ones(WIDTH)
    content.pop('args', None)
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(UserInputError, match=key):
        read_vit_file(tmp_path / 'file.pth')


@pytest.mark.parametrize('key', ['blocks.1.mlp.fc2.bias', 'blocks.0.attn.qkv.bias', 'norm.weight', 'cls_token',
                                 'patch_embed.proj.bias', 'blocks.1.norm1.weight'])
def test_incomplete_files(key, tmp_path):
    tensors = SourceViT().state_dict()
    del tensors[key]
    torch.save(tensors, tmp_path / 'file.pth')
    with pytest.raises(UserInputError, match='file.pth'):
        read_vit_file(tmp_path / 'file.pth')


def test_half_a_split_bias(tmp_path):
    tensors = SourceViT(cae=True).state_dict()
    del tensors['blocks.1.attn.v_bias']
    torch.save(tensors, tmp_path / 'file.pth')
    with pytest.raises(UserInputError, match='no bias of v'):
        read_vit_file(tmp_path / 'file.pth')


def test_layout_that_is_asked_for(tmp_path):
    whole = SourceViT().state_dict()
    torch.save(whole, tmp_path / 'plain.pth')
    torch.save(prefixed(whole, 'base_encoder.'), tmp_path / 'moco.pth')
    for layout in ('mae', 'dino', 'mocov3', 'tinymim', 'timm', 'cae'):
        assert read_vit_file(tmp_path / 'plain.pth', layout).source == layout
    for layout in set(LAYOUTS) - {'mocov3'}:
        with pytest.raises(UserInputError, match=f'not of the layout {layout!r}'):
            read_vit_file(tmp_path / 'moco.pth', layout)


def test_wrong_heads(tmp_path):
    torch.save(copy.deepcopy(SourceViT().state_dict()), tmp_path / 'file.pth')
    for heads, message in (([5], 'do not divide'), ([4, 4, 4], '3 numbers and .* 2 blocks'), ([0], 'do not divide')):
        with pytest.raises(UserInputError, match=message):
            read_vit_file(tmp_path / 'file.pth', num_heads=heads)
