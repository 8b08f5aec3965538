"""ViTs with parts that DeiT has not, as timm and mmpretrain have them: all of them load, or are named."""

import pytest
import torch
from vits import ARCH, IMAGE, PLAIN, classifier, close, model_of, randomise, timm_vit

from mmstvit.io.checkpoints import CheckpointError
from mmstvit.models import STViT

RAW = {**PLAIN, 'out_type': 'raw'}

PARTS = {
    'plain': (dict(), {}),
    'no positions of the class token': (dict(no_embed_class=True), {}),
    'DeiT III': (dict(no_embed_class=True, init_values=1e-6), dict(layer_scale_init_value=1e-5)),
    'registers without positions': (dict(reg_tokens=3, no_embed_class=True), dict(num_register_tokens=3)),
    'registers with positions': (dict(reg_tokens=3), dict(num_register_tokens=3)),
    'q/k norm': (dict(qk_norm=True, qkv_bias=False), dict(qk_norm=True)),
    'DINOv2 with registers': (
        dict(reg_tokens=4, no_embed_class=True, init_values=1e-5),
        dict(num_register_tokens=4, layer_scale_init_value=1e-5),
    ),
}


@pytest.mark.parametrize('part', PARTS)
def test_get_model_adds_the_parts_of_the_file(tmp_path, lines, part):
    options, ours = PARTS[part]
    theirs = timm_vit(**options)
    qkv_bias = options.get('qkv_bias', True)
    model = model_of({'model': theirs.state_dict()}, tmp_path, qkv_bias=qkv_bias)
    assert close(model(IMAGE), theirs(IMAGE))
    told = [line for line in lines if 'as the checkpoint has it' in line]
    assert len(told) == bool(ours) and all(f'{name}={value}' in told[0] for name, value in ours.items())
    assert ' missing' not in lines[-1] and ' unexpected' not in lines[-1]


@pytest.mark.parametrize('part', [part for part, (_, ours) in PARTS.items() if ours])
def test_network_without_the_parts_refuses_the_file_and_names_them(tmp_path, part):
    options, ours = PARTS[part]
    theirs = timm_vit(**options)
    qkv_bias = options.get('qkv_bias', True)
    network = STViT(**{**PLAIN, 'qkv_bias': qkv_bias})
    with pytest.raises(ValueError, match='the checkpoint has .* STViT') as error:
        network.load_state_dict(theirs.state_dict(), strict=False)
    assert '\n' not in str(error.value) and all(f'{name}=' in str(error.value) for name in ours)
    STViT(**{**PLAIN, 'qkv_bias': qkv_bias, **ours}).load_state_dict(theirs.state_dict(), strict=False)
    # What the config says is not changed.
    off = {name: type(value)(0) for name, value in ours.items()}
    with pytest.raises(CheckpointError, match=r'file\.pth .*the checkpoint has'):
        model_of(theirs.state_dict(), tmp_path, qkv_bias=qkv_bias, **off)


def test_own_file_with_layer_scale_is_not_loaded_into_a_network_without(tmp_path):
    options = dict(layer_scale_init_value=0.5, num_register_tokens=2, qk_norm=True)
    source = randomise(STViT(**PLAIN, **options))
    with pytest.raises(ValueError, match='LayerScale, norms of queries and keys, 2 register tokens'):
        STViT(**PLAIN).load_state_dict(source.state_dict(), strict=False)
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    model = model_of({'state_dict': {**state, **classifier(PLAIN).head.state_dict(prefix='head.')}}, tmp_path)
    assert torch.equal(model.backbone(IMAGE)[0], source(IMAGE)[0])


@pytest.mark.parametrize(
    'name,options',
    [
        ('deit3_small_patch16_224', dict(patch_size=16, layer_scale_init_value=1e-5)),
        ('vit_small_patch14_reg4_dinov2', dict(patch_size=14, layer_scale_init_value=1e-5, num_register_tokens=4)),
        ('vit_small_patch16_224', dict(patch_size=16)),
    ],
)
def test_published_networks_of_timm(name, options):
    """At their own width and depth, for small images."""
    timm = pytest.importorskip('timm')
    size = 4 * options['patch_size']
    theirs = randomise(timm.create_model(name, img_size=size))
    model = STViT('small', size, semantic_grid=None, with_cls_token=True, out_type='raw', **options).eval()
    result = model.load_state_dict(theirs.state_dict(), strict=False)
    assert not result.missing_keys and all(name.startswith('head.') for name in result.unexpected_keys)
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert close(model(image)[0], theirs.forward_features(image))


@pytest.mark.parametrize(
    'options,named',
    [
        (dict(pre_norm=True), 'a norm before the layers'),
        (dict(fc_norm=True), 'a norm after the mean'),
        (dict(depth=7), '7 layers'),
        (dict(scale_attn_norm=True), 'attn.norm.weight in its layers'),
    ],
)
def test_what_no_option_makes_room_for_is_named(tmp_path, options, named):
    theirs = timm_vit(**options)
    with pytest.raises(CheckpointError, match=f'the checkpoint has {named}') as error:
        model_of(theirs.state_dict(), tmp_path)
    assert '\n' not in str(error.value)


def test_eva02_is_refused_with_what_it_has(tmp_path):
    """Its attention, most of the tensors, would fit; patch embedding and MLPs do not."""
    timm = pytest.importorskip('timm')
    theirs = timm.create_model('eva02_tiny_patch14_224')
    with pytest.raises(ValueError, match=r'the checkpoint has .*attn\.q_bias in its layers') as error:
        STViT('tiny', semantic_grid=None, with_cls_token=True).load_state_dict(theirs.state_dict(), strict=False)
    assert '\n' not in str(error.value)


def test_weights_and_not_tensors_decide():
    """Norms and biases of a network with other MLPs fit: most of the tensors, and little of the weights."""
    theirs = timm_vit(mlp_ratio=64, num_classes=0)
    arch = {**ARCH, 'feedforward_channels': 16 * 62}
    model = STViT(**{**PLAIN, 'arch': arch})
    with pytest.raises(ValueError, match='another model: 60 of the 78 tensors of STViT match, .*the names fit but not'):
        model.load_state_dict(theirs.state_dict(), strict=False)


def test_a_table_that_may_be_of_a_square_or_of_the_grid_is_told(lines):
    """8 x 2 cells are as many as 4 x 4."""
    theirs = timm_vit(img_size=(32, 8), num_classes=0).state_dict()
    model = STViT(**{**PLAIN, 'img_size': (32, 8)})
    model.load_state_dict(theirs, strict=False)
    assert 'taken for one of 4 x 4 cells, and interpolated to 8 x 2' in '\n'.join(lines)
    theirs['pos_embed'] = theirs['pos_embed'][:, 1:].unflatten(1, (8, 2))
    lines.clear()
    model.load_state_dict(theirs, strict=False)
    assert 'taken for one' not in '\n'.join(lines) and torch.equal(model.pos_embed, theirs['pos_embed'])


def test_a_part_of_its_own_tensors_is_taken():
    model, source = STViT(**PLAIN), STViT(**PLAIN)
    norms = {name: torch.full_like(value, 2) for name, value in source.state_dict().items() if 'norm1' in name}
    model.load_state_dict(norms, strict=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in norms.items())


def test_table_of_a_grid_that_is_no_square():
    theirs = timm_vit(img_size=(32, 24), reg_tokens=1)
    model = STViT(**{**RAW, 'img_size': (32, 24)}, num_register_tokens=1).eval()
    model.load_state_dict(theirs.state_dict(), strict=False)
    assert close(model(IMAGE[..., :24])[0], theirs.forward_features(IMAGE[..., :24]))
    with pytest.raises(ValueError, match='48 cells, which is no square'):
        STViT(**RAW).load_state_dict(theirs.state_dict(), strict=False)


@pytest.mark.parametrize('options', [dict(layer_scale_init_value=0.3), dict(qkv_bias=False)])
def test_parts_of_mmpretrain(tmp_path, options):
    models = pytest.importorskip('mmpretrain.models')
    theirs = randomise(models.VisionTransformer(arch=ARCH, img_size=32, patch_size=4, **options))
    model = STViT(**PLAIN, **options).eval()
    model.load_state_dict(theirs.state_dict())
    assert close(model(IMAGE)[0], theirs(IMAGE)[0])


def test_deit3_of_mmpretrain(tmp_path):
    models = pytest.importorskip('mmpretrain.models')
    theirs = randomise(models.DeiT3(arch=ARCH, img_size=32, patch_size=4))
    for layer in theirs.layers:  # it applies its first norm twice; the authors' weights are of two
        layer.ln2.load_state_dict(layer.ln1.state_dict())
    model = model_of({'state_dict': theirs.state_dict(prefix='backbone.')}, tmp_path)
    assert close(model.backbone(IMAGE)[0], theirs(IMAGE)[0])
