"""decord in a process of its own: the same frames, and a crash or a hang is told with the name of the file."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from mmengine.registry import DefaultScope
from run_helpers import VIDEO

from mmstvit import get_model, inference_model
from mmstvit.datasets import decord_process
from mmstvit.datasets.checked_videos import CheckedVideos
from mmstvit.datasets.clips import draw_clip, write_video
from mmstvit.datasets.decord_process import DecoderError, Reader
from mmstvit.datasets.video_files import VideoError

decord = pytest.importorskip('decord')
pytest.importorskip('mmaction')

# The real decord, which ends or stops at files of some names, as it does at some contents.
BRITTLE = """
import os, sys, time
sys.path.remove(os.path.dirname(__file__))
del sys.modules['decord']
import decord
class Brittle(decord.VideoReader):
    def __init__(self, path, **settings):
        if 'abort' in path:
            os.abort()
        if 'hang' in path:
            time.sleep(1000)
        super().__init__(path, **settings)
    def get_batch(self, indices):
        if 7 in list(indices):
            os._exit(9)
        return super().get_batch(indices)
decord.VideoReader = Brittle
"""


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """``0.mp4`` and ``1.mp4``, and copies of the first under other names."""
    root = tmp_path_factory.mktemp('clips')
    for i in range(2):
        write_video(root / f'{i}.mp4', draw_clip('train', i), 8)
    for name in ('abort.mp4', 'hang.mp4', os.fsdecode(b'caf\xe9.mp4')):
        shutil.copy(root / '0.mp4', root / name)
    return root


@pytest.fixture
def decoder(monkeypatch):
    """A decoder of this test alone."""
    decoder = decord_process._Decoder()
    monkeypatch.setattr(decord_process, '_decoder', decoder)
    yield decoder
    decoder.end()


@pytest.fixture
def brittle(decoder, tmp_path, monkeypatch):
    (tmp_path / 'brittle').mkdir()
    (tmp_path / 'brittle' / 'decord.py').write_text(BRITTLE)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'brittle'))
    return decoder


def test_frames_are_those_of_decord(clips, decoder):
    for path in (clips / '0.mp4', clips / '1.mp4'):
        own, other = decord.VideoReader(str(path)), Reader(str(path))
        assert len(own) == len(other) and own.get_avg_fps() == other.get_avg_fps()
        for indices in ([0, 3, 3, 7], [5], np.array([6, 1])):
            frames = other.get_batch(indices).asnumpy()
            assert np.array_equal(frames, own.get_batch(indices).asnumpy()) and frames.shape[1:3] == tuple(other.size)
        own.seek(4), other.seek(4)
        assert np.array_equal(own.next().asnumpy(), other.next().asnumpy())
    first = Reader(str(clips / '0.mp4'))  # two at a time, on one decoder
    assert np.array_equal(
        first.get_batch([2]).asnumpy(), decord.VideoReader(str(clips / '0.mp4')).get_batch([2]).asnumpy()
    )
    assert np.array_equal(other.get_batch([2]).asnumpy(), own.get_batch([2]).asnumpy())


def test_name_that_is_no_utf_8(clips, decoder, monkeypatch):
    monkeypatch.chdir(clips)
    frames = Reader(os.fsdecode(b'caf\xe9.mp4')).get_batch([2]).asnumpy()
    assert np.array_equal(frames, Reader('0.mp4').get_batch([2]).asnumpy())


def test_crash_and_hang_are_told(clips, brittle, monkeypatch):
    whole = Reader(str(clips / '1.mp4'))
    frames, process = whole.get_batch([2]).asnumpy(), brittle.process
    with pytest.raises(DecoderError, match=r'^decord crashed at it \(SIGABRT\)$'):
        Reader(str(clips / 'abort.mp4'))
    with pytest.raises(DecoderError, match=r'^decord crashed at it \(exit code 9\)$'):
        whole.get_batch([7])
    # A reader that was open goes on with another process.
    assert np.array_equal(whole.get_batch([2]).asnumpy(), frames) and brittle.process is not process
    monkeypatch.setattr(decord_process, 'SECONDS', 1.5)
    with pytest.raises(DecoderError, match='^decord was not done after 1.5 seconds$'):
        Reader(str(clips / 'hang.mp4'))
    assert np.array_equal(whole.get_batch([2]).asnumpy(), frames)


def test_crash_in_a_list_loses_no_other_video(clips, brittle, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(VIDEO.replace('{root}', str(clips)))
    model = get_model(config)
    names = [clips / name for name in ('0.mp4', 'abort.mp4', '1.mp4')]
    results = inference_model(model, names, return_exceptions=True)
    assert type(results[1]) is VideoError
    assert str(results[1]) == f'{names[1]}: it cannot be read (decord crashed at it (SIGABRT))'
    for path, result in zip(names[::2], results[::2]):
        assert result.pred_score.tolist() == inference_model(model, path).pred_score.tolist()


def test_crash_in_a_data_set_is_named_or_skipped(clips, brittle, tmp_path):
    (tmp_path / 'list.txt').write_text('abort.mp4 0\n1.mp4 1\n')
    pipeline = [dict(type='DecordInit'), dict(type='SampleFrames', clip_len=1), dict(type='DecordDecode')]
    settings = dict(type='VideoDataset', ann_file=str(tmp_path / 'list.txt'), data_prefix=dict(video=str(clips)))
    with DefaultScope.overwrite_default_scope('mmaction'):
        with pytest.raises(VideoError, match=f'^{clips}/abort.mp4: it cannot be read .decord crashed at it .SIGABRT'):
            CheckedVideos(dict(settings, pipeline=pipeline))[0]
        dataset = CheckedVideos(dict(settings, pipeline=pipeline), skip_broken=True)
        assert dataset[0]['label'] == 1 and dataset.broken() == [f'{clips}/abort.mp4']


def test_frames_that_would_unfold_to_gigabytes(clips, decoder, tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    config.write_text(VIDEO.replace('{root}', str(clips)))  # takes two frames
    model, (height, width) = get_model(config), draw_clip('train', 0).shape[1:3]
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(2 * height * width // 4))
    inference_model(model, clips / '0.mp4')
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(2 * height * width // 4 - 1))
    with pytest.raises(
        VideoError, match=f'^{clips}/0.mp4: 2 frames of {width} x {height} pixels would be decoded at once'
    ):
        inference_model(model, clips / '0.mp4')


def test_signals_of_the_terminal_are_not_for_it(clips, decoder):
    whole = Reader(str(clips / '0.mp4'))
    for number in (signal.SIGINT, signal.SIGTERM):
        decoder.process.send_signal(number)
    process = decoder.process
    whole.get_batch([2])
    assert decoder.process is process


@pytest.mark.parametrize('end', ['', 'os.kill(os.getpid(), 9)', 'os._exit(0)'])
def test_it_ends_with_its_process(clips, end):
    """However that ends; and a fork of it has a decoder of its own."""
    code = f"""
import os, sys
from mmstvit.datasets import decord_process as d
reader = d.Reader({str(clips / '0.mp4')!r})
print(d._decoder.process.pid)
if os.fork() == 0:
    reader.get_batch([1])
    print(d._decoder.process.pid, flush=True)
    os._exit(0)
os.wait()
sys.stdout.flush()
{end}
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert not run.stderr, run.stderr
    numbers = [int(word) for word in run.stdout.split()]
    assert len(set(numbers)) == 2
    for _ in range(100):
        if not any(map(psutil.pid_exists, numbers)):
            break
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, numbers))


@pytest.mark.parametrize('content', ['raise OSError("no libraries")', 'import os; os.abort()'])
def test_decord_that_does_not_start(clips, decoder, tmp_path, monkeypatch, content):
    """It is no fault of the video, which would be skipped."""
    (tmp_path / 'decord.py').write_text(content)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with pytest.raises(
        ImportError, match='^decord cannot be used, which reads videos: (no libraries|it ends the process)'
    ):
        Reader(str(clips / '0.mp4'))
