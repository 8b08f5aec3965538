import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from mmstvit.datasets.clips import CLASSES, FRAMES, draw_clip, draw_poses, label_of, make_clips

TOOL = 'dataset_converters/digits_clips.py'
COUNTS = dict(train=10, val=4)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A small set: its folder."""
    folder = tmp_path_factory.mktemp('clips')
    assert make_clips(folder, **COUNTS, progress=False) == 14
    return folder


def decoded(path):
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (frame := reader.read()[1]) is not None:
        frames.append(frame)
    return np.stack(frames)


def test_lists_name_the_clips_and_their_classes(finished):
    lines = (finished / 'train.txt').read_text().splitlines()
    assert lines[:2] == ['train/000000.mp4 0', 'train/000001.mp4 1'] and lines[9] == 'train/000009.mp4 1'
    assert len(lines) == COUNTS['train'] and len(CLASSES) == 8
    assert np.bincount([label_of(i) for i in range(1600)]).tolist() == [200] * 8


def test_files_hold_what_was_drawn(finished):
    """Up to what the encoder loses."""
    for i in range(COUNTS['val']):
        frames, drawn = decoded(finished / 'val' / f'{i:06d}.mp4'), draw_clip('val', i)
        assert frames.shape == drawn.shape == (FRAMES, 64, 64, 3)
        assert np.abs(frames.astype(int) - drawn).mean() < 8


def test_splits_share_no_size_or_speed():
    rng = np.random.default_rng(0)
    speeds, heights = (
        {split: {round(of(draw_poses(rng, split, motion)), 6) for _ in range(300)} for split in ('train', 'val')}
        for motion, of in (
            ('right', lambda poses: poses['x'][1] - poses['x'][0]),
            ('growing', lambda poses: np.sqrt(poses['height'][0] * poses['height'][-1])),
        )
    )
    for values in (speeds, heights):
        held = values['val']
        assert not [v for v in values['train'] if min(held) < v < max(held)] and len(held) > 200
        assert min(values['train']) < min(held) < max(held) < max(values['train'])


@pytest.mark.parametrize(
    'motion,name,signs',
    [
        ('left', 'x', [-1] * 7),
        ('right', 'x', [1] * 7),
        ('anticlockwise', 'angle', [-1] * 7),
        ('clockwise', 'angle', [1] * 7),
        ('shrinking', 'height', [-1] * 7),
        ('growing', 'height', [1] * 7),
        ('swinging', 'angle', [1] * 3 + [0] + [-1] * 3),
        ('pulsing', 'height', [1] * 3 + [0] + [-1] * 3),
    ],
)
def test_each_class_moves_in_its_way_alone(motion, name, signs):
    for seed in range(20):
        poses = draw_poses(np.random.default_rng(seed), 'train', motion)
        steps = np.sign(np.round(np.diff(poses[name]), 9)).tolist()
        assert steps == signs or (signs[3] == 0 and steps == [-s for s in signs])
        assert all(np.ptp(poses[other]) == 0 for other in poses if other != name)


def test_directions_are_those_of_the_picture():
    """Right is to the right, clockwise as on a clock, growing is larger."""

    def ink(motion, split='train'):
        index = CLASSES.index(motion)
        for i in range(index, 200, len(CLASSES)):
            frames = draw_clip(split, i).astype(float)
            yield frames.max(axis=-1) > 140

    def along(mask):
        return np.nonzero(mask)[1].mean()

    def turned(first, second):
        """The angle that turns the first mask best into the second."""
        centre = tuple(np.argwhere(first).mean(axis=0)[::-1])
        scores = {
            angle: (
                cv2.warpAffine(first.astype(float), cv2.getRotationMatrix2D(centre, -angle, 1), (64, 64)) * second
            ).sum()
            for angle in (-20, 20)
        }
        return max(scores, key=scores.get)

    pairs = dict(left=lambda f: along(f[0]) > along(f[-1]), right=lambda f: along(f[0]) < along(f[-1]))
    pairs |= dict(shrinking=lambda f: f[0].sum() > f[-1].sum(), growing=lambda f: f[0].sum() < f[-1].sum())
    pairs |= dict(clockwise=lambda f: turned(f[3], f[4]) > 0, anticlockwise=lambda f: turned(f[3], f[4]) < 0)
    for motion, holds in pairs.items():
        assert np.mean([holds(frames) for frames in ink(motion)]) > 0.8, motion


def test_poses_of_single_frames_are_alike_in_all_classes():
    """The deciles of position, angle and height over all frames, class by class."""
    rng = np.random.default_rng(0)
    quantiles = {}
    for motion in CLASSES:
        drawn = [draw_poses(rng, 'train', motion) for _ in range(2000)]
        for name in ('x', 'y', 'height', 'angle'):
            values = np.concatenate([poses[name] for poses in drawn])
            quantiles.setdefault(name, []).append(np.quantile(values % 360, np.linspace(0.1, 0.9, 9)))
    for name, rows in quantiles.items():
        spread = np.ptp(np.stack(rows), axis=0)
        assert (spread < 0.1 * np.ptp(rows)).all(), name


def test_one_frame_does_not_tell_the_class_and_all_do():
    """A random forest on small pictures: of one frame of each clip, and of the changes from frame to frame."""

    def features(split, count):
        bright = [draw_clip(split, i).max(axis=-1).astype(np.float32) for i in range(count)]
        small = np.stack([[cv2.resize(f, (12, 12), interpolation=cv2.INTER_AREA) for f in clip] for clip in bright])
        one = small[np.arange(count), np.random.default_rng(0).integers(FRAMES, size=count)]
        labels = [label_of(i) for i in range(count)]
        return one.reshape(count, -1), np.diff(small, axis=1).reshape(count, -1), labels

    train, val = features('train', 400), features('val', 160)
    accuracy = [
        RandomForestClassifier(60, random_state=0).fit(train[i], train[2]).score(val[i], val[2]) for i in range(2)
    ]
    assert accuracy[0] < 0.22 and accuracy[1] > 0.35, accuracy  # chance is 0.125


def test_no_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2.VideoWriter, 'isOpened', lambda self: False, raising=False)
    with pytest.raises(OSError, match='no MPEG-4 encoder'):
        make_clips(tmp_path, **COUNTS, progress=False)
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]
