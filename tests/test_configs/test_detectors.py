"""Every detection config: its parameter groups, a training step, a forward, its data, and published weights."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from published_files import detection_file
from run_helpers import DETECTORS, ROOT, is_larger

pytest.importorskip('mmdet')

COCO = [config for config in DETECTORS if config.endswith('_coco.py')]
NO_DECAY = ('relative_position_bias_table', 'pos_embed', 'global_centers')
CASCADE = 'configs/stvit_r/cascade-mask-rcnn_stvit-r-swin-s_fpn_ms-480-800-giou-4conv1f-3x_coco.py'


def build(config, init=True, **narrower):
    """The detector of a config, without the weights that it would begin from, on a CPU; with settings of its model."""
    from mmdet.registry import MODELS

    cfg = Config.fromfile(ROOT / config)
    cfg.merge_from_dict({f'model.{key}': value for key, value in narrower.items()})
    cfg.model.backbone.get('backbone', cfg.model.backbone).init_cfg = None
    if 'rcnn' in config:
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 20  # to be quick
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        if init:
            model.init_weights()
    return cfg, model


def inputs(cfg, sizes, classes):
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [(3, *size) for size in sizes], num_items=[2, 3], num_classes=classes, with_mask=True)


@pytest.fixture(scope='module')
def working_folder(tmp_path_factory):
    """A folder in which COCO, the scenes of digits and the blood cells have three pictures each."""
    folder = tmp_path_factory.mktemp('detection_data')
    rng = np.random.default_rng(0)
    for place, splits, classes in (
        ('coco', ('train2017', 'val2017'), None),
        ('digits_scenes', ('train', 'val'), '0123456789'),
    ):
        root = folder / 'data' / place
        (root / 'annotations').mkdir(parents=True)
        for split in splits:
            (root / split).mkdir()
            images, annotations = [], []
            for i, (height, width) in enumerate(((120, 160), (128, 128), (200, 90))):
                cv2.imwrite(str(root / split / f'{i}.jpg'), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
                images.append(dict(id=i, file_name=f'{i}.jpg', height=height, width=width))
                box = [10, 20, 50, 60]
                polygon = [[10, 20, 60, 20, 60, 80, 10, 80]]
                common = dict(area=3000, iscrowd=0, bbox=box, segmentation=polygon)
                annotations.append(dict(id=i + 1, image_id=i, category_id=1 + i, **common))
            names = classes or coco_classes()
            categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
            content = dict(images=images, annotations=annotations, categories=categories)
            (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    write_cells(folder / 'data' / 'BCCD_Dataset' / 'BCCD')
    return folder


def write_cells(root):
    """Three blood cells with boxes in VOC's form, in each split the same, and one box without area beside the first."""
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / name).mkdir(parents=True)
    box = '<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>'
    cell = f'<object><name>{{}}</name>{box}</object>'
    for i, name in enumerate(('RBC', 'WBC', 'Platelets')):
        cv2.imwrite(str(root / 'JPEGImages' / f'{i}.jpg'), np.full((120, 160, 3), 180, np.uint8))
        cells = cell.format(name, 61, 81) + cell.format(name, 11, 21) * (i == 0)
        (root / 'Annotations' / f'{i}.xml').write_text(f'<annotation>{cells}</annotation>')
    for split in ('train', 'val', 'test'):
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('0\n1\n2\n')


def coco_classes():
    from mmdet.datasets import CocoDataset

    return CocoDataset.METAINFO['classes']


def is_repeat(config):
    """Whether another config has the same network, and trains it for longer, in a cascade, or by another method."""
    return 'ms-480-800' in config or ('_vit' in config and '-expedite' not in config)


@pytest.mark.parametrize(
    'config',
    [
        pytest.param(config, marks=pytest.mark.long) if is_repeat(config) else config
        for config in DETECTORS
        if not is_larger(config)
    ],
)
def test_training_step_and_forward(config):
    """Each parameter gets a gradient and moves; norms and tables are free of weight decay; images of odd sizes."""
    cfg, model = build(config)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    norms = {
        f'{prefix}.{name}'
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm))
    }
    assert norms
    for name, parameter in model.named_parameters():
        if name in norms or name.endswith(NO_DECAY):
            assert decay[id(parameter)] == 0, name
        elif name.endswith('weight') and parameter.dim() > 1:
            assert decay[id(parameter)] == pytest.approx(0.05), name

    classes = cfg.model.roi_head.bbox_head.num_classes if 'bccd' in config else 10 if 'digits' in config else 80
    batch = inputs(cfg, [(64, 96), (75, 61)], classes)
    for group in wrapper.optimizer.param_groups:
        group['lr'], group['eps'] = 1e-3, 1e-20  # no step is lost in rounding
    for module in model.modules():
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 0.0
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = model.data_preprocessor(batch, True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        assert torch.isfinite(loss)
        loss.backward()
        # Levels of the neck and heads that no box of chance fell to have learned nothing.
        trained = {name: p for name, p in model.named_parameters() if name.startswith('backbone.')}
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert [n for n, p in trained.items() if not p.grad.any()] == []
        wrapper.step()
        assert [n for n, p in trained.items() if torch.equal(p, before[n])] == []
        with torch.no_grad():
            results = model.eval().test_step(batch)
    assert len(results) == 2 and all('bboxes' in result.pred_instances for result in results)
    if 'mask-rcnn' in config:
        assert all(result.pred_instances.masks.shape[1:] == result.ori_shape for result in results)


@pytest.mark.parametrize('config', DETECTORS)
def test_data_as_the_config_reads_it(config, working_folder, monkeypatch):
    """The config's own pipelines on real files: images, boxes, masks where they are wanted."""
    from mmdet.registry import DATASETS

    monkeypatch.chdir(working_folder)
    cfg = Config.fromfile(ROOT / config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        for split in ('train', 'val'):
            dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
            assert len(dataset) == 3
            sample = dataset[0]
            instances = sample['data_samples'].gt_instances
            if split == 'train':
                assert sample['inputs'].shape[0] == 3 and 'bboxes' in instances
                assert ('masks' in instances) == ('mask-rcnn' in config)
                assert len(instances) == 1  # a box without area is left out of the loss
    if 'bccd' in config:  # has a split for the test
        assert cfg.test_dataloader.dataset.pop('ann_file') != cfg.val_dataloader.dataset.pop('ann_file')
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset
    assert ('segm' in cfg.val_evaluator.metric) == ('mask-rcnn' in config)


def test_recipe_of_the_published_detectors():
    for config in (CASCADE, CASCADE.replace('swin-s', 'swin-b')):
        cfg = Config.fromfile(ROOT / config)
        assert cfg.optim_wrapper.optimizer.type == 'AdamW' and cfg.optim_wrapper.optimizer.lr == 1e-4
        assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
        assert cfg.train_cfg.max_epochs == 36 and cfg.param_scheduler[1].milestones == [27, 33]
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.model.backbone.key_mask == 'published' and cfg.model.backbone.drop_path_rate == 0.2
        for head in cfg.model.roi_head.bbox_head:
            assert (head.num_shared_convs, head.num_shared_fcs, head.norm_cfg.type) == (4, 1, 'SyncBN')
            assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10.0)


# The published one in a few numbers: two units in the third stage, and little before its fully connected layers.
NARROW = {
    'backbone.arch': dict(_delete_=True, embed_dims=24, depths=(2, 2, 12, 2), num_heads=(1, 2, 4, 8)),
    'neck.in_channels': [24, 48, 96, 192],
    **{f'roi_head.bbox_head.{i}.fc_out_channels': 32 for i in range(3)},
}


def test_published_detectors_load_in_full(tmp_path):
    """A made file with the names and shapes of the authors' mmdet 2.x checkpoint fills backbone, neck and heads."""
    _, source = build(CASCADE, init=False, **NARROW)
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.1)
    heads = {name: value for name, value in source.state_dict().items() if not name.startswith('backbone.')}
    state = detection_file(source.backbone.state_dict(), heads)
    assert 'backbone.layers.2.blocks.1.attn.kv.weight' in state['state_dict']
    torch.save({'meta': {'epoch': 36, 'mmdet_version': '2.11.0'}, **state}, tmp_path / 'published.pth')
    _, model = build(CASCADE, init=False, **NARROW)
    load_checkpoint(model, str(tmp_path / 'published.pth'), map_location='cpu')
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize('name', ['digits/mask-rcnn_{}_digits', 'bccd/faster-rcnn_{}_bccd'])
def test_baseline_differs_in_the_tokens_alone(name):
    ours, baseline = (
        Config.fromfile(ROOT / f'configs/{name.format(kind)}.py').to_dict() for kind in ('stvit-r', 'swin')
    )
    for option in ('type', 'semantic_size', 'dense', 'stem', 'layer_scale_init_value'):
        for cfg in (ours, baseline):
            cfg['model']['backbone'].pop(option, None)
    assert ours == baseline
