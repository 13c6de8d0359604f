"""Export a student to mmpretrain, mmsegmentation, timm, Hugging Face or ONNX, and check it there by running it."""
import importlib
import inspect
import json
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ..engine.launch import read_config_file
from ..engine.loading import load_backbone, read_config
from ..engine.resume.safe_loading import safe_loading
from ..errors import UserInputError
from ..evaluation.knn_probe import raw_output
from ..random_states import evaluating
from ..registry import MODELS
from ..weights.fitting import load_exactly
from ..weights.reading import read_tensors, sha256_of

Tensors = dict[str, Tensor]

TOLERANCE = 1e-5


@dataclass
class Student:
    """A distilled vision transformer with the settings that another library needs.

    Attributes:
        source (str): The checkpoint.
        sha256 (str): Its hash, in hexadecimal.
        backbone (VisionTransformer): The network, in evaluation mode.
        mean (list[float], optional): Subtracted from RGB pixels of 0 to 255.
        std (list[float], optional): Divides the pixels afterwards.
    """
    source: str
    sha256: str
    backbone: VisionTransformer = field(repr=False)
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def tensors(self) -> Tensors:
        """The state dict; ``ln2``, the norm of the average, only where no norm follows the last block."""
        return {key: value.detach().clone().contiguous() for key, value in self.backbone.state_dict().items()
                if not (self.backbone.final_norm and key.startswith('ln2.'))}

    @property
    def num_heads(self) -> list[int]:
        """Heads of each block."""
        return [layer.attn.num_heads for layer in self.backbone.layers]

    @property
    def mlp_channels(self) -> int:
        """Hidden width of the MLPs."""
        return self.backbone.layers[0].ffn.layers[0][0].out_features

    @property
    def eps(self) -> float:
        """Of the layer norms."""
        return self.backbone.layers[0].ln1.eps

    @property
    def patch_size(self) -> int:
        """Pixels along the side of a patch."""
        return self.backbone.patch_embed.projection.kernel_size[0]

    @property
    def img_size(self) -> int | tuple[int, int]:
        """Pixels: one number where the image is square, else (height, width)."""
        height, width = self.backbone.img_size
        return height if height == width else (height, width)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens of the last block, after the final norm if there is one: (B, 3, H, W) to (B, 1 + N, D)."""
        with evaluating(self.backbone), raw_output(self.backbone):
            return VisionTransformer.forward(self.backbone, images)[-1]


def read_run(path: str | Path) -> Config:
    """As :func:`~mimhd_mm.engine.loading.read_config`, for configs of several students as well."""
    cfg = read_config_file(path)
    if not cfg.get('model', {}).get('students'):
        return read_config(path)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def read_student(cfg: Config, checkpoint: str | Path, name: str | None = None) -> Student:
    """The backbone of a checkpoint, of pre-training or of anything it was fine-tuned for.

    Args:
        cfg (Config): The config of the run.
        checkpoint (str | Path): Any of its checkpoints; all but the backbone is left out.
        name (str, optional): Which student, of a run of several. Defaults to None.

    Raises:
        UserInputError: If the two do not belong together, the backbone is more than a plain vision transformer, or the
            name is missing or wrong.
    """
    name = choose_student(cfg, name)
    if name is None:
        backbone = load_backbone(cfg, checkpoint, VisionTransformer)
    else:
        prefix = f'students.{name}.backbone.'
        backbone = MODELS.build(dict(cfg.model.students[name].backbone, init_cfg=None))
        load_exactly(backbone, {key[len(prefix):]: value for key, value in read_tensors(checkpoint).items()
                                if key.startswith(prefix)}, checkpoint)
    expected = {'cls_token', 'pos_embed', *(f'{name}.{kind}' for kind in ('weight', 'bias') for name in (
        'patch_embed.projection', *(['ln1'] if backbone.final_norm else []), *(
            f'layers.{i}.{part}' for i in range(backbone.num_layers)
            for part in ('ln1', 'ln2', 'attn.qkv', 'attn.proj', 'ffn.layers.0.0', 'ffn.layers.1'))))}
    odd = sorted({key for key in backbone.state_dict() if not key.startswith('ln2.')} ^ expected)
    if odd:
        raise UserInputError(f'{str(checkpoint)!r} is not a plain vision transformer, it differs in {odd[0]!r}; only '
                             f'plain ones are exported.')
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    mean, std = (list(preprocessor[key]) if preprocessor.get(key) else None for key in ('mean', 'std'))
    return Student(str(checkpoint), sha256_of(checkpoint), backbone, mean, std)


def choose_student(cfg: Config, name: str | None) -> str | None:
    """The name of the student to export; None for a run of one student.

    Raises:
        UserInputError: If there are several and none is named, or the one that is named is not among them.
    """
    names = list(cfg.model.get('students') or {})
    if name is not None and name not in names:
        among = f'its students are {", ".join(names)}' if names else 'it trains one student; leave --student out'
        raise UserInputError(f'The config has no student {name!r}: {among}.')
    if name is None and len(names) > 1:
        raise UserInputError(f'The config trains the students {", ".join(names)}; choose one with --student.')
    return name or next(iter(names), None)


def export(student: Student, target: str | Path, kind: str) -> float:
    """Write a student, read it back with the library it is for, and compare token features on random images.

    Args:
        student (Student): From :func:`read_student`.
        target (str | Path): File, or folder for Hugging Face, that does not exist yet.
        kind (str): One of :data:`FORMATS`.

    Returns:
        float: The largest difference of a feature, in parts of the largest feature; at most :data:`TOLERANCE`.

    Raises:
        UserInputError: If the target is there already or has the wrong ending, the library is not, or the format
            cannot hold the student.
        RuntimeError: If the features differ. Nothing is left behind then.
    """
    suffixes, write, run = FORMATS[kind]
    target = Path(target)
    if target.exists():
        raise UserInputError(f'{str(target)!r} exists already and is not overwritten; name another target.')
    if not target.parent.is_dir():
        raise UserInputError(f'No folder {str(target.parent)!r} to write into; create it first.')
    if suffixes and target.suffix not in suffixes:
        raise UserInputError(f'{str(target)!r} for --format {kind} has to end in {" or ".join(suffixes)}.')
    for package in NEEDS.get(kind, ()):
        _import(package, kind)
    if kind in ONE_HEAD_COUNT and len(set(student.num_heads)) > 1:
        raise UserInputError(
            f'The blocks have {student.num_heads} heads, and a vision transformer of {kind} has one head count for '
            f'all; use --format mmpretrain or onnx.')
    try:
        write(student, target)
        height, width = student.backbone.img_size
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found, expected = run(student, target, images), student.tokens(images)  # each (2, 1 + N, D)
        difference = ((found - expected).abs().max() / expected.abs().max()).item()
        if not difference <= TOLERANCE:
            raise RuntimeError(f'features of {str(target)!r} under {kind} differ by {difference:.1e} of the largest; '
                               f'the file was removed')
    except Exception:
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise
    return difference


def _import(package: str, kind: str):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserInputError(f'--format {kind} needs the package {package}, which cannot be imported ({error}); '
                             f'install requirements/{"run" if kind == "mmseg" else "export"}.txt.') from error


# ------------------------------------------------------------------------------------------------------ mmpretrain
def write_mmpretrain(student: Student, target: Path) -> None:
    """``.pth`` with ``backbone.`` keys, for ``init_cfg=dict(type='Pretrained', prefix='backbone.', ...)``."""
    torch.save(dict(
        state_dict={f'backbone.{key}': value for key, value in student.tensors.items()},
        meta=dict(source=student.source, source_sha256=student.sha256, num_heads=student.num_heads)), target)


def run_mmpretrain(student: Student, target: Path, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, D) of a plain ``VisionTransformer`` that starts from the file."""
    heads = student.num_heads
    model = VisionTransformer(
        arch=_arch(student), img_size=student.backbone.img_size, patch_size=student.patch_size, out_type='raw',
        final_norm=student.backbone.final_norm, layer_cfgs=[dict(num_heads=number) for number in heads],
        init_cfg=dict(type='Pretrained', checkpoint=str(target), prefix='backbone.'))
    with safe_loading():
        model.init_weights()
    model.eval()
    return model(images)[-1]


def _arch(student: Student) -> dict:
    return dict(embed_dims=student.backbone.embed_dims, num_layers=student.backbone.num_layers,
                num_heads=student.num_heads[0], feedforward_channels=student.mlp_channels)


# ----------------------------------------------------------------------------------------------------------- mmseg
def write_mmseg(student: Student, target: Path) -> None:
    """``.pth`` for ``init_cfg`` of mmsegmentation's own ``VisionTransformer``, which wants keys without a prefix."""
    if student.mlp_channels % student.backbone.embed_dims:
        raise UserInputError(f'MLPs {student.mlp_channels} wide are no whole multiple of '
                             f"{student.backbone.embed_dims}, as mmsegmentation's VisionTransformer wants; "
                             f'use --format mmpretrain.')
    names = {'attn.qkv.': 'attn.attn.in_proj_', 'attn.proj.': 'attn.attn.out_proj.'}
    tensors = {_rename(key, names): value for key, value in student.tensors.items() if not key.startswith('ln2.')}
    torch.save(dict(state_dict=tensors, meta=dict(source=student.source, source_sha256=student.sha256)), target)


def mmseg_settings(student: Student) -> dict:
    """Arguments of mmsegmentation's ``VisionTransformer`` that make it equal to the student."""
    return dict(
        img_size=student.img_size, patch_size=student.patch_size, embed_dims=student.backbone.embed_dims,
        num_layers=student.backbone.num_layers, num_heads=student.num_heads[0],
        mlp_ratio=student.mlp_channels // student.backbone.embed_dims, norm_cfg=dict(type='LN', eps=student.eps),
        patch_bias=True, final_norm=student.backbone.final_norm)


def run_mmseg(student: Student, target: Path, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, D) of mmsegmentation's ``VisionTransformer``."""
    backbones = _import('mmseg.models.backbones', 'mmseg')
    model = backbones.VisionTransformer(**mmseg_settings(student), output_cls_token=True)
    model.load_state_dict(read_tensors(target))
    model.eval()
    patches, cls_token = model(images)[-1]  # (B, D, h, w), (B, D)
    return torch.cat([cls_token[:, None], patches.flatten(2).transpose(1, 2)], dim=1)


# ------------------------------------------------------------------------------------------------------------ timm
def write_timm(student: Student, target: Path) -> None:
    """State dict of timm's ``VisionTransformer``, ``.safetensors`` or ``.pth``."""
    names = {'patch_embed.projection.': 'patch_embed.proj.', 'ln1.': 'norm1.', 'ln2.': 'norm2.',
             'ffn.layers.0.0.': 'mlp.fc1.', 'ffn.layers.1.': 'mlp.fc2.'}
    tensors = {}
    for key, value in student.tensors.items():
        if key.startswith('layers.'):
            key = 'blocks.' + _rename(key, names)[len('layers.'):]
        else:
            key = _rename(key, {**names, 'ln1.': 'norm.', 'ln2.': 'fc_norm.'})
        tensors[key] = value
    if target.suffix == '.safetensors':
        _save_safetensors(tensors, target, student)
    else:
        torch.save(tensors, target)


def timm_settings(student: Student) -> dict:
    """Arguments of timm's ``VisionTransformer`` or ``create_model`` that make it equal to the student, but for the eps
    of its norms (1e-6 in timm too). Its pooled feature is the average of the patch tokens."""
    return dict(
        img_size=student.img_size, patch_size=student.patch_size, embed_dim=student.backbone.embed_dims,
        depth=student.backbone.num_layers, num_heads=student.num_heads[0],
        mlp_ratio=student.mlp_channels / student.backbone.embed_dims, num_classes=0, global_pool='avg',
        fc_norm=not student.backbone.final_norm)


def run_timm(student: Student, target: Path, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, D) of timm's ``VisionTransformer``."""
    timm = _import('timm.models.vision_transformer', 'timm')
    model = timm.VisionTransformer(**timm_settings(student), norm_layer=partial(nn.LayerNorm, eps=student.eps))
    model.load_state_dict(read_tensors(target))
    return model.eval().forward_features(images)


# ---------------------------------------------------------------------------------------------------- Hugging Face
def write_hf(student: Student, target: Path) -> None:
    """Folder of a ``ViTModel``: config.json, model.safetensors and, where known, how images are normalised."""
    if not student.backbone.final_norm:
        raise UserInputError(f'{student.source!r} has no norm after its last block, as a fine-tuned classifier has '
                             f'none, and ViTModel always has one; give the pre-trained student or use --format timm.')
    transformers = _import('transformers', 'hf')
    target.mkdir()
    transformers.ViTConfig(
        hidden_size=student.backbone.embed_dims, num_hidden_layers=student.backbone.num_layers,
        num_attention_heads=student.num_heads[0], intermediate_size=student.mlp_channels, hidden_act='gelu',
        hidden_dropout_prob=0., attention_probs_dropout_prob=0., layer_norm_eps=student.eps,
        image_size=student.img_size, patch_size=student.patch_size, qkv_bias=True,
        architectures=['ViTModel']).save_pretrained(target)
    # the names of published ViT files; versions of transformers with others rename them on loading
    names = {'ln1.': 'layernorm_before.', 'ln2.': 'layernorm_after.', 'attn.proj.': 'attention.output.dense.',
             'ffn.layers.0.0.': 'intermediate.dense.', 'ffn.layers.1.': 'output.dense.'}
    top = {'cls_token': 'embeddings.cls_token', 'pos_embed': 'embeddings.position_embeddings', 'ln1.': 'layernorm.',
           'patch_embed.projection.': 'embeddings.patch_embeddings.projection.'}
    tensors = {}
    for key, value in student.tensors.items():
        if not key.startswith('layers.'):
            tensors[_rename(key, top)] = value
        elif '.attn.qkv.' in key:
            key = 'encoder.layer.' + key[len('layers.'):]
            for name, part in zip(('query', 'key', 'value'), value.chunk(3)):  # rows: q of all heads, then k, then v
                tensors[key.replace('attn.qkv', f'attention.attention.{name}')] = part.contiguous()
        else:
            tensors['encoder.layer.' + _rename(key, names)[len('layers.'):]] = value
    _save_safetensors(tensors, target / 'model.safetensors', student)
    if student.mean and student.std:
        height, width = student.backbone.img_size
        (target / 'preprocessor_config.json').write_text(json.dumps(dict(
            image_processor_type='ViTImageProcessor', do_resize=True, size=dict(height=height, width=width), resample=3,
            do_rescale=True, rescale_factor=1 / 255, do_normalize=True,
            image_mean=[value / 255 for value in student.mean], image_std=[value / 255 for value in student.std]),
            indent=2) + '\n')


def run_hf(student: Student, target: Path, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, D) of ``ViTModel.from_pretrained``."""
    transformers = _import('transformers', 'hf')
    model, info = transformers.ViTModel.from_pretrained(
        target, add_pooling_layer=False, local_files_only=True, output_loading_info=True)
    odd = [key for name in ('missing_keys', 'unexpected_keys', 'mismatched_keys') for key in info[name]]
    if odd:
        raise RuntimeError(f'ViTModel did not load {odd[0]!r} ({len(odd)} such keys)')
    return model.eval()(pixel_values=images).last_hidden_state


# ------------------------------------------------------------------------------------------------------------ ONNX
class _Tokens(nn.Module):
    """What is traced for ONNX: normalised images (B, 3, H, W) to tokens (B, 1 + N, D)."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.backbone = student.backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.student.tokens(images)


def write_onnx(student: Student, target: Path) -> None:
    """Graph with the input ``images`` (batch, 3, H, W), normalised, and the output ``tokens`` (batch, 1 + N, D)."""
    height, width = student.backbone.img_size
    options = dict(input_names=['images'], output_names=['tokens'], opset_version=17,
                   dynamic_axes=dict(images={0: 'batch'}, tokens={0: 'batch'}))
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False  # the exporter that every supported torch has
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of being the older exporter, and of Python conditions on fixed shapes
        torch.onnx.export(_Tokens(student).eval(), (torch.zeros(1, 3, height, width),), str(target), **options)


def run_onnx(student: Student, target: Path, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, D) of onnxruntime on the CPU, at another batch size than the graph was traced with."""
    _import('onnx', 'onnx').checker.check_model(str(target))
    session = _import('onnxruntime', 'onnx').InferenceSession(str(target), providers=['CPUExecutionProvider'])
    return torch.from_numpy(session.run(['tokens'], {'images': images.numpy()})[0])


# ---------------------------------------------------------------------------------------------------------- shared
def _rename(key: str, names: dict[str, str]) -> str:
    """Replace the first part of ``names`` that ``key`` has at its start or behind a dot."""
    for old, new in names.items():
        renamed = re.sub(rf'(^|\.){re.escape(old)}', rf'\g<1>{new}', key, count=1)
        if renamed != key:
            return renamed
    return key


def _save_safetensors(tensors: Tensors, target: Path, student: Student) -> None:
    from safetensors.torch import save_file
    save_file(tensors, str(target), metadata=dict(format='pt', source_sha256=student.sha256))


Writer = Callable[[Student, Path], None]
Reader = Callable[[Student, Path, Tensor], Tensor]

#: name -> endings of the target (none for a folder), what writes it, what runs it
FORMATS: dict[str, tuple[tuple[str, ...], Writer, Reader]] = {
    'mmpretrain': (('.pth',), write_mmpretrain, run_mmpretrain),
    'mmseg': (('.pth',), write_mmseg, run_mmseg),
    'timm': (('.safetensors', '.pth'), write_timm, run_timm),
    'hf': ((), write_hf, run_hf),
    'onnx': (('.onnx',), write_onnx, run_onnx),
}
NEEDS = {'mmseg': ('mmseg',), 'timm': ('timm',), 'hf': ('transformers',), 'onnx': ('onnx', 'onnxruntime')}
ONE_HEAD_COUNT = ('mmseg', 'timm', 'hf')
