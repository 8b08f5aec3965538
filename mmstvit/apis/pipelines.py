"""The test pipeline of a config, built for inference, and what it says about the inputs of the network."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from mmcv.image import bgr2gray
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import nn

from ..engine.datasets import innermost
from ..errors import UsageError
from ..io.image_transforms import guard_images
from ..registry import type_name
from .inputs import checked_image

_pipelines: WeakKeyDictionary = WeakKeyDictionary()  # model -> the steps of its config, and what was built of them
_lock = RLock()


def test_dataset_of(cfg: Config) -> ConfigDict:
    """Return the config of the data set whose pipeline prepares inputs: of the test, or else of the validation.

    Of a data set in a ConcatDataset, RepeatDataset or the like it is the first.

    Raises:
        UsageError: neither has a pipeline.
    """
    for name in ('test_dataloader', 'val_dataloader'):
        for _, dataset in innermost((cfg.get(name) or {}).get('dataset'), name):
            if dataset.get('pipeline'):
                return dataset
    raise UsageError(
        'the config has no test_dataloader with a pipeline, which says how an input is prepared: add '
        'test_dataloader=dict(dataset=dict(pipeline=[...]))'
    )


test_dataset_of.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def backbone_of(cfg: Config) -> dict:
    """Return the config of the backbone, inside of what may be wrapped around it."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    while isinstance(backbone.get('backbone'), dict):
        backbone = backbone['backbone']
    return backbone


def channels_of(cfg: Config) -> int:
    """Return the channels of the network's input, ``in_channels`` of its backbone."""
    return backbone_of(cfg).get('in_channels', 3)


def config_of(model: nn.Module) -> Config:
    """Return the config of a model of :func:`get_model`."""
    return getattr(model, '_config', None) or model.cfg


def image_pipeline(model: nn.Module) -> Compose:
    """Return the test pipeline of a model of images with its checks, for inputs as of :func:`.checked_image`.

    It is built once: that takes as long as a small network does.
    """
    steps = test_dataset_of(config_of(model)).pipeline
    known, pipeline = _pipelines.get(model, (None, None))
    if known != steps:
        # What loads the image is replaced, and there are no annotations.
        rest = [step for step in steps if not type_name(step).startswith(('LoadImage', 'LoadAnnotations'))]
        with toolbox_scope(config_of(model).default_scope):
            pipeline = Compose([_Load(steps), *guard_images(Compose(rest).transforms)])
        _pipelines[model] = copy.deepcopy(steps), pipeline
    return pipeline


@contextmanager
def toolbox_scope(scope: str) -> Iterator[None]:
    """Context manager in which names are looked up in a toolbox.

    mmengine's scope belongs to the process, so one thread at a time can be inside.

    Args:
        scope: of the toolbox, e.g. ``'mmdet'``.
    """
    with _lock, DefaultScope.overwrite_default_scope(scope):
        yield


class _Load:
    """The first step of a pipeline: read a file as the config does, or take an array in its place.

    Args:
        steps: the config of the pipeline; without a step that loads images it is mmcv's with its defaults.
    """

    def __init__(self, steps: list[dict]) -> None:
        loads = (step for step in steps if type_name(step).startswith('LoadImage'))
        loader = TRANSFORMS.build(next(loads, dict(type='LoadImageFromFile')))
        (self.load_file,) = guard_images([loader])
        self.gray = getattr(loader, 'color_type', 'color') == 'grayscale'
        self.dtype = np.float32 if getattr(loader, 'to_float32', False) else np.uint8

    def __call__(self, image: Any) -> dict:
        image = checked_image(image, self.gray)
        if isinstance(image, str):
            return self.load_file(dict(img_path=image))
        if self.gray and image.shape[2:] == (3,):
            image = bgr2gray(image)
        size = image.shape[:2]
        return dict(img=image.astype(self.dtype, copy=False), img_path=None, img_shape=size, ori_shape=size)
