"""Files of pre-trained masked autoencoders: read safely, recognise the layout, load and verify."""
import hashlib
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import torch
from mmpretrain.models.utils import build_2d_sincos_position_embedding, resize_pos_embed
from torch import Tensor, nn

from ..compat import load_checkpoint_safely
from ..errors import UserInputError

Tensors = Dict[str, Tensor]

FILES_WITH_DECODER = (
    "OpenMMLab's mae_vit-large-p16_8xb512-*-coslr-*e_in1k_*.pth (normalised pixels), the official "
    'mae_pretrain_vit_large_full.pth (normalised) or mae_visualize_vit_large.pth (raw pixels)')

#: official name -> mmpretrain's name, inside a transformer block
_BLOCK = {'norm1': 'ln1', 'norm2': 'ln2', 'mlp.fc1': 'ffn.layers.0.0', 'mlp.fc2': 'ffn.layers.1'}
_ENCODER_STEMS = ('cls_token', 'pos_embed', 'patch_embed.', 'layers.', 'ln1.')


@dataclass
class MAEFile:
    """A masked autoencoder's weights, in mmpretrain's names.

    Attributes:
        path (str): The file.
        sha256 (str): Its hash, in hexadecimal.
        source (str): ``'openmmlab'`` or ``'official'``, by the keys.
        encoder (dict): Tensors of a ``VisionTransformer``.
        decoder (dict, optional): Tensors of a ``MAEPretrainDecoder``; None if the file has none.
    """
    path: str
    sha256: str
    source: str
    encoder: Tensors = field(repr=False)
    decoder: Optional[Tensors] = field(repr=False)

    @property
    def embed_dims(self) -> int:
        """Width of the encoder."""
        return self.encoder['cls_token'].shape[-1]

    @property
    def num_layers(self) -> int:
        """Blocks of the encoder."""
        return _count(self.encoder, 'layers')

    @property
    def feedforward_channels(self) -> int:
        """Hidden width of the encoder's MLPs."""
        return self.encoder['layers.0.ffn.layers.0.0.weight'].shape[0]

    @property
    def patch_size(self) -> int:
        """Pixels along the side of a patch."""
        return self.encoder['patch_embed.projection.weight'].shape[-1]

    @property
    def num_patches(self) -> int:
        """Patches of the image size the file was trained at."""
        return self.encoder['pos_embed'].shape[1] - 1

    @property
    def decoder_embed_dims(self) -> Optional[int]:
        """Width of the decoder."""
        return self.decoder['mask_token'].shape[-1] if self.decoder else None

    @property
    def decoder_depth(self) -> Optional[int]:
        """Blocks of the decoder."""
        return _count(self.decoder, 'decoder_blocks') if self.decoder else None


def read_mae_file(path: Union[str, Path], need_decoder: bool = False) -> MAEFile:
    """Read an MAE checkpoint of any known layout without executing anything in it.

    Args:
        path (str | Path): ``.pth`` (OpenMMLab's or the official layout) or ``.safetensors`` with either's keys.
        need_decoder (bool): Whether a file without a decoder is refused. Defaults to False.

    Returns:
        MAEFile: The weights on the CPU.

    Raises:
        UserInputError: If the file is missing, unreadable, of unknown layout or lacks what is needed.
    """
    path = Path(path)
    tensors = read_tensors(path)
    source = 'openmmlab' if any(key.startswith('backbone.') for key in tensors) else 'official'
    if source == 'openmmlab':
        encoder = _strip(tensors, 'backbone.')
        decoder: Optional[Tensors] = _strip(tensors, 'neck.')
    else:
        tensors = {_official_to_mmpretrain(key): value for key, value in tensors.items()}
        encoder = {key: value for key, value in tensors.items() if key.startswith(_ENCODER_STEMS)}
        decoder = {key.replace('decoder_norm.', 'ln1.'): value for key, value in tensors.items()
                   if key.startswith(('decoder_', 'mask_token'))}
    needed = {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'layers.0.attn.qkv.weight'}
    if not needed <= set(encoder):
        raise UserInputError(
            f'{str(path)!r} is not a masked autoencoder of a known layout: no {sorted(needed - set(encoder))[0]!r} '
            f'under `backbone.` (OpenMMLab) nor its official name; its first key is {next(iter(tensors), None)!r}.')
    if not {'decoder_embed.weight', 'decoder_pred.weight'} <= set(decoder or {}):
        decoder = None
    if need_decoder and decoder is None:
        raise UserInputError(
            f'{str(path)!r} holds an encoder but no decoder (as mae_pretrain_vit_*.pth do), and reconstruction needs '
            f'one; use {FILES_WITH_DECODER}, or set model.rec_weight=0 to distil without reconstruction.')
    return MAEFile(str(path), sha256_of(path), source, encoder, decoder)


def read_tensors(path: Union[str, Path]) -> Tensors:
    """The state dict of a file, read with ``weights_only=True`` or as safetensors; never by plain unpickling.

    Raises:
        UserInputError: If the file is missing, truncated, would need unpickling, or holds no tensors.
    """
    return state_dict_of(read_content(path), path)


def read_content(path: Union[str, Path], map_location: Any = 'cpu') -> object:
    """All that a file holds, read as :func:`read_tensors` reads it.

    Args:
        path (str | Path): The file.
        map_location: Where tensors go, as in ``torch.load``; those of safetensors stay on the CPU. Defaults to
            ``'cpu'``.

    Raises:
        UserInputError: If the file is missing, truncated, would need unpickling, or claims to be larger than it is.
    """
    path = Path(path)
    if not path.is_file():
        raise UserInputError(f'No file {str(path)!r}; give the path of a checkpoint that exists.')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            return load_file(str(path))
        return load_checkpoint_safely(path, map_location)
    except UserInputError:
        raise
    except ImportError as error:
        raise UserInputError(f'Reading {str(path)!r} needs the package safetensors; install it.') from error
    except pickle.UnpicklingError as error:
        raise UserInputError(
            f'{str(path)!r} was refused: it holds more than tensors and plain values, or is damaged, and reading it '
            f'could execute code; save its state dict alone ({_cause(error)}).') from error
    except Exception as error:  # torch and safetensors raise a dozen types for a file that is cut short
        raise UserInputError(f'{str(path)!r} is truncated or not a checkpoint '
                             f'({type(error).__name__}: {_cause(error)}).') from error


def state_dict_of(content: object, path: Union[str, Path]) -> Tensors:
    """The tensors at the top of a file's content, or under ``state_dict`` or ``model``, without a ``module.`` before.

    Args:
        content (object): What :func:`read_content` gives.
        path (str | Path): The file, for messages.

    Raises:
        UserInputError: If there are none.
    """
    for key in ('state_dict', 'model'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} \
        if isinstance(content, dict) else {}
    if not tensors:
        raise UserInputError(f'{str(path)!r} holds no state dict; expected tensors at the top level, or under '
                             f'`state_dict` or `model`.')
    return {key[7:] if key.startswith('module.') else key: value for key, value in tensors.items()}


def sha256_of(path: Union[str, Path]) -> str:
    """Hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def load_verified(module: nn.Module, tensors: Tensors, path: str) -> None:
    """Load exactly these tensors into a module, then compare each with what was asked for.

    Args:
        module (nn.Module): Every parameter and persistent buffer of it must be in ``tensors``.
        tensors (dict): May hold more keys than the module; those are left out.
        path (str): The file, for messages.

    Raises:
        UserInputError: If a tensor is missing or has another shape.
        RuntimeError: If a loaded tensor differs from the file's.
    """
    own = dict(module.named_parameters(), **dict(module.named_buffers()))
    missing = sorted(set(own) - set(tensors))
    if missing:
        raise UserInputError(f'{path!r} lacks {len(missing)} tensors that the teacher needs, {missing[0]!r} first; '
                             f'check `arch` and `block`.')
    for key, value in own.items():
        if value.shape != tensors[key].shape:
            raise UserInputError(f'{path!r}: {key!r} is {tuple(tensors[key].shape)} in the file but '
                                 f'{tuple(value.shape)} by the config; check `arch`, `img_size` and `patch_size`.')
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])
    for key, value in dict(module.named_parameters(), **dict(module.named_buffers())).items():
        if not torch.equal(value.cpu(), tensors[key].to(value.dtype)):
            raise RuntimeError(f'{key!r} differs from {path!r} after loading.')


def resize_positions(pos_embed: Tensor, grid: Tuple[int, int], source: Optional[Tuple[int, int]] = None,
                     mode: str = 'bicubic') -> Tensor:
    """Position embeddings of one grid of patches, [class] first, for another grid.

    Args:
        pos_embed (Tensor): (1, 1 + n * m, C).
        grid (tuple): Rows and columns of patches wanted.
        source (tuple, optional): Rows and columns of ``pos_embed``. None takes them for a square; where their number is
            no square's, for ``grid``. Defaults to None.
        mode (str): Interpolation. Defaults to ``'bicubic'``.

    Returns:
        Tensor: (1, 1 + rows * columns, C); the same values where the grid is the same.

    Raises:
        UserInputError: If the embeddings are of another grid that is not square.
    """
    number = pos_embed.shape[1] - 1
    if source is None:
        side = round(number ** .5)
        source = (side, side) if side * side == number else grid
    if source[0] * source[1] != number:
        raise UserInputError(f'Position embeddings of {number} patches are of no square grid and not of {grid[0]} x '
                             f'{grid[1]} patches either; set img_size to the size that the file was trained at.')
    return resize_pos_embed(pos_embed, source, tuple(grid), mode)


def sincos_positions(grid: Tuple[int, int], dims: int) -> Tensor:
    """MAE's fixed sine-cosine position embeddings, [class] first; those of a square, resized, for other grids.

    Args:
        grid (tuple): Rows and columns of patches.
        dims (int): C, a multiple of 4.

    Returns:
        Tensor: (1, 1 + rows * columns, C).
    """
    square = max(grid)
    return resize_positions(build_2d_sincos_position_embedding(square, dims, cls_token=True), grid, (square, square))


def _cause(error: Exception) -> str:
    """The line of a loader's message that says what is wrong, without its advice to load unsafely."""
    text = str(error).rpartition('WeightsUnpickler error:')[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith('Weights only load failed')]
    return (lines or ['no details'])[0].split(' was not an allowed global')[0][:160]


def _count(tensors: Tensors, stem: str) -> int:
    return 1 + max(int(key.split('.')[1]) for key in tensors if key.startswith(stem + '.'))


def _strip(tensors: Tensors, prefix: str) -> Tensors:
    return {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}


def _official_to_mmpretrain(key: str) -> str:
    key = re.sub(r'^blocks\.', 'layers.', key)
    key = re.sub(r'^norm\.', 'ln1.', key)
    key = key.replace('patch_embed.proj.', 'patch_embed.projection.')
    for old, new in _BLOCK.items():
        key = re.sub(rf'^((?:layers|decoder_blocks)\.\d+\.){re.escape(old)}\.', rf'\1{new}.', key)
    return key
