"""DualViewMAEDecoder (eqs. 8-9): the teacher's decoder on both views at once."""
import pytest
import torch
from mmpretrain.models.necks import MAEPretrainDecoder

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import DualViewMAEDecoder
from mimhd_mm.models.views import draw_views, merge
from mimhd_mm.weights.mae_files import read_mae_file

from ..conftest import DECODER


def build(teacher_file, student_dims=48, **kwargs):
    neck = DualViewMAEDecoder(student_dims, patch_grid=(4, 4), patch_size=8, embed_dim=48, **DECODER, **kwargs)
    neck.init_weights()
    file = read_mae_file(teacher_file, need_decoder=True)
    neck.load_decoder(file.decoder, file.path)
    return neck


def test_equals_two_calls_of_the_plain_decoder(teacher_file):
    """The plain decoder takes visible tokens and an order; ours takes all tokens and masks."""
    neck = build(teacher_file)
    plain = MAEPretrainDecoder(num_patches=16, patch_size=8, embed_dim=48, **DECODER)
    plain.load_state_dict(read_mae_file(teacher_file).decoder)
    tokens, masks = torch.randn(3, 17, 48), draw_views(3, 16)
    ours = neck(tokens, masks)
    for v in range(2):
        order = masks[v].int().argsort(dim=1, stable=True)  # visible patches first
        patches = torch.gather(tokens[:, 1:], 1, order[:, :8, None].expand(-1, -1, 48))
        expected = plain(torch.cat([tokens[:, :1], patches], 1), order.argsort(dim=1))
        torch.testing.assert_close(ours[v], expected, rtol=1e-4, atol=1e-5)


def plain_predictions(neck, tokens, masks):
    """Eqs. 8 and 9 as they are written: each view by itself, through every layer, with every token: (V, B, N, P)."""
    views, embedded = [], neck.decoder_embed(neck.connector(tokens))
    for hidden in masks:
        patches = torch.where(hidden[..., None], neck.mask_token, embedded[:, 1:])
        x = torch.cat([embedded[:, :1], patches], 1) + neck.decoder_pos_embed
        for block in neck.decoder_blocks:
            x = block(x)
        views.append(neck.decoder_pred(neck.decoder_norm(x))[:, 1:])
    return torch.stack(views)


@pytest.mark.parametrize('changes', [
    dict(), dict(mask_ratio=0.25), dict(patch_grid=(3, 5)), dict(patch_grid=(3, 3), mask_ratio=0.7),
    dict(num_views=1), dict(num_views=1, mask_ratio=0.75), dict(decoder_depth=1), dict(decoder_depth=3),
    dict(student_dims=48), dict(frozen=False)], ids=str)
def test_what_training_leaves_out_changes_no_prediction_and_no_gradient(changes):
    """To 1e-5 of the largest value, in float32; gradients of tokens, connector, mask token and a trained decoder."""
    kwargs = {**dict(student_dims=24, patch_grid=(4, 4), patch_size=8, embed_dim=48), **DECODER, **changes}
    neck = DualViewMAEDecoder(**kwargs)
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    num_tokens = neck.patch_grid[0] * neck.patch_grid[1]
    tokens = torch.randn(3, 1 + num_tokens, kwargs['student_dims'], requires_grad=True)
    masks = draw_views(3, num_tokens, neck.mask_ratio, neck.num_views)
    blind = masks.any(0).unsqueeze(-1)  # all patches with two views
    upstream = torch.randn(3, num_tokens, 192) * blind
    learned = {'tokens': tokens, **{name: value for name, value in neck.named_parameters() if value.requires_grad}}
    results = []
    for merged in (neck.predict_hidden(tokens, masks), merge(neck(tokens, masks), masks),
                   merge(plain_predictions(neck, tokens, masks), masks)):
        gradients = torch.autograd.grad((merged * upstream).sum(), learned.values())
        results.append({'merged': merged.detach() * blind, **dict(zip(learned, gradients))})
    for ours in results[:2]:
        for name, expected in results[2].items():
            assert (ours[name] - expected).abs().max() <= 1e-5 * expected.abs().max(), name
    assert results[2]['mask_token'].abs().max() > 1e-3 and len(learned) >= (2 if 'student_dims' in changes else 4)


def test_all_predictions_of_all_views_are_the_plain_ones(teacher_file):
    neck = build(teacher_file, student_dims=24)
    tokens, masks = torch.randn(3, 17, 24), draw_views(3, 16)
    torch.testing.assert_close(neck(tokens, masks), plain_predictions(neck, tokens, masks), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('num_views, last', [(2, [16]), (1, [12])])
def test_layers_see_only_what_they_must(teacher_file, num_views, last):
    """Tokens an image of each layer's inputs: the first q, k, v projection, the last MLP and the prediction."""
    neck = build(teacher_file, student_dims=24, num_views=num_views, mask_ratio=0.75)
    seen = {}
    for name, layer in dict(first=neck.decoder_blocks[0].attn.qkv, middle=neck.decoder_blocks[0].attn.proj,
                            last=neck.decoder_blocks[-1].ffn, pred=neck.decoder_pred).items():
        layer.register_forward_hook(
            lambda _, args, __, name=name: seen.setdefault(name, []).append(tuple(args[0].shape[:2])))
    neck.predict_hidden(torch.randn(3, 17, 24), draw_views(3, 16, 0.75, num_views))
    assert seen['first'] == [(3, 17), (1, 17)]  # each image's tokens once, hidden places once a step
    assert seen['middle'][0] == (3 * num_views, 17)
    assert seen['last'] == [(3, 12), (3, 4)][:num_views] and seen['pred'] == [(3, *last)]


def test_a_view_does_not_see_what_it_hides(teacher_file):
    neck = build(teacher_file)
    tokens, masks = torch.randn(1, 17, 48, requires_grad=True), draw_views(1, 16)
    for v in range(2):
        gradient, = torch.autograd.grad(neck(tokens, masks)[v].sum(), tokens)
        reached = gradient[0, 1:].abs().sum(-1) > 0
        assert torch.equal(reached, ~masks[v, 0])


def test_frozen_decoder_passes_gradients_on_and_keeps_none(teacher_file):
    neck = build(teacher_file, student_dims=24)
    tokens = torch.randn(2, 17, 24, requires_grad=True)
    neck(tokens, draw_views(2, 16)).square().sum().backward()
    learned = {name for name, parameter in neck.named_parameters() if parameter.grad is not None}
    assert learned == {'connector.weight', 'connector.bias', 'mask_token'}
    assert all(parameter.grad.abs().sum() > 0 for parameter in (neck.connector.weight, neck.mask_token))
    assert tokens.grad.abs().sum() > 0


def test_trainable_decoder_learns(teacher_file):
    neck = build(teacher_file, frozen=False)
    neck(torch.randn(2, 17, 48), draw_views(2, 16)).square().sum().backward()
    assert neck.decoder_blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert neck.decoder_pos_embed.grad is None
    assert 'decoder_blocks.0.attn.qkv.weight' in neck.state_dict()


def test_mask_token_and_decoder_equal_the_file_and_the_decoder_is_not_saved(teacher_file):
    neck, tensors = build(teacher_file, student_dims=24), read_mae_file(teacher_file).decoder
    own = dict(neck.named_parameters())
    assert all(torch.equal(own[key], value) for key, value in tensors.items())
    assert set(neck.state_dict()) == {'connector.weight', 'connector.bias', 'mask_token'}


def test_connector(teacher_file):
    assert isinstance(build(teacher_file, 48).connector, torch.nn.Identity)
    assert build(teacher_file, 24).connector.weight.shape == (48, 24)


def test_one_view_and_another_grid(teacher_file):
    neck = build(teacher_file, num_views=1, mask_ratio=0.75)
    assert neck(torch.randn(2, 17, 48), draw_views(2, 16, .75, 1)).shape == (1, 2, 16, 192)
    assert neck(torch.randn(2, 19, 48), draw_views(2, 18), grid=(3, 6)).shape == (2, 2, 18, 192)


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_views=3), 'num_views is 1 or 2'), (dict(mask_ratio=1.5), 'mask_ratio')])
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserInputError, match=message):
        DualViewMAEDecoder(24, **kwargs)


def test_decoder_of_another_shape_is_refused(teacher_file):
    neck = DualViewMAEDecoder(24, patch_grid=(4, 4), patch_size=8, embed_dim=48, **{**DECODER, 'decoder_embed_dim': 64})
    file = read_mae_file(teacher_file)
    with pytest.raises(UserInputError, match='in the file but'):
        neck.load_decoder(file.decoder, file.path)
