"""Make a small data set from links to a large one: some classes, some training images of each.

    python tools/dataset_converters/take_part.py data/tiny-imagenet-200 data/part --classes 50 --per-class 48

Both folders hold train/<class>/ and val/<class>/. Validation images of the chosen classes are all taken.
"""
import argparse

from mimhd_mm.datasets.image_part import link_part
from mimhd_mm.engine.launch import run_tool


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Make a folder of links to a part of a data set')
    parser.add_argument('source', help='folder with train/<class>/ and val/<class>/')
    parser.add_argument('target', help='folder to make')
    parser.add_argument('--classes', type=int, metavar='N', help='evenly spaced by name (default: all)')
    parser.add_argument('--per-class', type=int, metavar='N',
                        help='training images of each class, evenly spaced by name (default: all)')
    args = parser.parse_args(argv)
    made = link_part(args.source, args.target, args.classes, args.per_class)
    print(f'{args.target}: {made["classes"]} classes, {made["train"]} training images, '
          f'{made.get("val", 0)} validation images.')


if __name__ == '__main__':
    run_tool(main)
