"""The operators of ``mmcv._ext`` that detectors need, from torchvision; loaded as that module by :mod:`.mmcv_ext`.

The functions have the names and signatures of mmcv's C++ ones: ``mmcv.ops`` calls them, and most write their results
into arguments.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss  # importing torchvision fills torch.ops.torchvision

_torchvision = torch.ops.torchvision


def __getattr__(name: str) -> Callable:
    # mmcv asks for all its operators when it is imported; most of them are never called.
    if name.startswith('__'):
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise _not_compiled(name)

    return operator


def _not_compiled(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"{what} is one of mmcv's compiled operators, and this mmcv was installed without them: "
        '`python -m mmstvit.check_env` gives the command that compiles them'
    )


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes that non-maximum suppression keeps, by falling score.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a box is dropped where its IoU with a kept one is larger.
        offset: 0 or 1, added to widths and heights.
    """
    boxes, scores = _full(boxes), _full(scores)
    if offset:  # moving the far corners makes widths, heights and overlaps larger by as much
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return _torchvision.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write into ``output`` (K, C, h, w) the average features of (N, C, H, W) under ``rois`` (K, 5)."""
    if pool_mode != 1:
        raise _not_compiled("roi_align with pool_mode='max'")
    input = _full(input)
    size = (aligned_height, aligned_width)
    output.copy_(_torchvision.roi_align(input, rois.to(input.dtype), spatial_scale, *size, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write into ``grad_input`` (N, C, H, W) the gradient of :func:`roi_align_forward`."""
    grad = _full(grad_output)
    size = (aligned_height, aligned_width, *grad_input.shape)
    grad_input.copy_(
        _torchvision._roi_align_backward(grad, rois.to(grad.dtype), spatial_scale, *size, sampling_ratio, aligned)
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write into ``output`` (K, C, h, w) the largest features under ``rois``, and into ``argmax`` where they are."""
    input = _full(input)
    pooled, places = _torchvision.roi_pool(input, rois.to(input.dtype), spatial_scale, pooled_height, pooled_width)
    output.copy_(pooled)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write into ``grad_input`` (N, C, H, W) the gradient of :func:`roi_pool_forward`."""
    grad = _full(grad_output)
    size = (pooled_height, pooled_width, *grad_input.shape)
    grad_input.copy_(_torchvision._roi_pool_backward(grad, rois.to(grad.dtype), argmax, spatial_scale, *size))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write into ``output`` (N, classes) the focal loss of logits of the same shape, not reduced.

    Args:
        target: (N,), class numbers; the number of classes stands for the background.
        weight: (classes,), by the class of the target (1 for the background), or empty.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write into ``grad_input`` (N, classes) the gradient of the sum of :func:`sigmoid_focal_loss_forward`."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        (grad,) = torch.autograd.grad(_focal_loss(logits, target, weight, gamma, alpha).sum(), logits)
    grad_input.copy_(grad)


def _focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    input = _full(input)
    one_hot = torch.nn.functional.one_hot(target, input.shape[1] + 1)[:, :-1]
    loss = sigmoid_focal_loss(input, one_hot.to(input.dtype), alpha, gamma)
    if weight.numel():
        loss = loss * torch.cat([weight, weight.new_ones(1)])[target, None]
    return loss


def _full(x: Tensor) -> Tensor:
    """Half precision as float32, which torchvision's kernels need on a CPU; contiguous."""
    return (x if x.dtype == torch.float64 else x.float()).contiguous()
