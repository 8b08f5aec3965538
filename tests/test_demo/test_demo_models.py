"""The models of the demo page take images of any depth and channels, as ``mmstvit infer`` does."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from run_helpers import TINY, saved

from mmstvit import inference_model
from mmstvit.demo.models import DemoModel
from mmstvit.demo.samples import samples_for

pytest.importorskip('mmpretrain')

GRAY = """
steps = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='Resize', scale=(32, 32)),
         dict(type='PackInputs')]
test_dataloader = dict(
    dataset=dict(_delete_=True, type='CustomDataset', data_root='absent', data_prefix='val', pipeline=steps))
model['backbone'].update(in_channels=1)
data_preprocessor = dict(_delete_=True, mean=[127.5], std=[127.5], num_classes=10)
"""
CLASSES = tuple(f'class {i}' for i in range(10))


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """One gray picture in five forms, of 8 and 16 bits, with one to four channels."""
    folder = tmp_path_factory.mktemp('pictures')
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    forms = dict(
        gray=pixels,
        colour=np.repeat(pixels[..., None], 3, -1),
        alpha=np.dstack([pixels] * 3 + [np.full_like(pixels, 255)]),
        deep=pixels.astype(np.uint16) * 257,
        deep_colour=np.repeat(pixels[..., None], 3, -1).astype(np.uint16) * 257,
    )
    for name, image in forms.items():
        cv2.imwrite(str(folder / f'{name}.png'), image)
    return pixels, sorted(folder.iterdir())


def test_label_maps(segmentation, tmp_path):
    """A segmentor tells the shares of the classes, and shows the tokens; it has the scenes as samples."""
    model = DemoModel('maps', segmentation.config, str(segmentation.checkpoint))
    (sample, *_) = samples_for(model.scope, model.classes, tmp_path)
    answer = model.answer(sample.path)
    assert model.kind == 'segmentor' and answer.drawing.shape == cv2.imread(str(sample.path)).shape
    assert 0 < sum(answer.classes.values()) <= 1 and set(answer.classes) <= set(model.classes)
    assert answer.tokens is not None


@pytest.mark.parametrize('channels', [1, 3])
def test_images_of_any_channels(pictures, tmp_path, channels):
    pixels, files = pictures
    config, weights = saved(tmp_path, TINY + GRAY if channels == 1 else TINY, CLASSES)
    model = DemoModel('small', Path(config), weights)
    whole = inference_model(config, weights, pixels if channels == 1 else np.repeat(pixels[..., None], 3, -1))
    expected = sorted(map(float, whole['pred_scores']))[::-1][:5]
    for file in files:
        answer = model.answer(file)
        assert list(answer.classes.values()) == pytest.approx(expected, abs=1e-5), file.name
        assert next(iter(answer.classes)) == CLASSES[whole['pred_label']]
        assert answer.drawing.ndim == 3 and answer.drawing.shape[-1] == 3 and answer.drawing.dtype == np.uint8
        assert answer.tokens.shape[-1] == 3
        # The picture is the one that was given, below the text on it.
        shown = cv2.resize(answer.drawing, pixels.shape[::-1], interpolation=cv2.INTER_AREA)[-8:]
        assert np.abs(shown.astype(int) - pixels[-8:, :, None]).mean() < 40, file.name
    assert model.input_size == '32 x 32' and model.costs()[0].multiply_adds > 0
