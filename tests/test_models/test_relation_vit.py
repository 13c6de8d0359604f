"""RelationViT: a VisionTransformer to the bit, with a tap."""
import copy

import pytest
import torch
from mmpretrain.models import VisionTransformer

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import RelationViT
from mimhd_mm.models.relation import log_relation

from ..conftest import SIZE, STUDENT


def build(**kwargs):
    model = RelationViT(arch=STUDENT, **SIZE, **kwargs)
    model.init_weights()
    return model


def images():
    return torch.randn(2, 3, 32, 32)


def test_tokens_equal_vision_transformers_to_the_bit():
    plain = VisionTransformer(arch=STUDENT, out_type='raw', **SIZE)
    for block in (1, 2, 3):
        ours = build(relation_block=block)
        plain.load_state_dict(ours.state_dict(), strict=True)
        x = images()
        assert torch.equal(ours.forward_relation(x)[0], plain(x)[0])
        assert torch.equal(ours(x)[0], plain(x)[0])


@pytest.mark.parametrize('block', [1, 3])
def test_qk_relation_is_the_blocks_real_attention(block):
    model, x = build(relation_block=block), images()
    seen = {}
    attention = model.layers[block - 1].attn
    attention.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    tokens = model(x)[0]
    # run the block's own attention with one-hot values: its output is then the attention weight itself
    probe = copy.deepcopy(attention)
    width, heads, dims = 24, 3, 8
    weights = log_relation(model.forward_relation(x)[1], 'qk').exp()  # (B, M, 17, 17)
    queries, keys, _ = (probe.qkv(seen['x'])).view(2, 17, 3, heads, dims).permute(2, 0, 3, 1, 4)
    one_hot = torch.eye(17).expand(2, heads, 17, 17)
    real = probe.scaled_dot_product_attention(queries, keys, one_hot)
    torch.testing.assert_close(weights, real)
    assert tokens.shape == (2, 17, width)


@pytest.mark.parametrize('block', [2, 3])
def test_what_relations_do_not_need_is_not_computed(block):
    model, x = build(relation_block=block), images()
    expected = model.forward_relation(x)[1]
    for part in (model.layers[block - 1].attn.proj, model.layers[2].ffn, model.ln1):
        part.register_forward_hook(lambda *_: pytest.fail('computed for nothing'))
    tokens, qkv = model.forward_relation(x, need_tokens=False)
    assert tokens is None and all(map(torch.equal, qkv, expected))


def test_gradient_through_the_tap():
    model = build(relation_block=2)
    _, qkv = model.forward_relation(images())
    (qkv.q.square().sum() + qkv.v.square().sum()).backward()
    reached = {name for name, parameter in model.named_parameters()
               if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert 'layers.0.ffn.layers.1.weight' in reached and 'layers.1.attn.qkv.weight' in reached
    assert 'layers.1.attn.proj.weight' not in reached and 'layers.2.ln1.weight' not in reached


def test_stopped_network_gives_the_same_relation_and_holds_no_more_than_it_needs():
    full = build()
    stopped = RelationViT(arch=STUDENT, relation_block=2, stop_at_relation=True, **SIZE)
    stopped.load_state_dict({key: full.state_dict()[key] for key in stopped.state_dict()})
    x = images()
    full.relation_block = 2
    tokens, qkv = stopped.forward_relation(x)
    assert tokens is None
    for ours, theirs in zip(qkv, full.forward_relation(x)[1]):
        assert torch.equal(ours, theirs)
    names = set(stopped.state_dict())
    assert not any(name.startswith(('layers.2', 'ln1', 'layers.1.ffn', 'layers.1.attn.proj')) for name in names)


def test_adaptive_block_changes_one_blocks_heads_and_no_shape():
    model = build(relation_heads=4)
    assert [layer.attn.num_heads for layer in model.layers] == [3, 3, 4] and model.relation_heads == 4
    assert model.forward_relation(images())[1].q.shape == (2, 4, 17, 6)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in build().state_dict().items()}


def test_position_embedding_is_maes_and_fixed():
    from mmpretrain.models.utils import build_2d_sincos_position_embedding
    model = build()
    assert not model.pos_embed.requires_grad
    torch.testing.assert_close(model.pos_embed.data, build_2d_sincos_position_embedding(4, 24, cls_token=True))


def test_other_and_non_square_sizes():
    model = build()
    tokens, qkv = model.forward_relation(torch.randn(2, 3, 48, 24))
    assert tokens.shape == (2, 1 + 6 * 3, 24) and qkv.v.shape == (2, 3, 19, 8)
    wide = RelationViT(arch=STUDENT, img_size=(16, 32), patch_size=8)
    wide.init_weights()
    assert wide.pos_embed.shape == (1, 9, 24) and wide.pos_embed.std() > 0.1


@pytest.mark.parametrize('kwargs, message', [
    (dict(relation_block=4), 'Block 4 was asked for, but the network has blocks 1 to 3'),
    (dict(relation_block=0), 'Block 0'),
    (dict(relation_heads=5), '5 heads do not divide a width of 24'),
    (dict(arch='vit-nano'), "Unknown arch 'vit-nano'; choose from"),
    (dict(arch=dict(embed_dims=8)), 'lacks'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserInputError, match=message):
        RelationViT(**{'arch': STUDENT, **SIZE, **kwargs})
