"""``MAETeacher``: a frozen masked autoencoder's encoder, up to the q, k, v of one block."""
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.models import VisionTransformer
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ...errors import UserInputError
from ...registry import MODELS
from ...weights.fitting import load_exactly
from ...weights.mae_files import MAEFile, read_mae_file
from ..backbones import RelationViT
from ..checkpointing import keep_out_of_checkpoints
from ..positions import resize_positions
from ..relation import QKV


@MODELS.register_module()
class MAETeacher(BaseModule):
    """Gives the relations to imitate. It is always frozen, in evaluation mode, and never part of a checkpoint.

    Only the blocks up to the tapped one are built, and that one only as far as its q, k, v projection. Weights are
    read in :meth:`init_weights` and each tensor is compared with the file afterwards; position embeddings are
    interpolated where the file's grid is another.

    Args:
        checkpoint (str): Path of an MAE file; see :func:`mimhd_mm.weights.mae_files.read_mae_file` for the layouts.
        arch (str | dict): Architecture of the file's encoder. Defaults to ``'large'`` (paper).
        img_size (int | tuple): Pixels. Defaults to 224.
        patch_size (int): Pixels. Defaults to 16.
        block (int): The tapped block, counted from 1. Defaults to 18 of ViT-L's 24 (paper, Table 4).
        dtype (str, optional): ``'bfloat16'`` or ``'float16'`` keeps the weights of matrix products in that type and
            runs the encoder under autocast of it, whatever the student runs in. Results are those of float32 weights
            under that autocast, which rounds them anew at every step. None leaves both to the run. Defaults to None.
        token_fraction (float | str): What it sees where the student sees a part of the patches: ``'same'``, those that
            the student sees, at a cost that falls with their number, or 1.0, all of them. A masked autoencoder was
            trained on a part of the patches. Defaults to ``'same'`` (our choice).

    Attributes:
        sha256 (str, optional): Hash of the file, once it has been read.

    Raises:
        UserInputError: If the file cannot be used or does not fit the arguments.
    """

    DTYPES = {None: None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}

    def __init__(self, checkpoint: str | None, arch: str | dict = 'large', img_size: int = 224,
                 patch_size: int = 16, block: int = 18, dtype: str | None = None,
                 token_fraction: float | str = 'same', init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if dtype not in self.DTYPES:
            raise UserInputError(f'Unknown dtype {dtype!r} of the teacher; choose from '
                                 f'{", ".join(map(repr, self.DTYPES))}.')
        self.check_token_fraction(token_fraction)
        self.checkpoint = checkpoint
        self.token_fraction = token_fraction
        self.arch = RelationViT.settings_of(arch)
        self.img_size = img_size
        self.patch_size = patch_size
        self.block = block
        self.dtype = self.DTYPES[dtype]
        self.sha256: str | None = None
        self.encoder = self.build_encoder()
        if self.dtype:
            for module in self.encoder.modules():  # norms, positions and [class] stay as autocast leaves them
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.to(self.dtype)
        self.requires_grad_(False)
        self.train(False)
        keep_out_of_checkpoints(self, lambda name: True)

    @staticmethod
    def check_token_fraction(token_fraction: float | str) -> None:
        """Check what a teacher's ``token_fraction`` may be.

        Raises:
            UserInputError: If it is neither ``'same'`` nor 1.0.
        """
        if token_fraction not in ('same', 1):
            raise UserInputError(f"target_generator.token_fraction is 'same', the patches that the student sees, or "
                                 f'1.0, all of them, not {token_fraction!r}; model.token_fraction says how many the '
                                 f'student sees.')

    def build_encoder(self) -> VisionTransformer:
        """The encoder, as far as it is needed."""
        return RelationViT(self.arch, img_size=self.img_size, patch_size=self.patch_size, relation_block=self.block,
                           stop_at_relation=True)

    @property
    def relation_heads(self) -> int:
        """M1, heads of the tapped block."""
        return self.encoder.relation_heads

    @property
    def embed_dims(self) -> int:
        """D1, width of the encoder."""
        return self.arch['embed_dims']

    @property
    def patch_resolution(self) -> tuple[int, int]:
        """Rows and columns of patches of the image size configured."""
        return tuple(self.encoder.patch_resolution)

    def chosen_tokens(self, data_samples: list[DataSample] | None, token_fraction: float) -> Tensor | None:
        """Patches of each image that were chosen before, (B, n) numbers; None here: the algorithm chooses.

        Args:
            data_samples (list, optional): Where the images come from.
            token_fraction (float): The algorithm's.
        """

    def init_weights(self) -> None:
        """Nothing: the algorithm calls :meth:`load` last, so that no other initialiser writes over the weights."""

    def load(self, need_decoder: bool = False) -> MAEFile:
        """Read the file and load the encoder from it.

        Args:
            need_decoder (bool): Whether a file without a decoder is refused.

        Returns:
            MAEFile: What was read, for the decoder's owner.

        Raises:
            UserInputError: If the file cannot be used.
        """
        if self.checkpoint is None:
            raise UserInputError('No teacher: set model.target_generator.checkpoint to the path of an MAE file.')
        file = read_mae_file(self.checkpoint, need_decoder=need_decoder)
        for name in ('embed_dims', 'num_layers', 'feedforward_channels'):
            if getattr(file, name) != self.arch[name]:
                raise UserInputError(f'{file.path!r} has {name}={getattr(file, name)}, but the teacher is configured '
                                     f'with {self.arch[name]}; set model.target_generator.arch to match the file.')
        if file.patch_size != self.patch_size:
            raise UserInputError(f'{file.path!r} has patches of {file.patch_size} px, but the teacher is configured '
                                 f'with {self.patch_size}; set model.target_generator.patch_size.')
        tensors = dict(file.encoder)
        tensors['pos_embed'] = resize_positions(tensors['pos_embed'], self.encoder.patch_resolution)
        load_exactly(self.encoder, tensors, file.path, 'check `arch`, `img_size` and `patch_size`', part=True)
        self.sha256 = file.sha256
        print_log(f'Teacher: {file.path} ({file.source} layout, sha256 {file.sha256[:12]}), blocks 1 to '
                  f'{self.block} of {file.num_layers}.', logger='current')
        return file

    def train(self, mode: bool = True) -> 'MAETeacher':
        """Stay in evaluation mode; the training loop calls ``model.train()`` at every epoch."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, seen: Tensor | None = None,
                data_samples: list[DataSample] | None = None) -> QKV:
        """q, k, v of the tapped block.

        Args:
            images (Tensor): (B, 3, H, W), normalised.
            seen (Tensor, optional): (B, n), numbers of the patches to compare; None is all of them, n = N.
            data_samples (list, optional): Not used here.

        Returns:
            QKV: Each (B, M1, 1 + n, d1), [class] token first, then the patches in the order of ``seen``.
        """
        with self.precision(images):
            if self.token_fraction == 'same':
                return self.encoder.forward_relation(images, seen=seen)[1]
            return self.encoder.forward_relation(images)[1].take(seen)

    def precision(self, images: Tensor) -> AbstractContextManager:
        """Autocast for weights of type ``dtype``, where there is one."""
        return nullcontext() if self.dtype is None else torch.autocast(images.device.type, self.dtype)
