"""The contract that every method of reducing tokens keeps, whatever it does; a method in ``METHODS`` is found here."""

import math

import pytest
import torch
from published_files import reference
from torch.utils._python_dispatch import TorchDispatchMode

from mmstvit.functional.matching import bipartite_soft_matching
from mmstvit.functional.reduction import compose, merge_weighted
from mmstvit.layers.steps import METHODS, TRAINED, SelfAttention
from mmstvit.models import STViT

ARCH = dict(embed_dims=24, num_layers=6, num_heads=3, feedforward_channels=48)
SHORT = dict(ARCH, num_layers=4)  # which every method reduces too, and is traced in less time
# Of each method options that reduce, and those that reduce nothing (None where a method always does).
OPTIONS = {
    'STGM': (dict(grid=(2, 3), layer=1), None),
    'ToMe': (dict(r=5), dict(r=0)),
    'ATM': (dict(r=5), dict(r=0)),
    'PiToMe': (dict(keep_rate=0.9), dict(keep_rate=1)),
    'DPCKNN': (dict(keep_rate=0.6), dict(keep_rate=1.0)),
    'GridPool': (dict(keep_rate=0.6), dict(budget=1)),
    'ToMeSD': (dict(r=30), dict(budget=1)),
    'Expedite': (dict(keep_rate=0.5), dict(keep_rate=1)),
    'TopK': (dict(keep_rate=0.7), dict(keep_rate=1)),
    'EViT': (dict(keep_rate=0.7), dict(r=0)),
    'ATS': (dict(keep_rate=0.7), dict(keep_rate=1)),
    'RepresentationShift': (dict(keep_rate=0.8), dict(keep_rate=[1] * 6)),
    'Random': (dict(keep_rate=0.7), dict(r=[0] * 6, fuse_last=True)),
    'DTEM': (dict(r=5), dict(r=0)),
    'DynamicViT': (dict(keep_rate=0.7), dict(keep_rate=1)),
    'LTMP': (dict(keep_rate=0.9), dict(budget=1)),
}
MERGING = ('ToMe', 'ATM', 'PiToMe', 'DPCKNN', 'GridPool', 'DTEM')  # methods whose tokens stand for a number of patches
DROPPING = ('TopK', 'ATS', 'RepresentationShift', 'Random', 'DynamicViT')  # methods that lose patches
IMAGE = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
PATCHES = 8 * 10

every_method = pytest.mark.parametrize('method', METHODS)


def build(method, options=None, arch=ARCH, **settings):
    options = OPTIONS[method][0] if options is None else options
    torch.manual_seed(0)
    settings = {**dict(img_size=(32, 40), patch_size=4, with_cls_token=True), **settings}
    return STViT(arch, reduce=dict(type=method, **options), **settings).eval()


def tokens_of(model):
    """The tokens after each layer."""
    kept = []
    for step in model.encoder.steps:
        step.register_forward_hook(lambda step, args, tokens: kept.append(tokens))
    model(IMAGE)
    return kept


def test_every_method_is_tested():
    assert set(OPTIONS) == set(METHODS)
    for method in METHODS:
        assert any(type(step) is not SelfAttention for step in build(method, arch=SHORT).encoder.steps)


@every_method
def test_tokens_become_fewer_and_prefix_tokens_stay(method):
    kept = tokens_of(build(method))
    counts = [tokens.x.shape[1] for tokens in kept]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1 + PATCHES if method == 'ToMeSD' else counts[-1] < PATCHES
    for tokens in kept:
        prefix = torch.zeros(2, tokens.x.shape[1], 1)
        prefix[:, 0] = 1
        spread = compose(tokens.trace).unmerge(prefix)  # the class token is the image of the class token alone
        assert torch.equal(spread[:, 0], torch.ones(2, 1)) and not spread[:, 1:].any()


@every_method
def test_token_map_has_a_row_for_each_patch(method):
    """Rows sum to 1; those of dropped patches are zeros, so that the map says what is lost."""
    for tokens in tokens_of(build(method)):
        eye = torch.eye(tokens.x.shape[1]).expand(2, -1, -1)
        rows = compose(tokens.trace).unmerge(eye)
        assert rows.shape == (2, 1 + PATCHES, tokens.x.shape[1])
        if method in (*DROPPING, 'LTMP'):
            assert ((rows == 0) | (rows == 1)).all()
            there = tokens.x.shape[1] if tokens.size is None else tokens.size.sum(dim=(1, 2))
            assert (rows.sum(dim=(1, 2)) == there).all()
            assert (rows.sum(dim=1) <= 1).all() or method == 'LTMP'  # which merges too
            assert (rows.sum(dim=2) <= 1).all()
        else:
            assert torch.allclose(rows.sum(dim=-1), torch.ones(2, 1 + PATCHES), atol=1e-5)
        sums = compose(tokens.trace).merge(torch.eye(1 + PATCHES).expand(2, -1, -1))
        assert sums.shape == (2, tokens.x.shape[1], 1 + PATCHES)


@pytest.mark.parametrize('method', MERGING)
def test_sizes_sum_to_the_patches(method):
    for tokens in tokens_of(build(method)):
        size = torch.ones(2, 1 + PATCHES, 1) if tokens.size is None else tokens.size
        assert torch.equal(size.sum(dim=1), torch.full((2, 1), 1.0 + PATCHES))
        ones = torch.ones(2, 1 + PATCHES, 1)
        assert torch.equal(compose(tokens.trace).merge(ones), size)
        assert torch.equal(size[:, 0], torch.ones(2, 1))


@pytest.mark.parametrize('method', MERGING)
def test_merging_is_a_partition(method):
    trace = compose(tokens_of(build(method))[-1].trace)
    x = torch.randn(2, 1 + PATCHES, 3)
    spread = trace.unmerge(trace.merge(x))
    source = trace.unmerge(torch.arange(trace.merge(x).shape[1])[None, :, None].expand(2, -1, -1))[..., 0]
    for b in range(2):
        assert source[b].unique().tolist() == list(range(trace.merge(x).shape[1]))  # each patch in one, none is empty
        for token in source[b].unique():
            members = source[b] == token
            assert (spread[b, members] == spread[b, members][0]).all()
            assert torch.allclose(spread[b, members][0], x[b, members].sum(0), atol=1e-5)


@every_method
def test_each_image_gets_what_it_gets_alone(method):
    model = build(method, out_type='featmap')
    alone = torch.cat([model(image[None])[0] for image in IMAGE])
    assert torch.allclose(model(IMAGE)[0], alone, atol=1e-5)


@pytest.mark.parametrize('method', [method for method, (_, idle) in OPTIONS.items() if idle is not None])
def test_nothing_reduced_is_the_plain_transformer(method):
    model = build(method, OPTIONS[method][1])
    plain = STViT(ARCH, (32, 40), None, patch_size=4, with_cls_token=True).eval()
    plain.load_state_dict(model.state_dict(), strict=method not in TRAINED)
    assert torch.equal(model(IMAGE)[0], plain(IMAGE)[0])


@every_method
@pytest.mark.parametrize('out_type', ['avg_featmap', 'cls_token', 'featmap', 'raw'])
def test_outputs(method, out_type):
    model = build(method, out_type=out_type)
    (out,) = model(IMAGE)
    tokens = tokens_of(model)[-1]
    grid = tokens.layout.cells or (8, 10)
    shape = {'featmap': (2, 24, *grid), 'raw': (2, tokens.x.shape[1], 24)}.get(out_type, (2, 24))
    assert out.shape == shape and out.isfinite().all()


@every_method
def test_gradients_reach_every_parameter(method):
    for with_cp in (False, True):
        model = build(method, with_cp=with_cp).train()
        model(IMAGE)[0].square().sum().backward()
        idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []


@every_method
def test_nothing_is_set_on_modules(method):
    model = build(method)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    first = model(IMAGE)[0]
    model(torch.randn(1, 3, 20, 52))
    assert torch.equal(model(IMAGE)[0], first)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


@every_method
def test_one_graph(method):
    torch._dynamo.reset()
    model = build(method, arch=SHORT)
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    assert torch.allclose(compiled(IMAGE)[0], model(IMAGE)[0], atol=1e-6)


@every_method
def test_export_without_scatter(method):
    exported = torch.export.export(build(method, arch=SHORT), (IMAGE,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == 'call_function'}
    assert names and not any('scatter' in name for name in names)


@every_method
@pytest.mark.parametrize('options', [dict(nonsense=1), dict(type=None)])
def test_wrong_options(method, options):
    with pytest.raises(ValueError, match='nonsense' if 'nonsense' in options else r'is unknown, choose from .*STGM'):
        STViT(ARCH, reduce={**dict(type=method, **OPTIONS[method][0]), **options}, with_cls_token=True)


def test_short_form_of_the_stgm():
    long = STViT(ARCH, reduce=dict(type='STGM', grid=(2, 3), layer=1, pooling='avg', use_global=False, recover=True))
    short = STViT(ARCH, semantic_grid=(2, 3), stgm_layer=1, pooling='avg', use_global=False, recover=True)
    assert str(long) == str(short)
    for a, b in zip(long.encoder.steps, short.encoder.steps, strict=True):
        assert {k: v for k, v in vars(a).items() if k[0] != '_'} == {k: v for k, v in vars(b).items() if k[0] != '_'}
    assert str(STViT(ARCH, reduce=None)) == str(STViT(ARCH, semantic_grid=None))
    with pytest.raises(ValueError, match='semantic_grid .* reduce='):
        STViT(ARCH, semantic_grid=2, reduce=dict(type='ToMe', r=2))
    with pytest.raises(ValueError, match='stgm_layer=1 has no effect with reduce=None'):
        STViT(ARCH, stgm_layer=1, reduce=None)


def test_options_alone_and_in_groups():
    alone = STViT(ARCH, patch_size=8, qkv_bias=False, layer_scale_init_value=0.1, stgm_layer=1)
    grouped = STViT(
        ARCH, embed=dict(patch_size=8), block=dict(qkv_bias=False, layer_scale_init_value=0.1), stgm_layer=1
    )
    assert str(alone) == str(grouped)
    with pytest.raises(ValueError, match='qkv_bias is given twice'):
        STViT(ARCH, qkv_bias=False, block=dict(qkv_bias=False))
    with pytest.raises(ValueError, match="block has no option 'patch_size'"):
        STViT(ARCH, block=dict(patch_size=8))


# ------------------------------------------------------------------------------------------------------------ ToMe
class Operators(TorchDispatchMode):
    """Notes the operators that compute or copy something, with the shape of the result, and no views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not (function.is_view or '_unsafe_view' in function.__name__):
            self.names.append((function.__name__, tuple((out[0] if isinstance(out, tuple) else out).shape)))
        return out


def naive_matching(metric, r, num_prefix):
    """The place that each token of one image goes to, by the words of the paper."""
    metric = metric / metric.norm(dim=-1, keepdim=True)
    total = len(metric)
    even = [i for i in range(num_prefix, total) if i % 2 == 0]
    odd = [i for i in range(num_prefix, total) if i % 2 == 1]
    edges = []
    for i in even:
        similarities = [float(metric[i] @ metric[j]) for j in odd]
        edges.append((max(similarities), i, odd[similarities.index(max(similarities))]))
    merged = {i: j for _, i, j in sorted(edges, reverse=True)[:r]}
    order = [*range(num_prefix), *(i for i in even if i not in merged), *odd]
    return [order.index(merged.get(i, i)) for i in range(total)]


@pytest.mark.parametrize('num_prefix', [0, 1, 2])
@pytest.mark.parametrize('total, r', [(17, 0), (17, 3), (16, 7), (12, 5), (4, 1)])
def test_matching_is_that_of_the_paper(total, r, num_prefix):
    metric = torch.randn(3, total, 5, generator=torch.Generator().manual_seed(total))
    reduction = bipartite_soft_matching(metric, r, num_prefix)
    x, size = torch.randn(3, total, 2), torch.randint(1, 5, (3, total, 1)).float()
    merged, sizes = merge_weighted(reduction, x, size)
    assert merged.shape == (3, total - r, 2)
    for b in range(3):
        destination = torch.tensor(naive_matching(metric[b], r, num_prefix))
        for place in range(total - r):
            members = destination == place
            weights = size[b, members]
            assert torch.allclose(sizes[b, place], weights.sum())
            assert torch.allclose(merged[b, place], (weights * x[b, members]).sum(0) / weights.sum(), atol=1e-5)
        assert torch.equal(reduction.unmerge(merged)[b], merged[b, destination])


def test_matchings_in_turn_are_undone_in_one_copy():
    first = bipartite_soft_matching(torch.randn(2, 17, 4), 5, 1)
    second = bipartite_soft_matching(torch.randn(2, 12, 4), 3, 1)
    x = torch.randn(2, 9, 6)
    with Operators() as started:
        undone = compose((first, second)).unmerge(x)
    assert torch.equal(undone, first.unmerge(second.unmerge(x)))
    assert sum(shape[2:] == (6,) for _, shape in started.names) == 1  # what else is copied are numbers of tokens


def test_matching_and_merging_start_few_operators():
    """A GPU waits for the start of each, which is what a small network takes its time for."""
    metric, x, size = torch.randn(2, 17, 4), torch.randn(2, 17, 6), torch.ones(2, 17, 1)
    with Operators() as started:
        merge_weighted(bipartite_soft_matching(metric, 5, 1), x, size)
    assert len(started.names) <= 19, started.names


@pytest.mark.parametrize('r', [-1, 9])
def test_more_than_half_cannot_be_merged(r):
    with pytest.raises(ValueError, match='between 0 and half of the 16 tokens'):
        bipartite_soft_matching(torch.randn(1, 17, 4), r, num_prefix=1)


def test_equal_tokens_that_merge_change_nothing():
    """A token that stands for two equal ones weighs as both did."""
    torch.manual_seed(0)
    plain = STViT(ARCH, 32, patch_size=4, position='sinusoid', reduce=None, with_cls_token=True, out_type='cls_token')
    merging = STViT(
        ARCH,
        32,
        patch_size=4,
        position='sinusoid',
        reduce=dict(type='ToMe', r=[32, 0, 0, 0, 0, 0]),
        with_cls_token=True,
        out_type='cls_token',
    )
    for model in (plain.eval(), merging.eval()):
        model.pos_embed.zero_()
        model.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    image = image.unflatten(3, (4, 4)).repeat_interleave(2, dim=3).flatten(3)  # each patch twice, side by side
    assert torch.allclose(merging(image)[0], plain(image)[0], atol=1e-5)


@pytest.mark.parametrize(
    'options, removed',
    [(dict(r=3), [3] * 6), (dict(r=[4, 0, 2, 0, 0, 1]), [4, 0, 2, 0, 0, 1]), (dict(r=5, to=0), [5, 4, 3, 2, 1, 0])],
)
def test_schedules(options, removed):
    counts = [tokens.x.shape[1] for tokens in tokens_of(build('ToMe', options))]
    assert counts == [1 + PATCHES - sum(removed[: i + 1]) for i in range(6)]


@pytest.mark.parametrize('options', [dict(r=-1), dict(r=[1, 2]), dict(r=[1] * 6, to=0), dict(r=2, to=-3), dict()])
def test_wrong_schedules(options):
    with pytest.raises(ValueError):
        STViT(ARCH, reduce=dict(type='ToMe', **options))


def test_more_than_there_is_to_merge():
    """The number of tokens halves at most."""
    counts = [tokens.x.shape[1] for tokens in tokens_of(build('ToMe', dict(r=1000)))]
    assert counts == [1 + math.ceil(PATCHES / 2 ** (i + 1)) for i in range(6)]


def test_published_outputs():
    """Outputs of the authors' code: r = 8 in each block, with proportional attention."""
    weights, image, (counts, logits, sizes, source, tokens) = reference('tome_constant')
    arch = dict(embed_dims=48, num_layers=5, num_heads=4, feedforward_channels=96)
    options = dict(patch_size=8, with_cls_token=True, out_type='raw')
    model = STViT(arch, 64, dict(type='ToMe', r=8), **options).eval()
    kept = []
    for step in model.encoder.steps:
        step.register_forward_hook(lambda step, args, tokens: kept.append(tokens))
    head = {name: weights.pop(name) for name in ('head.weight', 'head.bias')}
    model.load_state_dict(weights)
    with torch.no_grad():
        (out,) = model(image)
    assert [len(tokens.x[0]) for tokens in kept] == counts.tolist()
    assert torch.allclose(out, tokens, atol=1e-5)
    assert torch.allclose(out[:, 0] @ head['head.weight'].T + head['head.bias'], logits, atol=1e-5)
    assert torch.equal(kept[-1].size[..., 0], sizes)
    trace = compose(kept[-1].trace)
    places = torch.arange(25.0).reshape(1, 25, 1).expand(2, -1, -1)
    assert torch.equal(trace.unmerge(places)[..., 0].long(), source)
