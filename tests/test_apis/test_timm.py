"""``import mmstvit.timm``: the networks of here by ``timm.create_model``."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

import mmstvit
from mmstvit.apis.classifier import NETWORKS
from mmstvit.timm import NAMES

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TINY = 'stvit_tiny_patch16_224'


def test_every_network_is_listed():
    assert set(NAMES.values()) == set(NETWORKS) and set(NAMES) <= set(timm.list_models())
    assert TINY in timm.list_models('stvit*') and 'stvit_r_swin_small_patch4_window7_224' in NAMES
    assert set(NAMES) & set(timm.list_models(pretrained=True)) == set()
    with pytest.raises(RuntimeError, match=f'No pretrained weights exist for {TINY}'):
        timm.create_model(TINY, pretrained=True)


@pytest.mark.parametrize('name', ['stvit_tiny', 't2t_vit_7', 'stvit_swin_tiny'])
@torch.no_grad()
def test_logits_of_create_model(name):
    """Parameters have its names, and one's file is the other's."""
    ours = mmstvit.create_model(name, num_classes=7).eval()
    theirs = timm.create_model({ours: theirs for theirs, ours in NAMES.items()}[name], num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    assert theirs(IMAGES).equal(ours(IMAGES))
    features = theirs.forward_features(IMAGES)
    assert theirs.forward_head(features).equal(theirs(IMAGES))
    assert theirs.forward_head(features, pre_logits=True).shape == (2, theirs.head_hidden_size)
    assert theirs.get_classifier().out_features == theirs.num_classes == 7


def test_what_timm_tells_of_a_model():
    with torch.device('meta'):
        models = {name: timm.create_model(name) for name in NAMES}
    for name, model in models.items():
        cfg, parameters = model.pretrained_cfg, dict(model.named_parameters())
        assert cfg is model.default_cfg and cfg['architecture'] == name and cfg['input_size'] == (3, 224, 224)
        assert parameters[cfg['classifier'] + '.weight'].shape == (1000, model.num_features)
        assert ('t2t' in name) == (cfg['first_conv'] is None)
        assert cfg['first_conv'] is None or parameters[cfg['first_conv'] + '.weight'].shape[1] == 3


@torch.no_grad()
def test_classifier_and_pooling():
    model = timm.create_model(TINY, num_classes=5, in_chans=1, img_size=64, drop_rate=0.5).eval()
    images = IMAGES[:, :1]
    assert model(images).shape == (2, 5)
    model.train()
    assert not model.forward_head(torch.ones(1, 192)).equal(model.forward_head(torch.ones(1, 192)))  # dropout
    model.eval().reset_classifier(0)
    pooled = model(images)
    model.reset_classifier(0, '')
    assert model(images).shape == (2, 16, 192) and model(images).mean(1).allclose(pooled, atol=1e-6)
    with pytest.raises(ValueError, match='needs num_classes=0'):
        model.reset_classifier(3)
    with pytest.raises(ValueError, match="'token'.* has 'avg', ''"):
        timm.create_model(TINY, global_pool='token')
    maps = timm.create_model('stvit_swin_tiny_patch4_window7_224', num_classes=0, global_pool='')
    assert maps(IMAGES).shape[:2] == (2, 768) and maps(IMAGES).dim() == 4


def test_training_options():
    model = timm.create_model(TINY, drop_path_rate=0.3)
    layers = model.backbone.encoder.layers
    model.set_grad_checkpointing()
    assert all(layer.with_cp for layer in layers)
    decayed = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    scales = {id(p): group['lr_scale'] for group in decayed for p in group['params']}
    assert scales[id(layers[3].attn.qkv.weight)] == 2 * scales[id(layers[2].attn.qkv.weight)]
    assert all(p is not model.backbone.pos_embed for group in decayed if group['weight_decay'] for p in group['params'])


def test_file_of_deit(tmp_path):
    """In the names of its authors, with a stem for another number of channels."""
    deit = timm.create_model('deit_tiny_patch16_224', num_classes=1000)
    torch.save(deit.state_dict(), tmp_path / 'deit.pth')
    options = dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'deit.pth')))
    model = timm.create_model(TINY, **options)
    assert model.backbone.encoder.layers[3].attn.qkv.weight.equal(deit.blocks[3].attn.qkv.weight)
    assert model.get_classifier().weight.equal(deit.head.weight)
    grey = timm.create_model(TINY, in_chans=1, num_classes=2, **options)
    assert grey.backbone.patch_embed.projection.weight.allclose(deit.patch_embed.proj.weight.sum(1, keepdim=True))
    assert grey.get_classifier().weight.shape == (2, 192)
    with pytest.raises(ValueError, match='T2TViT as it is configured has not'):
        timm.create_model('t2t_vit_7', **options)


@pytest.mark.parametrize(
    'name, options, channels, strides',
    [
        (TINY, dict(), [192] * 3, [56] * 3),
        (TINY, dict(out_indices=(1, 3, -1), img_size=64), [192] * 3, [16, 16, 16]),
        (TINY, dict(out_indices=2, reduce=False), [192] * 2, [16, 16]),
        ('stvit_r_swin_tiny_patch4_window7_224', dict(), [96, 192, 384, 768], [4, 8, 16, 32]),
        ('stvit_swin_tiny_patch4_window7_224', dict(out_indices=(0, 1)), [96, 192], [4, 8]),
        ('t2t_vit_7', dict(out_indices=[-1]), [256], [16]),
    ],
)
@torch.no_grad()
def test_features_only(name, options, channels, strides):
    model = timm.create_model(name, features_only=True, **options).eval()
    info = model.feature_info
    assert info.channels() == channels and info.reduction() == strides
    assert all(model.get_submodule(module) for module in info.module_name())
    size = options.get('img_size', 224)
    shapes = [tuple(out.shape) for out in model(torch.rand(1, 3, size, size))]
    assert shapes == [(1, width, size // stride, size // stride) for width, stride in zip(channels, strides)]


def test_features_that_grow_again():
    with pytest.raises(ValueError, match=r'strides \[56, 16\]: choose'):
        timm.create_model(TINY, features_only=True, out_indices=(10, 11), recover=True)
