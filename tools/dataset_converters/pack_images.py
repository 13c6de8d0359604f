"""Decode a folder of small images once and write them as one file, which the dataset PackedImages maps into memory.

    python tools/dataset_converters/pack_images.py data/tiny-imagenet-200/train data/tiny-imagenet-200/train.safetensors

Labels are those of class folders (or of Tiny ImageNet's val_annotations.txt); a folder without them is packed without
labels. The file takes height x width x 3 bytes an image; other programs read it as any safetensors file. Images of
several sizes need --size, as ImageNet does.
"""
import argparse
import sys

from mmengine.utils import track_iter_progress

from mimhd_mm.datasets.image_packing import pack_images
from mimhd_mm.engine.launch import run_tool


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Pack a folder of images into one file')
    parser.add_argument('folder', help='folder of class folders with images, or of images')
    parser.add_argument('out', help='file to write, .safetensors; never overwritten')
    parser.add_argument('--size', type=int, help='bring the short edge to so many pixels and cut out the square in the '
                        'middle (default: images are of one size and stay as they are)')
    args = parser.parse_args(argv)
    packed = pack_images(args.folder, args.out, args.size,
                         progress=lambda items, total: track_iter_progress((items, total), file=sys.stderr))
    number, height, width, _ = packed['shape']
    classes = f'{packed["classes"]} classes' if packed['classes'] else 'no labels'
    print(f'{number} images of {width} x {height} pixels, {classes}, {packed["bytes"] / 1e6:.1f} MB.')
    print(f"dataset=dict(type='PackedImages', file={args.out!r}, with_label={bool(packed['classes'])}, pipeline=...)")


if __name__ == '__main__':
    run_tool(main)
