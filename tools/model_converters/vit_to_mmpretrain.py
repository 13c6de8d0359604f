"""Convert a vision transformer of MAE, CAE, DINO, MoCo v3, TinyMIM, timm or Hugging Face for mmpretrain.

    python tools/model_converters/vit_to_mmpretrain.py mae_pretrain_vit_base.pth mae_vit-base.pth
    python tools/model_converters/vit_to_mmpretrain.py tinymim_base.pth tinymim_vit-base.pth --layout tinymim

The target starts mmpretrain's `VisionTransformer` by `init_cfg=dict(type='Pretrained', prefix='backbone.', ...)`. The
decoder of a masked autoencoder comes along under `neck.`. Pre-training reads original MAE files as they are.
"""
import argparse
from pathlib import Path

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.preflight.pretrained import heads_of_file, layer_cfgs_text
from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.mae_files import FILES_WITH_DECODER
from mimhd_mm.weights.reading import read_tensors
from mimhd_mm.weights.vit_files import EPS, LAYOUTS, ViTFile, read_vit_file


def describe(file: ViTFile, target: Path) -> None:
    """Print what was found, what was left out, and the backbone of a config that the target fits."""
    size = f'grid {file.grid} x {file.grid}' if file.grid else f'{file.num_patches} patches in no square'
    norms = ' and '.join(f'`{name}`' for name in ('ln1', 'ln2') if f'{name}.weight' in file.encoder) or 'none'
    decoder = f'decoder {file.decoder_embed_dims} wide, {file.decoder_depth} blocks' if file.decoder else 'no decoder'
    print(f'{file.path}, layout {file.source}, from {file.taken_from or "the top level"}: encoder {file.embed_dims} '
          f'wide, {file.num_layers} blocks, patch {file.patch_size}, {size}, final norm {norms}; {decoder}.')
    if file.left_out:
        print('Left out: ' + ', '.join(f'{name} ({number} tensors)' for name, number in file.left_out.items()) + '.')
    if file.num_heads is None:
        print('Heads: unknown, no tensor tells and the width is no usual one; give --num-heads.')
    else:
        caution = '' if file.heads_from in ('--num-heads', 'config.json') else '; no tensor tells, so make sure'
        print(f'Heads: {" ".join(map(str, file.num_heads))} (by {file.heads_from}{caution}).')
    if file.source == 'tinymim':
        print("TinyMIM's own fine-tuning gives every block 3, 6 or 12 heads (tiny, small, base); --num-heads does too.")
    if file.eps is None:
        print(f'Norms: eps is unknown without config.json; {EPS} is assumed, transformers has 1e-12 by default.')
    print(f"backbone=dict(type='VisionTransformer', {arguments(file)}, init_cfg=dict(type='Pretrained', "
          f"checkpoint={str(target)!r}, prefix='backbone.'))")


def arguments(file: ViTFile) -> str:
    """What to write into a config; dots stand for what the file does not tell."""
    settings = file.settings
    if file.num_heads is None:
        settings['arch']['num_heads'] = ...
    if file.grid is None:
        settings['img_size'] = ...
    texts = {key: repr(value).replace('Ellipsis', '...') for key, value in settings.items()}
    if 'layer_cfgs' in settings:
        texts['layer_cfgs'] = layer_cfgs_text(file.num_heads)
    return ', '.join(f'{key}={text}' for key, text in texts.items())


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Convert a vision transformer for mmpretrain')
    parser.add_argument('source', help='.pth or .safetensors, or a folder of Hugging Face')
    parser.add_argument('target', help='.pth to write; must not exist')
    parser.add_argument('--layout', choices=['auto', *LAYOUTS], default='auto',
                        help="whose names and head counts; by default the keys tell, and take TinyMIM's for timm's")
    parser.add_argument('--num-heads', type=int, nargs='+', metavar='N',
                        help="heads of all blocks, or one number a block; default config.json's of Hugging Face, else "
                             "those of the project's code for this width")
    parser.add_argument('--need-decoder', action='store_true', help='refuse a file without the decoder of an MAE')
    args = parser.parse_args(argv)

    target = Path(args.target)
    if target.exists():
        raise UserInputError(f'{str(target)!r} exists already and is left as it is; name another target.')
    if not target.parent.is_dir():
        raise UserInputError(f'No folder {str(target.parent)!r} to write into; create it first.')
    if target.suffix != '.pth':
        raise UserInputError(f'{str(target)!r} has to end in .pth; name another target.')
    told = None if args.num_heads or not Path(args.source).is_file() else heads_of_file(args.source)
    file = read_vit_file(args.source, args.layout, args.num_heads or told)
    if told:
        file.heads_from = "the file's meta"
    if args.need_decoder and file.decoder is None:
        raise UserInputError(f'{file.path!r} holds an encoder but no decoder (as mae_pretrain_vit_*.pth do); use '
                             f'{FILES_WITH_DECODER}, or leave --need-decoder out.')
    state_dict = {f'backbone.{key}': value.clone() for key, value in file.encoder.items()}
    state_dict.update({f'neck.{key}': value.clone() for key, value in (file.decoder or {}).items()})
    meta = dict(source=file.path, source_sha256=file.sha256, layout=file.source)
    if file.num_heads:
        meta['num_heads'] = file.num_heads
    torch.save(dict(state_dict=state_dict, meta=meta), target)

    written = read_tensors(target)
    if set(written) != set(state_dict) or not all(torch.equal(written[key], state_dict[key]) for key in written):
        target.unlink()
        raise RuntimeError(f'{str(target)!r} differed when it was read back, and was removed.')
    describe(file, target)
    print(f'Wrote {target}: {len(state_dict)} tensors, read back and equal.')


if __name__ == '__main__':
    run_tool(main)
