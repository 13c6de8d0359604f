"""Check the student's file and the classes of the data before fine-tuning starts."""
import ast
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ...compat import load_checkpoint_safely
from ...datasets.nesting import LOADERS, innermost_datasets
from ...errors import UserInputError
from ...models import RelationViT
from ...registry import DATASETS, MODELS
from ...weights.fitting import compare
from ...weights.reading import read_tensors

#: norms after the last block; the kind of output decides which of them a network has
LAST_NORMS = ('ln1.', 'ln2.')


def check_pretrained(cfg: Config) -> None:
    """Compare the file of a backbone's ``init_cfg`` with the backbone.

    The backbone is ``model.backbone``, or each of those in ``model.students``.

    mmengine loads the tensors that fit and only logs the rest, so a wrong file means training from scratch. Position
    embeddings may belong to another image size. The norms after the last block may be missing or unused, except for the
    one that directly follows the last block. Shapes do not show head counts; they are compared if the file records
    them, see :func:`heads_of_file`.

    Args:
        cfg (Config): A config that trains; other configs and files behind a URL are not checked.

    Raises:
        UserInputError: If the file is missing or unreadable, holds no tensor under the prefix, or tensors of other
            names or shapes, or comes from a network of other head counts.
    """
    model = cfg.get('model') or {}
    backbones = {'model.backbone': model.get('backbone')}
    backbones.update({f'model.students.{name}.backbone': student.get('backbone')
                      for name, student in (model.get('students') or {}).items()})
    for key, backbone in backbones.items():
        init_cfg = pretrained_init_cfg(backbone or {})
        if cfg.get('train_cfg') and init_cfg is not None and '://' not in str(init_cfg.get('checkpoint')):
            check_backbone(cfg, key, backbone, init_cfg)


def check_backbone(cfg: Config, key: str, backbone: dict, init_cfg: dict) -> None:
    """:func:`check_pretrained` for the backbone at a key of the config."""
    path, prefix = str(init_cfg.get('checkpoint') or ''), init_cfg.get('prefix') or ''
    if not Path(path).is_file():
        raise UserInputError(f'No file {path!r} to start the backbone from; name the checkpoint of a student with '
                             f'--cfg-options {key}.init_cfg.checkpoint=FILE.')
    tensors = read_tensors(path)
    own = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
    if not own and (names := students_of_file(tensors)):
        raise UserInputError(f'{path!r} has no tensor under {prefix!r}, it is a checkpoint of the students '
                             f'{", ".join(names)}; choose one with --cfg-options '
                             f'{key}.init_cfg.prefix=students.{names[0]}.backbone.')
    if not own:
        raise UserInputError(f'{path!r} has no tensor under {prefix!r}, its first is {next(iter(tensors))!r}; expected '
                             f'a checkpoint of this project or of mmpretrain (files of other projects are converted by '
                             f'tools/model_converters/vit_to_mmpretrain.py).')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        built = MODELS.build(dict(backbone, init_cfg=None))
    if isinstance(built, VisionTransformer):
        compare_backbone(built, own, path)
        compare_heads([layer.attn.num_heads for layer in built.layers], heads_of_file(path, prefix), path)


def students_of_file(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the students in a checkpoint of a ``MultiStudent``, sorted; none in others."""
    return sorted({key.split('.')[1] for key in tensors if re.match(r'students\.\w+\.backbone\.', key)})


def pretrained_init_cfg(backbone: dict) -> dict | None:
    """The entry of a backbone's ``init_cfg`` that loads a file, or None."""
    init_cfgs = backbone.get('init_cfg') or []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
        if init_cfg.get('type') == 'Pretrained':
            return init_cfg
    return None


def compare_backbone(backbone: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Compare names and shapes of a backbone with those of a file.

    Args:
        backbone (nn.Module): A ``VisionTransformer``, or a subclass with relative position tables or layer scale, which
            have their own initialisation.
        tensors (dict): The file's, without the prefix.
        source (str): The file, for messages.

    Raises:
        UserInputError: If they do not belong together.
    """
    compare(backbone.state_dict(), tensors, source,
            f'the config has a {type(backbone).__name__} of another size or kind; give the config of that student',
            may_lack=lambda key: key.startswith('ln2.') or 'relative_position' in key or '.gamma' in key,
            may_add=lambda key: key.startswith(LAST_NORMS), fits=_fits)


def _fits(key: str, found: Tensor, expected: Tensor) -> bool:
    """Whether shapes agree, or belong to position embeddings that can be interpolated."""
    if found.shape == expected.shape or 'relative_position' in key:
        return True
    if key != 'pos_embed' or found.ndim != 3 or found.shape[2] != expected.shape[2]:
        return False
    return int((found.shape[1] - 1) ** .5) ** 2 == found.shape[1] - 1


def compare_heads(built: list[int], expected: list[int] | None, source: str) -> None:
    """Compare the head count of every block with the one that a file records.

    Weights of q, k and v have the same shape for any head count, so no other check notices a difference.

    Args:
        built (list[int]): Of the backbone that a config builds.
        expected (list[int], optional): Of the file; None if it does not record them.
        source (str): The file, for messages.

    Raises:
        UserInputError: If they differ, with the line that corrects the config.
    """
    if expected is None or built == expected:
        return
    if len(built) != len(expected):
        raise UserInputError(f'{source!r} comes from a run with {len(expected)} blocks but the config builds '
                             f'{len(built)}; give the config of that student.')
    block = next(i for i, pair in enumerate(zip(built, expected)) if pair[0] != pair[1])
    raise UserInputError(
        f'{source!r}: block {block + 1} has {expected[block]} heads in the run it comes from but {built[block]} by the '
        f'config; put this line at the end of the config: model = dict(backbone=dict(layer_cfgs='
        f'{layer_cfgs_text(expected)}))')


def layer_cfgs_text(heads: list[int]) -> str:
    """``layer_cfgs`` of a vision transformer with these head counts, as it is written in a config file."""
    groups = ((number, len(list(group))) for number, group in groupby(heads))
    return ' + '.join(f'[dict(num_heads={number})]' + (f' * {count}' if count > 1 else '') for number, count in groups)


def heads_of_file(path: str | Path, prefix: str = 'backbone.') -> list[int] | None:
    """Read the head count of each block from the metadata of a checkpoint.

    ``meta['num_heads']`` (written by tools/model_converters/export_student.py) comes first. Otherwise
    ``model.backbone`` of the training config is read, or ``model.students.NAME.backbone``, whose text mmengine keeps in
    ``meta['cfg']``. That text is parsed and never executed; of its expressions only plain values, lists and
    ``dict(...)`` are read.

    Args:
        path (str | Path): The file.
        prefix (str): Of the backbone's tensors: ``'students.NAME.backbone.'`` where there are several students.
            Defaults to ``'backbone.'``.

    Returns:
        list[int], optional: None if the file does not record them in a known form.

    Raises:
        UserInputError: If the file cannot be read.
    """
    if Path(path).suffix == '.safetensors':
        return None
    try:
        content = load_checkpoint_safely(path)
    except Exception:
        read_tensors(path)  # raises a UserInputError that says what is wrong
        raise
    meta = content.get('meta') if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    heads = meta.get('num_heads')
    if _are_heads(heads):
        return list(heads)
    try:
        return _heads_of_backbone(_backbone_of_text(meta.get('cfg'), prefix))
    except (SyntaxError, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
        return None


def _heads_of_backbone(backbone: dict[str, ast.expr]) -> list[int] | None:
    """Head counts by the arguments of a backbone.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: If they are not those of a vision transformer, or not plain.
    """
    settings = {key: _plain_value(backbone[key]) for key in ('arch', 'layer_cfgs', 'relation_block', 'relation_heads')
                if key in backbone}
    arch = RelationViT.settings_of(settings.get('arch', 'base'))
    layer_cfgs = settings.get('layer_cfgs') or {}
    layer_cfgs = [layer_cfgs] * arch['num_layers'] if isinstance(layer_cfgs, dict) else layer_cfgs
    heads = [layer_cfgs[i].get('num_heads', arch['num_heads']) for i in range(arch['num_layers'])]
    if settings.get('relation_heads'):
        heads[(settings.get('relation_block') or arch['num_layers']) - 1] = settings['relation_heads']
    return heads if _are_heads(heads) else None


def _are_heads(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(
        type(number) is int and number > 0 for number in value)


def _backbone_of_text(text: Any, prefix: str) -> dict[str, ast.expr]:
    """The arguments of the backbone whose tensors have the prefix, not evaluated yet, in the text of a config.

    Raises:
        ValueError, SyntaxError, KeyError: If there are none.
    """
    if not isinstance(text, str):
        raise ValueError('no text')
    models = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)
              for target in node.targets if isinstance(target, ast.Name) and target.id == 'model']
    model = _entries(models[-1])
    student = re.fullmatch(r'students\.(\w+)\.backbone\.', prefix)
    if student:
        model = _entries(_entries(model['students'])[student.group(1)])
    return _entries(model['backbone'])


def _entries(node: ast.expr) -> dict[str, ast.expr]:
    """Keys and values of ``dict(a=1)``, ``{'a': 1}`` or mmengine's ``dict({'a': 1})``; else ValueError."""
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): value for key, value in zip(node.keys, node.values)}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict'
            and len(node.args) <= 1 and all(keyword.arg for keyword in node.keywords)):
        raise ValueError('not a plain dict')
    entries = _entries(node.args[0]) if node.args else {}
    return {**entries, **{keyword.arg: keyword.value for keyword in node.keywords}}


def _plain_value(node: ast.expr) -> Any:
    """The value of constants, lists, tuples and dicts of them; else ValueError."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_plain_value(item) for item in node.elts]
    if isinstance(node, (ast.Dict, ast.Call)):
        return {key: _plain_value(value) for key, value in _entries(node).items()}
    return ast.literal_eval(node)


def check_class_count(cfg: Config) -> None:
    """Compare ``num_classes`` of a classifier's head and preprocessor with the classes of its data sets.

    A head with too many classes trains without an error; one with too few fails in the middle of an epoch, on a GPU
    without a message. Check the folders of the data before calling it.

    Args:
        cfg (Config): Segmentation and pre-training configs, which have no such head, are not checked.

    Raises:
        UserInputError: If a number differs, with the options that correct it.
    """
    model = cfg.get('model') or {}
    head = model.get('head') or {}
    if cfg.get('default_scope', 'mmpretrain') != 'mmpretrain' or 'num_classes' not in head:
        return
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    where = 'model.data_preprocessor' if model.get('data_preprocessor') else 'data_preprocessor'
    for loader in LOADERS:
        number = count_classes((cfg.get(loader) or {}).get('dataset'))
        given = {'model.head': head['num_classes'], where: preprocessor.get('num_classes', number)}
        if number is not None and set(given.values()) != {number}:
            options = ' '.join(f'{key}.num_classes={number}' for key in given)
            found = ' and '.join(f'{key}.num_classes={value}' for key, value in given.items())
            raise UserInputError(f'{loader}.dataset has {number} classes but the config says {found}; '
                                 f'give --cfg-options {options}.')


def count_classes(dataset: dict | None) -> int | None:
    """How many classes the dataset of a config has; None if it is no dataset of mmpretrain's kind, or has no labels."""
    _, dataset = next(innermost_datasets('', dataset), ('', None))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        kind = DATASETS.get(dataset['type']) if dataset and isinstance(dataset.get('type'), str) else None
        if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
            return None
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
        if built.CLASSES is None:
            built.full_init()
    return None if built.CLASSES is None else len(built.CLASSES)
