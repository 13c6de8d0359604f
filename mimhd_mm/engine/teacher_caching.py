"""Run a teacher once and write its q, k, v for fixed views of every image to a file."""
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..datasets import FixedViews
from ..datasets.image_packing import refuse_existing
from ..datasets.seeded_samples import mixed_seed, seeded_cpu
from ..errors import UserInputError
from ..models import MAETeacher
from ..models.selfsup import MultiStudent, RelationDistiller
from ..models.selfsup.relation_distiller import student_and_teacher_views
from ..models.target_generators.teacher_cache import CacheSettings, header_of
from ..models.views import check_fraction, count_seen, draw_seen
from ..registry import MODELS
from .cached_training import build_preprocessor, comparable, described, hash_of_pixels, kind_of, plain_dataset


class ViewsInOrder(Dataset):
    """All views of the first image, then all of the second, and so on."""

    def __init__(self, views: FixedViews) -> None:
        self.views = views

    def __getitem__(self, number: int) -> dict:
        return self.views.view(*divmod(number, self.views.num_views))

    def __len__(self) -> int:
        return len(self.views) * self.views.num_views


class CacheWriter:
    """Runs the teacher of a config on K views of every image and writes its q, k, v to one file.

    Args:
        cfg (Config): Of a pre-training with a ``MAETeacher``.
        target (str | Path): The file to write; must not exist.
        num_views (int): K.
        view_seed (int): Of the views. Defaults to 0.
        token_fraction (float, optional): Share of the patches that the teacher sees and that students are to see, drawn
            once for each view. None is the config's ``model.token_fraction`` where its teacher sees the same patches,
            else 1.0. Defaults to None.

    Attributes:
        num_bytes (int): Of the file.

    Raises:
        UserInputError: If the target exists, or the config has no such teacher or augments on the device.
    """

    def __init__(self, cfg: Config, target: str | Path, num_views: int, view_seed: int = 0,
                 token_fraction: float | None = None) -> None:
        self.target = Path(target)
        refuse_existing(self.target)
        if token_fraction is not None:
            check_fraction(token_fraction)
        model = cfg.get('model') or {}
        kind = MODELS.get(str(model.get('type')))
        generator = dict(model.get('target_generator') or {})
        distils = kind is not None and issubclass(kind, (RelationDistiller, MultiStudent))
        if not distils or kind_of(generator) != 'MAETeacher':
            raise UserInputError(f'The config trains a {model.get("type")} with the teacher {generator.get("type")}; '
                                 f'give one of a MIMHD, a TinyMIM or a MultiStudent with a MAETeacher.')
        if token_fraction is None:
            same = generator.get('token_fraction', 'same') == 'same'
            token_fraction = model.get('token_fraction', 1.0) if same else 1.0
        self.token_fraction = token_fraction
        self.teacher: MAETeacher = MODELS.build(dict(generator, token_fraction='same'))
        self.preprocess = build_preprocessor(cfg)
        preprocessor = described(self.preprocess)
        dataset = plain_dataset(cfg)
        self.views = FixedViews(dataset, num_views, view_seed)
        self.num_workers: int = cfg.train_dataloader.get('num_workers', 0)

        rows, columns = self.teacher.patch_resolution
        self.num_patches = rows * columns
        self.num_seen = None if token_fraction == 1 else count_seen(self.num_patches, token_fraction)
        arch = self.teacher.arch
        self.shape = (len(self.views), num_views, 3, self.teacher.relation_heads,
                      1 + (self.num_seen or self.num_patches), arch['embed_dims'] // self.teacher.relation_heads)
        file = self.teacher.load()
        settings = CacheSettings(
            teacher=file.path, sha256=file.sha256, arch=arch, img_size=self.teacher.img_size,
            patch_size=self.teacher.patch_size, block=self.teacher.block, dtype=generator.get('dtype'),
            token_fraction=token_fraction, num_views=num_views, view_seed=view_seed, dataset=comparable(dataset),
            preprocessor=preprocessor, pixels=hash_of_pixels(self.views))
        self.header, self.num_bytes = header_of(settings, self.shape, self.num_seen)

    def check_space(self) -> None:
        """Check that the disk has enough space.

        Raises:
            UserInputError: If it has not.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.target.parent).free
        if self.num_bytes > free:
            raise UserInputError(f'{str(self.target)!r} takes {self.num_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB '
                                 f'are free; make room, or ask for fewer views, images (`indices` of the data set) or '
                                 f'tokens.')

    def write(self, batch_size: int = 64,
              progress: Callable[[Iterable, int], Iterable] = lambda items, total: items) -> None:
        """Run the teacher and write; the file appears under its name when it is complete.

        Args:
            batch_size (int): Images a pass. Defaults to 64.
            progress (callable): From an iterable of batches and its length to the same iterable, to show progress.

        Raises:
            UserInputError: If there is no room, or images are of another size than the teacher's. Nothing is left.
        """
        self.check_space()
        temporary = self.target.with_name(f'.{self.target.name}.{os.getpid()}')
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.teacher.to(device)
        self.preprocess.to(device)
        loader = DataLoader(ViewsInOrder(self.views), batch_size, num_workers=self.num_workers,
                            collate_fn=default_collate)
        seen = []
        try:
            with open(temporary, 'xb') as file:
                file.write(self.header)
                for batch in progress(loader, len(loader)):
                    qkv, chosen = self.ask(batch)  # (B, 3, M1, 1 + n, d1), (B, n)
                    file.write(qkv.cpu().contiguous().view(torch.int16).numpy().astype('<i2').tobytes())
                    seen.append(chosen)
                if self.num_seen is not None:
                    file.write(torch.cat(seen).short().numpy().astype('<i2').tobytes())
                file.flush()
                os.fsync(file.fileno())
            refuse_existing(self.target)
            os.replace(temporary, self.target)
        finally:
            temporary.unlink(missing_ok=True)

    @torch.no_grad()
    def ask(self, batch: dict) -> tuple[Tensor, Tensor | None]:
        """Run the teacher on a batch; return its q, k, v and the numbers of the patches that it saw.

        Args:
            batch (dict): ``inputs`` and ``data_samples``.

        Returns:
            tuple: q, k and v, (B, 3, M1, 1 + n, d1) bfloat16; (B, n), or None for all.

        Raises:
            UserInputError: If the images are of another size than the teacher's.
        """
        _, images = student_and_teacher_views(self.preprocess(batch)['inputs'])  # (B, 3, H, W)
        grid = tuple(side // self.teacher.patch_size for side in images.shape[-2:])
        wanted = self.teacher.patch_resolution
        if grid != wanted:
            raise UserInputError(f'The pipeline gives images of {grid[0]} x {grid[1]} patches, and the teacher takes '
                                 f'{wanted[0]} x {wanted[1]}; set model.target_generator.img_size to the size that the '
                                 f'pipeline gives.')
        seen = None
        if self.num_seen is not None:
            seen = torch.cat([self.choose(sample.sample_index, sample.view)
                              for sample in batch['data_samples']])  # (B, n)
        qkv = self.teacher(images, None if seen is None else seen.to(images.device))  # each (B, M1, 1 + n, d1)
        return torch.stack(qkv, dim=1).to(torch.bfloat16), seen

    def choose(self, index: int, view: int) -> Tensor:
        """Draw the patches of a view, (1, n), from the seed of the views."""
        with seeded_cpu(mixed_seed(self.views.view_seed, index, view, 1)):
            return draw_seen(1, self.num_patches, self.token_fraction)

    def options(self, cfg: Config) -> str:
        """The ``--cfg-options`` of ``tools/train.py`` that train ``cfg`` with the file."""
        options = ['model.target_generator.type=CachedTeacher', f'model.target_generator.cache={self.target}']
        if self.token_fraction != cfg.model.get('token_fraction', 1.0) and self.token_fraction != 1:
            options.append(f'model.token_fraction={self.token_fraction}')
        wanted = 'same' if self.token_fraction != 1 or cfg.model.get('token_fraction', 1.0) == 1 else 1.0
        if cfg.model.target_generator.get('token_fraction', 'same') != wanted:
            options.append(f'model.target_generator.token_fraction={wanted}')
        return ' '.join(options)
