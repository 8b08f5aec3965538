"""The commands in mmdet, mmseg and mmaction2: training and testing made scenes and clips."""

import csv
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmstvit.cli import test as test_cli
from mmstvit.errors import UsageError
from mmstvit.visualization import drawing_hooks


def evaluate(*args):
    test_cli.main([str(arg) for arg in args])


def test_detection_trains_and_tests(detection, tmp_path):
    """The figures of training's own validation come back from the checkpoint, and each scene is drawn."""
    trained = [line for line in detection.scalars if 'coco/bbox_mAP' in line][-1]
    losses = [line['loss_cls'] for line in detection.scalars if 'loss_cls' in line]
    assert losses and np.isfinite(losses).all()
    args = (detection.config, detection.checkpoint, '--work-dir', tmp_path / 'test')
    evaluate(*args, '--out', tmp_path / 'out' / 'metrics.json', '--show-dir', tmp_path / 'drawn')
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert metrics['coco/bbox_mAP'] == pytest.approx(trained['coco/bbox_mAP'], abs=1e-3)
    assert sorted(p.name for p in (tmp_path / 'drawn').iterdir()) == [f'{i}.png.png' for i in range(8)]


def test_detection_predictions(detection, tmp_path):
    out = tmp_path / 'predictions.pkl'
    evaluate(detection.config, detection.checkpoint, '--work-dir', tmp_path, '--out', out)
    predictions = pickle.loads(out.read_bytes())
    assert sorted(p['img_id'] for p in predictions) == list(range(8))
    boxes = predictions[0]['pred_instances']['bboxes']
    assert len(boxes) and boxes.shape[1] == 4


def test_segmentation_trains_and_tests(segmentation, tmp_path):
    """The figures of training's own validation come back; those of classes are those of the maps that are written."""
    trained = [line for line in segmentation.scalars if 'mIoU' in line][-1]
    drawn = tmp_path / 'drawn'
    args = (segmentation.config, segmentation.checkpoint, '--work-dir', tmp_path / 'test')
    evaluate(*args, '--out', tmp_path / 'out.jsonl', '--per-class', '--show-dir', drawn, '--interval', 2)
    evaluate(*args, '--out', tmp_path / 'metrics.json')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['mIoU'] == pytest.approx(trained['mIoU'], abs=1e-6)
    decode, names = pytest.importorskip('pycocotools.mask').decode, ['ground', *'0123456789']
    predicted, true = [], []
    for row in map(json.loads, (tmp_path / 'out.jsonl').read_text().splitlines()):
        labels = np.full((64, 64), -1)
        for area in row['areas']:
            mask = decode(area['mask']).astype(bool)
            assert names[area['label']] == area['class'] and mask.mean() == pytest.approx(area['share'])
            labels[mask] = area['label']
        predicted.append(labels)
        true.append(cv2.imread(str(segmentation.root / 'maps' / 'val' / Path(row['file']).name), 0))
    predicted, true = np.stack(predicted), np.stack(true)
    assert len(predicted) == 3 and predicted.min() >= 0
    with next((tmp_path / 'test').rglob('per_class.csv')).open() as file:
        figures = {row['class']: row for row in csv.DictReader(file)}
    for label, name in enumerate(names):
        both, any_ = ((predicted == label) & (true == label)).sum(), ((predicted == label) | (true == label)).sum()
        assert float(figures[name]['IoU']) == pytest.approx(both / any_ if any_ else np.nan, nan_ok=True)
        assert int(figures[name]['support']) == (true == label).sum()
    assert 100 * float(figures['mean']['IoU']) == pytest.approx(metrics['mIoU'], abs=0.01)
    assert sorted(p.name for p in drawn.iterdir()) == ['000000.png.png', '000002.png.png']
    assert cv2.imread(str(drawn / '000000.png.png')).shape == (64, 128, 3)  # the true map and the predicted one


def test_video_trains_and_tests(video, tmp_path):
    trained = [line for line in video.scalars if 'acc/top1' in line][-1]
    args = (video.config, video.checkpoint, '--work-dir', tmp_path / 'test')
    evaluate(*args, '--out', tmp_path / 'metrics.json', '--show-dir', tmp_path / 'drawn', '--interval', 3)
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['acc/top1'] == pytest.approx(trained['acc/top1'], abs=1e-6)
    assert sorted(p.name for p in (tmp_path / 'drawn').iterdir()) == ['0.png', '3.png']
    assert Config.fromfile(tmp_path / 'test' / 'config.py').custom_hooks == [
        dict(type='mmstvit.ClipDrawingHook', folder=str(tmp_path / 'drawn'), interval=3)
    ]
    strip = cv2.imread(str(tmp_path / 'drawn' / '0.png'))
    yellow = (strip[..., 0] < 120) & (strip[..., 1] > 200) & (strip[..., 2] > 200)
    assert strip.shape[0] < strip.shape[1] and yellow.mean() > 0.05  # the moving thing, in its colour


def test_pictures_of_a_test_are_named_by_the_paths_of_images(tmp_path, monkeypatch):
    """Two of one name have two; over an image that is tested none is written."""
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / 'set' / name for name in ('a/0.png', 'b/0.png')]
    for grey, file in zip((50, 200), files):
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), np.full((8, 8, 3), grey, np.uint8))
    samples = [SimpleNamespace(img_path=str(file)) for file in files]

    class Images(list):
        def get_data_info(self, i):
            return vars(self[i])

    def draw(name, image, sample, out_file):
        Path(out_file).write_bytes(Path(sample.img_path).read_bytes())

    runner = SimpleNamespace(
        test_dataloader=SimpleNamespace(dataset=Images(samples)), visualizer=SimpleNamespace(add_datasample=draw)
    )
    hook = drawing_hooks.ImageDrawingHook('out')
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, dict(inputs=[None, None]), samples)
    assert [Path('out', name).read_bytes() for name in ('a/0.png.png', 'b/0.png.png')] == [
        file.read_bytes() for file in files
    ]
    samples[1].img_path = str(tmp_path / 'set/a/0.png.png')
    shutil.copy(files[1], samples[1].img_path)
    with pytest.raises(UsageError, match='would be written over'):
        drawing_hooks.ImageDrawingHook('set/a').before_test_epoch(runner)


def test_clips_of_3d_recognisers_are_drawn(tmp_path):
    """Frames in a row in their colours, and a caption of the true and the predicted class."""
    inputs = torch.zeros(2, 3, 8, 16, 24)
    inputs[0, 0] = 200
    pictures = []
    for names in (('run', 'jump'), ('run', 'jump'), ('run', 'leap'), ('walk', 'jump'), None):
        runner = SimpleNamespace(visualizer=SimpleNamespace(dataset_meta=dict(classes=names) if names else None))
        sample = SimpleNamespace(pred_score=torch.tensor([0.2, 0.8]), gt_label=torch.tensor([0]))
        drawing_hooks.ClipDrawingHook(tmp_path).after_test_iter(runner, 0, dict(inputs=[inputs]), [sample])
        pictures.append(cv2.imread(str(tmp_path / '0.png')))
    assert (pictures[0] == (0, 0, 200)).all(-1).mean() > 0.8 and pictures[0].shape[1] > 4 * pictures[0].shape[0]
    assert np.array_equal(*pictures[:2])
    assert not any(np.array_equal(pictures[0], other) for other in pictures[2:])
