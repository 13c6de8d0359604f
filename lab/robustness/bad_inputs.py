"""Every kind of bad image and hostile file that this project knows, given to what loads them, in a table.

    python -m lab.robustness.bad_inputs --out FOLDER

Files are made in a temporary folder. FOLDER/bad_inputs.md and .json say what each got. The status is 1 if a loader
process died, a hostile file was taken, or its payload ran.
"""
import argparse
import json
import tempfile
from pathlib import Path

from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.project import environment

from .trials import harmless, markdown, try_files, try_images, try_workers


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description='What bad images and hostile files get')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='for bad_inputs.md and bad_inputs.json')
    args = parser.parse_args(argv)
    out = Path(args.out)
    there = [path for path in (out / 'bad_inputs.md', out / 'bad_inputs.json') if path.exists()]
    if there or (out.exists() and not out.is_dir()):
        raise UserInputError(f'{str(there[0] if there else out)!r} is there already and is left as it is; name another '
                             f'folder.')

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ('images', 'files'):
            (folder / name).mkdir()
        result = dict(images=try_images(folder / 'images'), epoch=try_workers(folder / 'images'),
                      files=try_files(folder / 'files'), about=environment())
    text = markdown(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'bad_inputs.md').write_text(text)
    (out / 'bad_inputs.json').write_text(json.dumps(result, indent=2) + '\n')
    print(text)
    return 0 if harmless(result) else 1


if __name__ == '__main__':
    run_tool(main)
