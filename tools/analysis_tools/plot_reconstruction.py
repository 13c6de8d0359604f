"""Draw what a MIM-HD model fills in: input, both views, merged prediction and error.

    python tools/analysis_tools/plot_reconstruction.py CONFIG work_dirs/RUN/epoch_100.pth --images FOLDER --out rec.png
"""
import argparse

import torch

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import image_size, list_images, load_model, read_config, read_images
from mimhd_mm.visualization import draw_reconstructions


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Draw reconstructions')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('--images', required=True, help='folder of images, class folders or not')
    parser.add_argument('--out', required=True, help='the PNG file to write')
    parser.add_argument('--num', type=int, default=6, help='images, evenly spaced over the folder (default 6)')
    parser.add_argument('--seed', type=int, default=0, help='of the random views (default 0)')
    args = parser.parse_args(argv)

    cfg = read_config(args.config)
    paths = list_images(args.images)
    model = load_model(cfg, args.checkpoint).to('cuda' if torch.cuda.is_available() else 'cpu')
    torch.manual_seed(args.seed)
    draw_reconstructions(model, read_images(paths, image_size(cfg), args.num, model.data_preprocessor), args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
