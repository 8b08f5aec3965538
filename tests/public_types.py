"""What type checkers see of the public names, checked by mypy in ``make lint``: nothing of it is run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import mmstvit
from mmstvit.apis.classifier import Classifier
from mmstvit.functional.matching import bipartite_soft_matching
from mmstvit.functional.reduction import Reduction
from mmstvit.models import STViT

if TYPE_CHECKING:
    from typing_extensions import assert_type


def of_models(images: Tensor) -> None:
    model = mmstvit.create_model('stvit_tiny', num_classes=10)
    assert_type(model, Classifier)
    assert_type(model.forward_features(images), Tensor)
    assert_type(mmstvit.get_model('stvit-s_8xb128_in1k', device='cpu'), nn.Module)
    assert_type(mmstvit.list_models('stvit*'), list[str])
    assert_type(mmstvit.reduce_(model, 'tome', r=8), nn.Module)
    assert_type(mmstvit.restore_(model), nn.Module)
    assert_type(mmstvit.from_pretrained('folder'), nn.Module)
    assert_type(mmstvit.tune('vit-tiny_digits', 'images', '2x', 'weights.pth'), dict[str, Any])
    mmstvit.create_model('stvit_tiny', num_classes='ten')  # type: ignore[arg-type]  # the error must be seen
    STViT(img_size='small')  # type: ignore[arg-type]


def of_functions(metric: Tensor, r: int) -> Sequence[Tensor]:
    reduction = bipartite_soft_matching(metric, r)
    assert_type(reduction, Reduction)
    return [reduction.merge(metric)]
