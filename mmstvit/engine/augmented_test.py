"""Test-time augmentation of a config: by its own ``tta_model`` and ``tta_pipeline``, or by flips."""

import copy
from typing import Any

from mmengine.config import Config, ConfigDict

from ..errors import UsageError
from .datasets import configured

# What averages the predictions of the views, where the config does not say.
_MODELS = dict(
    mmpretrain=dict(type='mmpretrain.AverageClsScoreTTA'),
    mmseg=dict(type='mmseg.SegTTAModel'),
    mmdet=dict(type='mmdet.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
)
_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')  # of mmdet


def augment_test(cfg: Config) -> None:
    """Let the test predict augmented views of each image and average them, in place.

    Args:
        cfg: ``tta_model`` and ``tta_pipeline`` are its own, by default an image and its mirror image.

    Raises:
        UsageError: the toolbox has no such model.
    """
    scope = cfg.default_scope
    model: Any = cfg.get('tta_model') or _MODELS.get(scope)
    if model is None:
        raise UsageError('--tta: mmaction2 averages the clips and crops of the test pipeline: set num_clips there')
    cfg.model = ConfigDict(**model, module=cfg.model)
    for _, dataset in configured(cfg, 'test_dataloader'):
        dataset['pipeline'] = cfg.get('tta_pipeline') or _flipped(dataset['pipeline'], scope)


def _flipped(pipeline: list[dict], scope: str) -> list[Any]:
    """Return the pipeline with two views, packed each: the image and its mirror image."""
    *steps, pack = copy.deepcopy(pipeline)
    if scope == 'mmdet':
        pack['meta_keys'] = tuple(dict.fromkeys((*pack.get('meta_keys', ()), *_META)))
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    return [*steps, ConfigDict(type='TestTimeAug', transforms=[flips, [pack]])]
