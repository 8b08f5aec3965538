"""COCO files that mean something else: mended so that perfect detections score 1, or refused in a line."""

import copy
import json
import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from run_helpers import DETECTION, says

from mmstvit import get_model
from mmstvit.cli.test import main as evaluate
from mmstvit.cli.train import main as train
from mmstvit.errors import UsageError

pytest.importorskip('mmdet')
masks = pytest.importorskip('pycocotools.mask')

from mmengine.evaluator import BaseMetric, Evaluator  # noqa: E402

from mmstvit.apis.models import toolbox_of  # noqa: E402
from mmstvit.engine.coco_metric import check_evaluation, checked_metrics  # noqa: E402
from mmstvit.engine.datasets import build_dataset  # noqa: E402
from mmstvit.engine.running import move_evaluators  # noqa: E402

SIZE = 200
CLASSES = ('red', 'blue')
COMMON = dict(type='CocoDataset', pipeline=[], metainfo=dict(classes=CLASSES), data_prefix=dict(img=''))
SIDES = (20, 60, 100)  # small, medium and large to COCO


@pytest.fixture(autouse=True)
def mmdet_scope():
    toolbox_of(Config(dict(default_scope='mmdet')))
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def content():
    """Four images with a square of each size, in both classes by turns."""
    images, annotations = [], []
    for i in range(1, 5):
        images.append(dict(id=i, file_name=f'{i}.png', height=SIZE, width=SIZE))
        for k, side in enumerate(SIDES):
            x, y = (3 + i, 120 + i, 30 + i)[k], (4, 10, 90)[k]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=1 + (i + k) % 2,
                    bbox=[x, y, side, side],
                    area=side * side,
                    iscrowd=0,
                    segmentation=[square(x, y, side)],
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def perfect(name, truth):
    """What a detector that is right always predicts for an image."""
    (image,) = [image['id'] for image in truth['images'] if image['file_name'] == name]
    own = [a for a in truth['annotations'] if a['image_id'] == image]
    boxes = torch.tensor([a['bbox'] for a in own], dtype=torch.float32).reshape(-1, 4)
    drawn = [masks.merge(masks.frPyObjects(a['segmentation'], SIZE, SIZE)) for a in own]
    return dict(
        bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        scores=torch.ones(len(own)),
        labels=torch.tensor([a['category_id'] - 1 for a in own], dtype=torch.long),
        masks=torch.from_numpy(np.array([masks.decode(rle) for rle in drawn])),
    )


def built(file, evaluated=None, metric=None, evaluator=None, **settings):
    """A data set and its evaluator, as the runners build them."""
    dataset = build_dataset(dict(dict(COMMON, test_mode=True, ann_file=str(file)), **settings))
    metric = dict(dict(type='CocoMetric', ann_file=str(evaluated or file), metric=['bbox', 'segm']), **(metric or {}))
    evaluator = Evaluator(checked_metrics(metric))
    evaluator.dataset_meta = dataset.metainfo
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset), evaluator=evaluator)
    return check_evaluation(loop, 'test_evaluator')


def scores(loop, truth=None):
    """The metrics of mmdet for perfect detections."""
    dataset = loop.dataloader.dataset
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        found = perfect(info['img_path'].rsplit('/', 1)[-1], truth or content())
        size = (info['height'], info['width'])
        loop.evaluator.process([dict(img_id=info['img_id'], ori_shape=size, pred_instances=found)])
    return loop.evaluator.evaluate(len(dataset))


def all_right(metrics):
    sizes = [f'coco/{kind}_mAP{size}' for kind in ('bbox', 'segm') for size in ('', '_50', '_75', '_s', '_m', '_l')]
    return {key: metrics[key] for key in sizes} == dict.fromkeys(sizes, 1.0)


@pytest.fixture
def write(tmp_path):
    def make(change=None, name='test.json', encoding='utf-8'):
        changed = content()
        if change is not None:
            change(changed)
        (tmp_path / name).write_text(json.dumps(changed), encoding=encoding)
        return tmp_path / name

    return make


def each(key, **values):
    """``each('annotations', iscrowd=1)`` sets it in all; a function gets the entry; None takes it away."""

    def change(changed):
        for entry in changed[key]:
            for name, value in values.items():
                value = value(entry) if callable(value) else value
                entry.pop(name, None)
                if value is not None:
                    entry[name] = value

    return change


def first(key, **values):
    def change(changed):
        each(key, **values)({key: changed[key][:1]})

    return change


def other_masks(changed):
    changed['annotations'][0]['segmentation'] = rle = masks.frPyObjects([square(4, 4, 20)], SIZE, SIZE)[0]
    rle['counts'] = rle['counts'].decode()
    counts = [SIZE * 30 + 90]
    counts += [100, 100] * 99 + [100]  # columns of the large square
    changed['annotations'][2].update(bbox=[31, 90, 100, 100])
    changed['annotations'][2]['segmentation'] = dict(
        size=[SIZE, SIZE], counts=[SIZE * 31 + 90, *counts[1:], SIZE * SIZE - SIZE * 31 - 90 - sum(counts[1:])]
    )


def with_crowd(changed):
    changed['annotations'].append(
        dict(
            id=99,
            image_id=1,
            category_id=1,
            bbox=[0, 0, 10, 10],
            area=100,
            iscrowd=True,
            segmentation=dict(size=[SIZE, SIZE], counts=[*([10, SIZE - 10] * 10), SIZE * (SIZE - 10)]),
        )
    )


MENDED = {
    'as it is': None,
    'ids from 0': each('annotations', id=lambda a: a['id'] - 1),
    'ids below 0': each('annotations', id=lambda a: -a['id']),
    'ids of texts': each('annotations', id=lambda a: f'a{a["id"]}'),
    'ids that are no numbers': each('annotations', id=lambda a: a['id'] / 7),
    'ids given twice': each('annotations', id=lambda a: 1 + a['id'] // 2),
    'no ids': each('annotations', id=None),
    'ids of images as texts': lambda c: (
        each('images', id=lambda i: str(i['id']))(c),
        each('annotations', image_id=lambda a: str(a['image_id']))(c),
    ),
    'images named by texts': each('annotations', image_id=lambda a: str(a['image_id'])),
    'images named by fractions': each('annotations', image_id=lambda a: float(a['image_id'])),
    'categories named by texts': each('annotations', category_id=lambda a: str(a['category_id'])),
    'categories as texts': each('categories', id=lambda c: str(c['id'])),
    'categories from 0': lambda c: (
        each('categories', id=lambda k: k['id'] - 1)(c),
        each('annotations', category_id=lambda a: a['category_id'] - 1)(c),
    ),
    'no iscrowd': each('annotations', iscrowd=None),
    'iscrowd null': lambda c: [a.update(iscrowd=None) for a in c['annotations']],
    'iscrowd false': each('annotations', iscrowd=False),
    "iscrowd '0'": each('annotations', iscrowd='0'),
    'no area': each('annotations', area=None),
    'area 0': each('annotations', area=0),
    'area below 0': each('annotations', area=-5),
    'masks of all kinds': other_masks,
    'masks of all kinds without areas': lambda c: (other_masks(c), each('annotations', area=None)(c)),
    'a crowd': with_crowd,
    'points among polygons': each(
        'annotations', segmentation=lambda a: [[4, 4, 20, 20], *a['segmentation'], [], [1, 2]]
    ),
    'annotations of other images': lambda c: c['annotations'].append(
        dict(c['annotations'][0], id=77, image_id=1000, bbox=[0, 0, 9, 9])
    ),
    'annotations of other categories': lambda c: c['annotations'].append(
        dict(c['annotations'][0], id=77, category_id=99, bbox=[0, 0, 9, 9])
    ),
    'a box outside': lambda c: c['annotations'].append(dict(c['annotations'][0], id=77, bbox=[300, 10, 20, 20])),
    'images in another order': lambda c: c['images'].reverse(),
    'ids of images beyond 32 bits': lambda c: (
        each('images', id=lambda i: i['id'] + 2**60)(c),
        each('annotations', image_id=lambda a: a['image_id'] + 2**60)(c),
    ),
}


@pytest.mark.parametrize('name', MENDED)
def test_perfect_detections_score_1(write, name):
    assert all_right(scores(built(write(MENDED[name]))))


@pytest.mark.parametrize('key', ['image_id', 'category_id'])
def test_what_is_left_out_is_told(write, caplog, key):
    file = write(lambda c: c['annotations'].append({**c['annotations'][0], 'id': 77, key: 99}))
    logger = MMLogger.get_instance('told')
    logger.addHandler(caplog.handler)
    build_dataset(dict(COMMON, ann_file=str(file)))
    said = f'{file}: 1 annotations are left out, whose {key} is not in the file; the first is annotation 77, with 99'
    assert said in caplog.messages


def test_byte_order_mark(write):
    assert all_right(scores(built(write(encoding='utf-8-sig'))))


def test_areas_are_those_of_the_masks(write):
    """Sides of 100 are large to COCO as a square, and medium as the half of it, below 96 x 96."""

    def change(changed):
        each('annotations', area=None)(changed)
        for a in changed['annotations'][2::3]:
            x, y, side, _ = a['bbox']
            a['segmentation'] = [[x, y, x + side, y, x, y + side]]

    file = write(change)
    metrics = scores(built(file), json.loads(file.read_text()))
    assert metrics['coco/bbox_mAP'] == 1 and metrics['coco/bbox_mAP_l'] == -1


def test_boxes_alone(write):
    """Masks that are none do not matter where boxes alone are scored."""
    for mask in (None, [], [[]], [[4, 4, 20, 20]]):
        loop = built(write(each('annotations', segmentation=mask, area=None)), metric=dict(metric='bbox'))
        assert scores(loop)['coco/bbox_mAP'] == 1


def test_a_part_of_the_images(write):
    """Of those that are not tested nothing can be missed."""
    loop = built(write(), indices=2)
    assert all_right(scores(loop))


def test_no_annotations(write, tmp_path):
    """A file of images alone is predicted for, and not scored."""
    file = write(lambda c: c.pop('annotations'))
    prefix = str(tmp_path / 'out' / 'results')
    (tmp_path / 'out').mkdir()
    assert scores(built(file, metric=dict(format_only=True, outfile_prefix=prefix))) == {}
    written = json.loads((tmp_path / 'out' / 'results.bbox.json').read_text())
    assert sorted(a['image_id'] for a in written) == [i for i in range(1, 5) for _ in SIDES]
    with pytest.raises(UsageError, match=f'^{file}: no annotation can be scored'):
        built(file)
    with pytest.raises(UsageError, match=f'^{file} .*no list annotations'):
        built(file, test_mode=False)


REFUSED = {
    'all are crowds': (each('annotations', iscrowd=1), 'no annotation can be scored'),
    'no annotations': (lambda c: c['annotations'].clear(), 'no annotation can be scored'),
    'of other images alone': (each('annotations', image_id=99), 'no annotation can be scored'),
    'iscrowd 2': (first('annotations', iscrowd=2), 'image 1.png: annotation 1 has iscrowd 2'),
    "iscrowd 'no'": (first('annotations', iscrowd='no'), 'image 1.png: annotation 1 has iscrowd no'),
    'iscrowd of a list': (first('annotations', iscrowd=[0]), 'image 1.png: annotation 1 has iscrowd [0]'),
    'a short polygon': (
        first('annotations', segmentation=[[4, 4, 20, 20]]),
        'image 1.png: annotation 1 has no segmentation of three points',
    ),
    'no points': (first('annotations', segmentation=[[]]), 'image 1.png: annotation 1 has no segmentation'),
    'no mask': (first('annotations', segmentation=None), 'image 1.png: annotation 1 has no segmentation'),
    'ids from 0, no mask': (
        lambda c: (each('annotations', id=lambda a: a['id'] - 1)(c), first('annotations', segmentation=None)(c)),
        'image 1.png: annotation 0 has no segmentation',
    ),
    'odd numbers': (
        first('annotations', segmentation=[[4, 4, 20, 20, 4, 20, 9]]),
        'image 1.png: annotation 1 has a segmentation with a polygon of 7 numbers',
    ),
    'polygons and RLE in one': (
        first('annotations', segmentation=lambda a: [*a['segmentation'], dict(size=[SIZE, SIZE], counts='')]),
        'image 1.png: annotation 1 has a segmentation that is no list of polygons',
    ),
    'RLE of another size': (
        first('annotations', segmentation=dict(size=[SIZE, SIZE + 1], counts=[SIZE * (SIZE + 1)])),
        'image 1.png: annotation 1 has a segmentation of the size [200, 201]',
    ),
    'no width': (first('annotations', bbox=[4, 4, 0, 20]), 'image 1.png: annotation 1 has the bbox [4, 4, 0, 20]'),
    'a width below 0': (
        first('annotations', bbox=[24, 4, -20, 20]),
        'image 1.png: annotation 1 has the bbox [24, 4, -20',
    ),
    'corners': (
        each('annotations', bbox=lambda a: [*a['bbox'][:2], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3]]),
        'its boxes are two corners',
    ),
    'fractions': (each('annotations', bbox=lambda a: [v / SIZE for v in a['bbox']]), 'its boxes are fractions'),
    'no bbox': (first('annotations', bbox=None), "image 1.png: an entry has no 'bbox'"),
    'no image_id': (first('annotations', image_id=None), 'annotation 1 has no image_id'),
    'categories from 1 in annotations': (
        each('categories', id=lambda k: k['id'] - 1),
        'name categories by ids that are all +1 to those of its categories',
    ),
    'categories from 0 in annotations': (
        each('annotations', category_id=lambda a: a['category_id'] - 1),
        'name categories by ids that are all -1 to those of its categories',
    ),
    'no category_id': (first('annotations', category_id=None), 'annotation 1 has no category_id'),
    'two images of an id': (first('images', id=2), 'several of its images have the id 2'),
    'two categories of an id': (first('categories', id=2), 'several of its categories have the id 2'),
    'two categories of a name': (
        lambda c: c['categories'].append(dict(id=3, name='red')),
        'has several categories red',
    ),
    'numbers and texts': (
        lambda c: (first('images', id='a')(c), each('annotations', image_id=2)(c)),
        'the ids of its images are numbers and texts',
    ),
    'an id of 64 bits and more': (first('images', id=2**64), 'one of its images has the id 18446744073709551616'),
    'an id of a list': (first('categories', id=[1]), 'one of its categories has the id [1]'),
    'an annotation twice': (
        lambda c: c['annotations'].append(c['annotations'][3]),
        'annotation 4 is in it twice',
    ),
    'an entry that is none': (lambda c: c['images'].append(5), 'entry 4 of images is 5'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_in_a_line(write, name):
    change, said = REFUSED[name]
    file = write(change)
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        built(file)
    assert str(error.value).startswith(str(file)) and '\n' not in str(error.value)


def test_classes_that_are_not_annotated(write):
    file = write(each('annotations', category_id=1))
    with pytest.raises(UsageError, match='no annotation can be scored'):
        built(file, metainfo=dict(classes=('blue',)))


def test_evaluator_of_another_file(write, tmp_path):
    half = write(lambda c: c['images'].__delitem__(slice(2)), name='half.json')
    file = write()
    with pytest.raises(UsageError) as error:
        built(half, evaluated=file)
    assert says(str(error.value), f' {file} ', f' {half}')
    assert f'test_evaluator.ann_file={half}' in str(error.value)
    assert all_right(scores(built(half)))
    (tmp_path / 'link.json').symlink_to(half)
    assert all_right(scores(built(half, evaluated=tmp_path / 'link.json')))
    with pytest.raises(UsageError, match='absent.json: .* cannot be read'):
        built(half, evaluated=tmp_path / 'absent.json')


def test_evaluators_file_is_read_once(write, monkeypatch):
    """By the data set; again only when it has changed."""
    read, load = [], json.load
    monkeypatch.setattr(json, 'load', lambda stream: read.append(getattr(stream, 'name', '')) or load(stream))
    file = write()
    loop = built(file)
    assert read.count(str(file)) == 1
    assert all_right(scores(loop))
    build_dataset(dict(COMMON, test_mode=True, ann_file=str(file)))
    write(first('annotations', iscrowd=1))
    (metric,) = Evaluator(checked_metrics(dict(type='CocoMetric', ann_file=str(file)))).metrics
    assert metric._coco_api.anns[1]['iscrowd'] == 1


def test_derived_metrics(write):
    """A class of the user's over mmdet's reads with the same checks."""
    from mmdet.evaluation import CocoMetric

    class Own(CocoMetric):
        pass

    assert all_right(scores(built(write(MENDED['ids from 0']), metric=dict(type=Own))))


def test_metrics_with_readers_of_their_own_are_named(write, caplog):
    """Whose files are not checked is said, once a metric, and not of those that are."""
    from mmdet.evaluation import CocoMetric

    class OfLVIS(CocoMetric):
        def __init__(self, ann_file, **settings):
            super().__init__(**settings)
            self._lvis_api = ann_file

    class Panoptic(BaseMetric):
        def __init__(self, ann_file):
            super().__init__()
            self.ann_file = ann_file

        def process(self, data_batch, data_samples):
            pass

        def compute_metrics(self, results):
            pass

    file = str(write(lambda c: None))
    MMLogger.get_instance('named').addHandler(caplog.handler)
    metrics = [dict(type=kind, ann_file=file) for kind in (OfLVIS, Panoptic, CocoMetric)]
    own, other, checked = Evaluator(checked_metrics(metrics)).metrics
    assert (own._lvis_api, own._coco_api, other.ann_file, checked._coco_api.file) == (file, None, file, file)
    said = [line for line in caplog.messages if 'is not checked' in line]
    assert [line.split()[0] for line in said] == ['OfLVIS', 'Panoptic']
    assert all(file in line and '\n' not in line for line in said)


def test_training_goes_on_with_what_does_not_count(write):
    """Boxes of no width and outside of the image are left out by mmdet, as are those without an area."""

    def change(changed):
        changed['annotations'][0]['bbox'] = [4, 4, 0, 20]
        changed['annotations'][1]['bbox'] = [400, 4, 20, 20]
        changed['annotations'][2]['area'] = 0

    file = write(change)
    dataset = build_dataset(dict(COMMON, ann_file=str(file)))
    assert [len(dataset.get_data_info(i)['instances']) for i in range(4)] == [1, 3, 3, 3]


# ---------------------------------------------------------------------------------------------------- the commands
@pytest.fixture
def detector(write, tmp_path):
    """A detector that has learned nothing, and a set of pictures: ``config``, ``weights``, ``root``."""
    root = tmp_path / 'set'
    (root / 'images').mkdir(parents=True)
    for i in range(1, 5):
        cv2.imwrite(str(root / 'images' / f'{i}.png'), np.full((SIZE, SIZE, 3), 40 * i, np.uint8))
    config = tmp_path / 'config.py'
    config.write_text(DETECTION.replace('{root}', str(root)).replace("('square', 'disc')", str(CLASSES)))
    torch.save(dict(state_dict=get_model(config).state_dict()), tmp_path / 'weights.pth')
    return SimpleNamespace(root=root, config=config, weights=tmp_path / 'weights.pth', work_dir=tmp_path / 'work')


def arguments(detector, *options):
    return detector.config, detector.weights, '--work-dir', detector.work_dir, '--cfg-options', *options


def test_command_refuses_another_file(detector, write, fails):
    write(name='set/scenes.json')
    write(lambda c: c['images'].pop(), name='set/half.json')
    half = 'test_dataloader.dataset.ann_file=half.json'
    line = fails(evaluate, *arguments(detector, half))
    assert f'{detector.root}/scenes.json' in line and f'{detector.root}/half.json' in line
    evaluate([str(a) for a in arguments(detector, half, f'test_evaluator.ann_file={detector.root}/half.json')])


def test_evaluator_follows_the_data_set(detector, write, fails, tmp_path):
    """As the line for a data set that is not there says."""
    write(name='set/scenes.json')
    shutil.move(detector.root, tmp_path / 'moved')
    line = fails(evaluate, *arguments(detector, 'test_dataloader.num_workers=0'))
    assert 'there is no data set at' in line and '--cfg-options test_dataloader.dataset.data_root=PATH' in line
    evaluate([str(a) for a in arguments(detector, f'test_dataloader.dataset.data_root={tmp_path / "moved"}')])
    cfg = Config.fromfile(detector.work_dir / 'config.py')
    assert cfg.test_evaluator.ann_file == f'{tmp_path}/moved/scenes.json'
    assert cfg.val_evaluator.ann_file == f'{detector.root}/scenes.json'


def test_evaluators_that_do_not_follow():
    """Those of other folders, and those that are given too; in lists they follow one by one."""
    metrics = [
        dict(type='CocoMetric', ann_file='data/a/val.json'),
        dict(type='CocoMetric', ann_file='data/ab/val.json'),
    ]
    before = Config(
        dict(
            val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(data_root='data/a'))),
            val_evaluator=dict(type='MultiDatasetsEvaluator', metrics=metrics),
            test_dataloader=dict(dataset=dict(data_root='data/a/')),
            test_evaluator=metrics,
        )
    )
    cfg = copy.deepcopy(before)
    cfg.val_dataloader.dataset.dataset.data_root = cfg.test_dataloader.dataset.data_root = 'b'
    move_evaluators(cfg, before)
    for moved in (cfg.val_evaluator.metrics, cfg.test_evaluator):
        assert [metric.ann_file for metric in moved] == ['b/val.json', 'data/ab/val.json']
    cfg = copy.deepcopy(before)
    cfg.test_dataloader.dataset.data_root = 'b'
    cfg.test_evaluator[0].ann_file = 'data/a/half.json'
    move_evaluators(cfg, before)
    assert cfg.test_evaluator[0].ann_file == 'data/a/half.json'


def test_commands_refuse_crowds_alone(detector, write, fails):
    """A test, and a training before its first iteration."""
    write(each('annotations', iscrowd=1), name='set/crowds.json')
    write(name='set/scenes.json')
    for main, split in ((evaluate, 'test'), (train, 'val')):
        config, weights, *rest = arguments(detector, f'{split}_dataloader.dataset.ann_file=crowds.json')
        given = (config, weights, *rest) if main is evaluate else (config, *rest)
        line = fails(main, *given, f'{split}_evaluator.ann_file={detector.root}/crowds.json')
        assert f'{detector.root}/crowds.json: no annotation can be scored' in line
    assert not list(detector.work_dir.glob('*.pth'))


def test_picture_of_another_size(detector, write, fails):
    """Boxes and masks of a file of other sizes than the pictures' would not fit them."""
    write(first('images', height=SIZE // 2, width=SIZE // 2), name='set/scenes.json')
    line = fails(evaluate, *arguments(detector, 'test_dataloader.num_workers=0'))
    root = detector.root
    assert says(line, f'error: {root}/images/1.png: ', '200 x 200', '100 x 100', f'{root}/scenes.json')
