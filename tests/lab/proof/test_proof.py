"""A dump of the same code has no difference; a difference of a config, a loss or a weight is named."""
import copy
import json

import torch

from lab.proof import __main__ as proof

CONFIGS = {'a.py': dict(sha256='1', content=dict(model=dict(type='A', sizes=[1, 2])))}
DUMP = dict(torch='2', configs=CONFIGS, runs=dict(mimhd=dict(losses=[dict(loss='0x1p+0')], weights=dict(w='ab'))))


def compare(tmp_path, one, other) -> int:
    for name, content in (('a', one), ('b', other)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    return proof.main(['compare', str(tmp_path / 'a.json'), str(tmp_path / 'b.json')])


def test_equal_dumps(tmp_path, capsys):
    assert compare(tmp_path, DUMP, DUMP) == 0
    assert capsys.readouterr().out == 'Nothing changed: 1 configs, and losses and weights of 1 runs.\n'


def test_every_difference_is_named(tmp_path, capsys):
    other = copy.deepcopy(DUMP)
    other['configs']['a.py'] = dict(sha256='2', content=dict(model=dict(type='B', sizes=[1, 3], new=None)))
    other['configs']['b.py'] = dict(sha256='3', content={})
    other['runs']['mimhd']['losses'][0]['loss'] = '0x1p+1'
    other['runs']['mimhd']['weights'] = dict(w='cd')
    assert compare(tmp_path, DUMP, other) == 1
    assert capsys.readouterr().out.splitlines() == [
        'configs > a.py > content > model > new: (absent) -> null',
        'configs > a.py > content > model > sizes[1]: 2 -> 3',
        'configs > a.py > content > model > type: "A" -> "B"',
        'configs > b.py: (absent) -> {"sha256": "3", "content": {}}',
        'runs > mimhd > losses[0] > loss: "0x1p+0" -> "0x1p+1"',
        'runs > mimhd > weights > w: "ab" -> "cd"']


def test_configs_are_resolved(tmp_path):
    (tmp_path / '_base_').mkdir()
    (tmp_path / '_base_' / 'base.py').write_text('a = dict(b=1, c=(2, 3))\n')
    (tmp_path / 'child.py').write_text("_base_ = './_base_/base.py'\na = dict(b=4)  # a comment\n")
    first = proof.dump_configs(tmp_path)
    assert first['child.py']['content'] == dict(a=dict(b=4, c=[2, 3])) and list(first) == ['child.py']
    (tmp_path / 'child.py').write_text("_base_ = ['./_base_/base.py']\na = dict(b=4)\n")
    assert proof.dump_configs(tmp_path) == first


def test_runs_repeat_and_notice_a_change(tmp_path):
    """The same run twice ends in the same bits; another learning rate changes weights and not the first loss."""
    proof.write_data(tmp_path)
    settings = proof.run_settings(tmp_path, 'tinymim', proof.pretrain_models(tmp_path)['tinymim'])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = []
    for number, rate in enumerate((1e-3, 1e-3, 2e-3)):
        changed = copy.deepcopy(dict(settings, experiment_name=f'{settings["experiment_name"]}-{number}'))
        changed['optim_wrapper']['optimizer']['lr'] = rate
        results.append(proof.run(changed)[1])
    torch.set_num_threads(threads)
    first, again, other = results
    assert first == again and len(first['losses']) == proof.STEPS
    assert first['losses'][0] == other['losses'][0] and first['losses'][-1] != other['losses'][-1]
    assert first['weights'] != other['weights']
