"""Frames of video files by OpenCV: the right ones however they are reached, and none that are not in the file."""

import random

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose

from mmstvit.datasets.clips import draw_clip, write_video
from mmstvit.io.videos import Video, VideoError, guard_reading

LENGTH, SIZE, BITS = 300, 64, 9


@pytest.fixture(scope='module')
def encoded(tmp_path_factory):
    """``encoded(name, codec, length)``: a file at 10 frames a second, of which each has its number in stripes."""
    root = tmp_path_factory.mktemp('encoded')

    def encode(name, codec, length=LENGTH):
        writer = cv2.VideoWriter(str(root / name), cv2.VideoWriter_fourcc(*codec), 10, (SIZE, SIZE))
        assert writer.isOpened()
        for index in range(length):
            row = np.zeros(SIZE, np.uint8)
            row[: 7 * BITS] = np.repeat(255 * (index >> np.arange(BITS) & 1), 7)
            writer.write(np.ascontiguousarray(np.broadcast_to(row[None, :, None], (SIZE, SIZE, 3))))
        writer.release()
        return root / name

    return encode


def number(frame):
    return int((frame[SIZE // 2, 3 : 7 * BITS : 7, 0] > 127) @ (1 << np.arange(BITS)))


@pytest.mark.parametrize(
    'name, codec',
    [
        ('a.mp4', 'mp4v'),
        ('a.avi', 'MJPG'),
        ('b.avi', 'XVID'),
        ('a.mkv', 'mp4v'),
        ('a.ts', 'mp4v'),
        ('a.mjpeg', 'MJPG'),  # tells no duration
    ],
)
@pytest.mark.parametrize('near', [15, 250])
def test_right_frames_in_any_order(encoded, name, codec, near):
    video, rng = Video(str(encoded(name, codec)), near), random.Random(0)
    assert len(video) == LENGTH
    places = [0, LENGTH - 5, 1, *(rng.randrange(LENGTH - 5) for _ in range(20))]
    for place in places:
        indices = np.array([place + 4, place, place, place + 2], np.int32)
        frames = video.read(indices)
        assert list(frames) == [place, place + 2, place + 4] == [number(frame) for frame in frames.values()]
        assert all(frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8 for frame in frames.values())


def test_frames_of_a_clip_are_decoded_in_one_pass(encoded, monkeypatch):
    """Seeking decodes from a key frame anew."""
    calls, capture = [], cv2.VideoCapture

    class Logged:
        def __init__(self, *args):
            self.capture = capture(*args)

        def __getattr__(self, name):
            return lambda *args: calls.append(name) or getattr(self.capture, name)(*args)

    monkeypatch.setattr(cv2, 'VideoCapture', Logged)
    video = Video(str(encoded('a.mp4', 'mp4v')), near=50)
    for indices, seeks, span in (
        (range(0, 64, 2), 0, 64),
        ([*range(200, 264, 2), *range(230, 294, 2)], 1, 94),  # clips that overlap
    ):
        calls.clear()
        video.read(indices)
        assert calls.count('set') == seeks and calls.count('grab') + calls.count('read') <= span


def test_frames_that_are_not_in_the_file(encoded):
    """A video that is damaged in its middle is refused where the damage is."""
    path = encoded('damaged.mp4', 'mp4v', 60)
    data = bytearray(path.read_bytes())
    start, end = data.index(b'mdat'), data.index(b'moov') - 4
    middle = (start + end) // 2
    data[middle:end] = bytes(end - middle)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=rf'^{path}: frame \d+ of 60 .* cut') as error:
        Video(str(path)).read(range(60))
    whole = int(str(error.value).split(' frame ')[1].split()[0])
    assert 5 < whole < 55
    video = Video(str(path))
    assert [number(frame) for frame in video.read(range(whole - 1)).values()] == list(range(whole - 1))
    with pytest.raises(VideoError, match=f'frame {whole} of 60'):
        video.read([59])
    with pytest.raises(IndexError, match=f'{path} has 60 frames.* 60 '):
        video.read([60])


@pytest.mark.parametrize('missing', [1, 3, 4])
def test_missing_end(encoded, missing):
    """A tenth and a second at most: the last frame stands for it."""
    path = encoded('short.avi', 'MJPG', 30)
    data = path.read_bytes()
    place = data.index(b'idx1')
    for _ in range(missing):
        place = data.rindex(b'00dc', 0, place)
    path.write_bytes(data[:4] + (place - 8).to_bytes(4, 'little') + data[8:place])
    video, there = Video(str(path)), 30 - missing
    assert len(video) == 30
    if missing > 3:
        with pytest.raises(VideoError, match=f'^{path}: frame {there} of 30 '):
            video.read(range(30))
    else:
        assert [number(frame) for frame in video.read(range(30)).values()] == [min(i, there - 1) for i in range(30)]
        assert number(video.read([29])[29]) == there - 1


def test_whole_files_pass_the_look_at_their_structure(tmp_path):
    path = tmp_path / '0.mp4'
    write_video(path, draw_clip('train', 0), 8)
    data, frames = path.read_bytes(), Video(str(path)).read(range(8))
    # Boxes of 64-bit length, and the last one up to the end of the file.
    start, index = data.index(b'mdat') - 4, data.index(b'moov') - 4
    assert data[start - 8 : start] == b'\0\0\0\x08free'  # the room for such a length
    wide = (1).to_bytes(4, 'big') + b'mdat' + (index - start + 8).to_bytes(8, 'big')
    contents = dict(
        trailing=data + b'\0\0\0\0',
        open=data[:index] + b'\0\0\0\0' + data[index + 4 :],
        wide=data[: start - 8] + wide + data[start + 8 :],
    )
    for name, content in contents.items():
        (tmp_path / f'{name}.mp4').write_bytes(content)
        for given in (f'{name}.mp4', name):  # mmaction2 adds .mp4
            found = Video(str(tmp_path / given)).read(range(8))
            assert all(np.array_equal(found[i], frames[i]) for i in range(8)), name
    (tmp_path / 'cut.mp4').write_bytes(contents['wide'][: start + 40])
    with pytest.raises(VideoError, match=f'^{tmp_path}/cut.mp4: it was cut off: '):
        Video(str(tmp_path / 'cut.mp4'))
    with pytest.raises(VideoError, match='^absent.mp4: there is no such file$'):
        Video('absent.mp4')


def test_every_cut_is_seen(tmp_path):
    """Wherever a download stops, also in a file whose index comes first."""
    path = tmp_path / '0.mp4'
    write_video(path, draw_clip('train', 0), 8)
    data = path.read_bytes()
    start, index = data.index(b'mdat') - 4, data.index(b'moov') - 4
    for content in (data, data[:start] + data[index:] + data[start:index]):
        for length in np.linspace(8, len(data) - 1, 60).astype(int):
            path.write_bytes(content[:length])
            with pytest.raises(VideoError, match=f'^{path}: it (was cut off|cannot be read)'):
                Video(str(path))


def test_frames_that_would_unfold_to_gigabytes(tmp_path, monkeypatch):
    path = tmp_path / '0.mp4'
    write_video(path, draw_clip('train', 0), 8)
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(2 * SIZE * SIZE // 4))
    assert len(Video(str(path)).read([0, 5, 5])) == 2
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', str(2 * SIZE * SIZE // 4 - 1))
    with pytest.raises(VideoError, match=f'^{path}: 2 frames of 64 x 64 '):
        Video(str(path)).read([0, 5, 5])


def test_numbered_images_are_no_video(tmp_path):
    """OpenCV reads them as one where FFmpeg cannot read the first."""
    for i in range(3):
        content = cv2.imencode('.hdr', np.full((SIZE, SIZE, 3), i, np.float32))[1].tobytes()
        (tmp_path / f'{i}.mp4').write_bytes(content)
    with pytest.raises(VideoError, match=f'^{tmp_path}/0.mp4: it cannot be read'):
        Video(str(tmp_path / '0.mp4'))


def test_steps_of_mmaction2(encoded):
    """The same frames as without the guard, and the rate that ``target_fps`` asks for."""
    transforms = pytest.importorskip('mmaction.datasets.transforms')
    path, start = str(encoded('a.mp4', 'mp4v')), dict(start_index=0, modality='RGB')
    sample = transforms.SampleFrames(clip_len=4, frame_interval=2, num_clips=3, test_mode=True)
    steps = [transforms.OpenCVInit(), sample, transforms.OpenCVDecode()]
    plain, guarded = (Compose(s)(dict(filename=path, **start)) for s in (steps, guard_reading(steps)))
    assert np.array_equal(plain['imgs'], guarded['imgs']) and plain['img_shape'] == guarded['img_shape']
    assert [number(frame) for frame in guarded['imgs']] == guarded['frame_inds'].tolist()
    steps[1] = transforms.SampleFrames(clip_len=4, target_fps=5, num_clips=1, test_mode=True)
    inds = Compose(guard_reading(steps))(dict(filename=path, **start))['frame_inds']
    assert inds[-1] - inds[0] == 7  # 4 frames at 5 a second, of 10 a second
