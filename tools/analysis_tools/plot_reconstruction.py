"""Draw reconstructions of a MIM-HD model: input, both views, merged prediction, the teacher's prediction, and error.

    python tools/analysis_tools/plot_reconstruction.py CONFIG work_dirs/RUN/epoch_100.pth --images FOLDER --out rec.png
"""
import argparse
from functools import partial

import torch

from mimhd_mm.engine.inspection import fixed_images, teacher_reconstruction
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.loading import image_size, list_images, load_model, read_config
from mimhd_mm.visualization import draw_reconstructions
from mimhd_mm.visualization.pictures import check_output


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Draw reconstructions')
    parser.add_argument('config', help='config of the run')
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('--images', required=True, help='folder of images, class folders or not')
    parser.add_argument('--out', required=True, help='the PNG file to write')
    parser.add_argument('--num', type=int, default=6, help='images, evenly spaced over the folder (default 6)')
    parser.add_argument('--dpi', type=int, default=150, help='dots an inch, 1.5 inches a panel (default 150)')
    parser.add_argument('--seed', type=int, default=0, help='of the random views (default 0)')
    parser.add_argument('--no-teacher', action='store_true', help="leave the teacher's own reconstruction out")
    args = parser.parse_args(argv)

    cfg = read_config(args.config)
    list_images(args.images)
    check_output(args.out)
    model = load_model(cfg, args.checkpoint).to('cuda' if torch.cuda.is_available() else 'cpu')
    images = fixed_images(args.images, image_size(cfg), args.num, model.data_preprocessor)  # (num, 3, H, W)
    torch.manual_seed(args.seed)
    teacher = None if args.no_teacher else partial(teacher_reconstruction, model.target_generator, model)
    draw_reconstructions(model, images, args.out, teacher, args.dpi)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    run_tool(main)
