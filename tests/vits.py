"""Small ViTs of others with random weights, and ours for their files."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmstvit import get_model

ARCH = dict(embed_dims=16, num_layers=6, num_heads=2, feedforward_channels=32)
PLAIN = dict(arch=ARCH, img_size=32, patch_size=4, semantic_grid=None, with_cls_token=True, out_type='cls_token')
SIZES = dict(img_size=32, patch_size=4, embed_dim=16, depth=6, num_heads=2, mlp_ratio=2, num_classes=5)
IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# Of each method that needs no training, an amount.
METHODS = {
    'ToMe': dict(r=8),
    'ATM': dict(r=8),
    'PiToMe': dict(r=8),
    'DPCKNN': dict(keep_rate=0.7),
    'ToMeSD': dict(keep_rate=0.5),
    'Expedite': dict(keep_rate=0.5),
    'TopK': dict(keep_rate=0.7),
    'EViT': dict(keep_rate=0.7),
    'ATS': dict(keep_rate=0.7),
    'RepresentationShift': dict(keep_rate=0.7),
    'Random': dict(keep_rate=0.7),
    'GridPool': dict(keep_rate=0.7),
}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """All parameters random, so that a confused pair of names cannot pass."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval()  # mmpretrain's backbones return nothing from it
    return model


def timm_vit(**options):
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    return randomise(vision_transformer.VisionTransformer(**{**SIZES, **options}))


def close(ours, theirs):
    return ours.shape == theirs.shape and (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def classifier(backbone: dict) -> torch.nn.Module:
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='mmstvit.STViT', **backbone),
                head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16),
            )
        ).eval()


def model_of(state, tmp_path, **backbone):
    """``get_model`` of a small STViT with a file that holds ``state``."""
    torch.save(state, tmp_path / 'file.pth')
    head = dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16)
    backbone = dict(type='mmstvit.STViT', **{**PLAIN, **backbone})
    cfg = Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=backbone, head=head)))
    return get_model(cfg, str(tmp_path / 'file.pth'))
