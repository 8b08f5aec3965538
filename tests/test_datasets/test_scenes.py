import json

import cv2
import numpy as np
import pytest
from run_helpers import run_here

from mmstvit.datasets import digit_scans
from mmstvit.datasets.drawing import draw_ink

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


def annotations(folder, split='train'):
    return json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())


def test_scenes_of_a_smaller_set_are_annotated_the_same(finished, tmp_path):
    make_scenes(tmp_path, train=2, val=1, progress=False)
    first = [a for a in annotations(finished)['annotations'] if a['image_id'] < 2]
    assert annotations(tmp_path)['annotations'] == first
    np.testing.assert_array_equal(cv2.imread(str(finished / 'val' / '000002.png')), draw_scene('val', 2).image)


@pytest.fixture
def used(monkeypatch):
    """The scans that are drawn, in order."""
    scans = []
    monkeypatch.setattr(scenes, 'draw_ink', lambda scan, *args: scans.append(scan.tobytes()) or draw_ink(scan, *args))
    return scans


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
    """Enlarged sixfold, both brought to one size; two scans have a correlation of about 0.3."""

    def small(picture, interpolation):
        inside = picture[picture.any(axis=1)][:, picture.any(axis=0)]
        return cv2.resize(inside, (8, 8), interpolation=interpolation).ravel()

    alike = []
    for scan in digit_scans('val')[0][:100]:
        ink = draw_ink(scan, 6 * np.eye(2), np.full(2, 31.5), 64)
        alike.append(np.corrcoef(small(ink, cv2.INTER_AREA), small(scan, cv2.INTER_LINEAR))[0, 1])
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
    pytest.importorskip('mmdet')
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


def test_command_ends_with_code_2(finished, capfd, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, TOOL, str(finished), '--train', '7', '--val', '3')
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and not out
    assert err.startswith('error: ') and err.count('\n') == 1
