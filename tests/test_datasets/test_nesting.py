"""Datasets inside wrappers are found with the keys that they stand under."""
from mmengine.config import Config

from mimhd_mm.datasets.nesting import datasets_of, innermost_datasets


def test_innermost_datasets_and_their_keys():
    a, b = dict(type='A', data_root='a'), dict(type='B', data_root='b')
    assert list(innermost_datasets('x', None)) == [] and list(innermost_datasets('x', a)) == [('x', a)]
    nested = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[a, dict(dataset=b)]))
    assert list(innermost_datasets('x', nested)) == [('x.dataset.datasets.0', a), ('x.dataset.datasets.1.dataset', b)]


def test_keys_lead_back_to_the_dataset():
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(type='FixedViews', dataset=dict(type='A'))), val_dataloader=None,
        test_dataloader=dict(dataset=dict(type='B')),
        default_hooks=dict(off=None, knn=dict(type='KNNProbeHook', train=dict(type='C'), test=dict(type='D')))))
    found = dict(datasets_of(cfg))
    assert list(found) == ['train_dataloader.dataset.dataset', 'test_dataloader.dataset', 'default_hooks.knn.train',
                           'default_hooks.knn.test']
    for key, dataset in found.items():
        part = cfg
        for name in key.split('.'):
            part = part[name]
        assert part is dataset
    assert list(dict(datasets_of(cfg, ['train_dataloader'])))[0] == 'train_dataloader.dataset.dataset'
