"""The performance page: measurements are run and kept, the page is made of what is kept and of nothing else."""
import json
import re
import shutil

import pytest
import torch
from PIL import Image

from lab.speed import performance_page, relation_forms, report, stepping
from lab.speed.goals import GOALS, table_rows
from lab.speed.performance_page import read_list, read_results, run_list, write_page
from mimhd_mm.measuring import record

from ...test_tools.commands import ROOT, call, error_of, load_tool

TOOL = 'lab.speed.performance'
CPU = torch.device('cpu')
TINY = stepping.Options('micro', ('mimhd', 'tinymim', 'mimhd-half', 'literal', 'mimhd-bf16'), CPU, 'float32',
                        batch_size=2, repeats=3, warmup=0, max_bytes=1e9, img_size=32)
PAGE = 'Before.\n\n{}\nAfter.\n'


def page_of(names) -> str:
    return PAGE.format(''.join(f'<!-- begin: {name} -->\nold\n<!-- end: {name} -->\n\nText.\n' for name in names))


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A list of one's own, its folders and its page."""
    entries = {
        'small': 'step_time --device cpu --size micro --img-size 32 --batch-size 2 --repeats 1 --warmup 0 '
                 '--variants tinymim --sweep batch --values 1 2',
        'wrong': 'relation_loss --heads 12', 'loader': 'dataloader CONFIG --cfg-options root=IMAGES',
        'gpu-small': 'step_time --device cuda'}
    (tmp_path / 'performance.yml').write_text(json.dumps(entries))
    monkeypatch.setattr(performance_page, 'list_file', lambda: tmp_path / 'performance.yml')
    (tmp_path / 'page.md').write_text(page_of(['goals', *entries]))
    return entries, tmp_path / 'page.md', tmp_path / 'results', tmp_path / 'pictures'


def keep(folder, name, rows, **figures):
    """A measurement as the tools keep it."""
    folder.mkdir(exist_ok=True)
    facts = dict(command=f'python {name}', commit='abc')
    report.publish(rows, facts, ['a note'], str(folder / f'{name}.json'), **figures)


def test_page_of_the_repository_is_what_the_tool_makes_of_what_is_kept(tmp_path):
    """Nothing on it is typed by hand; if this fails, call ``python -m lab.speed.performance write``."""
    docs = ROOT / 'docs'
    for name in ('performance', 'pictures'):
        shutil.copytree(docs / name, tmp_path / name) if (docs / name).is_dir() else (tmp_path / name).mkdir()
    shutil.copy(docs / 'performance.md', tmp_path)
    write_page(tmp_path / 'performance.md', tmp_path / 'performance', tmp_path / 'pictures')
    assert (tmp_path / 'performance.md').read_text() == (docs / 'performance.md').read_text()


def test_commands_of_the_list_are_understood(tmp_path):
    """Every script is there and knows its arguments; goals are read from measurements of the list."""
    entries = read_list()
    for text in entries.values():
        script, *arguments = text.replace('--device cuda', '--device cpu').split()
        tool = load_tool(f'lab.speed.{script}')
        plot = ['--plot', str(tmp_path / 'plot.png')] if '--sweep' in arguments else []
        args = tool.parse_args(plot + arguments)
        if script == 'step_time':
            tool.check(args)
        if script == 'relation_loss':
            assert [tool.read_heads(heads) for heads in args.heads][:2] == [(3, 16), (6, 16)]
        assert all((ROOT / word).is_file() for word in arguments if word.endswith('.py'))
    assert {goal.name for goal in GOALS} <= set(entries)


@pytest.mark.slow
def test_run_keeps_what_a_measurement_leaves(listed, capfd):
    entries, page, results, pictures = listed
    failures = run_list([], results, pictures)
    printed = capfd.readouterr()
    assert set(failures) == {'wrong'} and 'ended with status 1' in failures['wrong']
    assert 'error: --heads are given as M2xM1' in printed.err
    assert 'loader: left out, it needs --images.' in printed.out
    if not torch.cuda.is_available():
        assert 'gpu-small: left out, it needs a GPU' in printed.out
    assert [path.name for path in results.iterdir()] == ['small.json']
    assert [path.name for path in pictures.iterdir()] == ['step_time_small.png']
    assert Image.open(pictures / 'step_time_small.png').size == (900, 600)
    figures = json.loads((results / 'small.json').read_text())
    assert figures['about']['command'] == f'python -m lab.speed.{entries["small"]}'  # no folder of this machine
    assert str(results.parent) not in (results / 'small.json').read_text()
    assert '\n'.join(figures['table']) in printed.out
    assert (results / 'small.json').stat().st_size < 6000

    write_page(page, results, pictures)
    text = page.read_text()
    assert '\n'.join(figures['table']) in text and '(pictures/step_time_small.png)' in text
    assert f'- commit: {figures["about"]["commit"]}' in text and f'- {figures["notes"][-1]}' in text
    assert 'Not run: `python -m lab.speed.step_time --device cuda`' in text
    assert text.startswith('Before.\n') and text.endswith('After.\n') and text.count('Text.') == 5 and 'old' not in text
    write_page(page, results, pictures)
    assert page.read_text() == text

    del entries['wrong'], entries['gpu-small']
    performance_page.list_file().write_text(json.dumps(entries))
    assert run_list([], results, pictures) == {}
    assert 'small: is kept already; --again replaces it.' in capfd.readouterr().out


def test_folders_and_files_take_their_places(tmp_path):
    places = {'IMAGES': str(tmp_path / 'TEACHER'), 'TEACHER': str(tmp_path / 'a b.pth')}
    assert performance_page.words_of('loader.py --cfg-options root=IMAGES file=TEACHER', places) == [
        'loader.py', '--cfg-options', f'root={tmp_path}/TEACHER', f'file={tmp_path}/a b.pth']


@pytest.mark.slow
def test_goals_are_read_from_what_the_benchmarks_keep(tmp_path, capsys):
    """From real figures of tiny steps, as they come back from the file."""
    results, _ = stepping.measure(TINY)
    keep(tmp_path, 'base', stepping.table_rows(results, False), results=results)
    students, _ = stepping.measure(TINY._replace(students='micro'))
    keep(tmp_path, 'students', stepping.table_rows(students, False), results=students)
    relations, _ = relation_forms.measure([196], [(12, 16)], 8, CPU, repeats=1, max_bytes=2e9)
    keep(tmp_path, 'relations', relation_forms.table_rows(relations), results=relations)
    keep(tmp_path, 'hooks', [dict(hook='A')], training_seconds=200., hooks=[
        dict(name='A', seconds=1., calls=2, kind='draws'), dict(name='B', seconds=2., calls=2, kind='probes'),
        dict(name='C', seconds=4., calls=2, kind='')])
    rows = {row['goal']: row for row in table_rows(read_results(tmp_path))}
    by_name = {one['variant']: one for one in results}

    def measured(goal):
        return float(rows[goal]['measured'])

    def total(variant):
        return [sum(one.values()) for one in by_name[variant]['rounds']]

    count = by_name['mimhd']['flops'] / by_name['tinymim']['flops']
    time = sorted(a / b for a, b in zip(total('mimhd'), total('tinymim')))[1]
    assert measured("ViT-B: FLOPs of MIM-HD over TinyMIM's") == pytest.approx(count, rel=1e-3)
    assert measured("ViT-B: time of MIM-HD over TinyMIM's") == pytest.approx(time, rel=1e-3)
    assert measured('ViT-B: the same, above the ratio of FLOPs') == pytest.approx(time - count, rel=1e-2, abs=2e-3)
    assert measured('ViT-B: time of a literal MIM-HD over ours') == pytest.approx(
        by_name['literal']['ratio']['median'], rel=1e-3)
    assert measured('three students from one teacher: time over that of three runs') == pytest.approx(
        next(one for one in students if one['variant'] == 'together')['ratio']['median'], rel=1e-3)
    row, = relation_forms.table_rows(relations)
    assert measured('distances of heads: how many times faster than broadcast') == pytest.approx(
        row['times faster'], rel=1e-3)
    memory = rows['distances of heads: memory over that of broadcast']
    assert float(memory['measured']) == pytest.approx(1 / row['times less'], rel=1e-3) and memory['reached'] == 'yes'
    assert rows['hooks that draw: share of the training'] == {
        'goal': 'hooks that draw: share of the training', 'asked': 'at most 0.01', 'measured': '0.005',
        'reached': 'yes', 'in': '`hooks`'}
    assert rows['hooks that draw or probe: share of the training']['measured'] == '0.015'
    assert rows['hooks that draw or probe: share of the training']['reached'] == 'no'
    assert rows["ViT-S: FLOPs of MIM-HD over TinyMIM's"]['reached'] == '–'
    assert len(rows) == len(GOALS)


def test_bounds():
    lower, upper = (next(goal for goal in GOALS if goal.at_least is kind) for kind in (True, False))
    assert [lower.reached(lower.bound + x) for x in (-0.001, 0, 0.001)] == [False, True, True]
    assert [upper.reached(upper.bound + x) for x in (-0.001, 0, 0.001)] == [True, True, False]


def test_kept_files_are_small_and_say_the_same(tmp_path):
    content = dict(a=[1.23456789, 2, None], b=dict(c='x [1,\n  {2]', d=[dict(e=1e-9 / 3), dict(e=float(2 ** 40))]))
    record.write_json(str(tmp_path / 'x.json'), content)
    text = (tmp_path / 'x.json').read_text()
    assert json.loads(text) == dict(
        a=[1.23457, 2, None], b=dict(c='x [1,\n  {2]', d=[dict(e=3.33333e-10), dict(e=1.09951e12)]))
    assert re.search(r'^ *"a": \[ 1\.23457, 2, null \],$', text, re.M)


def test_refusals(listed, tmp_path):
    entries, page, results, pictures = listed
    where = ('--results', results, '--pictures', pictures)
    assert error_of(TOOL, *where, 'run', 'other') == (
        "error: The list has small, wrong, loader, gpu-small, not 'other'.")
    keep(results, 'small', [dict(a=1)])
    assert 'is there already; give --again to replace it.' in error_of(TOOL, *where, 'run', 'small')
    assert 'Nothing to do; give --list, run or write.' in error_of(TOOL)
    assert 'No page' in error_of(TOOL, *where, 'write', '--page', tmp_path / 'none.md')
    whole = page.read_text()
    for text, name, end in ((page_of(entries), 'goals', 'once.'), (whole + whole, 'goals', 'once.'),
                            (whole.replace('<!-- end: wrong -->', ''), 'wrong', 'once.'),
                            (page_of(['goals', *entries, 'more']), 'more', "performance.yml has no 'more'.")):
        page.write_text(text)
        message = error_of(TOOL, *where, 'write', '--page', page)
        assert f'<!-- begin: {name} -->' in message and message.endswith(end) and page.read_text() == text
    page.write_text(whole)
    for content in ('{"table": []}', 'no JSON', '[]', '3'):
        (results / 'small.json').write_text(content)
        assert 'remove it and measure again' in error_of(TOOL, *where, 'write', '--page', page)


def test_the_list_is_printed(capsys):
    call(TOOL, '--list')
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(': ')[0] for line in printed] == list(read_list())
    assert all(': python -m lab.speed.' in line for line in printed)
