"""The demo page: what models answer, the page's own steps, and the whole of it in Debian's browser."""

import json
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch
from mmcv.video import VideoReader
from run_helpers import DENSE, ROOT, TINY, free_port, saved, tool_env

from mmstvit import inference_model
from mmstvit.cli.demo import main
from mmstvit.datasets import digit_scans
from mmstvit.datasets.clips import CLASSES as MOTIONS
from mmstvit.demo import models as demo_models
from mmstvit.demo.models import DemoModel, trained_models
from mmstvit.demo.page import Offer, Page, cost_table
from mmstvit.demo.samples import samples_for
from mmstvit.errors import UsageError
from mmstvit.measure.complexity import count

DIGITS = tuple('0123456789')
BROKEN = b'\x89PNG\r\n\x1a\n and then nothing that belongs into one'


@pytest.fixture(scope='module')
def work_dirs(tmp_path_factory):
    """What two trainings leave, with random weights, and a folder that is none."""
    root = tmp_path_factory.mktemp('work_dirs')
    for name, text in (('tiny', TINY), ('tiny_dense', DENSE)):
        (root / name).mkdir()
        saved(root / name, text, DIGITS, 'epoch_2.pth')
        shutil.copy(root / name / 'epoch_2.pth', root / name / 'epoch_1.pth')
        (root / name / 'last_checkpoint').write_text(f'/elsewhere/{name}/epoch_2.pth')
    (root / 'pictures').mkdir()
    return root


@pytest.fixture(scope='module')
def models(work_dirs):
    return trained_models(work_dirs, 'cpu', False)[0]


@pytest.fixture
def page(work_dirs, tmp_path):
    pytest.importorskip('gradio')
    return Page(Offer(work_dirs, 'cpu', False, tmp_path / 'samples'))


@pytest.fixture
def digit(tmp_path):
    path = tmp_path / 'a digit.png'
    cv2.imwrite(str(path), digit_scans('val')[0][0])
    return path


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / 'broken.png'
    path.write_bytes(BROKEN)
    return path


# ---------------------------------------------------------------------------------------------------------- the models
def test_trained_models_are_found(work_dirs, tmp_path):
    found, faults = trained_models(work_dirs, 'cpu', False)
    assert [model.name for model in found] == ['tiny (image classifier)', 'tiny_dense (image classifier)']
    assert [Path(model.weights) for model in found] == [
        work_dirs / name / 'epoch_2.pth' for name in ('tiny', 'tiny_dense')
    ]
    assert not faults
    shutil.copytree(work_dirs / 'tiny', tmp_path / 'cut')
    (tmp_path / 'cut' / 'config.py').write_text('model = dict(')
    found, faults = trained_models(tmp_path, 'cpu', False)
    assert not found and len(faults) == 1 and 'config.py is no valid config' in faults[0]


def test_an_image(models, digit):
    answer = models[0].answer(digit)
    expected = inference_model(models[0].model, digit)['pred_scores']
    assert list(answer.classes) == [str(i) for i in np.argsort(-expected)[:5]]
    np.testing.assert_allclose(list(answer.classes.values()), np.sort(expected)[::-1][:5], atol=1e-6)
    assert answer.drawing.shape[-1] == 3 and answer.drawing.std() > 0
    assert answer.tokens.shape[-1] == 3 and answer.tokens.std() > 0


def test_classes_of_one_name_are_told_apart(digit, tmp_path):
    config, weights = saved(tmp_path, TINY, ('crane', 'crane', *'23456789'))
    names = DemoModel('tiny', Path(config), weights).answer(digit).classes
    assert len(names) == 5 and 'crane' not in names


def test_cost_beside_the_dense_baseline(models, monkeypatch):
    monkeypatch.setattr(demo_models, 'ROUNDS', 2)
    image = torch.zeros(1, 3, 32, 32)
    # The second model is, by its config, the dense baseline of the first.
    expected = [count(lambda m=model.model: m(image, mode='tensor'), module=model.model) for model in models]
    own, baseline = models[0].costs()
    assert (own.multiply_adds, own.parameters) == (expected[0].multiply_adds, expected[0].parameters)
    assert (baseline.multiply_adds, baseline.parameters) == (expected[1].multiply_adds, expected[1].parameters)
    assert list(own.milliseconds) == list(baseline.milliseconds) == [1, 16] and min(own.milliseconds.values()) > 0
    (alone,) = models[1].costs()
    assert alone.multiply_adds == baseline.multiply_adds
    text = cost_table([own, baseline], models[0])
    assert f'{own.multiply_adds / baseline.multiply_adds:.0%} |' in text and 'time of 16 inputs' in text
    assert 'baseline' not in cost_table([alone], models[1])
    monkeypatch.setattr(demo_models, 'AFFORDABLE', 16 * baseline.multiply_adds)
    assert list(models[0].costs()[0].milliseconds) == [1]


def test_without_semantic_tokens_there_is_no_map_of_them(models, digit):
    assert models[1].answer(digit).tokens is None


def test_reduced_beside_all_its_tokens(models, digit, monkeypatch):
    """The dense model with a chosen method: groups are shown, and its cost beside that of the same weights."""
    monkeypatch.setattr(demo_models, 'ROUNDS', 1)
    model = models[1]
    assert 'ToMe' in model.methods and models[0].methods == ()
    plain = model.answer(digit).classes
    model.reduce('ToMe', 0.6)
    answer, (reduced, dense) = model.answer(digit), model.costs()
    assert answer.tokens.ndim == 3 and answer.classes != plain
    assert reduced.multiply_adds < 0.75 * dense.multiply_adds and reduced.parameters == dense.parameters
    model.reduce('ToMe', 0.9)
    assert reduced.multiply_adds < model.costs()[0].multiply_adds < dense.multiply_adds
    with pytest.raises(UsageError, match='budget=0.01'):
        model.reduce('ToMe', 0.01)
    assert model.answer(digit).classes == plain
    model.reduce('ToMe', 0.9)
    model.reduce(None)
    assert model.answer(digit).classes == plain and len(model.costs()) == 1


@pytest.mark.parametrize(
    'name,content,line',
    [
        ('broken.png', BROKEN, r'^broken\.png: '),
        ('empty.png', b'', r'^empty\.png: the file is empty'),
        ('notes.txt', b'no image', r'^notes\.txt: '),
        ('clip.mp4', b'', r'^clip\.mp4 is a clip and this model takes images: choose a video recogniser'),
    ],
)
def test_files_that_cannot_be_read(name, content, line, models, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=line) as error:
        models[0].answer(tmp_path / name)
    assert str(tmp_path) not in str(error.value)


def test_a_large_image_is_refused(models, digit, monkeypatch):
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '63')
    with pytest.raises(UsageError, match='a digit.png: it has 8 x 8 pixels'):
        models[0].answer(digit)


def test_a_clip(tmp_path):
    pytest.importorskip('mmaction')
    saved(tmp_path, "_base_ = ['mmstvit::digits/stvit-swin3d_digits.py']", MOTIONS)
    model = DemoModel('clips', tmp_path / 'config.py', str(tmp_path / 'weights.pth'))
    samples = samples_for(model.scope, model.classes, tmp_path / 'samples')
    assert [sample.truth for sample in samples] == list(MOTIONS)
    assert all(len(VideoReader(str(sample.path))) == 8 for sample in samples)
    answer = model.answer(samples[0].path)
    assert set(answer.classes) < set(MOTIONS) and len(answer.classes) == 5
    assert answer.tokens.std() > 0 and answer.drawing.shape[1] > 4 * answer.drawing.shape[0]
    with pytest.raises(UsageError, match=r'a\.png is an image .* takes clips'):
        model.answer(tmp_path / 'a.png')


def test_objects(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(demo_models, 'ROUNDS', 1)
    saved(tmp_path, "_base_ = ['mmstvit::digits/mask-rcnn_stvit-r_digits.py']", DIGITS)
    model = DemoModel('scenes', tmp_path / 'config.py', str(tmp_path / 'weights.pth'))
    samples = samples_for(model.scope, model.classes, tmp_path / 'samples')
    assert all(set(sample.truth.split(', ')) <= set(DIGITS) for sample in samples)
    answer = model.answer(samples[0].path)
    assert answer.classes == 'nothing' and answer.tokens.std() > 0
    assert answer.drawing.shape == cv2.imread(str(samples[0].path)).shape
    own, baseline = model.costs()
    # The figures of the evidence, README.md has them.
    assert (round(own.backbone / 1e5), round(baseline.backbone / 1e5)) == (1272, 1638)


# ---------------------------------------------------------------------------------------------------------- the samples
def test_samples_are_held_out_scans(tmp_path):
    held_out = {scan.tobytes() for scan in digit_scans('val')[0]}
    samples = samples_for('mmpretrain', DIGITS, tmp_path)
    assert [sample.truth for sample in samples] == list(DIGITS)
    assert all(cv2.imread(str(sample.path), cv2.IMREAD_GRAYSCALE).tobytes() in held_out for sample in samples)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmaction'])
@pytest.mark.parametrize('classes', [None, ('cat', 'dog')])
def test_there_are_none_for_models_of_other_things(scope, classes, tmp_path):
    assert samples_for(scope, classes, tmp_path) == []


# ------------------------------------------------------------------------------------------------------------ the page
def shown(results):
    """The values of the results by what they are."""
    message, label, drawn, tokens, costs, note = results
    # Of Gradio's skip() nothing is changed.
    return SimpleNamespace(message=message, label=label, drawn=drawn, tokens=tokens, costs=costs, note=note)


def test_the_steps_of_a_prediction(page, digit, broken, monkeypatch):
    monkeypatch.setattr(demo_models, 'ROUNDS', 1)
    menu, missing = page.look(None)
    assert menu.value == 'tiny (image classifier)' and not missing.visible
    first, second = page.predict(menu.value, str(digit))
    assert len(shown(first).label) == 5 and shown(first).drawn.visible and shown(first).tokens.visible
    assert not shown(first).message.visible and 'measuring' in shown(first).costs
    assert 'dense baseline' in shown(second).costs
    (failed,) = page.predict(menu.value, str(broken))
    assert shown(failed).message.visible and shown(failed).message.value.startswith('broken.png: ')
    assert shown(failed).label is None and not shown(failed).drawn.visible and not shown(failed).tokens.visible
    for name, path in ((menu.value, None), (None, str(digit))):
        (asked,) = page.predict(name, path)
        assert shown(asked).message.visible
    first, second = page.predict('tiny_dense (image classifier)', str(digit))
    assert not shown(first).tokens.visible and 'no semantic tokens' in shown(first).note
    method, budget = page.controls('tiny_dense (image classifier)')
    assert method.visible and budget.visible and not page.controls(menu.value)[0].visible
    first, second = page.predict('tiny_dense (image classifier)', str(digit), 'ToMe', 0.6)
    assert shown(first).tokens.visible and 'dense baseline' in shown(second).costs


def test_where_there_is_no_model_the_page_says_how_to_train_one(tmp_path):
    pytest.importorskip('gradio')
    page = Page(Offer(tmp_path / 'nowhere', 'cpu', False, tmp_path / 'samples'))
    menu, missing = page.look(None)
    assert menu.value is None and missing.visible and '`make demo`' in missing.value
    page.choose(None)


def test_models_trained_meanwhile_are_offered(work_dirs, tmp_path):
    offer = Offer(tmp_path, 'cpu', False, tmp_path / 'samples')
    assert offer.look() == []
    shutil.copytree(work_dirs / 'tiny', tmp_path / 'tiny')
    (name,) = offer.look()
    loaded = offer.models[name]
    assert offer.look() == [name] and offer.models[name] is loaded
    shutil.copyfile(tmp_path / 'tiny' / 'epoch_2.pth', tmp_path / 'tiny' / 'epoch_3.pth')
    offer.look()
    assert offer.models[name].weights.endswith('epoch_3.pth')


@pytest.mark.parametrize(
    'given,line',
    [
        (['--checkpoint', 'a.pth'], '--checkpoint is the weights of --model'),
        (['--model', 'stvit-tiny_digits', '--checkpoint', 'nowhere.pth'], 'there is no checkpoint nowhere.pth'),
        (['--model', 'stvit-tiny_digits'], 'no weights are published'),
        (['--model', 'stvit-tny_digits'], 'did you mean'),
        (['--threads', '0'], '--threads must be at least 1'),
        (['--port', '{taken}'], 'give another --port'),
    ],
)
def test_wrong_arguments_are_told_in_one_line(given, line, capsys, monkeypatch, tmp_path):
    pytest.importorskip('gradio')
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        with pytest.raises(SystemExit) as end:
            main(['--device', 'cpu', *(word.format(taken=taken.getsockname()[1]) for word in given)])
    assert end.value.code == 2
    assert line in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "pip install 'mmstvit[demo]'" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- in a browser
@contextmanager
def proxy():
    """Stands where a way out would be, and counts who wants to take it."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        asked = []

        def listen():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                asked.append(connection.recv(200))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f'http://127.0.0.1:{server.getsockname()[1]}', asked
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def served(work_dirs, tmp_path):
    """The command in a process of its own: where its page is, its temporary files, and who it has asked beside it."""
    pytest.importorskip('gradio')
    (tmp_path / 'temporary').mkdir()
    with proxy() as (way, asked):
        env = tool_env(
            TMPDIR=str(tmp_path / 'temporary'),
            HTTP_PROXY=way,
            HTTPS_PROXY=way,
            http_proxy=way,
            https_proxy=way,
            no_proxy='',
        )
        code = 'from mmstvit.demo.page import main; main()'
        options = ['--work-dirs', str(work_dirs), '--device', 'cpu', '--port', free_port()]
        with subprocess.Popen(
            [sys.executable, '-c', code, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=env,
        ) as process:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r'The page is at (\S+)', line):
                    break
            else:
                pytest.fail(''.join(said))
            yield SimpleNamespace(url=found[1], asked=asked, temporary=tmp_path / 'temporary', process=process)
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest
    assert 'Traceback' not in rest
    left = [str(path) for path in (tmp_path / 'temporary').rglob('*')]
    assert not left, 'uploads are left behind'


@pytest.fixture
def browser(tmp_path):
    pytest.importorskip('selenium')
    open_browser = runpy.run_path(str(ROOT / 'tools' / 'visualization' / 'draw_demo_page.py'))['open_browser']
    driver = open_browser(tmp_path / 'profile')
    if driver is None:
        pytest.skip('no chromium and chromedriver here: apt install chromium chromium-driver')
    yield driver
    driver.quit()


def requested(browser):
    """The machines that the browser has asked for anything."""
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    urls = [e['params']['request']['url'] for e in events if e['method'] == 'Network.requestWillBeSent']
    return {urlsplit(url).hostname for url in urls if urlsplit(url).scheme in ('http', 'https', 'ws', 'wss')}


def test_in_a_browser(browser, served, digit, broken):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def find(selector):
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(condition, what):
        return WebDriverWait(browser, 60, 0.1).until(lambda _: condition(), what)

    def upload(path):
        for clear in find('#file button[aria-label="Clear"], #file button[aria-label="Remove this file"]'):
            clear.click()
        (chooser,) = wait(lambda: find('#file input[type=file]'), 'nothing to upload to')
        chooser.send_keys(str(path))
        wait(lambda: path.stem in find('#file')[0].text, 'the upload is not there')
        find('#predict')[0].click()

    def pictures():
        """The widths of the pictures of the answer, as far as they are loaded."""
        loaded = [
            (image.get_property('naturalWidth'), image.is_displayed()) for image in find('#drawn img, #tokens img')
        ]
        return [width for width, displayed in loaded if width > 0 and displayed]

    def answered():
        wait(lambda: find('#costs table'), 'no cost')
        wait(lambda: len(pictures()) == 2, 'no pictures')
        assert not [m for m in find('#message') if m.is_displayed()]
        assert re.search(r'^\d\n', find('#prediction')[0].text.split('Prediction\n')[1])
        assert 'dense baseline' in find('#costs')[0].text

    browser.get(served.url)
    wait(lambda: len(find('#samples img')) == 10, 'no samples')
    upload(digit)
    answered()
    upload(broken)
    wait(lambda: [m.text for m in find('#message') if m.is_displayed()], 'no message')
    assert find('#message')[0].text.startswith('broken.png: ')
    assert not pictures() and not find('#costs table')
    upload(digit)
    answered()
    find('#samples button')[7].click()
    wait(lambda: 'digit_7' in find('#file')[0].text, 'the sample is not taken')
    answered()
    assert not [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    assert requested(browser) == {'127.0.0.1'} and not served.asked
    uploaded = {path.name for path in served.temporary.rglob('*.png')}
    assert {'broken.png', 'digit_7.png'} <= uploaded
    find('#predict')[0].click()  # it is asked to end while a model runs
    wait(lambda: 'measuring' in find('#costs')[0].text, 'nothing is measured')
