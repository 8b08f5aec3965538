"""Classification networks as plain PyTorch modules, without a toolbox: ``create_model``, in timm's manner."""

import copy
import logging
from collections import OrderedDict
from os import PathLike
from typing import Any

from mmengine.logging import MMLogger, print_log
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn

from ..errors import suggest
from ..io.checkpoints import trust_checkpoints
from ..models import STViT, STViTR, STViTSwin, T2TViT
from ..models.backbones.base import Backbone
from .weights import load_weights, read_weights

# Name -> backbone and its settings. Others, such as stochastic depth, belong to a recipe and are given as arguments.
NETWORKS: dict[str, tuple[type[Backbone], dict[str, Any]]] = {
    **{f'stvit_{size}': (STViT, dict(arch=size)) for size in ('tiny', 'small', 'base')},
    **{f'stvit_swin_{size}': (STViTSwin, dict(arch=size)) for size in ('tiny', 'small', 'base')},
    **{f'stvit_r_swin_{size}': (STViTR, dict(arch=size, use_global=True)) for size in ('tiny', 'small', 'base')},
    **{f't2t_vit_{arch.replace("-", "_")}': (T2TViT, dict(arch=arch)) for arch in T2TViT.arch_zoo},
    'stvit_t2t_vit_t_14': (T2TViT, dict(arch='t-14', semantic_grid=(4, 4))),
}


class Classifier(nn.Module):
    """A backbone with a linear classifier on its last output, averaged where that is a map.

    Its parameters have the names of mmpretrain's classifiers, so that checkpoints of either are those of the other.

    Args:
        backbone: one of this package's.
        num_classes: outputs; 0 for features without a classifier.
        settings: by which :func:`mmstvit.create_model` builds it again.

    Attributes:
        num_features: channels of the features.
    """

    def __init__(self, backbone: Backbone, num_classes: int, settings: dict | None = None) -> None:
        super().__init__()
        self.settings = copy.deepcopy(settings)
        self.backbone = backbone
        self.num_features = backbone.out_channels[-1]
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; with 0 by none."""
        if num_classes < 0:
            raise ValueError(f'num_classes={num_classes} must be at least 0')
        self.num_classes = num_classes
        if num_classes == 0:
            self.head: nn.Module = nn.Identity()
            return
        linear = nn.Linear(self.num_features, num_classes).to(next(self.backbone.parameters()))
        trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        # As mmpretrain's heads of transformers and of hierarchical networks name it.
        inner: OrderedDict[str, nn.Module] = OrderedDict(layers=nn.Sequential(OrderedDict(head=linear)))
        self.head = nn.Sequential(inner if isinstance(self.backbone, STViT) else OrderedDict(fc=linear))

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or the identity where there is none."""
        return list(self.head.modules())[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """Extract features (B, C), or (B, C, rows, columns) of hierarchical networks, of images (B, 3, H, W)."""
        return self.backbone(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (B, num_classes) of features, or with ``pre_logits`` what the classifier gets (B, C)."""
        x = x.flatten(2).mean(-1) if x.dim() > 2 else x
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, num_classes) of images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(x))


def create_model(
    name: str,
    pretrained: bool | str | PathLike = False,
    num_classes: int = 1000,
    trust_checkpoint: bool = False,
    **kwargs: Any,
) -> Classifier:
    """Build a classification network without a toolbox.

    Args:
        name: ``stvit_tiny``, ``_small``, ``_base``; the same of ``stvit_swin_`` and ``stvit_r_swin_``; ``t2t_vit_7``,
            ``t2t_vit_t_14`` and so on; ``stvit_t2t_vit_t_14``.
        pretrained: a checkpoint's path or URL, in the names of this package, of DeiT's, Swin's and T2T-ViT's authors,
            of timm or of mmpretrain; ``False`` for random weights.
        num_classes: outputs; 0 for none. Where the file has another number, the classifier is a new one.
        trust_checkpoint: whether code in the checkpoint may run.
        **kwargs: settings of the backbone, e.g. ``drop_path_rate=0.1``, ``semantic_grid=(6, 6)``, ``img_size=384``.

    Returns:
        The network in training mode, as any of PyTorch.

    Raises:
        ValueError: an unknown name, ``pretrained=True``, since no file belongs to a name alone, or a checkpoint that is
            broken or of another network.
        OSError: the checkpoint is not there or cannot be downloaded.
    """
    if name not in NETWORKS:
        raise ValueError(f'there is no network {name}{suggest(name, NETWORKS) or "; known are " + ", ".join(NETWORKS)}')
    if pretrained is True:
        raise ValueError('pretrained=True: no file belongs to a name alone, give its path or URL')
    kind, settings = NETWORKS[name]
    backbone = kind(**{**settings, **kwargs})
    model = Classifier(backbone, num_classes, dict(name=name, **kwargs))
    if pretrained:
        handle = model.head.register_load_state_dict_pre_hook(_leave_other_classes)
        try:
            with trust_checkpoints(trust_checkpoint):
                load_weights(model, str(pretrained), read_weights(str(pretrained)))
        finally:
            handle.remove()
        return model
    init_weights(backbone)
    return model


def init_weights(backbone: Backbone) -> None:
    """Initialise a backbone, without the line that mmengine logs for each parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        backbone.init_weights()
    finally:
        logger.setLevel(level)


def _leave_other_classes(head: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    """Drop a classifier of another number of classes from what is loaded."""
    own = head.state_dict()
    theirs = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
    if any(value.shape != own[name].shape for name, value in theirs.items()):
        for name in theirs:
            state_dict.pop(prefix + name)
        print_log(
            f'The classifier is a new one of {len(next(iter(own.values())))} classes; the file has another.', 'current'
        )
