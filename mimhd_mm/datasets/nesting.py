"""The datasets that a config names, without what is wrapped around them."""
from collections.abc import Iterator, Sequence

from mmengine.config import Config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def innermost_datasets(key: str, dataset: dict | None) -> Iterator[tuple[str, dict]]:
    """The datasets inside RepeatDataset, ConcatDataset and their kin, with their config keys.

    Args:
        key (str): Of ``dataset`` in its config.
        dataset (dict, optional): Config of a dataset; of what is no dict there are none.
    """
    if not isinstance(dataset, dict):
        return
    for name in ('dataset', 'datasets'):
        if name in dataset:
            inner = dataset[name] if isinstance(dataset[name], (list, tuple)) else [dataset[name]]
            for index, one in enumerate(inner):
                yield from innermost_datasets(f'{key}.{name}' + (f'.{index}' if len(inner) > 1 else ''), one)
            return
    yield key, dataset


def datasets_of(cfg: Config, loaders: Sequence[str] = LOADERS) -> Iterator[tuple[str, dict]]:
    """The innermost datasets of a config's loaders, then those of its k-NN probes, with their config keys."""
    for loader in loaders:
        yield from innermost_datasets(f'{loader}.dataset', (cfg.get(loader) or {}).get('dataset'))
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook and str(hook.get('type')).endswith('KNNProbeHook'):
            for part in ('train', 'test'):
                yield f'default_hooks.{name}.{part}', hook[part]
