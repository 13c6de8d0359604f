"""The HTML report: of a real tiny run with its hooks, and of run folders in mmengine's format that the tests write."""
import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mimhd_mm.visualization.report import curve_figures, figures, routing_figures
from mimhd_mm.visualization.report.config_diff import differences
from mimhd_mm.visualization.report.runs import read_run

from ..conftest import mimhd_cfg
from .commands import call, error_of

pytest.importorskip('plotly', reason='reports need plotly: pip install -r requirements/report.txt')
ROOT = Path(__file__).parents[2]
SECTIONS = ['runs', 'curves', 'routing', 'attention', 'reconstructions', 'downstream', 'settings', 'environment']
PAYLOAD = '</script><script>alert("payload")</script><img src=x onerror=alert(1)>'
VOID = {'meta', 'link', 'img', 'input', 'br', 'hr', 'line'}


class Page(HTMLParser):
    """A page as a list of elements: tag, attributes and the text in it; and of cells: their table and text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements, self.open, self.cells = [], [], []
        self.feed(file.read_text(encoding='utf-8'))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        opened = self.open.pop()
        if tag in ('th', 'td'):
            table = next(element for element in reversed(self.open) if element[0] == 'table')
            self.cells.append((table[1], ''.join(opened[2])))
        assert opened[0] == tag, f'</{tag}> ends <{opened[0]} {opened[1]}>'

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag: str, **attributes) -> list:
        """(attributes, text) of the elements of a tag that have the given attributes; ``class_`` names one class."""
        wanted = {key.rstrip('_').replace('_', '-'): value for key, value in attributes.items()}
        return [(attrs, ''.join(text)) for name, attrs, text in self.elements if name == tag and all(
            value in (attrs.get(key) or '').split() if key == 'class' else attrs.get(key) == value
            for key, value in wanted.items())]

    def cells_of(self, kind: str) -> list:
        """The texts of the cells of the tables of a class, headings too."""
        return [text for table, text in self.cells if kind in table.get('class', '').split()]

    @property
    def text(self) -> str:
        """All that is read, without scripts and styles."""
        return re.sub(r'\s+', ' ', self.all('body')[0][1].split('{"figures"')[0])

    @property
    def data(self) -> dict:
        """What the script draws."""
        return json.loads(self.all('script', id='report-data')[0][1])

    def figure(self, name: str) -> dict:
        return self.data['figures'][name]


def write_start(folder: Path, lines: list, config: dict = None, stamp: str = '20260101_120000', log: str = '') -> Path:
    """A time-stamped folder as mmengine leaves it."""
    data = folder / stamp / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    Config(config or dict(model=dict(type='MIMHD'), train_cfg=dict(max_epochs=2))).dump(data / 'config.py')
    (folder / stamp / f'{stamp}.log').write_text(
        '2026/01/01 12:00:00 - mmengine - INFO - \n' + '-' * 20 + '\nSystem environment:\n    sys.platform: linux\n'
        '    PyTorch: 2.9.9\n\nRuntime environment:\n    seed: 7\n' + '-' * 20 + '\n\n'
        f'2026/01/01 12:00:01 - mmengine - INFO - Config:\n    number: 1\n{log}'
        '2026/01/01 13:30:00 - mmengine - INFO - Saving checkpoint at 2 epochs\n')
    return data


def training(steps, offset: float = 0., **others) -> list:
    return [dict(lr=1e-3, base_lr=1e-3, loss=1 / step + offset, loss_qk=0.5 / step, time=0.1, epoch=1, iter=step,
                 step=step, **others) for step in steps]


def probe(epoch: int, student=None, untrained=6.5, teacher=10.5) -> dict:
    line = {'knn/untrained': untrained, 'knn/teacher': teacher, 'step': epoch}
    return line if student is None else {**line, 'knn/student': student}


def write_weights(data: Path, iterations, pairs=('qk', 'vv'), students: int = 2, teachers: int = 4, **more) -> list:
    """Readings of HeadRoutingHook in which all attention moves on by one teacher head a reading."""
    lines = []
    for number, iteration in enumerate(iterations):
        for shift, pair in enumerate(pairs):
            weights = [[0.7 if head == (student + number + shift) % teachers else 0.1 for head in range(teachers)]
                       for student in range(students)]
            lines.append(dict(iter=iteration, epoch=1, pair=pair, W=weights, entropy=0.8, coverage=1., spread=0.1,
                              **more))
    (data / 'head_weights.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return lines


def write_picture(file: Path, colour='red') -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (60, 20), colour).save(file)


def write_run(folder: Path) -> Path:
    """A whole run with everything that a report shows."""
    data = write_start(folder, [probe(0), *training(range(10, 60, 10)), probe(2, 8.5)])
    write_weights(data, [1, 20, 50])
    for name in ('attention', 'reconstruction'):
        for iteration in (25, 50):
            write_picture(data / 'vis_image' / f'{name}_{iteration}.png')
    return folder


def report(tmp_path, *arguments) -> Page:
    call('report.py', *arguments, '-o', tmp_path / 'report.html', '--overwrite')
    return Page(tmp_path / 'report.html')


def check_page(page: Page) -> None:
    """What holds of every report."""
    assert [attrs['id'] for attrs, _ in page.all('section')] == SECTIONS
    assert {'#' + section for section in SECTIONS} < {attrs['href'] for attrs, _ in page.all('a')}
    ids = [attrs['id'] for _, attrs, _ in page.elements if 'id' in attrs]
    assert len(ids) == len(set(ids))
    # nothing is fetched, and nothing runs but the two scripts whose hashes the policy names
    for tag, attrs, _ in page.elements:
        for key, value in attrs.items():
            assert not key.startswith('on'), (tag, attrs)
            if key in ('src', 'href', 'srcset', 'action', 'data', 'poster'):
                assert value.startswith(('data:', '#')), (tag, attrs)
    assert 'url(' not in page.all('style')[0][1] and '@import' not in page.all('style')[0][1]
    policy = page.all('meta', http_equiv='Content-Security-Policy')[0][0]['content']
    scripts = [text for attrs, text in page.all('script') if attrs.get('type') != 'application/json']
    hashes = ["'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" for text in scripts]
    assert len(hashes) == 2 and f'script-src {" ".join(hashes)}' in policy and "default-src 'none'" in policy
    assert len(page.all('script')) == 3
    # pictures and drawings have words, headings no gaps, tables headings, sliders labels
    assert all(len(attrs['alt']) > 20 for attrs, _ in page.all('img'))
    drawings = page.all('div', class_='drawing')
    assert {attrs['id'] for attrs, _ in drawings} == set(page.data['figures'])
    assert all(attrs['role'] == 'img' and len(attrs['aria-label']) > 20 for attrs, _ in drawings)
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    assert all(attrs.get('scope') in ('row', 'col') for attrs, _ in page.all('th'))
    labelled = {attrs.get('for') for attrs, _ in page.all('label')}
    assert all(attrs['id'] in labelled for attrs, _ in page.all('input', type='range'))
    assert all(attrs.get('tabindex') == '0' and attrs['aria-label'] for attrs, _ in page.all('div', class_='wide'))


@pytest.fixture(scope='module')
def real_run(tmp_path_factory, teacher_file, image_folder):
    """Two epochs of a tiny MIM-HD with the hooks that draw; iterations 1 to 4."""
    folder = tmp_path_factory.mktemp('real')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    loader = dict(batch_size=16, num_workers=0, dataset=dict(
        type='CustomDataset', data_root=str(image_folder), pipeline=pipeline),
        sampler=dict(type='DefaultSampler', shuffle=True))
    Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mimhd_mm']), model=mimhd_cfg(teacher_file),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
        train_dataloader=loader, optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        train_cfg=dict(by_epoch=True, max_epochs=2), randomness=dict(seed=0),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           head_weight=dict(type='HeadWeightHook', interval=1),
                           head_routing=dict(type='HeadRoutingHook', interval=1),
                           attention=dict(type='AttentionHook', interval=1, num=2),
                           reconstruction=dict(type='ReconstructionHook', interval=1, num=2)),
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )).dump(folder / 'tiny.py')
    call('train.py', folder / 'tiny.py', '--work-dir', folder / 'run')
    return folder / 'run'


@pytest.mark.slow
def test_a_real_run(tmp_path, real_run):
    page = report(tmp_path, real_run)
    check_page(page)
    logged = [json.loads(line) for line in next(real_run.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    trace, = page.figure('curve-loss')['data']
    assert trace['x'] == [line['step'] for line in logged if 'loss' in line] == [1, 2, 3, 4]
    assert trace['y'] == [line['loss'] for line in logged if 'loss' in line]
    for key in ('loss_qk', 'loss_vv', 'loss_rec', 'lr', 'head_entropy_qk', 'head_coverage_vv', 'head_spread_qk'):
        assert page.figure(f'curve-{key}')['data'][0]['y'] == [line[key] for line in logged if key in line]

    file = next(real_run.glob('*/vis_data/head_weights.json'))
    readings = [json.loads(line) for line in file.read_text().splitlines()]
    assert page.data['iterations'] == sorted({reading['iter'] for reading in readings})
    for item, pair in zip(page.data['routing'], ('qk', 'vv')):
        assert item['map'] == f'weights-0-{pair}'
        own = [reading['W'] for reading in readings if reading['pair'] == pair]
        assert [reading['weights'] for reading in item['readings']] == own
        assert page.figure(item['map'])['data'][0]['z'] == own[-1]

    images = page.all('img')
    assert len(images) == len(list(real_run.glob('*/vis_data/vis_image/[ar]*n_*.png'))) >= 4
    assert [attrs['alt'].split(' of ')[0] for attrs, _ in images][::len(images) - 1] == ['Attention', 'Reconstructions']
    for attrs, _ in images:
        assert base64.b64decode(attrs['src'].partition('base64,')[2])[8:12] == b'WEBP'
    assert 'epoch_2.pth' in page.text and 'max_epochs = 2' in page.text  # the checkpoint was read


def test_distinct_rows_and_blur_are_shown_where_a_run_has_them(tmp_path):
    more = {f'head_{name}_{pair}': value for pair in ('qk', 'vv')
            for name, value in (('distinct', 2), ('blur', 0.25), ('spread', 0.1), ('entropy', 0.8))}
    new = write_start(tmp_path / 'new', training(range(10, 60, 10), **more))
    lines = write_weights(new, [1, 20], distinct=2, blur=0.125)
    del lines[0]['blur']  # resumed with another version
    lines[2]['blur'] = float('nan')
    (new / 'head_weights.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    page = report(tmp_path, tmp_path / 'new')
    check_page(page)
    titles = [text for _, text in page.all('th', scope='row') if text.startswith('Head ') and text.endswith('Q-K')]
    assert titles == [f'Head {name}, Q-K' for name in ('entropy', 'spread', 'distinct', 'blur')]
    assert page.figure('curve-head_blur_qk')['data'][0]['y'] == [0.25] * 5
    assert page.figure('curve-head_blur_qk')['layout']['yaxis']['range'] == [-0.04, 1.04]
    assert 'Head distinct, Q-K' in page.text and 'learn what another learns' in page.text
    assert 'no student can remove' in page.text
    tables = page.all('table', class_='figures')
    assert len(tables) == 2 and all(name in tables[0][1] for name in ('distinct', 'blur', 'spread'))
    assert tables[0][1].count('–') == 2 and tables[1][1].count('–') == 0 and tables[1][1].count('0.125') == 2


def test_a_run_without_them_is_shown_as_it_is(tmp_path):
    page = report(tmp_path, write_run(tmp_path / 'run'))
    table = page.all('table', class_='figures')[0][1]
    assert 'entropy' in table and 'distinct' not in table and 'blur' not in table and table.count('0.8') == 3
    assert 'head_blur' not in page.text


def test_the_drawn_readings_of_a_run(tmp_path):
    page = report(tmp_path, write_run(tmp_path / 'run'))
    check_page(page)
    assert page.data['iterations'] == [1, 20, 50]
    slider, = page.all('input', id='iteration')
    assert (slider[0]['min'], slider[0]['max'], slider[0]['value']) == ('0', '2', '2')
    rows = re.findall(r'\d\.\d{3}', page.all('table', class_='weights', data_map='weights-0-qk')[0][1])
    assert [float(number) for number in rows] == [0.1, 0.1, 0.7, 0.1, 0.1, 0.1, 0.1, 0.7]  # moved on twice
    history = page.figure('history-0-qk')['data'][0]
    lines = dict(zip(history['y'], history['z']))
    assert lines['student head 2, teacher head 3'] == [0.1, 0.7, 0.1]
    assert len(lines) == 2 * 4 + 1  # with a gap
    assert page.text.count('changed for 2 of 2') == 0  # that is in the drawing's words
    assert 'changed for 2 of 2 student heads' in page.all('div', id='history-0-qk')[0][0]['aria-label']
    shown = [attrs for attrs, _ in page.all('figure', class_='picture') if 'hidden' not in attrs]
    assert [attrs['data-iteration'] for attrs in shown] == ['50', '50']
    assert '1.50 h' in page.text and '2.9.9' in page.text and 'seed' in page.text


def test_knn_between_its_levels(tmp_path):
    page = report(tmp_path, write_run(tmp_path / 'run'))
    student, untrained, teacher = page.figure('curve-knn_2f_student')['data']
    assert (student['x'], student['y']) == ([0, 2], [6.5, 8.5])  # begins as the untrained one
    assert (untrained['name'], untrained['y']) == ('untrained', [6.5, 6.5])
    assert (teacher['name'], teacher['y']) == ('teacher', [10.5, 10.5])
    assert '8.50 % k-NN top-1, 50 % of the way from untrained to teacher' in page.text
    assert page.figure('curve-loss')['layout']['xaxis']['title']['text'] == 'iteration'
    assert page.figure('curve-knn_2f_student')['layout']['xaxis']['title']['text'] == 'epoch'
    assert 'curve-knn_2f_teacher' not in page.data['figures']


def test_a_run_without_hooks_says_so(tmp_path):
    write_start(tmp_path / 'run', training([10, 20]))
    page = report(tmp_path, tmp_path / 'run')
    check_page(page)
    assert 'This run kept no head weights; the hook HeadRoutingHook in its config does.' in page.text
    assert 'No attention was drawn' in page.text and 'No reconstruction was drawn' in page.text
    assert 'No downstream numbers were given' in page.text and 'no k-NN number was logged' in page.text
    assert not page.all('input', type='range')


def test_a_resumed_run_is_joined(tmp_path):
    """The first start went on past its last checkpoint (30); all it logged beyond the point of return is dropped."""
    resumed = dict(model=dict(type='MIMHD'), resume=True)
    data = write_start(tmp_path / 'run', [probe(0), *training([10, 20, 30, 35, 40]), probe(1, 7.)])
    write_weights(data, [10, 20, 30, 40])
    write_picture(data / 'vis_image' / 'attention_40.png')
    data = write_start(tmp_path / 'run', [probe(1), *training([30, 40, 50], offset=5.), probe(2, 8.)], resumed,
                       '20260102_120000')
    write_weights(data, [30, 45])
    write_picture(data / 'vis_image' / 'attention_45.png')
    page = report(tmp_path, tmp_path / 'run')
    trace, = page.figure('curve-loss')['data']
    assert trace['x'] == [10, 20, 30, 40, 50]
    assert trace['y'] == [1 / 10, 1 / 20, 1 / 30 + 5, 1 / 40 + 5, 1 / 50 + 5]
    assert page.figure('curve-knn_2f_student')['data'][0]['x'] == [0, 1, 2]
    assert page.data['iterations'] == [10, 20, 30, 45]
    assert len(page.all('img')) == 2
    assert 'resumed 1 time' in page.text and '3.00 h' in page.text


def test_a_new_start_in_the_same_folder_ends_the_old_one(tmp_path):
    write_start(tmp_path / 'run', training(range(10, 100, 10)))
    write_start(tmp_path / 'run', training([10, 20], offset=5.), dict(model=dict(type='MAE')), '20260102_120000')
    page = report(tmp_path, tmp_path / 'run')
    assert page.figure('curve-loss')['data'][0]['x'] == [10, 20]
    assert '1 earlier start in the same folder, not resumed by this one, left out' in page.text


def test_three_runs(tmp_path):
    for number, (name, width) in enumerate([('a', 192), ('b', 384), ('c', 192)]):
        config = dict(model=dict(type='MIMHD', backbone=dict(type='RelationViT', width=width), neck=None),
                      work_dir=name, train_pipeline=[dict(type='Load'), dict(type='Crop', scale=0.2 + number)])
        data = write_start(tmp_path / name, [probe(0, untrained=5. + number), *training([10, 20], offset=number),
                                             probe(1, 8., untrained=5. + number)], config)
        if name != 'c':
            write_weights(data, [10, 20 + number])
    page = report(tmp_path, *(tmp_path / name for name in 'abc'), '--names', 'narrow', 'wide', 'cropped')
    check_page(page)
    traces = page.figure('curve-loss')['data']
    assert [trace['name'] for trace in traces] == ['narrow', 'wide', 'cropped']
    assert [trace['y'][1] for trace in traces] == [0.05, 1.05, 2.05]
    assert len({trace['line']['dash'] for trace in traces}) == 3  # not by colour alone
    knn = page.figure('curve-knn_2f_student')
    assert [note['text'] for note in knn['layout']['annotations']] == ['teacher 10.5']  # the same for all, unlike:
    assert [trace['meta']['run'] for trace in knn['data'] if trace['name'] == 'untrained'] == [0, 1, 2]
    assert page.data['iterations'] == [10, 20, 21]
    assert [item['map'] for item in page.data['routing']] == ['weights-0-qk', 'weights-0-vv', 'weights-1-qk',
                                                              'weights-1-vv']
    assert 'Without head weights: cropped.' in page.text
    assert page.cells_of('settings') == [
        'setting', 'narrow', 'wide', 'cropped', 'model.backbone.width', '192', '384', '192',
        'train_pipeline.1.scale', '0.2', '1.2', '2.2']
    assert len(page.all('input', class_='show-run')) == 3


def test_names_tell_folders_apart(tmp_path):
    for name in ('x/run', 'y/run'):
        write_start(tmp_path / name, training([10]))
    assert [trace['name'] for trace in report(tmp_path, tmp_path / 'x/run', tmp_path / 'y/run'
                                              ).figure('curve-loss')['data']] == ['x/run', 'y/run']


def test_folder_of_a_table(tmp_path):
    """run_table's work dir: all its runs, under what tells their long names apart, and its table."""
    common = 'mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px'
    for row in ('rec_weight=0-s0', 'criterion=L2-s0'):
        write_start(tmp_path / 'tables' / 'runs' / f'{common}-{row}' / 'pretrain', training([10]))
    folder = tmp_path / 'tables' / 'runs' / f'{common}-rec_weight=0-s0'
    (folder / 'pretrain.json').write_text(json.dumps(dict(environment=dict(commit='0123abc + changes'))))
    metric = dict(mean=32.123456, std=0.5, n=2)
    rows = [dict(number=1, name='TinyMIM', status='run', metrics=dict(knn=metric, segmentation=None), paper={}),
            dict(number=2, name='MIM-HD', status='failed', metrics=dict(knn=None), paper={})]
    (tmp_path / 'tables' / 'table3-mini.json').write_text(json.dumps(dict(
        table='table3', title='Table 3', mini=True, shorten=0.2, rows=rows, about=dict(commit='abc'))))
    page = report(tmp_path, tmp_path / 'tables')
    check_page(page)
    assert [trace['name'] for trace in page.figure('curve-loss')['data']] == ['criterion=L2', 'rec-weight=0']
    assert '0123abc + changes' in page.text
    assert page.cells_of('downstream') == ['row', 'k-NN', 'TinyMIM', '32.12 ± 0.50 (n=2) *', 'MIM-HD', 'failed']
    assert str(tmp_path / 'tables' / 'table3-mini.json') in page.text
    assert page.all('data', value='32.123456')
    assert 'PAPER' not in page.text


def write_evaluation(folder: Path, student: str = 'mimhd-epoch_5') -> dict:
    rows = [dict(student=student, knn=10.92, linear=12.34000015258789, finetune=None, segmentation=28.62,
                 file='runs/epoch_5.pth', sha256='b5ba'),
            dict(student='untrained', knn=7.48, linear=8.42, finetune=None, segmentation=21.55, file=None, sha256=None)]
    results = [dict(student=row['student'], task=task, score=row[task], shorten=0.3)
               for row in rows for task in ('knn', 'linear', 'segmentation')]
    folder.mkdir(exist_ok=True)
    content = dict(rows=rows, about=dict(command='`python tools/evaluate_student.py x`', seed='0'), results=results)
    (folder / 'table.json').write_text(json.dumps(content))
    return content


def test_downstream_numbers_are_those_of_the_file(tmp_path):
    write_start(tmp_path / 'run', training([10]))
    content = write_evaluation(tmp_path / 'evaluation')
    page = report(tmp_path, tmp_path / 'run', '--tables', tmp_path / 'evaluation')
    check_page(page)
    values = [float(attrs['value']) for attrs, _ in page.all('data')][1:]  # after that of the run's card
    assert values == [row[task] for row in content['rows'] for task in ('knn', 'linear', 'segmentation')]
    assert [text for _, text in page.all('data')][1:] == ['10.92', '12.34 *', '28.62 *', '7.48', '8.42 *', '21.55 *']
    headings = [text for attrs, text in page.all('th', scope='col')]
    assert ['student', 'k-NN', 'linear', 'mIoU', 'file'] == headings[
        headings.index('student'):headings.index('student') + 5]
    assert 'random weights' in page.text and 'python tools/evaluate_student.py x' in page.text


def test_nothing_that_is_printed_runs(tmp_path):
    """Names, settings, log lines, table cells and file names are text."""
    name = PAYLOAD.replace('/', '∕')  # a folder's name holds no slash
    config = {'model': dict(type=PAYLOAD), 'a': PAYLOAD, 'train_cfg': dict(max_epochs=PAYLOAD)}
    warning = f'2026/01/01 12:00:02 - mmengine - WARNING - careful {PAYLOAD}\n'
    folders = []
    for number in range(2):
        folder = tmp_path / f'{number}{name}'
        data = write_start(folder, training([10, 20], **{f'loss_{PAYLOAD}': 1.}), dict(config, a=f'{number}{PAYLOAD}'),
                           log=warning + f'    {PAYLOAD}: {PAYLOAD}\n')
        (folder / f'{number}{name}.py').write_text('')
        write_weights(data, [10], pairs=(PAYLOAD, ))
        write_picture(data / 'vis_image' / f'attention-{name}_10.png')
        (data / 'vis_image' / f'reconstruction-{name}_10.png').write_text('no picture')
        folders.append(folder)
    write_evaluation(tmp_path / 'evaluation', student=PAYLOAD)
    page = report(tmp_path, *folders, '--tables', tmp_path / 'evaluation', '--names', f'1{PAYLOAD}', f'2{PAYLOAD}')
    check_page(page)
    assert all('x' != attrs.get('src') for attrs, _ in page.all('img'))
    assert f'careful {PAYLOAD}' in page.text and f'1{PAYLOAD}' in page.text  # still to be read
    assert page.text.count('alert("payload")') > 15
    # plotly reads some tags in names
    names = [trace['name'] for figure in page.data['figures'].values() for trace in figure['data'] if 'name' in trace]
    assert names and not any('<' in name for name in names)


def test_numbers_that_are_not_finite(tmp_path):
    lines = training([10, 20, 30])
    lines[1]['loss'], lines[2]['loss_qk'] = float('nan'), float('inf')
    data = write_start(tmp_path / 'run', lines)
    write_weights(data, [10, 20], pairs=('qk', ))
    file = data / 'head_weights.json'
    file.write_text(file.read_text().replace('0.7', 'NaN', 1) + '{"iter": 30, "pair": "qk", "W": [[0.1')
    with open(data / 'scalars.json', 'a') as scalars:
        scalars.write('{"loss": 0.1, "iter": 40, "st')  # the process was killed
    page = report(tmp_path, tmp_path / 'run')
    check_page(page)
    assert page.figure('curve-loss')['data'][0]['y'] == [0.1, None, 1 / 30]
    assert page.data['routing'][0]['readings'][0]['weights'][0][0] is None
    assert page.data['iterations'] == [10, 20]


@pytest.mark.slow
def test_long_runs_are_thinned_out(tmp_path):
    last = curve_figures.MAX_POINTS + 500
    data = write_start(tmp_path / 'run', training(range(1, last + 1)))
    write_weights(data, range(1, 301), pairs=('qk', ))
    for number in range(1, 21):
        write_picture(data / 'vis_image' / f'attention_{number}.png')
    page = report(tmp_path, tmp_path / 'run', '--max-pictures', 3)
    steps = page.figure('curve-loss')['data'][0]['x']
    assert len(steps) == curve_figures.MAX_POINTS and (steps[0], steps[-1]) == (1, last)
    assert len(page.data['iterations']) == routing_figures.MAX_READINGS and page.data['iterations'][-1] == 300
    assert '100 between them are in the run' in page.text
    assert [attrs['data-iteration'] for attrs, _ in page.all('figure', class_='picture')] in (['1', '10', '20'],
                                                                                             ['1', '11', '20'])
    assert '17 more pictures' in page.text


def test_one_picture_is_the_last(tmp_path):
    data = write_start(tmp_path / 'run', training([10]))
    for number in range(1, 21):
        write_picture(data / 'vis_image' / f'attention_{number}.png')
    page = report(tmp_path, tmp_path / 'run', '--max-pictures', 1)
    assert [attrs['alt'].split('.')[0] for attrs, _ in page.all('img')] == ['Attention of run at iteration 20']


def test_damaged_pictures_and_those_of_tools(tmp_path):
    data = write_start(tmp_path / 'run', training([10]))
    write_picture(data / 'vis_image' / 'attention_10.png')
    (data / 'vis_image' / 'attention_20.png').write_bytes(
        (data / 'vis_image' / 'attention_10.png').read_bytes()[:40])
    write_picture(data / 'vis_image' / 'head_routing_10.png')
    write_picture(tmp_path / 'run' / 'reconstruction.png')
    page = report(tmp_path, tmp_path / 'run')
    check_page(page)
    assert 'kept no head weights' not in page.text  # there is a picture of them
    assert 'No PNG that can be decoded: attention_20.png.' in page.text
    assert [attrs['alt'].split('.')[0] for attrs, _ in page.all('img')] == [
        'Head weights of run at iteration 10', 'Attention of run at iteration 10', 'Reconstructions of run']


def test_validation_counts_as_the_logger_does(tmp_path):
    lines = [*training([10, 20]), {'mIoU': 20.5, 'time': 1., 'data_time': 0.1, 'step': 20}]
    for by_epoch, axis in ((True, 'epoch'), (False, 'iteration')):
        folder = tmp_path / axis
        write_start(folder, lines, dict(default_hooks=dict(logger=dict(log_metric_by_epoch=by_epoch))))
        run = read_run(folder, 'run')
        assert run.curves['mIoU'].axis == axis and run.curves['mIoU'].points == {20: 20.5}
        assert run.curves['time'].points == {10: 0.1, 20: 0.1}  # of training only


def test_a_single_run_is_compared_with_the_config_of_its_name(tmp_path):
    path = 'configs/pretrain/mini/mae_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px.py'
    config = Config.fromfile(ROOT / path)
    config.model.backbone.mask_ratio = 0.123
    write_start(tmp_path / 'run', training([10]), config.to_dict())
    page = report(tmp_path, tmp_path / 'run')
    assert f'differs from {path}, the config that differs least.' in page.text
    assert page.cells_of('settings') == ['setting', path, 'run', 'model.backbone.mask_ratio', '0.75', '0.123']
    shutil.copy(ROOT / path, tmp_path / 'run')
    assert f'differs from {path}, the config of the same name.' in report(tmp_path, tmp_path / 'run').text


def test_differences():
    def rows(*configs):
        return dict(differences([Config(config) for config in configs]))

    assert rows(dict(a=1, b=dict(c=[1, 2])), dict(a=1, b=dict(c=(1, 2)))) == {}
    assert rows(dict(a=dict(b=1, c=2)), dict(a=dict(b=1, c=3))) == {'a.c': ['2', '3']}
    assert rows(dict(a=dict(b=1)), dict(x=1)) == {'a': ["{'b': 1}", '–'], 'x': ['–', '1']}
    assert rows(dict(a=dict(b=1)), dict(a=dict(b=2)), {}) == {'a.b': ['1', '2', '–']}
    assert rows(dict(a=None), {}) == {'a': ['None', '–']}
    assert rows(dict(a=dict(b=1)), dict(a=3)) == {'a': ["{'b': 1}", '3']}
    steps = dict(p=[dict(type='A', work_dir='x'), dict(type='B')]), dict(p=[dict(type='A'), dict(type='C')])
    assert rows(*steps) == {'p.1.type': ["'B'", "'C'"]}
    long = dict(type='Neck', **{f'setting_{number}': number for number in range(9)})
    assert rows(dict(n=long), {}) == {'n': ['Neck, with 9 settings', '–']}


def test_a_config_that_cannot_be_read_costs_only_the_comparison(tmp_path):
    data = write_start(tmp_path / 'run', training([10]))
    (data / 'config.py').write_text('not a config')
    page = report(tmp_path, tmp_path / 'run')
    check_page(page)
    assert 'There is nothing to compare: the config cannot be read.' in page.text


def test_wrong_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_start(tmp_path / 'run', training([10]))
    write_start(tmp_path / 'silent', [])
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    write_evaluation(tmp_path / 'evaluation')
    assert "No folder 'nothing'" in error_of('report.py', 'nothing')
    assert "No folder 'file'" in error_of('report.py', 'file')
    assert "'empty' holds no run" in error_of('report.py', 'run', 'empty')
    assert "'silent' holds no run" in error_of('report.py', 'silent')
    assert 'give its work dir' in error_of('report.py', 'run/20260101_120000')
    assert 'give its work dir' in error_of('report.py', 'run/20260101_120000/vis_data')
    assert 'is given twice' in error_of('report.py', 'run', './run')
    assert 'tables but no run' in error_of('report.py', 'evaluation')
    assert '--names needs 1 different names' in error_of('report.py', 'run', '--names', 'a', 'b')
    assert "--tables 'file' is no table" in error_of('report.py', 'run', '--tables', 'file')
    assert "--tables 'gone' is no table" in error_of('report.py', 'run', '--tables', 'gone')
    assert '--max-pictures is 1 or more, not 0' in error_of('report.py', 'run', '--max-pictures', 0)
    assert "'gone' is no folder" in error_of('report.py', 'run', '-o', 'gone/report.html')
    assert "'empty' exists already" in error_of('report.py', 'run', '-o', 'empty', '--overwrite')
    assert not list(tmp_path.glob('*.html'))
    monkeypatch.setattr(figures, 'go', None)
    assert 'requirements/report.txt' in error_of('report.py', 'run')


def test_an_existing_file_is_left_as_it_is(tmp_path):
    write_start(tmp_path / 'run', training([10]))
    (tmp_path / 'report.html').write_text('mine')
    message = error_of('report.py', tmp_path / 'run', '-o', tmp_path / 'report.html')
    assert 'exists already' in message and '--overwrite' in message
    assert (tmp_path / 'report.html').read_text() == 'mine'
    report(tmp_path, tmp_path / 'run')
    assert not list(tmp_path.glob('*.tmp'))
