"""Class activation maps, computed by the package grad-cam.

What is ours is the way from semantic tokens to the image: what is computed of a token is spread over the image as its
attention in the second layer of the STGM is. Where STViT-R has given the image tokens back, they are the map.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..apis.inference import inference_model
from ..compat.requires import require
from ..layers.steps import Generation, Recovery
from .maps import TokenMaps
from .panels import grid_of_panels, scaled, side_by_side
from .recording import Recorder, recording

# Methods of grad-cam that need the activations of a layer and their gradients alone.
METHODS = (
    'GradCAM',
    'GradCAMPlusPlus',
    'GradCAMElementWise',
    'HiResCAM',
    'LayerCAM',
    'XGradCAM',
    'EigenGradCAM',
    'EigenCAM',
)
_ROW = 256  # least pixels of the shorter edge of a panel


class ClassActivation(NamedTuple):
    """Class activation map of one image.

    Attributes:
        image: what the network saw, (height, width, 3), uint8 RGB.
        activation: (height, width), float32, from 0 to 1.
        target: the number of the class.
        result: what :func:`mmstvit.inference_model` gave for the image.
    """

    image: np.ndarray
    activation: np.ndarray
    target: int
    result: dict[str, Any]


def class_activation(
    model: nn.Module, image: str | PathLike | np.ndarray, target: int | None = None, method: str = 'GradCAM'
) -> ClassActivation:
    """Compute the class activation map of an image.

    The layer looked at is the last of those that semantic tokens are made for: of STViT the last one, of the Swin
    layout the last of the third stage. Gradients that the model's parameters hold are cleared.

    Args:
        model: an image classifier of :func:`mmstvit.get_model`, with semantic tokens.
        image: its path, or an array as :func:`mmstvit.inference_model` takes it.
        target: the number of the class, by default the predicted one.
        method: one of ``METHODS``, as grad-cam calls them.

    Raises:
        ImportError: grad-cam is not installed.
        ValueError: the model is no image classifier with semantic tokens, or an unknown method or class.
    """
    pytorch_grad_cam = require('pytorch_grad_cam', 'vis', 'class activation')
    require('mmpretrain', 'cls', 'class activation')
    from mmpretrain.models import ImageClassifier
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if method not in METHODS:
        raise ValueError(f'method={method!r} is unknown, choose from {METHODS}')
    if not isinstance(model, ImageClassifier):
        raise ValueError(f"class activation is for mmpretrain's ImageClassifier, not for {type(model).__name__}")
    with recording(model) as recorder:
        result = inference_model(model, image)
    classes = len(result['pred_scores'])
    target = result['pred_label'] if target is None else target
    if not 0 <= target < classes:
        raise ValueError(f'target={target}: the classes are numbered from 0 to {classes - 1}')
    maps = recorder.maps()
    layer, spread = _layer_to_look_at(recorder, maps)
    inputs = recorder.inputs.clone().requires_grad_()  # so that there are gradients where all weights are frozen
    cam = getattr(pytorch_grad_cam, method)(model, [layer], spread)
    try:
        with torch.enable_grad():
            activation = cam(inputs, [ClassifierOutputTarget(target)])[0]
    finally:
        cam.activations_and_grads.release()
        model.zero_grad()
    return ClassActivation(maps.image, activation, target, result)


def _layer_to_look_at(recorder: Recorder, maps: TokenMaps) -> tuple[nn.Module, Any]:
    """Return the target layer and the transform of its output or gradients to (B, C, rows, columns)."""
    encoder, layout = recorder.encoder, recorder.layout
    # Where a class token alone is classified, the others matter for the last time as what its last layer sees.
    last = len(encoder.layers) - (2 if getattr(recorder.backbone, 'out_type', None) == 'cls_token' else 1)
    between = [step for step in encoder.steps[: last + 1] if isinstance(step, (Generation, Recovery))]
    if isinstance(between[-1], Recovery):
        return encoder.layers[last], lambda x: layout.image_to_grid(x).movedim(-1, 1)
    attention = torch.from_numpy([m for m in maps.layers if m.role == 'refine'][-1].attention).flatten(1)  # (M, N)

    def spread(x: Tensor) -> Tensor:
        tokens = layout.to_grid(x).flatten(1, -2)  # (B, M, C)
        return (tokens.transpose(1, 2) @ attention.to(x)).unflatten(2, layout.grid)

    return encoder.layers[last], spread


def activation_sheet(activations: Sequence[ClassActivation], titles: Sequence[str]) -> np.ndarray:
    """Draw a contact sheet of inputs with their class activation maps overlaid, uint8 RGB."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    rows = []
    for one, title in zip(activations, titles, strict=True):
        over = show_cam_on_image(one.image / np.float32(255), one.activation, use_rgb=True)
        rows.append([(scaled(one.image, _ROW), ''), (scaled(over, _ROW), title)])
    return grid_of_panels(side_by_side(rows))
