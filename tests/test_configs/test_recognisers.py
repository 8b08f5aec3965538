"""Every video config: what its metafile says of it, its pipelines on a video file, its parameter groups, its start."""

import functools

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from published_files import classification_file
from run_helpers import RECOGNISERS, ROOT

from mmstvit import get_model
from mmstvit.compat.requires import require
from mmstvit.measure.complexity import count
from mmstvit.models import STViTSwin

require('mmaction', 'video')
KINETICS = [config for config in RECOGNISERS if 'stvit_video' in config]


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """An mp4 file of 40 frames, 320 x 240."""
    path = tmp_path_factory.mktemp('video') / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (320, 240))
    rng = np.random.default_rng(0)
    for _ in range(40):
        writer.write(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))
    writer.release()
    return path


@functools.cache
def entry(config):
    for metafile in mmengine.load(ROOT / 'model-index.yml')['Import']:
        for model in mmengine.load(ROOT / metafile)['Models']:
            if model['Config'] == config:
                return model
    raise AssertionError(f'{config} is in no metafile')


_shapes = {}  # many configs have the same pipeline


def shape_of_views(cfg, path, split):
    """Of what the pipeline of a split makes of a file: (clips x crops, channels, frames, height, width)."""
    steps = cfg[f'{split}_dataloader'].dataset.pipeline
    key = str(steps), path
    if key not in _shapes:
        with DefaultScope.overwrite_default_scope('mmaction'):
            pipeline = Compose(steps)
        sample = dict(filename=str(path), label=0, start_index=0, modality='RGB')
        _shapes[key] = pipeline(sample)['inputs'].shape
    return _shapes[key]


def multiply_adds(config, clip, **options):
    with torch.device('meta'):
        model = get_model(ROOT / config, device='meta', **options)
        return count(model, torch.empty(1, 1, *clip[1:]), mode='tensor')


@pytest.mark.parametrize('config', RECOGNISERS)
def test_size_as_the_metafile_says(config, video):
    """Parameters exactly, multiply-adds of one test view within 1 %."""
    said = entry(config)['Metadata']
    cfg = Config.fromfile(ROOT / config)
    counted = multiply_adds(config, shape_of_views(cfg, video, 'test'))
    assert counted.parameters == said['Parameters']
    assert counted.multiply_adds == pytest.approx(said['FLOPs'], rel=0.01)


@pytest.mark.parametrize('size,dense,saved', [('t', 88e9, 0.25), ('s', 166e9, 0.40), ('b', 282e9, 0.40)])
def test_saves_what_it_promises(size, dense, saved):
    """Against Video Swin, whose figures as published by its authors come out for the plain baseline."""
    config = f'configs/stvit_video/stvit-swin3d-{size}_8xb8-amp-32x2x1-30e_kinetics400-rgb.py'
    clip = (1, 3, 32, 224, 224)
    plain = multiply_adds(config, clip, backbone=dict(semantic_size=None)).multiply_adds
    assert plain == pytest.approx(dense, rel=0.01)
    assert multiply_adds(config, clip).multiply_adds <= (1 - saved) * plain


@pytest.mark.parametrize(
    'config,test_views',
    [(config, 3 if 'ssv2' in config else 12) for config in KINETICS],
)
def test_views(config, test_views, video):
    """One clip of 32 frames in training; in the test those of Video Swin: 4 clips x 3 crops, 1 x 3 on SSv2."""
    cfg = Config.fromfile(ROOT / config)
    for split, number in (('train', 1), ('val', 1), ('test', test_views)):
        assert shape_of_views(cfg, video, split) == (number, 3, 32, 224, 224)


@pytest.mark.parametrize('config', KINETICS)
def test_parameter_groups_and_gradients(config):
    """The backbone learns at a tenth of the rate, tables and norms do not decay, each parameter gets a gradient."""
    cfg = Config.fromfile(ROOT / config)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.arch = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2))
    cfg.model.cls_head.in_channels = 128
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample

    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
        cfg.optim_wrapper.type = 'OptimWrapper'
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    base = cfg.optim_wrapper.optimizer
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        assert group['lr'] == pytest.approx(base.lr * (0.1 if name.startswith('backbone') else 1))
        free = 'norm' in name or 'relative_position_bias_table' in name or 'global_centers' in name
        assert group['weight_decay'] == (0 if free else base.weight_decay), name
    for module in model.modules():
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 0.0
    sample = ActionDataSample().set_gt_label(1)
    losses = model(torch.randn(1, 1, 3, 8, 64, 64), [sample], mode='loss')
    sum(losses.values()).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_starts_from_weights_of_images(tmp_path):
    """The file that the config names is one of Swin's authors for images; it fills all but the global centres."""
    config = 'configs/stvit_video/stvit-swin3d-t_8xb8-amp-32x2x1-30e_kinetics400-rgb.py'
    cfg = Config.fromfile(ROOT / config)
    assert cfg.model.backbone.init_cfg.checkpoint.endswith('/swin_tiny_patch4_window7_224.pth')
    arch = dict(embed_dims=8, depths=(1, 1, 3, 1), num_heads=(1, 1, 2, 2))
    torch.manual_seed(0)
    images = STViTSwin(arch, semantic_size=None)
    images.init_weights()
    path = tmp_path / 'swin.pth'
    torch.save(classification_file(images.state_dict()), path)
    cfg.model.backbone.update(arch=arch, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    cfg.model.cls_head.in_channels = 64
    from mmaction.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    kernel = model.backbone.patch_embed.projection.weight
    assert torch.allclose(kernel.sum(2), images.patch_embed.projection.weight)
    filled, given = dict(model.backbone.named_parameters()), dict(images.named_parameters())
    # Layers on semantic tokens have no table of positions; all other names are the file's.
    assert all(name.endswith('relative_position_bias_table') for name in given.keys() - filled.keys())
    assert all('global_centers' in name for name in filled.keys() - given.keys())
    same = [name for name in given.keys() & filled.keys() if given[name].shape == filled[name].shape]
    assert len(same) > 0.8 * len(filled)
    for name in same:
        assert torch.equal(given[name], filled[name]), name
