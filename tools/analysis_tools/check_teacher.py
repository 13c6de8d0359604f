"""Teacher doctor: report what an MAE file holds and whether MIM-HD can use it.

    python tools/analysis_tools/check_teacher.py mae_visualize_vit_large.pth --images some/photos

Exit status 0 if it can, 1 with the reason if it cannot.
"""
import argparse

from mmengine.registry import init_default_scope
from mmpretrain.models import SelfSupDataPreprocessor

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import list_images, read_images
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.teacher_doctor import diagnose, smooth_images
from mimhd_mm.weights.mae_files import read_mae_file

#: ImageNet's mean and standard deviation, as MAE's files were trained
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Check whether an MAE file can serve as a teacher')
    parser.add_argument('file', help='.pth or .safetensors')
    parser.add_argument('--images', help='folder of photographs; generated pictures are used if left out')
    parser.add_argument('--num', type=int, default=8, help='how many images')
    parser.add_argument('--num-heads', type=int, help='heads of the encoder, where known; all are tried otherwise')
    args = parser.parse_args(argv)

    init_default_scope('mmpretrain')
    file = read_mae_file(args.file)
    side = int(file.num_patches ** .5)
    print(f'file      {file.path}\nsha256    {file.sha256}\nlayout    {file.source}')
    print(f'encoder   {file.embed_dims} wide, {file.num_layers} blocks, MLP {file.feedforward_channels}')
    print(f'patches   {file.patch_size} px, {side} x {side} of a {side * file.patch_size} px image')
    if file.decoder is None:
        read_mae_file(args.file, need_decoder=True)  # raises, and names files that have one
    print(f'decoder   {file.decoder_embed_dims} wide, {file.decoder_depth} blocks')

    size = side * file.patch_size
    if args.images:
        images = read_images(list_images(args.images), (size, size), args.num, SelfSupDataPreprocessor(**PREPROCESSOR))
    else:
        images = smooth_images(args.num, size)
    found = diagnose(file, images, args.num_heads)
    print(f'heads     {found.num_heads} in the encoder, {found.decoder_num_heads} in the decoder '
          f'(those that reconstruct best)')
    print(f'pixels    {"normalised by patch: norm_pix=True" if found.norm_pix else "raw: norm_pix=False"}')
    print(f'works     explains {100 * found.explained:.1f} % of the variance of masked patches of '
          f'{len(images)} {"photographs" if args.images else "generated pictures"}')
    if not found.explained > 0.05:
        raise UserInputError(f'{file.path!r} does not reconstruct masked patches (explains {100 * found.explained:.1f} '
                             f'% of their variance): its decoder is untrained or belongs to another encoder.')
    print(f'\nmodel.target_generator.arch=dict(embed_dims={file.embed_dims}, num_layers={file.num_layers}, '
          f'num_heads={found.num_heads}, feedforward_channels={file.feedforward_channels})\n'
          f'model.neck: decoder_embed_dim={file.decoder_embed_dims}, decoder_depth={file.decoder_depth}, '
          f'decoder_num_heads={found.decoder_num_heads}\nmodel.rec_head.norm_pix={found.norm_pix}')


if __name__ == '__main__':
    run_tool(main)
