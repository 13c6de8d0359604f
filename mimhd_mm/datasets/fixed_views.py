"""``FixedViews``: a fixed set of augmented views of every image."""

import numpy as np
from torch.utils.data import Dataset

from ..errors import UserInputError
from ..registry import DATASETS
from .seeded_samples import WrappedDataset, mixed_seed, seeded_cpu


@DATASETS.register_module()
class FixedViews(WrappedDataset):
    """K views of every image; the random numbers of the pipeline are seeded by the view.

    With ``ResumableRunner`` every epoch uses the next view, so that K epochs use all K. The first view of each image
    depends on the seed of the run. With a runner that passes no epoch, views are drawn at random.

    All random numbers drawn on the CPU are fixed, also those of ``StudentColorJitter``. The ``data_samples`` made by
    ``PackInputs`` hold ``sample_index`` and ``view``, both counted from 0.

    Args:
        dataset (dict | Dataset): A data set of mmpretrain's kind.
        num_views (int): K.
        view_seed (int): Of the views. Defaults to 0.

    Raises:
        UserInputError: If ``num_views`` is not positive, or the pipeline does not end in ``PackInputs``.
    """

    def __init__(self, dataset: dict | Dataset, num_views: int, view_seed: int = 0) -> None:
        if num_views < 1:
            raise UserInputError(f'num_views is 1 or more views of each image, not {num_views!r}.')
        super().__init__(dataset)
        self.num_views = num_views
        self.view_seed = view_seed

    def view(self, index: int, view: int) -> dict:
        """A view of an image, both counted from 0; random states do not change."""
        with seeded_cpu(mixed_seed(self.view_seed, index, view)):
            sample = self.dataset[index]
        if not hasattr(sample.get('data_samples'), 'set_metainfo'):
            raise UserInputError('FixedViews marks the data_samples of its samples; end the pipeline with PackInputs.')
        sample['data_samples'].set_metainfo(dict(sample_index=int(index), view=int(view)))
        return sample

    def of_epoch(self, index: int, epoch: int, seed: int) -> dict:
        """The view of an epoch, from 0, in a run with this seed."""
        return self.view(index, (mixed_seed(seed, index) + epoch) % self.num_views)

    def __getitem__(self, index: int) -> dict:
        """One of the views, drawn from numpy's random state."""
        return self.view(index, np.random.randint(self.num_views))
