"""The evidence page: parts of data sets by links, what is kept of runs, how scores are read, what is written."""
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from lab.tables import evidence_page
from lab.tables.evidence_page import compare, keep, read_protocol, read_results, write_page
from lab.tables.evidence_plot import draw_entropy, draw_scores, entropy_points
from lab.tables.plan import TableOptions
from lab.tables.report import summary
from lab.tables.rows import read_tables
from mimhd_mm.datasets import TinyImageNet
from mimhd_mm.datasets.image_part import link_part
from mimhd_mm.errors import UserInputError

from ...test_tools.commands import error_of

TABLES = read_tables(evidence_page.protocol_file())


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
    """Six classes of seven training and two validation images."""
    root = tmp_path_factory.mktemp('classes')
    for split, number in (('train', 7), ('val', 2)):
        for label in 'abcdef':
            (root / split / label / 'images').mkdir(parents=True)
            for i in range(number):
                Image.new('RGB', (4, 4), (i, i, i)).save(root / split / label / 'images' / f'{label}_{i}.png')
    return root


def test_a_part_is_evenly_spaced_links(classes, tmp_path):
    made = link_part(classes, tmp_path / 'part', classes=3, per_class=3)
    assert made == dict(classes=3, train=9, val=6)
    files = sorted(path.relative_to(tmp_path / 'part').as_posix() for path in (tmp_path / 'part').rglob('*.png'))
    assert files == [f'train/{label}/images/{label}_{i}.png' for label in 'ace' for i in (0, 2, 4)] + \
        [f'val/{label}/images/{label}_{i}.png' for label in 'ace' for i in (0, 1)]
    link = tmp_path / 'part' / files[0]
    assert link.is_symlink() and link.read_bytes() == (classes / files[0]).read_bytes()
    assert len(TinyImageNet(str(tmp_path / 'part'), pipeline=[])) == 9
    assert link_part(classes, tmp_path / 'all') == dict(classes=6, train=42, val=12)


@pytest.mark.parametrize('arguments, named', [
    (['--classes', 7], '6 classes'), (['--per-class', 8], '7 images'), (['--classes', 0], '1 to 6')])
def test_a_part_that_is_not_there(classes, tmp_path, arguments, named):
    assert named in error_of('dataset_converters/take_part.py', classes, tmp_path / 'part', *arguments)
    assert not (tmp_path / 'part').exists()


def test_a_part_overwrites_nothing(classes, tmp_path):
    assert 'there already' in error_of('dataset_converters/take_part.py', classes, tmp_path)
    assert 'train/<class>' in error_of('dataset_converters/take_part.py', tmp_path, tmp_path / 'new')
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize('first, second, reading', [
    ([10, 12], [8, 8], 'better'), ([10, 12], [9, 11], 'equal within s'), ([8, 8], [10, 12], 'worse'),
    ([10], [1, 1], 'undecided'), ([], [1, 1], 'undecided')])
def test_how_two_scores_are_read(first, second, reading):
    """Of 10 and 12 the deviation is 1.41: 11 is better than 8, and as good as 10."""
    assert compare(summary(first), summary(second)).startswith(reading)


def test_the_protocol_names_rows_that_can_be_planned():
    assert set(read_protocol()) == set(TABLES)
    for name, table in TABLES.items():
        settings = read_protocol()[name]
        assert settings['seeds'] >= 1 and set(settings['tasks']) <= set(evidence_page.COLUMNS)
        assert all(set(row.sources) == {'mini'} for row in table.rows)
    claims = [row.name for row in TABLES['claims'].rows]
    assert claims[0] == 'MIM-HD, E' and 'TinyMIM, 3E' in claims and 'untrained' in claims


@pytest.fixture
def kept(tmp_path):
    """What `keep` makes of a table with two seeds, and of one with one."""
    log = [dict(loss=2, loss_qk=0.5, lr=1, epoch=1, step=10), dict(loss=1, loss_qk=0.25, epoch=1, step=20),
           dict(loss=1, loss_qk=0.125, epoch=2, step=40), {'knn/student': 9.5, 'step': 2}]
    folders = (tmp_path / f'run-{number}' for number in range(5))

    def run(seed, scores, hours):
        folder = next(folders)
        file = folder / 'pretrain' / '20260101_000000' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(map(json.dumps, log)))
        return dict(seed=seed, scores=scores, logged=dict(head_entropy_qk=.5), seconds=hours * 3600, resumed=seed > 5,
                    folder=str(folder), checkpoint='somewhere')

    about = dict(settings='mini', device='a machine', versions='torch 0', commit='abc', command='never shown')
    for name, scores in (('claims', [[(10, 30), (12, 31)], [(8, 33), (8, 34)]]), ('alpha', [[(7, None)]])):
        rows = [dict(name=row.name, runs=[
            run(seed, {'knn': knn, **({} if mIoU is None else {'segmentation': mIoU})}, .5)
            for seed, (knn, mIoU) in enumerate(pairs)]) for row, pairs in zip(TABLES[name].rows, scores)]
        (tmp_path / f'{name}-mini.json').write_text(json.dumps(dict(title=TABLES[name].title, about=about, rows=rows)))
        keep(TABLES[name], TableOptions(mini=True, work_dir=str(tmp_path)), tmp_path / 'kept')
    return tmp_path / 'kept'


def test_what_is_kept_holds_no_paths(kept, tmp_path):
    text = (kept / 'claims.json').read_text()
    assert str(tmp_path) not in text and 'never shown' not in text
    run = json.loads(text)['rows'][0]['runs'][1]
    assert run['scores'] == {'knn': 12, 'segmentation': 31} and run['hours'] == .5 and run['seed'] == 1
    assert run['curves'] == dict(epoch=[1, 2], loss_qk=[.25, .125])


def test_the_page_says_what_the_files_say(kept, tmp_path):
    page = tmp_path / 'evidence.md'
    page.write_text(f'before\n{evidence_page.BEGIN}\nold\n{evidence_page.END}\nafter\n')
    write_page(page, kept)
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith(f'{evidence_page.END}\nafter\n') and 'old' not in text
    assert '| MIM-HD, E | 11.00 ± 1.41 (n=2) | 30.50 ± 0.71 (n=2) | 0.500 |' in text
    assert '| TinyMIM, E | better | worse |' in text  # 11 against 8, 30.5 against 33.5
    for name in set(read_protocol()) - {'claims', 'alpha'}:
        assert f'### {TABLES[name].title}\n\nNot run.' in text
    assert 'all runs: 2.5.' in text
    write_page(page, kept)
    assert page.read_text() == text
    draw_scores(read_results(kept), tmp_path / 'scores.png')
    draw_entropy(read_results(kept), tmp_path / 'entropy.png')
    for name in ('scores', 'entropy'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            assert min(picture.size) > 200


def test_points_of_the_entropy_are_the_runs():
    runs = [dict(logged=dict(head_entropy_qk=.2, head_entropy_vv=.4), scores=dict(knn=9.)),
            dict(logged=dict(head_entropy_qk=1., head_entropy_vv=1.), scores=dict(knn=7.)),
            dict(logged=dict(head_entropy_qk=1., head_entropy_vv=1.), scores={}), dict(logged={}, scores=dict(knn=8.))]
    points = entropy_points(dict(rows=[dict(runs=runs[:1]), dict(runs=runs[1:])]))
    assert [value for point in points for value in point] == pytest.approx([.3, 9., 1., 7.])


def test_shared_runs_count_once(kept):
    results = read_results(kept)
    results['parts'] = results['claims']
    assert evidence_page.distinct_hours(results) == evidence_page.distinct_hours(read_results(kept))


def test_a_page_without_marks_or_results(kept, tmp_path):
    (tmp_path / 'page.md').write_text('nothing')
    with pytest.raises(UserInputError, match='lacks the lines'):
        write_page(tmp_path / 'page.md', kept)
    (tmp_path / 'page.md').write_text(evidence_page.BEGIN + evidence_page.END)
    with pytest.raises(UserInputError, match='No results'):
        write_page(tmp_path / 'page.md', tmp_path)
    assert 'paris' in error_of('lab.tables.evidence', 'run', 'paris', '--pretrain-root', tmp_path, '--teacher', 'x')


def test_the_page_in_the_repository_is_up_to_date(tmp_path):
    """What stands in docs/evidence.md is what its files give."""
    docs = Path(__file__).parents[3] / 'docs'
    if not read_results(docs / 'evidence'):
        pytest.skip('nothing has been kept yet')
    page = tmp_path / 'evidence.md'
    page.write_text((docs / 'evidence.md').read_text())
    write_page(page, docs / 'evidence')
    assert page.read_text() == (docs / 'evidence.md').read_text()
