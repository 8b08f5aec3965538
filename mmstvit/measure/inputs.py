"""Random inputs of networks of all toolboxes, and what networks compute on them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .networks import Network

BOXES = 7  # objects of an image in a training step of a detector, about the mean of COCO


class Inputs:
    """Random inputs of a network, what it computes on them, and its loss there.

    Networks are run as they come out of the toolbox: an image classifier with neck and head to its scores, a recogniser
    likewise on one clip, a segmentor to the scores of its decode head before they are enlarged, a detector with its
    neck and all heads but without decoding boxes and without non-maximum suppression; the second stage of one gets as
    many random proposals as the config lets through.

    Args:
        network: whose inputs.
        shape: (channels, ...) of one, see :func:`input_shape`.
        batch: number of them.
        device: where they are to be.
        dtype: of images, where the weights are of another than float32.
    """

    def __init__(
        self,
        network: Network,
        shape: Sequence[int],
        batch: int,
        device: str | torch.device = 'cpu',
        dtype: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.model: Any = network.model  # of any toolbox
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, *shape, generator=generator).to(device, dtype)
        self.samples = None
        if network.toolbox == 'mmdet':
            self.samples = _scenes(batch, shape, device)
            if getattr(self.model, 'with_rpn', False) and getattr(self.model, 'with_roi_head', False):
                self.proposals = self._proposals(batch, shape[-2:], device, generator)
        self.images = self.formatted(images)

    def formatted(self, images: Tensor) -> Tensor:
        """Return inputs (B, C, *size) in the form that the toolbox takes."""
        if self.network.toolbox != 'mmaction':
            return images
        # One view (B, 1, C, T, H, W); a 2D recogniser takes frames (B, T, C, H, W).
        frames = self.model.data_preprocessor.format_shape == 'NCHW'
        return images.transpose(1, 2) if frames else images.unsqueeze(1)

    def _proposals(self, batch: int, size: Sequence[int], device: Any, generator: torch.Generator) -> list:
        from mmengine.structures import InstanceData

        number = self.model.test_cfg.rpn.max_per_img
        extent = torch.tensor(size[::-1])
        corners = torch.rand(batch, number, 2, 2, generator=generator).sort(dim=2).values * extent
        return [InstanceData(bboxes=boxes.flatten(1).to(device)) for boxes in corners]

    def run(self, part: str = 'model') -> Any:
        """Run the network or its ``'backbone'`` alone."""
        toolbox, model = self.network.toolbox, self.model
        if toolbox in ('timm', 'mmstvit') or self.network.exported:
            return model(self.images)
        if part == 'backbone':
            return model.backbone(self.images.flatten(0, 1) if toolbox == 'mmaction' else self.images)
        if toolbox == 'mmaction':
            return model(self.images, mode='tensor', stage='head')
        if toolbox in ('mmpretrain', 'mmseg'):
            return model(self.images, mode='tensor')
        if not hasattr(self, 'proposals'):
            return model(self.images, self.samples, mode='tensor')
        return self._run_two_stages()

    def _run_two_stages(self) -> Any:
        head = self.model.rpn_head

        def predict(features: Sequence[Tensor], *args: Any, **kwargs: Any) -> list:
            head(features)
            return self.proposals

        head.predict = predict
        try:
            return self.model(self.images, self.samples, mode='tensor')
        finally:
            del head.predict

    def loss(self) -> Tensor:
        """Compute the loss of the config, on labels of no meaning."""
        toolbox, model, batch = self.network.toolbox, self.model, len(self.images)
        if toolbox == 'timm':
            return F.cross_entropy(
                model(self.images), torch.arange(batch, device=self.images.device) % model.num_classes
            )
        if toolbox != 'mmdet' and self.samples is None:
            if toolbox == 'mmseg':
                self.samples = _mapped(batch, self.images.shape[-2:], model.num_classes, self.images.device)
            else:
                head = model.head if toolbox == 'mmpretrain' else model.cls_head
                self.samples = _labelled(toolbox, batch, head.num_classes, self.images.device)
        return model.parse_losses(model(self.images, self.samples, mode='loss'))[0]


def _labelled(toolbox: str, batch: int, classes: int, device: Any) -> list:
    if toolbox == 'mmpretrain':
        from mmpretrain.structures import DataSample as Sample
    else:
        from mmaction.structures import ActionDataSample as Sample
    return [Sample().set_gt_label(i % classes).to(device) for i in range(batch)]


def _mapped(batch: int, size: Sequence[int], classes: int, device: Any) -> list:
    """Make samples with label maps of random classes."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    maps = torch.randint(classes, (batch, 1, *size), generator=torch.Generator().manual_seed(0)).to(device)
    return [SegDataSample(gt_sem_seg=PixelData(data=labels)) for labels in maps]


def _scenes(batch: int, shape: Sequence[int], device: Any) -> list:
    """Make samples with random boxes and masks, as mmdet's own tests do."""
    from mmdet.testing import demo_mm_inputs

    demo = demo_mm_inputs(batch, tuple(shape), num_items=[BOXES] * batch, num_classes=2, with_mask=True)
    samples = demo['data_samples']
    for sample in samples:
        sample.gt_instances.labels.zero_()  # there for any number of classes; the cost does not depend on it
        sample.set_metainfo(dict(batch_input_shape=tuple(shape[-2:]), pad_shape=tuple(shape[-2:])))
    return [sample.to(device) for sample in samples]
