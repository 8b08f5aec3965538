"""Inference on videos: the scores of the test, windows of long ones, and files that are no videos."""

import json
import pickle
import struct

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint

from mmstvit import get_model, inference_model
from mmstvit.cli.infer import main as infer
from mmstvit.cli.test import main as evaluate
from mmstvit.datasets.clips import draw_clip, write_video
from mmstvit.io.videos import Video

pytest.importorskip('mmaction')

FPS = 10
LENGTH = 37  # frames of the long video
CONFIG = """
_base_ = ['mmstvit::digits/swin3d_digits.py']
model = dict(
    backbone=dict(arch=dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)), init_cfg=dict(std=0.4)),
    cls_head=dict(in_channels=64, init_std=0.5))
clips = dict(type='VideoDataset', data_prefix=dict(video='{root}'), ann_file='{root}/list.txt', test_mode=True)
test_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, **clips, pipeline=[
    dict(type='{reader}Init'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=2, test_mode=True),
    dict(type='{reader}Decode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]))
"""


@pytest.fixture(scope='module')
def case(tmp_path_factory):
    """``root`` with ``clip0.mp4`` to ``clip2.mp4`` and ``long.mp4``, a config and weights: paths."""
    root = tmp_path_factory.mktemp('videos')
    for i in range(3):
        write_video(root / f'clip{i}.mp4', np.concatenate([draw_clip('train', i), draw_clip('val', i)])[: 9 + i], FPS)
    frames = np.concatenate([draw_clip('train', i) for i in range(5)])[:LENGTH]
    write_video(root / 'long.mp4', frames, FPS)
    (root / 'list.txt').write_text(''.join(f'clip{i}.mp4 {i}\n' for i in range(3)))
    for reader in ('OpenCV', 'Decord', 'PyAV'):
        (root / f'{reader}.py').write_text(CONFIG.replace('{root}', str(root)).replace('{reader}', reader))
    torch.manual_seed(0)
    model = get_model(root / 'OpenCV.py')
    model.init_weights()
    save_checkpoint(dict(state_dict=model.state_dict(), meta={}), str(root / 'weights.pth'))
    return root


@pytest.fixture(scope='module')
def model(case):
    return get_model(case / 'OpenCV.py', case / 'weights.pth')


def test_command(case, model, tmp_path):
    """A folder of clips by ``mmstvit infer``: the same scores, and a picture of each."""
    out, drawn = tmp_path / 'out.jsonl', tmp_path / 'drawn'
    command = [str(case / 'OpenCV.py'), str(case), '--checkpoint', str(case / 'weights.pth'), '--device', 'cpu']
    assert infer([*command, '--out', str(out), '--draw', str(drawn)]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    clips = [case / name for name in ('clip0.mp4', 'clip1.mp4', 'clip2.mp4', 'long.mp4')]
    assert [line['file'] for line in found] == [str(clip) for clip in clips]
    for line, sample in zip(found, inference_model(model, clips), strict=True):
        np.testing.assert_allclose(line['pred_scores'], sample.pred_score, atol=1e-6)
        assert line['pred_label'] == int(sample.pred_score.argmax())
    endings = ('mp4', 'png')
    assert sorted(path.name for path in drawn.iterdir()) == [f'{clip.name}.{e}' for clip in clips for e in endings]
    captioned, frames = cv2.VideoCapture(str(drawn / 'long.mp4.mp4')), decoded(case / 'long.mp4')
    assert captioned.get(cv2.CAP_PROP_FPS) == FPS
    for frame in frames:  # the caption above, and below it the frame but for what is lost in MPEG-4
        whole, drawn_frame = captioned.read()
        below = drawn_frame[-frame.shape[0] :, : frame.shape[1], ::-1].astype(int)
        assert whole and np.abs(below - frame).mean() < 8 and drawn_frame[: -frame.shape[0]].std() > 5
    assert not captioned.read()[0]


def test_scores_are_those_of_the_test_command(case, model, tmp_path):
    out = tmp_path / 'scores.pkl'
    evaluate([str(arg) for arg in (case / 'OpenCV.py', case / 'weights.pth', '--work-dir', tmp_path, '--out', out)])
    dumped = [prediction['pred_score'] for prediction in pickle.loads(out.read_bytes())]
    results = inference_model(model, [case / f'clip{i}.mp4' for i in range(3)])
    assert len(dumped) == 3 and [type(result).__name__ for result in results] == ['ActionDataSample'] * 3
    for result, scores in zip(results, dumped):
        torch.testing.assert_close(result.pred_score, scores, atol=1e-5, rtol=0)
        assert result.pred_score.sum() == pytest.approx(1, abs=1e-5)
    assert (dumped[0] - dumped[1]).abs().max() > 1e-3  # clips can be told apart


def test_windows_are_the_parts_of_the_video(case, model, tmp_path, capfd):
    """Each scores as a file of its frames does, and the mean is theirs."""
    result = inference_model(model, case / 'long.mp4', window=1.2, stride=0.8)
    assert 'windows' in capfd.readouterr().out
    starts = [0, 8, 16, 24, 25]  # the last one ends with the video
    np.testing.assert_allclose(result.spans, [[s / FPS, (s + 12) / FPS] for s in starts])
    assert result.scores.shape == (5, 8) and result.mean.shape == (8,)
    torch.testing.assert_close(result.mean, result.scores.mean(dim=0))
    frames = decoded(case / 'long.mp4')
    for start, scores in zip(starts, result.scores):
        torch.testing.assert_close(scores, scores_of_frames(model, frames[start : start + 12]), atol=1e-5, rtol=0)
    assert (result.scores[0] - result.scores[3]).abs().max() > 1e-3


def decoded(path):
    reader = cv2.VideoCapture(str(path))
    return [reader.read()[1][..., ::-1] for _ in range(LENGTH)]


def scores_of_frames(model, frames):
    """The test pipeline on decoded frames, without its steps that open and decode a file."""
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmaction'):
        steps = Compose(model.cfg.test_dataloader.dataset.pipeline).transforms
        sampled = steps[1](dict(total_frames=len(frames), start_index=0))
        imgs = [frames[i] for i in sampled['frame_inds']]
        sample = dict(sampled, imgs=imgs, img_shape=imgs[0].shape[:2], original_shape=imgs[0].shape[:2], label=-1)
        with torch.no_grad():
            return model.test_step(pseudo_collate([Compose(steps[3:])(sample)]))[0].pred_score


def write_two_rates(path, frames):
    """Write a video whose first half has three times the frame rate of the second: 20 and 20 / 3 a second."""
    write_video(path, frames, FPS)
    data = path.read_bytes()
    assert data.index(b'mdat') < data.index(b'moov')  # no offset of a frame changes
    at = data.index(b'stts')  # how long frames are shown (ISO/IEC 14496-12, 8.6.1.2): entries of (frames, duration)
    size, entries, count, duration = (struct.unpack_from('>I', data, at + i)[0] for i in (-4, 8, 12, 16))
    assert (size, entries, count, duration % 2) == (24, 1, len(frames), 0)
    half = struct.pack('>IIIII', 2, count // 2, duration // 2, count - count // 2, duration * 3 // 2)
    changed = bytearray(data[: at + 8] + half + data[at + 20 :])
    for box in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stts'):
        place = changed.index(box) - 4
        struct.pack_into('>I', changed, place, struct.unpack_from('>I', changed, place)[0] + 8)
    path.write_bytes(changed)


def test_times_of_a_variable_frame_rate(case, model, tmp_path):
    """Windows are cut by the times of the frames, and tell those."""
    path = tmp_path / 'two_rates.mp4'
    write_two_rates(path, np.concatenate([draw_clip('train', i) for i in range(5)]))
    times = np.append(np.arange(20) / 20, 1 + 3 * np.arange(21) / 20)
    np.testing.assert_allclose(Video(str(path)).times, times, atol=1e-3)
    video = Video(str(path))
    np.testing.assert_allclose([video.time for _ in video], times[:-1], atol=1e-3)
    result = inference_model(model, path, window=1.0, progress=False)
    # Of about one second each: 20 frames, then seven; the last one ends with the video.
    frames = [(0, 20), (20, 27), (27, 34), (33, 40)]
    np.testing.assert_allclose(result.spans, [[times[a], times[b]] for a, b in frames], atol=1e-3)
    reader = cv2.VideoCapture(str(path))
    shown = [reader.read()[1][..., ::-1] for _ in range(40)]
    for (start, end), scores in zip(frames, result.scores, strict=True):
        torch.testing.assert_close(scores, scores_of_frames(model, shown[start:end]), atol=1e-5, rtol=0)


def test_seeking_in_a_variable_frame_rate(tmp_path):
    """Frames far apart are those of the times told: each is as bright as its number says."""
    path = tmp_path / 'long.mp4'
    frames = [np.full((32, 32, 3), 40 + i // 5, np.uint8) for i in range(1000)]
    write_two_rates(path, np.stack(frames))
    video = Video(str(path))
    assert len(video.times) == 1001
    for wanted in ([900], [5, 400], [990, 300], [700]):
        for index, frame in video.read(wanted).items():
            assert abs(frame.mean() - (40 + index // 5)) < 4, index


def test_config_that_names_decord(case, model, broken_videos):
    """It comes with a decoder of its own, whose colours may differ in the last bits."""
    pytest.importorskip('decord')
    other = get_model(case / 'Decord.py', case / 'weights.pth')
    one, two = (inference_model(m, case / 'clip0.mp4') for m in (model, other))
    torch.testing.assert_close(one.pred_score, two.pred_score, atol=0.02, rtol=0)
    one, two = (inference_model(m, case / 'long.mp4', window=1.2, progress=False) for m in (model, other))
    np.testing.assert_allclose(one.spans, two.spans)
    torch.testing.assert_close(one.scores, two.scores, atol=0.02, rtol=0)
    assert_refused(other, broken_videos)


def test_windows_with_pyav(case, model):
    """mmaction2's steps for PyAV keep every frame they pass: windows use OpenCV in their place, installed or not."""
    expected = inference_model(model, case / 'long.mp4', window=1.2, progress=False)
    result = inference_model(case / 'PyAV.py', case / 'weights.pth', case / 'long.mp4', window=1.2, progress=False)
    np.testing.assert_allclose(result.spans, expected.spans)
    torch.testing.assert_close(result.scores, expected.scores)


def test_a_window_of_the_whole_video(case, model, capfd):
    """And of more than it: both are the plain inference."""
    whole = inference_model(model, case / 'long.mp4')
    for window in (LENGTH / FPS, 100):
        result = inference_model(model, case / 'long.mp4', window=window, progress=False)
        np.testing.assert_allclose(result.spans, [[0, LENGTH / FPS]])
        torch.testing.assert_close(result.scores, whole.pred_score[None], atol=1e-5, rtol=0)
    assert not capfd.readouterr().out


def test_frames_are_decoded_window_by_window(case, model, monkeypatch):
    """The file is opened once, and no more frames are decoded together than one window takes."""
    videos, batches, read = set(), [], Video.read

    def log(video, indices):
        frames = read(video, indices)
        videos.add(video)
        batches.append(len(frames))
        return frames

    monkeypatch.setattr(Video, 'read', log)
    inference_model(model, case / 'long.mp4', window=0.5, stride=0.2, progress=False)
    assert len(videos) == 1 and max(batches) <= 5


def test_windows_of_several_videos(case, model):
    results = inference_model(model, [case / 'clip0.mp4', case / 'long.mp4'], window=0.9, progress=False)
    assert [len(result.scores) for result in results] == [1, 5]


@pytest.mark.parametrize(
    'settings, said',
    [
        (dict(window=0), 'must be greater than 0'),
        (dict(window=1, stride=-1), 'must be greater than 0'),
        (dict(window=0.1), 'less than two frames of .*long.mp4'),
        (dict(stride=1), 'stride=1 has no effect without a window'),
    ],
)
def test_wrong_windows(case, model, settings, said):
    with pytest.raises(ValueError, match=said):
        inference_model(model, case / 'long.mp4', progress=False, **settings)


def assert_refused(model, videos):
    for path, said in videos.items():
        for settings in (dict(), dict(window=1.0)):
            with pytest.raises(ValueError) as error:
                inference_model(model, path, **settings)
            line = str(error.value)
            assert line.startswith(f'{path}: ') and said in line and '\n' not in line, line


def test_files_that_are_no_videos(case, model, broken_videos):
    assert_refused(model, broken_videos)
    with pytest.raises(FileNotFoundError, match='there is no video absent.mp4'):
        inference_model(model, 'absent.mp4', window=1.0)


def test_settings_of_the_model_stay(case, model):
    """Inference leaves the config that the model carries as it is."""
    before = Config(model.cfg.to_dict()).to_dict()
    inference_model(model, case / 'clip0.mp4')
    inference_model(model, case / 'clip0.mp4', window=0.5, progress=False)
    assert model.cfg.to_dict() == before
