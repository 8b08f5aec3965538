"""What T2T-ViT's configs train with: the published recipe."""

import copy
import functools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, PARAM_SCHEDULERS
from run_helpers import CONFIGS, ROOT

from mmstvit.models import T2TViT


@functools.cache
def _read(config):
    return Config.fromfile(ROOT / config)


def read(config):
    return copy.deepcopy(_read(config))


RECIPES = [config for config in CONFIGS if 't2t-vit' in config and 'in1k' in config]
# Weight decay of the deeper two, in both kinds.
DECAY = {'19': 0.065, '24': 0.065}


def test_there_are_all_sizes():
    sizes = {read(config).model.backbone.arch for config in RECIPES}
    assert sizes == set(T2TViT.arch_zoo)
    assert len(RECIPES) == len(T2TViT.arch_zoo) + 2  # one at 384 px, one with semantic tokens


@pytest.mark.parametrize('config', RECIPES)
def test_recipe(config):
    cfg = read(config)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 5e-4)
    assert optimizer.weight_decay == DECAY.get(cfg.model.backbone.arch.removeprefix('t-'), 0.05)
    assert cfg.auto_scale_lr.base_batch_size == 512 and cfg.train_dataloader.batch_size == 64
    assert cfg.train_cfg.max_epochs == 310
    assert cfg.model.train_cfg.augments == [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    assert cfg.model.head.loss.label_smooth_val == 0.1 and cfg.model.backbone.drop_path_rate == 0.1


@pytest.mark.parametrize('config', RECIPES)
def test_weights_are_averaged(config):
    """By the hook that the config builds: 0.99996 of the old average in each step."""
    (options,) = read(config).custom_hooks
    assert options.pop('priority') == 'ABOVE_NORMAL'
    hook = HOOKS.build(options)
    model = torch.nn.Linear(1, 1, bias=False)
    runner = type('Runner', (), dict(model=model, iter=0, logger=None))()
    hook.before_run(runner)
    average = hook.ema_model.module.weight
    torch.nn.init.zeros_(model.weight)
    hook.ema_model.update_parameters(model)  # the first step copies
    torch.nn.init.ones_(model.weight)
    hook.after_train_iter(runner, 0)
    assert average.item() == pytest.approx(1 - 0.99996, rel=1e-3)


def test_learning_rate_by_epoch():
    """Ten epochs of warm-up from next to nothing, half a cosine to 1e-5, ten epochs of cool-down below it."""
    cfg = read('configs/t2t_vit/t2t-vit-t-14_8xb64_in1k.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    by_step, by_epoch, steps = [], [], 4
    for options in cfg.param_scheduler:
        options = dict(options, optimizer=optimizer)
        options.pop('_scope_', None)
        kind = PARAM_SCHEDULERS.get(options.pop('type'))
        if options.pop('convert_to_iter_based', False):
            by_step.append(kind.build_iter_from_epoch(**options, epoch_length=steps))
        else:
            by_epoch.append(kind(**options))
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        for _ in range(steps):
            optimizer.step()
            for scheduler in by_step:
                scheduler.step()
        for scheduler in by_epoch:
            scheduler.step()
    assert rates[0] < 1e-8 and all(a < b for a, b in zip(rates[:9], rates[1:10]))
    assert rates[10] == pytest.approx(5e-4, rel=0.01) == max(rates)
    assert rates[155] == pytest.approx((5e-4 + 1e-5) / 2, rel=0.01)
    assert all(a > b for a, b in zip(rates[11:299], rates[12:300]))
    assert rates[299] == pytest.approx(1e-5, rel=0.1) and max(rates[300:309]) <= 1.01e-5


def test_384_px():
    """Both pipelines at 384 px, the crop in testing as large a part of the image as at 224 px."""
    large, small = (read(f'configs/t2t_vit/t2t-vit-14_8xb64_in1k{end}.py') for end in ('-384px', ''))
    assert large.model.backbone.img_size == large.train_dataloader.dataset.pipeline[1].scale == 384
    sizes = []
    for cfg in (large, small):
        _, resize, crop, _ = cfg.test_dataloader.dataset.pipeline
        sizes.append((crop.crop_size, resize.scale))
    assert sizes == [(384, 426), (224, 248)]
    for cfg in (large, small):
        assert cfg.val_dataloader == cfg.test_dataloader
        cfg.model.backbone.pop('img_size', None)
        cfg.train_dataloader.dataset.pipeline[1].scale = 0
    # All else is the same: only where the steps were written differs.
    for part in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks', 'auto_scale_lr'):
        assert large[part] == small[part], part
    augmentations = [
        [
            {key: value for key, value in step.items() if key != '_scope_'}
            for step in cfg.train_dataloader.dataset.pipeline
        ]
        for cfg in (large, small)
    ]
    assert augmentations[0] == augmentations[1]
