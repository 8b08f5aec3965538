"""Networks in timm's manner, without a toolbox."""

import re

import pytest
import torch
from fresh_python import run_fresh
from mmengine.config import Config
from run_helpers import CLASSIFIERS, ROOT

from mmstvit import create_model, get_model
from mmstvit.apis.classifier import NETWORKS

IMAGES = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
SIZES = dict(t='tiny', s='small', b='base')


def test_without_a_toolbox():
    code = (
        'import sys, torch, mmstvit\n'
        "sys.modules.update(dict.fromkeys(('mmpretrain', 'mmdet', 'mmaction')))\n"  # an import of them fails
        "model = mmstvit.create_model('stvit_tiny', num_classes=10)\n"
        'print(tuple(model.eval()(torch.rand(1, 3, 64, 64)).shape))\n'
    )
    assert run_fresh(code) == '(1, 10)'  # and nothing else is printed


PAIRS = [
    ('stvit_tiny', 'stvit-t_8xb128_in1k'),
    ('stvit_swin_tiny', 'stvit-swin-t_16xb64_in1k'),
    ('t2t_vit_7', 't2t-vit-7_8xb64_in1k'),
]


@pytest.mark.parametrize('name, config', PAIRS)
@torch.no_grad()
def test_logits_of_the_toolbox(name, config, tmp_path):
    """From a file of either, with the same weights."""
    theirs = get_model(config)
    torch.save(dict(state_dict=theirs.state_dict()), tmp_path / 'theirs.pth')
    ours = create_model(name, pretrained=tmp_path / 'theirs.pth').eval()
    expected = theirs(IMAGES, mode='tensor')
    assert ours(IMAGES).equal(expected) and ours.num_classes == 1000
    assert list(ours.state_dict()) == [key for key in theirs.state_dict() if not key.startswith('data_preprocessor')]
    features = ours.forward_features(IMAGES)
    assert ours.forward_head(features).equal(expected)
    assert ours.forward_head(features, pre_logits=True).shape == (2, ours.num_features)


def name_of(config):
    """The name of a network by that of its config: ``stvit-swin-t_16xb64_in1k`` is ``stvit_swin_tiny``."""
    network = config.split('/')[-1].split('_')[0]
    stem, _, size = network.rpartition('-')
    if 't2t' not in network:
        network = f'{stem}-{SIZES[size]}'
    return network.replace('-', '_')


ORDINARY = [
    config
    for config in CLASSIFIERS
    if not re.search(r'digits|cifar10|clothing|-ft_|_36tok|384px|_published|reduced/', config)
]


def test_each_network_of_the_configs_has_a_name():
    assert {name_of(config) for config in ORDINARY} == set(NETWORKS)
    for config in ORDINARY:
        cfg = Config.fromfile(ROOT / config)
        backbone = dict(cfg.model.backbone)
        kind, settings = NETWORKS[name_of(config)]
        assert backbone.pop('type') == f'mmstvit.{kind.__name__}'
        backbone.pop('drop_path_rate')
        defaults = dict(img_size=224, patch_size=16, semantic_grid=(4, 4)) if kind.__name__ == 'STViT' else {}
        assert backbone == {**{key: value for key, value in defaults.items() if key in backbone}, **settings}
        head = cfg.model.head.type.removesuffix('ClsHead')
        assert head == ('VisionTransformer' if issubclass(kind, NETWORKS['stvit_tiny'][0]) else 'Linear')


@torch.no_grad()
def test_classifier_is_replaced():
    model = create_model('stvit_tiny', num_classes=10, drop_path_rate=0.1)
    assert model.training and model.get_classifier().weight.shape == (10, 192) and model.num_features == 192
    assert 0.015 < model.backbone.encoder.layers[0].attn.qkv.weight.std() < 0.025  # initialised as in training
    model.reset_classifier(3)
    assert model(IMAGES[..., :64, :64]).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0)
    images = IMAGES[..., :64, :64]
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    assert model.eval()(images).equal(model.forward_features(images))


def test_file_of_other_classes(tmp_path, caplog):
    """Its backbone is loaded, the classifier is a new one."""
    theirs = create_model('t2t_vit_7', num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / 'five.pth')
    model = create_model('t2t_vit_7', tmp_path / 'five.pth', num_classes=3)
    assert all(value.equal(theirs.backbone.state_dict()[key]) for key, value in model.backbone.state_dict().items())
    assert model.get_classifier().weight.shape == (3, 256)


def test_wrong_names_and_files(tmp_path):
    with pytest.raises(ValueError, match='did you mean stvit_small'):
        create_model('stvit_smal')
    with pytest.raises(ValueError, match='pretrained=True'):
        create_model('stvit_tiny', pretrained=True)
    with pytest.raises(FileNotFoundError):
        create_model('stvit_tiny', pretrained=tmp_path / 'absent.pth')
    torch.save(create_model('t2t_vit_7', num_classes=2).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth'):
        create_model('stvit_tiny', pretrained=tmp_path / 'other.pth')
