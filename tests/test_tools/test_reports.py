"""What `mmstvit test` reports of each class, and the predictions that it writes."""

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from run_helpers import DENSE, saved

from mmstvit import get_model, inference_model, reduce_
from mmstvit.apis.pipelines import toolbox_scope
from mmstvit.apis.testing import class_figures
from mmstvit.cli.test import main
from mmstvit.visualization.confusion import confusion_picture

# Of so many images of each class (row) the network of `colours` says that they are of which class (column).
MATRIX = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 1]])
CLASSES = ('red', 'green', 'blue')
NETWORK = """
import torch
from mmpretrain.registry import MODELS

@MODELS.register_module(force=True)
class MeanColour(torch.nn.Module):
    def forward(self, x):
        return (x.mean((2, 3)),)
"""
CONFIG = """
_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports='mean_colour')
model = dict(
    type='ImageClassifier', backbone=dict(type='MeanColour'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=3))
data_preprocessor = dict(num_classes=3, to_rgb=True, mean=[0, 0, 0], std=[255, 255, 255])
test_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root='{root}/data', metainfo=dict(classes={classes}),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_evaluator = dict(type='Accuracy', topk=1)
test_cfg = dict()
"""


def rows(path):
    with open(path, newline='') as file:
        return list(csv.reader(file))


def only(folder, name):
    (path,) = folder.rglob(name)
    return path


def evaluate(run, *args):
    main([run.config, run.checkpoint, '--work-dir', str(run.work_dir), *map(str, args)])


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A network that says of each image its colour, and images in the folders of other classes."""
    number = 0
    for true, row in enumerate(MATRIX):
        folder = tmp_path / 'data' / f'{true}'
        folder.mkdir(parents=True)
        for colour in np.arange(3).repeat(row):
            image = np.zeros((8, 8, 3), np.uint8)
            image[..., 2 - colour] = 255  # OpenCV writes BGR
            cv2.imwrite(str(folder / f'{number}.png'), image)
            number += 1
    (tmp_path / 'mean_colour.py').write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'colours.pth'
    config.write_text(CONFIG.format(root=tmp_path, classes=CLASSES))
    weights = {'head.fc.weight': 10 * torch.eye(3), 'head.fc.bias': torch.zeros(3)}
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=CLASSES))), checkpoint)
    return SimpleNamespace(config=str(config), checkpoint=str(checkpoint), work_dir=tmp_path / 'work_dir')


def test_classes_of_a_classifier(colours, tmp_path, capsys):
    out = tmp_path / 'metrics.json'
    evaluate(colours, '--per-class', '--confusion-matrix', '--out', out)
    metrics = json.loads(out.read_text())
    assert metrics['accuracy/top1'] == pytest.approx(100 * 6 / 9)
    assert metrics['confusion_matrix/result'] == MATRIX.tolist()
    head, *lines, mean = rows(only(colours.work_dir, 'per_class.csv'))
    assert head == ['class', 'precision', 'recall', 'f1', 'support']
    expected = {'red': (1, 3 / 4, 6 / 7, 4), 'green': (2 / 3, 1 / 2, 4 / 7, 4), 'blue': (1 / 3, 1, 1 / 2, 1)}
    assert [line[0] for line in lines] == list(expected)
    for line in lines:
        assert [float(cell) for cell in line[1:]] == pytest.approx(expected[line[0]])
    assert [float(cell) for cell in mean[1:]] == pytest.approx([2 / 3, 3 / 4, (6 / 7 + 4 / 7 + 1 / 2) / 3, 9])
    assert rows(only(colours.work_dir, 'confusion_matrix.csv')) == [
        ['true', *CLASSES],
        *([name, *map(str, row)] for name, row in zip(CLASSES, MATRIX)),
    ]
    assert cv2.imread(str(only(colours.work_dir, 'confusion_matrix.png'))).std() > 5
    printed = capsys.readouterr().out
    assert all(name in printed for name in CLASSES) and '0.857' in printed


def test_predictions_as_lines(colours, tmp_path):
    out = tmp_path / 'new' / 'predictions.jsonl'
    evaluate(colours, '--out', out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found = np.zeros((3, 3), int)
    for line in lines:
        found[line['gt_label'], line['pred_label']] += 1
        assert line['pred_class'] == CLASSES[line['pred_label']] and line['gt_class'] == CLASSES[line['gt_label']]
    assert found.tolist() == MATRIX.tolist()
    expected = inference_model(colours.config, colours.checkpoint, [line['file'] for line in lines])
    for line, one in zip(lines, expected, strict=True):
        np.testing.assert_allclose(line['pred_scores'], one['pred_scores'], atol=1e-6)


def test_predictions_of_a_reduced_network(tmp_path):
    """As those of the same weights after `reduce_`, and refused where nothing can be reduced."""
    config, weights = saved(tmp_path, DENSE.replace('indices=150', 'indices=20'), tuple('0123456789'))
    model, plain = get_model(config, weights), get_model(config, weights)
    data = Config.fromfile(config).test_dataloader.dataset
    reduce_(model, 'tome', r=4)
    out = tmp_path / 'predictions.jsonl'
    main([config, weights, '--work-dir', str(tmp_path), '--reduce', 'tome:r=4', '--out', str(out)])
    with toolbox_scope('mmpretrain'):
        images = [sample['inputs'] for sample in DATASETS.build(data)]
    scores = [json.loads(line)['pred_scores'] for line in out.read_text().splitlines()]
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=torch.stack(images)))['inputs']
        expected, other = (m.head(m.extract_feat(inputs)).softmax(dim=-1) for m in (model, plain))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.abs(np.array(scores) - other.numpy()).max() > 1e-3


def test_figures_of_classes_as_csv(colours, tmp_path):
    """Also where the config has the confusion matrix already, under a name of its own."""
    out = tmp_path / 'classes.csv'
    with open(colours.config, 'a') as config:
        config.write("test_evaluator = [test_evaluator, dict(type='ConfusionMatrix', prefix='own')]\n")
    evaluate(colours, '--out', out)
    assert [line[-1] for line in rows(out)] == ['support', '4', '4', '1', '9']


def test_clips(video, tmp_path):
    from mmengine.config import Config

    out = tmp_path / 'predictions.jsonl'
    args = [video.config, video.checkpoint, '--work-dir', tmp_path, '--per-class', '--confusion-matrix', '--out', out]
    main([str(arg) for arg in args])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['file'].split('/')[-1] for line in lines] == [f'{i}.mp4' for i in range(6)]
    assert [line['gt_label'] for line in lines] == [0, 1] * 3
    matrix = np.array([[int(cell) for cell in row[1:]] for row in rows(only(tmp_path, 'confusion_matrix.csv'))[1:]])
    expected = np.zeros((2, 2), int)
    np.add.at(expected, tuple(zip(*((line['gt_label'], line['pred_label']) for line in lines))), 1)
    assert matrix.tolist() == expected.tolist()
    dumped = Config.fromfile(tmp_path / 'config.py')  # what was run can be read again
    assert {'PredictionRows', 'ConfusionMatrix'} <= {one.type.split('.')[-1] for one in dumped.test_evaluator}


def test_objects(detection, tmp_path):
    out = tmp_path / 'predictions.jsonl'
    args = [detection.config, detection.checkpoint, '--work-dir', tmp_path, '--per-class', '--out', out]
    main([str(arg) for arg in args])
    head, *lines = rows(only(tmp_path, 'per_class.csv'))
    assert head == ['class', 'bbox_AP'] and [line[0] for line in lines] == ['square', 'disc', 'mean']
    precisions = [float(line[1]) for line in lines]
    assert np.mean(precisions[:2]) == pytest.approx(precisions[2], abs=2e-3)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(written) == 8 and sum(len(line['objects']) for line in written) > 8
    assert {one['class'] for line in written for one in line['objects']} <= {'square', 'disc'}


def test_boxes_and_masks_are_told_apart(tmp_path):
    """mmdet gives the AP of a class one name for all kinds: the last would stand for all."""
    from mmdet.evaluation import CocoMetric
    from mmengine.registry import DefaultScope
    from pycocotools.mask import encode

    from mmstvit.apis.testing import average_precisions
    from mmstvit.engine.coco_metric import build_metric

    def whole(box):
        mask = np.zeros((64, 64), np.uint8, order='F')
        left, top, right, bottom = map(int, box)
        mask[top:bottom, left:right] = 1
        return encode(mask)

    box = [8, 8, 40, 40]
    polygon = [8, 8, 40, 8, 40, 40, 8, 40]
    annotation = dict(id=1, image_id=0, category_id=1, bbox=[8, 8, 32, 32], area=1024, iscrowd=0)
    images = [dict(id=0, file_name='0.png', height=64, width=64)]
    categories = [dict(id=1, name='square'), dict(id=2, name='disc')]
    file = tmp_path / 'coco.json'
    file.write_text(
        json.dumps(dict(images=images, annotations=[dict(annotation, segmentation=[polygon])], categories=categories))
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = build_metric(dict(type=CocoMetric, ann_file=str(file), metric=['bbox', 'segm'], classwise=True))
    metric.dataset_meta = dict(classes=('square', 'disc'))
    found = dict(
        bboxes=torch.tensor([box], dtype=torch.float32),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        masks=[whole([48, 48, 60, 60])],  # the box is right, the mask is elsewhere
    )
    metric.process({}, [dict(img_id=0, ori_shape=(64, 64), pred_instances=found)])
    values = metric.evaluate(1)
    assert values['coco/bbox_mAP'] == 1 and values['coco/segm_mAP'] == 0
    head, square, disc, _ = average_precisions(values, ('square', 'disc'))
    assert head == ['class', 'bbox_AP', 'segm_AP'] and square == ['square', 1, 0]
    assert np.isnan(disc[1:]).all()


def test_classes_of_boxes_that_come_with_the_samples():
    """As of VOC's form, which has no file of all annotations."""
    from mmdet.evaluation import CocoMetric
    from mmengine.registry import DefaultScope

    from mmstvit.apis.testing import average_precisions
    from mmstvit.engine.coco_metric import build_metric

    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = build_metric(dict(type=CocoMetric, classwise=True))
    metric.dataset_meta = dict(classes=('square', 'disc'))
    boxes = [[8, 8, 40, 40], [20, 20, 50, 60]]
    true = [dict(bbox=box, bbox_label=label, ignore_flag=0) for label, box in enumerate(boxes)]
    found = dict(bboxes=torch.tensor(boxes[:1]).float(), scores=torch.tensor([0.9]), labels=torch.tensor([0]))
    metric.process({}, [dict(img_id=0, ori_shape=(64, 64), instances=true, pred_instances=found)])
    assert average_precisions(metric.evaluate(1), ('square', 'disc'))[:3] == [
        ['class', 'bbox_AP'],
        ['square', 1],
        ['disc', 0],
    ]


def test_wrong_options(trained, detection, tmp_path, fails):
    command = (trained.config, trained.checkpoint, '--work-dir', tmp_path)
    head = 'model.head.type=MultiLabelLinearClsHead'
    assert 'one label to an image' in fails(main, *command, '--per-class', '--cfg-options', head)
    assert 'name it *.json or *.csv' in fails(main, *command, '--out', 'predictions.txt')
    command = (detection.config, detection.checkpoint, '--work-dir', tmp_path)
    assert '--confusion-matrix is not for detectors' in fails(main, *command, '--confusion-matrix')
    other = 'test_evaluator.type=VOCMetric'
    assert '--per-class needs a CocoMetric' in fails(main, *command, '--per-class', '--cfg-options', other)


def test_classes_without_samples_or_predictions():
    _, *lines, mean = class_figures(np.array([[2, 0, 0], [2, 0, 0], [0, 0, 0]]), 'abc')
    assert [line[1:] for line in lines] == [[0.5, 1, pytest.approx(2 / 3), 2], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert mean == ['mean', pytest.approx(1 / 6), pytest.approx(1 / 3), pytest.approx(2 / 9), 4]


@pytest.mark.parametrize('number', [2, 30, 100, 150])
def test_picture_of_a_confusion_matrix(number):
    """The diagonal is dark, and all else light, where everything is right; names do not make it grow beyond a page."""
    matrix = 7 * np.eye(number, dtype=int)
    picture = confusion_picture(matrix, [f'a class of the name {i}' for i in range(number)])
    assert picture.dtype == np.uint8 and max(picture.shape) < 2500
    dark = (picture < (60, 90, 140)).all(-1) & (picture[..., 2].astype(int) - picture[..., 0] > 60)  # of Blues
    ys, xs = np.nonzero(dark[:, : picture.shape[1] * 9 // 10])
    assert len(ys) > 100 and np.corrcoef(ys, xs)[0, 1] == pytest.approx(1 - 1 / number**2, abs=0.05)
