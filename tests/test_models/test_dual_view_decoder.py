"""DualViewMAEDecoder (eqs. 8-9): the teacher's decoder on both views at once."""
import pytest
import torch
from mmpretrain.models.necks import MAEPretrainDecoder

from mimhd_mm.errors import UserInputError
from mimhd_mm.models import DualViewMAEDecoder
from mimhd_mm.models.mae_files import read_mae_file
from mimhd_mm.models.views import draw_views

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


def test_connectors(teacher_file):
    assert isinstance(build(teacher_file, 48).connector, torch.nn.Identity)
    assert build(teacher_file, 24).connector.weight.shape == (48, 24)
    direct = build(teacher_file, 24, connector='direct')
    assert direct.connector.weight.shape == (32, 24) and isinstance(direct.decoder_embed, torch.nn.Identity)
    assert direct(torch.randn(1, 17, 24), draw_views(1, 16)).shape == (2, 1, 16, 192)


def test_one_view_and_another_grid(teacher_file):
    neck = build(teacher_file, num_views=1, mask_ratio=0.75)
    assert neck(torch.randn(2, 17, 48), draw_views(2, 16, .75, 1)).shape == (1, 2, 16, 192)
    assert neck(torch.randn(2, 19, 48), draw_views(2, 18), grid=(3, 6)).shape == (2, 2, 18, 192)


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_views=3), 'num_views is 1 or 2'), (dict(mask_ratio=1.5), 'mask_ratio'),
    (dict(connector='mlp'), "Unknown connector 'mlp'; choose from linear, direct")])
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserInputError, match=message):
        DualViewMAEDecoder(24, **kwargs)


def test_decoder_of_another_shape_is_refused(teacher_file):
    neck = DualViewMAEDecoder(24, patch_grid=(4, 4), patch_size=8, embed_dim=48, **{**DECODER, 'decoder_embed_dim': 64})
    file = read_mae_file(teacher_file)
    with pytest.raises(UserInputError, match='in the file but'):
        neck.load_decoder(file.decoder, file.path)
