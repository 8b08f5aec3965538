"""A config's own test pipeline is followed by every command: its loading, its channels, in wrapped data sets too."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from run_helpers import SHALLOW, TINY, saved

from mmstvit import get_model, inference_model
from mmstvit.apis.pipelines import test_dataset_of as dataset_of
from mmstvit.cli.export import main as export
from mmstvit.cli.flops import main as flops
from mmstvit.cli.infer import main as infer
from mmstvit.cli.show_tokens import main as show_tokens
from mmstvit.deploy.run_exported import main as run_exported
from mmstvit.errors import UsageError

pytest.importorskip('mmpretrain')
FILES = (
    SHALLOW
    + """
steps = [dict(type='LoadImageFromFile'{load}), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
test_dataloader = dict(
    dataset=dict(_delete_=True, type='CustomDataset', data_root='absent', data_prefix='val', pipeline=steps))
"""
)
GRAY = (
    FILES.replace('{load}', ", color_type='grayscale'")
    + """
model['backbone'].update(in_channels=1)
data_preprocessor = dict(_delete_=True, mean=[127.5], std=[127.5], num_classes=10)
"""
)


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp('pictures') / 'a.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 36, 3), dtype=np.uint8))
    return str(path)


@pytest.fixture(scope='module')
def gray(tmp_path_factory):
    """A config of one channel and weights for it."""
    return saved(tmp_path_factory.mktemp('gray'), GRAY, [f'class {i}' for i in range(10)])


def test_gray_images(gray, picture, tmp_path, capsys):
    config, weights = gray
    model = get_model(config, weights)
    image = cv2.imread(picture)
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for one, seen in (
        (picture, cv2.imread(picture, cv2.IMREAD_GRAYSCALE)),
        (image, pixels),
        (pixels, pixels),
        (pixels[..., None], pixels),
    ):
        with torch.no_grad():
            x = (torch.from_numpy(cv2.resize(seen, (32, 32))).float()[None, None] - 127.5) / 127.5
            expected = model(x).softmax(-1)[0].numpy()
        np.testing.assert_allclose(inference_model(model, one)['pred_scores'], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r'array of shape \(height, width, 3\), got'):
        inference_model(model, np.zeros((4, 4, 2), np.uint8))

    flops([config])
    expected = inference_model(model, picture)['pred_scores']
    infer([config, picture, '--checkpoint', weights, '--out', str(tmp_path / 'out.jsonl')])
    assert json.loads((tmp_path / 'out.jsonl').read_text())['pred_scores'] == pytest.approx(expected.tolist(), abs=1e-5)
    show_tokens([config, weights, picture, '--show-dir', str(tmp_path / 'tokens')])
    assert cv2.imread(str(tmp_path / 'tokens' / 'a.png.png')) is not None
    capsys.readouterr()


def test_gray_images_in_an_exported_file(gray, picture, tmp_path, capsys):
    pytest.importorskip('onnxscript')
    config, weights = gray
    export([config, weights, str(tmp_path / 'gray.onnx')])
    capsys.readouterr()
    run_exported([str(tmp_path / 'gray.onnx'), picture, '--out', str(tmp_path / 'out.json')])
    (row,) = json.loads((tmp_path / 'out.json').read_text())
    expected = inference_model(config, weights, picture)
    assert row['pred_score'] == pytest.approx(float(expected['pred_score']), abs=1e-4)


def wrapped(cfg, how):
    dataset = cfg.test_dataloader.dataset
    if how == 'concatenated':
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    elif how == 'repeated':
        cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
    elif how == 'validation alone':
        cfg.val_dataloader = cfg.pop('test_dataloader')
    return cfg


@pytest.mark.parametrize('how', ['plain', 'concatenated', 'repeated', 'validation alone'])
def test_the_pipeline_is_found(how, picture, tmp_path, capsys):
    text = FILES.replace('{load}', '')
    (tmp_path / 'plain.py').write_text(text)
    cfg = wrapped(Config.fromfile(tmp_path / 'plain.py'), how)
    assert [step['type'] for step in dataset_of(cfg).pipeline] == ['LoadImageFromFile', 'Resize', 'PackInputs']
    cfg.dump(str(tmp_path / 'config.py'))
    config, weights = str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict=get_model(config).state_dict()), weights)
    result = inference_model(config, weights, picture)
    assert result['pred_scores'].shape == (10,)
    flops([config])
    assert '32 x 32' in capsys.readouterr().out


def test_no_pipeline_is_told(picture, tmp_path, fails):
    (tmp_path / 'config.py').write_text(TINY)
    cfg = Config.fromfile(tmp_path / 'config.py')
    for key in list(cfg):
        if key.startswith(('test_', 'val_')):
            cfg.pop(key)
    with pytest.raises(UsageError, match='no test_dataloader with a pipeline'):
        dataset_of(cfg)
    cfg.dump(str(tmp_path / 'none.py'))
    torch.save(dict(state_dict=get_model(cfg).state_dict()), tmp_path / 'weights.pth')
    line = fails(infer, tmp_path / 'none.py', picture, '--checkpoint', tmp_path / 'weights.pth')
    assert 'the config has no test_dataloader with a pipeline' in line


CLASSES = """
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs, Resize
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier, VisionTransformerClsHead

from mmstvit.models import STViT

default_scope = 'mmpretrain'
model = dict(
    type=ImageClassifier,
    backbone=dict(
        type=STViT,
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
        stgm_layer=0,
        semantic_grid=(2, 2)),
    head=dict(type=VisionTransformerClsHead, num_classes=3, in_channels=32))
data_preprocessor = dict(type=ClsDataPreprocessor, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=3)
test_dataloader = dict(
    dataset=dict(
        type=CustomDataset,
        data_root='absent',
        metainfo=dict(classes=['a', 'b', 'c']),
        pipeline=[dict(type=LoadImageFromFile), dict(type=Resize, scale=(32, 32)), dict(type=PackInputs)]))
"""


def test_types_that_are_classes(picture, tmp_path, capsys):
    """As mmengine's configs in pure Python say it: a class in the place of its name."""
    pytest.importorskip('onnxscript')
    config, weights = saved(tmp_path, CLASSES, ['a', 'b', 'c'])
    expected = inference_model(config, weights, picture)['pred_scores']
    flops([config])
    assert '32 x 32' in capsys.readouterr().out
    infer([config, picture, '--checkpoint', weights, '--out', str(tmp_path / 'out.jsonl')])
    assert json.loads((tmp_path / 'out.jsonl').read_text())['pred_scores'] == pytest.approx(expected.tolist(), abs=1e-5)
    show_tokens([config, weights, picture, '--show-dir', str(tmp_path / 'tokens')])
    export([config, weights, str(tmp_path / 'model.onnx')])
    run_exported([str(tmp_path / 'model.onnx'), picture, '--out', str(tmp_path / 'out.json')])
    (row,) = json.loads((tmp_path / 'out.json').read_text())
    assert row['pred_score'] == pytest.approx(float(expected.max()), abs=1e-4)
