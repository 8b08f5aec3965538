"""Files and options that were changed by chance: the right kind of result, or one line that names the file.

5,000 changed inputs a run of ``make test-long``, the same in each, and a dose of them in ``make test``.
``pytest tests/test_reliability/test_fuzz.py -m long --fuzz 100000 --fuzz-seed 1`` tries more and others. What fails is
left in the test's temporary folder.
"""

import argparse
import copy
import io
import json
import math
import pickle
import random
import resource
import sys
import zipfile

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from PIL import Image

from mmstvit.apis.models import toolbox_of
from mmstvit.cli.common import add_common_arguments, load_config
from mmstvit.compat.toolbox_pickles import DataError, plain_data
from mmstvit.datasets.checked_videos import CheckedVideos
from mmstvit.engine.datasets import build_dataset, clear_data_errors
from mmstvit.errors import UsageError, one_line
from mmstvit.io.checkpoints import CheckpointError, load, save_safetensors
from mmstvit.io.image_check import MAX_PIXELS, ImageError
from mmstvit.io.image_transforms import guard_images
from mmstvit.io.videos import VideoError, guard_reading

# Of 5,000 in all.
SHARES = dict(image=1200, video=1000, checkpoint=900, coco=800, list=500, option=500, pickle=100)
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
HALF_A_GIGABYTE = 1 << 29


@pytest.fixture(params=['dose', pytest.param('all', marks=pytest.mark.long)])
def chances(request):
    """``chances(kind)`` gives a source of chance for each changed input of a kind."""
    total = 1000 if request.param == 'dose' else request.config.getoption('--fuzz')

    def of(kind):
        count = max(100, round(SHARES[kind] * total / 5000))  # of which some do no harm
        for i in range(count):
            yield i, random.Random(f'{request.config.getoption("--fuzz-seed")} {kind} {i}')

    return of


# PyTorch tells of each pickle of an odd protocol.
pytestmark = pytest.mark.filterwarnings('ignore:Detected pickle protocol')


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Of a megapixel at most, so that little memory is enough for each."""
    monkeypatch.setenv(MAX_PIXELS, str(1 << 20))


def peak():
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


RUNS = {'pickle.find_class', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'subprocess.Popen', 'os.mkdir'}
watched = []


def _watch(event, args):
    if watched and event in RUNS:
        watched.append((event, args))


sys.addaudithook(_watch)


def changed(rng, data, others=()):
    """Bytes with one to four changes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place, length = rng.randrange(len(data) + 1), min(rng.choice((1, 2, 4, 16, 200)), len(data))
        match rng.randrange(8):
            case 0:
                del data[place:]
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = rng.randbytes(length)
            case 3:
                data[place : place + length] = rng.randbytes(length)
            case 4:
                data[place:place] = data[place : place + length]
            case 5:
                data[place : place + 4] = rng.choice(EDGES).to_bytes(4, rng.choice(('big', 'little')))
            case 6 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 7 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                data[place : place + length] = other[start : start + length]
    return bytes(data)


def judge(read, kinds, path, right, what):
    """A right result, or an error of those kinds in one line that names the file; neither takes half a gigabyte."""
    before, result = peak(), None
    try:
        result = read()
    except kinds as error:
        line = str(error)
        assert str(path) in line and '\n' not in line and len(line) < 1000, what
    else:
        assert right(result), what
    assert peak() - before < HALF_A_GIGABYTE, what
    return result is not None


# ------------------------------------------------------------------------------------------------------------ images
def picture_files():
    y, x = np.mgrid[:24, :32]
    rgb = Image.fromarray(np.stack([8 * x, 10 * y, 4 * (x + y)], axis=-1).astype(np.uint8))
    for form, image, options in (
        ('PNG', rgb, {}),
        ('PNG', rgb.quantize(16), {}),
        ('PNG', rgb.convert('LA'), {}),
        ('PNG', Image.fromarray((300 * x + y).astype(np.uint16)), {}),
        ('PNG', rgb, dict(save_all=True, append_images=[rgb.rotate(180)])),
        ('JPEG', rgb, {}),
        ('JPEG', rgb, dict(progressive=True)),
        ('JPEG', rgb.convert('CMYK'), {}),
        ('GIF', rgb.quantize(16), dict(save_all=True, append_images=[rgb.rotate(180).quantize(16)])),
        ('WEBP', rgb, {}),
        ('WEBP', rgb, dict(lossless=True)),
        ('BMP', rgb, {}),
        ('TIFF', rgb, {}),
        ('TIFF', rgb, dict(compression='tiff_lzw')),
        ('PPM', rgb, {}),
    ):
        file = io.BytesIO()
        image.save(file, form, **options)
        yield file.getvalue()
    yield cv2.imencode('.tiff', np.zeros((24, 32, 3), np.uint16))[1].tobytes()


def test_images(chances, tmp_path):
    from mmcv.transforms import LoadImageFromFile

    files, pipeline = list(picture_files()), Compose(guard_images([LoadImageFromFile()]))
    level, read = cv2.getLogLevel(), 0
    cv2.setLogLevel(0)
    path = tmp_path / 'image'
    try:
        for i, rng in chances('image'):
            path.write_bytes(changed(rng, rng.choice(files), files))
            read += judge(
                lambda: pipeline(dict(img_path=str(path)))['img'],
                ImageError,
                path,
                lambda image: image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3 and image.size > 0,
                f'image {i}',
            )
    finally:
        cv2.setLogLevel(level)
    assert 0 < read < i  # some changes do no harm


# ------------------------------------------------------------------------------------------------------------ videos
@pytest.fixture
def video_files(tmp_path):
    rng, files = np.random.default_rng(0), []
    for name, codec in (('a.mp4', 'mp4v'), ('a.avi', 'MJPG')):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*codec), 10, (32, 32))
        for frame in rng.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8):
            writer.write(frame)
        writer.release()
        files.append((tmp_path / name).read_bytes())
    return files


def test_videos(chances, video_files, tmp_path):
    """Opened and decoded as the configs do it."""
    pytest.importorskip('mmaction')
    toolbox_of(Config(dict(default_scope='mmaction')))
    from mmaction.datasets.transforms import OpenCVDecode, OpenCVInit, SampleFrames

    sample = SampleFrames(clip_len=1, num_clips=2, test_mode=True)
    steps = Compose(guard_reading([OpenCVInit(), sample, OpenCVDecode()]))
    path, read = tmp_path / 'video.mp4', 0
    for i, rng in chances('video'):
        path.write_bytes(changed(rng, rng.choice(video_files), video_files))
        read += judge(
            lambda: steps(dict(filename=str(path), start_index=0, modality='RGB'))['imgs'],
            VideoError,
            path,
            lambda frames: all(frame.dtype == np.uint8 and frame.shape[-1] == 3 for frame in frames),
            f'video {i}',
        )
    assert 0 < read < i


# ------------------------------------------------------------------------------------------------------- checkpoints
def checkpoint_files(folder):
    content = dict(
        meta=dict(epoch=1, dataset_meta=dict(classes=('a', 'b')), args=argparse.Namespace(lr=0.1)),
        state_dict={'a.weight': torch.arange(6.0).reshape(2, 3), 'a.bias': torch.ones(2, dtype=torch.float16)},
        message_hub=dict(log_scalars={'loss': HistoryBuffer([1.0, 2.0], [1, 1])}),
        best=np.float64(0.5),
    )
    torch.save(content, folder / 'a.pth')
    torch.save(content, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    save_safetensors(content, folder / 'a.safetensors')
    return content


def repacked(data, change):
    """A file of torch.save whose pickle is changed, with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, 'w') as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, change(part) if name.endswith('data.pkl') else part)
    return file.getvalue()


# What pickles are made of: names that run something, calls, states, references.
PIECES = [
    b'cos\nsystem\n',
    b'cbuiltins\nexec\n',
    b'cbuiltins\ngetattr\n',
    b'cnumpy\ndtype\n',
    b'cnumpy\nndarray\n',
    b'cnumpy._core.multiarray\nscalar\n',
    b'cmmengine.logging.history_buffer\nHistoryBuffer\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'X\x04\x00\x00\x00echo',
    b'(',
    b')',
    b't',
    b'\x85',
    b'\x86',
    b'R',
    b'b',
    b'\x81',
    b'Q',
    b's',
    b'u',
    b'e',
    b'}',
    b']',
    b'h\x00',
    b'h\x05',
    b'q\x05',
    b'K\xff',
    b'J\xff\xff\xff\x7f',
    b'N',
    b'.',
]


def with_pieces(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(2, len(data))
        piece = rng.choice(PIECES)
        data[place : place + rng.choice((0, len(piece)))] = piece
    return bytes(data)


def test_checkpoints(chances, tmp_path):
    checkpoint_files(tmp_path)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    read = 0
    for i, rng in chances('checkpoint'):
        name = rng.choice(list(files))
        data = files[name]
        match rng.randrange(3) if name == 'a.pth' else rng.choice((0, 2)) if name == 'legacy.pth' else 0:
            case 0:
                data = changed(rng, data, list(files.values()))
            case 1:
                data = repacked(data, lambda part, rng=rng: changed(rng, part))
            case 2 if name == 'a.pth':
                data = repacked(data, lambda part, rng=rng: with_pieces(rng, part))
            case _:
                data = with_pieces(rng, data)
        path = tmp_path / f'changed_{name}'
        path.write_bytes(data)
        watched[:] = ['on']
        read += judge(lambda path=path: load(str(path)), CheckpointError, path, lambda result: True, f'checkpoint {i}')
        assert watched == ['on'], f'checkpoint {i} ran {watched[1:]}'
    assert 0 < read < i


# ------------------------------------------------------------------------------------------------------- annotations
def test_pickles(chances, tmp_path):
    """Of data sets."""
    content = dict(labels=[1, 2, 1], data=np.arange(6.0).reshape(2, 3), inside=[{'a'}, (b'xy', np.float32(1))] * 3)
    files = [pickle.dumps(content, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    path, read = tmp_path / 'data.pkl', 0
    for i, rng in chances('pickle'):
        data = rng.choice(files)
        path.write_bytes(rng.choice((with_pieces(rng, data), changed(rng, data, files))))
        watched[:] = ['on']
        with plain_data():
            read += judge(lambda: [mmengine.load(path)], DataError, path, bool, f'pickle {i}')
        assert watched == ['on'], f'pickle {i} ran {watched[1:]}'
    assert 0 < read < i


ODD = [None, True, -1, 0, 1e308, math.nan, math.inf, 10**30, '', '../../x.png', '\udce9', [], {}, [[]], [math.nan] * 4]


def odd_places(content):
    """All places in nested lists and dicts, as (container, key)."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from odd_places(value)


def changed_json(rng, content):
    if rng.random() < 0.3:
        return changed(rng, json.dumps(content).encode())
    content = json.loads(json.dumps(content))
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(list(odd_places(content)))
        if rng.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(rng.choice(ODD))
        if not content:
            break
    return json.dumps(content).encode()


def test_coco_files(chances, tmp_path):
    pytest.importorskip('mmdet')
    mask_utils = pytest.importorskip('pycocotools.mask')
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((24, 32, 3), np.uint8))
    masks = [[[1, 1, 9, 1, 9, 9, 1, 9]], dict(size=[24, 32], counts=[24, 24, 720])]
    packed = mask_utils.encode(np.asfortranarray(np.eye(24, 32, dtype=np.uint8)))
    masks.append(dict(packed, counts=packed['counts'].decode()))
    content = dict(
        images=[dict(id=i, file_name='a.png', height=24, width=32) for i in range(3)],
        annotations=[
            dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 8, 8], area=64, iscrowd=0, segmentation=mask)
            for i, mask in enumerate(masks)
        ],
        categories=[dict(id=1, name='x'), dict(id=2, name='y')],
    )
    path = tmp_path / 'coco.json'
    dataset = dict(
        type='CocoDataset',
        metainfo=dict(classes=('x', 'y')),
        data_root=str(tmp_path),
        ann_file='coco.json',
        serialize_data=False,  # it collects garbage each time
        data_prefix=dict(img=''),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ],
    )
    toolbox_of(Config(dict(default_scope='mmdet')))

    def read():
        with clear_data_errors():
            built = build_dataset(dataset)
            return [built[i] for i in range(len(built))]

    whole = 0
    with DefaultScope.overwrite_default_scope('mmdet'):
        for i, rng in chances('coco'):
            path.write_bytes(changed_json(rng, content))
            whole += judge(
                read,
                UsageError,
                tmp_path,
                lambda samples: all(
                    torch.isfinite(sample['data_samples'].gt_instances.bboxes.tensor).all() for sample in samples
                ),
                f'coco {i}',
            )
    assert 0 < whole < i


def test_lists(chances, tmp_path):
    """Of images and of clips."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((24, 32, 3), np.uint8))
    (tmp_path / 'b.mp4').write_bytes(b'\0\0\0\x10ftypmp42\0\0\0\0')
    path = tmp_path / 'list.txt'
    images = dict(
        type='mmpretrain.CustomDataset',
        data_root=str(tmp_path),
        ann_file='list.txt',
        serialize_data=False,
        classes=['x', 'y'],
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    clips = dict(
        type='mmaction.VideoDataset',
        serialize_data=False,
        ann_file=str(path),
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[],
    )
    for scope in ('mmpretrain', 'mmaction'):
        toolbox_of(Config(dict(default_scope=scope)))

    def read(kind):
        if kind:
            with DefaultScope.overwrite_default_scope('mmaction'):
                return len(CheckedVideos(clips, num_classes=2))
        with DefaultScope.overwrite_default_scope('mmpretrain'), clear_data_errors():
            built = build_dataset(images, num_classes=2)
            return len([built[i] for i in range(len(built))])

    whole = 0
    for i, rng in chances('list'):
        kind = rng.randrange(2)
        name = ('a.png', 'b.mp4')[kind]
        path.write_bytes(changed(rng, f'{name} 0\n{name} 1\n'.encode() * 2))
        whole += judge(lambda kind=kind: read(kind), (UsageError, VideoError), tmp_path, lambda n: n > 0, f'list {i}')
    assert 0 < whole < i


# ----------------------------------------------------------------------------------------------------------- options
PARTS = [
    'model',
    'model.type',
    'model.a',
    'model.a.0',
    'model.b.c',
    'train_cfg',
    'nothing',
    '',
    '.',
    'a..b',
    'work_dir',
]
VALUES = [
    '1',
    '[1,2]',
    '(1,(2,3))',
    '[',
    ']',
    '((',
    'None',
    "'",
    '"a',
    '1e999',
    'True',
    '[,]',
    '=',
    'é\0',
    '{a:1}',
    '-' * 99,
]


def _has_model(cfg):
    return 'model' in cfg


def test_options(chances, tmp_path, capsys):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmpretrain'\nmodel = dict(type='X', a=[1, 2], b=dict(c=1))\ntrain_cfg = dict()\n")
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)

    def read(options):
        try:
            return load_config(parser.parse_args([str(path), '--cfg-options', *options]))
        except SystemExit as stop:
            assert stop.code == 2
            line = capsys.readouterr().err.strip().splitlines()[-1]
            raise UsageError(f'{path}: {line}') from stop
        except UsageError as error:
            raise UsageError(f'{path}: {one_line(error)}') from error

    whole = 0
    for i, rng in chances('option'):
        options = [f'{rng.choice(PARTS)}={rng.choice(VALUES)}{rng.choice(["", rng.choice(VALUES)])}']
        if rng.random() < 0.3:
            options[0] = changed(rng, options[0].encode()).decode(errors='replace')
        whole += judge(
            lambda options=options: read(options), UsageError, path, lambda cfg: 'model' in cfg, f'{i} {options}'
        )
    assert 0 < whole < i
