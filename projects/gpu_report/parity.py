"""Whether a device computes what the CPU does: backbones, reduced networks, and the operators that detectors need."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from mmstvit.measure.inputs import Inputs
from mmstvit.measure.networks import load_network
from mmstvit.measure.timing import DTYPES
from mmstvit.models.reduction import methods_for, reduce_

from .small import BACKBONES

# The largest difference, in spreads (largest minus smallest) of the CPU's output in float32. In lower precision a
# reduction may take another token where two are nearly alike, so that there the limit only finds what is wrong.
LIMITS = {'float32': 1e-4, 'float16': 1e-2, 'bfloat16': 5e-2}
REDUCED_LIMITS = {'float32': 1e-3, 'float16': 0.25, 'bfloat16': 0.25}

_PLAIN = 'ViT'  # the backbone that methods of reducing tokens are tried on
OPERATORS = ('nms', 'roi_align', 'roi_pool', 'sigmoid_focal_loss')
DETECTOR = 'digits/mask-rcnn_stvit-r_digits.py'


def _plain() -> nn.Module:
    kind, options, _ = BACKBONES[_PLAIN]
    return kind(**options, with_cls_token=True)


def cases() -> list[str]:
    """Return the names of the small networks that are compared: the backbones, and a plain one by each method."""
    return [*BACKBONES, *(f'{_PLAIN}+{method}' for method in methods_for(_plain()))]


def network(case: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a small network with random weights, always the same; return it and the size of its input."""
    torch.manual_seed(0)
    name, _, method = case.partition('+')
    kind, options, size = BACKBONES[name]
    model = reduce_(_plain(), method, keep_rate=0.5) if method else kind(**options)
    return model.eval(), size


def difference(case: str, dtype: str, device: str | torch.device) -> dict[str, float]:
    """Compare a small network on a device with itself on the CPU in float32.

    Args:
        case: one of :func:`cases`.
        dtype: of weights and inputs on the device.
        device: where it is run.

    Returns:
        ``value``, the largest difference of its outputs in spreads of the CPU's, infinity for NaN, and ``limit``.
    """
    model, size = network(case)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    # Convolutions of GPUs in float32 as it is written: by default they have ten bits of it.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = _tensors(model(image))
        outputs = _tensors(model.to(device, DTYPES[dtype])(image.to(device, DTYPES[dtype])))
    limits = REDUCED_LIMITS if '+' in case else LIMITS
    return dict(value=_apart(outputs, expected), limit=limits[dtype])


def _tensors(outs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outs] if isinstance(outs, Tensor) else list(outs)


def _apart(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference in spreads of what is expected."""
    largest = 0.0
    for ours, theirs in zip(outputs, expected, strict=True):
        theirs = theirs.double()
        spread = (theirs.max() - theirs.min()).item() or 1.0
        apart = ((ours.cpu().double() - theirs).abs().max() / spread).item()
        largest = max(largest, apart if apart == apart else float('inf'))
    return largest


def operator_difference(name: str, device: str | torch.device) -> dict[str, float]:
    """Compare one of mmcv's operators on a device with the CPU: its output, and gradients where it has any.

    Args:
        name: one of ``OPERATORS``.
        device: where it is run.

    Returns:
        As of :func:`difference`.
    """
    return dict(value=_apart(_operate(name, device), _operate(name, 'cpu')), limit=LIMITS['float32'])


def _operate(name: str, device: str | torch.device) -> list[Tensor]:
    """Run an operator on inputs that are always the same."""
    from mmcv import ops

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, 2, generator=generator).sort(dim=1).values * 60
    boxes = corners.flatten(1).to(device)  # x1, y1, x2, y2
    if name == 'nms':
        kept, indices = ops.nms(boxes, torch.rand(60, generator=generator).to(device), 0.3)
        return [kept, indices.float()]
    if name == 'sigmoid_focal_loss':
        x = torch.randn(40, 5, generator=generator).to(device).requires_grad_()
        target = torch.randint(0, 6, (40,), generator=generator).to(device)
        out = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum')
    else:
        x = torch.randn(2, 4, 16, 16, generator=generator).to(device).requires_grad_()
        image = torch.arange(60, device=device).remainder(2)[:, None]
        out = getattr(ops, name)(x, torch.cat((image, boxes), dim=1), (7, 7), 0.25)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return [out.detach(), gradient]


def try_detector(device: str | torch.device) -> dict[str, Any]:
    """Take one training step of a small Mask R-CNN with STViT-R, and predict with it.

    Args:
        device: where.

    Returns:
        ``value``, the loss, and ``note``, which tells how many boxes it predicts on two images.

    Raises:
        FloatingPointError: the loss or a gradient is not finite.
    """
    detector = load_network(DETECTOR)
    model = detector.model.to(device)
    inputs = Inputs(detector, (3, 128, 128), 2, device)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    loss = inputs.loss()
    loss.backward()
    if not all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None) or not loss.isfinite():
        raise FloatingPointError(f'the loss {loss.item()} or a gradient is not finite')
    optimizer.step()
    model.eval()
    with torch.inference_mode():
        samples = model(inputs.images, inputs.samples, mode='predict')
    boxes = sum(len(sample.pred_instances.bboxes) for sample in samples)
    return dict(value=loss.item(), note=f'one training step, and {boxes} boxes predicted')
