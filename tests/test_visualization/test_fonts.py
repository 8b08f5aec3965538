"""Names of classes in any script: drawn with an installed font that has them, or readable without one."""

import importlib
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from mmengine.structures import InstanceData
from run_helpers import TINY, saved

from mmstvit.cli.infer import main as infer
from mmstvit.cli.test import main as evaluate
from mmstvit.visualization import fonts
from mmstvit.visualization.clips import read_strip
from mmstvit.visualization.fonts import choose_fonts, drawable, text_line
from mmstvit.visualization.panels import grid_of_panels

CAT = '\u732b'
CHANGES = """
model = dict(head=dict(num_classes=2, topk=1))
data_preprocessor = dict(num_classes=2)
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(_delete_=True, {own}))
test_dataloader = dict(dataset=dict(_delete_=True, {own}))
test_evaluator = dict(type='Accuracy', topk=1)
"""
UNKNOWN = '\U000105c0'  # Todhri, which no usual font has


def forget():
    importlib.reload(fonts)
    fontManager._findfont_cached.cache_clear()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """As in a new process."""
    listed = list(fontManager.ttflist)
    # The fonts of this machine are not what is tested.
    monkeypatch.setattr(fontManager, 'ttflist', [font for font in listed if 'matplotlib' in font.fname])
    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', list)
    forget()
    yield
    forget()


@pytest.fixture
def font(tmp_path, monkeypatch):
    """A font installed after matplotlib has listed them, in which a cat is a black square."""
    pen = TTGlyphPen(None)
    for i, place in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if i else pen.moveTo)(place)
    pen.closePath()
    made, names = FontBuilder(1000, isTTF=True), ['.notdef', 'cat']
    made.setupGlyphOrder(names)
    made.setupCharacterMap({ord(CAT): 'cat'})
    made.setupGlyf(dict.fromkeys(names, pen.glyph()))
    made.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable(dict(familyName='Made Sans', styleName='Regular'))
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / 'made.ttf')
    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', lambda: [str(tmp_path / 'made.ttf')])


def squares(image, side):
    """How many black squares of at least this side are in a picture, at places apart."""
    dark = (image.mean(axis=-1) < 60).astype(np.uint8)
    return cv2.connectedComponents(cv2.erode(dark, np.ones((side, side), np.uint8)))[0] - 1


def test_fonts_that_come_with_matplotlib(caplog):
    for name in ('cat', 'кошка', 'قطة', 'γάτα', 'chat\nà'):
        assert drawable(name) == (name, ['DejaVu Sans'])
    assert not caplog.records
    assert not np.array_equal(text_line('кошка', 28), text_line('кожка', 28))


def test_a_font_is_found_for_each_character(font, caplog):
    assert drawable(f'cat {CAT}') == (f'cat {CAT}', ['DejaVu Sans', 'Made Sans'])
    assert not caplog.records
    line = text_line(f'{CAT} cat {CAT}', 28, size=12)
    assert line.shape[0] == 28 and squares(line, 9) == 2
    assert squares(text_line('cat', 28, size=12), 9) == 0


def test_without_a_font_names_stay_readable(caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        assert drawable(f'{CAT}, cat').text == '\\u732b, cat'
    assert drawable(UNKNOWN) == ('\\U000105c0', ['DejaVu Sans'])
    (record,) = caplog.records
    line = record.getMessage()
    assert CAT in line and 'install' in line and '\n' not in line
    np.testing.assert_array_equal(text_line(CAT, 28), text_line('\\u732b', 28))
    assert drawable('a\tb\u3000c').text == 'a b c'


def test_titles_of_sheets(font):
    panel = np.full((300, 300, 3), 128, np.uint8)
    sheet = grid_of_panels([[(panel, CAT), (panel, '')]], title=f'{CAT}{CAT} 98 %')
    assert squares(sheet, 8) == 3


def test_captions_of_clips(font, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 64))
    for _ in range(4):
        writer.write(np.full((64, 64, 3), 200, np.uint8))
    writer.release()
    assert squares(read_strip(tmp_path / 'clip.mp4', f'{CAT} 98 %'), 8) == 1
    long = read_strip(tmp_path / 'clip.mp4', CAT * 200)
    assert squares(long, 8) == 200  # the picture is as wide as the text


def test_detectors(font):
    """mmdet's visualizer names classes above boxes."""
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    sample = DetDataSample(
        pred_instances=InstanceData(
            bboxes=torch.tensor([[20.0, 60, 180, 180]]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
        )
    )
    images = []
    for name in (CAT, 'cat'):
        visualizer = choose_fonts(choose_fonts(DetLocalVisualizer()))
        visualizer.dataset_meta = dict(classes=(name,))
        visualizer.add_datasample('', np.full((200, 200, 3), 90, np.uint8), sample, draw_gt=False)
        images.append(visualizer.get_image())
    assert [squares(255 - image, 5) for image in images] == [1, 0]  # letters are light there


def test_commands_draw_names_of_folders(font, tmp_path, monkeypatch):
    """``infer --draw`` and ``test --show-dir``, with a network that answers the class in Chinese to all."""
    monkeypatch.chdir(tmp_path)
    for name in ('a', CAT):
        Path('set', name).mkdir(parents=True)
        cv2.imwrite(f'set/{name[:1].encode().hex()}.png', np.full((400, 400, 3), 90, np.uint8))
        Path(f'set/{name[:1].encode().hex()}.png').rename(f'set/{name}/0.png')
    own = "type='CustomDataset', data_root='set', data_prefix='', pipeline=steps"
    config, weights = saved(tmp_path, TINY + CHANGES.format(own=own), ('a', CAT))
    content = torch.load(weights)
    content['state_dict']['head.layers.head.bias'] += 1000 * torch.eye(2)[1]
    torch.save(content, weights)
    infer([config, f'set/{CAT}/0.png', '--checkpoint', weights, '--draw', 'drawn'])
    larger = ['--cfg-options', 'default_hooks.visualization.rescale_factor=12']
    evaluate([config, weights, '--show-dir', 'shown', '--work-dir', 'work', *larger])
    (drawn,) = [cv2.imread(str(path)) for path in Path('drawn').iterdir()]
    assert squares(255 - drawn, 7) == 1
    shown = [cv2.imread(str(path)) for path in sorted(Path('shown').rglob('*.png'))]
    assert len(shown) == 2  # both are named 0.png
    assert 2 in [squares(255 - image, 7) for image in shown]  # of what is true and what is predicted
