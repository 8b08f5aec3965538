"""Export a model to ONNX, with what the file tells about its inputs and outputs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor

from ..apis.models import classes_of, config_of, scope_of
from ..apis.pipelines import channels_of, test_dataset_of
from ..compat.requires import require
from ..errors import UsageError
from ..io.files import unfinished
from ..layers.window_layout import WindowSpec
from ..measure.complexity import count
from ..measure.networks import default_size
from ..registry import type_name
from ..version import __version__

# Frames of a clip are decoded to RGB, images to BGR.
_DECODED = {'mmpretrain': 'BGR', 'mmdet': 'BGR', 'mmseg': 'BGR', 'mmaction': 'RGB'}
_TASKS = {'mmdet': 'features', 'mmseg': 'segmentation'}
_PADDED = tuple(_TASKS)  # toolboxes whose images keep their aspect ratio and are padded to a fixed size


# What a step of a test pipeline is told by; the others load an image before, or pack the results after.
_SETTINGS = {
    'Resize': ('scale', 'keep_ratio', 'interpolation', 'backend'),
    'ResizeEdge': ('scale', 'edge', 'interpolation', 'backend'),
    'CenterCrop': ('crop_size',),
}


# ---------------------------------------------------------------------------------------------- what is exported
class Scores(nn.Module):
    """A classifier from normalised images to softmax scores (B, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, classes)."""
        return self.model(x, mode='tensor').softmax(dim=-1)


class ClipScores(Scores):
    """A recogniser from normalised clips to softmax scores (B, classes); those of several clips are to be averaged."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, frames, height, width) -> (B, classes)."""
        logits, _ = self.model.extract_feat(x.unsqueeze(1), stage='head')
        return logits.softmax(dim=-1)


class Maps(Scores):
    """The backbone and neck of a detector."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, height, width) -> maps (B, C, rows, columns)."""
        return tuple(self.model.extract_feat(x))


class PixelScores(Scores):
    """A segmentor from normalised images to softmax scores of each pixel, run on the whole image at once."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, classes, height, width)."""
        scores = self.model(x, mode='tensor')
        size, corners = x.shape[2:], self.model.align_corners
        return F.interpolate(scores, size, mode='bilinear', align_corners=corners).softmax(dim=1)


def network_of(model: nn.Module, scope: str) -> nn.Module:
    """Return the part of a model that is exported.

    Raises:
        UsageError: its kind is not known here.
    """
    if scope == 'mmdet':
        return Maps(model)
    if scope == 'mmseg':
        from mmseg.models import EncoderDecoder

        # Those derived from it have heads of other inputs.
        if type(model) is not EncoderDecoder or model.out_channels == 1:
            raise UsageError(
                f'{type(model).__name__} is not exported: of mmseg an EncoderDecoder of two classes or more'
            )
        return PixelScores(model)
    if scope == 'mmaction':
        from mmaction.models import Recognizer3D

        if not isinstance(model, Recognizer3D):
            raise UsageError(f'{type(model).__name__} is not exported: of mmaction2 a Recognizer3D with a head is')
        return ClipScores(model)
    from mmpretrain.models import ImageClassifier
    from mmpretrain.models.heads import ClsHead

    if not isinstance(model, ImageClassifier) or not isinstance(model.head, ClsHead):
        raise UsageError(f'{type(model).__name__} is not exported: of mmpretrain an ImageClassifier with a ClsHead is')
    return Scores(model)


# ------------------------------------------------------------------------------------------- how images are prepared
def transforms_of(cfg: Config) -> list[dict[str, Any]]:
    """Return the steps of the test pipeline between loading and packing, with all their settings.

    Of a step that is not known here only the type is told; of a clip's pipeline the steps are told as they are.
    """
    steps = [dict(step) for step in test_dataset_of(cfg).pipeline]
    if cfg.default_scope == 'mmaction':
        return steps
    known = []
    for step in steps:
        name = type_name(step)
        if name.startswith(('Load', 'Pack')):
            continue
        if name in _SETTINGS:
            built = TRANSFORMS.build(step)
            step = {key: getattr(built, key) for key in _SETTINGS[name]}
        known.append({**step, 'type': name} if name in _SETTINGS else {'type': name})
    return known


def fit(transforms: list[dict], shape: tuple[int, int]) -> list[dict]:
    """Change the steps for an image so that they lead to (height, width): a crop keeps its share of the image."""
    size, fitted = list(reversed(shape)), []
    crops = [step['crop_size'] for step in transforms if step['type'] == 'CenterCrop']
    for step in transforms:
        step = dict(step)
        if step['type'] == 'CenterCrop':
            step['crop_size'] = size
        elif step['type'] == 'ResizeEdge' and crops:
            step['scale'] = math.ceil(step['scale'] * max(n / c for n, c in zip(size, crops[-1])))
        elif step['type'] == 'Resize' and not crops:
            if step.pop('keep_ratio'):
                step = {**step, 'type': 'ResizeInto', 'scale': size}
            else:
                step = {**step, 'keep_ratio': False, 'scale': size}
        fitted.append(step)
    return fitted


def metadata_of(
    cfg: Config, model: nn.Module, classes: Sequence[str] | None, shape: tuple[int, ...] | None, explicit: bool
) -> dict[str, Any]:
    """Return the metadata of the file.

    Args:
        cfg: the config.
        model: as built.
        classes: their names.
        shape: the input size; ``None`` where it is open.
        explicit: whether it was asked for, and may be another than that of the test pipeline.
    """
    scope, before = cfg.default_scope, model.data_preprocessor
    transforms = transforms_of(cfg)
    if shape is not None and scope != 'mmaction' and (explicit or scope in _PADDED):
        transforms = fit(transforms, shape)
    flipped = getattr(before, 'to_rgb', False) or getattr(before, '_channel_conversion', False)
    order = {'BGR': 'RGB', 'RGB': 'BGR'}[_DECODED[scope]] if flipped else _DECODED[scope]
    if channels_of(cfg) == 1:
        order = 'GRAY'
    return dict(
        mmstvit_version=__version__,
        config=Path(cfg.filename or '').name,
        task=_TASKS.get(scope, 'classification'),
        classes=classes,
        layout='NCTHW' if scope == 'mmaction' else 'NCHW',
        channel_order=order,
        mean=before.mean.flatten().tolist() if before._enable_normalize else None,
        std=before.std.flatten().tolist() if before._enable_normalize else None,
        transforms=transforms,
        pad_size=list(shape) if shape is not None and scope in _PADDED else None,
        pad_size_divisor=getattr(before, 'pad_size_divisor', 1),
        pad_value=getattr(before, 'pad_value', 0),
    )


# --------------------------------------------------------------------------------------------------------- the export
class Exported(NamedTuple):
    """Outcome of an export.

    Attributes:
        outputs: names of the file's outputs.
        checked: inputs that the file was run on beside the model.
        difference: the largest between the two, as a share of the largest output.
    """

    outputs: list[str]
    checked: int
    difference: float


def require_packages() -> None:
    """Refuse to start without the packages of the extra ``deploy``.

    Raises:
        ImportError: one is not installed.
    """
    require('onnxscript', 'deploy', 'the export to ONNX')
    require('onnxruntime', 'deploy', 'the check of an exported file')


def export_onnx(
    model: nn.Module,
    path: Path,
    shape: Sequence[int] | None = None,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
) -> Exported:
    """Write a model to an ONNX file, and check the file with ONNX Runtime against PyTorch.

    Args:
        model: of :func:`mmstvit.get_model`, on the CPU.
        path: the file; it is whole and right, or not there. Its folder is made.
        shape: (height, width), of clips (frames, height, width); by default that of the config's test pipeline.
        dynamic_batch: whether the batch size is left open; else it is 1.
        dynamic_size: whether height and width are left open.

    Raises:
        UsageError: a setting does not fit the model, or the exported network does not do what the model does.
        ImportError: a package of the extra ``deploy`` is not installed.
    """
    require_packages()
    from .graph import BATCH, SIZES, largest_difference, trace, write

    network = network_of(model, scope_of(model)).eval()
    size, metadata = _describe(model, network, shape, dynamic_size)
    open_axes = {0: BATCH} if dynamic_batch else {}
    if dynamic_size:
        open_axes.update(zip((2, 3), SIZES))
    # Where a size is open the example is one with borders to pad: what is done to them is recorded.
    channels = channels_of(config_of(model))
    example = torch.zeros(2 if dynamic_batch else 1, channels, *(n + 5 if dynamic_size else n for n in size))
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as temporary:
        with torch.no_grad():
            outputs = network(example)
            names = ['scores'] if isinstance(outputs, Tensor) else [f'level_{i}' for i in range(len(outputs))]
            write(trace(network, example, open_axes), names, open_axes, metadata, temporary)
        shapes = check_shapes((channels, *size), dynamic_batch, dynamic_size)
        difference = largest_difference(network, temporary, shapes)
        temporary.replace(path)
    return Exported(names, len(shapes), difference)


def _describe(
    model: nn.Module, network: nn.Module, shape: Sequence[int] | None, dynamic_size: bool
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the input size of a model, and the metadata of its file."""
    cfg, scope = config_of(model), scope_of(model)
    with DefaultScope.overwrite_default_scope(scope):
        size = tuple(shape or default_size(cfg))
        if not size:
            raise UsageError("the config's test pipeline does not tell the input size: give it with --shape")
        check_size(model, size, bool(shape), dynamic_size, 3 if scope == 'mmaction' else 2)
        metadata = metadata_of(cfg, model, classes_of(model), None if dynamic_size else size, bool(shape))
        cost = count(network, torch.zeros(1, channels_of(cfg), *size))
    return size, metadata | dict(input_size=size, multiply_adds=cost.multiply_adds, parameters=cost.parameters)


def check_size(model: nn.Module, shape: tuple[int, ...], explicit: bool, dynamic: bool, rank: int) -> None:
    """Refuse a shape of another rank, and an open size where the network is made for one.

    Raises:
        UsageError: as said.
    """
    if explicit and (len(shape) != rank or min(shape) < 1):
        what = 'height and width' if rank == 2 else 'frames, height and width'
        raise UsageError(f'--shape {" ".join(map(str, shape))}: it takes {what}, {rank} positive numbers')
    if dynamic and (rank == 3 or isinstance(getattr(model.backbone, 'spec', None), WindowSpec)):
        raise UsageError(
            f'--dynamic-size is not for {type(model.backbone).__name__}: its windows and their masks are made for one '
            'input size; leave it out, and export a file for each size with --shape'
        )


def check_shapes(shape: tuple[int, ...], dynamic_batch: bool, dynamic_size: bool) -> list[tuple[int, ...]]:
    """Return input shapes to check an exported file on, given (channels, ...) of one input.

    There are two batches, and three sizes where the size is open.
    """
    channels, *size = shape
    sizes = [tuple(size)]
    if dynamic_size:
        height, width = size
        sizes += [(height + 33, width + 16), (height + 2, 2 * width - 5)]  # some that no patch size divides
    batches = (1, 3) if dynamic_batch else (1, 1)
    return [(batch, channels, *size) for size in sizes for batch in batches]
