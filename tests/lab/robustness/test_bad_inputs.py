"""lab/robustness/bad_inputs.py: all it tries is harmless, and it says so where something is not."""
import copy
import json

import pytest

from lab.robustness import bad_images, hostile_files
from lab.robustness.trials import harmless, markdown

from ...test_tools.commands import error_of, load_tool

TOOL = 'lab.robustness.bad_inputs'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp('bad') / 'out'
    assert load_tool(TOOL).main(['--out', str(out)]) == 0
    assert 'bad_inputs.md' in error_of(TOOL, '--out', out)
    return dict(json.loads((out / 'bad_inputs.json').read_text()), text=(out / 'bad_inputs.md').read_text())


def test_everything_is_decoded_replaced_or_refused(result):
    kinds = bad_images.kinds()
    for row in result['images']:
        assert row['got'] == ('decoded' if kinds[row['input']].size else 'replaced') and row['reason']
    assert len(result['images']) >= 30
    assert {row['input'] for row in result['files']} == set(hostile_files.kinds())
    assert all(row['got'] == 'refused' and row['payload'] in ('none', 'not executed') for row in result['files'])
    assert sum(row['payload'] == 'not executed' for row in result['files']) >= 7
    assert 0 < result['epoch']['replaced'] < result['epoch']['loaded'] == result['epoch']['samples']


def test_table(result):
    lines = result['text'].splitlines()
    assert sum(line.startswith('| ') for line in lines) == len(result['images']) + len(result['files']) + 4
    assert {line.count('|') - line.count(r'\|') for line in lines if line.startswith('|')} == {4, 5}
    assert '/tmp' not in result['text'] and '0 payloads executed' in result['text']


@pytest.mark.parametrize('part, change', [
    ('epoch', dict(loaded=1)), ('files', dict(got='taken by student')), ('files', dict(payload='EXECUTED'))])
def test_harm_is_noticed(result, part, change):
    assert harmless(result)
    harmed = copy.deepcopy(result)
    (harmed[part] if part == 'epoch' else harmed[part][0]).update(change)
    assert not harmless(harmed)
    assert markdown(harmed) != markdown(result)
