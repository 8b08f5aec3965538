"""DeiT files as others wrote them: timm's and mmpretrain's own networks are the references."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from vits import ARCH, IMAGE, PLAIN, classifier, randomise, timm_vit

from mmstvit.converters import convert_published_state_dict
from mmstvit.functional.position import resize_table
from mmstvit.models import STViT

SEMANTIC = dict(arch=ARCH, img_size=32, patch_size=4, semantic_grid=(3, 3), stgm_layer=2)


@pytest.fixture
def mmpretrain_vit():
    models = pytest.importorskip('mmpretrain.models')
    return randomise(models.VisionTransformer(arch=ARCH, img_size=32, patch_size=4))


@pytest.mark.parametrize('wrap', [lambda sd: sd, lambda sd: {'model': sd}, lambda sd: {'state_dict': sd}])
def test_file_of_the_authors_in_a_whole_classifier(tmp_path, matched, wrap):
    theirs = timm_vit()
    torch.save(wrap(theirs.state_dict()), tmp_path / 'deit.pth')
    model = classifier(PLAIN)
    load_checkpoint(model, str(tmp_path / 'deit.pth'))
    assert torch.allclose(model(IMAGE), theirs(IMAGE), atol=1e-5)
    assert '78 of 78' in matched() and 'missing' not in matched() and 'unexpected' not in matched()


def test_file_of_the_authors_by_plain_load_state_dict():
    theirs = timm_vit()
    model = STViT(**PLAIN).eval()
    result = model.load_state_dict(theirs.state_dict(), strict=False)
    assert result.missing_keys == []
    assert result.unexpected_keys == ['head.layers.head.weight', 'head.layers.head.bias']
    assert torch.allclose(model(IMAGE)[0], theirs.forward_features(IMAGE)[:, 0], atol=1e-5)


def test_layer_scale_has_its_place():
    theirs = timm_vit(init_values=0.5)
    model = STViT(**PLAIN, layer_scale_init_value=0.1).eval()
    model.load_state_dict(theirs.state_dict(), strict=False)
    assert torch.allclose(model(IMAGE)[0], theirs.forward_features(IMAGE)[:, 0], atol=1e-5)


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone.', ''])
def test_file_of_mmpretrain(mmpretrain_vit, tmp_path, prefix):
    torch.save({'state_dict': {prefix + k: v for k, v in mmpretrain_vit.state_dict().items()}}, tmp_path / 'vit.pth')
    model = STViT(**PLAIN).eval()
    load_checkpoint(model, str(tmp_path / 'vit.pth'))
    assert torch.allclose(model(IMAGE)[0], mmpretrain_vit(IMAGE)[0], atol=1e-5)


@pytest.mark.parametrize('prefix', [None, 'backbone'])
def test_init_cfg(mmpretrain_vit, tmp_path, prefix):
    path = str(tmp_path / 'vit.pth')
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in mmpretrain_vit.state_dict().items()}}, path)
    init_cfg = dict(type='Pretrained', checkpoint=path, **(dict(prefix=prefix) if prefix else {}))
    model = STViT(**PLAIN, init_cfg=init_cfg).eval()
    model.init_weights()
    assert torch.allclose(model(IMAGE)[0], mmpretrain_vit(IMAGE)[0], atol=1e-5)


def test_deit_into_stvit_reports_what_is_new_and_what_is_left(mmpretrain_vit, matched, tmp_path):
    state = {f'backbone.{k}': v for k, v in mmpretrain_vit.state_dict().items()}
    state |= {'head.layers.head.weight': torch.ones(5, 16), 'head.layers.head.bias': torch.ones(5)}
    torch.save(state, tmp_path / 'vit.pth')
    model = classifier(SEMANTIC)
    load_checkpoint(model, str(tmp_path / 'vit.pth'))
    told, _, left = matched().partition('unexpected: ')
    assert '77 of 78' in told and 'missing: encoder.steps.3.global_centers' in told and left == 'backbone.cls_token'
    assert torch.equal(model.backbone.encoder.layers[5].attn.qkv.weight, mmpretrain_vit.layers[5].attn.qkv.weight)
    assert torch.equal(model.head.layers.head.bias, torch.ones(5))


def test_distillation_token_is_left_over(matched):
    state = timm_vit().state_dict()
    state['dist_token'] = torch.ones(1, 1, 16)
    table = state['pos_embed']
    state['pos_embed'] = torch.cat((table[:, :1], torch.full((1, 1, 16), 9.0), table[:, 1:]), 1)
    model = STViT(**PLAIN)
    model.load_state_dict(state, strict=False)
    assert torch.equal(model.pos_embed.flatten(1, 2), table[:, 1:])
    assert set(matched().partition('unexpected: ')[2].split(', ')) == {
        'head.layers.head.weight',
        'head.layers.head.bias',
        'dist_token',
    }


def test_tables_of_other_sizes_are_interpolated(mmpretrain_vit):
    model = STViT(**{**PLAIN, 'img_size': (48, 20)})
    model.load_state_dict(mmpretrain_vit.state_dict(), strict=False)
    table = mmpretrain_vit.pos_embed[:, 1:].reshape(1, 8, 8, 16)
    assert torch.equal(model.pos_embed, resize_table(table, (12, 5)))


def test_own_files_of_other_sizes_and_grids_need_not_be_square():
    source = randomise(STViT(**{**SEMANTIC, 'img_size': (20, 48), 'semantic_grid': (2, 5)}))
    model = STViT(**{**SEMANTIC, 'img_size': (32, 24), 'semantic_grid': (4, 3)})
    model.load_state_dict(source.state_dict())
    assert torch.equal(model.pos_embed, resize_table(source.pos_embed, (8, 6)))
    ours, theirs = (m.encoder.steps[3].global_centers for m in (model, source))
    assert torch.equal(ours, resize_table(theirs, (4, 3)))


def test_other_places_of_the_stgm_take_the_same_file():
    source = randomise(STViT(**SEMANTIC))
    model = STViT(**{**SEMANTIC, 'stgm_layer': 4})
    assert model.load_state_dict(source.state_dict()).missing_keys == []


def test_own_backbone_file_in_a_classifier_and_the_other_way(tmp_path):
    source = randomise(STViT(**SEMANTIC))
    torch.save(source.state_dict(), tmp_path / 'backbone.pth')
    model = classifier(SEMANTIC)
    load_checkpoint(model, str(tmp_path / 'backbone.pth'))
    assert torch.equal(model.backbone(IMAGE)[0], source(IMAGE)[0])
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'whole.pth')
    again = STViT(**SEMANTIC).eval()
    load_checkpoint(again, str(tmp_path / 'whole.pth'))
    assert torch.equal(again(IMAGE)[0], source(IMAGE)[0])


def test_another_network_is_refused():
    models = pytest.importorskip('torchvision.models')
    state = models.resnet18().state_dict()
    with pytest.raises(ValueError, match=r'another model: 0 of the 78 tensors .* its names are bn1.bias, '):
        STViT(**SEMANTIC).load_state_dict(state)
    with pytest.raises(ValueError, match='this is no DeiT, .* it looks like a ResNet; its names are bn1.bias'):
        convert_published_state_dict(state)


def test_another_size_is_refused(mmpretrain_vit):
    wide = STViT(**{**PLAIN, 'arch': {**ARCH, 'embed_dims': 32}})
    with pytest.raises(ValueError, match=r'not the sizes, .* is \(16,.* and \(32,'):
        wide.load_state_dict(mmpretrain_vit.state_dict())


def test_a_table_of_no_square_is_refused(mmpretrain_vit):
    state = {f'backbone.{k}': v for k, v in mmpretrain_vit.state_dict().items()}
    state['backbone.pos_embed'] = state['backbone.pos_embed'][:, :-2]
    with pytest.raises(ValueError, match='62 cells, which is no square'):
        convert_published_state_dict(state)


def test_converted_file_is_a_classifier(mmpretrain_vit):
    state = convert_published_state_dict({f'backbone.{k}': v for k, v in mmpretrain_vit.state_dict().items()})
    assert set(state) == {f'backbone.{name}' for name in STViT(**PLAIN).state_dict()}


def test_finetuning_configs_take_the_checkpoints_they_name(tmp_path):
    """A made file of the names and shapes of mmpretrain's DeiT-T fills all but the global cluster centres."""
    models = pytest.importorskip('mmpretrain.models')
    cfg = Config.fromfile('configs/stvit/stvit-t-ft_8xb128-30e_in1k.py')
    assert 'deit-tiny' in cfg.model.init_cfg.checkpoint
    theirs = models.VisionTransformer(arch='deit-tiny', img_size=224, patch_size=16)
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    state |= {'head.layers.head.weight': torch.ones(1000, 192), 'head.layers.head.bias': torch.ones(1000)}
    path = str(tmp_path / 'deit.pth')
    torch.save({'state_dict': state}, path)
    cfg.model.init_cfg.checkpoint = path
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    assert torch.equal(model.head.layers.head.weight, torch.ones(1000, 192))
    assert torch.equal(model.backbone.encoder.layers[11].mlp.fc1.weight, theirs.layers[11].ffn.layers[0][0].weight)
