"""The HTML report in a headless Chromium: drawn without a network, moved by the keyboard, light and dark, narrow."""
import shutil

import numpy as np
import pytest
from PIL import Image

from .test_report import PAYLOAD, call, probe, training, write_picture, write_start, write_weights

pytest.importorskip('plotly', reason='reports need plotly: pip install -r requirements/report.txt')
playwright = pytest.importorskip('playwright.sync_api', reason='needs a browser driver: pip install playwright')
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason='no Chromium is installed, e.g. apt-get install chromium')
ITERATIONS = [1, 20, 40, 60]


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """A report of two runs with hostile names, and the readings of the first."""
    folder = tmp_path_factory.mktemp('reports')
    for name in ('a', 'b'):
        data = write_start(folder / name, [probe(0), *training(range(10, 70, 10)), probe(2, 8.5)],
                           dict(model=dict(type='MIMHD', note=name + PAYLOAD)))
        readings = write_weights(data, ITERATIONS if name == 'a' else [1, 50])
        if name == 'a':
            expected = readings
        for iteration, colour in ((30, 'red'), (60, 'blue')):
            write_picture(data / 'vis_image' / f'attention_{iteration}.png', colour)
    call('report.py', folder / 'a', folder / 'b', '--names', f'a{PAYLOAD}', f'b{PAYLOAD}', '-o', folder / 'report.html')
    return folder / 'report.html', expected


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])  # tests may run as root
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, report):
    """Opens the report offline; at the end nothing may have been fetched, logged, or have popped up."""
    contexts, noise = [], []

    def open_page(scheme: str = 'light', width: int = 1280):
        context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: noise.append(message.text))
        page.on('pageerror', lambda error: noise.append(str(error)))
        page.on('dialog', lambda dialog: (noise.append(dialog.message), dialog.dismiss()))
        page.on('request', lambda request: request.url.startswith(('data:', 'blob:', 'file:'))
                or noise.append(request.url))
        page.goto(report[0].as_uri())
        until(page, "document.querySelectorAll('.drawing:not(:has(.main-svg))').length", 0)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert noise == []


def until(page, expression: str, value) -> None:
    """Wait for a value; the page's policy forbids what playwright's own waiting evaluates."""
    for _ in range(200):
        if page.evaluate(expression) == value:
            return
        page.wait_for_timeout(50)
    assert page.evaluate(expression) == value


def drawn(page, name: str) -> list:
    """The numbers that plotly has drawn."""
    return page.evaluate('name => document.getElementById(name).data[0].z', name)


def weights(readings: list, iteration: int, pair: str = 'qk') -> list:
    return next(reading['W'] for reading in readings if (reading['iter'], reading['pair']) == (iteration, pair))


def test_the_slider_moves_by_keyboard(open_page, report):
    page = open_page()
    slider = page.locator('#iteration')
    assert drawn(page, 'weights-0-qk') == weights(report[1], 60)
    picture = page.locator('#weights-0-qk').screenshot()
    page.get_by_label('Iteration', exact=True).first.focus()
    page.keyboard.press('ArrowLeft')  # of the iterations of both runs, 1 20 40 50 60
    page.keyboard.press('ArrowLeft')
    assert slider.get_attribute('aria-valuetext') == 'iteration 40'
    assert page.locator('#iteration-shown').inner_text() == '40'
    assert drawn(page, 'weights-0-qk') == weights(report[1], 40)
    assert drawn(page, 'weights-0-vv') == weights(report[1], 40, 'vv')
    assert drawn(page, 'weights-1-qk') == weights(report[1], 1)  # the second run's last reading by then
    assert page.locator('.reading[data-map="weights-1-qk"]').first.inner_text() == 'iteration 1'
    assert page.locator('#weights-0-qk').screenshot() != picture
    table = page.locator('table.weights[data-map="weights-0-qk"] td').all_text_contents()
    assert [float(text) for text in table] == [weight for row in weights(report[1], 40) for weight in row]
    line = "document.getElementById('history-0-qk').layout.shapes[0].x0"
    assert page.evaluate(line) == 40
    page.keyboard.press('Home')
    assert drawn(page, 'weights-0-qk') == weights(report[1], 1) and page.evaluate(line) == 1


def test_play(open_page, report):
    page = open_page()
    page.locator('#play').focus()
    page.keyboard.press('Enter')
    assert page.locator('#play').inner_text() == 'Stop'
    until(page, "document.getElementById('play').textContent", 'Play')  # at the end
    assert drawn(page, 'weights-0-qk') == weights(report[1], 60)


def test_pictures_and_runs_are_chosen_by_keyboard(open_page):
    page = open_page()
    page.locator('#attention-0-0').focus()
    page.keyboard.press('ArrowLeft')
    shown = page.locator('#attention article[data-run="0"] .picture:visible')
    assert shown.count() == 1 and shown.get_attribute('data-iteration') == '30'
    assert page.locator('#attention-0-0').get_attribute('aria-valuetext') == 'iteration 30'
    page.locator('.show-run').nth(1).focus()
    page.keyboard.press('Space')
    assert page.evaluate("document.getElementById('curve-loss').data.map(trace => trace.visible !== false)") == [
        True, False]
    assert not page.locator('#attention article[data-run="1"]').is_visible()
    assert page.locator('#attention article[data-run="0"]').is_visible()


def test_every_control_is_reached_by_tabs(open_page):
    page = open_page()
    reached = []
    for _ in range(60):
        page.keyboard.press('Tab')
        reached.append(page.evaluate('document.activeElement.id || document.activeElement.className || '
                                     'document.activeElement.tagName'))
    assert reached[0] == 'skip'
    assert {'iteration', 'play', 'attention-0-0', 'attention-1-0', 'show-run', 'SUMMARY'} <= set(reached)


def test_light_and_dark(open_page, tmp_path):
    brightness, lines = {}, {}
    for scheme in ('light', 'dark'):
        page = open_page(scheme)
        page.screenshot(path=tmp_path / f'{scheme}.png')
        brightness[scheme] = np.asarray(Image.open(tmp_path / f'{scheme}.png').convert('L')).mean()
        lines[scheme] = page.evaluate("document.getElementById('curve-loss').data[0].line.color")
    assert brightness['light'] > 200 and brightness['dark'] < 60
    page.emulate_media(color_scheme='light')  # while the page is open
    until(page, "document.getElementById('curve-loss').data[0].line.color", lines['light'])
    assert lines['light'] != lines['dark']


def test_a_narrow_screen_does_not_scroll_sideways(open_page):
    page = open_page(width=360)
    assert page.evaluate('document.documentElement.scrollWidth') == 360


def test_what_was_printed_did_not_run(open_page):
    page = open_page()
    assert page.evaluate("document.querySelectorAll('script').length") == 3
    assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    assert PAYLOAD in page.locator('#settings table').inner_text()
    page.locator('#curve-loss').hover()  # shows a run's name
    assert page.evaluate("document.querySelectorAll('.drawing img').length") == 0
