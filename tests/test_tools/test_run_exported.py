"""Images prepared without PyTorch, as the toolbox prepares them."""

import json
import weakref

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmstvit.apis.models import class_names
from mmstvit.deploy import run_exported
from mmstvit.deploy.preparation import fit, metadata_of, transforms_of
from mmstvit.deploy.run_exported import (
    InputError,
    check_preparation,
    infer,
    main,
    normalise,
    pad,
    read_image,
    result_of,
)
from mmstvit.deploy.runtimes import Opened
from mmstvit.io.image_check import ImageError
from mmstvit.measure.networks import default_size

PIPELINES = {
    'DeiT': [
        dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=224),
    ],
    'long edge': [dict(type='ResizeEdge', scale=101, edge='long')],
    'ratio': [dict(type='Resize', scale=(64, 48), keep_ratio=True), dict(type='CenterCrop', crop_size=(33, 31))],
    'digits': [dict(type='Resize', scale=32, interpolation='bicubic')],
}


def config(steps):
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')]
    return Config(
        dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dict(type='ImageNet', pipeline=pipeline))),
        filename=__file__,
    )


@pytest.fixture(scope='module')
def images():
    """An upright and a wide one, no noise: interpolation is to be compared and not rounding."""
    noise = np.random.default_rng(0).integers(0, 255, (311, 217, 3), dtype=np.uint8)
    upright = cv2.GaussianBlur(noise, (5, 5), 1)
    return upright, np.ascontiguousarray(upright.transpose(1, 0, 2))


@pytest.fixture(scope='module')
def model():
    """What stands before a network, in the place of one."""
    from mmpretrain.models.utils import ClsDataPreprocessor

    class Model:
        data_preprocessor = ClsDataPreprocessor(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, pad_size_divisor=16, pad_value=0.5
        )

    return Model


@pytest.mark.parametrize('steps', PIPELINES.values(), ids=PIPELINES)
def test_images_are_prepared_as_in_the_toolbox(steps, images, model):
    cfg = config(steps)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        from mmpretrain.datasets import transforms  # noqa: F401  registers them
        from mmpretrain.registry import TRANSFORMS

        pipeline = Compose([TRANSFORMS.build(step) for step in [*steps, dict(type='PackInputs')]])
        meta = json.loads(json.dumps(metadata_of(cfg, model, class_names(cfg), None, False)))
    assert len(meta['classes']) == 1000 and meta['channel_order'] == 'RGB'
    for image in images:
        packed = pipeline(dict(img=image.copy(), img_shape=image.shape[:2], ori_shape=image.shape[:2]))
        expected = model.data_preprocessor(dict(inputs=packed['inputs'][None]))['inputs'].numpy()
        got = pad(normalise(image, meta), meta)
        assert got.shape == expected.shape and got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_input_size_of_the_pipeline():
    for name, size in {'DeiT': (224, 224), 'ratio': (31, 33), 'digits': (32, 32), 'long edge': ()}.items():
        assert default_size(config(PIPELINES[name])) == size


def test_another_shape_changes_the_steps():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        edge, crop = fit(transforms_of(config(PIPELINES['DeiT'])), (384, 288))
        assert crop['crop_size'] == [288, 384] and edge['scale'] == 439  # 256 * 384 / 224, rounded up
        (resize,) = fit(transforms_of(config(PIPELINES['digits'])), (48, 40))
        assert resize['scale'] == [40, 48] and resize['type'] == 'Resize'


def test_scores_are_told_as_by_inference_model():
    result = result_of(np.float32([0.25, 0.75]), ['a', 'b'])
    assert result == dict(pred_class='b', pred_label=1, pred_score=0.75, pred_scores=[0.25, 0.75])


def test_unknown_steps_and_clips_are_refused():
    meta = dict(layout='NCHW', transforms=[dict(type='Mosaic')])
    with pytest.raises(InputError, match='Mosaic, which is unknown'):
        check_preparation(meta)
    with pytest.raises(InputError, match='takes clips'):
        check_preparation(dict(layout='NCTHW'))


def test_pictures_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    """As they are, before they are decoded, and as the config would resize them."""
    path = tmp_path / 'wide.png'
    cv2.imwrite(str(path), np.zeros((1, 100, 3), np.uint8))
    edge = dict(type='ResizeEdge', scale=32, edge='short', backend='cv2', interpolation='bilinear')
    meta = dict(layout='NCHW', transforms=[edge])
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '100')
    with pytest.raises(ImageError, match='3200 x 32 pixels, .* 100'):
        normalise(read_image(str(path)), meta)
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '99')
    monkeypatch.setattr(cv2, 'imdecode', None)
    with pytest.raises(ImageError, match=f'^{path}: .* 100 x 1 pixels, .* 99'):
        read_image(str(path))


def test_missing_model_is_one_line(tmp_path, fails):
    assert 'absent.onnx' in fails(main, tmp_path / 'absent.onnx', 'image.png')


@pytest.mark.parametrize('out, most', [(None, 1), ('all.npz', 4)])
def test_no_outputs_are_kept_but_those_that_are_written(out, most, tmp_path, monkeypatch, capsys):
    """A folder of photographs: the maps of each would fill the memory."""
    meta = dict(task='segmentation', layout='NCHW', transforms=[], channel_order='BGR', classes=None)
    kept, alive = [], []

    def outputs_of(opened, image):
        alive.append(sum(one() is not None for one in kept))
        scores = np.ones((2, *image.shape[:2]), np.float32)
        kept.append(weakref.ref(scores))
        return dict(scores=scores)

    monkeypatch.setattr(run_exported, 'open_model', lambda *args, **kwargs: None)
    monkeypatch.setattr(run_exported, 'read_metadata', lambda *args: meta)
    monkeypatch.setattr(run_exported, 'infer', outputs_of)
    for i in range(5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.zeros((4, 4, 3), np.uint8))
    out = out and str(tmp_path / out)
    images = [str(tmp_path / f'{i}.png') for i in (0, 1, 7, 2, 3, 4)]
    assert not run_exported.run('model.onnx', images, out=out)
    assert max(alive) == most and '1 of 6 images could not be inferred' in capsys.readouterr().err
    assert out is None or sorted(np.load(out)) == [f'{i}/scores' for i in range(5)]


def test_scores_of_pixels_lose_the_padding():
    """An image that is smaller than the input is padded for the network; what is said of the padding is cut off."""
    given = np.zeros((1, 2, 8, 10), np.float32)
    given[:, 1, :, 3:] = 1  # the second class is right of the third column, and in all of the padding
    meta = dict(task='segmentation', transforms=[], channel_order='BGR', mean=None)
    meta.update(pad_size_divisor=1, pad_size=[8, 10], pad_value=0)
    shape = [1, 3, 8, 10]
    opened = Opened(
        'a runtime', '1', shape, ['scores'], meta, 'float32', lambda x: [given] if list(x.shape) == shape else []
    )
    outputs = infer(opened, np.zeros((6, 4, 3), np.uint8))
    assert outputs['scores'].shape == (2, 6, 4)
    assert outputs['scores'].argmax(0).mean() == 0.25
