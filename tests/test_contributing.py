"""What CONTRIBUTING.md shows works."""
import re
from pathlib import Path

import pytest
import torch

from mimhd_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'CONTRIBUTING.md').read_text()
EXAMPLE, CONFIG = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)


@pytest.fixture
def matcher():
    """The name of the example's class, registered; taken out again, here and in mmpretrain's registry."""
    exec(EXAMPLE, {})
    name = re.search(r'class (\w+)', EXAMPLE)[1]
    yield name
    for registry in (MODELS, MODELS.mirror):
        registry._module_dict.pop(name)


def test_the_matcher_of_the_example_trains(matcher, build_mimhd):
    values: dict = {}
    exec(CONFIG, values)
    settings = dict(values['model']['head']['matcher'])
    assert settings.pop('_delete_') is True and settings == dict(type=matcher)
    model = build_mimhd(head=dict(matcher=settings))
    losses = model(torch.randn(2, 3, 32, 32), mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0
    distance = torch.tensor([[[3., 1., 2., 4.], [0., 1., 2., 3.], [9., 8., 7., 6.]]])  # (1, M2, M1)
    weight = MODELS.build(dict(settings, student_heads=3, teacher_heads=4)).match(None, None, distance)
    assert weight.tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]]


def test_files_that_are_named_are_there():
    names = re.findall(r'`((?:configs|lab|mimhd_mm|tests|tools|\.ci)/[\w./-]+)`', TEXT)
    assert len(names) > 12
    assert not [name for name in names if not (ROOT / name).exists() and 'NAME' not in name]
