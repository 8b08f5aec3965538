"""The dense baseline of a config: the network that was written for the comparison by hand."""

import pytest
from mmengine.config import Config
from run_helpers import ROOT

from mmstvit import get_model
from mmstvit.apis.baseline import dense_baseline
from projects.evidence.plan import PAIRS
from projects.evidence.store import config_path

PLAIN = dict(embed_dims=16, num_layers=5, num_heads=2, feedforward_channels=32)


def classifier(**backbone):
    return Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=backbone)))


def shapes(cfg):
    return {name: tuple(value.shape) for name, value in get_model(cfg).state_dict().items()}


DENSE = {pair.dense for pair in PAIRS}  # one of them is compared with a baseline itself: T2T-ViT with ViT
SEMANTIC = [pair for pair in PAIRS if pair.tier != 'gpu' and not DENSE & set(pair.semantic)]


@pytest.mark.parametrize('pair', SEMANTIC, ids=lambda pair: pair.dense)
def test_it_is_the_baseline_that_has_a_config_of_its_own(pair):
    for part, toolbox in (('rcnn', 'mmdet'), ('upernet', 'mmseg'), ('3d', 'mmaction')):
        if part in pair.dense:
            pytest.importorskip(toolbox)
    expected = shapes(Config.fromfile(config_path(pair.dense)))
    for name in pair.semantic:
        cfg = Config.fromfile(config_path(name))
        before = cfg.to_dict()
        baseline = dense_baseline(cfg)
        assert shapes(baseline) == expected != shapes(cfg)
        assert cfg.to_dict() == before
        with pytest.raises(ValueError, match='has no semantic tokens'):
            dense_baseline(baseline)


def test_options_of_tokens_alone_go():
    options = dict(stgm_layer=1, pooling='avg', use_global=False, recover=True, out_type='featmap')
    cfg = classifier(type='mmstvit.STViT', arch=PLAIN, img_size=28, patch_size=4, **options)
    baseline = dense_baseline(cfg).model.backbone
    assert baseline == dict(
        type='mmstvit.STViT', arch=PLAIN, img_size=28, patch_size=4, out_type='featmap', reduce=None
    )


def test_the_baseline_of_stvit_r_is_swin_as_published():
    cfg = Config.fromfile(ROOT / 'configs' / 'stvit_r' / 'stvit-r-swin-s_8xb128_in1k_published.py')
    baseline = dense_baseline(cfg).model.backbone
    assert (
        baseline.type == 'mmstvit.STViTSwin'
        and baseline.semantic_size is None
        and baseline.arch == cfg.model.backbone.arch
    )
    parameters = sum(p.numel() for p in get_model(dense_baseline(cfg)).parameters())
    assert round(parameters / 1e6, 1) == 49.6  # Swin-S, by its authors


def test_sizes_that_are_not_given_stay_those_of_the_network():
    assert dense_baseline(classifier(type='mmstvit.STViTR')).model.backbone.arch == 'small'
    assert dense_baseline(classifier(type='mmstvit.STViTR', dense=True)).model.backbone.out_indices == (0, 1, 2, 3)


def test_a_neck_that_recovers_goes_and_what_it_read_stays():
    backbone = dict(
        type='mmstvit.STViT',
        arch=PLAIN,
        img_size=32,
        patch_size=4,
        stgm_layer=1,
        out_type='featmap',
        out_indices=(0, 4),
    )
    recovery = dict(type='mmstvit.TokenRecovery', embed_dims=16, num_heads=2)
    pooling = dict(type='GlobalAveragePooling')
    for neck, expected in (([recovery, pooling], [pooling]), (recovery, None), ([recovery], None)):
        cfg = classifier(**backbone)
        cfg.model.neck = neck
        baseline = dense_baseline(cfg)
        assert baseline.model.neck == expected and baseline.model.backbone.out_indices == (4,)
    cfg.model.neck = [pooling]
    assert dense_baseline(cfg).model.neck == [pooling] and dense_baseline(cfg).model.backbone.out_indices == (0, 4)


@pytest.mark.parametrize('backbone', [dict(type='mmstvit.T2TViT'), dict(type='mmpretrain.ResNet', depth=18), dict()])
def test_without_semantic_tokens_there_is_none(backbone):
    with pytest.raises(ValueError, match=f'{backbone.get("type", "None").split(".")[-1]} has no semantic tokens'):
        dense_baseline(classifier(**backbone))
