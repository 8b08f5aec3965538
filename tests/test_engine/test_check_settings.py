"""Wrong settings of a config end in one line that names their place, with exit code 2, in all three toolboxes."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmstvit.cli.train import main as train
from mmstvit.engine.check_settings import check_settings
from mmstvit.errors import UsageError

# Two runs of one second share mmengine's log.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created')

LOADER = dict(batch_size=2, num_workers=0, dataset=dict(type='Any'))
RIGHT = dict(
    train_dataloader=LOADER,
    val_dataloader=LOADER,
    train_cfg=dict(max_epochs=3, val_interval=1),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1.0)),
    param_scheduler=[dict(type='MultiStepLR', milestones=[1, 2])],
    data_preprocessor=dict(mean=[1.0, 2, 3], std=[4, 5, 6]),
    val_evaluator=dict(type='Accuracy', topk=(1, 5)),
    default_hooks=dict(checkpoint=dict(interval=1)),
)


def test_right_settings():
    check_settings(Config(RIGHT), ('train_dataloader', 'val_dataloader'))
    gray = dict(data_preprocessor=dict(mean=[127.5], std=[0.5]), default_hooks=dict(checkpoint=dict(interval=-1)))
    four = dict(data_preprocessor=dict(mean=[0.5] * 4, std=[1] * 4))  # channels, for networks that have them
    check_settings(Config({**RIGHT, **four}), ())
    check_settings(Config({**RIGHT, **gray, 'val_dataloader': None}), ('train_dataloader', 'val_dataloader'))


@pytest.mark.parametrize(
    'key, value',
    [
        ('train_dataloader.batch_size', 0),
        ('train_dataloader.batch_size', 2.5),
        ('train_dataloader.batch_size', [2]),
        ('train_dataloader.num_workers', -1),
        ('val_dataloader.batch_size', 0),
        ('train_dataloader.dataset', None),
        ('train_cfg.max_epochs', [1]),
        ('train_cfg.max_epochs', 'abc'),
        ('train_cfg.val_interval', 'abc'),
        ('optim_wrapper.optimizer.lr', -1),
        ('optim_wrapper.optimizer.lr', 'abc'),
        ('optim_wrapper.optimizer.lr', [1, 2]),
        ('optim_wrapper.optimizer.weight_decay', -1),
        ('optim_wrapper.accumulative_counts', 0),
        ('optim_wrapper.clip_grad', 3),
        ('param_scheduler.0.milestones', [3, 1]),
        ('param_scheduler.0.milestones', 3),
        ('data_preprocessor.mean', [1, 2]),
        ('data_preprocessor.mean', 'abc'),
        ('data_preprocessor.std', [0, 0, 0]),
        ('data_preprocessor.std', 'abc'),
        ('data_preprocessor.std', 0),
        ('val_evaluator.topk', 0),
        ('val_evaluator.topk', 'abc'),
        ('default_hooks.checkpoint.interval', 0),
        ('randomness.seed', 'abc'),
        ('env_cfg.mp_cfg', 3),
        ('log_level', 'FOO'),
    ],
)
def test_wrong_values(key, value):
    cfg = Config(RIGHT)
    cfg.merge_from_dict({key: value})
    with pytest.raises(UsageError) as error:
        check_settings(cfg, ('train_dataloader', 'val_dataloader'))
    named = {'train_dataloader.dataset': 'train_dataloader'}.get(key, key)
    assert named in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'option, place, said',
    [
        ('model.head.in_channels=7', 'model.head.layers.head (Linear)', 'RuntimeError'),
        ('model.backbone.in_channels=1', 'model.backbone.patch_embed.projection (Conv2d)', 'RuntimeError'),
        ('model.backbone.arch.num_heads=3', 'model.backbone (STViT)', 'not a multiple of num_heads=3'),
        ('model.backbone.drop_path_rate=2', 'model.backbone (STViT)', 'less than 1'),
        ('model.head.loss=None', 'model.head (VisionTransformerClsHead)', 'TypeError'),
        ('model.head=None', 'model (ImageClassifier)', 'AttributeError'),
        ('train_dataloader.dataset.pipeline=[]', 'the data set', 'PackInputs'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size=0', 'at least 1'),
    ],
)
def test_classifiers(tiny_config, fails, tmp_path, option, place, said):
    line = fails(train, tiny_config, '--work-dir', tmp_path, '--cfg-options', option)
    assert place in line and said in line


@pytest.mark.parametrize(
    'option, place, said',
    [
        ('model.neck.in_channels=[5]', 'model.neck.lateral_convs.0.conv (Conv2d)', 'RuntimeError'),
        ('model.neck.in_channels=5', 'model.neck (FPN)', 'isinstance(in_channels, list)'),  # an assertion without text
        ('model.bbox_head.in_channels=7', 'model.bbox_head.', 'RuntimeError'),
        ('model.bbox_head.loss_cls.type=NoLoss', "type='NoLoss'", ''),
        ('model.data_preprocessor.pad_size_divisor=0', 'model.data_preprocessor (DetDataPreprocessor)', 'ZeroDivision'),
    ],
)
def test_detectors(detection, fails, tmp_path, option, place, said):
    line = fails(train, detection.config, '--work-dir', tmp_path, '--cfg-options', option)
    assert place in line and said in line


@pytest.mark.parametrize(
    'option, place, said',
    [
        ('model.cls_head.in_channels=7', 'model.cls_head.fc_cls (Linear)', 'RuntimeError'),
        ('model.backbone.depth=7', 'model.backbone (ResNet)', 'invalid depth 7'),
        ('train_dataloader.dataset.pipeline.1.num_clips=0', 'the transform SampleFrames', 'ZeroDivisionError'),
        ('train_dataloader.dataset.pipeline.5.collect_keys=[foo]', 'the transform PackActionInputs', "finds no 'foo'"),
        ('val_evaluator.metric_list=foo', 'val_evaluator (AccMetric)', 'assert'),
    ],
)
def test_recognisers(video, fails, tmp_path, option, place, said):
    line = fails(train, video.config, '--work-dir', tmp_path, '--cfg-options', option)
    assert place in line and said in line
    if 'the traceback is in' in line:
        log = line.split('the traceback is in ')[1].rstrip(')')
        assert 'Traceback' in Path(log).read_text()
