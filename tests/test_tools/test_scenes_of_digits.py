"""Mask R-CNN on STViT-R, trained on two made scenes until it knows them: tested, resumed, and given bad files."""

import json
import pickle
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from run_helpers import one_run, read_scalars

from mmstvit import inference_model
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train

pytest.importorskip('mmdet')
pytest.importorskip('pycocotools')

# The config of the digits with less to learn, on images of their own size.
CONFIG = """
_base_ = ['mmstvit::digits/mask-rcnn_stvit-r_digits.py']
model = dict(backbone=dict(arch=dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 2, 4, 8))),
             neck=dict(in_channels=[16, 32, 64, 128]))
resize = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True), resize]
meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
common = dict(type='CocoDataset', metainfo=dict(classes=tuple('0123456789')), data_root='{root}/',
              ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'))
scenes = dict(filter_cfg=dict(filter_empty_gt=True), pipeline=[*load, dict(type='PackDetInputs')], **common)
held = dict(test_mode=True, pipeline=[load[0], resize, dict(type='PackDetInputs', meta_keys=meta)], **common)
train_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, type='RepeatDataset', times=TIMES, dataset=scenes))
val_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, **held))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{root}/annotations/instances_train.json')
test_evaluator = val_evaluator
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
                   dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=3, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=3, val_interval=3)
"""


TIMES = 30  # the two scenes in an epoch, which are one batch


def write_config(folder, root):
    path = folder / 'scenes.py'
    path.write_text(CONFIG.replace('{root}', str(root)).replace('TIMES', str(TIMES)))
    return path


@pytest.fixture(scope='session')
def learned(tmp_path_factory):
    """A finished run on two scenes: ``root``, ``config``, ``work_dir``, ``checkpoint``, ``metrics``."""
    from mmstvit.datasets.scenes import make_scenes

    root = tmp_path_factory.mktemp('scenes')
    make_scenes(root, train=2, val=1, size=96, progress=False)
    work_dir = tmp_path_factory.mktemp('learned')
    config = write_config(root, root)
    # Stopped after the second of three epochs, and taken up again.
    with one_run():
        train([str(config), '--work-dir', str(work_dir), '--cfg-options', 'train_cfg.max_epochs=2'])
    first = read_scalars(work_dir)
    with one_run():
        train([str(config), '--work-dir', str(work_dir), '--resume'])
    scalars = read_scalars(work_dir)
    return SimpleNamespace(
        root=root,
        config=config,
        work_dir=work_dir,
        checkpoint=work_dir / 'epoch_3.pth',
        first=first,
        scalars=scalars,
        metrics=[line for line in scalars if 'coco/bbox_mAP' in line][-1],
    )


def test_two_scenes_are_learned(learned):
    assert learned.metrics['coco/bbox_mAP'] >= 0.8
    assert learned.metrics['coco/segm_mAP'] >= 0.7


def test_resumed_where_it_stopped(learned):
    assert [line['epoch'] for line in learned.first if 'loss' in line][-1] == 2
    resumed = [line for line in learned.scalars if 'loss' in line]
    assert resumed[0]['epoch'] == 3 and resumed[0]['step'] > 2 * TIMES
    assert resumed[0]['loss'] < [line for line in learned.first if 'loss' in line][0]['loss'] / 2


def evaluated(learned, folder, root, out, batch_size=2):
    """Metrics (``out`` is a JSON file), or predictions by image, on the training scenes below ``root``."""
    args = [write_config(folder, root), learned.checkpoint, '--work-dir', folder / 'w', '--out', folder / out]
    evaluate([str(arg) for arg in (*args, '--cfg-options', f'test_dataloader.batch_size={batch_size}')])
    if out.endswith('.json'):
        return json.loads((folder / out).read_text())
    return {p['img_id']: p['pred_instances'] for p in pickle.loads((folder / out).read_bytes())}


def copies(learned, folder, sizes):
    """The two scenes in turn, each with more of its ground around it, of ``sizes``."""
    source = json.loads((learned.root / 'annotations' / 'instances_train.json').read_text())
    (folder / 'train').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    images, annotations = [], []
    for i, (height, width) in enumerate(sizes):
        original = source['images'][i % 2]
        image = cv2.imread(str(learned.root / 'train' / original['file_name']))
        below, right = height - image.shape[0], width - image.shape[1]
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
        cv2.imwrite(str(folder / 'train' / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=height, width=width))
        for ann in source['annotations']:
            if ann['image_id'] == original['id']:
                polygon = [[ann['bbox'][0], ann['bbox'][1], ann['bbox'][0] + 5, ann['bbox'][1], ann['bbox'][0], 9]]
                kept = {**ann, 'id': len(annotations) + 1, 'image_id': i, 'segmentation': polygon}
                annotations.append(kept)
    content = dict(images=images, annotations=annotations, categories=source['categories'])
    (folder / 'annotations' / 'instances_train.json').write_text(json.dumps(content))
    return folder


def test_the_batch_does_not_matter_for_equal_sizes(learned, tmp_path):
    root = copies(learned, tmp_path / 'data', [(96, 96)] * 4)
    alone, together = (evaluated(learned, tmp_path, root, 'predictions.pkl', size) for size in (1, 4))
    for image, found in alone.items():
        assert np.allclose(found['bboxes'], together[image]['bboxes'], atol=1e-2)
        assert np.array_equal(found['labels'], together[image]['labels'])


def test_the_batch_matters_little_for_mixed_sizes(learned, tmp_path):
    root = copies(learned, tmp_path / 'data', [(96 + 5 * i % 32, 96 + 11 * i % 32) for i in range(24)])
    ap = [evaluated(learned, tmp_path, root, 'metrics.json', size)['coco/bbox_mAP'] for size in (1, 4)]
    assert ap[0] > 0.5 and ap[0] == pytest.approx(ap[1], abs=0.005)


def test_drawn_and_inferred(learned, tmp_path):
    args = (learned.config, learned.checkpoint, '--work-dir', tmp_path / 'w', '--show-dir', tmp_path / 'drawn')
    evaluate([str(arg) for arg in args])
    drawn = sorted((tmp_path / 'drawn').iterdir())
    assert len(drawn) == 2
    image = str(learned.root / 'train' / '000000.png')
    result = inference_model(str(learned.config), str(learned.checkpoint), image)
    source = json.loads((learned.root / 'annotations' / 'instances_train.json').read_text())
    truth = sorted(ann['category_id'] - 1 for ann in source['annotations'] if ann['image_id'] == 0)
    sure = result.pred_instances[result.pred_instances.scores > 0.5]
    assert sorted(sure.labels.tolist()) == truth
    assert sure.masks.shape == (len(truth), 96, 96)


@pytest.fixture
def broken(learned, tmp_path):
    """``broken(change)``: the config over a copy of the data whose annotations ``change`` has changed."""

    def make(change):
        root = tmp_path / 'broken'
        shutil.copytree(learned.root, root)
        file = root / 'annotations' / 'instances_train.json'
        content = json.loads(file.read_text())
        changed = change(content)
        file.write_text(changed if isinstance(changed, str) else json.dumps(content))
        return SimpleNamespace(root=root, file=file, config=write_config(tmp_path, root), work_dir=tmp_path / 'work')

    return make


def rename(content, old, new):
    for category in content['categories']:
        if category['name'] == old:
            category['name'] = new


@pytest.mark.parametrize(
    'change,message',
    [
        (lambda c: '{"images": [', 'is no annotation file in the format of COCO'),
        (lambda c: '[]', 'is no annotation file in the format of COCO'),
        (lambda c: c.pop('annotations') and None, 'no list annotations'),
        (lambda c: rename(c, '7', 'seven'), 'has no category 7: name its categories'),
        (lambda c: c['categories'].reverse(), 'in another order than the config, which begins with 0'),
        (lambda c: c['annotations'][0].pop('segmentation') and None, 'an annotation has no segmentation'),
        (lambda c: c['annotations'][0].pop('bbox') and None, "an entry has no 'bbox'"),
        (lambda c: c['images'][0].pop('width') and None, "an entry has no 'width'"),
        (lambda c: c['annotations'].clear(), 'no image can be used'),
    ],
)
def test_a_fault_in_an_annotation_file_is_one_line(broken, fails, change, message):
    case = broken(change)
    line = fails(train, case.config, '--work-dir', case.work_dir)
    assert str(case.file) in line and message in line
    assert not list(case.work_dir.glob('*.pth'))


def test_odd_images_and_annotations_are_borne(broken, learned):
    """Training and testing go on: tiny and grey images, no annotations, boxes outside, an unknown category."""
    sizes = [(3, 5), (1, 60), (60, 1), (20, 31)]

    def change(content):
        for i, (height, width) in enumerate(sizes):
            content['images'].append(dict(id=10 + i, file_name=f'odd{i}.png', height=height, width=width))
        common = dict(iscrowd=0, image_id=13, category_id=1)
        polygon = [[2, 2, 18, 2, 18, 15, 2, 15]]
        content['annotations'] += [
            dict(id=901, bbox=[2, 2, 16, 13], area=208, segmentation=polygon, **common),
            dict(id=902, bbox=[500, 500, 20, 20], area=400, segmentation=polygon, **common),
            dict(id=903, bbox=[-4, -3, 12, 12], area=144, segmentation=polygon, **common),
            dict(id=904, bbox=[2, 2, 16, 13], area=208, segmentation=polygon, **{**common, 'category_id': 99}),
        ]

    case = broken(change)
    for i, size in enumerate(sizes):
        cv2.imwrite(str(case.root / 'train' / f'odd{i}.png'), np.full(size, 90 + i, np.uint8))
    options = ['train_dataloader.dataset.times=1', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    options += ['train_dataloader.dataset.dataset.filter_cfg.filter_empty_gt=False']
    train([str(case.config), '--work-dir', str(case.work_dir), '--cfg-options', *options])
    losses = [line['loss'] for line in read_scalars(case.work_dir) if 'loss' in line]
    assert (case.work_dir / 'epoch_1.pth').is_file() and np.isfinite(losses).all()
    found = evaluated(learned, case.work_dir.parent, case.root, 'predictions.pkl')
    assert set(found) == {0, 1, 10, 11, 12, 13}
