"""The paper's own size: a ViT-B student and a ViT-L teacher take one training step on the CPU."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mimhd_mm.registry import MODELS

CONFIG = Path(__file__).parents[2] / 'configs' / 'pretrain' / 'mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py'


def write_vit_large_mae(path) -> None:
    """Random weights of MAE ViT-L under the official names, in bf16 to spare the disk."""
    width, depth, decoder, decoder_depth = 1024, 24, 512, 8
    shapes = {'cls_token': (1, 1, width), 'pos_embed': (1, 197, width), 'mask_token': (1, 1, decoder),
              'decoder_pos_embed': (1, 197, decoder), 'patch_embed.proj.weight': (width, 3, 16, 16),
              'patch_embed.proj.bias': (width,), 'decoder_embed.weight': (decoder, width),
              'decoder_embed.bias': (decoder,), 'decoder_pred.weight': (768, decoder), 'decoder_pred.bias': (768,)}
    for stem, dims in [(f'blocks.{i}', width) for i in range(depth)] + [
            (f'decoder_blocks.{i}', decoder) for i in range(decoder_depth)]:
        for name, rows, columns in (('attn.qkv', 3 * dims, dims), ('attn.proj', dims, dims),
                                    ('mlp.fc1', 4 * dims, dims), ('mlp.fc2', dims, 4 * dims)):
            shapes.update({f'{stem}.{name}.weight': (rows, columns), f'{stem}.{name}.bias': (rows,)})
        for name in ('norm1', 'norm2'):
            shapes.update({f'{stem}.{name}.weight': (dims,), f'{stem}.{name}.bias': (dims,)})
    for name, dims in (('norm', width), ('decoder_norm', decoder)):
        shapes.update({f'{name}.weight': (dims,), f'{name}.bias': (dims,)})
    torch.save(dict(model={
        name: torch.ones(shape, dtype=torch.bfloat16) if 'norm' in name and name.endswith('weight')
        else torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02) for name, shape in shapes.items()}), path)


@pytest.mark.slow
def test_vit_base_learns_from_vit_large(tmp_path):
    write_vit_large_mae(tmp_path / 'mae_visualize_vit_large.pth')
    cfg = Config.fromfile(CONFIG)
    cfg.model.target_generator.checkpoint = str(tmp_path / 'mae_visualize_vit_large.pth')
    cfg.optim_wrapper.type = 'OptimWrapper'
    for key in ('loss_scale', 'dtype'):
        cfg.optim_wrapper.pop(key)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    assert len(model.target_generator.encoder.layers) == 18 and model.target_generator.relation_heads == 16
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = model.backbone.layers[0].attn.qkv.weight.detach().clone()
    loss, parts = model.parse_losses(model(torch.randn(2, 3, 224, 224), mode='loss'))
    wrapper.update_params(loss)
    assert torch.isfinite(loss) and set(parts) == {'loss', 'loss_qk', 'loss_vv', 'loss_rec'}
    assert not torch.equal(before, model.backbone.layers[0].attn.qkv.weight)
    assert model.head.matchers['qk'].last_weight.shape == (2, 16, 16)
