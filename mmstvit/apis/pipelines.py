"""The test pipeline of a config, and what it says about the inputs of the network."""

from typing import Any

from mmengine.config import Config, ConfigDict

from ..engine.datasets import innermost
from ..errors import UsageError
from ..registry import type_name


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


def loading_step(pipeline: list[dict]) -> dict[str, Any]:
    """Return the config of the step that loads an image, mmcv's with its defaults where there is none."""
    loads = (dict(step) for step in pipeline if type_name(step).startswith('LoadImage'))
    return next(loads, dict(type='LoadImageFromFile'))


def channels_of(cfg: Config) -> int:
    """Return the channels of the network's input, ``in_channels`` of its backbone."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    while isinstance(backbone.get('backbone'), dict):  # a wrapper around one
        backbone = backbone['backbone']
    return backbone.get('in_channels', 3)
