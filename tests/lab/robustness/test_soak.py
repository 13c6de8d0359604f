"""lab/robustness/soak.py: real processes, killed and corrupted; and what it finds where a run does differ."""
import pytest
from mmengine.config import Config

from lab.robustness.soak_config import tiny_config
from lab.robustness.soak_runs import KINDS, Fault, Round, Soak, differences, markdown, memory_growth, merge

from ...test_tools.commands import error_of


@pytest.mark.slow
def test_an_interrupted_run_ends_alike(tmp_path):
    """Real processes, one of them told to stop in the middle of an epoch."""
    cfg = tiny_config(tmp_path)
    cfg.merge_from_dict({'train_cfg.max_epochs': 2, 'param_scheduler': []})
    cfg.default_hooks.pop('knn_probe')
    soak = Soak(cfg, tmp_path)
    soak.undisturbed()
    result = disturbed(soak, ['terminate'])
    assert [fault.kind for fault in result.faults] == ['terminate'] and result.identical, result.different
    assert soak.report()['iterations'] == 20


def disturbed(soak: Soak, kinds: list) -> Round:
    """A run with at least one of the faults: a process may end before its moment comes."""
    return next(one for one in (soak.disturbed(kinds) for _ in range(9)) if one.faults)


def report_of(rounds: list) -> dict:
    """As of a soak that was run."""
    soak = Soak(Config(), None)
    soak.losses, soak.memory, soak.seconds = {0: {}, 1: {}}, [2**20] * 8, 1.
    soak.rounds = rounds
    return soak.report()


def test_a_report_in_words():
    faults = [Fault('kill', 'training', 3), Fault('flip', 'training', 5)]
    report = report_of([Round(faults, 3, True), Round(faults[:1], 2, False, ['state_dict.a'])])
    assert report['kills'] == 2 and report['corruptions'] == 1 and report['identical'] == 1
    assert report['faults']['kill'] == dict(tried=2, identical=1)
    text = markdown(report)
    assert f'| {KINDS["kill"]} | 2 | 1 |' in text and '2 runs of 2 iterations, 1 of them' in text
    assert KINDS['terminate'] not in text
    twice = merge([report, report])
    assert twice['faults']['flip'] == dict(tried=2, identical=2) and len(twice['details']) == 4


def test_growth_is_found():
    flat = memory_growth([100 * 2**20] * 100)
    assert flat['growth_mib'] == 0 and memory_growth([])['iterations'] == 0
    rising = memory_growth([step * 2**20 for step in range(100)])
    assert rising['growth_mib'] == 50 and rising['growth_kib_an_iteration'] == 1024
    assert differences(dict(a=1, b=2), dict(a=1, b=3, c=4)) == ['b', 'c']


def test_wrong_input(tmp_path):
    assert '--kills' in error_of('lab.robustness.soak', '--kills', -1)
    assert 'nothing.py' in error_of('lab.robustness.soak', '--config', 'nothing.py', '--work-dir', tmp_path)
