"""Convert an MAE checkpoint of any known layout into OpenMMLab's, with encoder and decoder.

    python tools/model_converters/mae_to_mmpretrain.py mae_visualize_vit_large.pth mae_vit-large.pth

Pre-training reads the original files as well; converting helps other tools of mmpretrain to read them.
"""
import argparse
from pathlib import Path

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.mae_files import read_mae_file


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Convert an MAE checkpoint into the layout of mmpretrain')
    parser.add_argument('source', help='.pth or .safetensors; official or OpenMMLab layout')
    parser.add_argument('target', help='.pth to write; must not exist')
    parser.add_argument('--encoder-only', action='store_true', help='accept a file without a decoder')
    args = parser.parse_args(argv)

    target = Path(args.target)
    if target.exists():
        raise UserInputError(f'{str(target)!r} exists already and is left as it is; name another target.')
    if not target.parent.is_dir():
        raise UserInputError(f'No folder {str(target.parent)!r} to write into; create it first.')
    file = read_mae_file(args.source, need_decoder=not args.encoder_only)
    state_dict = {f'backbone.{key}': value.clone() for key, value in file.encoder.items()}
    state_dict.update({f'neck.{key}': value.clone() for key, value in (file.decoder or {}).items()})
    torch.save(dict(state_dict=state_dict, meta=dict(source=file.path, source_sha256=file.sha256)), target)

    written = read_mae_file(target)
    same = all(torch.equal(written.encoder[key], value) for key, value in file.encoder.items())
    decoder = f'decoder {file.decoder_embed_dims} wide, {file.decoder_depth} blocks' if file.decoder else 'no decoder'
    print(f'{file.path} ({file.source}): encoder {file.embed_dims} wide, {file.num_layers} blocks, patch '
          f'{file.patch_size}; {decoder}.')
    print(f'Wrote {target}: {len(state_dict)} tensors, read back {"and equal" if same else "BUT DIFFERENT"}.')


if __name__ == '__main__':
    run_tool(main)
