"""get_model, inference_model and list_models: every kind of model, of weights and of input gives the same answer."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import scipy.special
import torch
from fresh_python import run_fresh
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmstvit import get_model, inference_model, list_models
from mmstvit.apis import infer
from mmstvit.apis.models import classes_of
from mmstvit.apis.results import draw_prediction, record
from mmstvit.datasets import digit_scans
from mmstvit.errors import UsageError
from mmstvit.io.checkpoints import CheckpointError
from mmstvit.layers.steps import Generation
from mmstvit.models import STViT
from mmstvit.paths import package_data
from mmstvit.visualization import token_maps

CONFIG = package_data() / 'configs' / 'digits' / 'stvit-tiny_digits.py'


@pytest.fixture(scope='module')
def scans(tmp_path_factory):
    """Four digits that the small run has not seen: paths, arrays, labels."""
    folder = tmp_path_factory.mktemp('scans')
    images, labels = digit_scans('val')
    arrays = [np.repeat(image[..., None], 3, axis=-1) for image in images[:4]]
    # Not grey, so that a swap of channels shows.
    arrays = [(array * np.array([1.0, 0.8, 0.6])).astype(np.uint8) for array in arrays]
    paths = [folder / f'{i}.png' for i in range(4)]
    for path, array in zip(paths, arrays, strict=True):
        cv2.imwrite(str(path), array)
    return paths, arrays, labels[:4]


@pytest.fixture(scope='module')
def model(trained):
    return get_model(trained.config, trained.checkpoint)


def direct_scores(model, array):
    """The scores by hand: resize, normalise, forward."""
    image = cv2.resize(array, (32, 32), interpolation=cv2.INTER_CUBIC)[..., ::-1].astype(np.float32)
    inputs = torch.from_numpy((image - 127.5) / 127.5).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model.head(model.extract_feat(inputs)).softmax(-1)[0].numpy()


def assert_same(one, two):
    assert one['pred_label'] == two['pred_label']
    np.testing.assert_allclose(one['pred_scores'], two['pred_scores'], atol=1e-5)


def test_list_models():
    names = list_models()
    assert names == sorted(names) and 'stvit-tiny_digits' in names
    assert list_models('stvit-s') == [name for name in names if name.startswith('stvit-s')] != []
    assert list_models('vit-tiny_d*') == ['vit-tiny_digits']
    assert list_models('no such*') == []


@pytest.mark.parametrize(
    'first, second', [('mmstvit', 'mmpretrain'), pytest.param('mmpretrain', 'mmstvit', marks=pytest.mark.long)]
)
def test_mmpretrain_lists_our_models(first, second):
    code = (
        f'import {first}\n'
        f'if {first!r} == "mmpretrain": mmpretrain.list_models()\n'
        f'import {second}\n'
        'ours, theirs = mmstvit.list_models("*stvit*"), mmpretrain.list_models("*stvit*")\n'
        'assert len(ours) > 5 and set(ours) <= set(theirs), (ours, theirs)\n'
        'model = mmpretrain.get_model("stvit-tiny_digits")\n'
        # A name that both have stays mmpretrain's there, and is ours here.
        'name = "t2t-vit-t-14_8xb64_in1k"\n'
        'for package in (mmpretrain, mmstvit):\n'
        '    assert name in package.list_models("t2t*")\n'
        '    model_of_both = package.get_model(name)\n'
        '    print(type(model_of_both.backbone).__module__)\n'
        'print(type(model.backbone).__module__)\n'
    )
    modules = [line for line in run_fresh(code).split() if '.backbones.' in line]
    assert modules == [
        'mmpretrain.models.backbones.t2t_vit',
        'mmstvit.models.backbones.t2t_vit',
        'mmstvit.models.backbones.stvit',
    ]


def test_builds_in_every_toolbox_without_an_import():
    """``type='mmstvit.STViT'`` is enough, but where a toolbox cannot be imported before mmstvit gives what it lacks."""
    # Beside transformers 5 mmpretrain cannot be imported before mmstvit either: here it is as if it were not installed.
    code = """
import importlib.metadata, importlib_metadata, torch

for metadata in (importlib.metadata, importlib_metadata):
    def distribution(name, module=metadata, find=metadata.distribution):
        if name == 'transformers':
            raise module.PackageNotFoundError(name)
        return find(name)
    metadata.distribution = distribution
"""
    for toolbox, start in (('mmpretrain', ''), ('mmdet', 'import mmstvit\n'), ('mmaction', '')):
        code += f'{start}from {toolbox}.registry import MODELS\n'
        code += 'model = MODELS.build(dict(type="mmstvit.STViT", arch="tiny"))\n'
        code += f'print("{toolbox}", type(model).__module__, model(torch.zeros(1, 3, 64, 64))[0].shape)\n'
    said = run_fresh(code).splitlines()
    for toolbox in ('mmpretrain', 'mmdet', 'mmaction'):
        assert f'{toolbox} mmstvit.models.backbones.stvit torch.Size([1, 192])' in said


def test_get_model_by_name_path_and_config():
    config = Config.fromfile(CONFIG)
    for model in ('stvit-tiny_digits', CONFIG, str(CONFIG), config):
        built = get_model(model)
        assert type(built).__name__ == 'ImageClassifier' and isinstance(built.backbone, STViT)
        assert built.backbone.num_layers == 6 and not built.training
    get_model(config, backbone=dict(stgm_layer=1))
    assert config.to_dict() == Config.fromfile(CONFIG).to_dict()  # what the caller gave is as it was


def test_get_model_overrides_settings():
    model = get_model('stvit-tiny_digits', backbone=dict(stgm_layer=3, semantic_grid=(2, 3)))
    assert isinstance(model.backbone.encoder.steps[3], Generation)
    assert model.backbone.encoder.steps[4].global_centers.shape == (1, 2, 3, 64)
    with pytest.raises(TypeError, match='flux'):
        get_model('stvit-tiny_digits', backbone=dict(flux=1))


def test_get_model_with_weights(trained, web):
    """From a path, a string and a URL, into models from a path and a config."""
    saved = torch.load(trained.checkpoint, weights_only=False)['state_dict']
    shutil.copy(trained.checkpoint, web.folder / 'for_get_model.pth')
    config = Config.fromfile(trained.config)
    for model, weights in (
        (trained.config, trained.checkpoint),
        (config, str(trained.checkpoint)),
        (config, web.url('for_get_model.pth')),
    ):
        state = get_model(model, weights).state_dict()
        assert set(state) == set(saved) and all(torch.equal(state[name], saved[name]) for name in saved)


def test_weights_of_another_model(trained):
    with pytest.raises(ValueError, match='of another model'):
        get_model('stvit-tiny_digits', trained.checkpoint)
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        get_model(trained.config, 'absent.pth')


def test_a_head_of_other_classes_is_refused(trained, tmp_path):
    """mmengine would leave it as it is, random, and go on."""
    saved = torch.load(trained.checkpoint, weights_only=False)
    config = Config.fromfile(trained.config)
    config.model.head.num_classes = 7
    with pytest.raises(CheckpointError, match='of another model: head.layers.head.weight') as error:
        get_model(config, trained.checkpoint)
    assert isinstance(error.value, UsageError)  # a command prints it as it is
    (tmp_path / 'broken.pth').write_bytes(trained.checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f'cannot read the checkpoint {tmp_path}/broken.pth'):
        get_model(trained.config, tmp_path / 'broken.pth')
    # A layer that the file lacks is left as it was made: a part may be loaded into a larger model.
    del saved['state_dict']['head.layers.head.bias']
    torch.save(saved, tmp_path / 'part.pth')
    assert get_model(trained.config, tmp_path / 'part.pth').head.layers.head.bias is not None


def test_names_of_classes(trained, tmp_path):
    """Those of the checkpoint, or else those of the config's data; none where neither tells."""
    saved = torch.load(trained.checkpoint, weights_only=False)
    for meta, first in ((dict(classes=['nought', *'123456789']), 'nought'), (None, '0')):
        saved['meta']['dataset_meta'] = meta
        torch.save(saved, tmp_path / 'named.pth')
        model = get_model(trained.config, tmp_path / 'named.pth')
        assert len(classes_of(model)) == 10 and classes_of(model)[0] == first
        assert inference_model(model, np.zeros((8, 8, 3), np.uint8))['pred_class'] in classes_of(model)
    config = Config.fromfile(trained.config)
    assert classes_of(get_model(config)) == tuple('0123456789')
    config.pop('test_dataloader')  # those of the validation then
    assert classes_of(get_model(config)) == tuple('0123456789')
    config.pop('val_dataloader')
    assert classes_of(get_model(config)) is None


def test_unknown_names():
    with pytest.raises(ValueError, match='did you mean .*stvit-s_8xb128_in1k'):
        get_model('stvit-s_8xb128_in1')
    with pytest.raises(ValueError, match='list_models'):
        get_model('qqqq')
    with pytest.raises(FileNotFoundError, match='absent.py'):
        get_model('absent.py')


def test_weights_that_nobody_published(scans):
    for model in ('stvit-s_8xb128_in1k', CONFIG, Config.fromfile(CONFIG)):
        with pytest.raises(ValueError, match='no weights are published for') as error:
            get_model(model, pretrained=True)
        assert len(str(error.value)) < 300
    with pytest.raises(ValueError, match='no weights are published for stvit-s_8xb128_in1k'):
        inference_model('stvit-s_8xb128_in1k', scans[0][0])


def test_published_weights_of_a_config(trained):
    config = Config.fromfile(trained.config)
    config.load_from = str(trained.checkpoint)
    saved = torch.load(trained.checkpoint, weights_only=False)['state_dict']
    weight = get_model(config, pretrained=True).head.layers.head.weight
    assert torch.equal(weight, saved['head.layers.head.weight'])


def test_inference_equals_forward(model, scans):
    for path, array in zip(scans[0], scans[1], strict=True):
        result = inference_model(model, path)
        np.testing.assert_allclose(result['pred_scores'], direct_scores(model, array), atol=1e-5)
        assert result['pred_label'] == result['pred_scores'].argmax()
        assert result['pred_score'] == pytest.approx(result['pred_scores'].max())
        assert result['pred_class'] == '0123456789'[result['pred_label']]


def test_kinds_of_input_agree(model, scans):
    paths, arrays, _ = scans
    single = [inference_model(model, path) for path in paths]
    assert len({tuple(result['pred_scores'].round(4)) for result in single}) == 4
    for several in (
        inference_model(model, paths),
        inference_model(model, tuple(map(str, paths))),
        inference_model(model, arrays),
        inference_model(model, [paths[0], arrays[1], str(paths[2]), arrays[3]]),
        inference_model(model, paths, batch_size=3),
    ):
        assert isinstance(several, list) and len(several) == 4
        for one, two in zip(single, several, strict=True):
            assert_same(one, two)
    assert_same(inference_model(model, arrays[1]), single[1])


def test_kinds_of_model_agree(trained, model, scans, web):
    shutil.copy(trained.checkpoint, web.folder / 'for_inference.pth')
    expected = inference_model(model, scans[0][2])
    for kind, weights in (
        (trained.config, trained.checkpoint),
        (str(trained.config), str(trained.checkpoint)),
        (Config.fromfile(trained.config), web.url('for_inference.pth')),
    ):
        assert_same(inference_model(kind, weights, scans[0][2]), expected)
    assert_same(inference_model(model, scans[0][2], device='cpu'), expected)
    model.train()
    assert_same(inference_model(model, scans[0][2]), expected)
    assert not model.training


def test_images_of_pil_and_tensors(model, scans):
    """They are RGB, and what is predicted is the same as of the file."""
    rng = np.random.default_rng(0)
    bgr = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    turned = PIL.Image.fromarray(np.rot90(rgb).copy())
    turned.getexif()[0x0112] = 6  # it is shown turned clockwise by 90 degrees
    kinds = [
        bgr,
        PIL.Image.fromarray(rgb),
        tensor,
        tensor.float() / 255,
        (tensor.double() / 255).requires_grad_(),
        turned,
    ]
    expected, *others = inference_model(model, kinds, batch_size=2)
    assert not np.allclose(expected['pred_scores'], inference_model(model, rgb)['pred_scores'], atol=1e-4)
    for other in others:
        assert_same(other, expected)
    gray = PIL.Image.fromarray(rgb).convert('L')
    assert_same(inference_model(model, gray), inference_model(model, np.asarray(gray)[..., None].repeat(3, 2)))


@pytest.mark.parametrize(
    'image, message',
    [
        (torch.zeros(1, 3, 8, 8), r'shape \(3, height, width\), got \(1, 3, 8, 8\)'),
        (torch.zeros(8, 8, 3), r'got \(8, 8, 3\)'),
        (torch.zeros(3, 8, 8) - 1.5, r'values from 0 to 1, got -1.5 to -1.5'),
        (torch.full((3, 8, 8), float('nan')), r'values from 0 to 1, got nan'),
        (torch.zeros(3, 8, 8, dtype=torch.int64), 'got torch.int64'),
        (np.zeros((8, 8, 3)), 'uint8 from 0 to 255, got float64'),
    ],
)
def test_tensors_and_arrays_of_other_kinds(model, scans, image, message):
    with pytest.raises(ValueError, match=message):
        inference_model(model, image)
    _, error = inference_model(model, [scans[0][0], image], return_exceptions=True)
    assert isinstance(error, ValueError)


def test_logits(model, scans, detection):
    """They are asked for, and their softmax is what is said to be probabilities."""
    plain = inference_model(model, scans[0], batch_size=3)
    for one, expected in zip(inference_model(model, scans[0], batch_size=3, return_logits=True), plain, strict=True):
        np.testing.assert_allclose(scipy.special.softmax(one['logits']), one['pred_scores'], atol=1e-6)
        np.testing.assert_array_equal(one['pred_scores'], expected['pred_scores'])
        assert 'logits' not in expected and np.ptp(one['logits']) > 1
    with pytest.raises(ValueError, match='return_logits: .* mmdet'):
        inference_model(get_model(detection.config), np.zeros((32, 32, 3), np.uint8), return_logits=True)


def current_scope():
    instance = DefaultScope.get_current_instance()
    return instance and instance.scope_name


def test_a_stream_gives_what_a_list_does(model, scans, tmp_path):
    """Results come in order and as soon as their batch was run; what cannot be read stands in its place."""
    (tmp_path / 'text.png').write_text('hello')
    broken = tmp_path / 'text.png'
    inputs = [broken, *scans[0], scans[1][0], broken, broken, broken, scans[1][1], broken]
    expected = inference_model(model, inputs, return_exceptions=True)
    for batch_size in (1, 3, 50):
        found = list(infer(model, inputs, batch_size))
        assert [type(one) for one in found] == [type(one) for one in expected]
        for one, two in zip(found, expected):
            assert_same(one, two) if isinstance(one, dict) else None
    taken, scope = [], current_scope()
    stream = infer(model, (taken.append(i) or array for i, array in enumerate(scans[1] * 10)), 4)
    assert_same(next(stream), expected[1])
    assert len(taken) == 8  # the batch that was run, and the one that is prepared meanwhile
    assert current_scope() == scope
    stream.close()
    with pytest.raises(ZeroDivisionError):  # no fault of an input
        list(infer(model, (1 / 0 for _ in scans[1]), 2))


def test_results_are_drawn(model, scans, tmp_path):
    inference_model(model, scans[0][:2], show_dir=tmp_path / 'drawn', resize=64)
    assert sorted(path.name for path in (tmp_path / 'drawn').iterdir()) == ['0.png', '1.png']
    list(infer(model, scans[1][:3], batch_size=2, show_dir=tmp_path / 'arrays'))  # numbered through all batches
    assert sorted(path.name for path in (tmp_path / 'arrays').iterdir()) == ['0.png', '1.png', '2.png']
    with pytest.raises(ValueError, match='unknown argument .*show_folder'):
        inference_model(model, scans[0][0], show_folder=tmp_path)


def test_a_changed_pipeline_takes_effect(model, scans):
    """The pipeline is built once for a model, and anew where its config was changed."""
    resize = next(step for step in model._config.test_dataloader.dataset.pipeline if 'scale' in step)
    before, scale = inference_model(model, scans[0][0])['pred_scores'], resize.scale
    try:
        resize.scale = 24
        assert not np.allclose(inference_model(model, scans[0][0])['pred_scores'], before)
    finally:
        resize.scale = scale
    np.testing.assert_array_equal(inference_model(model, scans[0][0])['pred_scores'], before)


def test_a_stream_fetches_addresses(model, scans, web):
    """One after the other, as they are asked for."""
    shutil.copy(scans[0][1], web.folder / 'one.png')
    addresses = [web.url('one.png'), web.url('absent.png'), web.url('one.png')]
    first, absent, again = infer(model, [*addresses], batch_size=2)
    assert_same(first, inference_model(model, scans[0][1]))
    assert_same(first, again)
    assert str(absent).startswith(f'{addresses[1]}: it cannot be downloaded')


@pytest.mark.parametrize(
    'image, message',
    [
        (np.zeros((8, 8), np.uint8), r'\(8, 8\)'),
        (np.zeros((3, 8, 8), np.uint8), r'\(3, 8, 8\)'),
        (np.zeros((1, 8, 8, 3), np.uint8), r'\(1, 8, 8, 3\)'),
        (7, 'int'),
        (None, 'NoneType'),
    ],
)
def test_no_image(model, image, message):
    with pytest.raises(ValueError, match=f'an image is a path or an array .*{message}'):
        inference_model(model, image)
    with pytest.raises(ValueError, match=message):
        inference_model(model, [np.zeros((8, 8, 3), np.uint8), image])


def test_missing_and_broken_images(model, tmp_path, scans):
    with pytest.raises(FileNotFoundError, match='there is no image absent.png'):
        inference_model(model, 'absent.png')
    with pytest.raises(FileNotFoundError, match='there is no image absent.png'):
        inference_model(model, [scans[0][0], Path('absent.png')])
    (tmp_path / 'text.png').write_text('hello')
    with pytest.raises(ValueError, match='text.png'):
        inference_model(model, tmp_path / 'text.png')


def test_wrong_numbers_of_arguments(model, trained, scans):
    with pytest.raises(TypeError, match=r'\(model, inputs\)'):
        inference_model(model)
    with pytest.raises(TypeError, match='has its weights already'):
        inference_model(model, trained.checkpoint, scans[0][0])


def test_detector(detection):
    model = get_model(detection.config, detection.checkpoint)
    assert isinstance(model.backbone, STViT) and model.dataset_meta['classes'] == ('square', 'disc')
    path = detection.root / 'images' / '0.png'
    one = inference_model(model, path)
    array = cv2.imread(str(path))
    results = inference_model(detection.config, detection.checkpoint, [path, array, str(path)])
    assert len(results) == 3
    for result in results:
        assert len(result.pred_instances) > 0
        torch.testing.assert_close(result.pred_instances.bboxes, one.pred_instances.bboxes)
        torch.testing.assert_close(result.pred_instances.scores, one.pred_instances.scores)
    with pytest.raises(FileNotFoundError, match='there is no image absent.png'):
        inference_model(model, 'absent.png')
    with pytest.raises(ValueError, match='batch_size=2 has no effect'):
        inference_model(model, path, batch_size=2)


def test_segmentor(segmentation):
    """A file, its pixels and a name give the same map, of the size of the image."""
    model = get_model(segmentation.config, segmentation.checkpoint)
    assert model.dataset_meta['classes'] == ('ground', *'0123456789')
    path = segmentation.root / 'val' / '000000.png'
    image = cv2.imread(str(path))
    larger = cv2.resize(image, (96, 80))
    found = inference_model(model, [path, image, larger])
    assert type(found[0]).__name__ == 'SegDataSample' and found[2].pred_sem_seg.shape == (80, 96)
    assert torch.equal(found[0].pred_sem_seg.data, found[1].pred_sem_seg.data)
    row = record(found[2], 'mmseg', model)
    assert sum(area['share'] for area in row['areas']) == pytest.approx(1)
    drawn = draw_prediction(found[2], row, 'mmseg', model, 0.5, larger[..., ::-1])
    assert drawn.shape == larger.shape and not np.array_equal(drawn, larger[..., ::-1])
    maps = token_maps(model, path)
    assert maps.result.pred_sem_seg.shape == (64, 64) and len(maps.layers) == 3
    with pytest.raises(ValueError, match='show_dir: .* mmseg'):
        inference_model(model, path, show_dir='drawn')


def test_recogniser(video):
    model = get_model(video.config, video.checkpoint)
    clips = [video.root / 'clips' / f'{i}.mp4' for i in range(2)]
    results = inference_model(model, clips)
    assert [len(result.pred_score) for result in results] == [2, 2]
    again = inference_model(video.config, video.checkpoint, str(clips[1]))
    torch.testing.assert_close(again.pred_score, results[1].pred_score)
    assert not torch.equal(results[0].pred_score, results[1].pred_score)
    with pytest.raises(FileNotFoundError, match='there is no video absent.mp4'):
        inference_model(model, 'absent.mp4')


def test_toolboxes_live_side_by_side(model, detection, segmentation, video, scans):
    """Models of all toolboxes are built and used in turn; the scope of the caller stays what it was."""
    expected = inference_model(model, scans[0][0])
    detector, segmentor, recogniser = (get_model(run.config) for run in (detection, segmentation, video))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        inference_model(detector, detection.root / 'images' / '0.png')
        inference_model(segmentor, segmentation.root / 'val' / '000000.png')
        inference_model(recogniser, video.root / 'clips' / '0.mp4')
        assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'
        assert_same(inference_model(model, scans[0][0]), expected)
        assert MODELS.build(dict(type='LinearClsHead', num_classes=2, in_channels=3)) is not None
    assert get_model('stvit-tiny_digits') is not None
