import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from run_helpers import run_here

from mmstvit.datasets import digit_scans

scenes = pytest.importorskip('mmstvit.datasets.scenes', reason='pycocotools is not installed')
draw_scene, make_scenes = scenes.draw_scene, scenes.make_scenes

TOOL = 'dataset_converters/digits_scenes.py'
COUNTS = dict(train=6, val=3)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A small set: its folder."""
    folder = tmp_path_factory.mktemp('scenes')
    assert make_scenes(folder, **COUNTS, progress=False) == 9
    return folder


@pytest.fixture(scope='module')
def many():
    return [draw_scene('train', i) for i in range(100)]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def annotations(folder, split='train'):
    return json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())


def test_same_files_from_the_same_seed(finished, tmp_path):
    images = [f'{split}/{i:06d}.png' for split, count in COUNTS.items() for i in range(count)]
    assert set(files(finished)) == {*images, 'annotations/instances_train.json', 'annotations/instances_val.json'}
    make_scenes(tmp_path / 'again', **COUNTS, progress=False)
    assert files(tmp_path / 'again') == files(finished)
    make_scenes(tmp_path / 'other', **COUNTS, seed=1, progress=False)
    other = files(tmp_path / 'other')
    assert not [name for name, data in files(finished).items() if other[name] == data]


def test_a_scene_does_not_depend_on_the_others(finished, tmp_path):
    make_scenes(tmp_path, train=2, val=1, progress=False)
    here, there = files(tmp_path), files(finished)
    assert all(data == there[name] for name, data in here.items() if name.endswith('.png'))
    first = [a for a in annotations(finished)['annotations'] if a['image_id'] < 2]
    assert annotations(tmp_path)['annotations'] == first
    alone = draw_scene('val', 2)
    np.testing.assert_array_equal(cv2.imread(str(finished / 'val' / '000002.png')), alone.image)


@pytest.fixture
def used(monkeypatch):
    """The scans that are drawn, in order."""
    scans, draw_ink = [], scenes._draw_ink
    monkeypatch.setattr(
        scenes, '_draw_ink', lambda rng, scan, h: scans.append(scan.tobytes()) or draw_ink(rng, scan, h)
    )
    return scans


def test_splits_differ_and_share_no_scan(used):
    seen = {}
    for split in ('train', 'val'):
        used.clear()
        assert len({draw_scene(split, i).image.tobytes() for i in range(30)}) == 30
        seen[split] = set(used)
        assert seen[split] <= {scan.tobytes() for scan in digit_scans(split)[0]} and len(seen[split]) > 60
    assert not seen['train'] & seen['val']


def test_labels_are_those_of_the_scans(used):
    truth = {scan.tobytes(): label for scan, label in zip(*digit_scans('train'))}
    checked = 0
    for i in range(30):
        used.clear()
        labels = draw_scene('train', i).labels
        if len(labels) == len(used):  # a place was found for each
            assert labels == [truth[scan] for scan in used]
            checked += 1
    assert checked > 20


def test_masks_are_the_visible_strokes(many):
    """What later digits leave of the strokes, without a common pixel, and never too little."""
    shares = []
    for scene in many:
        assert 1 <= len(scene.labels) == len(scene.masks) == len(scene.strokes) <= 6
        assert scene.masks.sum(axis=0).max() == 1
        np.testing.assert_array_equal(scene.masks.any(axis=0), scene.strokes.any(axis=0))
        np.testing.assert_array_equal(scene.masks[-1], scene.strokes[-1])
        shares += list(scene.masks.sum(axis=(1, 2)) / scene.strokes.sum(axis=(1, 2)))
    covered = np.mean(np.array(shares) < 1)
    assert min(shares) >= scenes.VISIBLE and 0.02 < covered < 0.3
    assert {label for scene in many for label in scene.labels} == set(range(10))


def test_masks_fit_what_is_seen(many):
    """The brightest channel splits a picture into digits and ground, and the masks are those digits."""
    intersection, union = 0, 0
    for scene in many:
        bright = scene.image.max(axis=-1)
        digits = scene.masks.any(axis=0)
        assert np.median(bright[digits]) > np.median(bright[~digits]) + 70
        seen = bright > (np.median(bright[digits]) + np.median(bright[~digits])) / 2
        intersection, union = intersection + (seen & digits).sum(), union + (seen | digits).sum()
    assert intersection / union > 0.9


def test_ink_has_the_shape_of_its_scan():
    """Without a turn and a slant, both brought to one size; two scans have a correlation of about 0.3."""
    upright = SimpleNamespace(uniform=lambda low, high: (low + high) / 2)
    scans = [scan[scan.any(axis=1)][:, scan.any(axis=0)] for scan in digit_scans('val')[0][:100]]
    inks = [cv2.resize(scenes._draw_ink(upright, scan, 48.0), (8, 8), interpolation=cv2.INTER_AREA) for scan in scans]
    scans = [cv2.resize(scan, (8, 8), interpolation=cv2.INTER_LINEAR) for scan in scans]
    alike = [np.corrcoef(ink.ravel(), scan.ravel())[0, 1] for ink, scan in zip(inks, scans)]
    assert np.mean(alike) > 0.85


def test_digits_scale_with_the_image():
    small, large = ([draw_scene('val', i, size) for i in range(20)] for size in (64, 256))
    shares = [np.mean([mask.mean() for scene in part for mask in scene.strokes]) for part in (small, large)]
    assert shares[0] == pytest.approx(shares[1], rel=0.2)
    assert small[0].image.shape == (64, 64, 3) and large[0].masks.shape[1:] == (256, 256)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_in_pycocotools(finished, split):
    from pycocotools.coco import COCO

    coco = COCO(str(finished / 'annotations' / f'instances_{split}.json'))
    assert sorted(coco.imgs) == list(range(COUNTS[split])) and 0 not in coco.anns
    for image in coco.imgs.values():
        scene = draw_scene(split, image['id'])
        entries = coco.loadAnns(coco.getAnnIds(image['id']))
        assert [coco.cats[a['category_id']]['name'] for a in entries] == [str(label) for label in scene.labels]
        assert (image['height'], image['width']) == scene.image.shape[:2]
        for entry, mask in zip(entries, scene.masks):
            np.testing.assert_array_equal(coco.annToMask(entry), mask)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert isinstance(entry['segmentation']['counts'], str)  # compressed
            assert entry['bbox'] == box and entry['area'] == mask.sum()


def test_data_set_in_mmdet(finished):
    pytest.importorskip('mmcv._ext')
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules()
    steps = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True), dict(type='PackDetInputs')]
    place = dict(data_root=str(finished), ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'))
    pipeline = [dict(type='LoadImageFromFile'), *steps]
    dataset = DATASETS.build(
        dict(type='CocoDataset', metainfo=dict(classes=scenes.CLASSES), pipeline=pipeline, **place)
    )
    assert len(dataset) == COUNTS['train']
    for i, item in enumerate(dataset):
        scene, truth = draw_scene('train', i), item['data_samples'].gt_instances
        np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0), scene.image)
        assert truth.labels.tolist() == scene.labels
        np.testing.assert_array_equal(truth.masks.masks, scene.masks)
        np.testing.assert_array_equal(truth.masks.get_bboxes('hbox').numpy(), truth.bboxes.numpy())


@pytest.mark.parametrize('drawn', [3, 7])  # within train, within val
def test_interrupted_and_run_again(finished, tmp_path, monkeypatch, drawn):
    encode = cv2.imencode

    def stop(*args):
        if len(list(tmp_path.rglob('*.png'))) == drawn:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(cv2, 'imencode', stop)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path, **COUNTS, progress=False)
    complete = [split for split, count in COUNTS.items() if len(list((tmp_path / split).iterdir())) == count]
    assert [split for split in COUNTS if (tmp_path / f'annotations/instances_{split}.json').exists()] == complete
    assert len(complete) == drawn // 6
    monkeypatch.undo()
    make_scenes(tmp_path, **COUNTS, progress=False)
    assert files(tmp_path) == files(finished)


def test_interrupted_while_writing(tmp_path, monkeypatch):
    """No file is left that is not whole."""

    def stop(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.fsync', stop)
    with pytest.raises(KeyboardInterrupt):
        make_scenes(tmp_path, train=1, val=1, progress=False)
    assert set(files(tmp_path)) == {'train/000000.png'}


def test_lost_images_are_made_again(finished, tmp_path):
    make_scenes(tmp_path, **COUNTS, progress=False)
    assert make_scenes(tmp_path, **COUNTS, progress=False) == 0
    (tmp_path / 'train' / '000004.png').unlink()
    (tmp_path / 'val' / '000001.png').write_bytes(b'')
    assert make_scenes(tmp_path, **COUNTS, progress=False) == 2
    assert files(tmp_path) == files(finished)


@pytest.mark.parametrize('other', [dict(train=5), dict(val=4), dict(size=96), dict(seed=1)])
def test_a_set_of_other_settings_is_refused(finished, other):
    before = files(finished)
    with pytest.raises(FileExistsError, match='made with other settings .*scenes=.*size=128.*--overwrite'):
        make_scenes(finished, **{**COUNTS, **other}, progress=False)
    assert files(finished) == before


@pytest.mark.parametrize('text', ['not JSON', '[]', '{"info": {"settings": "mine"}}'])
def test_foreign_files_are_refused(tmp_path, text):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'instances_val.json').write_text(text)
    with pytest.raises(FileExistsError, match='instances_val.json was made with other settings'):
        make_scenes(tmp_path, **COUNTS, progress=False)
    assert set(files(tmp_path)) == {'annotations/instances_val.json'}


def test_rests_of_other_settings_are_refused(tmp_path):
    """An interrupted set has no annotations yet that could tell; its pictures do."""
    (tmp_path / 'train').mkdir()
    cv2.imwrite(str(tmp_path / 'train' / '000001.png'), draw_scene('train', 1, seed=1).image)
    with pytest.raises(FileExistsError, match='000001.png is another scene'):
        make_scenes(tmp_path, **COUNTS, progress=False)


def test_overwrite(finished, tmp_path):
    make_scenes(tmp_path, train=8, val=2, seed=1, progress=False)
    (tmp_path / 'train' / 'notes.txt').write_text('mine')
    assert make_scenes(tmp_path, **COUNTS, overwrite=True, progress=False) == 9
    assert files(tmp_path) == {**files(finished), 'train/notes.txt': b'mine'}


def test_command(finished, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    args = ['--train', '6', '--val', '3']
    run_here(monkeypatch, TOOL, *args)
    assert files(tmp_path / 'data' / 'digits_scenes') == files(finished)
    out, err = capfd.readouterr()
    assert 'scenes' in out and '100%' in out and not err
    assert out.splitlines()[-1] == 'data/digits_scenes: 6 scenes for training and 3 for validation, 9 drawn'
    run_here(monkeypatch, TOOL, *args)
    assert capfd.readouterr().out.endswith('3 for validation, all there already\n')
    run_here(monkeypatch, TOOL, *args, '--size', '64', '--overwrite')
    assert cv2.imread('data/digits_scenes/val/000000.png').shape == (64, 64, 3)


@pytest.mark.parametrize(
    'args, said',
    [
        (['out', '--train', '0'], 'train must be at least 1 scene, got 0'),
        (['out', '--val', '-5'], 'val must be at least 1 scene, got -5'),
        (['out', '--size', '8'], 'size must be from 64 to 1024 pixels, got 8'),
        (['out', '--seed', '-1'], 'seed must not be negative, got -1'),
        (['file'], 'file is a file: name a folder'),
        (['file/below'], 'Not a directory: file/below'),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, capfd, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, TOOL, *args)
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and not out
    assert err.startswith(f'error: {said}') and err.count('\n') == 1
    assert set(tmp_path.iterdir()) == {tmp_path / 'file'}


def test_process_ends_with_code_2(run_tool, finished):
    result = run_tool(TOOL, finished, '--train', 7, '--val', 3, check=False)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
