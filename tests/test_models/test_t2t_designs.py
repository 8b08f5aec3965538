"""The designs that T2T-ViT tries in its layers, against their formulas written out."""

import pytest
import torch
import torch.nn.functional as F

from mmstvit.layers.block import TransformerBlock
from mmstvit.models import STViT, T2TViT, reduce_

ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=96)
SE, GHOST, DENSE = dict(type='se'), dict(type='ghost'), dict(type='dense', growth=8, groups=(1, 2, 1))
DESIGNS = pytest.mark.parametrize('design', [SE, GHOST, DENSE], ids=lambda design: design['type'])
IMAGE = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def build(design, arch=ARCH, **options):
    """A small network with weights of a size that every term shows."""
    model = T2TViT(arch, 64, token_dims=8, design=design, **options)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def attend(q, k, v, heads):
    """softmax(q k^T / sqrt(d)) v, head by head."""
    size = q.shape[-1] // heads
    parts = [slice(i * size, (i + 1) * size) for i in range(heads)]
    return torch.cat(
        [(q[..., p] @ k[..., p].transpose(-2, -1) / size**0.5).softmax(-1) @ v[..., p] for p in parts], dim=-1
    )


def layer_formula(design, weights, x, context=None):
    """A layer by the words of the paper's supplement; ``weights`` by the names of the layer."""
    w, linear = weights, F.linear
    norm = lambda y, name: F.layer_norm(y, y.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], 1e-5)  # noqa: E731
    y = norm(x, 'norm1')
    z = y if context is None else torch.cat([norm(part, 'norm1') for part in context], dim=1)
    if design['type'] == 'ghost':
        halves = w['attn.qkv.weight'].chunk(3)
        q, k, v = (
            torch.cat((linear(t, half), scale * linear(t, half)), dim=-1)
            for t, half, scale in zip((y, z, z), halves, w['attn.qkv.scale'], strict=True)
        )
    else:
        q, k, v = (linear(t, rows) for t, rows in zip((y, z, z), w['attn.qkv.weight'].chunk(3), strict=True))
    out = linear(attend(q, k, v, 2), w['attn.proj.weight'], w['attn.proj.bias'])
    if design['type'] == 'se':
        squeezed = linear(out.mean(dim=1), w['attn.proj.squeeze.weight']).clamp(min=0)
        out = out * torch.sigmoid(linear(squeezed, w['attn.proj.excite.weight']))[:, None]
    out = x + out
    h = F.gelu(linear(norm(out, 'norm2'), w['mlp.fc1.weight'], w['mlp.fc1.bias']))
    if design['type'] == 'ghost':
        d2, d3 = w['mlp.scale']
        h = torch.cat((h, F.gelu(d2 * h), F.gelu(d3 * h)), dim=-1)
    out = out + linear(h, w['mlp.fc2.weight'], w['mlp.fc2.bias'])
    if design['type'] == 'dense':
        out = torch.cat((x, linear(out, w['grow.weight'], w['grow.bias'])), dim=-1)
        if 'halve.weight' in w:
            out = F.gelu(linear(out, w['halve.weight'], w['halve.bias']))
    return out


@DESIGNS
def test_formula(design):
    """Every layer's output and the normed last one, at an image size other than the table's."""
    model = build(design, out_type='raw', out_indices=(0, 1, 2, 3))
    inputs = []
    model.encoder.layers[0].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    outs = model(IMAGE)
    x = inputs[0]
    assert x.shape == (2, 13, 32)
    for i, layer in enumerate(model.encoder.layers):
        x = layer_formula(design, layer.state_dict(), x)
        expected = F.layer_norm(x, x.shape[-1:], model.norm.weight, model.norm.bias, 1e-5) if i == 3 else x
        assert outs[i].shape == (2, 13, model.out_channels[i])
        torch.testing.assert_close(outs[i], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('design', [SE, GHOST], ids=lambda design: design['type'])
def test_formula_of_semantic_tokens(design):
    """The layers that make semantic tokens: queries and keys are of different tokens."""
    model = build(design, semantic_grid=2, stgm_layer=1)
    assert [type(step).__name__ for step in model.encoder.steps][:3] == ['SelfAttention', 'Generation', 'Refinement']
    calls = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda module, args, out: calls.append((module, args[0], args[1], out)))
    model(IMAGE)
    assert [call[2] is not None for call in calls] == [False, True, True, False]
    for layer, x, context, out in calls:
        expected = layer_formula(design, layer.state_dict(), x, context)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_widths_of_dense_layers():
    """Growth 64 in groups of 3, 6, 6 and 4 layers, half the width between them."""
    model = T2TViT('19-dense', out_indices=tuple(range(19)))
    groups = [(128, 3), (160, 6), (272, 6), (328, 4)]
    widths = [[start + 64 * i for i in range(count)] for start, count in groups]
    layers = model.encoder.layers
    assert [layer.attn.embed_dims for layer in layers] == sum(widths, [])
    assert [layer.mlp.fc1.out_features for layer in layers] == [2 * w for w in sum(widths, [])]
    assert [i for i, layer in enumerate(layers) if layer.halve is not None] == [2, 8, 14]
    assert model.out_channels[-1] == model.norm.weight.numel() == 584
    assert model.out_channels[:3] == (192, 256, 160)


def parameters_of_layers(arch):
    """By hand: 9 tensors of an ordinary layer, and what a design adds."""
    norms, ordinary = 4, lambda c, hidden: 4 * c * c + c + 2 * c * hidden + hidden + c  # noqa: E731
    if arch == '14-wide':
        return 4 * (norms * 768 + ordinary(768, 3 * 768))
    if arch == '14-resnext':
        return 14 * (norms * 384 + ordinary(384, 1152))
    if arch == '14-se':
        return 14 * (norms * 384 + ordinary(384, 1152) + 2 * 384 * 24)
    if arch == '16-ghost':
        attention = 3 * (192 * 384 + 192) + 384 * 384 + 384
        mlp = 384 * 384 + 384 + 2 * 384 + 3 * 384 * 384 + 384
        return 16 * (norms * 384 + attention + mlp)
    total = 0
    for start, count, last in ((128, 3, False), (160, 6, False), (272, 6, False), (328, 4, True)):
        for i in range(count):
            c = start + 64 * i
            total += norms * c + ordinary(c, 2 * c) + 64 * c + 64
        end = start + 64 * count
        total += 0 if last else end * (end // 2) + end // 2
    return total


@pytest.mark.parametrize('arch', ['14-wide', '14-resnext', '14-se', '16-ghost', '19-dense'])
def test_parameters(arch):
    model = T2TViT(arch)
    assert sum(p.numel() for p in model.encoder.parameters()) == parameters_of_layers(arch)
    assert hasattr(model.patch_embed.attention1.attn, 'features')  # by performer layers


def test_heads_of_the_ablation():
    assert [T2TViT(arch).encoder.layers[0].attn.num_heads for arch in ('14-wide', '14-resnext', '19-dense')] == [
        12,
        32,
        8,
    ]


def test_an_ordinary_network_has_ordinary_layers():
    for model in (T2TViT(ARCH), STViT(ARCH, stgm_layer=1)):
        assert {type(layer) for layer in model.encoder.layers} == {TransformerBlock}
        assert model.out_channels == (32,)


def test_designs_are_independent_of_the_rest():
    """A design is an option of its own: of patches and of any size of network too."""
    model = STViT(ARCH, 64, semantic_grid=None, design=GHOST, layer_scale_init_value=1.0, qkv_bias=True).eval()
    assert model.encoder.layers[0].attn.qkv.bias.shape == (48,)
    assert model(IMAGE)[0].shape == (2, 32)
    assert T2TViT('14', design=SE).state_dict().keys() == T2TViT('14-se').state_dict().keys()


@DESIGNS
def test_gradients_reach_every_parameter(design):
    for options in (dict(), dict(semantic_grid=2, stgm_layer=1), dict(semantic_grid=2, stgm_layer=1, recover=True)):
        if options and design is DENSE:
            continue
        # Wide enough that some of the units that squeeze are alive.
        model = build(design, dict(ARCH, embed_dims=128, feedforward_channels=384), out_type='raw', **options).train()
        out = model(IMAGE)[0]
        (out * torch.randn_like(out)).sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@DESIGNS
def test_checkpointing_changes_nothing(design):
    kept, recomputed = build(design), build(design, with_cp=True)
    calls = []
    recomputed.encoder.layers[2].mlp.register_forward_pre_hook(lambda *args: calls.append(1))
    for model in (kept, recomputed):
        model(IMAGE)[0].square().sum().backward()
    assert len(calls) == 2  # forward, and once more in the backward pass
    for (name, a), b in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


@DESIGNS
@pytest.mark.parametrize('frozen_stages', [0, 2, 4])
def test_frozen_stages(design, frozen_stages):
    model = build(design, frozen_stages=frozen_stages).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    names = {name for name, _ in model.named_parameters() if name.startswith('encoder.')}
    assert trained & names == {name for name in names if int(name.split('.')[2]) >= frozen_stages}
    assert ('norm.weight' in trained) == (frozen_stages < 4)


@DESIGNS
def test_layer_depth(design):
    """As mmpretrain's constructor asks: each parameter of layer i is at depth i + 1."""
    model = build(design)
    for name, _ in model.named_parameters():
        depth, total = model.get_layer_depth(f'backbone.{name}', 'backbone.')
        expected = int(name.split('.')[2]) + 1 if name.startswith('encoder.') else 5 if name.startswith('norm') else 0
        assert (depth, total) == (expected, 6), name


@DESIGNS
def test_compiles_without_graph_breaks(design):
    layer = build(design).encoder.layers[0]
    x = torch.randn(2, 5, 32)
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    assert torch.allclose(compiled(x), layer(x), atol=1e-5)


@DESIGNS
def test_maps_of_each_layer(design):
    model = build(design, out_type='featmap', out_indices=(0, 2, 3))
    shapes = [tuple(out.shape) for out in model(IMAGE)]
    assert shapes == [(2, channels, 4, 3) for channels in model.out_channels]


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(design=dict(type='dens')), "design type 'dens' is unknown, choose from"),
        (dict(design=dict(growth=8)), 'design type None is unknown'),
        (dict(design=dict(type='se', growth=8)), "design type 'se' has no option growth"),
        (dict(design=dict(type='dense', growth=8, groups=(1, 2))), r'groups=\(1, 2\) of the dense design are not 4'),
        (dict(design=DENSE, semantic_grid=2), 'does not work with design=.* give reduce=None'),
        (dict(design=SE, arch={**ARCH, 'embed_dims': 24}), 'embed_dims=24 is not a multiple of 16'),
        (dict(design=GHOST, arch={**ARCH, 'feedforward_channels': 64}), 'must be three times embed_dims=32'),
        (dict(design=GHOST, arch={**ARCH, 'embed_dims': 33, 'num_heads': 3}), 'embed_dims=33 is odd'),
        (dict(design={**DENSE, 'growth': 7}), 'embed_dims=39 is not a multiple of num_heads=2|is not a multiple'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        T2TViT(**{'arch': ARCH, 'img_size': 64, **options})


def test_a_budget_is_the_same_however_the_network_is_reduced():
    """Here the hidden layer of the MLP is three times as wide as its weights say."""
    options, reduce = dict(arch=ARCH, img_size=64, design=GHOST), dict(type='ToMe', budget=0.5)
    own = T2TViT(**options, reduce=reduce).encoder.steps
    later = reduce_(T2TViT(**options), 'tome', budget=0.5).encoder.steps
    assert [getattr(step, 'amount', None) for step in own] == [getattr(step, 'amount', None) for step in later]


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match='reduction'):
        T2TViT(ARCH, design={**DENSE, 'reduction': 2})
