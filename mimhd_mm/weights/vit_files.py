"""Vision transformers of other projects: recognise the layout of a file and name its tensors as mmpretrain does."""
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..errors import UserInputError
from .fitting import compare
from .mae_files import MAEFile, _official_to_mmpretrain, _strip
from .reading import Tensors, read_content, sha256_of, state_dict_of

EPS = 1e-6  #: of every norm in mmpretrain's VisionTransformer and in the code of MAE, CAE, DINO, MoCo v3, TinyMIM, timm

Heads = dict[int, tuple[int, int]]
_USUAL: Heads = {192: (3, 3), 384: (6, 6), 768: (12, 12), 1024: (16, 16), 1280: (16, 16)}

#: timm's name -> mmpretrain's, what `_official_to_mmpretrain` does not know
_TIMM = {r'^fc_norm\.': 'ln2.',
         r'^(layers\.\d+)\.(?:ls1\.gamma|gamma_1)$': r'\1.attn.gamma1.weight',
         r'^(layers\.\d+)\.(?:ls2\.gamma|gamma_2)$': r'\1.ffn.gamma2.weight',
         r'^(layers\.\d+\.attn)\.([qv])_bias$': r'\1.\2.bias'}
#: the same for Hugging Face, of published files (and of what transformers writes) and of transformers 5 in memory
_HF = {r'^embeddings\.cls_token$': 'cls_token', r'^embeddings\.position_embeddings$': 'pos_embed',
       r'^embeddings\.patch_embeddings\.projection\.': 'patch_embed.projection.', r'^layernorm\.': 'ln1.',
       # transformers 5 renames `layers` to `encoder.layer` when it saves, and meets the `decoder_layers` of its MAE too
       r'^encoder\.layer\.': 'layers.', r'^decoder_(?:layers|encoder\.layer)\.': 'decoder_blocks.'}
_HF_BLOCK = {r'layernorm_before': 'ln1', r'layernorm_after': 'ln2', r'attention\.(?:output\.dense|o_proj)': 'attn.proj',
             r'attention\.(?:attention\.query|q_proj)': 'attn.q', r'attention\.(?:attention\.key|k_proj)': 'attn.k',
             r'attention\.(?:attention\.value|v_proj)': 'attn.v',
             r'(?:intermediate\.dense|mlp\.fc1)': 'ffn.layers.0.0', r'(?:output\.dense|mlp\.fc2)': 'ffn.layers.1'}
#: mmpretrain's names, before the parts of a qkv are put together
_KNOWN = re.compile(r'cls_token|pos_embed|(?:patch_embed\.projection|ln1|ln2)\.(?:weight|bias)|layers\.\d+\.(?:'
                    r'(?:ln1|ln2|attn\.(?:qkv|q|k|v|proj)|ffn\.layers\.(?:0\.0|1))\.(?:weight|bias)|'
                    r'(?:attn\.gamma1|ffn\.gamma2)\.weight)')
_KNOWN_DECODER = re.compile(r'mask_token|decoder_pos_embed|(?:decoder_embed|decoder_pred|ln1)\.(?:weight|bias)|'
                            r'decoder_blocks\.\d+\.(?:ln1|ln2|attn\.(?:qkv|q|k|v|proj)|ffn\.layers\.(?:0\.0|1))\.'
                            r'(?:weight|bias)')
#: what lies beside the encoder under its own prefix, and follows its last norm or belongs to masking
_HEADS = ('head.', 'pre_logits.', 'pooler.', 'classifier.', 'mask_token', 'embeddings.mask_token')


def _timm_name(key: str) -> str:
    return _rename(_official_to_mmpretrain(key), _TIMM)


def _hf_name(key: str) -> str:
    block = {rf'^((?:layers|decoder_blocks)\.\d+)\.{old}\.': rf'\1.{new}.' for old, new in _HF_BLOCK.items()}
    return _rename(_rename(key, _HF), block)


@dataclass(frozen=True)
class Layout:
    """How a project names the tensors of its vision transformer.

    Attributes:
        mark (str): A regular expression; the beginning of a key that such a file has and those of later layouts lack.
        prefixes (tuple): What stands before the encoder's names, the first that is found.
        patches (str): The encoder's name of the projection of patches.
        name (callable): From the encoder's or a decoder's name to mmpretrain's.
        heads (dict): By the project's code, width -> heads of the blocks, heads of the last block.
    """
    mark: str
    prefixes: tuple[str, ...] = ('', )
    patches: str = 'patch_embed.proj.weight'
    name: Callable[[str], str] = _timm_name
    heads: Heads = field(default_factory=lambda: _USUAL)


#: The order is that of recognition. TinyMIM's files, and MAE's without a decoder, look as timm's do.
LAYOUTS: dict[str, Layout] = {
    'openmmlab': Layout(r'backbone\.layers\.\d', ('backbone.', ), 'patch_embed.projection.weight', str, {}),
    'mocov3': Layout(r'base_encoder\.blocks\.', ('base_encoder.', ''), heads={**_USUAL, 384: (12, 12)}),
    'dino': Layout(r'backbone\.blocks\.', ('backbone.', '')),
    'cae': Layout(r'encoder\.blocks\.|blocks\.\d+\.attn\.q_bias', ('encoder.', ''),
                  heads={**_USUAL, 192: (12, 12), 384: (12, 12)}),
    'hf': Layout(r'(vit\.)?embeddings\.', ('vit.', ''), 'embeddings.patch_embeddings.projection.weight', _hf_name),
    'mae': Layout(r'decoder_embed\.'),
    'timm': Layout(r'blocks\.'),
    'tinymim': Layout(r'blocks\.', heads={192: (6, 12), 384: (6, 12), 768: (12, 16)}),
}


@dataclass
class ViTFile(MAEFile):
    """A vision transformer's weights in mmpretrain's names; ``source`` is the layout.

    Attributes:
        taken_from (str): Where in the file the encoder lies, ``''`` for the top.
        left_out (dict): Tensors of the file that are in neither ``encoder`` nor ``decoder``: name -> how many.
        num_heads (list[int], optional): Heads of each block; None where nothing tells.
        heads_from (str): What ``num_heads`` was taken from, for messages.
        eps (float, optional): Of the norms; None where nothing tells.
    """
    taken_from: str
    left_out: dict[str, int]
    num_heads: list[int] | None
    heads_from: str
    eps: float | None

    @property
    def grid(self) -> int | None:
        """Patches along a side of the images the file was trained at; None if they were not square."""
        side = round(self.num_patches ** .5)
        return side if side * side == self.num_patches else None

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the ``VisionTransformer`` that these tensors fit exactly; one head where heads are not known."""
        heads = self.num_heads or [1] * self.num_layers
        height, width = self.encoder['patch_embed.projection.weight'].shape[-2:]
        image = (height * self.grid, width * self.grid) if self.grid else (height, width * self.num_patches)
        settings: dict[str, Any] = dict(
            arch=dict(embed_dims=self.embed_dims, num_layers=self.num_layers, num_heads=heads[0],
                      feedforward_channels=self.feedforward_channels),
            img_size=image[0] if image[0] == image[1] else image,
            patch_size=height if height == width else (height, width))
        if self.encoder['patch_embed.projection.weight'].shape[1] != 3:
            settings['in_channels'] = self.encoder['patch_embed.projection.weight'].shape[1]
        if len(set(heads)) > 1:
            settings['layer_cfgs'] = [dict(num_heads=number) for number in heads]
        if 'layers.0.attn.qkv.bias' not in self.encoder:
            settings['qkv_bias'] = False
        if 'layers.0.attn.gamma1.weight' in self.encoder:
            settings['layer_scale_init_value'] = 1.  # anything above 0 makes the parameters, and the file fills them
        if 'ln1.weight' not in self.encoder:
            settings['final_norm'] = False
        if 'ln2.weight' in self.encoder:
            settings['out_type'] = 'avg_featmap'
        if self.eps not in (None, EPS):
            settings['norm_cfg'] = dict(type='LN', eps=self.eps)
        return settings


def read_vit_file(path: str | Path, layout: str = 'auto', num_heads: list[int] | None = None) -> ViTFile:
    """Read a vision transformer of a known layout without executing anything in its file.

    Args:
        path (str | Path): ``.pth`` or ``.safetensors``; or a folder that holds Hugging Face's ``model.safetensors``.
            ``config.json`` beside a file of theirs tells heads and eps.
        layout (str): One of :data:`LAYOUTS`, or ``'auto'``, by the keys. Defaults to ``'auto'``.
        num_heads (list[int], optional): Heads of each block, or one number for all. Defaults to None: what
            ``config.json`` tells, else what the project's code has for this width.

    Returns:
        ViTFile: The weights on the CPU.

    Raises:
        UserInputError: If the file is unreadable, of another layout, or holds what a plain ``VisionTransformer`` with
            a [class] token cannot; or if the heads do not divide the width.
    """
    path = Path(path) / 'model.safetensors' if Path(path).is_dir() else Path(path)
    content = read_content(path)
    place, others = '', {}
    if isinstance(content, dict) and isinstance(content.get('teacher'), dict):
        # DINO's, the one that its authors evaluate
        student = content.get('student')
        others = {f'student.{key}': value for key, value in student.items()} if isinstance(student, dict) else {}
        place, content = 'teacher.', content['teacher']
    tensors = state_dict_of(content, path)
    layout, prefix = _recognise(tensors, layout, path)
    own = _strip(tensors, prefix)
    others.update({key: value for key, value in tensors.items() if not key.startswith(prefix)})
    _refuse_extras(own, path)

    decoder = _take_decoder(own, others, layout, path)
    encoder: Tensors = {}
    for key, value in own.items():
        name = LAYOUTS[layout].name(key)
        if key.startswith(_HEADS + ('decoder_', )):
            others[prefix + key] = value
        elif _KNOWN.fullmatch(name):
            encoder[name] = value
        else:
            raise UserInputError(f'{str(path)!r} (layout {layout}) has {prefix + key!r}, which a VisionTransformer of '
                                 f'mmpretrain does not have; give the right --layout, or a file of a plain one.')
    encoder = _join_qkv(encoder, path)
    left_out = Counter(_group(key, prefix) for key, value in others.items() if isinstance(value, Tensor))
    file = ViTFile(str(path), sha256_of(path), layout, encoder, decoder, taken_from=place + prefix,
                   left_out=dict(left_out), num_heads=None, heads_from='', eps=EPS)
    _compare(file)
    _tell_heads_and_eps(file, path, num_heads)
    return file


def _recognise(tensors: Tensors, layout: str, path: Path) -> tuple[str, str]:
    """Name of the layout, and the prefix of the encoder."""
    names = list(LAYOUTS) if layout == 'auto' else [layout]
    for name in names:
        found = LAYOUTS[name]
        if layout == 'auto' and not any(re.match(found.mark, key) for key in tensors):
            continue
        for prefix in found.prefixes:
            if prefix + found.patches in tensors:
                return name, prefix
    wanted = f'of the layout {layout!r}' if layout != 'auto' else f'of a known layout ({", ".join(names)})'
    expected = sorted({prefix + LAYOUTS[name].patches for name in names for prefix in LAYOUTS[name].prefixes})
    raise UserInputError(f'{str(path)!r} is not {wanted}: it has no {" or ".join(map(repr, expected))}, its first key '
                         f'is {next(iter(tensors))!r}; give the file of a vision transformer.')


def _refuse_extras(own: Tensors, path: Path) -> None:
    """Stop at what makes a network another one than mmpretrain's, however well the other tensors fit."""
    for pattern, what in ((r'relative_position|rel_pos', 'a relative position bias'),
                          (r'(^|\.)(reg_token|register_tokens|dist_token|distillation_token)', 'further tokens beside '
                           'the [class] token')):
        key = next((key for key in own if re.search(pattern, key)), None)
        if key is not None:
            raise UserInputError(f'{str(path)!r} has {what} ({key!r}), which a plain VisionTransformer cannot hold; '
                                 f'convert the file of a model without.')


def _take_decoder(own: Tensors, others: Tensors, layout: str, path: Path) -> Tensors | None:
    """Move an MAE decoder, where there is a whole one, out of where it lies in the file.

    Returns:
        dict, optional: Tensors of a ``MAEPretrainDecoder``.
    """
    place, prefix = {'hf': (others, 'decoder.'), 'openmmlab': (others, 'neck.')}.get(layout, (own, ''))
    if not {f'{prefix}decoder_embed.weight', f'{prefix}decoder_pred.weight'} <= set(place):
        return None
    decoder: Tensors = {}
    for key in [key for key in place if key.startswith(prefix or ('decoder_', 'mask_token'))]:
        name = LAYOUTS[layout].name(key[len(prefix):]).replace('decoder_norm.', 'ln1.')
        if not _KNOWN_DECODER.fullmatch(name):
            if layout == 'openmmlab':  # the necks of other algorithms have more; what is left is left out by name
                continue
            raise UserInputError(f'{str(path)!r} has {key!r}, which the decoder of a masked autoencoder does not have; '
                                 f'remove it or give another file.')
        decoder[name] = place.pop(key)
    return _join_qkv(decoder, path)


def _join_qkv(tensors: Tensors, path: Path) -> Tensors:
    """Separate projections of q, k and v, or biases without one of k (CAE), as the one ``qkv`` of mmpretrain."""
    joined = {key: value for key, value in tensors.items() if not re.search(r'\.attn\.[qkv]\.(weight|bias)$', key)}
    for stem, kind in sorted({(key.rsplit('.', 2)[0], key.rsplit('.', 1)[1]) for key in set(tensors) - set(joined)}):
        parts = {part: tensors.get(f'{stem}.{part}.{kind}') for part in 'qkv'}
        if kind == 'bias' and f'{stem}.qkv.weight' in tensors and parts['q'] is not None:
            parts['k'] = torch.zeros_like(parts['q'])  # a bias of k adds the same to a whole row of logits
        lacking = [part for part, value in parts.items() if value is None]
        if lacking:
            raise UserInputError(f'{str(path)!r} has a {kind} of q, k or v for {stem!r} and no {kind} of '
                                 f'{lacking[0]}; the file is not whole.')
        if f'{stem}.qkv.{kind}' in joined:
            raise UserInputError(f'{str(path)!r} has the {kind} of q, k and v for {stem!r} twice, together and one by '
                                 f'one; remove those that are not meant.')
        # rows: q of all heads, k, v
        joined[f'{stem}.qkv.{kind}'] = torch.cat([value for value in parts.values() if value is not None])
    return joined


def _compare(file: ViTFile) -> None:
    """Compare names and shapes with those of the network that the file is for."""
    encoder, path = file.encoder, file.path
    if 'cls_token' not in encoder:
        raise UserInputError(f'{path!r} has no [class] token, which the networks of this project have; convert the '
                             f'file of a model with one.')
    for key in ('pos_embed', 'layers.0.ffn.layers.0.0.weight'):
        if key not in encoder:
            raise UserInputError(f'{path!r} has nothing for {key!r} of a VisionTransformer; the file is not whole, or '
                                 f'not one of a plain vision transformer.')
    tokens = encoder['pos_embed'].shape[1]
    side = round(tokens ** .5)
    if file.grid is None and side * side == tokens:
        raise UserInputError(f'{path!r} has {tokens} position embeddings, those of {side} x {side} patches and '
                             f'none of the [class] token, which a VisionTransformer wants; convert the file of a model '
                             f'with one.')
    with torch.device('meta'):
        expected = VisionTransformer(**file.settings).state_dict()
    compare(expected, encoder, path, "names are mmpretrain's; the file is not whole, or not one of a plain vision "
                                     'transformer')


def _tell_heads_and_eps(file: ViTFile, path: Path, num_heads: list[int] | None) -> None:
    """Fill in the settings that tensor shapes do not determine."""
    depth, config = file.num_layers, {}
    if file.source == 'hf':
        file.eps = None
        if (path.parent / 'config.json').is_file():
            try:
                config = json.loads((path.parent / 'config.json').read_text())
                if not isinstance(config, dict) or type(config.get('num_attention_heads') or 1) is not int:
                    raise ValueError('it is no dict with whole numbers')
            except (ValueError, RecursionError) as error:
                raise UserInputError(f'{str(path.parent / "config.json")!r} cannot be read ({error}); repair it, or '
                                     f'move it away and give --num-heads.') from error
            file.eps = config.get('layer_norm_eps')
        if config.get('hidden_act', 'gelu') != 'gelu':
            raise UserInputError(f'{str(path)!r} has the activation {config["hidden_act"]!r} by its config.json, and a '
                                 f'VisionTransformer has gelu; convert the file of a model with that.')
    usual = LAYOUTS[file.source].heads.get(file.embed_dims)
    if num_heads:
        if len(num_heads) not in (1, depth):
            raise UserInputError(f'--num-heads has {len(num_heads)} numbers and {file.path!r} {depth} blocks; give one '
                                 f'number for all blocks, or one a block.')
        file.num_heads, file.heads_from = list(num_heads) * (depth // len(num_heads)), '--num-heads'
    elif config.get('num_attention_heads'):
        file.num_heads, file.heads_from = [config['num_attention_heads']] * depth, 'config.json'
    elif usual:
        file.num_heads, file.heads_from = [usual[0]] * (depth - 1) + [usual[1]], f'the code of {file.source}'
    for number in file.num_heads or []:
        if number < 1 or file.embed_dims % number:
            raise UserInputError(f'{number} heads ({file.heads_from}) do not divide the width {file.embed_dims} of '
                                 f'{file.path!r}; give --num-heads that do.')


def _group(key: str, prefix: str) -> str:
    """What stands for a tensor in the list of those left out."""
    own = prefix if key.startswith(prefix) else ''
    return own + key[len(own):].split('.')[0]


def _rename(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = re.sub(old, new, key)
    return key
