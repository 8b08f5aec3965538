import pytest
import torch

from mmstvit.models import STViT

SMALL = dict(embed_dims=16, num_layers=6, num_heads=2, feedforward_channels=32)


def build(**options) -> STViT:
    options = {**dict(arch=SMALL, img_size=32, patch_size=4, semantic_grid=(3, 3), stgm_layer=2), **options}
    return STViT(**options).eval()


def layer_tokens(model: STViT, image: torch.Tensor) -> list[int]:
    counts = []
    hooks = [
        layer.register_forward_hook(lambda module, args, out: counts.append(out.shape[1]))
        for layer in model.encoder.layers
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.parametrize('cls', [False, True])
def test_token_counts_after_each_layer(cls):
    image = torch.rand(1, 3, 224, 224)
    arch = dict(embed_dims=12, num_layers=12, num_heads=3, feedforward_channels=12)
    assert layer_tokens(STViT(arch, with_cls_token=cls), image) == [196 + cls] * 4 + [16 + cls] * 8
    assert layer_tokens(STViT(arch, semantic_grid=6, stgm_layer=7, with_cls_token=cls), image) == (
        [196 + cls] * 7 + [36 + cls] * 5
    )
    assert layer_tokens(STViT(arch, semantic_grid=None, with_cls_token=cls), image) == [196 + cls] * 12


def test_dense_baseline_is_a_plain_transformer():
    """Written out from the weights: pre-norm layers over patches, the mean of the normed tokens."""
    model = build(semantic_grid=None, stgm_layer=4)
    image = torch.randn(2, 3, 32, 32)
    x = model.patch_embed.projection(image).flatten(2).transpose(1, 2) + model.pos_embed.reshape(1, 64, 16)
    for layer in model.encoder.layers:
        q, k, v = layer.attn.qkv(layer.norm1(x)).reshape(2, 64, 3, 2, 8).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)
        x = x + layer.attn.proj((weights @ v).transpose(1, 2).reshape(2, 64, 16))
        x = x + layer.mlp.fc2(torch.nn.functional.gelu(layer.mlp.fc1(layer.norm2(x))))
    expected = torch.nn.functional.layer_norm(x, (16,), model.norm.weight, model.norm.bias, 1e-6).mean(1)
    assert torch.allclose(model(image)[0], expected, atol=1e-5)


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 20), (8, 8), (5, 61), (1, 1)])
@pytest.mark.parametrize('semantic_grid', [(3, 3), None])
def test_any_image_size(size, semantic_grid):
    model = build(semantic_grid=semantic_grid, stgm_layer=2 if semantic_grid else 4, out_type='featmap')
    (out,) = model(torch.randn(2, 3, *size))
    grid = semantic_grid or (-(-size[0] // 4), -(-size[1] // 4))
    assert out.shape == (2, 16, *grid)
    assert out.isfinite().all()


@pytest.mark.parametrize('cls', [False, True])
def test_recovery_gives_the_full_map_back(cls):
    """The image tokens from before the STGM query the semantic tokens in the last layer."""
    model = build(recover=True, out_type='featmap', with_cls_token=cls, out_indices=(1, 4, 5), final_norm=False)
    before, semantic, recovered = model(torch.randn(2, 3, 32, 20))
    assert before.shape == recovered.shape == (2, 16, 8, 5) and semantic.shape == (2, 16, 3, 3)
    if not cls:
        x, s = before.flatten(2).transpose(1, 2), semantic.flatten(2).transpose(1, 2)
        out = model.encoder.layers[5](x, (s,)).transpose(1, 2).reshape(2, 16, 8, 5)
        assert torch.allclose(recovered, out, atol=1e-6)


def test_padding_to_whole_patches_is_zeros():
    model = build()
    image = torch.randn(1, 3, 30, 31)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 2))
    assert torch.equal(model(image)[0], model(padded)[0])


def test_out_types():
    image = torch.randn(2, 3, 32, 32)
    shapes = dict(avg_featmap=(2, 16), cls_token=(2, 16), featmap=(2, 16, 3, 3), raw=(2, 10, 16))
    raw = None
    for out_type in ('raw', 'avg_featmap', 'cls_token', 'featmap'):
        torch.manual_seed(0)
        (out,) = build(out_type=out_type, with_cls_token=True)(image)
        assert out.shape == shapes[out_type]
        raw = out if out_type == 'raw' else raw
        expected = dict(
            raw=raw,
            avg_featmap=raw[:, 1:].mean(1),
            cls_token=raw[:, 0],
            featmap=raw[:, 1:].transpose(1, 2).reshape(2, 16, 3, 3),
        )[out_type]
        assert torch.allclose(out, expected, atol=1e-6)


def test_out_indices_give_the_map_of_their_own_grid():
    outs = build(out_type='featmap', out_indices=(1, 2, -1))(torch.randn(1, 3, 32, 24))
    assert [tuple(out.shape[2:]) for out in outs] == [(8, 6), (3, 3), (3, 3)]


# Each option, with what it is compared to, must change the output or what is trained.
@pytest.mark.parametrize(
    'option',
    [
        dict(semantic_grid=(2, 4)),
        dict(stgm_layer=3),
        dict(pooling='avg'),
        dict(use_global=False),
        dict(recover=True),
        dict(qkv_bias=False),
        dict(layer_scale_init_value=0.1),
        dict(norm_cfg=dict(type='LN', eps=0.1)),
        dict(final_norm=False),
        dict(patch_size=8),
        dict(in_channels=4),
        dict(with_cls_token=True),
        dict(out_type='raw'),
        dict(out_indices=4),
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_takes_effect(option):
    def output(**options):
        torch.manual_seed(0)
        model = build(**options)
        for name, parameter in model.named_parameters():
            if name.endswith('qkv.bias'):
                torch.nn.init.normal_(parameter)
        torch.manual_seed(1)
        return model(torch.randn(2, options.get('in_channels', 3), 32, 32))[0]

    plain, changed = output(), output(**option)
    assert plain.shape != changed.shape or not torch.allclose(plain, changed, atol=1e-4)


@pytest.mark.parametrize('option', [dict(drop_rate=0.3), dict(attn_drop_rate=0.3), dict(drop_path_rate=0.5)])
def test_dropout_options_act_in_training(option):
    torch.manual_seed(0)
    model = build(**option).train()
    image = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(image)[0], model(image)[0])
    assert torch.equal(model.eval()(image)[0], model(image)[0])


def test_drop_path_grows_linearly():
    rates = [getattr(layer.drop_path, 'drop_prob', 0.0) for layer in build(drop_path_rate=0.5).encoder.layers]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='huge'), "arch='huge' is unknown"),
        (dict(arch=dict(embed_dims=8)), 'needs just the keys'),
        (dict(out_type='map'), "out_type='map' is unknown"),
        (dict(out_type='cls_token'), 'needs with_cls_token=True'),
        (dict(stgm_layer=5), 'between 0 and 4'),
        (dict(semantic_grid=(9, 3)), r'from 1 to those of the token grid \(8, 8\)'),
        (dict(semantic_grid=0), 'semantic_grid='),
        (dict(semantic_grid=(2, 2, 2)), r'must be one number or \(rows, columns\)'),
        (dict(pooling='sum'), "pooling='sum' is unknown"),
        (dict(semantic_grid=None), 'stgm_layer=2 has no effect with semantic_grid=None'),
        (dict(semantic_grid=None, stgm_layer=4, pooling='avg'), "pooling='avg' has no effect"),
        (dict(semantic_grid=None, stgm_layer=4, use_global=False), 'use_global=False has no effect'),
        (dict(semantic_grid=None, stgm_layer=4, recover=True), 'recover=True has no effect'),
        (dict(out_indices=6), 'must name some of the 6 layers'),
        (dict(out_indices=(4, 2)), 'ascending'),
        (dict(frozen_stages=7), 'frozen_stages=7 must be between -1 and 6'),
    ],
)
def test_wrong_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match='semantic_gird'):
        build(semantic_gird=(2, 2))


@pytest.mark.parametrize(
    'options', [dict(), dict(with_cls_token=True, out_type='cls_token', layer_scale_init_value=1), dict(recover=True)]
)
def test_gradients_reach_every_parameter(options):
    model = build(**options).train()
    model(torch.randn(2, 3, 32, 32))[0].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_checkpointing_changes_nothing():
    torch.manual_seed(0)
    kept = build().train()
    recomputed = build(with_cp=True).train()
    recomputed.load_state_dict(kept.state_dict())
    image = torch.randn(2, 3, 32, 32)
    calls = []
    recomputed.encoder.layers[0].mlp.register_forward_pre_hook(lambda *args: calls.append(1))
    for model in (kept, recomputed):
        model(image)[0].square().sum().backward()
    assert len(calls) == 2  # forward, and once more in the backward pass
    for (name, a), b in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


@pytest.mark.parametrize('frozen_stages', [0, 2, 4, 6])
def test_frozen_stages_stay_as_they_are(frozen_stages):
    model = build(frozen_stages=frozen_stages, with_cls_token=True, drop_rate=0.5, out_type='raw').train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {f'encoder.layers.{i}.' for i in range(frozen_stages, 6)}
    assert not trained & {'pos_embed', 'cls_token', 'patch_embed.projection.weight'}
    for name, parameter in model.named_parameters():
        if name.startswith('encoder.layers.'):
            assert parameter.requires_grad == any(name.startswith(prefix) for prefix in expected), name
    assert ('encoder.steps.3.global_centers' in trained) == (frozen_stages < 4)
    assert ('norm.weight' in trained) == (frozen_stages < 6)
    assert [layer.training for layer in model.encoder.layers] == [i >= frozen_stages for i in range(6)]
    assert not model.drop_after_pos.training


def test_save_and_load_give_the_same_output(tmp_path):
    model = build(with_cls_token=True)
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    again = build(with_cls_token=True)
    image = torch.randn(2, 3, 32, 32)
    assert not torch.equal(again(image)[0], model(image)[0])
    again.load_state_dict(torch.load(tmp_path / 'model.pth', weights_only=True))
    assert torch.equal(again(image)[0], model(image)[0])


def test_layer_depth_for_layer_wise_learning_rates():
    model = build(with_cls_token=True)
    depth = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {total for _, total in depth.values()} == {8}
    assert depth['patch_embed.projection.weight'][0] == depth['pos_embed'][0] == depth['cls_token'][0] == 0
    assert depth['encoder.layers.0.norm1.weight'][0] == 1
    assert depth['encoder.steps.3.global_centers'][0] == depth['encoder.layers.3.norm1.weight'][0] == 4
    assert depth['norm.weight'][0] == model.get_layer_depth('head.weight', 'backbone.')[0] == 7
