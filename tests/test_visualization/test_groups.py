"""Groups of patches that became one token, and their pictures."""

import numpy as np
import pytest
import torch

from mmstvit.models import STViT, reduce_
from mmstvit.visualization.groups import groups_picture, overlay, token_groups

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
IMAGES = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))


def vit(reduce=None, **options):
    torch.manual_seed(0)
    return STViT(ARCH, img_size=(32, 24), patch_size=4, with_cls_token=True, reduce=reduce, **options).eval()


@pytest.mark.parametrize(
    'method, options, dropped',
    [
        ('tome', dict(r=8), False),
        ('pitome', dict(r=8), False),
        ('dpcknn', dict(keep_rate=0.6), False),
        ('gridpool', dict(keep_rate=0.5), False),
        ('evit', dict(keep_rate=0.6), False),
        ('topk', dict(keep_rate=0.6), True),
    ],
)
def test_as_many_groups_as_tokens(method, options, dropped):
    model = reduce_(vit(), method, **options)
    groups = token_groups(model, IMAGES, view=1)
    assert groups.image.shape == (32, 24, 3)
    counts = [model.reduction.tokens[layer.block - 1] for layer in groups.layers]
    assert [layer.num_tokens for layer in groups.layers] == counts
    assert all(layer.groups.shape == (8, 6) for layer in groups.layers)
    assert dropped == any((layer.groups < 0).any() for layer in groups.layers)
    for before, after in zip(groups.layers, groups.layers[1:]):  # what is one stays one
        for token in np.unique(before.groups[before.groups >= 0]):
            assert len(np.unique(after.groups[before.groups == token])) == 1
    alone = token_groups(model, IMAGES[1:])
    assert all(np.array_equal(a.groups, b.groups) for a, b in zip(alone.layers, groups.layers))


def test_of_a_config_and_for_attention_alone():
    own = token_groups(vit(dict(type='ToMe', r=8)), IMAGES)
    reduced = token_groups(reduce_(vit(), 'tome', r=8), IMAGES)
    assert all(np.array_equal(a.groups, b.groups) for a, b in zip(own.layers, reduced.layers))
    dense = token_groups(reduce_(vit(), 'tomesd', keep_rate=0.5), IMAGES)
    assert [layer.num_tokens for layer in dense.layers] == [24] * 4


def test_clips():
    torch.manual_seed(0)
    options = dict(img_size=(4, 16, 16), patch_size=(2, 4, 4), out_type='avg_featmap')
    model = STViT(ARCH, reduce=dict(type='ToMe', r=6), **options).eval()
    groups = token_groups(model, torch.randn(1, 3, 4, 16, 16))
    assert groups.layers[-1].groups.shape == (2, 4, 4) and groups.layers[-1].num_tokens == 8
    assert groups_picture(groups).ndim == 3


def test_overlay_has_mean_colours():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:20, :20], image[:20, 20:], image[20:, :20], image[20:, 20:] = 40, 80, 200, 100
    picture = overlay(image, np.array([[0, 0], [-1, 1]]), 40)
    assert (picture[5, 5] == 60).all() and (picture[5, 35] == 60).all()
    assert (picture[35, 35] == 100).all() and (picture[35, 5] == 40).all()
    assert (picture[20] == 255).all() and (picture[25:, 20] == 255).all() and (picture[5, 20] == 60).all()


def test_refused_in_a_line():
    with pytest.raises(ValueError, match='STViT .*: reduce it'):
        token_groups(vit(), IMAGES)
    with pytest.raises(ValueError, match='no view 2: the network gets 2'):
        token_groups(reduce_(vit(), 'tome', r=8), IMAGES, view=2)
