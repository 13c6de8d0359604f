"""Export the student of a checkpoint to another library: its backbone without teacher, matcher and decoder.

    python tools/model_converters/export_student.py work_dirs/RUN/epoch_100.pth student.safetensors --format timm \\
        --config configs/pretrain/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py

If the run has several students, --student NAME chooses one.

The target library reads the file back, and its token features on random images are compared with ours.
"""
import argparse

from mimhd_mm.downstream.export import FORMATS, export, mmseg_settings, read_run, read_student, timm_settings
from mimhd_mm.engine.launch import run_tool


def usage(student, target: str, kind: str) -> str:
    """One line of Python that loads what was written."""
    def arguments(settings):
        return ', '.join(f'{name}={value!r}' for name, value in settings.items())

    if kind == 'mmpretrain':
        return (f"backbone=dict(type='VisionTransformer', ..., init_cfg=dict(type='Pretrained', prefix='backbone.', "
                f'checkpoint={target!r}))')
    if kind == 'mmseg':
        return (f"backbone=dict(type='VisionTransformer', {arguments(mmseg_settings(student))}, "
                f"init_cfg=dict(type='Pretrained', checkpoint={target!r}))")
    if kind == 'timm':
        return (f"timm.create_model('vit_base_patch16_224', {arguments(timm_settings(student))}, "
                f'checkpoint_path={target!r})')
    if kind == 'hf':
        return f'transformers.ViTModel.from_pretrained({target!r}, add_pooling_layer=False)'
    return f"onnxruntime.InferenceSession({target!r}).run(['tokens'], dict(images=...))"


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description='Export a student')
    parser.add_argument('checkpoint', help='checkpoint of pre-training, or of what was fine-tuned from it')
    parser.add_argument('out', help='file to write, or folder for hf; must not exist')
    parser.add_argument('--format', choices=list(FORMATS), required=True, help='the library it is for')
    parser.add_argument('--config', required=True, help='config the checkpoint was trained with')
    parser.add_argument('--student', metavar='NAME', help='which one, where the config trains several')
    args = parser.parse_args(argv)

    student = read_student(read_run(args.config), args.checkpoint, args.student)
    difference = export(student, args.out, args.format)
    heads = sorted(set(student.num_heads))
    print(f'{args.checkpoint} (sha256 {student.sha256[:12]}): {student.backbone.embed_dims} wide, '
          f'{student.backbone.num_layers} blocks, {" and ".join(map(str, heads))} heads, patch {student.patch_size}')
    print(f'Wrote {args.out}; run by {args.format}, token features differ by {difference:.1e} of the largest at most.')
    if student.mean and student.std:
        print(f'Images: RGB, 0 to 255, minus {student.mean}, over {student.std}')
    print(usage(student, args.out, args.format))


if __name__ == '__main__':
    run_tool(main)
