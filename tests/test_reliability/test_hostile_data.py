"""Data sets that want to run code or to lead elsewhere, and inputs that come from an address.

The payloads make a folder, so that a test sees whether anything was run.
"""

import http.server
import io
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import time
from types import SimpleNamespace

import cv2
import mmengine
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from run_helpers import DETECTION, TINY, VIDEO, Call, serving

from mmstvit import get_model, inference_model
from mmstvit.apis.models import toolbox_of
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.compat.toolbox_pickles import DataError, plain_data
from mmstvit.datasets.clips import draw_clip, write_video
from mmstvit.engine.datasets import build_dataset, clear_data_errors
from mmstvit.errors import UsageError
from mmstvit.io.image_check import ImageError
from mmstvit.io.pickles import loads
from mmstvit.io.roots import leads_outside, real_paths

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')


class Python2(pickle._Pickler):
    """Writes text and bytes as Python 2 does, where they are the same."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        data = value.encode('latin1') if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack('<i', len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def python_2(content):
    file = io.BytesIO()
    Python2(file, protocol=2).dump(content)
    return file.getvalue()


@pytest.fixture
def mark(tmp_path):
    """A folder that is made when something was run."""
    return tmp_path / 'mark'


def build(dataset, scope='mmpretrain', trust_data=False):
    """A data set, as the commands build it."""
    toolbox_of(Config(dict(default_scope=scope)))
    with DefaultScope.overwrite_default_scope(scope), clear_data_errors(trust_data):
        return build_dataset(dict(dataset), trust_data)


# ----------------------------------------------------------------------------------------------------- pickles
ARRAYS = dict(
    floats=np.arange(6.0).reshape(2, 3),
    columns=np.asfortranarray(np.arange(6, dtype='>i2').reshape(2, 3)),
    half=np.ones((2, 0), np.float16),
    text=np.array(['ab', 'c']),
    one=np.float32(0.5),
    none=None,
    inside=[(1, 'ä', b'\xff', b''), {2: {3.5, 'x'}, frozenset('ab'): True}, bytearray(b'xy'), 1 << 100, 1j],
)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_are_read(protocol):
    data = pickle.dumps(ARRAYS, protocol)
    found, expected = loads(data), pickle.loads(data)
    assert list(found) == list(ARRAYS) and found['inside'] == ARRAYS['inside'] and found['none'] is None
    for name in ('floats', 'columns', 'half', 'text', 'one'):
        assert found[name].dtype == expected[name].dtype and np.array_equal(found[name], ARRAYS[name])
    again = pickle.loads(pickle.dumps(found))  # as a data set keeps it
    assert type(again['floats']) is np.ndarray and np.array_equal(again['columns'], ARRAYS['columns'])


def test_pickles_of_python_2_are_read():
    content = dict(data=np.arange(256, dtype=np.uint8), labels=[3, 4], names=['a', 'b'])
    data = python_2(content)
    found, expected = loads(data, encoding='latin1'), pickle.loads(data, encoding='latin1')
    assert found['labels'] == expected['labels'] and found['names'] == expected['names']
    assert np.array_equal(found['data'], expected['data']) and found['data'].dtype == np.uint8


HOSTILE = {
    'call': pickle.dumps(Call(os.mkdir, 'x')),
    'numpy': pickle.dumps(Call(np.load, 'x')),
    'objects': pickle.dumps(np.array([Call(os.mkdir, 'x')], object)),
    'other encoding': pickle.dumps(Call(__import__('codecs').encode, 'x', 'hex')),
    'getattr': pickle.dumps(Call(getattr, 'x', 'lower')),
    'instance': pickle.dumps(SimpleNamespace(a=1)),
    'old instance': b'(iposix\nsystem\np0\n.',
    'persistent': b'Px\n.',
    'extension': b'\x82\x01.',
    # The state of what may be called: attributes of a function.
    'state': b'cnumpy._core.multiarray\n_reconstruct\n(N}X\x0c\x00\x00\x00__defaults__(K\x01tsdtb.',
    'subclass': b'cnumpy\nndarray\n)\x81.',
    # Each names far more memory than there is.
    'length': b'\x80\x05\x96' + (1 << 60).to_bytes(8, 'little') + b'x.',
    'place in the memo': b'Nr\xff\xff\xff\x7f0' + b'Nr\xfe\xff\xff\x7f' + b'x.',
    'zeros': b'cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.',
    'more zeros': b'cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_other_pickles_are_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'data.pkl'
    path.write_bytes(HOSTILE[name])
    with plain_data(), pytest.raises(DataError, match=f'^{path}: it (holds .* could run code|is no pickle)') as error:
        mmengine.load(path)
    assert '\n' not in str(error.value) and not (tmp_path / 'x').exists()


def test_plain_data_ends_with_its_block(mark, tmp_path):
    path = tmp_path / 'data.pkl'
    path.write_bytes(pickle.dumps(Call(os.mkdir, str(mark))))
    with plain_data():
        with plain_data(trust_data=True):
            mmengine.load(path)
        mark.rmdir()
        with pytest.raises(DataError):
            mmengine.load(path)
    mmengine.load(path)  # a program of its own is left as it is
    assert mark.is_dir()


CIFAR = """
train_dataloader = dict(dataset=dict(_delete_=True, type='mmpretrain.CIFAR10', data_root='{root}', download=False,
    pipeline=[dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(_delete_=True, type='mmpretrain.CIFAR10', data_root='{root}', download=False,
    split='test', pipeline=[dict(type='PackInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small data set in the form of CIFAR-10, the config of a training on it, and one of its files."""
    from mmpretrain.datasets import CIFAR10

    # mmpretrain knows the MD5 of the real ones.
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda dataset: True)
    folder = tmp_path / 'root' / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('data_batch_1', 'data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
        data = rng.integers(0, 255, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(python_2(dict(data=data, labels=[0, 1, 2, 3], filenames=['a'] * 4)))
    config = tmp_path / 'cifar.py'
    config.write_text(TINY + CIFAR.replace('{root}', str(tmp_path / 'root')))
    return SimpleNamespace(config=config, file=folder / 'data_batch_3', test=folder / 'test_batch')


def test_cifar_in_the_commands(cifar, mark, fails, tmp_path):
    """As it is, and with a call in one of its files."""
    work = ('--work-dir', str(tmp_path / 'work'))
    train([str(cifar.config), *work])
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    assert checkpoint.is_file()
    hostile = pickle.dumps(dict(data=np.zeros((4, 3072), np.uint8), labels=[0] * 4, x=Call(os.mkdir, str(mark))), 2)
    for file, main, *args in ((cifar.file, train, cifar.config), (cifar.test, evaluate, cifar.config, checkpoint)):
        file.write_bytes(hostile)
        said = f'error: {file}: it holds posix.mkdir, which could run code, and is not read: give --trust-data if'
        assert fails(main, *args, *work).startswith(said) and not mark.exists()
        main([str(arg) for arg in (*args, *work, '--trust-data')])
        assert mark.is_dir()
        mark.rmdir()


def skeletons(mark=None):
    one = dict(
        label=1,
        img_shape=(20, 30),
        total_frames=4,
        keypoint=np.ones((1, 4, 17, 2), np.float16),
        keypoint_score=np.ones((1, 4, 17), np.float16),
    )
    annotations = [dict(one, frame_dir=name) for name in 'abc']
    if mark:
        annotations[1]['note'] = Call(os.mkdir, str(mark))
    return dict(split=dict(train=['a', 'b'], val=['c']), annotations=annotations)


def test_skeletons(mark, tmp_path):
    """mmaction2's, in one file for all or one a clip, which a worker reads."""
    pytest.importorskip('mmaction')
    path = tmp_path / 'poses.pkl'
    dataset = dict(type='PoseDataset', ann_file=str(path), split='train', pipeline=[])
    mmengine.dump(skeletons(), path)
    built = build(dataset, 'mmaction')
    assert len(built) == 2 and built[0]['keypoint'].dtype == np.float16 and built[1]['label'] == 1
    mmengine.dump(skeletons(mark), path)
    with pytest.raises(UsageError, match=f'^{path}: it holds posix.mkdir, which could run code'):
        build(dataset, 'mmaction')
    assert not mark.exists()
    build(dataset, 'mmaction', trust_data=True)
    assert mark.is_dir()
    mark.rmdir()
    mmengine.dump(skeletons(), path)
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(Call(os.mkdir, str(mark))))
    built = build(dict(dataset, data_prefix=dict(skeleton=str(tmp_path))), 'mmaction')
    with clear_data_errors(), pytest.raises(DataError, match=f'^{tmp_path}/a.pkl: it holds'):
        built[0]
    assert not mark.exists()


def listed(data_list):
    return dict(metainfo=dict(classes=['x', 'y']), data_list=data_list)


@pytest.mark.parametrize('ending', ['pkl', 'pickle', 'yaml', 'yml'])
def test_annotation_files_of_mmengine(mark, tmp_path, ending):
    """Any data set of the three toolboxes may have one."""
    path = tmp_path / f'list.{ending}'
    dataset = dict(type=BaseDataset, ann_file=str(path), pipeline=[])
    mmengine.dump(listed([dict(img_path='a.png', gt_label=1)]), path)
    assert build(dataset)[0]['gt_label'] == 1
    if ending.startswith('p'):
        path.write_bytes(pickle.dumps(listed(Call(os.mkdir, str(mark)))))
    else:
        path.write_text(f'metainfo: {{}}\ndata_list: !!python/object/apply:os.mkdir [{mark}]\n')
    what = 'posix.mkdir' if ending.startswith('p') else '!!python/object/apply:os.mkdir'
    with pytest.raises(UsageError, match=f'^{path}: it holds {what}, which could run code'):
        build(dataset)
    assert not mark.exists()
    with pytest.raises(UsageError):  # what the call gives back is no list
        build(dataset, trust_data=True)
    assert mark.is_dir()


def test_proposals_and_label_trees(mark, tmp_path):
    """Of mmaction2's AVA, which are read after the data set, and of mmdet's OpenImages, which NumPy would unpickle."""
    pytest.importorskip('mmaction')
    pytest.importorskip('mmdet')
    from mmdet.datasets import openimages

    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps(Call(os.mkdir, str(mark))))
    (tmp_path / 'ava.csv').write_text('a,0902,0.1,0.1,0.5,0.5,12,0\n')
    dataset = dict(type='AVADataset', ann_file=str(tmp_path / 'ava.csv'), proposal_file=str(path), pipeline=[])
    with pytest.raises(UsageError, match=f'{path}: it holds posix.mkdir'):
        build(dataset, 'mmaction')
    tree = tmp_path / 'tree.npy'
    reader = SimpleNamespace(backend_args=None)
    read = openimages.OpenImagesChallengeDataset._get_relation_matrix
    np.save(tree, np.arange(9).reshape(3, 3))
    with plain_data():
        assert read(reader, str(tree)).tolist() == [[4, 5], [7, 8]]
        np.save(tree, np.array([Call(os.mkdir, str(mark))], object))
        with pytest.raises(DataError, match=f'^{tree}: it is no array of numbers'):
            read(reader, str(tree))
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------- ways out of a root
@pytest.mark.parametrize(
    'path, outside',
    [
        ('{root}/a.png', False),
        ('{root}/x://../../secret.png', True),  # is no address, whatever is in it
        ('{root}/x:/../../secret.png', True),
        ('http://somewhere/a.png', True),
        ('s3://bucket/data/a.png', False),
        ('s3://bucket/data/../other.png', True),
        ('s3://bucket/data2/a.png', True),
        ('near:s3://bucket/data/a.png', True),
        ('/etc/passwd', True),
    ],
)
def test_addresses_are_no_way_out(path, outside, tmp_path):
    roots = real_paths([str(tmp_path), 's3://bucket/data/'])
    path = path.replace('{root}', str(tmp_path))
    assert (leads_outside(path, roots) is not None) is outside


def test_the_same_name_in_another_working_folder(tmp_path, monkeypatch):
    for folder in ('first', 'second'):
        (tmp_path / folder / 'data').mkdir(parents=True)
        monkeypatch.chdir(tmp_path / folder)
        assert leads_outside('data/image.png', real_paths(['data'])) is None


def test_folder_named_like_a_scheme_is_no_way_out(tmp_path):
    """A data set may bring such a folder along; OpenCV reads what is behind it."""
    pytest.importorskip('mmaction')
    from mmstvit.datasets.checked_videos import CheckedVideos
    from mmstvit.io.videos import VideoError

    (tmp_path / 'clips' / 'x:').mkdir(parents=True)
    write_video(tmp_path / 'secret.mp4', draw_clip('train', 0), 8)
    (tmp_path / 'list.txt').write_text('x://../../secret.mp4 0\n')
    settings = dict(
        type='mmaction.VideoDataset',
        ann_file=str(tmp_path / 'list.txt'),
        data_prefix=dict(video=str(tmp_path / 'clips')),
        pipeline=[],
    )
    assert (tmp_path / 'clips' / 'x://../../secret.mp4').is_file()
    with pytest.raises(VideoError, match="leads out of the data set's folder, to .*secret.mp4"):
        CheckedVideos(settings)


@pytest.mark.parametrize(
    'playlist', ['#EXTM3U\n#\1\n#EXTINF:1,\nother.ts\n', "ffconcat version 1.0\n#\1\nfile 'other.ts'\n"]
)
def test_playlist_in_the_place_of_a_clip(tmp_path, playlist):
    """FFmpeg would read the file that it names, and a list of segments may name any."""
    from mmstvit.io.videos import Video, VideoError

    write_video(tmp_path / 'other.ts', draw_clip('train', 0), 8)
    assert len(Video(str(tmp_path / 'other.ts'))) == 8
    (tmp_path / '0.mp4').write_text(playlist)
    with pytest.raises(VideoError, match=f'^{tmp_path}/0.mp4: it is text and no video'):
        Video(str(tmp_path / '0.mp4'))


def test_archive_that_mmpretrain_unpacks(web, tmp_path):
    """It downloads and unpacks CIFAR where it is asked to, and holds it to an MD5 before."""
    from mmpretrain.datasets import CIFAR10

    with tarfile.open(web.folder / 'evil.tar.gz', 'w:gz') as archive:
        archive.addfile(tarfile.TarInfo('../outside'), io.BytesIO())

    class Changed(CIFAR10):
        url, filename = web.url('evil.tar.gz'), 'evil.tar.gz'

    with pytest.raises(Exception, match='(?i)corrupted|md5|failed'):
        Changed(data_root=str(tmp_path / 'root'), pipeline=[])
    assert not (tmp_path / 'outside').exists()


# ------------------------------------------------------------------------------------------------- inputs by address
@pytest.fixture(scope='module')
def picture():
    return np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder, built = tmp_path_factory.mktemp('models'), {}
    for name, text in dict(classifier=TINY, detector=DETECTION, recogniser=VIDEO).items():
        (folder / f'{name}.py').write_text(text.replace('{root}', str(folder)))
        built[name] = get_model(folder / f'{name}.py')
    return SimpleNamespace(**built)


@pytest.fixture
def endless():
    """A web server that sends bytes without an end, quickly or a few at a time."""

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            slow = 'slow' in self.path
            try:
                while True:
                    self.wfile.write(b'x' if slow else bytes(1 << 16))
                    time.sleep(0.05 if slow else 0)
            except OSError:
                pass

        def log_message(self, *args):
            pass

    with serving(Endless) as address:
        yield address


def test_images_by_address(models, picture, web, tmp_path, monkeypatch):
    """The results of the files, and lines that name the address; nothing is kept."""
    pytest.importorskip('mmdet')
    cv2.imwrite(str(web.folder / 'good.png'), picture)
    (web.folder / 'cut.png').write_bytes((web.folder / 'good.png').read_bytes()[:-30])
    shutil.copy(web.folder / 'good.png', web.folder / 'größe 1.png')
    addresses = [web.url(n) for n in ('good.png', 'cut.png', 'gr%C3%B6%C3%9Fe%201.png', 'absent.png', '')]
    addresses.append('s3://bucket/a.png')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for model, settings in ((models.classifier, dict(show_dir=tmp_path / 'drawn')), (models.detector, {})):
        results = inference_model(model, [*addresses, picture], return_exceptions=True, **settings)
        assert [isinstance(result, Exception) for result in results] == [False, True, False, True, True, True, False]
        whole = [results[i] for i in (0, 2, 6)]
        if model is models.classifier:
            assert all(np.array_equal(result['pred_scores'], whole[0]['pred_scores']) for result in whole)
        else:
            assert [result.img_path for result in whole[:2]] == [addresses[0], addresses[2]]
            assert all(len(result.pred_instances) == len(whole[2].pred_instances) for result in whole)
        for i, said in (
            (1, 'it is incomplete'),
            (3, 'it cannot be downloaded (HTTP Error 404'),
            (5, 'inputs are files'),
        ):
            assert str(results[i]).startswith(f'{addresses[i]}: {said}'), results[i]
        with pytest.raises(ImageError, match=f'^{addresses[1]}: it is incomplete'):
            inference_model(model, addresses[1])
    assert sorted(os.listdir(tmp_path / 'drawn')) == ['2.png', 'good.png', 'größe_1.png']
    assert os.listdir(tmp_path) == ['drawn']


def test_video_by_address(models, web):
    pytest.importorskip('mmaction')
    write_video(web.folder / 'clip.mp4', draw_clip('train', 0), 8)
    (web.folder / 'text.mp4').write_text('<html>')
    found = inference_model(models.recogniser, web.url('clip.mp4'))
    assert found.pred_score.tolist() == inference_model(models.recogniser, web.folder / 'clip.mp4').pred_score.tolist()
    with pytest.raises(ValueError, match=f'^{web.url("text.mp4")}: it is text and no video'):
        inference_model(models.recogniser, web.url('text.mp4'))


def test_downloads_of_inputs_are_bounded(models, picture, web, endless, monkeypatch):
    """In bytes, whether the length is told or not, in pixels and in seconds."""
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(30 * 20 - 1))
    cv2.imwrite(str(web.folder / 'good.png'), picture)
    with pytest.raises(ImageError, match=f'^{web.url("good.png")}: it has 30 x 20 pixels, more than the 599'):
        inference_model(models.classifier, web.url('good.png'))
    with (web.folder / 'long.png').open('wb') as file:
        file.truncate(8 * 599 + (1 << 24) + 1)
    for address in (web.url('long.png'), f'{endless}/a.png'):
        with pytest.raises(ValueError, match=f'^{address}: it has .*16782008.* that are downloaded'):
            inference_model(models.classifier, address)
    clock = time.monotonic
    monkeypatch.setattr(time, 'monotonic', lambda: 1200 * clock())
    with pytest.raises(ValueError, match='slow.png: its download .* 600 seconds'):
        inference_model(models.classifier, f'{endless}/slow.png')
