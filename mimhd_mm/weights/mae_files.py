"""Files of pre-trained masked autoencoders: the layout is recognised, tensors get mmpretrain's names."""
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserInputError
from .reading import Tensors, read_tensors, sha256_of

FILES_WITH_DECODER = (
    "OpenMMLab's mae_vit-large-p16_8xb512-*-coslr-*e_in1k_*.pth (normalised pixels), the official "
    'mae_pretrain_vit_large_full.pth (normalised) or mae_visualize_vit_large.pth (raw pixels)')

#: official name -> mmpretrain's name, inside a transformer block
_BLOCK = {'norm1': 'ln1', 'norm2': 'ln2', 'mlp.fc1': 'ffn.layers.0.0', 'mlp.fc2': 'ffn.layers.1'}
#: mmpretrain's names in the encoder of a masked autoencoder, and in its decoder
_ENCODER = re.compile(r'cls_token|pos_embed|(?:patch_embed\.projection|ln1|ln2)\.(?:weight|bias)|layers\.\d+\.(?:'
                      r'ln1|ln2|attn\.(?:qkv|proj)|ffn\.layers\.(?:0\.0|1))\.(?:weight|bias)')
_DECODER = re.compile(r'mask_token|decoder_pos_embed|(?:decoder_embed|decoder_pred|ln1)\.(?:weight|bias)|'
                      r'decoder_blocks\.\d+\.(?:ln1|ln2|attn\.(?:qkv|proj)|ffn\.layers\.(?:0\.0|1))\.(?:weight|bias)')
#: what lies beside the encoder in official files, and follows its last norm
_HEADS = ('head.', 'fc_norm.')


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
    decoder: Tensors | None = field(repr=False)

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
    def decoder_embed_dims(self) -> int | None:
        """Width of the decoder."""
        return self.decoder['mask_token'].shape[-1] if self.decoder else None

    @property
    def decoder_depth(self) -> int | None:
        """Blocks of the decoder."""
        return _count(self.decoder, 'decoder_blocks') if self.decoder else None


def read_mae_file(path: str | Path, need_decoder: bool = False) -> MAEFile:
    """Read an MAE checkpoint of any known layout without executing anything in it.

    Args:
        path (str | Path): ``.pth`` (OpenMMLab's or the official layout) or ``.safetensors`` with either's keys.
        need_decoder (bool): Whether a file without a decoder is refused. Defaults to False.

    Returns:
        MAEFile: The weights on the CPU.

    Raises:
        UserInputError: If the file is missing, unreadable, of unknown layout or lacks what is needed, or if it has a
            tensor that a plain one has not, such as a layer scale, registers or a relative position bias.
    """
    path = Path(path)
    tensors = read_tensors(path)
    source = 'openmmlab' if any(key.startswith('backbone.') for key in tensors) else 'official'
    if source == 'openmmlab':
        encoder = _strip(tensors, 'backbone.')
        found = _strip(tensors, 'neck.')
    else:
        tensors = {_official_to_mmpretrain(key): value for key, value in tensors.items()}
        found = {key.replace('decoder_norm.', 'ln1.'): value for key, value in tensors.items()
                 if key.startswith(('decoder_', 'mask_token'))}
        encoder = {key: value for key, value in tensors.items()
                   if not key.startswith(('decoder_', 'mask_token') + _HEADS)}
    needed = {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'layers.0.attn.qkv.weight'}
    if not needed <= set(encoder):
        raise UserInputError(
            f'{str(path)!r} is not a masked autoencoder of a known layout: no {sorted(needed - set(encoder))[0]!r} '
            f'under `backbone.` (OpenMMLab) nor its official name; its first key is {next(iter(tensors), None)!r}.')
    _refuse_unknown(encoder, _ENCODER, path)
    decoder: Tensors | None = None
    if {'decoder_embed.weight', 'decoder_pred.weight'} <= set(found):  # other necks have more, such as a connector
        decoder = {key: value for key, value in found.items() if key.startswith(('decoder_', 'mask_token', 'ln1.'))}
        _refuse_unknown(decoder, _DECODER, path)
    if need_decoder and decoder is None:
        raise UserInputError(
            f'{str(path)!r} holds an encoder but no decoder (as mae_pretrain_vit_*.pth do), and reconstruction needs '
            f'one; use {FILES_WITH_DECODER}, or set model.rec_weight=0 to distil without reconstruction.')
    return MAEFile(str(path), sha256_of(path), source, encoder, decoder)


def _refuse_unknown(tensors: Tensors, known: 're.Pattern[str]', path: Path) -> None:
    """Stop at what makes a network another one than a masked autoencoder, however well the other tensors fit."""
    unknown = next((key for key in tensors if not known.fullmatch(key)), None)
    if unknown is not None:
        raise UserInputError(f"{str(path)!r} has {unknown!r} (in mmpretrain's names), which a plain masked autoencoder "
                             f'does not have, and without it the network is another one; give the file of a masked '
                             f'autoencoder.')


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
