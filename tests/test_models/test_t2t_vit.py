import math

import pytest
import torch
import torch.nn.functional as F
from published_files import reference

from mmstvit.converters import convert_published_state_dict
from mmstvit.functional.position import resize_table, sinusoid_table
from mmstvit.layers.steps import Generation
from mmstvit.layers.t2t import PerformerTokens, SoftmaxTokens, T2TModule, soft_split
from mmstvit.models import STViT, T2TViT

ARCH = dict(embed_dims=32, num_layers=6, num_heads=2, feedforward_channels=64)


def randomise(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.mark.parametrize('kind,ratio', [('transformer', 3), ('performer', 2)])
def test_published_prototype(kind, ratio):
    """Outputs of the authors' code for small random networks, where such a file is at hand."""
    state, image, outputs = reference(f't2t_vit_{kind}')
    arch = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=48 * ratio)
    model = T2TViT(arch, img_size=image.shape[-1], t2t_type=kind, token_dims=16).eval()
    converted = convert_published_state_dict(state)
    assert model.load_state_dict(converted, strict=False).missing_keys == []
    feature = model(image)[0]
    logits = F.linear(feature, converted['head.layers.head.weight'], converted['head.layers.head.bias'])
    for out, expected in zip((feature, logits), outputs, strict=True):
        assert (out - expected).abs().max() <= 1e-5


def test_mmpretrain_scales_its_logits_wrongly_and_we_do_not():
    """One layer of mmpretrain's T2T-ViT against the formula, and ours: queries are to be divided, not multiplied."""
    t2t_vit = pytest.importorskip('mmpretrain.models.backbones.t2t_vit')
    theirs = t2t_vit.T2TTransformerLayer(input_dims=27, embed_dims=16, num_heads=1, feedforward_channels=16).eval()
    randomise(theirs)
    ours = SoftmaxTokens(27, 16)
    ours.load_state_dict(
        {
            'qkv.weight': theirs.attn.qkv.weight,
            'proj.weight': theirs.attn.proj.weight,
            'proj.bias': theirs.attn.proj.bias,
        }
    )
    x = torch.randn(2, 9, 27)

    def formula(scale):
        q, k, v = F.linear(x, theirs.attn.qkv.weight).chunk(3, -1)
        return v + theirs.attn.proj((scale * q @ k.transpose(1, 2)).softmax(-1) @ v)

    assert torch.allclose(ours(x), formula(27**-0.5), atol=1e-5)
    assert not torch.allclose(theirs.attn(x), formula(27**-0.5), atol=0.1)
    assert torch.allclose(theirs.attn(x), formula(16**0.5), atol=1e-4)


def test_soft_split_is_overlapping_neighbours():
    x = torch.randn(2, 3, 9, 11)
    out = soft_split(x, 3, 2, 1)
    assert out.shape == (2, 5, 6, 27)
    padded = F.pad(x, (1, 1, 1, 1))
    # Channel, kernel row, kernel column.
    assert torch.equal(out[:, 2, 3], padded[:, :, 4:7, 6:9].flatten(1))


def performer_formula(layer, x):
    q, k, v = (t.double() for t in layer.qkv(x).chunk(3, -1))
    w, m = layer.features.double(), len(layer.features)
    phi = lambda u: (u @ w.T - u.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(m)  # noqa: E731
    q, k = phi(q), phi(k)
    y = torch.einsum('bnm,bmc->bnc', q, torch.einsum('bnm,bnc->bmc', k, v))
    y = y / ((q * k.sum(1, keepdim=True)).sum(-1, keepdim=True) + 1e-8)
    return v + F.linear(y, layer.proj.weight.double(), layer.proj.bias.double())


@pytest.mark.parametrize('size', [0.1, 1.0, 3.0, 8.0])
def test_performer_is_the_formula_and_stays_finite(size):
    """In double precision the formula needs no trick; where its exponentials are tiny the epsilon decides."""
    torch.manual_seed(0)
    layer = PerformerTokens(27, 16).eval()
    x = size * torch.randn(2, 50, 27)
    assert torch.allclose(layer(x).double(), performer_formula(layer, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_performer_in_half_precision(dtype):
    torch.manual_seed(0)
    layer = PerformerTokens(27, 16)
    x = (100 * torch.randn(2, 50, 27)).requires_grad_()
    with torch.autocast('cpu', dtype=dtype):
        out = layer(x)
    out.float().square().mean().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_features_are_orthogonal_fixed_and_saved():
    layer = PerformerTokens(27, 16)
    assert torch.allclose(layer.features @ layer.features.T, 8 * torch.eye(8), atol=1e-5)
    assert 'features' in layer.state_dict() and 'features' not in dict(layer.named_parameters())


def test_positions():
    table = sinusoid_table(5, 6)
    assert table[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (2 / 6)))
    assert table[3, 5].item() == pytest.approx(math.cos(3 / 10000 ** (4 / 6)))
    model = T2TViT(ARCH, img_size=64)
    assert model.pos_embed.shape == (1, 4, 4, 32) and not model.pos_embed.requires_grad
    assert torch.equal(model.pos_embed.flatten(0, 2), sinusoid_table(17, 32)[1:])
    assert 'pos_embed' not in dict(model.named_parameters())


@pytest.mark.parametrize('kind', ['transformer', 'performer'])
@pytest.mark.parametrize('size', [(64, 64), (97, 131), (33, 64), (20, 300)])
def test_any_size(kind, size):
    model = randomise(T2TViT(ARCH, img_size=64, t2t_type=kind, token_dims=8, with_cls_token=False, out_type='featmap'))
    out = model(torch.randn(2, 3, *size))[0]
    assert out.shape == (2, 32, *model.patch_embed.grid_of(size)) and out.isfinite().all()


def test_tokenizer_and_sparsifier_are_independent():
    image = torch.randn(1, 3, 64, 64)
    for tokenizer in (None, dict(type='ConvStem'), dict(type='T2TModule', token_dims=8, t2t_type='performer')):
        for sparsifier in (dict(semantic_grid=None), dict(semantic_grid=2), dict(semantic_grid=2, recover=True)):
            options = dict(stgm_layer=1) if sparsifier['semantic_grid'] else {}
            model = STViT(ARCH, 64, tokenizer=tokenizer, out_type='featmap', **sparsifier, **options).eval()
            side = 2 if sparsifier['semantic_grid'] and not sparsifier.get('recover') else 4
            assert model(image)[0].shape == (1, 32, side, side)
    semantic = T2TViT(ARCH, 64, semantic_grid=2, stgm_layer=1, token_dims=8)
    assert len(semantic.encoder.layers) == 6 and isinstance(semantic.encoder.steps[1], Generation)


def test_file_of_another_size():
    source = randomise(T2TViT(ARCH, img_size=64, token_dims=8))
    model = T2TViT(ARCH, img_size=(96, 48), token_dims=8)
    model.load_state_dict(source.state_dict())
    assert torch.equal(model.pos_embed, resize_table(source.pos_embed, (6, 3)))


@pytest.mark.parametrize('arch,millions', [('t-14', 21.47), ('t-19', 39.08), ('t-24', 64.00), ('7', 4.3), ('14', 21.5)])
def test_parameters_as_published(arch, millions):
    """Of the classifier; what is not trained is counted in the published figures too."""
    model = T2TViT(arch)
    head = 1000 * (model.embed_dims + 1)
    table = model.pos_embed.numel() + model.embed_dims
    features = sum(b.numel() for n, b in model.named_buffers() if n.endswith('features'))
    count = sum(p.numel() for p in model.parameters()) + head
    assert any(abs(count + extra - millions * 1e6) < 0.06e6 for extra in (0, table, table + features))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='t-15'), "arch='t-15' is unknown"),
        (dict(t2t_type='linear'), "t2t_type='linear' is unknown"),
        (dict(with_cls_token=False, out_type='cls_token'), 'needs with_cls_token'),
        (dict(position='learned'), 'position of T2TViT is fixed'),
        (dict(embed=dict(tokenizer=dict(type='ConvStem'))), 'tokenizer of T2TViT is fixed'),
        (dict(block=dict(qkv_bias=True)), 'qkv_bias of T2TViT is fixed'),
        (dict(block=dict(norm_cfg=dict(type='LN'))), 'norm_cfg of T2TViT is given alone'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        T2TViT(**options)


def test_wrong_tokenizers():
    with pytest.raises(ValueError, match="tokenizer type 'Patch' is unknown"):
        STViT(tokenizer=dict(type='Patch'))
    with pytest.raises(ValueError, match='patch_size=8 has no effect with tokenizer'):
        STViT(tokenizer=dict(type='ConvStem'), patch_size=8)
    with pytest.raises(ValueError, match="position='fixed' is unknown"):
        STViT(position='fixed')


def test_gradients_reach_every_parameter():
    for kind in ('transformer', 'performer'):
        model = randomise(T2TViT(ARCH, img_size=64, t2t_type=kind, token_dims=8)).train()
        model(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_grid_is_that_of_the_tokens():
    module = T2TModule(3, 16, token_dims=8).eval()
    for size in ((64, 64), (50, 71), (17, 33)):
        assert module(torch.zeros(1, 3, *size)).shape == (1, *module.grid_of(size), 16)
