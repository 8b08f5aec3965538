"""Images, annotations and videos that are broken or unusual: the right result, or one line that names the file."""

import io
import json
import os
import shutil
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from run_helpers import DETECTION, VIDEO

from mmstvit import get_model, inference_model
from mmstvit.apis.models import toolbox_of
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.engine.datasets import build_dataset, clear_data_errors
from mmstvit.errors import UsageError
from mmstvit.io.image_check import ImageError, check_image_file
from mmstvit.io.image_transforms import guard_images

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')

HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([4 * X, 6 * Y, 2 * (X + Y)], axis=-1).astype(np.uint8)

CLASSIFIER = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(
        type='mmstvit.STViT', arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16), img_size=32,
        patch_size=8, semantic_grid=None),
    head=dict(type='VisionTransformerClsHead', num_classes=3, in_channels=16, loss=dict(type='CrossEntropyLoss')))
pipeline = [dict(type='LoadImageFromFile'), {resize}, dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='{root}', {names}, pipeline=pipeline)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset,
    collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader = train_dataloader
test_evaluator = val_evaluator = dict(type='Accuracy', topk=1)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg, test_cfg = dict(), dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=-1))
"""
FIXED = "dict(type='Resize', scale=(32, 32))"
SHORT = "dict(type='ResizeEdge', scale=32), dict(type='CenterCrop', crop_size=32)"
LIST, FOLDERS = "ann_file='list.txt', classes=['a', 'b', 'c']", "data_prefix=''"


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def encoded(array, suffix):
    return cv2.imencode(suffix, array)[1].tobytes()


def turned(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(Image.fromarray(RGB), 'JPEG', exif=exif, quality=100, subsampling=0)


def with_alpha():
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray((4 * X).astype(np.uint8)))
    return image


def header_of(width, height):
    """The beginning of a PNG of that size, and a few bytes of data."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    start = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + start + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')


PICTURE = Image.fromarray(RGB)
OTHER = Image.fromarray(RGB[::-1, ::-1].copy())
LUMA = (RGB @ [0.299, 0.587, 0.114]).astype(np.float64)
GREY = np.repeat(LUMA[..., None], 3, axis=-1)
PALETTE = PICTURE.quantize(64)
DEEP = (1000 * X + 37 * Y).astype(np.uint16)
# name -> content, the picture in RGB that must come of it, the largest difference
UNUSUAL = {
    'deep.png': (encoded(DEEP, '.png'), np.repeat((DEEP // 256)[..., None], 3, axis=-1), 0),
    'deep_rgb.png': (encoded(RGB[..., ::-1].astype(np.uint16) * 257, '.png'), RGB, 0),
    'deep_rgb.tiff': (encoded(RGB[..., ::-1].astype(np.uint16) * 257, '.tiff'), RGB, 0),
    'cmyk.jpg': (saved(PICTURE.convert('CMYK'), 'JPEG', quality=100, subsampling=0), RGB, 4),
    'palette.png': (saved(PALETTE, 'PNG'), np.array(PALETTE.getpalette()).reshape(-1, 3)[np.array(PALETTE)], 0),
    'alpha.png': (saved(with_alpha(), 'PNG'), RGB, 0),
    'grey.png': (saved(PICTURE.convert('L'), 'PNG'), GREY, 1),
    'grey_alpha.png': (saved(PICTURE.convert('LA'), 'PNG'), GREY, 1),
    'bits.png': (saved(Image.fromarray(X % 2 == 0), 'PNG'), np.repeat((X % 2 == 0)[..., None] * 255, 3, axis=-1), 0),
    # Turned as EXIF says: mirrored, upside down, ... (tag 274 of EXIF 2.3).
    'turned2.jpg': (turned(2), RGB[:, ::-1], 4),
    'turned3.jpg': (turned(3), RGB[::-1, ::-1], 4),
    'turned4.jpg': (turned(4), RGB[::-1], 4),
    'turned5.jpg': (turned(5), RGB.transpose(1, 0, 2), 4),
    'turned6.jpg': (turned(6), np.rot90(RGB, -1), 4),
    'turned7.jpg': (turned(7), RGB[::-1, ::-1].transpose(1, 0, 2), 4),
    'turned8.jpg': (turned(8), np.rot90(RGB), 4),
    # Of several pictures the first.
    'moving.webp': (saved(PICTURE, 'WEBP', lossless=True, save_all=True, append_images=[OTHER]), RGB, 0),
    'moving.gif': (saved(PALETTE, 'GIF', save_all=True, append_images=[OTHER.quantize(64)]), PALETTE.convert('RGB'), 0),
    'pages.tiff': (saved(PICTURE, 'TIFF', save_all=True, append_images=[OTHER]), RGB, 0),
    # Named otherwise than they are.
    'is_a_jpg.png': (saved(PICTURE, 'JPEG', quality=100, subsampling=0), RGB, 4),
    'is_a_png.jpg': (saved(PICTURE, 'PNG'), RGB, 0),
    'without_suffix': (saved(PICTURE, 'PNG'), RGB, 0),
    'one.png': (saved(PICTURE.crop((3, 4, 4, 5)), 'PNG'), RGB[4:5, 3:4], 0),
    'long.png': (encoded(np.full((1, 10_000, 3), 77, np.uint8), '.png'), np.full((1, 10_000, 3), 77), 0),
    'tall.png': (encoded(np.full((10_000, 1, 3), 77, np.uint8), '.png'), np.full((10_000, 1, 3), 77), 0),
}
WHOLE = {'jpg': saved(PICTURE, 'JPEG'), 'png': saved(PICTURE, 'PNG'), 'gif': saved(PALETTE, 'GIF')}
# name -> content and what must be said of it
BROKEN = {
    'empty.png': (b'', 'the file is empty'),
    'text.jpg': (b'<html>not here</html>', 'it is no image'),
    'zeros.png': (bytes(5000), 'it is no image'),
    'video.png': (b'\0\0\0\x18ftypmp42' + bytes(3000), 'it is no image'),
    'signature.png': (WHOLE['png'][:8], 'it is no image'),
    'cut_header.jpg': (WHOLE['jpg'][:300], 'its header is broken'),
    'cut.jpg': (WHOLE['jpg'][:-50], 'it cannot be decoded'),
    'cut.png': (WHOLE['png'][: len(WHOLE['png']) // 2], 'it is incomplete or broken'),
    'cut.gif': (WHOLE['gif'][: len(WHOLE['gif']) // 2], 'it cannot be decoded'),
    'changed.png': (WHOLE['png'][:60] + b'\0\1\2\3' + WHOLE['png'][64:], 'it cannot be decoded'),
    # OpenCV 4.12 has a fault in its reader.
    'moving.png': (
        saved(PICTURE, 'PNG', save_all=True, append_images=[OTHER]),
        'it is an animated PNG, which is not read; save its first picture',
    ),
    'bomb.png': (header_of(40_000, 40_000), 'it has 40000 x 40000 pixels, more than the 178956970 that are read'),
    'wide.png': (header_of(2**31 - 1, 1), 'it has 2147483647 x 1 pixels, more than'),
}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """A folder with all of them."""
    root = tmp_path_factory.mktemp('pictures')
    for name, (content, *_) in {**UNUSUAL, **BROKEN}.items():
        (root / name).write_bytes(content)
    (root / 'good.png').write_bytes(WHOLE['png'])
    (root / os.fsdecode(b'caf\xe9.png')).write_bytes(WHOLE['png'])  # Latin-1
    return root


def written(template, folder, **parts):
    for name, text in parts.items():
        template = template.replace('{' + name + '}', str(text))
    path = folder / 'config.py'
    path.write_text(template)
    return path


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    return get_model(written(CLASSIFIER, tmp_path_factory.mktemp('c'), resize=FIXED, root='.', names=LIST))


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    pytest.importorskip('mmdet')
    torch.manual_seed(0)
    return get_model(written(DETECTION, tmp_path_factory.mktemp('d'), root='.'))


# ----------------------------------------------------------------------------------------------- unusual, and right
def load(path):
    """An image as a data set loads it, in RGB."""
    from mmcv.transforms import LoadImageFromFile

    return Compose(guard_images([LoadImageFromFile()]))(dict(img_path=str(path)))['img'][..., ::-1]


@pytest.mark.parametrize('name', UNUSUAL)
def test_unusual_images_are_read_right(pictures, classifier, name):
    _, expected, tolerance = UNUSUAL[name]
    expected = np.asarray(expected).astype(float)
    image = load(pictures / name)
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert np.abs(image - expected).max() <= tolerance
    result = inference_model(classifier, pictures / name)
    # By hand, from the picture that must come of it.
    x = cv2.resize(image, (32, 32)).astype(np.float32)
    x = torch.from_numpy((x - 127.5) / 127.5).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = classifier.head(classifier.extract_feat(x)).softmax(-1)[0].numpy()
    np.testing.assert_allclose(result['pred_scores'], scores, atol=1e-5)


def test_broken_images_in_a_detector(pictures, detector):
    results = inference_model(detector, [pictures / name for name in (*BROKEN, 'good.png')], return_exceptions=True)
    for (name, (_, said)), result in zip(BROKEN.items(), results):
        assert type(result) is ImageError and str(result).startswith(f'{pictures / name}: {said}')
    assert torch.isfinite(results[-1].pred_instances.bboxes).all()


def test_images_of_all_kinds_in_a_detector(pictures, detector):
    names = [name for name in UNUSUAL if name not in ('long.png', 'tall.png')]
    results = inference_model(detector, [pictures / name for name in names])
    for name, result in zip(names, results, strict=True):
        assert result.ori_shape == np.asarray(UNUSUAL[name][1]).shape[:2]
        assert torch.isfinite(result.pred_instances.bboxes).all()
    # Of the long ones nothing would be left at this size.
    for name, size in (('long.png', '10000 x 1'), ('tall.png', '1 x 10000')):
        with pytest.raises(ImageError, match=f'{name}: {size} pixels cannot be resized as the config asks'):
            inference_model(detector, pictures / name)


def test_name_that_is_no_utf_8(pictures, classifier, tmp_path):
    path = pictures / os.fsdecode(b'caf\xe9.png')
    result = inference_model(classifier, path, show_dir=tmp_path / 'drawn')
    assert result['pred_label'] == inference_model(classifier, pictures / 'good.png')['pred_label']
    assert len(list((tmp_path / 'drawn').iterdir())) == 1


def read_all(config, trust_data=False):
    """All samples of a config's training set, built as the commands do."""
    cfg = Config.fromfile(config)
    scope, dataset = toolbox_of(cfg), cfg.train_dataloader.dataset
    dataset = dataset.get('dataset', dataset)
    if scope == 'mmdet':
        dataset.filter_cfg = dict(filter_empty_gt=True)
    classes = cfg.model.head.num_classes if scope == 'mmpretrain' else None
    with DefaultScope.overwrite_default_scope(scope), clear_data_errors(trust_data):
        built = build_dataset(dataset, trust_data, classes)
        return [built[i] for i in range(len(built))]


# ------------------------------------------------------------------------------------------- broken, and said in a line
@pytest.mark.parametrize('name', BROKEN)
def test_broken_images_are_named(pictures, classifier, name):
    for read in (load, lambda path: inference_model(classifier, path)):
        with pytest.raises(ImageError) as error:
            read(pictures / name)
        line = str(error.value)
        assert line.startswith(f'{pictures / name}: {BROKEN[name][1]}') and '\n' not in line


def test_bomb_is_refused_before_it_is_decoded(pictures, classifier, monkeypatch):
    def decode(*args, **kwargs):
        raise AssertionError('it was decoded')

    monkeypatch.setattr('cv2.imdecode', decode)
    with pytest.raises(ImageError, match='40000 x 40000'):
        inference_model(classifier, pictures / 'bomb.png')


def test_limit_of_pixels(pictures, classifier, monkeypatch):
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(HEIGHT * WIDTH - 1))
    with pytest.raises(ImageError, match='60 x 40 pixels, .* 2399 .* MMSTVIT_MAX_PIXELS'):
        inference_model(classifier, pictures / 'good.png')
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(HEIGHT * WIDTH))
    inference_model(classifier, pictures / 'good.png')
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '2000000000')
    with pytest.raises(ImageError, match='bomb.png: it cannot be decoded'):  # OpenCV has a limit of its own
        load(pictures / 'bomb.png')
    for wrong in ('many', '0', '-1', ''):
        monkeypatch.setenv('MMSTVIT_MAX_PIXELS', wrong)
        with pytest.raises(ValueError, match='it must be a number of pixels'):
            inference_model(classifier, pictures / 'good.png')


def test_file_of_more_bytes_than_pixels_can_have(tmp_path):
    path = tmp_path / 'long.png'
    path.write_bytes(WHOLE['png'])
    with path.open('r+b') as file:
        file.truncate(8 * 178_956_970 + (1 << 24) + 1)  # no block of it is on the disk
    with pytest.raises(ImageError, match='long.png: it has .* bytes, more than an image'):
        check_image_file(str(path))


def test_picture_that_resizing_would_unfold(tmp_path, pictures):
    """By its short edge to 224, a line of 10,000 pixels would be 224 x 2,240,000."""
    resize = SHORT.replace('32', '224')
    model = get_model(written(CLASSIFIER, tmp_path, resize=resize, root='.', names=LIST))
    for name, size in (('long.png', '2240000 x 224'), ('tall.png', '224 x 2240000')):
        with pytest.raises(ImageError, match=f'{name}: it would be resized to {size} pixels, more than'):
            inference_model(model, pictures / name)
    assert 'pred_label' in inference_model(model, pictures / 'one.png')


@pytest.mark.parametrize('batch_size', [1, 4])
def test_broken_images_in_a_list_do_not_lose_the_others(pictures, classifier, tmp_path, batch_size):
    paths = [pictures / 'good.png']
    for broken in BROKEN:
        paths += [pictures / broken, pictures / 'alpha.png']
    paths += [pictures / 'absent.png', np.zeros((3, 4), np.uint8)]
    one, two = (inference_model(classifier, pictures / name) for name in ('good.png', 'alpha.png'))
    results = inference_model(
        classifier, paths, batch_size=batch_size, return_exceptions=True, show_dir=tmp_path / 'drawn'
    )
    assert len(results) == len(paths)
    for path, result in zip(paths, results, strict=True):
        name = getattr(path, 'name', None)
        if name in ('good.png', 'alpha.png'):
            expected = one if name == 'good.png' else two
            np.testing.assert_allclose(result['pred_scores'], expected['pred_scores'], atol=1e-5)
        else:
            kind = {'absent.png': FileNotFoundError, None: ValueError}.get(name, ImageError)
            assert type(result) is kind and (name is None or name in str(result))
    assert sorted(path.name for path in (tmp_path / 'drawn').iterdir()) == ['alpha.png', 'good.png']
    with pytest.raises(ImageError, match='empty.png') as error:
        inference_model(classifier, paths, batch_size=batch_size)
    assert [type(result) for result in error.value.results] == [type(result) for result in results]
    assert error.value.results[2]['pred_label'] == two['pred_label']


def test_broken_videos_in_a_list_do_not_lose_the_others(broken_videos, tmp_path):
    pytest.importorskip('mmaction')
    recogniser = get_model(written(VIDEO, tmp_path, root='.'))
    whole = next(iter(broken_videos)).with_name('whole.mp4')
    clips = [*broken_videos, shutil.copy(whole, tmp_path / os.fsdecode(b'caf\xe9.mp4'))]
    results = inference_model(recogniser, clips, return_exceptions=True)
    for clip, result in zip(clips[:-1], results, strict=False):
        if clip.name == 'one_frame.mp4':  # the config takes single frames
            assert result.pred_score.shape == (2,)
        else:
            assert str(result).startswith(f'{clip}: ') and '\n' not in str(result)
    assert torch.equal(results[-1].pred_score, inference_model(recogniser, whole).pred_score)


# --------------------------------------------------------------------------------------------- data sets, images
def case(pictures, tmp_path, names, resize=FIXED, folders=False):
    root = tmp_path / 'root'
    root.mkdir()
    for i, name in enumerate(names):
        place = root / 'abc'[i % 3] if folders else root
        place.mkdir(exist_ok=True)
        shutil.copy(pictures / name, place / name)
    (root / 'list.txt').write_bytes(b''.join(os.fsencode(f'{name} {i % 3}\n') for i, name in enumerate(names)))
    config = written(CLASSIFIER, tmp_path, resize=resize, root=root, names=FOLDERS if folders else LIST)
    return SimpleNamespace(root=root, config=config, list=root / 'list.txt')


def test_broken_image_stops_a_command_with_a_line(pictures, tmp_path, fails):
    """Read by a worker in training, by the command itself in testing."""
    made = case(pictures, tmp_path, ['good.png', 'cut.jpg', 'alpha.png'])
    torch.save(dict(state_dict=get_model(made.config).state_dict()), tmp_path / 'weights.pth')
    for line in (
        fails(train, made.config, '--work-dir', tmp_path / 'work', '--cfg-options', 'train_dataloader.num_workers=1'),
        fails(evaluate, made.config, '--work-dir', tmp_path / 'work', tmp_path / 'weights.pth'),
    ):
        assert line == f'error: {made.root / "cut.jpg"}: it cannot be decoded, it is incomplete or broken'


@pytest.mark.parametrize('name', BROKEN)
def test_broken_image_of_a_data_set_is_named(pictures, tmp_path, name):
    made = case(pictures, tmp_path, ['good.png', name])
    with pytest.raises(UsageError, match=f'^{made.root / name}: {BROKEN[name][1]}'):
        read_all(made.config)


def test_unusual_images_of_a_data_set(pictures, tmp_path):
    made = case(pictures, tmp_path, list(UNUSUAL))
    samples = read_all(made.config)
    assert len(samples) == len(UNUSUAL)
    for sample, (name, (_, expected, tolerance)) in zip(samples, UNUSUAL.items(), strict=True):
        assert sample['data_samples'].ori_shape == np.asarray(expected).shape[:2], name
        if sample['data_samples'].ori_shape == (HEIGHT, WIDTH):
            expected = cv2.resize(np.asarray(expected).astype(np.uint8), (32, 32))
            assert (
                np.abs(sample['inputs'].numpy()[::-1].transpose(1, 2, 0) - expected.astype(int)).max() <= tolerance + 1
            )


@pytest.fixture
def frames(pictures, tmp_path):
    """``frames(name)``: mmaction2's samples of a folder of frames, the second of which is that picture."""
    pytest.importorskip('mmaction')
    toolbox_of(Config(dict(default_scope='mmaction')))
    root = tmp_path / 'frames'

    def read(name, entry='a'):
        (root / 'a').mkdir(parents=True, exist_ok=True)
        (root / 'list.txt').write_text(f'{entry} 2 0\n')
        shutil.copy(pictures / 'good.png', root / 'a' / '1.png')
        if name is not None:
            shutil.copy(pictures / name, root / 'a' / '2.png')
        dataset = dict(
            type='RawframeDataset',
            ann_file=str(root / 'list.txt'),
            data_prefix=dict(img=str(root)),
            filename_tmpl='{}.png',
            test_mode=True,
            pipeline=[dict(type='SampleFrames', clip_len=2, num_clips=1, test_mode=True), dict(type='RawFrameDecode')],
        )
        with DefaultScope.overwrite_default_scope('mmaction'), clear_data_errors():
            return build_dataset(dataset)[0]['imgs']

    read.root = root
    return read


def test_images_that_are_frames(frames):
    """Of unusual kinds, broken, missing, and elsewhere."""
    for name, (_, expected, tolerance) in UNUSUAL.items():
        first, second = frames(name)
        assert np.array_equal(first, RGB)
        assert second.shape == np.asarray(expected).shape
        assert np.abs(second - np.asarray(expected).astype(float)).max() <= tolerance, name
    for name, (_, said) in BROKEN.items():
        with pytest.raises(UsageError, match=f'^{frames.root}/a/2.png: {said}'):
            frames(name)
    (frames.root / 'a' / '2.png').unlink()
    with pytest.raises(UsageError, match=f'^{frames.root}/a/2.png: there is no such file'):
        frames(None)
    shutil.copytree(frames.root / 'a', frames.root.parent / 'b')
    with pytest.raises(UsageError, match=f"^{frames.root}/../b/.*: it leads out of the data set's folder"):
        frames(None, '../b')


def test_name_that_is_no_utf_8_in_a_folder(pictures, tmp_path):
    made = case(pictures, tmp_path, ['good.png', 'alpha.png', os.fsdecode(b'caf\xe9.png')], folders=True)
    train([str(made.config), '--work-dir', str(tmp_path / 'work')])


@pytest.mark.parametrize(
    'text, said',
    [
        (b'good.png 7\n', "good.png: it has the label 7, and the model's classes end at 2"),
        (b'good.png -1\n', 'good.png: it has the label -1'),
        (b'good.png one\n', 'list.txt: the data set cannot be read: '),
        (b'good.png\n', 'list.txt: the data set cannot be read: '),
        (b'absent.png 0\n', 'absent.png: there is no such file'),
        (b'caf\xe9.png 0\n', 'list.txt: the data set cannot be read: '),
        (b'', 'list.txt: '),
    ],
)
def test_faults_of_a_list_of_images(pictures, tmp_path, text, said):
    made = case(pictures, tmp_path, ['good.png'])
    made.list.write_bytes(text)
    with pytest.raises(UsageError, match=f'^{made.root}/{said}'):
        read_all(made.config)


def test_list_that_is_not_there(pictures, tmp_path, fails):
    made = case(pictures, tmp_path, ['good.png'])
    made.list.unlink()
    with pytest.raises(UsageError, match=f'^{made.list}: the data set cannot be read: .*No such file'):
        read_all(made.config)
    assert str(made.list) in fails(train, made.config, '--work-dir', tmp_path / 'work')


def test_folder_without_images(pictures, tmp_path):
    made = case(pictures, tmp_path, [], folders=True)
    (made.root / 'a').mkdir()
    with pytest.raises(
        UsageError, match=f'^{made.root}/?: there are no files with the endings .bmp, .*; check the data folder'
    ):
        read_all(made.config)


# ---------------------------------------------------------------------------------------------- data sets, entries
def outside(pictures, tmp_path):
    (tmp_path / 'private').mkdir()
    shutil.copy(pictures / 'good.png', tmp_path / 'private' / 'secret.png')
    return tmp_path / 'private' / 'secret.png'


@pytest.mark.parametrize('how', ['..', 'absolute', 'link', 'link to a folder'])
def test_entry_that_leads_out_of_the_data_set(pictures, tmp_path, fails, how):
    made, secret = case(pictures, tmp_path, ['good.png']), outside(pictures, tmp_path)
    name = {'..': '../private/secret.png', 'absolute': secret, 'link': 'link.png', 'link to a folder': 'in/secret.png'}
    (made.root / 'link.png').symlink_to(secret)
    (made.root / 'in').symlink_to(secret.parent)
    made.list.write_text(f'good.png 0\n{name[how]} 1\n')
    with pytest.raises(UsageError) as error:
        read_all(made.config)
    said = f"{name[how]}: it leads out of the data set's folder, to {secret}; give --trust-data if that is meant"
    assert str(error.value).endswith(said)
    assert len(read_all(made.config, trust_data=True)) == 2
    if how == '..':
        assert fails(train, made.config, '--work-dir', tmp_path / 'work').endswith(said)
        train([str(made.config), '--work-dir', str(tmp_path / 'work'), '--trust-data'])


def test_links_that_stay_in_the_data_set(pictures, tmp_path):
    """Also where the data set's folder is a link itself, or the one that the config puts before the names."""
    made = case(pictures, tmp_path, ['good.png'])
    (made.root / 'link.png').symlink_to(made.root / 'good.png')
    (made.root / 'sub').mkdir()
    made.list.write_text('link.png 0\nsub/../good.png 1\n')
    (tmp_path / 'linked').symlink_to(made.root)
    (tmp_path / 'other').mkdir()
    shutil.copy(made.list, tmp_path / 'other' / 'list.txt')
    (tmp_path / 'other' / 'images').symlink_to(made.root)
    text = made.config.read_text()
    for root, prefix in ((made.root, ''), (tmp_path / 'linked', ''), (tmp_path / 'other', 'images')):
        named = f"data_root='{root}', data_prefix='{prefix}'"
        made.config.write_text(text.replace(f"data_root='{made.root}'", named))
        assert len(read_all(made.config)) == 2


def test_clip_that_leads_out_of_the_data_set(broken_videos, tmp_path):
    pytest.importorskip('mmaction')
    from mmstvit.datasets.checked_videos import CheckedVideos
    from mmstvit.io.videos import VideoError

    root = tmp_path / 'clips'
    root.mkdir()
    shutil.copy(next(iter(broken_videos)).with_name('whole.mp4'), root / '0.mp4')
    shutil.copy(root / '0.mp4', tmp_path / 'secret.mp4')
    (root / 'link.mp4').symlink_to(tmp_path / 'secret.mp4')
    listed = tmp_path / 'list.txt'
    settings = dict(type='VideoDataset', ann_file=str(listed), pipeline=[])
    for name in ('../secret.mp4', tmp_path / 'secret.mp4', 'link.mp4'):
        listed.write_text(f'0.mp4 0\n{name} 1\n')
        with DefaultScope.overwrite_default_scope('mmaction'):
            inside = dict(settings, data_prefix=dict(video=str(root)))
            with pytest.raises(VideoError, match=r"line 2, .*leads out of the data set's folder, to .*secret.mp4"):
                CheckedVideos(inside, skip_broken=True)
            assert len(CheckedVideos(inside, trust_data=True)) == 2
    listed.write_text(f'{root / "0.mp4"} 0\n')
    with DefaultScope.overwrite_default_scope('mmaction'):
        assert len(CheckedVideos(dict(settings, data_prefix=dict(video='')))) == 1  # a list of paths has no folder


# ---------------------------------------------------------------------------------------------- data sets, COCO
@pytest.fixture(scope='module')
def scenes(tmp_path_factory, pictures):
    pytest.importorskip('mmdet')
    root = tmp_path_factory.mktemp('scenes')
    (root / 'images').mkdir()
    for path in pictures.iterdir():
        shutil.copy(path, root / 'images' / path.name)
    return SimpleNamespace(root=root, config=written(DETECTION, root, root=root), path=root / 'scenes.json')


def coco(**changes):
    """One image with one box; ``image``, ``annotation`` and the rest are changed."""
    content = dict(
        images=[dict(dict(id=1, file_name='good.png', height=HEIGHT, width=WIDTH), **changes.pop('image', {}))],
        annotations=[
            dict(
                dict(id=5, image_id=1, category_id=1, bbox=[4, 4, 20, 20], area=400, iscrowd=0),
                **changes.pop('annotation', {}),
            )
        ],
        categories=[dict(id=1, name='square'), dict(id=2, name='disc')],
    )
    return json.dumps({**content, **changes})


NAN, INF = float('nan'), float('inf')
SQUARE = [[4, 4, 24, 4, 24, 24, 4, 24]]


@pytest.mark.parametrize(
    'content, said',
    [
        (coco(annotation=dict(bbox=[4, NAN, 20, 20])), 'annotation 5 has the bbox [4, nan, 20, 20], which is not four'),
        (coco(annotation=dict(bbox=[4, 4, INF, 20])), 'annotation 5 has the bbox [4, 4, inf, 20], which is not four'),
        (coco(annotation=dict(bbox=[4, 4, 20])), 'annotation 5 has the bbox [4, 4, 20], which is not four'),
        (coco(annotation=dict(bbox=['4', 4, 20, 20])), "annotation 5 has the bbox ['4', 4, 20, 20], which is not four"),
        (coco(annotation=dict(bbox=None)), 'annotation 5 has the bbox None, which is not four'),
        (coco(annotation=dict(area=NAN)), 'annotation 5 has the area nan, which is no finite number'),
        (coco(annotation=dict(segmentation=[[4, 4, 24, NAN, 24, 24]])), 'segmentation that is no list of polygons'),
        (coco(annotation=dict(segmentation='square')), 'segmentation that is no list of polygons'),
        (
            coco(annotation=dict(segmentation=dict(size=[9000, 9000], counts='abc'))),
            'a segmentation of the size [9000, 9000], and the image has [40, 60]',
        ),
        (coco(annotation=dict(segmentation=dict(size=[40, 60], counts=[-3, 2403]))), 'whose counts do not fill'),
        (coco(annotation=dict(segmentation=dict(size=[40, 60], counts=[1, 9]))), 'whose counts do not fill'),
        (coco(annotation=dict(segmentation=dict(size=[40, 60]))), 'a segmentation without counts'),
        (coco(image=dict(height=NAN)), 'its height and width are nan and 60'),
        (coco(image=dict(width=-60)), 'its height and width are 40 and -60'),
        (coco(image=dict(file_name=3)), 'its file_name is 3'),
        (coco(images=None), 'no annotation file in the format of COCO'),
        (coco(annotations=[1, 2]), 'no annotation file in the format of COCO'),
        (coco(annotations=[]), 'no image can be used'),
        (coco()[:-40], 'no annotation file in the format of COCO'),
        ('', 'no annotation file in the format of COCO'),
        ('[' * 100_000, 'no annotation file in the format of COCO'),
        ('[]', 'no annotation file in the format of COCO'),
        ('null', 'no annotation file in the format of COCO'),
        (b'\xff\xfe{}', 'no annotation file in the format of COCO'),
    ],
)
def test_faults_of_a_coco_file(scenes, content, said):
    scenes.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as error:
        read_all(scenes.config)
    line = str(error.value)
    assert line.startswith(str(scenes.path)) and said in line and len(line) < 500


def test_coco_file_that_is_not_there(scenes, fails, tmp_path):
    scenes.path.unlink(missing_ok=True)
    with pytest.raises(UsageError, match=f'^{scenes.path}: the data set cannot be read: .*No such file'):
        read_all(scenes.config)
    assert str(scenes.path) in fails(train, scenes.config, '--work-dir', tmp_path / 'work')


@pytest.mark.parametrize(
    'name, said',
    [
        *((name, said) for name, (_, said) in BROKEN.items()),
        ('absent.png', 'there is no such file'),
        ('../scenes.json', 'it is no image'),
        ('../../secret.png', "it leads out of the data set's folder"),
    ],
)
def test_images_of_a_coco_file(scenes, fails, name, said, tmp_path):
    scenes.path.write_text(coco(image=dict(file_name=name)))
    with pytest.raises(UsageError, match=f'^{scenes.root}/images/{name}: {said}'):
        read_all(scenes.config)
    if name == 'cut.png':
        assert fails(train, scenes.config, '--work-dir', tmp_path / 'work').startswith(
            f'error: {scenes.root}/images/{name}: {said}'
        )


@pytest.mark.parametrize('name', [name for name in UNUSUAL if name not in ('long.png', 'tall.png', 'one.png')])
def test_unusual_images_of_a_coco_file(scenes, name):
    _, expected, tolerance = UNUSUAL[name]
    expected = np.asarray(expected).astype(np.uint8)
    scenes.path.write_text(coco(image=dict(file_name=name, height=expected.shape[0], width=expected.shape[1])))
    (sample,) = read_all(scenes.config)
    height, width = sample['data_samples'].img_shape
    difference = (
        cv2.resize(expected, (width, height))[..., ::-1].astype(int) - sample['inputs'].permute(1, 2, 0).numpy()
    )
    assert np.abs(difference).max() <= tolerance + 1


def test_images_of_one_line_of_a_coco_file(scenes):
    """What is left of a line of 10,000 pixels at this size is nothing; a single pixel is read."""
    for name, width, height in (('long.png', 10_000, 1), ('tall.png', 1, 10_000)):
        box = dict(bbox=[0, 0, width, height], area=width * height)
        scenes.path.write_text(coco(image=dict(file_name=name, height=height, width=width), annotation=box))
        with pytest.raises(UsageError, match=f'{name}: {width} x {height} pixels cannot be resized as the config asks'):
            read_all(scenes.config)
    scenes.path.write_text(
        coco(image=dict(file_name='one.png', height=1, width=1), annotation=dict(bbox=[0, 0, 1, 1], area=1))
    )
    (sample,) = read_all(scenes.config)
    assert (sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1] == RGB[4, 3]).all()


def test_name_that_is_no_utf_8_in_a_coco_file(scenes):
    scenes.path.write_text(coco(image=dict(file_name=os.fsdecode(b'caf\xe9.png'))))
    (sample,) = read_all(scenes.config)
    assert sample['data_samples'].img_path.endswith('.png')


def test_whole_coco_files_pass(scenes):
    counts = [4 * 40, 20 * 40, 36 * 40]  # columns
    for mask in (None, SQUARE, [*SQUARE, [1, 2, 3, 4]], dict(size=[HEIGHT, WIDTH], counts=counts), []):
        scenes.path.write_text(coco(annotation=dict(segmentation=mask)))
        (sample,) = read_all(scenes.config)
        assert sample['inputs'].shape[0] == 3 and len(sample['data_samples'].gt_instances) == 1
