"""``CachedTeacher``: q, k, v that a teacher gave once, read from a file."""
import json
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor

from ...errors import UserInputError
from ...registry import MODELS
from ...weights.mae_files import MAEFile, read_mae_file
from ..backbones import RelationViT
from ..relation import QKV
from .mae_teacher import MAETeacher
from .teacher_cache import TOOL, TeacherCache


@MODELS.register_module()
class CachedTeacher(BaseModule):
    """Stands for a ``MAETeacher`` whose q, k, v of fixed views were written by ``tools/cache_teacher.py``.

    It builds no encoder, so a step costs what the student costs. The samples of a batch say which view of which image
    they are: the data set is a :class:`~mimhd_mm.datasets.FixedViews`, in which ``tools/train.py`` wraps that of the
    config. Arguments other than ``cache`` are those of the ``MAETeacher`` that made the file, and are compared with it:
    a config changes by ::

        --cfg-options model.target_generator.type=CachedTeacher model.target_generator.cache=FILE

    A file made with a part of the patches holds their numbers, a choice for each view; the student then sees the same.
    A file made with all patches serves students that see all, or any part where ``token_fraction`` is 1.0.

    Args:
        cache (str): The file.
        checkpoint (str, optional): The MAE file. It is read where the decoder is needed; where it is there, its hash is
            compared. Defaults to None.
        arch (str | dict): See :class:`MAETeacher`. Defaults to ``'large'``.
        img_size (int | tuple): Pixels. Defaults to 224.
        patch_size (int): Pixels. Defaults to 16.
        block (int): The tapped block, counted from 1. Defaults to 18.
        dtype (str, optional): That the teacher ran in. Defaults to None.
        token_fraction (float | str): ``'same'``, the patches that the student sees, or 1.0, all of them. Defaults to
            ``'same'``.

    Attributes:
        sha256 (str): Hash of the MAE file.
        dtype (torch.dtype): Of q, k, v.

    Raises:
        UserInputError: If the file cannot be used or was made with other settings.
    """

    def __init__(self, cache: str, checkpoint: str | None = None, arch: str | dict = 'large',
                 img_size: int | tuple[int, int] = 224, patch_size: int = 16, block: int = 18,
                 dtype: str | None = None, token_fraction: float | str = 'same',
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        MAETeacher.check_token_fraction(token_fraction)
        self.cache = TeacherCache(cache)
        self.checkpoint = checkpoint
        self.arch = RelationViT.settings_of(arch)
        self.img_size = img_size
        self.patch_size = patch_size
        self.block = block
        self.token_fraction = token_fraction
        self.sha256 = self.cache.settings.sha256
        for name, value in dict(arch=self.arch, img_size=img_size, patch_size=patch_size, block=block,
                                dtype=dtype).items():
            held = getattr(self.cache.settings, name)
            if json.loads(json.dumps(value)) != held:
                raise UserInputError(f'{cache!r} was made by a teacher with {name}={held!r}, but the config says '
                                     f'{value!r}; set model.target_generator.{name}, or make another file with {TOOL}.')
        self.dtype = torch.bfloat16
        self.register_buffer('here', torch.zeros(()), persistent=False)  # tells the device

    @property
    def relation_heads(self) -> int:
        """M1, heads of the tapped block."""
        return self.cache.shape[3]

    @property
    def embed_dims(self) -> int:
        """D1, width of the teacher."""
        return self.arch['embed_dims']

    @property
    def patch_resolution(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        sides = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        return sides[0] // self.patch_size, sides[1] // self.patch_size

    def check_tokens(self, token_fraction: float) -> None:
        """See that the file serves a student that sees this share of the patches.

        Raises:
            UserInputError: If not.
        """
        held = self.cache.settings.token_fraction
        if self.cache.partial and (token_fraction != held or self.token_fraction != 'same'):
            raise UserInputError(
                f'{self.cache.path!r} holds a teacher that saw the share {held} of the patches, the same as the '
                f'student, but model.token_fraction is {token_fraction} and model.target_generator.token_fraction is '
                f"{self.token_fraction!r}; set them to {held} and 'same', or make another file with {TOOL}.")
        if not self.cache.partial and token_fraction != 1 and self.token_fraction == 'same':
            raise UserInputError(
                f'{self.cache.path!r} holds a teacher that saw all patches, but the student sees the share '
                f"{token_fraction} and model.target_generator.token_fraction is 'same'; set it to 1.0, or make another "
                f'file with {TOOL} --token-fraction {token_fraction}.')

    def chosen_tokens(self, data_samples: list[DataSample] | None, token_fraction: float) -> Tensor | None:
        """Patches of each image that the teacher saw, (B, n) numbers; None where it saw all.

        Args:
            data_samples (list): What views of what images these are.
            token_fraction (float): The algorithm's.

        Raises:
            UserInputError: If the file is for another share, or the samples do not say which views they are.
        """
        self.check_tokens(token_fraction)
        return self.cache.seen(*self.places(data_samples)).to(self.here.device) if self.cache.partial else None

    def places(self, data_samples: list[DataSample] | None) -> tuple[list[int], list[int]]:
        """Numbers of the images and of their views, B each.

        Raises:
            UserInputError: If they are not told, or not in the file.
        """
        if not data_samples or any('view' not in sample or 'sample_index' not in sample for sample in data_samples):
            raise UserInputError(
                'A CachedTeacher knows the views in its file and no other image: train with tools/train.py, or wrap '
                'the data set in FixedViews; to show it other images, set model.target_generator.type=MAETeacher.')
        images, views = zip(*((sample.sample_index, sample.view) for sample in data_samples))
        if max(images) >= len(self.cache) or max(views) >= self.cache.shape[1]:
            raise UserInputError(f'{self.cache.path!r} holds {self.cache.shape[1]} views of {len(self.cache)} images, '
                                 f'but view {max(views)} of image {max(images)} was asked for (counted from 0); train '
                                 f'with the data set that it was made of.')
        return list(images), list(views)

    def load(self, need_decoder: bool = False) -> MAEFile:
        """Read the MAE file, where it is there, and compare its hash.

        Args:
            need_decoder (bool): Whether the file and its decoder have to be there.

        Returns:
            MAEFile: What was read, for the decoder's owner; without tensors where the file is not there.

        Raises:
            UserInputError: If the file is needed and cannot be used, or is not the one that the cache was made of.
        """
        held = self.cache.settings
        there = self.checkpoint is not None and Path(self.checkpoint).is_file()
        if not there and not need_decoder:
            file = MAEFile(held.teacher, held.sha256, 'cache', {}, None)
        elif self.checkpoint is None:
            raise UserInputError(f'Reconstruction needs the decoder of the teacher; set '
                                 f'model.target_generator.checkpoint to its MAE file ({held.teacher!r} when the cache '
                                 f'was made), or model.rec_weight=0.')
        else:
            file = read_mae_file(self.checkpoint, need_decoder=need_decoder)
        if file.sha256 != held.sha256:
            raise UserInputError(f'{self.cache.path!r} was made by {held.teacher!r} (sha256 {held.sha256[:12]}), but '
                                 f'{file.path!r} has sha256 {file.sha256[:12]}; set '
                                 f'model.target_generator.checkpoint to the file it was made by, or make another with '
                                 f'{TOOL}.')
        images, views = self.cache.shape[:2]
        print_log(f'Teacher: {self.cache.path}, block {self.block} of {held.teacher} (sha256 {held.sha256[:12]}) for '
                  f'{views} views of {images} images.', logger='current')
        return file

    @torch.no_grad()
    def forward(self, images: Tensor, seen: Tensor | None = None,
                data_samples: list[DataSample] | None = None) -> QKV:
        """q, k, v of the tapped block, as the file holds them.

        Args:
            images (Tensor): (B, 3, H, W); only their device counts.
            seen (Tensor, optional): (B, n), numbers of the patches to compare: those of :meth:`chosen_tokens`, or where
                the teacher saw all, any; None is all of them, n = N.
            data_samples (list): What views of what images these are.

        Returns:
            QKV: Each (B, M1, 1 + n, d1), bfloat16, [class] token first, then the patches in the order of ``seen``.
        """
        held = self.cache.qkv(*self.places(data_samples)).to(images.device)  # (B, 3, M1, 1 + n, d1)
        qkv = QKV(*held.unbind(1))  # each (B, M1, 1 + n, d1)
        return qkv if self.cache.partial else qkv.take(seen)
